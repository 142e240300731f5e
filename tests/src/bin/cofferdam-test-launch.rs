//! Starts programs for the harness.
//!
//! `cofferdam-test-launch tree --log FILE -- PROGRAM ARG…` starts a program and becomes the reaper of everything
//! that ever descends from it, also of what leaves its parents on purpose. On stdout it says
//! `pid N` and, when the program has ended, `code N` or `signal N`; it ends itself when no
//! descendant is left. While its stdin is open it lets them live; at the end of stdin it kills
//! them all, so that a test that dies leaves nothing.
//!
//! `cofferdam-test-launch terminal -- PROGRAM ARG…` makes its stdin the controlling terminal of a new session and
//! becomes the program.

use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitCode};

use anyhow::{Context as _, Result, bail};
use cofferdam_tests::{process, wait};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "launch: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut args = std::env::args_os().skip(1);
    let mode = args.next().context("tree or terminal")?;
    let mut args: Vec<_> = args.collect();
    let split = args
        .iter()
        .position(|arg| arg == "--")
        .context("-- before the program")?;
    let command = args.split_off(split + 1);
    let (program, rest) = command.split_first().context("a program after --")?;
    let mut command = Command::new(program);
    command.args(rest);
    match (mode.to_str(), args.get(1)) {
        (Some("tree"), Some(log)) => {
            let log = OpenOptions::new().create(true).append(true).open(log)?;
            command.stdin(std::process::Stdio::null());
            command.stdout(log.try_clone()?).stderr(log);
            tree(command)
        }
        (Some("terminal"), _) => terminal(command),
        _ => bail!("tree --log FILE, or terminal"),
    }
}

fn terminal(mut command: Command) -> Result<()> {
    rustix::process::setsid().context("setsid")?;
    rustix::process::ioctl_tiocsctty(std::io::stdin()).context("TIOCSCTTY")?;
    Err(command.exec().into())
}

fn tree(mut command: Command) -> Result<()> {
    let own = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(own)).context("become a subreaper")?;
    let child = command.spawn().context("start the program")?;
    say(&format!("pid {}", child.id()))?;
    std::thread::spawn(move || {
        let mut nothing = Vec::new();
        let _ = std::io::stdin().read_to_end(&mut nothing);
        kill_descendants(own);
    });
    reap(&child)
}

/// Until nobody is left.
fn reap(child: &Child) -> Result<()> {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid.as_raw_nonzero().get().cast_unsigned() == child.id() => {
                say(&words(status))?;
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CHILD) => return Ok(()),
            Err(errno) => return Err(errno).context("wait"),
        }
    }
}

fn words(status: WaitStatus) -> String {
    let status = std::process::ExitStatus::from_raw(status.as_raw());
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("code {code}"),
        (None, signal) => format!("signal {}", signal.unwrap_or_default()),
    }
}

/// Nobody escapes: those whose parents die become our own children. Ends with the process, when
/// `reap` finds nobody left.
fn kill_descendants(own: Pid) {
    loop {
        for pid in process::descendants(own.as_raw_nonzero().get().cast_unsigned()) {
            if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        }
        wait::pause();
    }
}

fn say(line: &str) -> Result<()> {
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{line}")?;
    Ok(stdout.flush()?)
}
