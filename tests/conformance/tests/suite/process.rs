//! The process driver on the real platform: this machine.

use cofferdam_conformance::Config;

use crate::support::{Place, libexec, must_have_skipped};

/// What it does not claim, or nobody can see.
const SKIPPED: &[&str] = &[
    "core.images",
    "core.delete.paused",
    "core.ending.no-image",
    "command",
    "snapshot",
];

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_process_driver_is_conformant() {
    let mut place = Place::new();
    let directory = place.directory.path().to_owned();
    let mut settings = format!(
        "[settings]\nstate_dir = {:?}\nid_claims_dir = {:?}\n",
        directory.join("state"),
        directory.join("ids"),
    );
    let cgroup = format!("/cofferdam-conf-{}", std::process::id());
    if is_root() {
        settings.push_str(&format!("cgroup_parent = {cgroup:?}\n"));
    }
    let file = directory.join("conformance.toml");
    std::fs::write(&file, settings).unwrap();
    place.options.config = Config::load(&file).unwrap();
    place.options.start_command = vec![
        libexec().join("cofferdam-driver-process").into(),
        "--socket".into(),
        place.options.socket.clone().into(),
    ];
    let report = place.run().await.unwrap();
    remove_cgroup(&cgroup);
    assert_eq!(report.failed(), Vec::<&str>::new());
    must_have_skipped(&report, SKIPPED);
}

/// The driver's own, in every hierarchy. One that is not empty stays, and fails the test.
fn remove_cgroup(name: &str) {
    let mount = std::path::Path::new("/sys/fs/cgroup");
    let hierarchies = std::fs::read_dir(mount).into_iter().flatten().flatten();
    let below = hierarchies
        .map(|entry| entry.path())
        .chain([mount.to_owned()]);
    for hierarchy in below {
        let path = hierarchy.join(name.trim_start_matches('/'));
        if path.is_dir() {
            std::fs::remove_dir(&path).expect("the driver's cgroup is empty");
        }
    }
}
