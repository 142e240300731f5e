//! Starting, ending, and what a process finds when it begins.

use cofferdam_proto::supervisor::v1::process_exited::Result as ExitResult;
use cofferdam_proto::supervisor::v1::process_request::Request;
use cofferdam_proto::supervisor::v1::start_failure::Reason;
use cofferdam_proto::supervisor::v1::{
    ConfigureRequest, ForgetProcessRequest, ListProcessesRequest, ProcessExited, ProcessSpec,
    SignalProcessRequest, StartProcess, signal_process_request::Scope,
};
use tonic::Code;

use crate::gateway::{Client, Outcome, attach, open, run, shell, soon, spec, start, variable};
use crate::sandbox::{Options, Sandbox, is_root, workload_ids};

fn failure(exited: &ProcessExited) -> (Reason, String) {
    match &exited.result {
        Some(ExitResult::StartFailure(failure)) => (failure.reason(), failure.message.clone()),
        other => panic!("it started: {other:?}"),
    }
}

async fn sandbox() -> (Sandbox, Client) {
    let mut sandbox = Sandbox::start();
    let client = sandbox.session().await;
    (sandbox, client)
}

#[tokio::test]
async fn output_and_exit_code_come_back() {
    let (_sandbox, client) = sandbox().await;
    let outcome = run(&client, "p1", shell("echo out; echo err >&2; exit 7")).await;
    assert_eq!(outcome.code(), 7);
    assert_eq!(outcome.stdout, b"out\n");
    assert_eq!(outcome.stderr, b"err\n");
    assert!(!outcome.exited.output_abandoned);
    assert!(outcome.exited.max_rss_bytes > 0);
    assert!(outcome.exited.exit_time_unix_ms > 1_700_000_000_000);
}

#[tokio::test]
async fn a_program_is_found_in_the_path() {
    let (_sandbox, client) = sandbox().await;
    assert_eq!(run(&client, "p1", spec(&["true"])).await.code(), 0);
}

#[tokio::test]
async fn the_time_of_children_counts() {
    let (_sandbox, client) = sandbox().await;
    let burn = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
    let outcome = run(&client, "p1", shell(&format!("({burn}); true"))).await;
    assert!(outcome.exited.cpu_user_us > 10_000, "{:?}", outcome.exited);
}

#[tokio::test]
async fn a_signal_that_ends_a_process_is_told() {
    let (_sandbox, client) = sandbox().await;
    for number in [9, 15, 6] {
        let outcome = run(
            &client,
            &format!("p{number}"),
            shell(&format!("kill -{number} $$")),
        )
        .await;
        assert_eq!(outcome.exited.result, Some(ExitResult::Signal(number)));
    }
}

#[tokio::test]
async fn what_cannot_be_started_has_a_reason() {
    let (sandbox, client) = sandbox().await;
    let text = sandbox.workspace().join("text");
    std::fs::write(&text, "no program").expect("written");
    let started = start(&client, "p0", spec(&["no-such-program"])).await;
    assert_eq!(started.started.pid, 0);

    let cases = [
        (spec(&["no-such-program"]), Reason::NotFound),
        (spec(&["/no/such/program"]), Reason::NotFound),
        (spec(&["./text"]), Reason::NotExecutable),
        (spec(&["/tmp"]), Reason::NotExecutable),
        (
            ProcessSpec {
                cwd: "/no/such".into(),
                ..spec(&["true"])
            },
            Reason::BadDirectory,
        ),
        (
            ProcessSpec {
                cwd: "text".into(),
                ..spec(&["true"])
            },
            Reason::BadDirectory,
        ),
    ];
    for (number, (spec, expected)) in cases.into_iter().enumerate() {
        let outcome = run(&client, &format!("p-{number}"), spec).await;
        let (reason, message) = failure(&outcome.exited);
        assert_eq!(reason, expected, "{message}");
        assert!(message.starts_with("cannot "), "{message}");
    }
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(&text, std::fs::Permissions::from_mode(0o755)).expect("set");
    let outcome = run(&client, "format", spec(&["./text"])).await;
    assert_eq!(failure(&outcome.exited).0, Reason::NotExecutable);
}

