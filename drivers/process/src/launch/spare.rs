//! A shim that is kept ready: started, in namespaces of its own, waiting for a plan.
//!
//! ```text
//! fill ──spawn──► spare ──take──► a launch, which sends it the plan
//!                   └─ the driver ends, or the host's mounts change ─► its socket closes, it goes
//! ```
//!
//! What a launch begins with, and what no plan changes, is done here before anybody waits for it.
//! Without a spare a launch starts its shim itself.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::process::{Child, Command};

/// A shim that has no plan yet.
#[derive(Debug)]
pub(super) struct Shim {
    pub(super) child: Child,
    pub(super) socket: UnixStream,
}

/// Room for one. Cheap to clone; all clones mean the same one.
#[derive(Debug, Clone)]
pub struct SpareShim {
    program: PathBuf,
    ready: Arc<Mutex<Option<Ready>>>,
}

#[derive(Debug)]
struct Ready {
    shim: Shim,
    /// The mount table, opened before the shim copied it.
    mounts: File,
}

impl SpareShim {
    /// Room for a shim of this program; empty.
    pub fn new(program: PathBuf) -> Self {
        SpareShim {
            program,
            ready: Arc::default(),
        }
    }

    /// Starts one, unless a good one is there. Takes a fraction of a millisecond, inside a tokio
    /// runtime. If it cannot be started the next launch will meet the same trouble, and tell.
    pub fn fill(&self) {
        let mut ready = self.lock();
        if ready.as_mut().is_some_and(Ready::is_good) {
            return;
        }
        *ready = Ready::start(&self.program).ok();
    }

    /// The process that waits for a plan, if there is one.
    pub fn pid(&self) -> Option<u32> {
        let ready = self.lock();
        ready.as_ref().and_then(|ready| ready.shim.child.id())
    }

    /// The one that is there, if it is as good as a new one.
    pub(super) fn take(&self) -> Option<Shim> {
        let mut ready = self.lock().take()?;
        ready.is_good().then_some(ready.shim)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Ready>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ready {
    fn start(program: &Path) -> io::Result<Self> {
        Ok(Ready {
            mounts: File::open("/proc/self/mountinfo")?,
            shim: spawn(program)?,
        })
    }

    /// It lives, and its copy of the mount table is what a new one would get.
    fn is_good(&mut self) -> bool {
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // The kernel tells of a change since the file was opened, see proc_pid_mounts(5).
        let mut mounts = [PollFd::new(&self.mounts, PollFlags::PRI)];
        let same = poll(&mut mounts, Some(&now)).is_ok_and(|changed| changed == 0);
        same && matches!(self.shim.child.try_wait(), Ok(None))
    }
}

/// A child without arguments, environment or descriptors but the launch socket. `posix_spawn` (there
/// is no pre-exec hook), so the size of this process does not matter.
pub(super) fn spawn(program: &Path) -> io::Result<Shim> {
    let (socket, far) = UnixStream::pair()?;
    let child = Command::new(program)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(far)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    Ok(Shim { child, socket })
}
