//! The files of `/etc` that are made rather than shown.

use crate::sandbox::plan::{NOBODY, Network, ShimPlan};

/// Name and content of each file.
pub(super) fn files(plan: &ShimPlan) -> Vec<(&'static str, String)> {
    let mut files = vec![
        ("passwd", passwd(plan)),
        ("group", group(plan)),
        ("hostname", format!("{}\n", plan.hostname)),
        ("nsswitch.conf", NSSWITCH.to_owned()),
    ];
    if plan.network == Network::None {
        files.push(("hosts", hosts(plan)));
        // A resolver without servers asks 127.0.0.1, where nobody listens: an answer at once.
        files.push(("resolv.conf", String::new()));
    }
    files
}

const NSSWITCH: &str = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n\
                        services: files\nprotocols: files\nnetworks: files\n";

fn passwd(plan: &ShimPlan) -> String {
    let mut text = String::from("root:x:0:0:root:/root:/usr/sbin/nologin\n");
    let who = &plan.workload;
    if who.uid != 0 {
        text += &format!(
            "{}:x:{}:{}::/workspace:/bin/sh\n",
            who.user, who.uid, who.gid
        );
    }
    if who.uid != NOBODY {
        text += &format!("nobody:x:{NOBODY}:{NOBODY}:nobody:/nonexistent:/usr/sbin/nologin\n");
    }
    text
}

fn group(plan: &ShimPlan) -> String {
    let mut text = String::from("root:x:0:\n");
    let who = &plan.workload;
    if who.gid != 0 {
        text += &format!("{}:x:{}:\n", who.user, who.gid);
    }
    if who.gid != NOBODY {
        text += &format!("nogroup:x:{NOBODY}:\n");
    }
    text
}

fn hosts(plan: &ShimPlan) -> String {
    format!(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t{}\n",
        plan.hostname
    )
}
