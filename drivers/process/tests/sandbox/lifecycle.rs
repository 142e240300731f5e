//! Standing up, stopping, starting, expiring, dying, and leaving nothing behind.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cofferdam_driver_process::launch::{
    Bootstrap, LaunchError, Observation, ShimControl, destroy, list, observe,
};
use cofferdam_driver_process::probe::probe;
use cofferdam_driver_process::sandbox::record::ExitCause;
use cofferdam_driver_process::sandbox::report::Stage;
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Bench, LIMIT, alive, bootstrap, eventually, is_root, shim, stand_in};

fn in_ms(ms: u64) -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_millis() as u64
        + ms
}

#[tokio::test]
async fn stop_and_start_keep_the_workspace() {
    let bench = Bench::new();
    let mut sandbox = bench.sandbox().await;
    sandbox
        .sh("echo kept > /workspace/file; echo too > /tmp/file")
        .await;
    let control = sandbox.control();
    for generation in 1..4 {
        let status = control.stop(LIMIT / 2, LIMIT).await.unwrap();
        assert_eq!(status.running, None);
        let exit = status.last_exit.unwrap();
        assert_eq!(
            (exit.generation, exit.cause, exit.code),
            (generation, ExitCause::Stopped, Some(0))
        );
        assert_eq!(
            observe(&sandbox.handle.state_dir).unwrap().observation,
            Observation::Stopped
        );
        // A second stop is as good.
        assert_eq!(control.stop(LIMIT / 2, LIMIT).await.unwrap(), status);
        let status = control.start(&bootstrap("sbx-test"), LIMIT).await.unwrap();
        assert_eq!(status.generation, generation + 1);
        sandbox.forget_session();
        assert_eq!(
            sandbox
                .sh("cat /workspace/file /tmp/file; set -- /proc/[0-9]*; echo $#")
                .await,
            "kept\ntoo\n2"
        );
        assert_eq!(
            sandbox
                .sh("cat /proc/self/cgroup | cut -d: -f3 | grep -vx /programs | sort -u")
                .await,
            "/"
        );
    }
    let pids = sandbox.handle.cgroup.pids();
    let running = control.status(LIMIT).await.unwrap().running.unwrap();
    assert!(
        sandbox.handle.cgroup.dirs().is_empty() || pids == [running.init.pid],
        "{pids:?}"
    );
    sandbox.destroy().await;
}

#[tokio::test]
async fn a_running_sandbox_is_not_started_twice() {
    let bench = Bench::new();
    let sandbox = bench.sandbox().await;
    let refused = sandbox
        .control()
        .start(&bootstrap("sbx-test"), LIMIT)
        .await
        .unwrap_err();
    assert!(matches!(
        refused,
        cofferdam_driver_process::launch::ControlError::Refused(_)
    ));
    let again = bench
        .launcher
        .launch(&bench.plan("sbx-test"), &bootstrap("sbx-test"))
        .await;
    assert!(matches!(again, Err(LaunchError::Exists { .. })));
    assert!(
        alive(sandbox.handle.init.pid),
        "the refusal hurt the sandbox"
    );
    sandbox.destroy().await;
}

#[tokio::test]
async fn a_stop_that_is_ignored_becomes_a_kill() {
    let bench = Bench::new();
    let mut sandbox = bench.sandbox().await;
    sandbox.sh("sleep 600 > /dev/null 2>&1 &").await;
    // The stand-in obeys SIGTERM unless it is stopped, in the other sense.
    let init = Pid::from_raw(sandbox.handle.init.pid).unwrap();
    kill_process(init, Signal::STOP).unwrap();
    let status = sandbox
        .control()
        .stop(Duration::from_millis(50), LIMIT)
        .await
        .unwrap();
    let exit = status.last_exit.unwrap();
    assert_eq!((exit.cause, exit.signal), (ExitCause::Stopped, Some(9)));
    assert_eq!(sandbox.handle.cgroup.pids(), Vec::<i32>::new());
    sandbox.destroy().await;
}

