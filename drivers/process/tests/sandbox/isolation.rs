//! What the workload sees, and what it cannot do.

use cofferdam_driver_process::sandbox::plan::{Network, ReadOnlyBind};

use crate::harness::{Bench, is_root};

#[tokio::test]
async fn the_only_interface_is_lo_and_it_is_up() {
    let bench = Bench::new();
    let mut sandbox = bench.sandbox().await;
    let names = sandbox
        .sh("tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '")
        .await;
    assert_eq!(names, "lo");
    // A local address answers "refused"; without lo it would be unreachable.
    let refused = sandbox
        .fails("exec bash -c 'exec 3<>/dev/tcp/127.0.0.1/9'")
        .await;
    assert!(refused.contains("refused"), "{refused}");
    let outside = sandbox
        .fails("exec bash -c 'exec 3<>/dev/tcp/192.0.2.1/9'")
        .await;
    assert!(outside.contains("unreachable"), "{outside}");
    sandbox.destroy().await;
}

#[tokio::test]
async fn the_root_is_read_only_and_holds_nothing_of_the_hosts_own() {
    let bench = Bench::new();
    let mut sandbox = bench.sandbox().await;
    assert_eq!(
        sandbox
            .sh("ls -A / | grep -v -e '^lib' -e '^s\\?bin$' | tr '\\n' ' '")
            .await,
        "dev etc home mnt opt proc root run srv tmp usr var workspace"
    );
    assert_eq!(
        sandbox
            .sh("ls -A /home /mnt /opt /srv /root 2> /dev/null | grep -v ':$' | tr -d '\\n'")
            .await,
        ""
    );
    for path in [
        "/etc/shadow",
        "/etc/ssh",
        "/etc/ssl/private",
        "/sys/kernel",
        "/boot",
    ] {
        sandbox.fails(&format!("ls {path}/.")).await;
        sandbox.fails(&format!("cat {path}")).await;
    }
    for path in [
        "/x",
        "/etc/x",
        "/usr/x",
        "/usr/bin/x",
        "/home/x",
        "/dev/x",
        "/var/x",
        "/proc/x",
    ] {
        sandbox.fails(&format!("echo x > {path}")).await;
    }
    // Not even the supervisor can.
    for script in [
        "echo x > /etc/x",
        "echo x > /usr/bin/x",
        "mount -o remount,rw /",
    ] {
        assert_ne!(
            sandbox.run("supervisor", script).await.code,
            Some(0),
            "{script}"
        );
    }
    assert_eq!(
        sandbox.sh("id -u; id -g; id -un").await,
        "1000\n1000\nsandbox"
    );
    assert_eq!(
        sandbox.sh("hostname; cat /etc/hostname").await,
        "inside\ninside"
    );
    sandbox.destroy().await;
}

#[tokio::test]
async fn ordinary_programs_work() {
    let bench = Bench::new();
    let mut sandbox = bench.sandbox().await;
    let script = "set -e; cd /workspace; mkdir -p a/b; echo hi > a/b/c; mv a/b/c d; ln d e; rm -r a
        cat d; date > /dev/null; echo x > /tmp/x; echo x > /dev/shm/x; echo x > /run/x
        ls /dev/fd/ > /dev/null; head -c 4 /dev/urandom > /dev/null; sort -R /etc/passwd | wc -l
        awk 'BEGIN { print 6 * 7 }'; getent hosts localhost > /dev/null; (sleep 0.01 & wait)
        test -t 0 || script -qc 'test -t 0 && tty' /dev/null | tr -d '\\r'";
    assert_eq!(sandbox.sh(script).await, "hi\n3\n42\n/dev/pts/0");
    sandbox.destroy().await;
}

