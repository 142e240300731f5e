//! A stand-in for the supervisor, for this crate's tests: same command line, same bootstrap, but
//! over the callback socket it takes one JSON line `{"script": …, "as": "workload" | "supervisor"}`
//! at a time, runs it with `/bin/sh`, and answers `{"code": …, "signal": …, "output": …}`.
#![allow(
    unsafe_code,
    reason = "what the real supervisor does between fork and exec, in short"
)]
#![allow(
    clippy::print_stdout,
    reason = "the console is one of the things tested"
)]

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{BorrowedFd, FromRawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};

use rustix::thread::{CapabilitySet, CapabilitySets};
use serde_json::{Value, json};

const EXPECTED: [&str; 4] = ["--callback", "dirfd:3", "--config-fd", "4"];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    assert_eq!(arguments, EXPECTED, "not the supervisor's interface");
    assert_eq!(
        std::env::vars_os().count(),
        0,
        "the environment is not empty"
    );
    assert_eq!(std::process::id(), 1);
    // SAFETY: the handler only calls _exit, which is async-signal-safe.
    unsafe { libc::signal(libc::SIGTERM, on_term as *const () as libc::sighandler_t) };
    let mut bootstrap = String::new();
    // SAFETY: descriptor 4 is the config pipe, by the launch interface; nobody else owns it.
    unsafe { File::from_raw_fd(4) }
        .read_to_string(&mut bootstrap)
        .unwrap();
    let bootstrap: Value = serde_json::from_str(&bootstrap).unwrap();
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable).unwrap();
    println!("test init for {}", bootstrap["sandbox_id"]);
    if let Ok(stream) = UnixStream::connect("/proc/self/fd/3/gateway.sock") {
        serve(stream, &bootstrap);
    }
    loop {
        // SAFETY: pause has no preconditions.
        unsafe { libc::pause() };
    }
}

extern "C" fn on_term(_: libc::c_int) {
    // SAFETY: async-signal-safe.
    unsafe { libc::_exit(0) };
}

fn serve(stream: UnixStream, bootstrap: &Value) {
    let mut answers = stream.try_clone().unwrap();
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { return };
        let request: Value = serde_json::from_str(&line).unwrap();
        let answer = run(&request, bootstrap);
        reap_orphans();
        if writeln!(answers, "{answer}").is_err() {
            return;
        }
    }
}

fn run(request: &Value, bootstrap: &Value) -> Value {
    let id = |key: &str| bootstrap["workload"][key].as_u64().unwrap() as u32;
    let (uid, gid) = (id("uid"), id("gid"));
    let mut command = Command::new("/bin/sh");
    command.args(["-c", request["script"].as_str().unwrap()]);
    command
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin");
    command.env("HOME", "/workspace").current_dir("/workspace");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if request["as"] == "workload" {
        // SAFETY: system calls only; this process has one thread.
        unsafe { command.pre_exec(move || become_workload(uid, gid)) };
    }
    match command.output() {
        Err(error) => json!({ "code": 125, "output": error.to_string() }),
        Ok(output) => {
            let text = [output.stdout, output.stderr].concat();
            let text = String::from_utf8_lossy(&text);
            let status = output.status;
            json!({ "code": status.code(), "signal": status.signal(), "output": text })
        }
    }
}

fn become_workload(uid: u32, gid: u32) -> std::io::Result<()> {
    use rustix::thread::{
        clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
        set_thread_groups, set_thread_res_gid, set_thread_res_uid,
    };
    // SAFETY: descriptor 6 is open, by the launch interface: the group that bounds cpu time.
    let group = unsafe { BorrowedFd::borrow_raw(6) };
    rustix::io::write(group, b"0")?;
    // Raising needs no privilege, but the file must be ours to open.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable)?;
    std::fs::write("/proc/self/oom_score_adj", "500")?;
    clear_ambient_capability_set()?;
    for number in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if remove_capability_from_bounding_set(capability).is_err() {
            break;
        }
    }
    // Forbidden in a one-id namespace.
    let _ = set_thread_groups(&[]);
    let (user, group) = (
        rustix::fs::Uid::from_raw(uid),
        rustix::fs::Gid::from_raw(gid),
    );
    set_thread_res_gid(group, group, group)?;
    set_thread_res_uid(user, user, user)?;
    let none = CapabilitySet::empty();
    set_capabilities(
        None,
        CapabilitySets {
            effective: none,
            permitted: none,
            inheritable: none,
        },
    )?;
    Ok(())
}

fn reap_orphans() {
    while let Ok(Some(_)) = rustix::process::wait(rustix::process::WaitOptions::NOHANG) {}
}