#[tokio::test]
async fn the_end_of_an_init_is_announced_and_recorded() {
    let bench = Bench::new();
    let sandbox = bench.sandbox().await;
    let control = sandbox.control();
    let waiting = tokio::spawn(async move { control.wait(1, LIMIT).await });
    assert_eq!(sandbox.control().status(LIMIT).await.unwrap().generation, 1);
    assert!(!waiting.is_finished());
    kill_process(
        Pid::from_raw(sandbox.handle.init.pid).unwrap(),
        Signal::KILL,
    )
    .unwrap();
    let exit = waiting.await.unwrap().unwrap().last_exit.unwrap();
    assert_eq!(
        (exit.cause, exit.signal, exit.code),
        (ExitCause::Own, Some(9), None)
    );
    let seen = observe(&sandbox.handle.state_dir).unwrap();
    assert_eq!(
        (seen.observation, seen.last_exit),
        (Observation::Stopped, Some(exit))
    );
    sandbox.destroy().await;
}

#[tokio::test]
async fn the_deadline_ends_everything_with_nobody_watching() {
    let bench = Bench::new();
    let mut plan = bench.plan("sbx-deadline");
    plan.expire_time_unix_ms = in_ms(700);
    let mut sandbox = bench.launch(&plan).await.unwrap();
    sandbox.sh("setsid sleep 600 > /dev/null 2>&1 &").await;
    let (shim, init) = (sandbox.handle.shim.pid, sandbox.handle.init.pid);
    eventually("the shim ends", || !alive(shim) && !alive(init)).await;
    let seen = observe(&sandbox.handle.state_dir).unwrap();
    assert_eq!(seen.observation, Observation::Ended);
    let exit = seen.last_exit.unwrap();
    assert_eq!(exit.cause, ExitCause::Deadline);
    assert!(exit.at_unix_ms >= plan.expire_time_unix_ms);
    assert!(exit.at_unix_ms < plan.expire_time_unix_ms + 500);
    assert_eq!(sandbox.handle.cgroup.pids(), Vec::<i32>::new());
    sandbox.destroy().await;
}

#[tokio::test]
async fn the_deadline_can_be_moved_and_holds_for_a_stopped_sandbox() {
    let bench = Bench::new();
    let mut plan = bench.plan("sbx-moved");
    plan.expire_time_unix_ms = in_ms(60_000);
    let sandbox = bench.launch(&plan).await.unwrap();
    let control = sandbox.control();
    control.kill(LIMIT).await.unwrap();
    let status = control.set_expire(in_ms(100), LIMIT).await.unwrap();
    assert!(status.expire_time_unix_ms < plan.expire_time_unix_ms);
    eventually("the shim ends", || !alive(sandbox.handle.shim.pid)).await;
    let seen = observe(&sandbox.handle.state_dir).unwrap();
    assert_eq!(
        (seen.observation, seen.last_exit.unwrap().cause),
        (Observation::Ended, ExitCause::Deadline)
    );
    sandbox.destroy().await;
}

#[tokio::test]
async fn killing_the_shim_kills_everything() {
    let bench = Bench::new();
    let mut sandbox = bench.sandbox().await;
    sandbox
        .sh("setsid sleep 600 > /dev/null 2>&1 & setsid sleep 601 > /dev/null 2>&1 &")
        .await;
    kill_process(
        Pid::from_raw(sandbox.handle.shim.pid).unwrap(),
        Signal::KILL,
    )
    .unwrap();
    eventually("the init dies", || !alive(sandbox.handle.init.pid)).await;
    eventually("the sandbox is empty", || {
        sandbox.handle.cgroup.pids().is_empty()
    })
    .await;
    assert_eq!(
        observe(&sandbox.handle.state_dir).unwrap().observation,
        Observation::Lost
    );
    sandbox.destroy().await;
}

#[tokio::test]
async fn terminate_leaves_a_record_and_no_shim() {
    let bench = Bench::new();
    let sandbox = bench.sandbox().await;
    let status = sandbox.control().terminate(LIMIT).await.unwrap();
    assert_eq!(status.last_exit.unwrap().cause, ExitCause::Terminated);
    eventually("the shim ends", || !alive(sandbox.handle.shim.pid)).await;
    assert_eq!(
        observe(&sandbox.handle.state_dir).unwrap().observation,
        Observation::Ended
    );
    sandbox.destroy().await;
}

