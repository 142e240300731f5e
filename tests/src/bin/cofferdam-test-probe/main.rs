//! Runs inside a sandbox and tries what must not work there.
//!
//! Each probe writes one JSON object: what was tried, and how it ended: "ok", or the name of the
//! error. What that ought to be is the test's business.

mod callback;
mod calls;
mod network;
mod pid_one;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::json;

/// What was tried, and how it ended.
type Findings = BTreeMap<String, String>;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "probe: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let probe = args.next().context("which probe?")?;
    let rest: Vec<String> = args.collect();
    match probe.as_str() {
        "read" => say(&rest.iter().map(|path| read(path)).collect::<Findings>()),
        "write" => say(&rest.iter().map(|path| write(path)).collect::<Findings>()),
        "network" => say(&network::probe(&rest)),
        "calls" => say(&calls::probe()),
        "pid-one" => say(&pid_one::probe()),
        "callback" => say(&callback::probe(&rest)),
        "identity" => say(&json!({
            "uid": rustix::process::geteuid().as_raw(),
            "gid": rustix::process::getegid().as_raw(),
        })),
        "burn" => burn(Duration::from_millis(number(&rest)?)),
        "serve" => serve(u16::try_from(number(&rest)?)?),
        other => bail!("no probe {other:?}"),
    }
}

fn number(args: &[String]) -> Result<u64> {
    Ok(args.first().context("a number")?.parse()?)
}

fn say(findings: &impl serde::Serialize) -> Result<()> {
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{}", serde_json::to_string(findings)?)?;
    Ok(stdout.flush()?)
}

/// Reads a file, lists a directory or follows a link.
fn read(path: &str) -> (String, String) {
    let place = Path::new(path);
    let about = fs::symlink_metadata(place);
    let result = match about {
        Ok(about) if about.is_dir() => fs::read_dir(place).map(|_| ()),
        Ok(about) if about.is_symlink() => fs::read_link(place).map(|_| ()),
        Ok(_) => fs::File::open(place).and_then(|mut file| file.read(&mut [0; 1]).map(|_| ())),
        Err(error) => Err(error),
    };
    (path.to_owned(), outcome(result))
}

/// Makes a file in a directory, or opens a file for writing.
fn write(path: &str) -> (String, String) {
    let place = Path::new(path);
    let target = match place.is_dir() {
        true => place.join("probe-was-here"),
        false => place.to_path_buf(),
    };
    let result = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(target);
    (path.to_owned(), outcome(result.map(|_| ())))
}

fn outcome(result: std::io::Result<()>) -> String {
    match result {
        Ok(()) => "ok".to_owned(),
        Err(error) => match error.raw_os_error() {
            Some(number) => name(number),
            None => error.to_string(),
        },
    }
}

/// "EPERM"; a test that reads "1" has to look it up.
fn name(number: i32) -> String {
    let known = [
        (libc::EPERM, "EPERM"),
        (libc::EACCES, "EACCES"),
        (libc::ENOENT, "ENOENT"),
        (libc::ENOSYS, "ENOSYS"),
        (libc::ENOTDIR, "ENOTDIR"),
        (libc::EROFS, "EROFS"),
        (libc::ESRCH, "ESRCH"),
        (libc::EINVAL, "EINVAL"),
        (libc::EBADF, "EBADF"),
        (libc::EFAULT, "EFAULT"),
        (libc::ENETUNREACH, "ENETUNREACH"),
        (libc::ECONNREFUSED, "ECONNREFUSED"),
        (libc::EAFNOSUPPORT, "EAFNOSUPPORT"),
        (libc::EPROTONOSUPPORT, "EPROTONOSUPPORT"),
        (libc::ENOTTY, "ENOTTY"),
        (libc::EIO, "EIO"),
    ];
    let found = known.iter().find(|(errno, _)| *errno == number);
    found.map_or_else(|| format!("errno {number}"), |(_, name)| (*name).to_owned())
}

/// Keeps two processors busy for so long, and says how much time they gave.
fn burn(wall: Duration) -> Result<()> {
    let start = Instant::now();
    let spin = move || while start.elapsed() < wall {};
    let other = std::thread::spawn(spin);
    spin();
    other.join().ok().context("a thread panicked")?;
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    say(&json!({
        "cpu_ms": used.tv_sec * 1000 + used.tv_nsec / 1_000_000,
        "wall_ms": start.elapsed().as_millis(),
    }))
}

/// Sends back what it gets, on loopback, until it is killed.
fn serve(port: u16) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    say(&json!({ "listening": port }))?;
    for stream in listener.incoming() {
        let stream = stream?;
        std::thread::spawn(move || echo(stream));
    }
    Ok(())
}

fn echo(stream: TcpStream) {
    let mut back = match stream.try_clone() {
        Ok(back) => back,
        Err(_) => return,
    };
    let _ = std::io::copy(&mut &stream, &mut back);
    let _ = back.shutdown(std::net::Shutdown::Write);
}
