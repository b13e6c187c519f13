//! Who is taken for the caller.

use super::*;
use crate::heard::trial::Trial;

#[test]
fn row09_who_does_not_wait_any_more_is_nobody_to_make_a_socket_for() {
    let trial = Trial::new();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let proc = rustix::fs::open("/proc", flags, Mode::empty()).unwrap();
    let caller = || Caller::of(&trial.listener, &trial.call, proc.as_fd()).map(|caller| caller.user);
    assert_eq!(caller(), Ok(rustix::process::geteuid().as_raw()));
    trial.answer();
    assert_eq!(caller(), Err(Errno::SRCH));
}
