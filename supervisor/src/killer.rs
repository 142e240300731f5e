//! The thread that looks through `/proc` and kills.
//!
//! It is there before the first process is: when a fork bomb has taken the last process id, no thread
//! can be made to end it. And it is a thread, so that a look at ten thousand processes delays no ping.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use tokio::sync::{mpsc, oneshot};

/// Jobs that wait; each comes from one call, whose caller waits too.
const JOBS_MAX: usize = 64;

type Job = Box<dyn FnOnce() + Send>;

/// See the module. The thread ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Killer {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Mutex<Thread>,
}

enum Thread {
    /// With the jobs that it will have. A thread that cannot be made now may be later.
    ToBeStarted(Arc<Mutex<mpsc::Receiver<Job>>>),
    Running(JoinHandle<()>),
    Ended,
}

impl Killer {
    /// Without its thread yet.
    pub(crate) fn new() -> Self {
        let (jobs, queue) = mpsc::channel::<Job>(JOBS_MAX);
        Self {
            jobs: Some(jobs),
            thread: Mutex::new(Thread::ToBeStarted(Arc::new(Mutex::new(queue)))),
        }
    }

    /// Starts the thread, unless it runs. To be called before there is anything to kill.
    pub(crate) fn start(&self) -> io::Result<()> {
        let mut thread = self.thread();
        if let Thread::ToBeStarted(queue) = &*thread {
            *thread = Thread::Running(spawn(Arc::clone(queue))?);
        }
        Ok(())
    }

    fn thread(&self) -> MutexGuard<'_, Thread> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
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
        // The end may come before any session.
        self.start().ok()?;
        self.jobs.as_ref()?.send(job).await.ok()?;
        receiver.await.ok()
    }
}

fn spawn(queue: Arc<Mutex<mpsc::Receiver<Job>>>) -> io::Result<JoinHandle<()>> {
    let run = move || {
        let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(job) = queue.blocking_recv() {
            job();
        }
    };
    thread::Builder::new()
        .name("killer".into())
        .stack_size(256 * 1024)
        .spawn(run)
}

impl std::fmt::Debug for Thread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ToBeStarted(_) => "ToBeStarted",
            Self::Running(_) => "Running",
            Self::Ended => "Ended",
        })
    }
}

impl Drop for Killer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Thread::Running(thread) = std::mem::replace(&mut *self.thread(), Thread::Ended) {
            // A panic there has been printed.
            let _ = thread.join();
        }
    }
}
