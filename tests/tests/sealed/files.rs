//! What of the host's files can be seen, and what can be changed.

use std::fs;

use cofferdam_tests::{User, leaks, random_name};

use super::{Sealed, for_each_user, none_is_ok};

for_each_user!(
    the_root_is_read_only_and_the_workspace_and_tmp_are_not,
    nothing_of_the_host_but_its_system_directories_is_readable,
    the_gateways_own_files_are_out_of_reach,
    another_sandbox_is_out_of_reach,
    every_mount_forbids_setuid_and_devices,
    what_proc_tells_of_the_host_is_covered
);

/// What the driver grants: programs, libraries, and what these cannot do without.
const ROOT: [&str; 15] = [
    "bin",
    "dev",
    "etc",
    "lib",
    "lib32",
    "lib64",
    "libx32",
    "nix",
    "proc",
    "run",
    "sbin",
    "tmp",
    "usr",
    "var",
    "workspace",
];
/// There because programs expect them, with nothing in them.
const EMPTY: [&str; 5] = ["home", "mnt", "opt", "root", "srv"];
const ETC: [&str; 24] = [
    "alternatives",
    "ca-certificates",
    "ca-certificates.conf",
    "crypto-policies",
    "fonts",
    "group",
    "hostname",
    "hosts",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "magic",
    "mime.types",
    "mtab",
    "nsswitch.conf",
    "os-release",
    "passwd",
    "pki",
    "protocols",
    "resolv.conf",
    "services",
    "ssl",
    "timezone",
];

fn the_root_is_read_only_and_the_workspace_and_tmp_are_not(user: User) {
    let sealed = Sealed::new(user);
    let closed = [
        "/",
        "/etc",
        "/etc/passwd",
        "/usr",
        "/usr/bin",
        "/usr/bin/env",
        "/bin",
        "/lib",
        "/sbin",
        "/proc/sys/kernel/hostname",
        "/proc/sysrq-trigger",
        "/dev",
        "/proc",
    ];
    none_is_ok(&sealed.probe(["write"].iter().chain(&closed)));
    let open = ["/workspace", "/tmp", "/dev/null", "/dev/shm"];
    let found = sealed.probe(["write"].iter().chain(&open));
    let refused: Vec<_> = found.iter().filter(|(_, how)| *how != "ok").collect();
    assert!(refused.is_empty(), "{refused:?}");
    // Not by another name either.
    let remount = "mount -o remount,rw / 2>/dev/null && echo remounted; true";
    assert_eq!(sealed.sh(remount), "");
}

fn nothing_of_the_host_but_its_system_directories_is_readable(user: User) {
    let sealed = Sealed::new(user);
    let outside = |listing: &str, known: &[&str]| -> Vec<String> {
        let unknown = listing.lines().filter(|name| !known.contains(name));
        unknown.map(str::to_owned).collect()
    };
    let known: Vec<&str> = ROOT.iter().chain(&EMPTY).copied().collect();
    assert_eq!(outside(&sealed.sh("ls -A /"), &known), [""; 0]);
    let search = "cd /; find home mnt opt root srv -mindepth 1 2>/dev/null; true";
    assert_eq!(sealed.sh(search), "");
    assert_eq!(outside(&sealed.sh("ls -A /etc"), &ETC), [""; 0]);
    assert_eq!(sealed.sh("ls -A /run /tmp"), "/run:\n\n/tmp:");
    let secrets = [
        "/etc/shadow",
        "/etc/gshadow",
        "/etc/sudoers",
        "/etc/ssh",
        "/etc/machine-id",
        "/var/lib",
        "/var/log",
        "/boot",
        "/sys",
        "/media",
        "/proc/kcore",
        "/proc/timer_list",
        "/proc/sched_debug",
        "/dev/mem",
        "/dev/kmsg",
        "/dev/sda",
        "/dev/vda",
        "/dev/fuse",
        "/dev/kvm",
        "/dev/net/tun",
    ];
    let found = sealed.probe(["read"].iter().chain(&secrets));
    none_is_ok(&found);
    // The kernel's own secrets are left out of what can be read.
    let kernel = "cat /proc/keys; grep -v '^0* ' /proc/kallsyms | head -1; true";
    assert_eq!(sealed.sh(kernel), "");
    // The users of the host are not named either.
    let users = sealed.sh("cut -d: -f1 /etc/passwd");
    let host = fs::read_to_string("/etc/passwd").expect("the host's users");
    let people = host.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, id) = (fields.next()?, fields.nth(1)?.parse::<u32>().ok()?);
        (1000..60_000).contains(&id).then_some(name)
    });
    for person in people {
        assert!(
            !users.lines().any(|user| user == person),
            "{person} is named"
        );
    }
}