#[tokio::test]
async fn only_the_sandboxs_processes_are_seen() {
    let bench = Bench::new();
    let mut sandbox = bench.sandbox().await;
    let pids = sandbox.sh("echo /proc/[0-9]*").await;
    assert_eq!(
        pids.split(' ').count(),
        2,
        "{pids}: not the init and the shell"
    );
    // PID 1 belongs to the supervisor: no peeking, no signals.
    for script in [
        "ls /proc/1/fd",
        "cat /proc/1/environ",
        "readlink /proc/1/exe",
        "cat /proc/1/mem",
    ] {
        sandbox.fails(script).await;
    }
    if is_root() {
        sandbox.fails("kill -KILL 1").await;
        sandbox.fails("kill -TERM 1").await;
    }
    assert_eq!(
        sandbox
            .sh("cat /proc/self/cgroup | cut -d: -f3 | grep -vx /programs | sort -u")
            .await,
        "/"
    );
    sandbox.destroy().await;
}

#[tokio::test]
async fn the_workload_has_no_privilege_and_cannot_get_any() {
    let bench = Bench::new();
    let mut sandbox = bench.sandbox().await;
    let status = sandbox
        .sh("grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status")
        .await;
    for line in status.lines() {
        let (key, value) = line.split_once(":\t").unwrap();
        let expected = match key {
            "NoNewPrivs" => "1",
            "Seccomp" => "2",
            _ => "0000000000000000",
        };
        assert_eq!(value, expected, "{key}");
    }
    // Set-user-ID programs stay what their caller is.
    sandbox.fails("printf '\\n' | su -c true root").await;
    for script in [
        "mount -t tmpfs none /tmp",
        "umount /tmp",
        "unshare -U true",
        "unshare -m true",
        "unshare -r true",
        "chroot / true",
        "nsenter -t 1 -m true",
        "setpriv --reuid 0 true",
        "mknod /tmp/disk b 8 0",
        "hostname other",
        "chown 0 /workspace",
        "echo 1 > /proc/sys/kernel/sysrq",
        "echo c > /proc/sysrq-trigger",
        "dmesg",
    ] {
        sandbox.fails(script).await;
    }
    assert_eq!(
        sandbox.sh("cp /usr/bin/id i; chmod u+s i; ./i -u").await,
        "1000"
    );
    let mounts = sandbox.sh("cut -d' ' -f2,4 /proc/self/mounts").await;
    for mount in mounts.lines().filter(|line| !line.starts_with("/dev/")) {
        assert!(mount.contains("nosuid"), "{mount}");
    }
    sandbox.destroy().await;
}

#[tokio::test]
async fn the_supervisor_keeps_only_what_it_needs() {
    let bench = Bench::new();
    let mut sandbox = bench.sandbox().await;
    let answer = sandbox
        .run(
            "supervisor",
            "grep -E '^Cap(Bnd|Eff)' /proc/1/status | cut -f2",
        )
        .await;
    // chown dac_override fowner fsetid kill setgid setuid setpcap
    assert_eq!(answer.output.trim(), "00000000000001fb\n00000000000001fb");
    for script in [
        "mount -t tmpfs none /tmp",
        "unshare -m true",
        "ip link set lo down",
    ] {
        assert_ne!(
            sandbox.run("supervisor", script).await.code,
            Some(0),
            "{script}"
        );
    }
    sandbox.destroy().await;
}

