//! A real gateway, started for one test and gone without a trace after it.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::binaries::{self, Installation};
use crate::cgroup::Delegated;
use crate::cli::{Cli, Ran};
use crate::disk::SmallDisk;
use crate::home::Home;
use crate::tree::{End, Tree};
use crate::user::User;
use crate::{leaks, process, wait};

/// How the gateway ends: it may wait for executions, and for the streams that follow them.
const STOP_WITHIN: Duration = Duration::from_secs(60);

/// What a gateway is to be.
#[derive(Debug)]
pub struct Builder {
    user: User,
    config: String,
    settings: String,
    flags: Vec<String>,
    cgroup: Option<Delegated>,
    disk_bytes: Option<u64>,
    home: Option<Home>,
    uses_xdg: bool,
    has_session: bool,
}

impl Builder {
    /// Nobody has made a runtime directory for its user, as it is with cron, `su` and services.
    pub fn without_session(mut self) -> Self {
        self.has_session = false;
        self.without_settings()
    }

    /// Says nothing about directories, sockets and drivers: an ordinary user's gateway finds its
    /// own.
    pub fn without_settings(mut self) -> Self {
        self.uses_xdg = true;
        self
    }

    /// Runs gateway, drivers and CLI as this user.
    pub fn user(mut self, user: User) -> Self {
        assert!(self.home.is_none(), "the user comes before the home");
        self.user = user;
        self
    }

    /// Adds to the configuration file.
    pub fn config(mut self, toml: &str) -> Self {
        self.config.push_str(toml);
        self.config.push('\n');
        self
    }

    /// Adds to the settings of the process driver.
    pub fn process_setting(mut self, toml: &str) -> Self {
        self.settings.push_str(toml);
        self.settings.push('\n');
        self
    }

    pub fn flag(mut self, flag: &str, value: &str) -> Self {
        self.flags.extend([flag.to_owned(), value.to_owned()]);
        self
    }

    /// Attaches a third party's driver.
    pub fn driver_socket(self, name: &str, path: &Path) -> Self {
        self.flag(
            "--compute-driver-socket",
            &format!("{name}={}", path.display()),
        )
    }

    /// Gives the user cgroups of their own to limit sandboxes with.
    pub fn delegated_cgroup(mut self) -> Self {
        let delegated = Delegated::to(self.user);
        let setting = format!("cgroup_parent = {:?}", delegated.parent());
        self.cgroup = Some(delegated);
        self.process_setting(&setting)
    }

    /// Keeps its state on a disk of this size. Needs root.
    pub fn small_disk(mut self, bytes: u64) -> Self {
        self.disk_bytes = Some(bytes);
        self
    }

    /// The directory that the gateway will live in, for what has to be there before.
    pub fn home(&mut self) -> &Home {
        let user = self.user;
        self.home.get_or_insert_with(|| Home::new(user))
    }

    /// Starts it and waits until it says that it is ready.
    pub fn start(self) -> TestGateway {
        let gateway = self.start_unready();
        gateway.wait_ready();
        gateway
    }

    /// Starts it without waiting for anything.
    pub fn start_unready(mut self) -> TestGateway {
        self.home();
        let home = self.home.take().expect("just made");
        let user = self.user;
        for name in ["state", "run", "home", "xdg-run", "xdg-state", "xdg-cache"] {
            home.private(user, name);
        }
        let disk = self.disk_bytes;
        let disk = disk.map(|bytes| SmallDisk::mount(&home.join("state"), bytes));
        // Callers pass through to the socket, whose own mode says who may connect.
        binaries::open_to_all(&home.join("run"));
        let built = Installation::built();
        let installation = match user.is_other() {
            true => built.copy_to(&home.join("opt")),
            false => built,
        };
        let config = match self.uses_xdg {
            true => self.config.clone(),
            false => configuration(&home, user, &self),
        };
        home.file(user, "config.toml", &config);
        let notify = UnixDatagram::bind(home.join("notify.sock")).expect("bind");
        fs::set_permissions(home.join("notify.sock"), fs::Permissions::from_mode(0o666))
            .expect("chmod");
        let mut gateway = TestGateway {
            user,
            flags: self.flags,
            installation,
            notify,
            trees: Vec::new(),
            uses_xdg: self.uses_xdg,
            has_session: self.has_session,
            _cgroup: self.cgroup,
            disk,
            home,
        };
        gateway.launch();
        gateway
    }
}

fn configuration(home: &Home, user: User, builder: &Builder) -> String {
    let dir = |name: &str| format!("{:?}", home.join(name));
    let mut settings = format!("state_dir = {}\n", dir("state/process"));
    if user.is_root() {
        // Shared with every other root driver of this host, as it must be.
        settings.push_str("id_claims_dir = \"/run/cofferdam-test/process-ids\"\n");
    }
    settings.push_str(&builder.settings);
    format!("{}\n[drivers.process.settings]\n{settings}", builder.config)
}

