//! Lists, `inspect`, and the commands that change sandboxes and executions.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use cofferdam_proto::compute::v1 as compute;
use cofferdam_proto::gateway::v1::*;
use tonic::Status;

use crate::support::fake::{ended, exited, running};
use crate::support::{Fake, code, shown, text};

/// A time that is the same in every run.
const THEN_MS: u64 = 1_790_000_000_000;

fn ago_ms(seconds: u64) -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    (now - seconds) * 1000
}

fn sandbox(id: &str, state: SandboxState) -> Sandbox {
    Sandbox {
        sandbox_id: id.into(),
        driver: "process".into(),
        state: state as i32,
        spec: Some(compute::SandboxSpec {
            image: Some(compute::ImageSpec {
                source: Some(compute::image_spec::Source::Reference("debian:12".into())),
                ..Default::default()
            }),
            uid: 1000,
            gid: 1000,
            limits: Some(compute::ResourceLimits {
                memory_bytes: 512 << 20,
                cpu_millis: 1500,
                pids: 256,
                ..Default::default()
            }),
            network: Some(compute::NetworkSpec {
                class: compute::NetworkClass::Egress as i32,
                allow: vec!["example.com:443".into()],
            }),
            mounts: vec![compute::Mount {
                target: "/data".into(),
                read_only: true,
                source: Some(compute::mount::Source::HostPath("/srv/data".into())),
            }],
            labels: [("job".to_owned(), "7".to_owned())].into(),
            workspace: "/workspace".into(),
            ..Default::default()
        }),
        create_time_unix_ms: THEN_MS,
        ready_time_unix_ms: THEN_MS + 250,
        expire_time_unix_ms: THEN_MS + 86_400_000,
        session: true,
        running_executions: 1,
        owner_uid: 1000,
        ..Sandbox::default()
    }
}

fn two_pages(fake: &Fake) {
    fake.on_list_sandboxes(|request| {
        let aged = |sandbox| Sandbox {
            create_time_unix_ms: ago_ms(330),
            expire_time_unix_ms: ago_ms(0) + 7_300_000,
            ..sandbox
        };
        Ok(match request.page_token.as_str() {
            "" => ListSandboxesResponse {
                sandboxes: vec![aged(sandbox("sbx-1", SandboxState::Ready))],
                next_page_token: "2".into(),
            },
            _ => ListSandboxesResponse {
                sandboxes: vec![
                    aged(sandbox("sbx-2", SandboxState::Failed)),
                    aged(Sandbox {
                        name: "evil\x1b[2J".into(),
                        ..sandbox("sbx-3", SandboxState::Provisioning)
                    }),
                ],
                next_page_token: String::new(),
            },
        })
    });
}

#[test]
fn sandboxes_are_listed_from_all_pages() {
    let fake = Fake::start();
    two_pages(&fake);
    insta::assert_snapshot!("ls", shown(&fake.run(&["ls"])));
    insta::assert_snapshot!("ls_all", shown(&fake.run(&["ls", "-a"])));
    assert_eq!(
        text(&fake.run(&["ls", "-a", "-q"]).stdout),
        "sbx-1\nsbx-2\nsbx-3\n"
    );
    let json = text(&fake.run(&["ls", "--json"]).stdout);
    let ids: Vec<String> = json
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["sandbox_id"].to_string()
        })
        .collect();
    assert_eq!(ids, ["\"sbx-1\"", "\"sbx-3\""]);
}

#[test]
fn an_empty_list_is_a_heading() {
    let fake = Fake::start();
    fake.on_list_sandboxes(|_| Ok(ListSandboxesResponse::default()));
    assert_eq!(
        shown(&fake.run(&["ls"])),
        "exit: 0\n--- stdout\nID  NAME  DRIVER  IMAGE  STATE  AGE  EXPIRES  RUNNING\n--- stderr\n"
    );
}

#[test]
fn executions_are_listed() {
    let fake = Fake::start();
    fake.on_list_executions(|request| {
        let aged = |execution| Execution {
            create_time_unix_ms: ago_ms(90),
            ..execution
        };
        let mut all = vec![aged(Execution {
            argv: [
                "sh",
                "-c",
                "echo 'a b' && sleep 100 && echo the rest is cut off",
            ]
            .map(|word| Bytes::from_static(word.as_bytes()))
            .into(),
            running_us: 1_500_000,
            ..running()
        })];
        if !request.running_only {
            all.push(aged(Execution {
                running_us: 2_345,
                ..exited(3)
            }));
            all.push(aged(ended(
                ExecutionState::ExecutionTimedOut,
                ExecutionReason::ReasonTimeout,
            )));
        }
        Ok(ListExecutionsResponse {
            executions: all,
            next_page_token: String::new(),
        })
    });
    insta::assert_snapshot!("ps", shown(&fake.run(&["ps"])));
    insta::assert_snapshot!("ps_all", shown(&fake.run(&["executions", "-a"])));
    assert_eq!(
        text(&fake.run(&["ps", "-q", "-n", "2"]).stdout),
        "exec-1\nexec-1\n"
    );
}

