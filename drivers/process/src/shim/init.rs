//! The sandbox's PID 1, from `clone3` to `execveat`.
//!
//! The first init is cloned before the root is built: so that it can wait for its cgroup while
//! the shim mounts (a migration may wait for the scheduler for milliseconds), and because
//! `CLONE_INTO_CGROUP` is checked against the identity the shim has at that time.

use std::ffi::CStr;
use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsmount, fsopen, move_mount, unmount,
};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Resource, Rlimit, Signal, WaitId, WaitIdOptions, pidfd_send_signal,
    set_parent_process_death_signal, setrlimit, setsid, waitid,
};
use rustix::thread::set_no_new_privs;

use super::failure::Context;
use super::handles::Handles;
use super::sys::{self, Fork};
use super::{caps, landlock, mask, namespaces, proc, seccomp};
use crate::sandbox::plan::{CPU_THREADS_FD, IdMapping, MEMORY_EVENTS_FD, ShimPlan};
use crate::sandbox::record::ProcessId;
use crate::sandbox::report::{Failure, Stage};

/// The interface of `cofferdam-supervisor`; the numbers are [`CALLBACK_FD`] and [`CONFIG_FD`].
const ARGV: [&CStr; 5] = [
    c"cofferdam-supervisor",
    c"--callback",
    c"dirfd:3",
    c"--config-fd",
    c"4",
];
const CALLBACK_FD: i32 = 3;
const CONFIG_FD: i32 = 4;
/// The first descriptor that is not the supervisor's.
const OTHERS_FD: i32 = 7;
/// Descriptors are moved here while the low numbers are arranged.
const LIFTED_FD: i32 = 16;

/// How long an init may take from release to exec.
const EXEC_TIMEOUT: Timespec = Timespec {
    tv_sec: 30,
    tv_nsec: 0,
};

/// Written to the status pipe right before the exec; an end without it is a death.
const ABOUT_TO_EXEC: u8 = b'x';

/// An init that waits to be released.
#[derive(Debug)]
pub(crate) struct Pending {
    pid: i32,
    pidfd: OwnedFd,
    go: OwnedFd,
    status: OwnedFd,
}

/// An init that has executed the supervisor.
#[derive(Debug)]
pub(crate) struct Init {
    pub(crate) id: ProcessId,
    pub(crate) pidfd: OwnedFd,
    pub(crate) landlock_abi: u32,
}

/// Clones an init. It joins its cgroup and then waits.
pub(crate) fn spawn(
    plan: &ShimPlan,
    handles: &Handles,
    bootstrap: &[u8],
) -> Result<Pending, Failure> {
    let config = readable(bootstrap)?;
    let (go_read, go) = pipe_with(PipeFlags::CLOEXEC).at(Stage::CloneInit, "pipe")?;
    let (status, status_write) = pipe_with(PipeFlags::CLOEXEC).at(Stage::CloneInit, "pipe")?;
    let (fork, in_cgroup) = clone(handles)?;
    match fork {
        Fork::Child => {
            drop((go, status));
            let child = Child {
                plan,
                handles,
                config,
                go: go_read,
                status: status_write,
                in_cgroup,
            };
            let failure = child.become_supervisor();
            if let Ok(text) = serde_json::to_vec(&failure) {
                let _ = rustix::io::write(&child.status, &text);
            }
            sys::exit_now(1)
        }
        Fork::Parent { pid, pidfd } => Ok(Pending {
            pid,
            pidfd,
            go,
            status,
        }),
    }
}

/// Into the v2 leaf if that may be done now, else plainly.
fn clone(handles: &Handles) -> Result<(Fork, bool), Failure> {
    if let Some(dir) = &handles.cgroup_dir
        && let Ok(fork) = sys::clone3(sys::NEW_PID, Some(dir.as_fd()))
    {
        return Ok((fork, true));
    }
    Ok((
        sys::clone3(sys::NEW_PID, None).at(Stage::CloneInit, "")?,
        false,
    ))
}

/// A descriptor from which all of `content` can be read. A pipe, whose pages are never swapped
/// out; a user with very many pipes gets small ones, and what does not fit goes to a memory file.
fn readable(content: &[u8]) -> Result<OwnedFd, Failure> {
    let stage = Stage::Descriptors;
    let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).at(stage, "pipe")?;
    match rustix::io::write(&write, content) {
        Ok(written) if written == content.len() => {
            rustix::io::ioctl_fionbio(&read, false).at(stage, "bootstrap")?;
            Ok(read)
        }
        Ok(_) | Err(Errno::AGAIN) => memory_file(content),
        Err(errno) => Err(errno).at(stage, "bootstrap"),
    }
}

