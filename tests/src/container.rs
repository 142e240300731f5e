//! Container engines that the tests were given: `cargo xtask test` starts one of each kind, with
//! nothing else on it.
//!
//! They are spoken to from outside, by Docker's own client, to see what a driver has done there.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;

use tempfile::TempDir;

use crate::gateway::Builder;
use crate::{binaries, wait};

/// An image with busybox and what a dynamically linked program of the tests needs.
pub const IMAGE: &str = "cofferdam-test:latest";

/// On everything that a driver makes.
const GATEWAY_LABEL: &str = "cofferdam.driver.gateway";
const SANDBOX_LABEL: &str = "cofferdam.driver.sandbox";

/// A kind of engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Docker,
    Podman,
}

/// An engine that is there.
#[derive(Debug, Clone)]
pub struct Containers {
    kind: Kind,
    host: String,
}

impl Kind {
    /// Of its driver.
    pub fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }

    fn variable(self) -> &'static str {
        match self {
            Self::Docker => "COFFERDAM_TEST_DOCKER",
            Self::Podman => "COFFERDAM_TEST_PODMAN",
        }
    }

    /// What is wrong, if it cannot be used here.
    pub(crate) fn missing(self) -> Option<String> {
        self.host().err()
    }

    /// The engine's address.
    ///
    /// # Errors
    /// The reason why there is none.
    pub fn host(self) -> Result<String, String> {
        let variable = self.variable();
        match std::env::var(variable) {
            Ok(host) if !host.is_empty() => Ok(host),
            _ => Err(format!(
                "no engine was given in {variable}; `cargo xtask test` starts one where root has \
                 what `cargo xtask engines` installs"
            )),
        }
    }
}

impl Containers {
    /// The engine of this kind, with the test's image on it.
    pub fn of(kind: Kind) -> Self {
        let containers = Self::at(kind, &kind.host().expect("asked for before"));
        containers.provide_image();
        containers
    }

