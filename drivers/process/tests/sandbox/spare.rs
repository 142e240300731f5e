//! The shim that is kept ready: it is taken, it is as good as a new one, and it stays behind nobody.

use std::fs;

use cofferdam_driver_process::launch::SpareShim;
use cofferdam_driver_process::sandbox::plan::Network;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::harness::{Bench, alive, eventually, is_root, shim};

const TRIES: usize = 20;

fn bench_with_spare() -> (Bench, SpareShim) {
    let mut bench = Bench::new();
    let spare = SpareShim::new(shim());
    bench.launcher = bench.launcher.clone().with_spare(spare.clone());
    (bench, spare)
}

fn children(parent: u32) -> Vec<u32> {
    fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))
        .unwrap_or_default()
        .split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect()
}

/// One that is there, with its second half.
async fn filled(spare: &SpareShim) -> (u32, u32) {
    spare.fill();
    let pid = spare.pid().unwrap();
    eventually("the spare has cloned its second half", || {
        !children(pid).is_empty()
    })
    .await;
    (pid, children(pid)[0])
}

#[tokio::test]
async fn a_launch_takes_the_spare_and_the_next_one_does_without() {
    let (bench, spare) = bench_with_spare();
    let mut was_taken = false;
    // Somebody else on this machine may mount something just then, which outdates it.
    for attempt in 0..TRIES {
        let (_, second) = filled(&spare).await;
        let plan = bench.plan(&format!("sbx-{attempt}"));
        let mut sandbox = bench.launch(&plan).await.unwrap();
        assert_eq!(spare.pid(), None);
        assert_eq!(sandbox.sh("cat /etc/hostname").await, "inside");
        was_taken = sandbox.handle.shim.pid as u32 == second;
        sandbox.destroy().await;
        if was_taken {
            break;
        }
    }
    assert!(was_taken, "not once in {TRIES} launches");
    let mut next = bench.launch(&bench.plan("sbx-next")).await.unwrap();
    assert_eq!(next.sh("cat /etc/hostname").await, "inside");
    next.destroy().await;
}

#[tokio::test]
async fn a_spare_goes_with_its_owner() {
    let spare = SpareShim::new(shim());
    let (pid, second) = filled(&spare).await;
    drop(spare);
    eventually("both halves are gone", || {
        !alive(pid as i32) && !alive(second as i32)
    })
    .await;
}

#[tokio::test]
async fn a_spare_that_was_killed_is_not_taken() {
    let (bench, spare) = bench_with_spare();
    let (pid, second) = filled(&spare).await;
    let killed = rustix::process::Pid::from_raw(pid as i32).unwrap();
    rustix::process::kill_process(killed, rustix::process::Signal::KILL).unwrap();
    eventually("its second half has gone with it", || !alive(second as i32)).await;
    let sandbox = bench.launch(&bench.plan("sbx-new")).await.unwrap();
    sandbox.destroy().await;
}

#[tokio::test]
async fn the_hosts_network_is_to_be_had_with_a_spare_too() {
    let (bench, spare) = bench_with_spare();
    let (_, second) = filled(&spare).await;
    let mut plan = bench.plan("sbx-host");
    plan.network = Network::Host;
    let mut sandbox = bench.launch(&plan).await.unwrap();
    let inside = sandbox.sh("readlink /proc/self/ns/net").await;
    let outside = fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(inside, outside.to_str().unwrap());
    eventually("the half with a network of its own is gone", || {
        !alive(second as i32)
    })
    .await;
    sandbox.destroy().await;
}

#[tokio::test]
async fn what_was_mounted_after_the_spare_is_seen_all_the_same() {
    if !is_root() {
        return println!("skipped: mounting needs root");
    }
    let (bench, spare) = bench_with_spare();
    let (pid, _) = filled(&spare).await;
    let place = bench.dir.path().join("mounted");
    fs::create_dir(&place).unwrap();
    mount("tmpfs", &place, "tmpfs", MountFlags::empty(), c"size=1m").unwrap();
    let refilled = {
        spare.fill();
        spare.pid()
    };
    unmount(&place, UnmountFlags::empty()).unwrap();
    assert!(refilled.is_some_and(|now| now != pid), "{refilled:?} {pid}");
    let sandbox = bench.launch(&bench.plan("sbx-after")).await.unwrap();
    assert_eq!(spare.pid(), None, "an outdated one is let go of");
    sandbox.destroy().await;
}
