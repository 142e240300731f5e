//! Measures launches: `cargo run --release --example measure -- [COUNT [SHIM [SUPERVISOR]]]`.
//!
//! Prints the time from `launch()` to the supervisor's exec, the time of `destroy()`, and the
//! shim's memory. As root with cgroups below `cofferdam-test-measure` (or, with `AUTO_CGROUP`, where
//! a driver would put them), else, or with `NO_CGROUPS`, without. `PAUSE_MS` rests between launches.
#![allow(clippy::print_stdout, reason = "it is a report")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cofferdam_driver_process::cgroup::{CgroupLimits, CgroupParent};
use cofferdam_driver_process::ids::IdBlocks;
use cofferdam_driver_process::launch::{
    Bootstrap, Launcher, LauncherConfig, SandboxLimits, SandboxPlan, destroy,
};
use cofferdam_driver_process::sandbox::plan::{Network, Workload};
use cofferdam_driver_sdk::supervisor::SupervisorBinary;

const MIB: u64 = 1024 * 1024;
const LIMIT: Duration = Duration::from_secs(10);

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let count: usize = arguments.next().map_or(100, |count| count.parse().unwrap());
    let beside = std::env::current_exe().unwrap();
    let target = beside.ancestors().nth(2).unwrap();
    let shim = arguments
        .next()
        .map_or(target.join("cofferdam-process-shim"), PathBuf::from);
    let supervisor = arguments
        .next()
        .map_or(target.join("examples/test_init"), PathBuf::from);
    let dir = tempfile::tempdir().unwrap();
    let root = rustix::process::geteuid().is_root();
    let cgroups = if root && std::env::var_os("NO_CGROUPS").is_none() {
        let auto = std::env::var_os("AUTO_CGROUP").is_some();
        CgroupParent::detect((!auto).then_some(Path::new("cofferdam-test-measure")))
    } else {
        CgroupParent::absent("not wanted", "")
    };
    let launcher = Launcher::new(LauncherConfig {
        shim,
        state_root: dir.path().join("state"),
        ids: root.then(|| IdBlocks::new(dir.path().join("ids"))),
        cgroups: cgroups.clone(),
        supervisor: SupervisorBinary::unchecked(&supervisor).unwrap(),
        timeout: LIMIT,
    })
    .unwrap();
    let pause = std::env::var("PAUSE_MS").map_or(0, |ms| ms.parse().unwrap());
    let (mut launches, mut destroys, mut memory) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..count {
        let plan = plan(number, dir.path());
        let begun = Instant::now();
        let handle = launcher.launch(&plan, &bootstrap()).await.unwrap();
        launches.push(begun.elapsed());
        memory.push(private_kib(handle.shim.pid));
        let begun = Instant::now();
        destroy(&handle.state_dir, LIMIT).await.unwrap();
        destroys.push(begun.elapsed());
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    report("launch to exec", &mut launches);
    report("destroy", &mut destroys);
    memory.sort_unstable();
    println!("cgroups: {:?} in {:?}", cgroups.version(), cgroups.dirs());
    println!(
        "shim private memory: median {} KiB",
        memory[memory.len() / 2]
    );
    cgroups
        .dirs()
        .iter()
        .for_each(|dir| drop(std::fs::remove_dir(dir)));
}

fn plan(number: usize, callback: &Path) -> SandboxPlan {
    SandboxPlan {
        sandbox_id: format!("sbx-{number}"),
        callback_dir: callback.to_owned(),
        workload: Workload {
            uid: 1000,
            gid: 1000,
            user: "sandbox".to_owned(),
        },
        limits: SandboxLimits {
            cgroup: CgroupLimits {
                memory_bytes: Some(256 * MIB),
                pids: Some(128),
                cpu_millis: Some(1000),
            },
            tmp_bytes: 64 * MIB,
            workspace_bytes: 256 * MIB,
        },
        network: Network::None,
        binds: Vec::new(),
        hostname: "inside".to_owned(),
        expire_time_unix_ms: 0,
    }
}

fn bootstrap() -> Bootstrap {
    Bootstrap::new(r#"{"sandbox_id":"sbx","workload":{"uid":1000,"gid":1000}}"#.to_owned())
}

fn private_kib(pid: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let of = |key: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
            .unwrap_or(0)
    };
    of("Private_Dirty:") + of("Private_Clean:")
}

fn report(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    println!(
        "{what}: p50 {:.2} ms, p90 {:.2} ms, p99 {:.2} ms (n={})",
        at(0.5),
        at(0.9),
        at(0.99),
        times.len()
    );
}
