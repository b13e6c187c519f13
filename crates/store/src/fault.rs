//! Places where a test can stop the process, to see that the store survives it. Costs nothing outside of this crate's own
//! tests.

/// Under test, kills the process at the nth point it passes if `RBUILD_STORE_FAULT` is n (or at the named point).
#[cfg(not(test))]
#[inline]
pub(crate) const fn point(_name: &'static str) {}

/// Under test, kills the process at the nth point it passes if `RBUILD_STORE_FAULT` is n (or at the named point).
#[cfg(test)]
pub(crate) fn point(name: &'static str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};
    static WANTED: OnceLock<Option<String>> = OnceLock::new();
    static PASSED: AtomicU32 = AtomicU32::new(0);
    let wanted = WANTED.get_or_init(|| std::env::var("RBUILD_STORE_FAULT").ok());
    let Some(wanted) = wanted else { return };
    let passed = PASSED.fetch_add(1, Ordering::SeqCst) + 1;
    if *wanted == name || wanted.parse() == Ok(passed) {
        let kill = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        unreachable!("SIGKILL was sent: {kill:?}");
    }
}
