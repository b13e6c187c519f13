//! Names that are exchanged by a second thread while something is done with them.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, RenameFlags};

/// Exchanges the names `a` and `b` again and again until `work` is done, or has panicked. How often it succeeded: one of them
/// may be gone for a moment.
pub fn racing(a: &Path, b: &Path, work: impl FnOnce()) -> u64 {
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let exchanger = scope.spawn(|| {
            let mut exchanges = 0;
            while !stop.load(Ordering::Relaxed) {
                let done = rustix::fs::renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE);
                exchanges += u64::from(done.is_ok());
            }
            exchanges
        });
        let stopping = Stop(&stop);
        work();
        drop(stopping);
        exchanger
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