fn memory_file(content: &[u8]) -> Result<OwnedFd, Failure> {
    let stage = Stage::Descriptors;
    let create = |flags| memfd_create(c"bootstrap", MemfdFlags::CLOEXEC | flags);
    // Kernels before 6.3 do not know the flag; later ones may insist on it.
    let file = match create(MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => create(MemfdFlags::empty()),
        other => other,
    };
    let mut file = File::from(file.at(stage, "memfd")?);
    file.write_all(content).at(stage, "bootstrap")?;
    file.rewind().at(stage, "bootstrap")?;
    Ok(file.into())
}

impl Pending {
    /// Lets the init go on, and returns when it has executed the supervisor. Whatever fails, no
    /// process is left.
    pub(crate) fn release(self, handles: &Handles) -> Result<Init, Failure> {
        let outcome = self.follow(handles);
        if outcome.is_err() {
            self.abandon();
        }
        let (start_time, landlock_abi) = outcome?;
        Ok(Init {
            id: ProcessId {
                pid: self.pid,
                start_time,
            },
            pidfd: self.pidfd,
            landlock_abi,
        })
    }

    /// Ends the init before its time.
    pub(crate) fn abandon(&self) {
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        let _ = waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED);
    }

    fn follow(&self, handles: &Handles) -> Result<(u64, u32), Failure> {
        // An init that has failed already does not listen, and has said why.
        let _ = rustix::io::write(&self.go, b"1");
        let said = self.read_status()?;
        match said.split_first() {
            Some((&ABOUT_TO_EXEC, [abi])) => {
                let start_time = proc::start_time(&handles.host_proc, self.pid)
                    .at(Stage::WriteRecord, "init start time")?;
                Ok((start_time, u32::from(*abi)))
            }
            Some((&ABOUT_TO_EXEC, [_, failure @ ..])) => Err(parse_failure(failure)),
            Some(_) => Err(parse_failure(&said)),
            None => Err(Failure::own(
                Stage::CloneInit,
                "the init died while it was set up",
            )),
        }
    }

    fn read_status(&self) -> Result<Vec<u8>, Failure> {
        let (mut said, mut buffer) = (Vec::new(), [0; 1024]);
        loop {
            let mut waiting = [PollFd::new(&self.status, PollFlags::IN)];
            match poll(&mut waiting, Some(&EXEC_TIMEOUT)) {
                Ok(0) => return Err(Failure::own(Stage::CloneInit, "the init did not get ready")),
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno).at(Stage::CloneInit, "status"),
            }
            match rustix::io::read(&self.status, &mut buffer).at(Stage::CloneInit, "status")? {
                0 => return Ok(said),
                count => said.extend_from_slice(&buffer[..count]),
            }
        }
    }
}

fn parse_failure(text: &[u8]) -> Failure {
    serde_json::from_slice(text)
        .unwrap_or_else(|_| Failure::own(Stage::CloneInit, "the init left a garbled report"))
}

/// The init before it is the supervisor.
struct Child<'a> {
    plan: &'a ShimPlan,
    handles: &'a Handles,
    config: OwnedFd,
    go: OwnedFd,
    status: OwnedFd,
    in_cgroup: bool,
}

