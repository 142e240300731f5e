//! A supervisor with a directory to call back to, and a workspace: a sandbox without walls.

use std::collections::HashMap;
use std::fs;
use std::io::{Seek as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use tempfile::TempDir;
use tokio::net::{UnixListener, UnixStream};

use crate::gateway::{Client, Token, hello, http2, soon};

/// The workload's user when the tests run as root. It need not exist.
const WORKLOAD_ID: u32 = 12_345;

#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// PID 1 of a fresh pid namespace, with its own /proc.
    pub(crate) is_init: bool,
    pub(crate) expire_time_unix_ms: u64,
    /// Limit of processes of the workload's user.
    pub(crate) processes_max: Option<u64>,
    pub(crate) workload: Option<(u32, u32)>,
}

pub(crate) struct Sandbox {
    pub(crate) directory: TempDir,
    listener: Option<UnixListener>,
    pub(crate) child: Child,
    pub(crate) token: Token,
    sessions: u8,
}

impl Sandbox {
    pub(crate) fn start() -> Self {
        Self::with(&Options::default())
    }

    pub(crate) fn with(options: &Options) -> Self {
        let directory = new_directory(options);
        let listener = UnixListener::bind(directory.path().join("callback/gateway.sock"));
        let callback = format!("dir:{}", directory.path().join("callback").display());
        let mut command = command(options, directory.path(), &callback);
        let child = command
            .stdin(Stdio::null())
            .spawn()
            .expect("the supervisor starts");
        let listener = Some(listener.expect("bound"));
        Self {
            directory,
            listener,
            child,
            token: FIRST_TOKEN,
            sessions: 0,
        }
    }

    pub(crate) fn workspace(&self) -> PathBuf {
        self.directory.path().join("workspace")
    }

    /// The supervisor's next attempt to reach the gateway.
    pub(crate) async fn accept(&self) -> UnixStream {
        let listener = self.listener.as_ref().expect("the gateway is there");
        soon(listener.accept()).await.expect("accepted").0
    }

    /// A whole session.
    pub(crate) async fn session(&mut self) -> Client {
        let mut stream = self.accept().await;
        let next = self.next_token();
        let (_, rest) = hello(&mut stream, &self.token, &next).await;
        self.token = next;
        http2(stream, rest).await
    }

    pub(crate) fn next_token(&mut self) -> Token {
        self.sessions += 1;
        [0x80 + self.sessions; 32]
    }

    /// The gateway is gone, and its socket with it.
    pub(crate) fn stop_listening(&mut self) {
        self.listener = None;
        fs::remove_file(self.socket()).expect("removed");
    }

    pub(crate) fn listen_again(&mut self) {
        self.listener = Some(UnixListener::bind(self.socket()).expect("bound"));
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("callback/gateway.sock")
    }

    /// Waits for the supervisor to end by itself.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let pid = rustix::process::Pid::from_child(&self.child);
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::NONBLOCK);
        let pidfd = pidfd.expect("the child is not reaped yet");
        #[allow(unsafe_code, reason = "the descriptor is owned")]
        // SAFETY: the descriptor is owned by the AsyncFd.
        let ended = unsafe { tokio::io::unix::AsyncFd::register(pidfd) }.expect("watched");
        drop(soon(ended.readable()).await.expect("readable"));
        self.child.wait().expect("reaped")
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // Killed like this, a supervisor that is not PID 1 leaves its processes behind.
        let below = descendants(self.child.id() as i32);
        let _ = self.child.kill();
        let _ = self.child.wait();
        for (pid, _) in below {
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

pub(crate) const FIRST_TOKEN: Token = [0x11; 32];

/// The ids that the workload runs as.
pub(crate) fn workload_ids() -> (u32, u32) {
    let own = (
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw(),
    );
    if own.0 == 0 {
        (WORKLOAD_ID, WORKLOAD_ID)
    } else {
        own
    }
}

pub(crate) fn is_root() -> bool {
    rustix::process::getuid().is_root()
}

pub(crate) fn new_directory(options: &Options) -> TempDir {
    let directory = tempfile::tempdir().expect("temporary directory");
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(directory.path(), open).expect("permissions");
    fs::create_dir(directory.path().join("callback")).expect("made");
    let workspace = directory.path().join("workspace");
    fs::create_dir(&workspace).expect("made");
    if is_root() {
        let (uid, gid) = options.workload.unwrap_or_else(workload_ids);
        std::os::unix::fs::chown(&workspace, Some(uid), Some(gid)).expect("given away");
    }
    directory
}

/// The supervisor's command, with its bootstrap on a descriptor.
pub(crate) fn command(options: &Options, directory: &Path, callback: &str) -> Command {
    let (uid, gid) = options.workload.unwrap_or_else(workload_ids);
    let bootstrap = format!(
        r#"{{"sandbox_id":"sbx-test","token":"{}","expire_time_unix_ms":{},
            "workload":{{"uid":{uid},"gid":{gid},"home":"/home/test","user":"tester"}},
            "workspace":"{}","oom_score_adj":500}}"#,
        "11".repeat(32),
        options.expire_time_unix_ms,
        directory.join("workspace").display(),
    );
    let mut file = tempfile::tempfile().expect("temporary file");
    file.write_all(bootstrap.as_bytes()).expect("written");
    file.rewind().expect("rewound");
    let number = file.as_raw_fd().to_string();
    let other = std::env::var_os("COFFERDAM_SUPERVISOR");
    let built = || env!("CARGO_BIN_EXE_cofferdam-supervisor").into();
    let mut command = Command::new(other.unwrap_or_else(built));
    command.args(["--callback", callback, "--config-fd", &number]);
    let options = options.clone();
    #[allow(unsafe_code, reason = "runs between fork and exec")]
    // SAFETY: only system calls.
    unsafe {
        command.pre_exec(move || prepare(&options));
    }
    inherit(&mut command, file);
    command
}

