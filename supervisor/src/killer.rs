//! The thread that looks through `/proc` and kills.
//!
//! It is there from the start: when a fork bomb has taken the last process id, no thread can be made
//! to end it. And it is a thread, so that a look at ten thousand processes delays no ping.

use std::io;
use std::thread::{self, JoinHandle};

use tokio::sync::{mpsc, oneshot};

/// Jobs that wait; each comes from one call, whose caller waits too.
const JOBS_MAX: usize = 64;

type Job = Box<dyn FnOnce() + Send>;

/// See the module. The thread ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Killer {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Killer {
    pub(crate) fn start() -> io::Result<Self> {
        let (jobs, mut queue) = mpsc::channel::<Job>(JOBS_MAX);
        let run = move || {
            while let Some(job) = queue.blocking_recv() {
                job();
            }
        };
        let thread = thread::Builder::new()
            .name("killer".into())
            .stack_size(256 * 1024)
            .spawn(run)?;
        Ok(Self {
            jobs: Some(jobs),
            thread: Some(thread),
        })
    }

    /// Runs a job. Cancelled after it was queued, the job still runs: killing half a tree helps
    /// nobody.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (sender, receiver) = oneshot::channel();
        // Whoever asked may have gone; then nobody is told.
        let job = Box::new(move || drop(sender.send(job())));
        self.jobs.as_ref()?.send(job).await.ok()?;
        receiver.await.ok()
    }
}

impl Drop for Killer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed.
            let _ = thread.join();
        }
    }
}
