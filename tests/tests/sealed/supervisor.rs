//! A workload can do nothing to its supervisor, nor be taken for it.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use cofferdam_proto::hello::{Frame, Scanner};
use cofferdam_proto::supervisor::v1::HelloReply;
use cofferdam_tests::{User, process, wait};
use rustix::process::{Pid, Signal, kill_process};

use super::{Sealed, for_each_user};

for_each_user!(
    a_workload_can_neither_read_nor_end_its_supervisor,
    an_impostor_on_the_callback_socket_is_refused_and_disturbs_nobody,
    an_impostor_that_comes_before_the_supervisor_does_not_take_its_place,
    a_workload_cannot_answer_in_its_supervisors_place
);

fn a_workload_can_neither_read_nor_end_its_supervisor(user: User) {
    let sealed = Sealed::new(user);
    let before = sealed.gateway.supervisors();
    let mut found = sealed.probe(["pid-one"]);
    assert!(found.len() > 30, "{found:?}");
    // PID 1 is sent signals by its own user without an error, and without an effect.
    found.retain(|what, _| !what.starts_with("signal"));
    super::none_is_ok(&found);
    let signals = "STOP TERM INT HUP SEGV USR1 CHLD ALRM KILL";
    sealed.sh(&format!(
        "for s in {signals}; do kill -$s 1 2>/dev/null; done; true"
    ));
    // All that it may signal, whoever that is: only the attacker itself comes to harm.
    let run = |script: &str| {
        let args = ["exec", "--timeout", "2s", "sealed", "sh", "-c", script];
        sealed.gateway.run(args).code()
    };
    assert_eq!(run("kill -KILL -1 & wait"), 128 + 9);
    assert_eq!(run("kill -STOP -1 & wait; sleep 600"), 124);
    assert_eq!(run("setsid sh -c 'kill -KILL -1' & wait"), 128 + 9);
    // Each of its threads has a number, too.
    let limits = "for t in 1 $(ls /proc/1/task); do renice 19 $t; ionice -c 3 -p $t; \
                  prlimit --pid $t --nofile=1:1 --cpu=1:1 --as=1:1; done >/dev/null 2>&1; true";
    sealed.sh(limits);
    assert_eq!(sealed.sh("echo alive"), "alive");
    assert_eq!(sealed.gateway.supervisors(), before);
    let state = process::status(before[0], "State").expect("a state");
    assert!(!state.starts_with('T'), "it was stopped: {state}");
    // What the host sees of it holds no secret either.
    let environment = std::fs::read(format!("/proc/{}/environ", before[0])).unwrap_or_default();
    assert_eq!(String::from_utf8_lossy(&environment), "");
}

/// As the namespace's root, which owns much of what has no other owner there.
#[test]
fn a_workload_that_is_root_can_do_no_more_to_its_supervisor() {
    cofferdam_tests::need!(cofferdam_tests::engine::Engine::Root);
    let limits = ["--user", "0", "--memory", "128M"];
    let Some(sealed) = Sealed::limited(User::Tester, &limits) else {
        return;
    };
    assert_eq!(sealed.sh("id -u"), "0");
    let before = sealed.gateway.supervisors();
    let score = || {
        let path = format!("/proc/{}/oom_score_adj", before[0]);
        std::fs::read_to_string(path).expect("a score")
    };
    let was = score();
    let mut found = sealed.probe(["pid-one"]);
    found.retain(|what, _| !what.starts_with("signal"));
    super::none_is_ok(&found);
    // Each of its threads has a number, too, and there are some while files come in.
    sealed.gateway.ok(["cp", "/etc/passwd", "sealed:passwd"]);
    let choose = "for t in 1 $(ls /proc/1/task); do \
                  for f in /proc/$t /proc/1/task/$t; do \
                  echo 1000 > $f/oom_score_adj; echo 15 > $f/oom_adj; done; done 2>/dev/null; true";
    sealed.sh(choose);
    assert_eq!(score(), was);
    // The workload's own is higher, if not from its first moment on.
    let raised = format!("[ \"$(cat /proc/$$/oom_score_adj)\" -gt {} ]", was.trim());
    sealed.sh(&format!("until {raised}; do sleep 0.1; done"));
    sealed.sh("for s in STOP TERM INT HUP KILL; do kill -$s 1 2>/dev/null; done; true");
    assert_eq!(sealed.sh("echo alive"), "alive");
    assert_eq!(sealed.gateway.supervisors(), before);
}

