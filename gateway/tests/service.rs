//! The service as systemd and people meet it: start, readiness, signals, exit codes.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A place for one gateway, with a driver that never comes.
struct World {
    home: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let world = Self {
            home: tempfile::tempdir().unwrap(),
        };
        // Any ELF file does as long as nothing is started with it.
        let supervisor = world.path("libexec/cofferdam-supervisor");
        std::fs::create_dir_all(supervisor.parent().unwrap()).unwrap();
        std::fs::copy("/bin/true", &supervisor).unwrap();
        std::fs::set_permissions(&supervisor, std::fs::Permissions::from_mode(0o755)).unwrap();
        world
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.home.path().join(relative)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cofferdam-gateway"));
        let own = |(name, _): &(std::ffi::OsString, _)| {
            let name = name.to_string_lossy();
            !name.starts_with("COFFERDAM_") && !name.starts_with("XDG_")
        };
        command
            .env_clear()
            .envs(std::env::vars_os().filter(own))
            .env("XDG_CONFIG_HOME", self.path("none"))
            .env("COFFERDAM_CONFIG", self.config())
            .args(["--state-dir", self.path("state").to_str().unwrap()])
            .args(["--runtime-dir", self.path("run").to_str().unwrap()])
            .args(["--libexec", self.path("libexec").to_str().unwrap()])
            .args(arguments);
        command
    }

    /// A file with nothing in it, so that none of the host's is read.
    fn config(&self) -> PathBuf {
        let path = self.path("config.toml");
        if !path.exists() {
            std::fs::write(&path, "").unwrap();
        }
        path
    }

    fn gateway(&self) -> Command {
        let socket = format!("never={}", self.path("never.sock").display());
        self.command(&["--compute-driver-socket", &socket])
    }

    fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn socket(&self) -> PathBuf {
        self.path("run/gateway.sock")
    }
}

/// A running gateway; killed if the test forgets it.
struct Running {
    child: Child,
    stdout: BufReader<std::process::ChildStdout>,
}

impl Running {
    /// Starts it and waits until it listens.
    fn start(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert!(line.starts_with("listening on unix:/"), "{line:?}");
        Self { child, stdout }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap();
    }