/// A running gateway. When it is dropped, all its sandboxes are removed, it is told to end, and
/// nothing may be left: no process, mount, cgroup, file or socket. If the test has failed already,
/// its log is shown and everything is killed.
#[derive(Debug)]
pub struct TestGateway {
    user: User,
    flags: Vec<String>,
    installation: Installation,
    notify: UnixDatagram,
    /// The last is the gateway that runs; those before it were killed, and their drivers and
    /// sandboxes may go on.
    trees: Vec<Tree>,
    uses_xdg: bool,
    has_session: bool,
    _cgroup: Option<Delegated>,
    // Before the directory that it is mounted in.
    disk: Option<SmallDisk>,
    home: Home,
}

impl TestGateway {
    pub fn builder() -> Builder {
        Builder {
            user: User::Tester,
            config: String::new(),
            settings: String::new(),
            flags: Vec::new(),
            cgroup: None,
            disk_bytes: None,
            home: None,
            uses_xdg: false,
            has_session: true,
        }
    }

    /// With the defaults, as the user who runs the tests.
    pub fn start() -> Self {
        Self::builder().start()
    }

    pub fn user(&self) -> User {
        self.user
    }

    pub fn home(&self) -> &Home {
        &self.home
    }

    /// What its state is kept on.
    pub fn disk(&self) -> &SmallDisk {
        self.disk.as_ref().expect("a small disk")
    }

    pub fn socket(&self) -> PathBuf {
        self.runtime_dir().join("gateway.sock")
    }

    pub fn state_dir(&self) -> PathBuf {
        match self.uses_xdg {
            true => self.home.join("xdg-state/cofferdam"),
            false => self.home.join("state"),
        }
    }

    pub fn runtime_dir(&self) -> PathBuf {
        match (self.uses_xdg, self.has_session) {
            (true, true) => self.home.join("xdg-run/cofferdam"),
            (true, false) => PathBuf::from(format!("/tmp/cofferdam-{}", self.user.uid())),
            (false, _) => self.home.join("run"),
        }
    }

    pub fn pid(&self) -> u32 {
        self.tree().pid()
    }

    pub fn installation(&self) -> &Installation {
        &self.installation
    }

