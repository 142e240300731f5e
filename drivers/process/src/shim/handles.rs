//! Descriptors opened with the driver's identity, before the shim gives it up.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with,
};
use rustix::pipe::{PipeFlags, pipe_with};

use super::failure::Context;
use crate::sandbox::layout;
use crate::sandbox::plan::ShimPlan;
use crate::sandbox::report::{Failure, Stage};

/// How many control connections may wait to be accepted.
const BACKLOG: i32 = 16;

/// What the shim reaches the outside with, once it has no other way.
#[derive(Debug)]
pub(crate) struct Handles {
    /// The sandbox's `run` directory.
    pub(crate) run_dir: OwnedFd,
    /// The directory that holds the gateway's socket, as a mount of its own: a plain descriptor
    /// would lead through `..` to the rest of the host. An ordinary user can make that mount only
    /// in his own namespace, see [`Handles::confine_callback`].
    callback_dir: Option<OwnedFd>,
    /// The host's `/proc`, to learn start times.
    pub(crate) host_proc: OwnedFd,
    /// `cgroup.procs` of each hierarchy. The kernel checks a write to it against the opener.
    pub(crate) cgroup_procs: Vec<OwnedFd>,
    /// The v2 leaf.
    pub(crate) cgroup_dir: Option<OwnedFd>,
    /// The file of the plan's CPU quota.
    pub(crate) cpu_quota: Option<OwnedFd>,
    /// What the supervisor counts kills with.
    pub(crate) memory_events: Option<OwnedFd>,
    /// What it bounds programs' cpu time with.
    pub(crate) cpu_threads: Option<OwnedFd>,
    /// `shim.sock`, listening.
    pub(crate) control: UnixListener,
    /// `/dev/null`.
    pub(crate) null: OwnedFd,
    /// The supervisor's standard output and error: read here, written there.
    pub(crate) console: (OwnedFd, OwnedFd),
    /// The supervisor's executable.
    pub(crate) supervisor: OwnedFd,
}

impl Handles {
    /// Opens everything the plan names.
    pub(crate) fn open(plan: &ShimPlan, supervisor: OwnedFd) -> Result<Self, Failure> {
        let run_path = layout::run_dir(&plan.state_dir);
        let run_dir = open_dir(&run_path).at(Stage::OpenStateDir, run_path.display())?;
        let callback_dir = match open_mount(&plan.callback_dir) {
            Err(Errno::PERM) => None,
            other => Some(other.at(Stage::OpenCallbackDir, plan.callback_dir.display())?),
        };
        let mut cgroup_procs = Vec::with_capacity(plan.cgroup.procs_files.len());
        for path in &plan.cgroup.procs_files {
            let flags = OFlags::WRONLY | OFlags::CLOEXEC;
            let file = openat(CWD, path, flags, Mode::empty());
            cgroup_procs.push(file.at(Stage::OpenCgroup, path.display())?);
        }
        let cgroup_dir = match &plan.cgroup.v2_dir {
            Some(path) => Some(open_dir(path).at(Stage::OpenCgroup, path.display())?),
            None => None,
        };
        let cgroup = &plan.cgroup;
        let quota_file = cgroup.cpu_quota.as_ref().map(|quota| &*quota.file);
        let cpu_quota = open_control(quota_file, OFlags::WRONLY)?;
        let memory_events = open_control(cgroup.memory_events.as_deref(), OFlags::RDONLY)?;
        let cpu_threads = open_control(cgroup.cpu_threads.as_deref(), OFlags::WRONLY)?;
        let control = control_socket(&run_dir).at(Stage::BindControlSocket, run_path.display())?;
        let host_proc = open_dir(Path::new("/proc")).at(Stage::OpenStateDir, "/proc")?;
        let null = openat(
            CWD,
            "/dev/null",
            OFlags::RDWR | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .at(Stage::Descriptors, "/dev/null")?;
        let console = pipe_with(PipeFlags::CLOEXEC).at(Stage::Descriptors, "console pipe")?;
        rustix::io::ioctl_fionbio(&console.0, true).at(Stage::Descriptors, "console pipe")?;
        Ok(Handles {
            run_dir,
            callback_dir,
            host_proc,
            cgroup_procs,
            cgroup_dir,
            cpu_quota,
            memory_events,
            cpu_threads,
            control,
            null,
            console,
            supervisor,
        })
    }

    /// All of them, in the order in which [`Handles::received`] takes them.
    pub(crate) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let mut all = vec![
            self.supervisor.as_fd(),
            self.run_dir.as_fd(),
            self.host_proc.as_fd(),
            self.control.as_fd(),
            self.null.as_fd(),
            self.console.0.as_fd(),
            self.console.1.as_fd(),
        ];
        all.extend(self.cgroup_dir.as_ref().map(AsFd::as_fd));
        all.extend(self.cpu_quota.as_ref().map(AsFd::as_fd));
        all.extend(self.memory_events.as_ref().map(AsFd::as_fd));
        all.extend(self.cpu_threads.as_ref().map(AsFd::as_fd));
        all.extend(self.cgroup_procs.iter().map(AsFd::as_fd));
        all.extend(self.callback_dir.as_ref().map(AsFd::as_fd));
        all
    }