impl Child<'_> {
    fn become_supervisor(&self) -> Failure {
        match self.prepare() {
            Err(failure) => failure,
            Ok(never) => never,
        }
    }

    /// Returns only what stopped it.
    fn prepare(&self) -> Result<Failure, Failure> {
        self.join_cgroup()?;
        self.wait_for_go()?;
        namespaces::become_inner_root(&self.plan.ids)?;
        setsid().at(Stage::CloneInit, "setsid")?;
        mount_proc()?;
        mask::mask_proc()?;
        if matches!(self.plan.ids, IdMapping::Single { .. }) {
            namespaces::become_workload_id(&self.plan.workload)?;
        }
        self.limit_resources()?;
        let (supervisor, status) = self.arrange_descriptors()?;
        caps::reduce(&self.plan.ids).at(Stage::DropCapabilities, "")?;
        self.die_with_shim()?;
        sys::reset_signals().at(Stage::Descriptors, "signals")?;
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
        set_no_new_privs(true).at(Stage::NoNewPrivs, "")?;
        let abi = landlock::enter().at(Stage::Landlock, "")?;
        let said = [ABOUT_TO_EXEC, u8::try_from(abi).unwrap_or(u8::MAX)];
        seccomp::install().at(Stage::Seccomp, "")?;
        rustix::io::write(&status, &said).at(Stage::ExecSupervisor, "status")?;
        Err(sys::exec_file(supervisor.as_fd(), &ARGV, &[])).at(Stage::ExecSupervisor, "")
    }

    /// Joins before the supervisor runs its first instruction, so nothing it starts escapes.
    fn join_cgroup(&self) -> Result<(), Failure> {
        if !self.in_cgroup {
            for (file, path) in self
                .handles
                .cgroup_procs
                .iter()
                .zip(&self.plan.cgroup.procs_files)
            {
                rustix::io::write(file, b"0").at(Stage::JoinCgroup, path.display())?;
            }
        }
        sys::unshare(sys::NEW_CGROUP).at(Stage::CgroupNamespace, "")
    }

    fn wait_for_go(&self) -> Result<(), Failure> {
        match rustix::io::read(&self.go, &mut [0; 1]).at(Stage::CloneInit, "go")? {
            0 => sys::exit_now(1),
            _ => Ok(()),
        }
    }

    fn limit_resources(&self) -> Result<(), Failure> {
        let both = |value| Rlimit {
            current: Some(value),
            maximum: Some(value),
        };
        setrlimit(Resource::Core, both(0)).at(Stage::ResourceLimits, "core")?;
        match self.plan.limits.nproc {
            Some(count) => {
                setrlimit(Resource::Nproc, both(count)).at(Stage::ResourceLimits, "nproc")
            }
            None => Ok(()),
        }
    }

    /// 0 to 6 are the supervisor's; all others close at the exec.
    fn arrange_descriptors(&self) -> Result<(OwnedFd, OwnedFd), Failure> {
        let stage = Stage::Descriptors;
        let lift = |fd: &OwnedFd| sys::lift(fd.as_fd(), LIFTED_FD).at(stage, "lift");
        let console = lift(&self.handles.console.1)?;
        let low = [
            (lift(&self.handles.null)?, 0),
            (sys::lift(console.as_fd(), LIFTED_FD).at(stage, "lift")?, 1),
            (console, 2),
            (lift(self.handles.callback_dir()?)?, CALLBACK_FD),
            (lift(&self.config)?, CONFIG_FD),
            (
                lift(self.or_null(&self.handles.memory_events))?,
                MEMORY_EVENTS_FD,
            ),
            (
                lift(self.or_null(&self.handles.cpu_threads))?,
                CPU_THREADS_FD,
            ),
        ];
        let rest = (lift(&self.handles.supervisor)?, lift(&self.status)?);
        for (fd, number) in &low {
            sys::place(fd.as_fd(), *number).at(stage, number)?;
        }
        sys::close_on_exec_from(OTHERS_FD).at(stage, "close_range")?;
        Ok(rest)
    }

    fn or_null<'a>(&'a self, fd: &'a Option<OwnedFd>) -> &'a OwnedFd {
        fd.as_ref().unwrap_or(&self.handles.null)
    }

    /// After the last change of credentials, which would undo it.
    fn die_with_shim(&self) -> Result<(), Failure> {
        set_parent_process_death_signal(Some(Signal::KILL)).at(Stage::ParentDeath, "")?;
        // It may have died before the signal was armed: then its end of the pipe is closed.
        let mut alive = [PollFd::new(&self.go, PollFlags::empty())];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        poll(&mut alive, Some(&now)).at(Stage::ParentDeath, "poll")?;
        if alive[0].revents().contains(PollFlags::HUP) {
            sys::exit_now(1);
        }
        Ok(())
    }
}

/// Replaces what lies on `/proc` (the old root the first time, a dead pid namespace's proc later)
/// by this pid namespace's. The new one is made first: the kernel allows it only while another
/// proc can be seen.
fn mount_proc() -> Result<(), Failure> {
    let stage = Stage::MountProc;
    let context = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC).at(stage, "fsopen")?;
    fsconfig_create(&context).at(stage, "create")?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let mount =
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).at(stage, "fsmount")?;
    unmount("/proc", UnmountFlags::DETACH).at(stage, "detach the old root")?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(&mount, "", rustix::fs::CWD, "/proc", flags).at(stage, "attach")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_bootstrap_is_read_whole_whatever_its_size() {
        for size in [0, 1, 4096, 64 * 1024, 1024 * 1024] {
            let content = vec![b'x'; size];
            let mut read = Vec::new();
            File::from(readable(&content).unwrap())
                .read_to_end(&mut read)
                .unwrap();
            assert!(read == content, "{size} bytes came out as {}", read.len());
        }
    }
}
