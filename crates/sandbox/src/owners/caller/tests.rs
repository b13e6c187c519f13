//! What was read of a caller counts only while that waits.

use super::*;
use crate::heard::trial::{PATH, PATH_AT, Trial};

/// Runs `work` on a thread that has a working directory of its own.
fn on_a_desk(listener: Arc<Listener>, work: impl FnOnce(&mut Desk) + Send) {
    let run = || {
        rbuild_sys::namespace::unshare_root_of_this_thread().unwrap();
        let table = Arc::new(Mutex::new(Table::new(Credentials::of(1, 2, &[]))));
        work(&mut Desk::open(listener, table).unwrap());
    };
    std::thread::scope(|scope| scope.spawn(run).join().unwrap());
}

/// What each way to learn something of the caller answers.
fn answers(desk: &mut Desk, call: &Call) -> Vec<(&'static str, Option<Errno>)> {
    let address = call.args[PATH_AT];
    let process = desk.process(call).err();
    let caller = Caller::new(desk, call);
    vec![
        ("process", process),
        ("read", caller.read(address, &mut [0; 4]).err()),
        ("text", caller.text(address, 100).err()),
        ("credentials", caller.credentials().err()),
        (
            "become_other",
            caller.become_other(Credentials::of(3, 4, &[])).err(),
        ),
    ]
}

#[test]
fn row09_what_is_learned_of_who_does_not_wait_any_more_is_dropped() {
    let trial = Trial::new();
    let call = trial.call;
    notify::set_mark(call.thread, 0).unwrap();
    on_a_desk(Arc::clone(&trial.listener), |desk| {
        for (way, error) in answers(desk, &call) {
            assert_eq!(error, None, "{way}, while it waits");
        }
        let text = Caller::new(desk, &call).text(call.args[PATH_AT], 100);
        assert_eq!(text.as_deref(), Ok(PATH));
    });
    let mark = notify::mark(call.thread);
    assert_eq!(mark, Ok(1), "it became another");
    trial.answer();
    notify::set_mark(call.thread, 0).unwrap();
    on_a_desk(Arc::clone(&trial.listener), |desk| {
        for (way, error) in answers(desk, &call) {
            assert_eq!(error, Some(Errno::SRCH), "{way}, afterwards");
        }
    });
    assert_eq!(notify::mark(call.thread), Ok(0), "nobody became another");
}
