//! Limits hold, and are counted.

use std::time::Instant;

use cofferdam_driver_process::cgroup::{Bound, CgroupLimits};

use crate::harness::{Bench, MIB};

/// Why a test about this bound cannot run here.
fn lacks(bench: &Bench, bound: Bound) -> bool {
    let lacking = bench.launcher.cgroups().lacks(bound);
    if let Some(lacking) = &lacking {
        println!(
            "skipped: {bound:?} cannot be enforced here: {} ({})",
            lacking.why, lacking.fix
        );
    }
    lacking.is_some()
}

#[tokio::test]
async fn file_systems_are_bounded() {
    let bench = Bench::new();
    let mut sandbox = bench.sandbox().await;
    for (path, mib) in [
        ("/tmp", 8),
        ("/dev/shm", 8),
        ("/run", 4),
        ("/workspace", 64),
    ] {
        let script = format!(
            "head -c {}M /dev/zero > {path}/big; wc -c < {path}/big",
            mib + 1
        );
        let answer = sandbox.run("workload", &script).await;
        assert!(
            answer.output.contains("No space left"),
            "{path}: {answer:?}"
        );
        assert!(
            answer.output.starts_with(&format!("{}\n", mib * MIB)),
            "{path}: {answer:?}"
        );
        sandbox.sh(&format!("rm {path}/big")).await;
    }
    let many = "i=0; while [ $i -lt 6000 ]; do : > /tmp/$i || exit 1; i=$((i+1)); done";
    assert!(sandbox.fails(many).await.contains("No space left"));
    sandbox.destroy().await;
}

#[tokio::test]
async fn memory_is_bounded_and_the_kill_is_counted() {
    let bench = Bench::new();
    if lacks(&bench, Bound::Memory) {
        return;
    }
    let mut plan = bench.plan("sbx-memory");
    plan.limits.cgroup.memory_bytes = Some(64 * MIB);
    let mut sandbox = bench.launch(&plan).await.unwrap();
    assert_eq!(sandbox.handle.cgroup.oom_kills(), Some(0));
    let answer = sandbox
        .run(
            "workload",
            "exec awk 'BEGIN { s = \"x\"; while (1) s = s s }'",
        )
        .await;
    assert_eq!(answer.signal, Some(9), "{answer:?}");
    assert_eq!(sandbox.handle.cgroup.oom_kills(), Some(1));
    // The supervisor survived, and can go on.
    assert_eq!(sandbox.sh("echo alive").await, "alive");
    let stats = sandbox.handle.cgroup.stats();
    assert!(stats.memory_peak_bytes.unwrap() > 32 * MIB, "{stats:?}");
    assert!(stats.memory_bytes.unwrap() < 64 * MIB, "{stats:?}");
    sandbox.destroy().await;
}

#[tokio::test]
async fn the_workspace_counts_as_memory() {
    let bench = Bench::new();
    if lacks(&bench, Bound::Memory) {
        return;
    }
    let mut plan = bench.plan("sbx-files");
    plan.limits.cgroup.memory_bytes = Some(32 * MIB);
    let mut sandbox = bench.launch(&plan).await.unwrap();
    let answer = sandbox
        .run("workload", "exec head -c 60M /dev/zero > /workspace/big")
        .await;
    assert_eq!(answer.signal, Some(9), "{answer:?}");
    sandbox.destroy().await;
}

#[tokio::test]
async fn a_fork_bomb_stays_inside() {
    let bench = Bench::new();
    let mut plan = bench.plan("sbx-bomb");
    plan.limits.cgroup.pids = Some(32);
    let mut sandbox = bench.launch(&plan).await.unwrap();
    let bomb = "for i in $(seq 100); do sleep 20 & done; echo started";
    let answer = sandbox.run("workload", &format!("{bomb} 2>&1")).await;
    assert!(
        answer.output.contains("fork") || answer.output.contains("Resource"),
        "nothing stopped it: {answer:?}"
    );
    if bench.launcher.cgroups().counts_pids() {
        assert!(sandbox.handle.cgroup.stats().pids.unwrap() <= 32);
    }
    sandbox.destroy().await;
}

#[tokio::test]
async fn cpu_is_bounded() {
    let bench = Bench::new();
    if lacks(&bench, Bound::Cpu) {
        return;
    }
    let mut plan = bench.plan("sbx-cpu");
    plan.limits.cgroup.cpu_millis = Some(250);
    let mut sandbox = bench.launch(&plan).await.unwrap();
    let before = sandbox.handle.cgroup.stats().cpu_usec.unwrap();
    let begun = Instant::now();
    sandbox
        .run("workload", "timeout 2 sh -c 'while :; do :; done'")
        .await;
    let used = sandbox.handle.cgroup.stats().cpu_usec.unwrap() - before;
    let share = used as f64 / begun.elapsed().as_micros() as f64;
    assert!(
        (0.1..0.4).contains(&share),
        "used {share} of a CPU, allowed 0.25"
    );
    sandbox.destroy().await;
}

#[tokio::test]
async fn what_cannot_be_enforced_is_said() {
    let bench = Bench::new();
    let sandbox = bench.sandbox().await;
    let lacking = bench.launcher.cgroups().not_enforceable();
    assert_eq!(sandbox.handle.not_enforced, lacking);
    sandbox.destroy().await;
    let mut plan = bench.plan("sbx-unbounded");
    plan.limits.cgroup = CgroupLimits::default();
    let sandbox = bench.launch(&plan).await.unwrap();
    assert_eq!(sandbox.handle.not_enforced, []);
    sandbox.destroy().await;
}