#[tokio::test]
async fn destroy_leaves_nothing_and_can_be_repeated() {
    let bench = Bench::new();
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut sandbox = bench.sandbox().await;
    sandbox.sh("setsid sleep 600 > /dev/null 2>&1 &").await;
    let handle = sandbox.handle.clone();
    sandbox.destroy().await;
    assert!(!alive(handle.shim.pid) && !alive(handle.init.pid));
    assert!(handle.cgroup.dirs().iter().all(|dir| !dir.exists()));
    assert!(!handle.state_dir.exists());
    assert_eq!(
        list(bench.launcher.state_root()).unwrap(),
        Vec::<std::path::PathBuf>::new()
    );
    if is_root() {
        assert_eq!(
            fs::read_dir(bench.dir.path().join("ids")).unwrap().count(),
            0
        );
    }
    // Others may mount things here meanwhile, but not where a sandbox is built or kept.
    let after = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let own = bench.dir.path();
    let left: Vec<&str> = after
        .lines()
        .filter(|line| !before.contains(line))
        .filter(|line| {
            let place = Path::new(line.split(' ').nth(4).unwrap());
            place.starts_with(own)
                || ["/tmp", "/run", "/mnt", "/var"]
                    .map(Path::new)
                    .contains(&place)
        })
        .collect();
    assert!(left.is_empty(), "{left:?}");
    destroy(&handle.state_dir, LIMIT).await.unwrap();
}

#[tokio::test]
async fn a_half_made_sandbox_can_be_destroyed() {
    let bench = Bench::new();
    let state_dir = bench.launcher.state_dir("sbx-half");
    fs::create_dir_all(state_dir.join("run")).unwrap();
    fs::write(state_dir.join(".sandbox.json.new"), "{").unwrap();
    fs::write(state_dir.join("shim.json"), "garbage").unwrap();
    assert_eq!(
        observe(&state_dir).unwrap().observation,
        Observation::HalfMade
    );
    // A record that cannot be read names nobody, so it is in the way of nothing.
    fs::remove_file(state_dir.join("shim.json")).unwrap();
    destroy(&state_dir, LIMIT).await.unwrap();
    assert_eq!(observe(&state_dir).map(|seen| seen.observation), None);
}

#[tokio::test]
async fn a_reused_pid_is_never_mistaken_for_the_sandboxs() {
    let bench = Bench::new();
    let sandbox = bench.sandbox().await;
    let mut innocent = std::process::Command::new("sleep")
        .arg("600")
        .spawn()
        .unwrap();
    let record = format!("{{\"pid\":{},\"start_time\":1}}", innocent.id());
    let state_dir = sandbox.handle.state_dir.clone();
    let control = sandbox.control();
    control.terminate(LIMIT).await.unwrap();
    eventually("the shim ends", || !alive(sandbox.handle.shim.pid)).await;
    fs::write(state_dir.join("shim.json"), &record).unwrap();
    sandbox.destroy().await;
    assert!(alive(innocent.id() as i32));
    innocent.kill().unwrap();
    innocent.wait().unwrap();
}

#[tokio::test]
async fn a_failed_launch_names_its_stage_and_leaves_nothing() {
    let bench = Bench::new();
    let mut plan = bench.plan("sbx-fails");
    plan.binds = vec![cofferdam_driver_process::sandbox::plan::ReadOnlyBind {
        source: "/nonexistent/path".into(),
        target: "/opt/x".into(),
    }];
    let error = bench.launch(&plan).await.map(|_| ()).unwrap_err();
    assert_eq!(
        (error.stage(), error.errno()),
        (Some(Stage::OpenBindSource), Some(libc::ENOENT))
    );
    assert!(error.hint().unwrap().contains("/nonexistent/path"));
    assert_eq!(
        list(bench.launcher.state_root()).unwrap(),
        Vec::<std::path::PathBuf>::new()
    );
}

#[tokio::test]
async fn a_supervisor_that_is_no_program_fails_at_the_exec() {
    let bench = Bench::with_supervisor("/etc/passwd".as_ref());
    let error = bench
        .launch(&bench.plan("sbx-noexec"))
        .await
        .map(|_| ())
        .unwrap_err();
    assert_eq!(
        (error.stage(), error.errno()),
        (Some(Stage::ExecSupervisor), Some(libc::ENOEXEC))
    );
    assert_eq!(
        list(bench.launcher.state_root()).unwrap(),
        Vec::<std::path::PathBuf>::new()
    );
}