    /// The same ones in another process. `None`: they are not those of this plan.
    pub(crate) fn received(plan: &ShimPlan, descriptors: Vec<OwnedFd>) -> Option<Self> {
        let mut next = descriptors.into_iter();
        let handles = Handles {
            supervisor: next.next()?,
            run_dir: next.next()?,
            host_proc: next.next()?,
            control: UnixListener::from(next.next()?),
            null: next.next()?,
            console: (next.next()?, next.next()?),
            cgroup_dir: next_if(&plan.cgroup.v2_dir, &mut next)?,
            cpu_quota: next_if(&plan.cgroup.cpu_quota, &mut next)?,
            memory_events: next_if(&plan.cgroup.memory_events, &mut next)?,
            cpu_threads: next_if(&plan.cgroup.cpu_threads, &mut next)?,
            cgroup_procs: (plan.cgroup.procs_files.iter())
                .map(|_| next.next())
                .collect::<Option<_>>()?,
            callback_dir: next.next(),
        };
        next.next().is_none().then_some(handles)
    }

    /// Opens the callback directory from inside the mount namespace, if it could not be done
    /// from outside. An ordinary user's paths are as good there.
    pub(crate) fn confine_callback(&mut self, plan: &ShimPlan) -> Result<(), Failure> {
        if self.callback_dir.is_none() {
            let mount = open_mount(&plan.callback_dir);
            let mount = mount.at(Stage::OpenCallbackDir, plan.callback_dir.display())?;
            self.callback_dir = Some(mount);
        }
        Ok(())
    }

    /// The directory that holds the gateway's socket.
    pub(crate) fn callback_dir(&self) -> Result<&OwnedFd, Failure> {
        let missing = || Failure::own(Stage::OpenCallbackDir, "it was not opened");
        self.callback_dir.as_ref().ok_or_else(missing)
    }
}

/// The next descriptor for what the plan names, nothing for what it does not; the outer `None` is a
/// descriptor that is missing.
fn next_if<T>(
    named: &Option<T>,
    descriptors: &mut impl Iterator<Item = OwnedFd>,
) -> Option<Option<OwnedFd>> {
    match named {
        Some(_) => descriptors.next().map(Some),
        None => Some(None),
    }
}

fn open_control(path: Option<&Path>, flags: OFlags) -> Result<Option<OwnedFd>, Failure> {
    let Some(path) = path else { return Ok(None) };
    let file = openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty());
    Ok(Some(file.at(Stage::OpenCgroup, path.display())?))
}

/// A detached mount with the directory as its root.
fn open_mount(path: &Path) -> rustix::io::Result<OwnedFd> {
    open_tree(
        CWD,
        path,
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
    )
}

fn open_dir(path: &Path) -> rustix::io::Result<OwnedFd> {
    openat(
        CWD,
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// Binds below the directory's descriptor: a socket address holds 108 bytes, a path may be longer.
fn control_socket(run_dir: &OwnedFd) -> io::Result<UnixListener> {
    use std::os::fd::AsRawFd;
    let path = format!(
        "/proc/self/fd/{}/{}",
        run_dir.as_raw_fd(),
        layout::CONTROL_SOCKET
    );
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    bind(&socket, &SocketAddrUnix::new(&*path)?)?;
    listen(&socket, BACKLOG)?;
    Ok(UnixListener::from(socket))
}