fn the_gateways_own_files_are_out_of_reach(user: User) {
    let sealed = Sealed::new(user);
    let gateway = &sealed.gateway;
    let mut paths = vec![gateway.state_dir(), gateway.runtime_dir(), gateway.socket()];
    paths.extend(leaks::files_below(&gateway.runtime_dir()));
    paths.extend(leaks::files_below(&gateway.state_dir()));
    paths.push(gateway.home().path().to_path_buf());
    paths.push("/var/lib/cofferdam".into());
    paths.push("/run/cofferdam".into());
    let paths: Vec<String> = paths
        .iter()
        .map(|path| path.to_string_lossy().into_owned())
        .collect();
    assert!(
        paths.iter().any(|path| path.ends_with("gateway.db")),
        "{paths:?}"
    );
    assert!(
        paths.iter().any(|path| path.contains("callback")),
        "{paths:?}"
    );
    let words = ["read".to_owned()].into_iter().chain(paths);
    none_is_ok(&sealed.probe(words));
    let sockets = sealed.sh("find / -type s 2>/dev/null; true");
    assert_eq!(sockets, "", "sockets in the sandbox");
}

fn another_sandbox_is_out_of_reach(user: User) {
    let sealed = Sealed::new(user);
    let gateway = &sealed.gateway;
    let name = random_name();
    gateway.create(["--name", "other"]);
    let script = format!("echo secret > {name}; echo secret > /tmp/{name}");
    gateway.ok(["exec", "other", "sh", "-c", &script]);
    let talker = gateway
        .cli([
            "exec",
            "other",
            "sh",
            "-c",
            &format!("echo up; exec sleep 600 # {name}"),
        ])
        .spawn();
    talker.expect("up");
    let search = format!("find / -name '*{name}*' 2>/dev/null; true");
    assert_eq!(sealed.sh(&search), "");
    let processes = "cat /proc/[0-9]*/cmdline /proc/[0-9]*/comm 2>/dev/null | tr '\\0' ' '";
    assert!(
        !sealed.sh(processes).contains("600"),
        "processes of another sandbox"
    );
    let shared = "ls -A /dev/shm /dev/mqueue /tmp 2>/dev/null | grep -v : | grep .; true";
    assert_eq!(sealed.sh(shared), "");
}

fn every_mount_forbids_setuid_and_devices(user: User) {
    let sealed = Sealed::new(user);
    let mounts = sealed.sh("cat /proc/self/mountinfo");
    assert!(mounts.lines().count() > 3, "{mounts}");
    for mount in mounts.lines() {
        let fields: Vec<&str> = mount.split(' ').collect();
        let (place, options) = (fields[4], fields[5]);
        let has = |wanted: &str| options.split(',').any(|option| option == wanted);
        assert!(has("nosuid") || is_device(place), "{mount}");
        // Devices were put in one by one; a terminal's is made by the kernel.
        assert!(
            has("nodev") || is_device(place) || place == "/dev/pts" || is_mask(&fields),
            "{mount}"
        );
        let writable = [
            "/workspace",
            "/tmp",
            "/dev/shm",
            "/dev/pts",
            "/proc",
            "/run",
        ];
        assert!(
            has("ro") || writable.contains(&place) || is_device(place),
            "{mount}"
        );
    }
    assert!(
        !mounts.contains(&*sealed.gateway.home().path().to_string_lossy()),
        "{mounts}"
    );
    // A setuid program of one's own is of no use either.
    let made = "cp /usr/bin/id mine && chmod 6755 mine && ./mine -u";
    assert_ne!(sealed.sh(made), "0");
}

/// What `/proc` would tell of the host is covered by a device that says nothing.
fn is_mask(fields: &[&str]) -> bool {
    fields[4].starts_with("/proc/") && fields[3].ends_with("/null")
}

fn what_proc_tells_of_the_host_is_covered(user: User) {
    let sealed = Sealed::new(user);
    let covered = "for name in cmdline config.gz partitions diskstats kallsyms keys modules \
                   iomem interrupts; do cat /proc/$name; done 2>/dev/null; \
                   ls -A /proc/bus /proc/fs /proc/scsi 2>/dev/null | grep -v '^/proc/.*:$'; true";
    let looked = || sealed.sh(covered).trim().to_owned();
    assert_eq!(looked(), "");
    // A /proc that was mounted later is no different.
    sealed.gateway.ok(["stop", "sealed"]);
    sealed.gateway.ok(["start", "sealed"]);
    assert_eq!(looked(), "");
    // Nor does the stream to the gateway tell where that keeps its things.
    let sockets = sealed.sh("cat /proc/net/unix");
    assert!(sockets.contains("gateway.sock"), "{sockets}");
    let about = sealed.gateway.json(["inspect", "sealed"]);
    let id = about["sandbox_id"].as_str().expect("an id");
    let place = sealed.gateway.runtime_dir();
    for told in [id, &*place.to_string_lossy()] {
        assert!(!sockets.contains(told), "{told} in {sockets}");
    }
}

fn is_device(place: &str) -> bool {
    [
        "null", "zero", "full", "random", "urandom", "tty", "ptmx", "console",
    ]
    .iter()
    .any(|name| place == format!("/dev/{name}"))
}