#[tokio::test]
async fn another_user_is_refused_or_taken_on() {
    let (_sandbox, client) = sandbox().await;
    let other = ProcessSpec {
        uid: Some(4321),
        gid: Some(4321),
        ..shell("id -u; id -g; id -G")
    };
    let outcome = run(&client, "p", other).await;
    if is_root() {
        assert_eq!(outcome.text(), "4321\n4321\n4321\n");
    } else {
        assert_eq!(failure(&outcome.exited).0, Reason::BadUser);
    }
}

#[tokio::test]
async fn a_process_begins_with_nothing_but_what_it_was_given() {
    let (sandbox, mut client) = sandbox().await;
    let configure = ConfigureRequest {
        environment: vec![variable("CONFIGURED", "1"), variable("OWN", "not this")],
        ..ConfigureRequest::default()
    };
    soon(client.configure(configure)).await.expect("configured");
    let script = "env; echo --; ls /proc/self/fd; echo --; cat /proc/self/status; echo --; \
                  umask; pwd; ulimit -c; cut -d' ' -f1,5,6 /proc/self/stat; echo $$";
    let spec = ProcessSpec {
        environment: vec![variable("OWN", "this")],
        ..shell(script)
    };
    let outcome = run(&client, "p", spec).await;
    let text = outcome.text();
    let parts: Vec<&str> = text.split("--\n").collect();

    let mut names: Vec<&str> = parts[0].lines().collect();
    names.retain(|line| !line.starts_with("PWD=") && !line.starts_with('_'));
    names.retain(|line| !line.starts_with("SHLVL=") && !line.starts_with("OLDPWD="));
    names.sort_unstable();
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(
        names,
        [
            "CONFIGURED=1",
            "HOME=/home/test",
            "OWN=this",
            path,
            "USER=tester"
        ]
    );
    // The last one is the directory that `ls` reads.
    assert_eq!(parts[1], "0\n1\n2\n3\n");

    let status = |name: &str| {
        let line = parts[2]
            .lines()
            .find(|line| line.starts_with(name))
            .expect(name);
        line.split_whitespace()
            .skip(1)
            .collect::<Vec<_>>()
            .join(" ")
    };
    let (uid, gid) = workload_ids();
    assert_eq!(status("Uid:"), [&*uid.to_string(); 4].join(" "));
    assert_eq!(status("Gid:"), [&*gid.to_string(); 4].join(" "));
    if is_root() {
        assert_eq!(status("Groups:"), "");
        assert_eq!(status("CapBnd:"), "0000000000000000");
    }
    for set in [
        "CapInh:", "CapPrm:", "CapEff:", "CapAmb:", "SigBlk:", "SigIgn:",
    ] {
        assert_eq!(status(set), "0000000000000000", "{set}");
    }
    assert_eq!(status("NoNewPrivs:"), "1");

    let rest: Vec<&str> = parts[3].lines().collect();
    assert_eq!(rest[0], "0022");
    assert_eq!(rest[1], sandbox.workspace().to_str().expect("plain"));
    assert_eq!(rest[2], "0");
    // The shell is the leader of a session and a group of its own, which its `cut` is in.
    let ids: Vec<&str> = rest[3].split(' ').collect();
    assert_eq!((ids[1], ids[2]), (rest[4], rest[4]));
}

#[tokio::test]
async fn the_kernel_prefers_the_workload_when_memory_ends() {
    let (sandbox, client) = sandbox().await;
    // Without privilege the score is set right after the exec.
    let script = "while [ $(cat /proc/$$/oom_score_adj) != 500 ]; do :; done; echo raised";
    assert_eq!(run(&client, "p", shell(script)).await.text(), "raised\n");
    let own = std::fs::read_to_string(format!("/proc/{}/oom_score_adj", sandbox.child.id()));
    assert!(own.expect("read").trim().parse::<i32>().expect("a number") <= 0);
}

