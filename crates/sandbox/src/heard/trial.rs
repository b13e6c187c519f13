//! For tests: a call of this process that is heard, and whose caller lives on after the answer, as another thread would that got
//! its number.

use std::ffi::CStr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use rbuild_sys::seccomp::load_heard;
use rbuild_sys::seccomp::notify::{Answer, Call, Listener};
use rustix::fs::{AtFlags, CWD};

use crate::owners;
use crate::plan::Security;

/// What the call names.
pub(crate) const PATH: &CStr = c"/nowhere/of/a/trial";
/// The argument that points to it (`fchownat(2)`).
pub(crate) const PATH_AT: usize = 1;

/// A call that waits.
pub(crate) struct Trial {
    pub(crate) listener: Arc<Listener>,
    pub(crate) call: Call,
    answered: Receiver<()>,
    /// The caller ends when it is gone.
    _stay: Sender<()>,
}

impl Trial {
    pub(crate) fn new() -> Self {
        let (tell, told) = channel();
        let (tell_answered, answered) = channel();
        let (stay, leave) = channel::<()>();
        std::thread::spawn(move || {
            rustix::thread::set_no_new_privs(true).unwrap();
            tell.send(load_heard(&owners::program(Security::Insecure)).unwrap())
                .unwrap();
            rustix::fs::chownat(CWD, PATH, None, None, AtFlags::empty()).unwrap();
            tell_answered.send(()).unwrap();
            leave.recv().unwrap_err();
        });
        let listener = Arc::new(Listener::new(told.recv().unwrap()));
        let call = listener.next().unwrap().expect("a caller that lives");
        Self {
            listener,
            call,
            answered,
            _stay: stay,
        }
    }

    /// Answers it. Its caller goes on, and waits for something else.
    pub(crate) fn answer(&self) {
        self.listener.answer(&self.call, Answer::Value(0)).unwrap();
        self.answered.recv().unwrap();
    }
}