#[tokio::test]
async fn the_bootstrap_is_nowhere_on_disk_and_the_console_is_kept() {
    let bench = Bench::new();
    let mut sandbox = bench.sandbox().await;
    sandbox.sh("true").await;
    let state_dir = sandbox.handle.state_dir.clone();
    eventually("the console is written", || {
        !observe(&state_dir).unwrap().console().is_empty()
    })
    .await;
    let console = String::from_utf8(observe(&state_dir).unwrap().console()).unwrap();
    assert!(console.contains("test init for \"sbx-test\""), "{console}");
    let token = "0123456789abcdef".repeat(4);
    let found = std::process::Command::new("grep")
        .args(["-r", &token])
        .arg(bench.dir.path())
        .output();
    assert_eq!(found.unwrap().stdout, b"");
    sandbox.destroy().await;
}

#[tokio::test]
async fn a_bootstrap_of_the_largest_size_arrives() {
    let bench = Bench::new();
    let plan = bench.plan("sbx-large");
    let padding = "x".repeat(60_000);
    let json = format!(
        "{{\"sandbox_id\":\"sbx-large\",\"pad\":\"{padding}\",\"workload\":{{\"uid\":1000,\"gid\":1000}}}}"
    );
    let handle = bench
        .launcher
        .launch(&plan, &Bootstrap::new(json))
        .await
        .unwrap();
    destroy(&handle.state_dir, LIMIT).await.unwrap();
}

#[tokio::test]
async fn the_probe_launches_a_trial_sandbox() {
    let bench = Bench::new();
    let scratch = bench.dir.path().join("scratch");
    let ids = is_root()
        .then(|| cofferdam_driver_process::ids::IdBlocks::new(bench.dir.path().join("ids")));
    let facts = probe(&shim(), &scratch, bench.launcher.cgroups(), ids).await;
    let took = facts
        .trial
        .unwrap_or_else(|error| panic!("{error}: {error:?}"));
    assert!(took < LIMIT);
    assert_eq!(list(&scratch).unwrap(), Vec::<std::path::PathBuf>::new());
}

/// Started by the next test as a process of its own: a driver that dies without a word.
#[tokio::test]
async fn driver_that_dies() {
    let Some(state_root) = std::env::var_os("COFFERDAM_TEST_DYING_DRIVER") else {
        return;
    };
    let bench = Bench::with_state_root(&stand_in(), state_root.into());
    let mut plan = bench.plan("sbx-orphan");
    plan.expire_time_unix_ms = in_ms(3_000);
    bench.launch(&plan).await.unwrap();
    kill_process(rustix::process::getpid(), Signal::KILL).unwrap();
}

#[tokio::test]
async fn a_sandbox_outlives_its_driver_but_not_its_deadline() {
    let bench = Bench::new();
    let state_root = bench.launcher.state_root().to_owned();
    let died = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "lifecycle::driver_that_dies"])
        .env("COFFERDAM_TEST_DYING_DRIVER", &state_root)
        .output();
    let died = died.await.unwrap();
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&died.status),
        Some(9),
        "{died:?}"
    );
    let state_dir = state_root.join("sbx-orphan");
    let seen = observe(&state_dir).unwrap();
    let Observation::Running(run) = seen.observation else {
        panic!("{seen:?}")
    };
    let status = ShimControl::new(&state_dir).status(LIMIT).await.unwrap();
    assert_eq!(status.running, Some(run));
    eventually("the deadline", || {
        observe(&state_dir).unwrap().observation == Observation::Ended
    })
    .await;
    assert!(!alive(run.init.pid));
    let cgroup = seen.cgroup().unwrap();
    destroy(&state_dir, LIMIT).await.unwrap();
    // Its driver had a parent cgroup of its own, and a directory.
    for dir in cgroup.dirs() {
        let _ = fs::remove_dir(dir.parent().unwrap());
    }
    let callback = fs::read_to_string(state_root.join("bench")).unwrap();
    fs::remove_dir_all(callback).unwrap();
}
