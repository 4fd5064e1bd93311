//! Threads that decompress and apply bodies, behind a bounded queue.

use crossbeam_channel::{Sender, TrySendError, bounded};
use std::panic::{AssertUnwindSafe, catch_unwind};
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

/// A pool of threads. They end when it is dropped, after what is queued.
#[derive(Debug)]
pub(super) struct Pool {
    queue: Sender<Job>,
}

impl Pool {
    pub(super) fn new(threads: usize, queue: usize) -> std::io::Result<Pool> {
        let (send, receive) = bounded::<Job>(queue);
        for i in 0..threads.max(1) {
            let receive = receive.clone();
            std::thread::Builder::new().name(format!("ingest-{i}")).spawn(move || {
                for job in receive {
                    // The result's channel is dropped with the job, which tells the one who waits.
                    if catch_unwind(AssertUnwindSafe(job)).is_err() {
                        tracing::error!("a request made the receiver panic; this is a bug");
                    }
                }
            })?;
        }
        Ok(Pool { queue: send })
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
        match self.queue.try_send(job) {
            Ok(()) => result.await.map_err(|_| JobError::Panicked),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => Err(JobError::Full),
        }
    }

    /// Jobs that wait for a thread.
    pub(super) fn queued(&self) -> usize {
        self.queue.len()
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
        let (go, wait) = bounded::<()>(0);
        let (started, running) = oneshot::channel();
        let mut first = Box::pin(pool.run(move || {
            let _ = started.send(());
            let _ = wait.recv();
        }));
        tokio::select! { biased; _ = &mut first => unreachable!("it waits"), _ = running => {} }
        let mut second = Box::pin(pool.run(|| ()));
        tokio::select! { biased; _ = &mut second => unreachable!("it waits"), () = tokio::task::yield_now() => {} }
        assert_eq!((pool.queued(), pool.run(|| ()).await), (1, Err(JobError::Full)));
        drop(go);
        assert_eq!((first.await, second.await), (Ok(()), Ok(())));
    }
}
