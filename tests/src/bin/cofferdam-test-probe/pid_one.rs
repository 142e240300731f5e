//! What can be done to the supervisor?

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};

use rustix::process::{Pid, Signal};

use crate::calls::{self, Arguments};
use crate::{Findings, name, outcome};

/// Where a program's data may be; what matters is that nothing can be read at all.
const SOME_ADDRESS: u64 = 0x40_0000;

pub(crate) fn probe() -> Findings {
    let mut found = Findings::new();
    let read = |path: &str| outcome(fs::read(path).map(|_| ()));
    for file in [
        "environ", "maps", "auxv", "stack", "syscall", "io", "pagemap",
    ] {
        let path = format!("/proc/1/{file}");
        found.insert(path.clone(), read(&path));
    }
    for dir in ["fd", "fdinfo", "map_files", "cwd/", "root/"] {
        let path = format!("/proc/1/{dir}");
        found.insert(path.clone(), outcome(fs::read_dir(&path).map(|_| ())));
    }
    for link in ["exe", "ns/user", "ns/mnt", "ns/net"] {
        let path = format!("/proc/1/{link}");
        found.insert(path.clone(), outcome(fs::read_link(&path).map(|_| ())));
    }
    for number in 0..8 {
        let path = format!("/proc/1/fd/{number}");
        found.insert(path.clone(), outcome(fs::File::open(&path).map(|_| ())));
    }
    found.insert("/proc/1/mem".to_owned(), outcome(memory()));
    for (number, file) in ["oom_score_adj", "comm", "coredump_filter", "clear_refs"]
        .iter()
        .enumerate()
    {
        let path = format!("/proc/1/{file}");
        let result = fs::write(&path, number.to_string());
        found.insert(format!("write {path}"), outcome(result));
    }
    attack(&mut found);
    found
}

fn memory() -> std::io::Result<()> {
    let mut file = fs::File::open("/proc/1/mem")?;
    file.seek(SeekFrom::Start(SOME_ADDRESS))?;
    file.read(&mut [0; 8]).map(|_| ())
}

/// Signals go last: one that works ends the probe.
fn attack(found: &mut Findings) {
    let mut target = [0_u8; 8];
    let local = libc::iovec {
        iov_base: target.as_mut_ptr().cast(),
        iov_len: target.len(),
    };
    let remote = libc::iovec {
        iov_base: SOME_ADDRESS as *mut libc::c_void,
        iov_len: target.len(),
    };
    let tries: [(&str, libc::c_long, Arguments); 5] = [
        (
            "ptrace attach",
            libc::SYS_ptrace,
            [libc::PTRACE_ATTACH.into(), 1, 0, 0, 0, 0],
        ),
        (
            "ptrace seize",
            libc::SYS_ptrace,
            [libc::PTRACE_SEIZE.into(), 1, 0, 0, 0, 0],
        ),
        (
            "process_vm_readv",
            libc::SYS_process_vm_readv,
            [
                1,
                &raw const local as i64,
                1,
                &raw const remote as i64,
                1,
                0,
            ],
        ),
        (
            "process_vm_writev",
            libc::SYS_process_vm_writev,
            [
                1,
                &raw const local as i64,
                1,
                &raw const remote as i64,
                1,
                0,
            ],
        ),
        (
            "kcmp",
            libc::SYS_kcmp,
            [1, std::process::id().into(), 0, 0, 0, 0],
        ),
    ];
    for (what, number, arguments) in tries {
        found.insert(what.to_owned(), calls::attempt(number, arguments));
    }
    found.insert("take a descriptor".to_owned(), take_descriptor());
    let first = Pid::INIT;
    for signal in [
        Signal::STOP,
        Signal::TERM,
        Signal::INT,
        Signal::SEGV,
        Signal::KILL,
    ] {
        let result = rustix::process::kill_process(first, signal);
        let outcome = result.map_or_else(|errno| name(errno.raw_os_error()), |()| "ok".to_owned());
        found.insert(format!("signal {}", signal.as_raw()), outcome);
    }
}

fn take_descriptor() -> String {
    let pidfd = rustix::process::pidfd_open(Pid::INIT, rustix::process::PidfdFlags::empty());
    let taken = pidfd.and_then(|pidfd| {
        let flags = rustix::process::PidfdGetfdFlags::empty();
        rustix::process::pidfd_getfd(pidfd, 3, flags)
    });
    taken.map_or_else(|errno| name(errno.raw_os_error()), |_| "ok".to_owned())
}
