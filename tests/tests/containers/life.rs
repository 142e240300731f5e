//! The life of a container that is a sandbox, and what is on the engine meanwhile.

use cofferdam_tests::container::{IMAGE, Kind};
use cofferdam_tests::wait;

use super::{Contained, for_each_engine};

for_each_engine!(
    a_command_runs_in_the_image_and_leaves_no_container,
    a_sandbox_is_as_closed_as_its_spec_says,
    a_stopped_sandbox_keeps_its_workspace,
    a_sandbox_whose_stream_is_relayed_works_the_same,
    sandboxes_outlive_the_gateway,
    what_is_not_the_gateways_is_not_touched,
    an_image_that_cannot_be_had_is_said_with_its_name,
    a_deadline_removes_the_container,
);

fn a_command_runs_in_the_image_and_leaves_no_container(kind: Kind) {
    let contained = Contained::new(kind);
    let run = ["run", "--image", IMAGE, "--"].map(str::to_owned);
    let script = "echo hi; id -u; echo $FROM_IMAGE; pwd; echo to-stderr >&2; exit 7";
    let command = ["sh", "-c", script].map(str::to_owned);
    let ran = contained.gateway().run(run.into_iter().chain(command));
    assert_eq!(ran.exited(7), "hi\n1000\nyes\n/workspace");
    ran.says(["to-stderr"]);
    let executions = contained.gateway().json(["ps", "--all"]);
    let sandbox = executions["sandbox_id"].as_str().expect("an id");
    wait::until_true("its container is gone", || {
        contained.engine.of_sandbox(sandbox).is_empty()
    });
}

fn a_sandbox_is_as_closed_as_its_spec_says(kind: Kind) {
    let contained = Contained::new(kind);
    let flags = ["--memory", "64MiB", "--pids", "50", "--cpus", "0.5"];
    let id = contained.create("closed", &flags);
    let container = contained.container(&id);
    let host = &container["HostConfig"];
    assert_eq!(host["NetworkMode"], "none");
    assert_eq!(host["ReadonlyRootfs"], true);
    assert_eq!(host["Privileged"], false);
    assert_eq!(host["Memory"], 64 << 20);
    assert_eq!(host["MemorySwap"], 64 << 20);
    assert_eq!(host["PidsLimit"], 50);
    assert_eq!(host["NanoCpus"], 500_000_000);
    assert_eq!(container["Config"]["User"], "1000:1000");
    let options = host["SecurityOpt"].to_string();
    assert!(options.contains("no-new-privileges"), "{options}");
    assert!(!options.contains("unconfined"), "{options}");
    let policy = host["RestartPolicy"]["Name"].as_str().unwrap_or_default();
    assert!(["", "no"].contains(&policy), "{policy}");
    // What it takes to speak for the sandbox is nowhere on the engine.
    let text = container.to_string();
    assert!(!text.contains("token"), "{text}");
    let inspected = contained.gateway().json(["inspect", "closed"]);
    assert_eq!(inspected["observed"]["platform_id"], container["Id"]);
    assert_eq!(inspected["observed"]["stream"], "mount");
}

fn a_stopped_sandbox_keeps_its_workspace(kind: Kind) {
    let contained = Contained::new(kind);
    let id = contained.create("kept", &[]);
    contained.sh("kept", "echo here > file; touch /tmp/gone; sleep 86400 &");
    contained.gateway().ok(["stop", "kept"]);
    assert_eq!(contained.container(&id)["State"]["Running"], false);
    contained.gateway().ok(["start", "kept"]);
    let ready = || contained.gateway().json(["inspect", "kept"])["state"] == "READY";
    wait::until_true("it is ready again", ready);
    assert_eq!(contained.sh("kept", "cat file; ls /tmp"), "here");
    contained.gateway().ok(["rm", "kept"]);
    assert_eq!(contained.engine.of_sandbox(&id), [""; 0]);
}