#[tokio::test]
async fn the_supervisor_cannot_be_looked_into() {
    let (sandbox, client) = sandbox().await;
    let pid = sandbox.child.id();
    let script = format!(
        "for process in {pid} $PPID; do \
           for file in environ mem maps cwd exe fd/0 fd/1; do \
             cat /proc/$process/$file >/dev/null 2>&1 && echo $file is open; \
             readlink /proc/$process/$file; done; done; true"
    );
    // Also a workload with the supervisor's own ids has no way in.
    let own = ProcessSpec {
        uid: Some(rustix::process::getuid().as_raw()),
        gid: Some(rustix::process::getgid().as_raw()),
        ..shell(&script)
    };
    assert_eq!(run(&client, "p", shell(&script)).await.text(), "");
    assert_eq!(run(&client, "q", own).await.text(), "");
    let token = "11".repeat(32);
    let cmdline = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).expect("read");
    assert!(!cmdline.contains(&token));
}

#[tokio::test]
async fn the_same_id_starts_once() {
    let (sandbox, client) = sandbox().await;
    let script = "echo once >> count; read line; echo got $line";
    let spec = ProcessSpec {
        stdin: true,
        ..shell(script)
    };
    let first = start(&client, "p", spec.clone()).await;
    assert!(!first.started.existed);
    drop(first);
    let second = start(&client, "p", spec.clone()).await;
    assert!(second.started.existed);
    second.stdin(0, b"hello\n").await;
    assert_eq!(second.finish().await.text(), "got hello\n");
    // Also after its end.
    let again = StartProcess {
        process_id: "p".into(),
        spec: Some(spec),
        from_offset: "got hello\n".len() as u64,
    };
    let third = open(&client, Request::Start(again))
        .await
        .expect("attached");
    assert!(third.started.existed);
    let count = std::fs::read_to_string(sandbox.workspace().join("count"));
    assert_eq!(count.expect("read"), "once\n");
}

#[tokio::test]
async fn several_readers_may_be_attached() {
    let (_sandbox, client) = sandbox().await;
    let spec = ProcessSpec {
        stdin: true,
        ..shell("echo one; read line; echo two")
    };
    let first = start(&client, "p", spec).await;
    let second = attach(&client, "p", 0).await.expect("attached");
    second.stdin(0, b"\n").await;
    let (first, second) = tokio::join!(first.finish(), async {
        let mut second = second;
        let mut outcome = Outcome::default();
        while let Some(event) = second.event().await.expect("goes on") {
            if outcome.add(event) {
                break;
            }
        }
        outcome
    });
    assert_eq!(first.text(), "one\ntwo\n");
    assert_eq!(second.text(), first.text());
}

#[tokio::test]
async fn attaching_needs_a_known_process_and_an_offset_that_is_held() {
    let (_sandbox, client) = sandbox().await;
    let unknown = attach(&client, "nobody", 0).await.err().expect("refused");
    assert_eq!(unknown.code(), Code::NotFound);
    let spec = ProcessSpec {
        stdin: true,
        ..shell("echo hello; read line")
    };
    let mut first = start(&client, "p", spec).await;
    first.read_until(&mut Outcome::default(), "hello").await;
    first.ack(3).await;
    // What is sent behind it is heard after it.
    first.stdin_eof(0).await;
    let ended = first.finish_with(Outcome {
        all: b"hello\n".into(),
        ..Outcome::default()
    });
    ended.await;
    assert!(attach(&client, "p", 3).await.is_ok());
    assert!(attach(&client, "p", 6).await.is_ok());
    for offset in [0, 7] {
        let refused = attach(&client, "p", offset).await.err().expect("refused");
        assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
    }
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_with_the_field() {
    let (_sandbox, client) = sandbox().await;
    let refused = async |id: &str, spec: Option<ProcessSpec>| {
        let start = StartProcess {
            process_id: id.into(),
            spec,
            from_offset: 0,
        };
        open(&client, Request::Start(start))
            .await
            .err()
            .expect("refused")
    };
    for (status, field) in [
        (refused("", Some(spec(&["true"]))).await, "process_id"),
        (refused("a/b", Some(spec(&["true"]))).await, "process_id"),
        (
            refused(&"x".repeat(129), Some(spec(&["true"]))).await,
            "process_id",
        ),
        (refused("p", None).await, "start.spec"),
        (
            refused("p", Some(ProcessSpec::default())).await,
            "spec.argv",
        ),
    ] {
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().starts_with(field), "{status}");
    }
    assert!(
        attach(&client, "p", 0).await.is_err(),
        "nothing was started"
    );
}