#[tokio::test]
async fn dangerous_calls_are_refused_by_the_filter() {
    let bench = Bench::new();
    let mut sandbox = bench.sandbox().await;
    if sandbox.run("workload", "python3 -c 1").await.code != Some(0) {
        return println!("skipped: no python3 below /usr to make the calls with");
    }
    let script = "python3 -c '
import ctypes, errno, os, platform, socket
libc = ctypes.CDLL(None, use_errno=True)
def call(*a):
    r = libc.syscall(*a)
    return errno.errorcode[ctypes.get_errno()] if r < 0 else r
x86 = platform.machine() == \"x86_64\"
print(*[call(n, 0, 0, 0, 0, 0) for n in ((321, 298, 250, 323, 304) if x86 else (280, 241, 219, 282, 265))])
print(*[call(n, 0, 0, 0, 0, 0) for n in (425, 435, 600)])
def family(*a):
    try: socket.socket(*a).close(); return \"ok\"
    except OSError as e: return errno.errorcode[e.errno]
print(family(socket.AF_UNIX), family(socket.AF_NETLINK, socket.SOCK_RAW, 0), family(40, 1), family(38, 5))
print(os.waitstatus_to_exitcode(os.system(\"true\")))
'";
    let said = sandbox.sh(script).await;
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], "EPERM EPERM EPERM EPERM EPERM");
    assert_eq!(lines[1], "ENOSYS ENOSYS ENOSYS");
    assert_eq!(lines[2], "ok ok EAFNOSUPPORT EAFNOSUPPORT");
    assert_eq!(lines[3], "0");
    sandbox.destroy().await;
}

#[tokio::test]
async fn granted_paths_are_readable_and_nothing_more() {
    let bench = Bench::new();
    let data = bench.dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("file"), "granted").unwrap();
    let mut plan = bench.plan("sbx-binds");
    let file = ReadOnlyBind {
        source: data.join("file"),
        target: "/opt/deep/er/one".into(),
    };
    plan.binds = vec![
        ReadOnlyBind {
            source: data,
            target: "/srv/data".into(),
        },
        file,
    ];
    let mut sandbox = bench.launch(&plan).await.unwrap();
    assert_eq!(
        sandbox.sh("cat /srv/data/file /opt/deep/er/one").await,
        "grantedgranted"
    );
    sandbox.fails("echo x > /srv/data/file").await;
    sandbox.fails("echo x > /srv/data/new").await;
    assert_ne!(
        sandbox.run("supervisor", "rm /srv/data/file").await.code,
        Some(0)
    );
    sandbox.destroy().await;
}

#[tokio::test]
async fn the_hosts_network_is_an_explicit_choice() {
    let bench = Bench::new();
    let mut plan = bench.plan("sbx-host");
    plan.network = Network::Host;
    let mut sandbox = bench.launch(&plan).await.unwrap();
    let inside = sandbox.sh("readlink /proc/self/ns/net").await;
    let outside = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(inside, outside.to_str().unwrap());
    sandbox.destroy().await;
}

#[tokio::test]
async fn sandboxes_of_a_root_driver_share_no_id() {
    if !is_root() {
        return println!("skipped: id blocks need root");
    }
    let bench = Bench::new();
    let mut one = bench.launch(&bench.plan("sbx-one")).await.unwrap();
    let mut two = bench.launch(&bench.plan("sbx-two")).await.unwrap();
    let (a, b) = (
        one.sh("cat /proc/self/uid_map").await,
        two.sh("cat /proc/self/uid_map").await,
    );
    let hosts = |map: &str| -> Vec<u32> {
        map.lines()
            .map(|l| l.split_whitespace().nth(1).unwrap().parse().unwrap())
            .collect()
    };
    assert_eq!(hosts(&a).len(), 3);
    assert!(
        hosts(&a)
            .iter()
            .all(|id| *id >= 0x7000_0000 && !hosts(&b).contains(id))
    );
    one.destroy().await;
    two.destroy().await;
}

#[tokio::test]
async fn no_descriptor_leads_out() {
    let bench = Bench::new();
    let mut sandbox = bench.sandbox().await;
    // 4 is the listing's own; 5 and 6 are files.
    let held = sandbox
        .run("supervisor", "ls /proc/self/fd | tr '\\n' ' '")
        .await;
    assert_eq!(held.output.trim(), "0 1 2 3 4 5 6");
    let script = "cd /proc/self/fd/3 && for i in 1 2 3 4 5; do cd -P .. 2> /dev/null; ls; done";
    let beyond = sandbox
        .run("supervisor", &format!("{script} | sort -u"))
        .await;
    assert_eq!(
        beyond.output.trim(),
        "gateway.sock",
        "the callback directory leads out"
    );
    sandbox.destroy().await;
}