fn a_sandbox_whose_stream_is_relayed_works_the_same(kind: Kind) {
    let contained = Contained::with(kind, "stream = \"relay\"\n");
    let id = contained.create("far", &[]);
    let inspected = contained.gateway().json(["inspect", "far"]);
    assert_eq!(inspected["observed"]["stream"], "relay");
    // Nothing of the gateway's host is in it.
    let mounts = contained.container(&id)["Mounts"].clone();
    for mount in mounts.as_array().expect("a list") {
        assert_ne!(mount["Type"], "bind", "{mount}");
    }
    // Through the relay, in both directions: enough to fill every buffer on the way.
    let script = "head -c 20000000 /dev/zero | tee copy | md5sum; md5sum < copy";
    let sums = contained.sh("far", script);
    let sums: Vec<&str> = sums.lines().collect();
    assert_eq!(sums[0], sums[1]);
    let bulk = contained
        .gateway()
        .run(["exec", "far", "head", "-c", "20000000", "/dev/zero"]);
    assert_eq!(bulk.stdout.len(), 20_000_000);
    contained.gateway().ok(["stop", "far"]);
    contained.gateway().ok(["start", "far"]);
    let ready = || contained.gateway().json(["inspect", "far"])["state"] == "READY";
    wait::until_true("it is ready again", ready);
    assert_eq!(contained.sh("far", "echo again"), "again");
}

fn sandboxes_outlive_the_gateway(kind: Kind) {
    let mut contained = Contained::new(kind);
    let id = contained.create("survivor", &[]);
    contained.sh("survivor", "echo before > file");
    let before = contained.container(&id)["State"]["StartedAt"].clone();
    contained.gateway_mut().kill_and_restart();
    let ready = || contained.gateway().json(["inspect", "survivor"])["state"] == "READY";
    wait::until_true("it is found again", ready);
    assert_eq!(contained.sh("survivor", "cat file"), "before");
    assert_eq!(contained.container(&id)["State"]["StartedAt"], before);
}

fn what_is_not_the_gateways_is_not_touched(kind: Kind) {
    let contained = Contained::new(kind);
    let name = format!("bystander-{}", cofferdam_tests::random_name());
    let volume = format!("{name}-data");
    let mount = format!("{volume}:/data");
    let make = ["create", "--network", "none", "--name", &name, "--volume"];
    let image = [mount.as_str(), IMAGE, "sleep", "86400"];
    let made: Vec<&str> = make.iter().chain(&image).copied().collect();
    contained.engine.say(&made);
    let another = Contained::new(kind);
    another.create("mine", &[]);
    contained.create("mine", &[]);
    contained.gateway().ok(["rm", "mine"]);
    drop(contained);
    assert_eq!(another.sh("mine", "echo alive"), "alive");
    let engine = another.engine.clone();
    drop(another);
    engine.say(&["rm", &name]);
    engine.say(&["volume", "rm", &volume]);
}

fn an_image_that_cannot_be_had_is_said_with_its_name(kind: Kind) {
    let contained = Contained::new(kind);
    let nowhere = "127.0.0.1:9/nobody/nothing:1";
    let ran = contained.gateway().run(["run", "--image", nowhere, "true"]);
    ran.exited(125);
    ran.says([nowhere]);
    let never = [
        "run",
        "--image",
        "nobody/nothing:1",
        "--pull",
        "never",
        "true",
    ];
    let ran = contained.gateway().run(never);
    ran.exited(125);
    ran.says(["nobody/nothing:1"]);
}

fn a_deadline_removes_the_container(kind: Kind) {
    let contained = Contained::new(kind);
    let id = contained.create("brief", &["--lifetime", "3s"]);
    assert_eq!(contained.engine.of_sandbox(&id).len(), 1);
    wait::until_true("its container is gone", || {
        contained.engine.of_sandbox(&id).is_empty()
    });
}
