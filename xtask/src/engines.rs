//! `cargo xtask engines`: the platforms and tools that tests and benchmarks compare with.
//!
//! As root on a Debian-like machine the missing ones are installed; elsewhere they are listed.
//! Nothing on the machine is started or configured, except by `start-docker` and `start-podman`, which
//! run engines of their own that share nothing with those that may be there.

mod daemon;
mod docker;
mod own;
mod podman;
mod python;

use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result};

use crate::workspace;
pub(crate) use own::Own;

/// One engine or tool: how to recognise it, which Debian package has it, what it is for.
struct Engine {
    program: &'static str,
    version: &'static [&'static str],
    package: &'static str,
    purpose: &'static str,
}

const DOCKERD: &str = "dockerd";
const PODMAN: &str = "podman";

const ENGINES: &[Engine] = &[
    Engine {
        program: "bwrap",
        version: &["--version"],
        package: "bubblewrap",
        purpose: "benchmarks: the raw platform beside the process driver",
    },
    Engine {
        program: "busybox",
        version: &["--help"],
        package: "busybox-static",
        purpose: "tests: a static program for root file systems without a libc",
    },
    Engine {
        program: "docker-compose",
        version: &["--version"],
        package: "docker-compose",
        purpose: "tests: a gateway in a container, as packaging/compose.yaml makes it",
    },
    Engine {
        program: DOCKERD,
        version: &["--version"],
        package: "docker.io",
        purpose: "tests: the platform of the docker driver; benchmarks: the raw platform",
    },
    Engine {
        program: "docker-registry",
        version: &["--version"],
        package: "docker-registry",
        purpose: "tests: images that have to be pulled, with and without credentials",
    },
    Engine {
        program: PODMAN,
        version: &["--version"],
        package: "podman",
        purpose: "tests: the platform of the podman driver",
    },
    Engine {
        program: "python3",
        version: &[
            "-c",
            "import ensurepip, platform; print('Python', platform.python_version(), 'with venv')",
        ],
        package: "python3-venv",
        purpose: "tests: the example driver in Python",
    },
];

/// Shows what is present; as root on Debian, installs what is missing.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Install nothing; fail if anything is missing.
    #[arg(long)]
    check: bool,

    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Start a dockerd whose data, socket and pid file are all in DIR; returns when it answers.
    StartDocker {
        /// Must be on a disk with room for images; created if absent.
        dir: PathBuf,
    },
    /// Stop the dockerd that `start-docker DIR` started.
    StopDocker {
        /// The same directory.
        dir: PathBuf,
    },
    /// Start a Podman service whose data and socket are all in DIR; returns when it answers.
    StartPodman {
        /// Must be on a disk with room for images; created if absent.
        dir: PathBuf,
    },
    /// Stop the service that `start-podman DIR` started, and remove its containers.
    StopPodman {
        /// The same directory.
        dir: PathBuf,
    },
}

pub(crate) fn main(args: Args) -> Result<ExitCode> {
    match args.action {
        Some(Action::StartDocker { dir }) => {
            let socket = docker::start(&dir)?;
            println!("unix://{}", socket.display());
            return Ok(ExitCode::SUCCESS);
        }
        Some(Action::StopDocker { dir }) => {
            docker::stop(&dir)?;
            return Ok(ExitCode::SUCCESS);
        }
        Some(Action::StartPodman { dir }) => {
            let socket = podman::start(&dir)?;
            println!("unix://{}", socket.display());
            return Ok(ExitCode::SUCCESS);
        }
        Some(Action::StopPodman { dir }) => {
            podman::stop(&dir)?;
            return Ok(ExitCode::SUCCESS);
        }
        None => {}
    }
    if !args.check {
        install_missing()?;
    }
    let missing = report();
    if !missing.is_empty() {
        println!(
            "to install the missing: apt-get install {}",
            missing.join(" ")
        );
        return Ok(ExitCode::FAILURE);
    }
    python::environment(args.check)
}

fn install_missing() -> Result<()> {
    let missing: Vec<_> = ENGINES
        .iter()
        .filter(|engine| version(engine).is_none())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        println!("not root: installing nothing");
        return Ok(());
    }
    if on_path("apt-get").is_none() {
        println!("no apt-get here: installing nothing");
        return Ok(());
    }
    workspace::check(apt().args(["update", "-qq"]))?;
    // Packaged daemons would be started by their maintainer scripts; --no-install-recommends keeps
    // it small, and a machine without an init system starts nothing.
    workspace::check(
        apt()
            .args(["install", "-y", "-qq", "--no-install-recommends"])
            .args(missing.iter().map(|engine| engine.package)),
    )
    .context("install the missing engines")
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    // What apt says is progress, not this task's result.
    command.stdout(std::io::stderr());
    command
}

/// Prints one line for each engine and returns the packages of those missing.
fn report() -> Vec<&'static str> {
    let mut missing = Vec::new();
    for engine in ENGINES {
        match version(engine) {
            Some(version) => println!("present  {:<10} {version}", engine.program),
            None => {
                println!("missing  {:<10} {}", engine.program, engine.purpose);
                missing.push(engine.package);
            }
        }
    }
    missing
}

/// The first line of what the program says about itself; none if it does not run.
fn version(engine: &Engine) -> Option<String> {
    let program = on_path(engine.program)?;
    let output = Command::new(program)
        .args(engine.version)
        .stdin(Stdio::null())
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().next().unwrap_or_default();
    Some(
        line.split(" multi-call")
            .next()
            .unwrap_or_default()
            .to_owned(),
    )
}

/// Looks a program up, in the administrator's directories too: they are not on everyone's PATH.
fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(program))
        .find(|candidate| candidate.is_file())
}