/// Lets a child of the command have this descriptor.
pub(crate) fn inherit(command: &mut Command, file: fs::File) {
    #[allow(unsafe_code, reason = "runs between fork and exec")]
    // SAFETY: one system call.
    unsafe {
        command.pre_exec(move || {
            Ok(rustix::io::fcntl_setfd(
                &file,
                rustix::io::FdFlags::empty(),
            )?)
        });
    }
}

#[allow(unsafe_code, reason = "runs between fork and exec")]
fn prepare(options: &Options) -> std::io::Result<()> {
    if options.is_init {
        become_init()?;
    }
    if let Some(max) = options.processes_max {
        let limit = rustix::process::Rlimit {
            current: Some(max),
            maximum: Some(max),
        };
        rustix::process::setrlimit(rustix::process::Resource::Nproc, limit)?;
    }
    // SAFETY: takes numbers. The test's own end takes the supervisor along.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    Ok(())
}

/// A pid namespace begins with a child, so this forks; the parent only waits.
#[allow(unsafe_code, reason = "runs between fork and exec")]
fn become_init() -> std::io::Result<()> {
    use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
    use rustix::thread::UnshareFlags;

    let (uid, gid) = (
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw(),
    );
    let mut flags = UnshareFlags::NEWPID | UnshareFlags::NEWNS;
    if uid != 0 {
        flags |= UnshareFlags::NEWUSER;
    }
    // SAFETY: one thread only.
    unsafe { rustix::thread::unshare_unsafe(flags) }?;
    if uid != 0 {
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
        fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))?;
    }
    // SAFETY: one thread only; the parent does nothing but wait and exit.
    unsafe {
        match libc::fork() {
            -1 => return Err(std::io::Error::last_os_error()),
            0 => {}
            child => {
                // Among them the pipe on which `spawn` waits for the exec.
                libc::close_range(3, libc::c_uint::MAX, 0);
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                let mut status = 0;
                while libc::waitpid(child, &mut status, 0) == -1 {}
                libc::_exit(if libc::WIFEXITED(status) {
                    libc::WEXITSTATUS(status)
                } else {
                    255
                });
            }
        }
    }
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )?;
    mount(
        "proc",
        "/proc",
        "proc",
        MountFlags::empty(),
        None::<&std::ffi::CStr>,
    )?;
    Ok(())
}

/// pid → (parent, state), of everybody on this machine.
fn processes() -> HashMap<i32, (i32, char)> {
    let mut all = HashMap::new();
    for entry in fs::read_dir("/proc").expect("listed").flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else {
            continue;
        };
        let Some((_, rest)) = stat.rsplit_once(") ") else {
            continue;
        };
        let mut fields = rest.split(' ');
        let state = fields
            .next()
            .and_then(|state| state.chars().next())
            .expect("a state");
        let parent = fields
            .next()
            .and_then(|parent| parent.parse().ok())
            .expect("a parent");
        all.insert(pid, (parent, state));
    }
    all
}

/// Everybody below a process.
pub(crate) fn descendants(root: i32) -> Vec<(i32, char)> {
    let all = processes();
    let is_below = |mut pid: i32| {
        while let Some((parent, _)) = all.get(&pid) {
            if *parent == root {
                return true;
            }
            pid = *parent;
        }
        false
    };
    all.iter()
        .filter(|(pid, _)| is_below(**pid))
        .map(|(pid, (_, state))| (*pid, *state))
        .collect()
}

/// Makes a tree the workload's own.
pub(crate) fn give(path: &Path) {
    if !is_root() {
        return;
    }
    let (uid, gid) = workload_ids();
    std::os::unix::fs::lchown(path, Some(uid), Some(gid)).expect("given away");
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path).expect("listed").flatten() {
            give(&entry.path());
        }
    }
}

/// A test that cannot be made here says so.
#[allow(clippy::print_stdout, reason = "a skip prints its reason")]
pub(crate) fn skip(reason: &str) {
    println!("skipped: {reason}");
}
