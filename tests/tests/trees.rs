//! A timeout, a cancel and a delete end the whole tree of a command, however it hides.

use cofferdam_tests::{TestGateway, long_time, process, wait};

/// Scripts whose `sleep SLEEP` must be dead afterwards; each goes on until it is killed.
const HIDINGS: [(&str, &str); 6] = [
    ("forked", "sleep SLEEP & wait"),
    (
        "setsid",
        "setsid sleep SLEEP </dev/null >/dev/null 2>&1 & wait",
    ),
    (
        "double-forked",
        "(setsid sh -c 'sleep SLEEP & sleep SLEEP' </dev/null >/dev/null 2>&1 &); sleep SLEEP",
    ),
    (
        "deaf",
        "trap '' TERM HUP INT QUIT; sleep SLEEP & while :; do wait; sleep SLEEP; done",
    ),
    ("pipe-holding", "(sleep SLEEP &); exec sleep SLEEP"),
    ("stopped", "sleep SLEEP & kill -STOP $!; wait"),
];

struct Case {
    name: String,
    marker: String,
    script: String,
}

fn cases(how: &str) -> Vec<Case> {
    HIDINGS
        .iter()
        .map(|(name, script)| {
            let marker = long_time();
            Case {
                name: format!("{how}-{name}"),
                script: format!("echo started; {}", script.replace("SLEEP", &marker)),
                marker,
            }
        })
        .collect()
}

fn is_running(case: &Case) {
    let name = &case.name;
    wait::until_true(&format!("{name} has started"), || {
        !process::with_argument(&case.marker).is_empty()
    });
}

#[track_caller]
fn is_dead(case: &Case) {
    let left: Vec<String> = process::with_argument(&case.marker)
        .into_iter()
        .map(process::describe)
        .collect();
    assert!(left.is_empty(), "{}: {left:#?}", case.name);
}

#[test]
fn a_timeout_ends_the_whole_tree() {
    let gateway = TestGateway::start();
    gateway.create(["--name", "trees"]);
    let calls: Vec<_> = cases("timeout")
        .into_iter()
        .map(|case| {
            let args = ["exec", "--timeout", "2s", "trees", "sh", "-c", &case.script];
            let running = gateway.cli(args).spawn();
            is_running(&case);
            (case, running)
        })
        .collect();
    for (case, running) in calls {
        assert_eq!(running.wait().exited(124), "started", "{}", case.name);
        is_dead(&case);
    }
    gateway.ok(["exec", "trees", "true"]);
}

#[test]
fn a_cancel_ends_the_whole_tree() {
    let gateway = TestGateway::start();
    gateway.create(["--name", "trees"]);
    for case in cases("cancel") {
        let id = gateway.ok(["exec", "--detach", "trees", "sh", "-c", &case.script]);
        is_running(&case);
        gateway.ok(["cancel", "--grace", "300ms", &id]);
        is_dead(&case);
        let found = gateway.json(["inspect", &id]);
        assert_eq!(found["state"], "CANCELED", "{}", case.name);
        assert_eq!(found["reason"], "CANCELED_BY_CALLER", "{}", case.name);
    }
    gateway.ok(["exec", "trees", "true"]);
}

#[test]
fn a_delete_ends_the_whole_tree() {
    let gateway = TestGateway::start();
    for case in cases("delete") {
        gateway.create(["--name", &case.name]);
        let id = gateway.ok(["exec", "--detach", &case.name, "sh", "-c", &case.script]);
        is_running(&case);
        gateway.ok(["rm", "--force", &case.name]);
        is_dead(&case);
        let found = gateway.json(["inspect", &id]);
        assert_eq!(found["state"], "CANCELED", "{}", case.name);
        assert_eq!(found["reason"], "SANDBOX_DELETED", "{}", case.name);
    }
}

/// Who is to end the tree says nothing any more: then the sandbox ends, with all that is in it.
#[test]
fn a_tree_whose_supervisor_does_not_answer_ends_with_its_sandbox() {
    let gateway = TestGateway::start();
    let sandbox = gateway.create([""; 0]);
    let marker = long_time();
    let script = format!("echo started; sleep {marker}");
    let args = ["exec", "--timeout", "2s", &sandbox, "sh", "-c", &script];
    let call = gateway.cli(args).spawn();
    call.expect("started\n");
    for supervisor in gateway.supervisors() {
        let pid = rustix::process::Pid::from_raw(supervisor.cast_signed()).expect("a pid");
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).expect("freeze it");
    }
    let ran = call.wait();
    ran.exited(124);
    ran.says(["could not be ended in time", "its sandbox is stopped"]);
    wait::until_true("the sandbox has stopped", || {
        gateway.json(["inspect", &sandbox])["state"] == "STOPPED"
    });
    assert!(process::with_argument(&marker).is_empty());
    gateway.ok(["start", &sandbox]);
    assert_eq!(gateway.ok(["exec", &sandbox, "echo", "anew"]), "anew");
}

#[test]
fn a_tree_that_forks_while_it_is_killed_dies_nevertheless() {
    let gateway = TestGateway::start();
    gateway.create(["--name", "hydra"]);
    let marker = long_time();
    // Each head that is cut off has grown another before.
    let script = format!(
        "trap '' TERM; f() {{ (sleep {marker} & f) & sleep 0.01; (sleep {marker} & f) & wait; }}; f"
    );
    let id = gateway.ok(["exec", "--detach", "hydra", "sh", "-c", &script]);
    wait::until_true("it grows", || process::with_argument(&marker).len() > 20);
    gateway.ok(["cancel", "--grace", "1ms", &id]);
    assert_eq!(process::with_argument(&marker), [] as [u32; 0]);
    gateway.ok(["exec", "hydra", "true"]);
}

#[test]
fn ten_thousand_orphans_leave_no_zombie() {
    let gateway = TestGateway::start();
    gateway.create(["--name", "orphans"]);
    // Each `:` runs in a process whose parent has gone.
    let script = "i=0; while [ $i -lt 10000 ]; do ( : & ); i=$((i+1)); done; echo $i";
    let made = gateway.ok(["exec", "--timeout", "100s", "orphans", "sh", "-c", script]);
    assert_eq!(made, "10000");
    // Those whose command still runs, and those whose command has ended.
    let count = "cat /proc/[0-9]*/stat 2>/dev/null | grep -c ') Z '; true";
    wait::until_true("no zombie is left", || {
        gateway.ok(["exec", "orphans", "sh", "-c", count]) == "0"
    });
    let left: Vec<u32> = gateway.members();
    let zombies: Vec<String> = left
        .into_iter()
        .filter(|pid| process::status(*pid, "State").is_some_and(|state| state.starts_with('Z')))
        .map(process::describe)
        .collect();
    assert!(zombies.is_empty(), "{zombies:#?}");
}