#[test]
fn inspect_shows_everything_about_a_sandbox() {
    let fake = Fake::start();
    fake.on_get_sandbox(|request| {
        assert_eq!(request.sandbox, "web");
        Ok(GetSandboxResponse {
            sandbox: Some(Sandbox {
                name: "web".into(),
                weaknesses: vec!["the memory limit is not enforced".into()],
                observed: Some(compute::Sandbox {
                    state: compute::SandboxState::Running as i32,
                    conditions: vec![compute::Condition {
                        r#type: compute::ConditionType::ImageReady as i32,
                        status: compute::ConditionStatus::True as i32,
                        message: "pulled".into(),
                        ..Default::default()
                    }],
                    boots: 1,
                    platform_id: "4711".into(),
                    ..Default::default()
                }),
                ..sandbox("sbx-1", SandboxState::Ready)
            }),
        })
    });
    insta::assert_snapshot!("inspect_sandbox", shown(&fake.run(&["inspect", "web"])));
    insta::assert_snapshot!(
        "inspect_sandbox_json",
        shown(&fake.run(&["inspect", "--json", "web"]))
    );
}

#[test]
fn inspect_shows_everything_about_an_execution() {
    let fake = Fake::start();
    fake.on_get_execution(|_| {
        Ok(GetExecutionResponse {
            execution: Some(Execution {
                cwd: "/workspace".into(),
                timeout_ms: 300_000,
                create_time_unix_ms: THEN_MS,
                start_time_unix_ms: THEN_MS + 20,
                end_time_unix_ms: THEN_MS + 12_020,
                queued_us: 120,
                claiming_us: 19_800,
                running_us: 12_000_000,
                output_bytes: 70 << 20,
                output_dropped_bytes: 6 << 20,
                cpu_user_us: Some(900_000),
                max_rss_bytes: Some(34 << 20),
                environment_names: vec!["HOME".into(), "TOKEN".into()],
                ..exited(3)
            }),
        })
    });
    insta::assert_snapshot!(
        "inspect_execution",
        shown(&fake.run(&["inspect", "exec-1"]))
    );
    insta::assert_snapshot!(
        "inspect_execution_json",
        shown(&fake.run(&["inspect", "--json", "exec-1"]))
    );
}

#[test]
fn inspect_asks_for_both_kinds_before_it_gives_up() {
    let fake = Fake::start();
    fake.on_get_execution(|_| Err(Status::not_found("there is no execution exec-x")));
    fake.on_get_sandbox(|_| {
        Ok(GetSandboxResponse {
            sandbox: Some(sandbox("sbx-9", SandboxState::Ready)),
        })
    });
    assert_eq!(
        text(&fake.run(&["inspect", "-q", "exec-x"]).stdout),
        "sbx-9\n"
    );
    fake.on_get_sandbox(|_| Err(Status::not_found("there is no sandbox exec-x")));
    assert_eq!(
        shown(&fake.run(&["inspect", "exec-x"])),
        "exit: 125\n--- stdout\n--- stderr\nerror: not found: there is no execution exec-x\n"
    );
}

#[test]
fn a_sandbox_that_failed_is_shown_and_an_error() {
    let fake = Fake::start();
    fake.on_create_sandbox(|_| {
        Ok(CreateSandboxResponse {
            sandbox: Some(Sandbox {
                reason: "IMAGE_NOT_FOUND".into(),
                message: "there is no image debian:99".into(),
                ..sandbox("sbx-1", SandboxState::Failed)
            }),
        })
    });
    insta::assert_snapshot!(
        "create_failed",
        shown(&fake.run(&["create", "--image", "debian:99"]))
    );
}