    /// What the gateway and its drivers have logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.home.join("gateway.log")).unwrap_or_default()
    }

    /// A call of the command-line tool on this gateway, by the gateway's user.
    pub fn cli<I: AsRef<str>>(&self, args: impl IntoIterator<Item = I>) -> Cli {
        Cli::new(&self.installation, self.user, &self.home)
            .env("COFFERDAM_GATEWAY", &self.socket().to_string_lossy())
            .args(args)
    }

    /// As `cli`, run to its end.
    pub fn run<I: AsRef<str>>(&self, args: impl IntoIterator<Item = I>) -> Ran {
        self.cli(args).run()
    }

    /// As `run`, for a call that has to succeed; its stdout without the last newline.
    #[track_caller]
    pub fn ok<I: AsRef<str>>(&self, args: impl IntoIterator<Item = I>) -> String {
        self.run(args).success()
    }

    /// As `ok`, with `--json`: the one object it writes.
    #[track_caller]
    pub fn json<I: AsRef<str>>(&self, args: impl IntoIterator<Item = I>) -> Value {
        let args = args.into_iter().map(|arg| arg.as_ref().to_owned());
        let text = self.ok(["--json".to_owned()].into_iter().chain(args));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
    }

    /// Makes a sandbox that is ready, with these flags; its id.
    #[track_caller]
    pub fn create<I: AsRef<str>>(&self, flags: impl IntoIterator<Item = I>) -> String {
        let flags = flags.into_iter().map(|flag| flag.as_ref().to_owned());
        self.ok(["create".to_owned()].into_iter().chain(flags))
    }

    /// Everything that is shown about a driver.
    #[track_caller]
    pub fn driver(&self, name: &str) -> Value {
        self.json(["driver", "inspect", name])
    }

    /// The pids of the supervisors of all its sandboxes, without the forks below them that watch one
    /// process each.
    pub fn supervisors(&self) -> Vec<u32> {
        let mut found = self.members();
        found.retain(|pid| process::command_line(*pid).starts_with("cofferdam-supervisor"));
        let all = found.clone();
        found.retain(|pid| process::parent(*pid).is_none_or(|parent| !all.contains(&parent)));
        found
    }

    /// Every process that descends from a gateway of this test.
    pub fn members(&self) -> Vec<u32> {
        self.trees.iter().flat_map(Tree::members).collect()
    }

    /// Waits for `READY=1`, as a service manager does.
    #[track_caller]
    pub fn wait_ready(&self) {
        let end = Instant::now() + wait::PATIENCE;
        let mut message = [0; 4096];
        self.notify
            .set_read_timeout(Some(Duration::from_millis(50)))
            .expect("set a timeout");
        while Instant::now() < end {
            if let Ok(length) = self.notify.recv(&mut message) {
                let text = String::from_utf8_lossy(&message[..length]);
                if text.lines().any(|line| line == "READY=1") {
                    return;
                }
            }
            if let Some(how) = self.tree().end() {
                panic!(
                    "the gateway ended ({how:?}) before it was ready:\n{}",
                    self.log()
                );
            }
        }
        panic!("the gateway did not say READY=1; its log:\n{}", self.log());
    }

    pub fn signal(&self, signal: Signal) {
        self.tree().signal(signal);
    }

    /// Waits until the gateway's own process has ended.
    #[track_caller]
    pub fn wait_end(&self) -> End {
        self.tree()
            .wait(STOP_WITHIN)
            .unwrap_or_else(|| panic!("the gateway did not end in {STOP_WITHIN:?}"))
    }

    /// `kill -9`, and a new gateway in the same place.
    pub fn kill_and_restart(&mut self) {
        self.signal(Signal::KILL);
        assert_eq!(self.wait_end(), End::Signal(9));
        self.launch();
        self.wait_ready();
    }

    /// A new gateway where one has ended.
    pub fn restart(&mut self) {
        assert!(self.tree().end().is_some(), "the gateway still runs");
        self.launch();
        self.wait_ready();
    }

    fn launch(&mut self) {
        let home = &self.home;
        let mut command = Command::new(self.installation.gateway());
        command.arg("--config").arg(home.join("config.toml"));
        if !self.uses_xdg {
            command.arg("--state-dir").arg(home.join("state"));
            command.arg("--runtime-dir").arg(home.join("run"));
            command.arg("--socket").arg(self.socket());
        }
        command.arg("--libexec").arg(&self.installation.libexec);
        command.args(&self.flags);
        environment(&mut command, home);
        if !self.has_session {
            command.env_remove("XDG_RUNTIME_DIR");
        }
        command.env("NOTIFY_SOCKET", home.join("notify.sock"));
        let log = home.join("gateway.log");
        let tree = Tree::start(self.user, &command, &log, &self.installation.launcher);
        if let Some(cgroup) = &self._cgroup {
            cgroup.adopt(tree.pid());
        }
        self.trees.push(tree);
    }

    fn tree(&self) -> &Tree {
        self.trees.last().expect("a gateway was launched")
    }

    /// Shows the log of a test that failed.
    fn tell(&self) {
        let _ = writeln!(
            std::io::stderr().lock(),
            "--- log of the gateway in {}\n{}---",
            self.home.path().display(),
            tail(&self.log(), 16 << 10)
        );
    }

    /// Ends everything, and fails if anything is left.
    fn finish(&mut self) {
        let mut sandboxes = Vec::new();
        if self.tree().end().is_none() {
            sandboxes = self.remove_sandboxes();
            self.signal(Signal::TERM);
            assert_eq!(self.wait_end(), End::Code(0), "the gateway's end");
        }
        let log = self.log();
        assert!(!log.contains("panicked at"), "something panicked");
        leaks::check_processes(&mut self.trees);
        leaks::check_mounts(self.home.path(), &sandboxes);
        leaks::check_cgroups(&sandboxes);
        leaks::check_sockets(self.home.path());
        leaks::check_files(&self.home, &sandboxes);
        if !self.has_session {
            // Its lock stays for its next start, which there will not be.
            fs::remove_dir_all(self.runtime_dir()).expect("remove the runtime directory");
        }
    }

    /// All that are there; the ids of all that ever were.
    fn remove_sandboxes(&self) -> Vec<String> {
        let mut ids: Vec<String> = lines(&self.ok(["ls", "--all", "--quiet"]));
        if !ids.is_empty() {
            let remove = ["rm", "--force"].map(str::to_owned).into_iter();
            self.ok(remove.chain(ids.iter().cloned()));
        }
        let ended = self.ok(["--json", "ps", "--all"]);
        for line in lines(&ended) {
            let execution: Value = serde_json::from_str(&line).expect("an execution as JSON");
            if let Some(id) = execution["sandbox_id"].as_str() {
                ids.push(id.to_owned());
            }
        }
        ids.sort();
        ids.dedup();
        ids
    }
}

impl Drop for TestGateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return self.tell();
        }
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.finish())) {
            self.tell();
            resume_unwind(panic);
        }
    }
}

/// Nothing of the tester's own environment reaches a program under test.
pub(crate) fn environment(command: &mut Command, home: &Home) {
    command.env_clear();
    command.env(
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    );
    command.env("HOME", home.join("home"));
    command.env("XDG_RUNTIME_DIR", home.join("xdg-run"));
    command.env("XDG_STATE_HOME", home.join("xdg-state"));
    command.env("XDG_CACHE_HOME", home.join("xdg-cache"));
    command.env("RUST_BACKTRACE", "1");
    if let Some(filter) = std::env::var_os("COFFERDAM_LOG") {
        command.env("COFFERDAM_LOG", filter);
    }
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

/// The end of a text, from the beginning of a line on.
fn tail(text: &str, bytes_max: usize) -> &str {
    let from = text.len().saturating_sub(bytes_max);
    match text.as_bytes()[from..]
        .iter()
        .position(|byte| *byte == b'\n')
    {
        Some(newline) if from > 0 => &text[from + newline + 1..],
        _ => text,
    }
}
