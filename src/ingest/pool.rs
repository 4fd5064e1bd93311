//! Threads that decompress and apply bodies, behind a bounded queue whose age is known.

use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// Why a job gave no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JobError {
    /// The queue is full.
    Full,
    /// The job panicked, which is a bug; the thread lives on.
    Panicked,
}

/// Jobs that wait, oldest first, each with when it came.
#[derive(Default)]
struct Queue {
    jobs: VecDeque<(Instant, Job)>,
    ended: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    came: Condvar,
}

/// A pool of threads. They end when it is dropped, after what is queued.
pub(super) struct Pool {
    shared: Arc<Shared>,
    most: usize,
}

impl Shared {
    /// The next job; waits for one. `None` when there will be none any more.
    fn next(&self) -> Option<Job> {
        let mut queue = self.queue.lock();
        loop {
            if let Some((_, job)) = queue.jobs.pop_front() {
                return Some(job);
            }
            if queue.ended {
                return None;
            }
            self.came.wait(&mut queue);
        }
    }
}

impl Pool {
    pub(super) fn new(threads: usize, queue: usize) -> std::io::Result<Pool> {
        // Dropped, and so its threads ended, where one of them does not start.
        let pool = Pool { shared: Arc::default(), most: queue };
        for i in 0..threads.max(1) {
            let shared = Arc::clone(&pool.shared);
            std::thread::Builder::new().name(format!("ingest-{i}")).spawn(move || {
                while let Some(job) = shared.next() {
                    // The result's channel is dropped with the job, which tells the one who waits.
                    if catch_unwind(AssertUnwindSafe(job)).is_err() {
                        tracing::error!("a request made the receiver panic; this is a bug");
                    }
                }
            })?;
        }
        Ok(pool)
    }

    /// Runs `work` on a thread of the pool; it runs to its end even when nobody waits any more.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JobError> {
        let (done, result) = oneshot::channel();
        let job: Job = Box::new(move || {
            // A client that hung up does not want to know.
            let _ = done.send(work());
        });
        {
            let mut queue = self.shared.queue.lock();
            if queue.jobs.len() >= self.most {
                return Err(JobError::Full);
            }
            queue.jobs.push_back((Instant::now(), job));
        }
        self.shared.came.notify_one();
        result.await.map_err(|_| JobError::Panicked)
    }

    /// Jobs that wait for a thread.
    pub(super) fn queued(&self) -> usize {
        self.shared.queue.lock().jobs.len()
    }

    /// How long the oldest of them has been waiting; zero where none waits.
    pub(super) fn age(&self) -> Duration {
        self.shared.queue.lock().jobs.front().map_or(Duration::ZERO, |(came, _)| came.elapsed())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.queue.lock().ended = true;
        self.shared.came.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_reported_and_the_thread_lives_on() {
        let pool = Pool::new(1, 4).expect("starts");
        assert_eq!(
            pool.run(|| if true {
                panic!("on purpose")
            })
            .await,
            Err(JobError::Panicked)
        );
        assert_eq!(pool.run(|| 7).await, Ok(7));
    }

    #[tokio::test]
    async fn a_full_queue_refuses() {
        let pool = Pool::new(1, 1).expect("starts");
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let (started, running) = oneshot::channel();
        let mut first = Box::pin(pool.run(move || {
            let _ = started.send(());
            let _ = wait.recv();
        }));
        tokio::select! { biased; _ = &mut first => unreachable!("it waits"), _ = running => {} }
        let mut second = Box::pin(pool.run(|| ()));
        tokio::select! { biased; _ = &mut second => unreachable!("it waits"), () = tokio::task::yield_now() => {} }
        assert_eq!((pool.queued(), pool.run(|| ()).await), (1, Err(JobError::Full)));
        while pool.age() < Duration::from_millis(5) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(go);
        assert_eq!((first.await, second.await), (Ok(()), Ok(())));
        assert_eq!((pool.queued(), pool.age()), (0, Duration::ZERO), "it recovers by itself");
    }
}
