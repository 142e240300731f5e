//! A gateway whose state directory has no room: it says so, what runs waits and goes on, and what
//! makes room still works.

use cofferdam_tests::engine::Engine;
use cofferdam_tests::{TestGateway, need, wait};

const MIB: u64 = 1 << 20;
const DISK: u64 = 64 * MIB;
/// More than the gateway lets output take of what `SHORT` leaves.
const OUTPUT: &str = "seq 1 3000000 | head -c 16000000";
const SHORT: u64 = 16 * MIB;

fn on_a_small_disk() -> TestGateway {
    TestGateway::builder().small_disk(DISK).start()
}

/// How often the gateway's log speaks of it.
fn told(gateway: &TestGateway) -> usize {
    gateway.log().matches("new work is refused").count()
}

#[test]
fn output_waits_for_room_says_so_and_comes_whole() {
    need!(Engine::Root);
    let gateway = on_a_small_disk();
    gateway.create(["--name", "one"]);
    gateway.create(["--name", "two"]);
    let script = "echo on; read line; exit 7";
    let mut before = gateway
        .cli(["exec", "-i", "two", "sh", "-c", script])
        .spawn();
    before.expect("on\n");
    gateway.disk().fill(SHORT);

    let id = gateway.ok(["exec", "--detach", "one", "sh", "-c", OUTPUT]);
    let mut follower = gateway.cli(["logs", "--follow", &id]).spawn();
    wait::until_true("the follower hears of it", || {
        follower.errors_so_far().contains("is full")
    });
    let heard = follower.errors_so_far();
    let place = gateway.state_dir().display().to_string();
    assert!(heard.contains(&place), "{heard}");
    assert!(heard.contains("free space"), "{heard}");
    assert!(!follower.has_ended());
    assert_eq!(gateway.json(["inspect", &id])["state"], "RUNNING");

    // New work is refused, with the reason and the remedy; what runs is served.
    for refused in [
        &["run", "true"][..],
        &["exec", "two", "true"],
        &["create", "--name", "three"],
    ] {
        let ran = gateway.run(refused);
        ran.exited(125);
        ran.says([&place, "is full", "free space"]);
    }
    assert!(gateway.run(["doctor"]).text().contains("is full"));
    before.type_in("end\n");
    before.wait().exited(7);
    gateway.ok(["stop", "two"]);
    gateway.ok(["rm", "two"]);
    assert_eq!(told(&gateway), 1, "said once, not each second");

    gateway.disk().free();
    let followed = follower.wait();
    followed.exited(0);
    assert!(followed.stderr.contains("goes on"), "{}", followed.stderr);
    let whole = std::process::Command::new("sh")
        .args(["-c", OUTPUT])
        .output()
        .expect("sh");
    assert!(followed.stdout == whole.stdout, "the output differs");
    let record = gateway.json(["inspect", &id]);
    assert_eq!(record["state"], "SUCCEEDED");
    assert_eq!(record["output_dropped_bytes"], 0);
    assert_eq!(gateway.ok(["run", "echo", "again"]), "again");
}

#[test]
fn a_timeout_meanwhile_says_what_held_it_up() {
    need!(Engine::Root);
    let gateway = on_a_small_disk();
    gateway.create(["--name", "one"]);
    gateway.disk().fill(SHORT);
    let script = format!("{OUTPUT}; sleep 86400");
    let ran = gateway.run([
        "--json",
        "exec",
        "--timeout",
        "3s",
        "one",
        "sh",
        "-c",
        &script,
    ]);
    ran.exited(124);
    let result = ran.result();
    let execution = &result["execution"];
    assert_eq!(execution["state"], "TIMED_OUT");
    assert_eq!(execution["reason"], "OUTPUT_NOT_STORED");
    let message = execution["message"].as_str().expect("a message");
    assert!(message.contains("is full"), "{message}");
    // What is missing at the end is counted, and shown as missing.
    let dropped = execution["output_dropped_bytes"].as_u64().expect("a count");
    let total = execution["output_bytes"].as_u64().expect("a count");
    assert!(dropped > 0, "{execution:#}");
    assert_eq!(ran.stdout.len() as u64, total - dropped);
    let id = execution["execution_id"].as_str().expect("an id");
    gateway.disk().free();
    let kept = gateway.run(["logs", id]);
    kept.exited(0);
    assert!(kept.stdout == ran.stdout, "what is kept differs");
    kept.says(["missing"]);
    // Nothing of it runs on.
    assert_eq!(
        gateway.ok(["exec", "one", "sh", "-c", "pgrep -c seq || true"]),
        "0"
    );
}

#[test]
fn on_a_disk_that_others_have_filled_ends_are_kept_and_sandboxes_removed() {
    need!(Engine::Root);
    let mut gateway = on_a_small_disk();
    for name in ["one", "two", "three"] {
        gateway.create(["--name", name]);
    }
    let script = "echo on; read line; exit 7";
    let mut waits = gateway
        .cli(["exec", "-i", "one", "sh", "-c", script])
        .spawn();
    waits.expect("on\n");
    let running = gateway.json(["ps", "--last", "1"]);
    let id = running["execution_id"].as_str().expect("an id").to_owned();
    gateway.disk().fill(0);
    assert!(gateway.disk().left_bytes() < 4096);
    waits.type_in("go\n");
    waits.wait().exited(7);
    gateway.ok(["stop", "two"]);
    gateway.ok(["rm", "three"]);
    gateway.run(["create"]).says(["is full"]).exited(125);
    // The one that comes after it, into the same trouble, knows all of that.
    gateway.disk().fill(0);
    gateway.kill_and_restart();
    assert_eq!(gateway.json(["inspect", &id])["exit_code"], 7);
    assert_eq!(gateway.json(["inspect", "two"])["state"], "STOPPED");
    gateway.run(["inspect", "three"]).exited(125);
    gateway.run(["create"]).says(["is full"]).exited(125);
    gateway.disk().free();
    wait::until_true("it takes work again", || {
        gateway.run(["exec", "one", "true"]).status.success()
    });
    gateway.ok(["start", "two"]);
}