#[tokio::test]
async fn the_list_knows_running_and_ended_ones_and_forgets_on_request() {
    let (_sandbox, mut client) = sandbox().await;
    run(&client, "ended", shell("echo hello; exit 3")).await;
    let running = start(&client, "running", shell("exec sleep 1000")).await;
    let list = soon(client.list_processes(ListProcessesRequest {}))
        .await
        .expect("listed");
    let list = list.into_inner().processes;
    assert_eq!(list.len(), 2);
    assert_eq!(
        (list[0].process_id.as_str(), list[0].output_bytes),
        ("ended", 6)
    );
    let exited = list[0].exited.as_ref().expect("it has ended");
    assert_eq!(exited.result, Some(ExitResult::ExitCode(3)));
    assert_eq!((list[1].pid, &list[1].exited), (running.started.pid, &None));

    let mut forget = async |id: &str| {
        let request = ForgetProcessRequest {
            process_id: id.into(),
        };
        soon(client.forget_process(request))
            .await
            .map_err(|status| status.code())
            .err()
    };
    assert_eq!(forget("running").await, Some(Code::FailedPrecondition));
    assert_eq!(forget("nobody").await, None);
    assert_eq!(forget("ended").await, None);
    let again = run(&client, "ended", shell("exit 4")).await;
    assert_eq!(again.code(), 4);
}

#[tokio::test]
async fn signals_reach_the_group_or_only_the_process() {
    let (_sandbox, mut client) = sandbox().await;
    let script = "trap 'echo parent; exit 0' USR1; \
                  (trap 'echo child; exit 0' USR1; echo ready; while :; do sleep 0.1; done) & \
                  echo ready; while :; do sleep 0.1; done";
    for (id, scope, child_hears) in [("g", Scope::Group, true), ("p", Scope::Process, false)] {
        let mut attached = start(&client, id, shell(script)).await;
        let mut outcome = Outcome::default();
        attached.read_until(&mut outcome, "ready\nready\n").await;
        let signal = SignalProcessRequest {
            process_id: id.into(),
            signal: 10,
            scope: scope as i32,
        };
        soon(client.signal_process(signal)).await.expect("sent");
        let outcome = attached.finish_with(outcome).await;
        assert!(outcome.text().contains("parent"));
        if !child_hears {
            assert!(!outcome.text().contains("child"));
            assert!(outcome.exited.output_abandoned, "the child is still there");
        }
    }
    let bad = SignalProcessRequest {
        process_id: "g".into(),
        signal: 65,
        scope: 0,
    };
    assert_eq!(
        soon(client.signal_process(bad))
            .await
            .expect_err("none")
            .code(),
        Code::InvalidArgument
    );
    let late = SignalProcessRequest {
        process_id: "g".into(),
        signal: 15,
        scope: 0,
    };
    soon(client.signal_process(late))
        .await
        .expect("to an ended process: nothing");
}

#[tokio::test]
async fn too_many_processes_are_refused_after_what_nobody_needs_is_dropped() {
    let mut sandbox = Sandbox::with(&Options::default());
    let mut client = sandbox.session().await;
    // Ended and acknowledged ones do not pile up.
    for number in 0..1100 {
        run(&client, &format!("p{number}"), spec(&["true"])).await;
    }
    let list = soon(client.list_processes(ListProcessesRequest {}))
        .await
        .expect("listed");
    let list = list.into_inner().processes;
    assert_eq!(list.len(), 1024);
    assert!(list.iter().any(|process| process.process_id == "p1099"));
    assert!(!list.iter().any(|process| process.process_id == "p0"));
}