    fn exit_code(mut self) -> Option<i32> {
        // Its end closes the pipe.
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "");
        self.child.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already, as a rule.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_bad_configuration_ends_with_78_before_anything_is_made() {
    let world = World::new();
    std::fs::write(
        world.path("config.toml"),
        "colour = 1\n[defaults]\npids = 1\n",
    )
    .unwrap();
    for arguments in [
        &[][..],
        &["config", "check"],
        &["config", "show", "--effective"],
    ] {
        let output = world.output(arguments);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{stderr}");
        for part in [
            "3 problems",
            "config.toml:1: colour",
            "config.toml:3: defaults.pids",
        ] {
            assert!(stderr.contains(part), "{stderr}");
        }
        assert_eq!(text(&output.stdout), "");
    }
    assert!(!world.path("state").exists() && !world.path("run").exists());
}

#[test]
fn a_good_configuration_is_said_to_be_good_and_shown() {
    let world = World::new();
    let sockets = [
        "--compute-driver-socket",
        "acme=/acme.sock",
        "--socket",
        "/own.sock",
    ];
    let output = world.output(&[&["config", "check"], &sockets[..]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let output = world.output(&[&["config", "show", "--effective"], &sockets[..]].concat());
    let stdout = text(&output.stdout);
    for part in [
        "path = \"/own.sock\"",
        "# --socket",
        "[drivers.acme]",
        "default_driver = \"acme\"",
    ] {
        assert!(stdout.contains(part), "{stdout}");
    }
    assert!(!world.path("state").exists());
}

#[test]
fn a_drivers_settings_are_checked_against_what_it_says_it_takes() {
    let world = World::new();
    let program = world.path("libexec/cofferdam-driver-acme");
    let schema =
        r#"{"type":"object","additionalProperties":false,"properties":{"zone":{"type":"string"}}}"#;
    let script =
        format!("#!/bin/sh\n[ \"$*\" = --describe ] && echo '{{\"settings_schema\":{schema}}}'\n");
    install(&program, &script);
    let check = |settings: &str| {
        let text = format!("[drivers.acme.settings]\n{settings}\n");
        std::fs::write(world.path("config.toml"), text).unwrap();
        let output = world.output(&["config", "check"]);
        (output.status.code(), text_of(&output))
    };
    let (code, said) = check("zone = \"north\"");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("the configuration is good"), "{said}");
    let (code, said) = check("zone = 7\nzoen = \"north\"");
    assert_eq!(code, Some(78), "{said}");
    for part in ["2 problems", "drivers.acme.settings.zone", "zoen"] {
        assert!(said.contains(part), "{said}");
    }
    // What cannot be asked is no mistake in the configuration.
    install(&program, "#!/bin/sh\nexit 3\n");
    let (code, said) = check("zone = 7");
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("warning: drivers.acme.settings: not checked"),
        "{said}"
    );
}

/// By a process of its own: what another thread forks meanwhile would hold the file open for writing,
/// and a file that is cannot be executed.
fn install(program: &Path, script: &str) {
    let write = "printf %s \"$1\" > \"$2\" && chmod 755 \"$2\"";
    let mut command = Command::new("/bin/sh");
    command.args(["-c", write, "install", script]).arg(program);
    assert!(command.status().unwrap().success());
}

/// Both streams.
fn text_of(output: &Output) -> String {
    text(&output.stdout) + &text(&output.stderr)
}

#[test]
fn wrong_flags_end_with_2() {
    let output = World::new().output(&["--no-such-flag"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn systemd_is_told_and_a_signal_ends_it_in_order() {
    let world = World::new();
    let notify = UnixDatagram::bind(world.path("notify")).unwrap();
    notify.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = world.gateway();
    command
        .env("NOTIFY_SOCKET", world.path("notify"))
        .env("WATCHDOG_USEC", "200000");
    let gateway = Running::start(command);
    let mut seen = String::new();
    let mut wait_for = |what: &str| {
        while !seen.lines().any(|line| line == what) {
            let mut buffer = [0; 4096];
            let length = notify.recv(&mut buffer).unwrap();
            seen.push_str(&text(&buffer[..length]));
            seen.push('\n');
        }
        seen.clone()
    };
    wait_for("READY=1");
    wait_for("WATCHDOG=1");
    UnixStream::connect(world.socket()).unwrap();
    gateway.signal(Signal::TERM);
    let seen = wait_for("STOPPING=1");
    assert!(seen.contains("STATUS=waiting for the drivers"), "{seen}");
    assert_eq!(gateway.exit_code(), Some(0));
    assert!(!world.socket().exists());
}

#[test]
fn hangup_only_looks_at_the_configuration() {
    let world = World::new();
    let mut command = world.gateway();
    command.stderr(Stdio::piped());
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut wait_for = |what: &str| {
        let found = lines
            .by_ref()
            .find(|line| line.as_ref().unwrap().contains(what));
        found.unwrap_or_else(|| panic!("no {what:?}")).unwrap();
    };
    let pid = Pid::from_child(&child);
    wait_for("listening");
    kill_process(pid, Signal::HUP).unwrap();
    wait_for("the configuration is good");
    std::fs::write(world.path("config.toml"), "colour = 1\n").unwrap();
    kill_process(pid, Signal::HUP).unwrap();
    wait_for("a restart would fail");
    kill_process(pid, Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_second_gateway_in_the_same_state_directory_is_refused_with_75() {
    let world = World::new();
    let first = Running::start(world.gateway());
    let output = world.gateway().output().unwrap();
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(75), "{stderr}");
    assert!(
        stderr.contains(&format!("(pid {})", first.child.id())),
        "{stderr}"
    );
    first.signal(Signal::INT);
    assert_eq!(first.exit_code(), Some(0));
    let third = Running::start(world.gateway());
    third.signal(Signal::TERM);
    assert_eq!(third.exit_code(), Some(0));
}

#[test]
fn a_gateway_that_was_killed_starts_again() {
    let world = World::new();
    let first = Running::start(world.gateway());
    first.signal(Signal::KILL);
    assert_eq!(first.exit_code(), None);
    assert!(is_socket(&world.socket()));
    let second = Running::start(world.gateway());
    UnixStream::connect(world.socket()).unwrap();
    second.signal(Signal::TERM);
    assert_eq!(second.exit_code(), Some(0));
}

fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    path.metadata()
        .is_ok_and(|metadata| metadata.file_type().is_socket())
}