#[test]
fn removing_what_is_busy_takes_force() {
    let fake = Fake::start();
    fake.on_get_sandbox(|_| {
        Ok(GetSandboxResponse {
            sandbox: Some(sandbox("sbx-1", SandboxState::Ready)),
        })
    });
    fake.on_delete_sandbox(|request| {
        assert!(request.wait);
        match request.sandbox.as_str() {
            "nope" => Err(Status::not_found("there is no sandbox \"nope\"")),
            _ => Ok(DeleteSandboxResponse {}),
        }
    });
    insta::assert_snapshot!("rm_busy", shown(&fake.run(&["rm", "sbx-1"])));
    let copying = Fake::start();
    copying.on_get_sandbox(|_| {
        let sandbox = Sandbox {
            running_executions: 0,
            running_transfers: 2,
            ..sandbox("sbx-1", SandboxState::Ready)
        };
        Ok(GetSandboxResponse {
            sandbox: Some(sandbox),
        })
    });
    assert_eq!(
        shown(&copying.run(&["rm", "sbx-1"])),
        "exit: 125\n--- stdout\n--- stderr\nerror: not possible now: 2 copies or forwarded \
         connections are under way in sbx-1\nhint: `cofferdam rm -f sbx-1` ends and removes it\n"
    );
    assert_eq!(
        shown(&fake.run(&["rm", "-f", "sbx-1", "nope", "sbx-2"])),
        "exit: 0\n--- stdout\nsbx-1\nsbx-2\n--- stderr\n\
         cofferdam: there was no sandbox \"nope\"\n"
    );
    assert_eq!(
        shown(&fake.run(&["rm", "-fq", "nope"])),
        "exit: 0\n--- stdout\n--- stderr\n"
    );
}

#[test]
fn a_sandbox_where_an_execution_is_wanted_gets_a_hint_at_its_executions() {
    let fake = Fake::start();
    let none = || Status::not_found("there is no such execution");
    fake.on_get_execution(move |_| Err(none()));
    fake.on_cancel_execution(move |_| Err(none()));
    fake.on_signal_execution(move |_| Err(none()));
    for _ in 0..3 {
        fake.on_read_output(async move |call| call.fail(none()).await);
    }
    fake.on_get_sandbox(|request| match request.sandbox.as_str() {
        "box" | "empty" => Ok(GetSandboxResponse {
            sandbox: Some(sandbox("sbx-1", SandboxState::Ready)),
        }),
        _ => Err(Status::not_found("there is no sandbox")),
    });
    fake.on_list_executions(|request| {
        let newest = (request.sandbox == "box").then(running);
        Ok(ListExecutionsResponse {
            executions: newest.into_iter().collect(),
            next_page_token: String::new(),
        })
    });
    for arguments in [
        &["logs", "box"][..],
        &["attach", "box"],
        &["cancel", "box"],
        &["kill", "box"],
        &["kill", "-s", "HUP", "box"],
    ] {
        assert_eq!(
            shown(&fake.run(arguments)),
            "exit: 125\n--- stdout\n--- stderr\n\
             error: not found: there is no such execution\n\
             hint: box is a sandbox; its newest execution is exec-1, and `cofferdam ps -a box` \
             lists all\n",
            "{arguments:?}"
        );
    }
    let empty = text(&fake.run(&["logs", "empty"]).stderr);
    assert!(empty.contains("nothing was executed yet"), "{empty}");
    let neither = text(&fake.run(&["logs", "nope"]).stderr);
    assert!(!neither.contains("hint:"), "{neither}");
}

#[test]
fn one_failure_does_not_stop_the_rest() {
    let fake = Fake::start();
    fake.on_stop_sandbox(|request| match request.sandbox.as_str() {
        "b" => Err(Status::not_found("there is no sandbox b")),
        _ => Ok(StopSandboxResponse::default()),
    });
    assert_eq!(
        shown(&fake.run(&["stop", "a", "b", "c"])),
        "exit: 125\n--- stdout\na\nc\n--- stderr\nerror: not found: there is no sandbox b\n"
    );
}

#[test]
fn kill_is_a_cancel_without_grace_and_a_signal_with_one() {
    let fake = Fake::start();
    fake.on_cancel_execution(|request| {
        assert_eq!(request.grace_ms, 1);
        Ok(CancelExecutionResponse {
            execution: Some(running()),
        })
    });
    fake.on_signal_execution(|request| {
        assert_eq!(request.signal, 1);
        Ok(SignalExecutionResponse {})
    });
    assert_eq!(text(&fake.run(&["kill", "exec-1"]).stdout), "exec-1\n");
    assert_eq!(
        text(&fake.run(&["kill", "-s", "hup", "--json", "exec-1"]).stdout),
        "{\"execution_id\":\"exec-1\",\"signal\":\"SIGHUP\"}\n"
    );
    assert_eq!(code(&fake.run(&["cancel", "--grace", "0s", "exec-1"])), 0);
}

#[test]
fn version_tells_of_both_sides() {
    let fake = Fake::start();
    fake.on_get_info(|_| {
        Ok(GetInfoResponse {
            version: "9.8.7".into(),
            ready: true,
            ..Default::default()
        })
    });
    let output = text(&fake.run(&["version"]).stdout);
    let expected = format!(
        "client   0.1.0\ngateway  9.8.7 at {}\n",
        fake.socket().display()
    );
    assert_eq!(output, expected);
}
