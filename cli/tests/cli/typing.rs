//! Help, usage errors, and what is missing on this machine.

use std::os::unix::net::UnixListener;

use crate::support::{code, cofferdam, shown, text};

fn run(arguments: &[&str]) -> std::process::Output {
    let dir = tempfile::tempdir().unwrap();
    cofferdam(dir.path()).args(arguments).output().unwrap()
}

#[test]
fn help_is_complete() {
    let commands = [
        "",
        "run",
        "create",
        "exec",
        "ls",
        "ps",
        "inspect",
        "logs",
        "attach",
        "cp",
        "port-forward",
        "start",
        "stop",
        "rm",
        "cancel",
        "kill",
        "driver",
        "driver conformance",
        "doctor",
        "completion",
        "version",
    ];
    let all: Vec<String> = commands
        .iter()
        .map(|command| {
            let arguments: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
            let output = run(&arguments);
            assert_eq!(code(&output), 0);
            format!(
                "$ cofferdam {}\n{}",
                arguments.join(" "),
                text(&output.stdout)
            )
        })
        .collect();
    insta::assert_snapshot!("help", all.join("\n"));
}

#[test]
fn what_is_typed_wrong_is_our_failure() {
    let all: Vec<String> = [
        &["frobnicate"][..],
        &["run"],
        &["run", "--memory", "lots", "true"],
        &["run", "--cpus", "0", "true"],
        &["run", "--timeout", "10", "true"],
        &["run", "--timeout", "0s", "true"],
        &["run", "--memroy", "1G", "true"],
        &["exec", "box", "--detatch", "true"],
        &["run", "--network", "egress", "true"],
        &["run", "--network", "none", "--allow", "example.com", "true"],
        &["run", "--mount", "type=nfs,dst=/x", "true"],
        &["run", "--driver-config", "[1]", "true"],
        &["run", "--driver-config", "{", "true"],
        &["run", "--secret-env", "NOT_SET", "true"],
        &["run", "--env-file", "nope", "true"],
        &["run", "-d", "-i", "true"],
        &["kill", "-s", "NOPE", "exec-1"],
        &["port-forward", "box", "x:y"],
        &["ls", "--driver-config"],
    ]
    .iter()
    .map(|arguments| {
        let output = run(arguments);
        assert_eq!(code(&output), 125, "{arguments:?}");
        format!("$ cofferdam {}\n{}", arguments.join(" "), shown(&output))
    })
    .collect();
    insta::assert_snapshot!("usage", all.join("\n"));
}

#[test]
fn a_secret_value_on_the_command_line_is_not_repeated() {
    let output = run(&["run", "--secret-env", "TOKEN=hunter2", "true"]);
    assert_eq!(code(&output), 125);
    assert!(!text(&output.stderr).contains("hunter2"));
}

#[test]
fn without_the_gateway_that_was_named_nothing_is_done() {
    for arguments in [&["ls"][..], &["run", "true"]] {
        let dir = tempfile::tempdir().unwrap();
        let output = cofferdam(dir.path())
            .args(["--gateway", "/nonexistent/gateway.sock"])
            .args(arguments)
            .output()
            .unwrap();
        assert_eq!(
            shown(&output),
            "exit: 125\n--- stdout\n--- stderr\n\
             error: no gateway: none answers (/nonexistent/gateway.sock: no such socket)\n\
             hint: start one with `cofferdam-gateway`, or `systemctl start cofferdam-gateway`\n\
             hint: `cofferdam run` works without\n"
        );
    }
}

#[test]
fn the_variable_names_a_gateway_unless_it_is_empty_and_shows_in_no_usage() {
    let dir = tempfile::tempdir().unwrap();
    let with = |value: &str, arguments: &[&str]| {
        let mut command = cofferdam(dir.path());
        command.env("COFFERDAM_GATEWAY", value).args(arguments);
        text(&command.output().unwrap().stderr)
    };
    assert!(with("/nonexistent/named.sock", &["ls"]).contains("/nonexistent/named.sock"));
    let own = dir.path().join("cofferdam/gateway.sock");
    assert!(with("", &["ls"]).contains(&*own.to_string_lossy()));
    let usage = with("/nonexistent/named.sock", &["exec", "box"]);
    assert!(
        usage.contains("Usage: cofferdam exec <SANDBOX> <CMD>..."),
        "{usage}"
    );
}

#[test]
fn a_socket_where_nobody_listens_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stale.sock");
    drop(UnixListener::bind(&path).unwrap());
    let output = cofferdam(dir.path())
        .arg("--gateway")
        .arg(&path)
        .arg("ls")
        .output()
        .unwrap();
    assert!(
        text(&output.stderr).contains("stale.sock: nobody listens"),
        "{output:?}"
    );
}

#[test]
fn errors_are_json_when_that_was_asked_for() {
    let output = run(&["--json", "--gateway", "/nonexistent/gateway.sock", "ls"]);
    let error: serde_json::Value = serde_json::from_str(&text(&output.stderr)).unwrap();
    assert_eq!(error["error"]["kind"], "NO_GATEWAY");
    assert_eq!(error["exit_code"], 125);
}

#[test]
fn usage_errors_are_json_too() {
    let output = run(&["ls", "--json", "--frobnicate"]);
    let error: serde_json::Value = serde_json::from_str(&text(&output.stderr)).unwrap();
    assert_eq!(error["error"]["kind"], "USAGE");
    assert_eq!(
        error["error"]["message"],
        "unexpected argument '--frobnicate' found"
    );
    let command = run(&["frobnicate", "--", "--json"]);
    assert!(text(&command.stderr).starts_with("error: unrecognized subcommand"));
}

#[test]
fn completion_scripts_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let script = text(&run(&["completion", shell]).stdout);
        assert!(script.contains("port-forward"), "{shell}");
    }
}

#[test]
fn what_an_embedded_gateway_needs_is_named_with_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let output = cofferdam(dir.path())
        .env("COFFERDAM_LIBEXEC", "/nonexistent")
        .args(["run", "--embedded", "true"])
        .output()
        .unwrap();
    assert_eq!(
        shown(&output),
        "exit: 125\n--- stdout\n--- stderr\n\
         error: no gateway: no gateway runs, and none can be brought along: there is no \
         /nonexistent/cofferdam-supervisor\n\
         hint: install the cofferdam package, or set COFFERDAM_LIBEXEC to the directory that holds \
         cofferdam-supervisor and the drivers\n"
    );
}
