//! Threads beside a walk, for the work on what it finds. Owns their number and their queue; nothing is started for a walk
//! that finds little to do, which is what a build that changes nothing does.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Scope;

/// A first job with less to read is done by the walk itself.
const SMALL_BYTES: u64 = 1 << 18;

/// The workers of one walk, as its visitor has them. Dropping it does what is left and lets them end.
pub(crate) struct Workers<'scope, 'env, J: Send + 'static> {
    scope: &'scope Scope<'scope, 'env>,
    run: &'scope (dyn Fn(J) + Sync),
    queue: Arc<Queue<J>>,
    /// Jobs under way at once, beyond which the walk does them itself.
    most_jobs: usize,
    most_threads: usize,
    threads: usize,
    is_first: bool,
}

struct Queue<J> {
    state: Mutex<State<J>>,
    changed: Condvar,
}

struct State<J> {
    jobs: VecDeque<J>,
    /// Jobs that wait or are being done.
    under_way: usize,
    /// Threads that wait for a job.
    idle: usize,
    is_closed: bool,
}

impl<'scope, 'env, J: Send + 'static> Workers<'scope, 'env, J> {
    /// Workers that `run` each job, as many as the machine has processors; no more than `most_jobs` are under way at once.
    pub(crate) fn new(
        scope: &'scope Scope<'scope, 'env>,
        most_jobs: usize,
        run: &'scope (dyn Fn(J) + Sync),
    ) -> Self {
        let state = State {
            jobs: VecDeque::new(),
            under_way: 0,
            idle: 0,
            is_closed: false,
        };
        Self {
            scope,
            run,
            queue: Arc::new(Queue {
                state: Mutex::new(state),
                changed: Condvar::new(),
            }),
            most_jobs,
            most_threads: rbuild_sys::process::processors(),
            threads: 0,
            is_first: true,
        }
    }

    /// Has `job`, which works on so many `bytes`, done: by this thread if it is small and the first, or enough is under
    /// way, which also bounds what jobs keep open.
    pub(crate) fn give(&mut self, job: J, bytes: u64) {
        if std::mem::take(&mut self.is_first) && bytes < SMALL_BYTES {
            return (self.run)(job);
        }
        let mut state = self.queue.lock();
        if state.under_way >= self.most_jobs {
            drop(state);
            return (self.run)(job);
        }
        state.jobs.push_back(job);
        state.under_way += 1;
        let wants_thread = state.idle < state.jobs.len() && self.threads < self.most_threads;
        drop(state);
        self.queue.changed.notify_one();
        if wants_thread {
            self.start();
        }
    }

    fn start(&mut self) {
        let (queue, run) = (Arc::clone(&self.queue), self.run);
        let work = move || {
            while let Some(job) = queue.wait() {
                run(job);
                queue.lock().under_way -= 1;
            }
        };
        let thread = std::thread::Builder::new().name("files".to_owned());
        // Where no more threads may be had, those there are do it, or this one at the end.
        self.threads += usize::from(thread.spawn_scoped(self.scope, work).is_ok());
    }
}

impl<J: Send + 'static> Drop for Workers<'_, '_, J> {
    fn drop(&mut self) {
        // Closed first: a job that panics here must not leave threads that wait for ever.
        self.queue.lock().is_closed = true;
        self.queue.changed.notify_all();
        while let Some(job) = self.queue.take().filter(|_| !std::thread::panicking()) {
            (self.run)(job);
        }
    }
}

impl<J> Queue<J> {
    fn lock(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<J> {
        self.lock().jobs.pop_front()
    }

    /// The next job; `None` once there will be none.
    fn wait(&self) -> Option<J> {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            if state.is_closed {
                return None;
            }
            state.idle += 1;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread::ThreadId;

    fn run(jobs: usize, most: usize, bytes: u64) -> (HashSet<ThreadId>, usize) {
        let (threads, done) = (Mutex::new(HashSet::new()), AtomicUsize::new(0));
        let work = |_: usize| {
            threads.lock().unwrap().insert(std::thread::current().id());
            std::thread::sleep(std::time::Duration::from_millis(1));
            done.fetch_add(1, Ordering::SeqCst);
        };
        std::thread::scope(|scope| {
            let mut workers = Workers::new(scope, most, &work);
            (0..jobs).for_each(|job| workers.give(job, bytes));
        });
        (threads.into_inner().unwrap(), done.into_inner())
    }

    #[test]
    fn every_job_is_done_once_however_many_are_under_way() {
        for most in [0, 1, 3, 100] {
            for jobs in [0, 1, 2, 50] {
                assert_eq!(
                    run(jobs, most, SMALL_BYTES).1,
                    jobs,
                    "{jobs} jobs, {most} at once"
                );
                assert_eq!(run(jobs, most, 0).1, jobs, "{jobs} small jobs, {most} at once");
            }
        }
    }

    #[test]
    fn one_small_job_starts_no_thread_and_many_jobs_do() {
        let here = HashSet::from([std::thread::current().id()]);
        assert_eq!(run(1, 8, 0).0, here);
        assert_eq!(run(20, 0, SMALL_BYTES).0, here);
        assert!(run(50, 8, SMALL_BYTES).0.len() > 1);
        assert!(run(50, 8, SMALL_BYTES).0.len() <= rbuild_sys::process::processors() + 1);
    }

    #[test]
    fn a_job_that_panics_ends_the_walk_and_not_the_others() {
        let done = AtomicUsize::new(0);
        let work = |job: usize| {
            assert_ne!(job, 1, "on purpose");
            done.fetch_add(1, Ordering::SeqCst);
        };
        let walk = std::panic::AssertUnwindSafe(|| {
            std::thread::scope(|scope| {
                let mut workers = Workers::new(scope, 100, &work);
                (0..30).for_each(|job| workers.give(job, SMALL_BYTES));
            });
        });
        assert!(std::panic::catch_unwind(walk).is_err());
        assert!(done.into_inner() > 0);
    }
}