    /// An engine of this kind at this address, as it is.
    pub fn at(kind: Kind, host: &str) -> Self {
        let host = host.to_owned();
        Self { kind, host }
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn host(&self) -> &str {
        &self.host
    }

    /// What its driver has to be told, as the table `[drivers.NAME.settings]`.
    pub fn settings(&self) -> String {
        let host = format!("host = {:?}\n", self.host);
        match self.kind {
            Kind::Docker => host,
            // Podman raises limits as far as it may itself; a test may not be allowed to.
            Kind::Podman => host + "ulimits = { nofile = 1024, nproc = 1024 }\n",
        }
    }

    /// Lets a gateway use it for everything that names no driver.
    pub fn for_gateway(&self, builder: Builder) -> Builder {
        self.for_gateway_with(builder, "")
    }

    /// As `for_gateway`, with more settings.
    pub fn for_gateway_with(&self, builder: Builder, settings: &str) -> Builder {
        let name = self.kind.name();
        builder.config(&format!(
            "default_driver = {name:?}\n[drivers.{name}.settings]\n{}{settings}",
            self.settings()
        ))
    }

    /// The containers of these sandboxes, running or not.
    pub fn of_sandbox(&self, id: &str) -> Vec<String> {
        let filter = format!("label={SANDBOX_LABEL}={id}");
        lines(&self.say(&["ps", "--all", "--quiet", "--no-trunc", "--filter", &filter]))
    }

    /// Fails if a gateway's driver has left anything, once the gateway has ended.
    #[track_caller]
    pub fn check_nothing_is_left(&self, gateway_id: &str) {
        let filter = format!("label={GATEWAY_LABEL}={gateway_id}");
        let left = || {
            let mut left = lines(&self.say(&["ps", "--all", "--filter", &filter]));
            left.remove(0);
            left.extend(lines(
                &self.say(&["volume", "ls", "--quiet", "--filter", &filter]),
            ));
            left
        };
        let gone = wait::within(wait::PATIENCE, || left().is_empty().then_some(()));
        assert!(gone.is_some(), "left on the engine: {:#?}", left());
    }

    /// The client's answer to a command that has to succeed.
    #[track_caller]
    pub fn say(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(
            output.status.success(),
            "docker {}: {}",
            words.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    pub fn run(&self, words: &[&str]) -> Output {
        let mut command = self.command();
        command.args(words).stdin(Stdio::null());
        command.output().expect("run docker")
    }

    fn command(&self) -> Command {
        let mut command = Command::new("docker");
        command
            .env_remove("DOCKER_CONTEXT")
            .args(["--host", &self.host]);
        command
    }

    /// Once for all tests that share the engine, whichever comes first.
    pub fn provide_image(&self) {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _turn = ONE_AT_A_TIME.lock().expect("nobody failed at it");
        if self.run(&["image", "inspect", IMAGE]).status.success() {
            return;
        }
        let root = tempfile::tempdir().expect("a directory");
        fill(&root);
        let mut tar = Command::new("tar")
            .args(["--create", "--owner=0", "--group=0", "--directory"])
            .arg(root.path())
            .arg(".")
            .stdout(Stdio::piped())
            .spawn()
            .expect("start tar");
        let archive = tar.stdout.take().expect("tar's stdout");
        let imported = self
            .command()
            .args(["import", "--change", "ENV FROM_IMAGE=yes", "-", IMAGE])
            .stdin(archive)
            .output()
            .expect("run docker");
        assert!(tar.wait().expect("wait for tar").success(), "tar failed");
        let said = String::from_utf8_lossy(&imported.stderr);
        assert!(imported.status.success(), "docker import: {said}");
    }
}

/// A root directory: busybox under all its names, and the libraries of the tests' own programs.
fn fill(root: &TempDir) {
    let root = root.path();
    for directory in ["bin", "etc", "tmp", "usr/bin", "home"] {
        fs::create_dir_all(root.join(directory)).expect("create a directory");
    }
    fs::copy(find("busybox"), root.join("bin/busybox")).expect("copy busybox");
    let applets = Command::new(find("busybox")).arg("--list").output();
    let applets = applets.expect("run busybox").stdout;
    for applet in lines(&String::from_utf8_lossy(&applets)) {
        if applet != "busybox" {
            symlink("busybox", root.join("bin").join(applet)).expect("name an applet");
        }
    }
    // Whoever runs it would be root, if that were possible.
    let setuid = root.join("bin/setuid-probe");
    fs::copy(binaries::own("cofferdam-test-probe"), &setuid).expect("copy the probe");
    fs::set_permissions(&setuid, fs::Permissions::from_mode(0o6755)).expect("chmod");
    let everybodys = fs::Permissions::from_mode(0o1777);
    fs::set_permissions(root.join("tmp"), everybodys).expect("chmod");
    let passwd = "root:x:0:0:root:/root:/bin/sh\nsandbox:x:1000:1000::/workspace:/bin/sh\n";
    fs::write(root.join("etc/passwd"), passwd).expect("write a file");
    fs::write(root.join("etc/group"), "root:x:0:\nsandbox:x:1000:\n").expect("write a file");
    // This test is linked to what the others are.
    let linked = std::env::current_exe().expect("path of the test");
    for library in libraries(&linked) {
        let place = root.join(library.strip_prefix("/").expect("an absolute path"));
        fs::create_dir_all(place.parent().expect("a directory")).expect("create a directory");
        fs::copy(&library, place).expect("copy a library");
    }
}

/// What the dynamic linker would load.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let told = Command::new("ldd").arg(program).output().expect("run ldd");
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    told.split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect()
}

fn find(program: &str) -> PathBuf {
    ["/usr/bin", "/bin", "/usr/sbin", "/sbin"]
        .iter()
        .map(|dir| Path::new(dir).join(program))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("{program} is not installed; run `cargo xtask engines`"))
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}