fn an_impostor_on_the_callback_socket_is_refused_and_disturbs_nobody(user: User) {
    let sealed = Sealed::new(user);
    let gateway = &sealed.gateway;
    let about = gateway.json(["inspect", "sealed"]);
    let id = about["sandbox_id"].as_str().expect("an id");
    let mut running = gateway.cli(["exec", "-i", "sealed", "cat"]).spawn();
    running.type_in("before\n");
    running.expect("before\n");
    // Whoever could reach the socket would still not have the token.
    let socket: PathBuf = gateway
        .runtime_dir()
        .join("callback")
        .join(id)
        .join("gateway.sock");
    for _ in 0..3 {
        impersonate(&socket, id);
    }
    running.type_in("after\n");
    running.expect("after\n");
    running.end_stdin();
    assert_eq!(running.wait().success(), "before\nafter");
    let after = gateway.json(["inspect", "sealed"]);
    assert_eq!(
        (&after["state"], &after["session"]),
        (&"READY".into(), &true.into())
    );
    assert_eq!(sealed.sh("echo works"), "works");
}

/// After a restart of the gateway it waits for the supervisor, and the impostor is there first.
fn an_impostor_that_comes_before_the_supervisor_does_not_take_its_place(user: User) {
    let mut sealed = Sealed::new(user);
    let about = sealed.gateway.json(["inspect", "sealed"]);
    let id = about["sandbox_id"].as_str().expect("an id");
    let socket = sealed.gateway.runtime_dir().join("callback").join(id);
    let socket = socket.join("gateway.sock");
    sealed.sh("echo kept > kept");
    let supervisor = sealed.gateway.supervisors()[0];
    let supervisor = Pid::from_raw(supervisor.cast_signed()).expect("a pid");
    kill_process(supervisor, Signal::STOP).expect("frozen");
    sealed.gateway.kill_and_restart();
    wait::until("it listens for the supervisor", || {
        UnixStream::connect(&socket).ok()
    });
    for _ in 0..3 {
        impersonate(&socket, id);
    }
    kill_process(supervisor, Signal::CONT).expect("thawed");
    assert_eq!(sealed.sh("cat kept"), "kept");
    assert_eq!(sealed.gateway.json(["inspect", "sealed"])["session"], true);
}

/// By no way that leads to the socket: its supervisor's descriptors, its own, the host's path.
fn a_workload_cannot_answer_in_its_supervisors_place(user: User) {
    let sealed = Sealed::new(user);
    let gateway = &sealed.gateway;
    let about = gateway.json(["inspect", "sealed"]);
    let id = about["sandbox_id"].as_str().expect("an id");
    let socket = gateway.runtime_dir().join("callback").join(id);
    let socket = socket.join("gateway.sock");
    assert!(socket.exists(), "{}", socket.display());
    let mut args = vec!["callback".to_owned(), id.to_owned()];
    args.push(socket.to_string_lossy().into_owned());
    args.extend(super::ways_to_the_callback());
    let found = sealed.probe(args);
    assert!(found.len() > 40, "{found:?}");
    // None of them leads anywhere at all.
    let unreached = ["ENOENT", "EACCES", "EPERM", "ENOTDIR"];
    let reached: Vec<_> = found
        .iter()
        .filter(|(_, how)| !unreached.contains(&how.as_str()))
        .collect();
    assert!(reached.is_empty(), "{reached:?}");
    assert_eq!(sealed.sh("echo works"), "works");
}

/// Answers a hello without knowing the token, and waits to be told so.
fn impersonate(socket: &PathBuf, sandbox_id: &str) {
    let mut stream = UnixStream::connect(socket).expect("connect");
    stream
        .set_read_timeout(Some(wait::PATIENCE))
        .expect("set a timeout");
    let mut scanner = Scanner::new();
    let mut buffer = [0; 4096];
    let hello = loop {
        match scanner.next_frame() {
            Some(Frame::Hello(hello)) => break hello,
            Some(other) => panic!("instead of a hello: {other:?}"),
            None => {
                let length = stream.read(&mut buffer).expect("a hello");
                if length == 0 {
                    // It is not even listened to while the real one is there.
                    return;
                }
                scanner.push(&buffer[..length]);
            }
        }
    };
    let reply = Frame::HelloReply(HelloReply {
        sandbox_id: sandbox_id.to_owned(),
        protocol_min: 1,
        protocol_max: 1,
        boot_id: vec![7; 16].into(),
        version: "0.0.0".to_owned(),
        nonce: hello.nonce.clone(),
        hmac: vec![0; 32].into(),
        ..HelloReply::default()
    });
    stream
        .write_all(&reply.encode().expect("a frame"))
        .expect("answer");
    let end = std::time::Instant::now() + Duration::from_secs(30);
    while std::time::Instant::now() < end {
        match scanner.next_frame() {
            Some(Frame::Reject(_)) => return,
            Some(Frame::Hello(_)) => {}
            Some(other) => panic!("the impostor got {other:?}"),
            None => match stream.read(&mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(length) => scanner.push(&buffer[..length]),
            },
        }
    }
    panic!("the impostor was not refused");
}
