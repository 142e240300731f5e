//! What cannot work is refused before anything is created, all problems at once, with the fix.

use std::process::Command;

use cofferdam_tests::binaries::Installation;
use cofferdam_tests::home::Home;
use cofferdam_tests::{TestGateway, User};

/// A call, and what its error has to say.
const REFUSED: [(&[&str], &[&str]); 23] = [
    (&["create", "--driver", "nowhere"], &["nowhere", "process"]),
    (
        &["run", "--driver", "nowhere", "true"],
        &["nowhere", "process"],
    ),
    (&["create", "--image", "debian:12"], &["process", "image"]),
    (
        &["run", "--image", "debian:12", "true"],
        &["process", "image"],
    ),
    (&["create", "--memory", "1"], &["--memory"]),
    (&["create", "--memory", "900P"], &["memory"]),
    (&["create", "--pids", "1"], &["--pids"]),
    (&["create", "--cpus=-1"], &["cpus"]),
    (&["create", "--disk", "many"], &["disk", "many"]),
    (
        &["create", "--disk", "512M"],
        &["--disk", "memory", "1025 MiB"],
    ),
    (&["create", "--pids", "0"], &["--pids", "none"]),
    (&["create", "--name", "Not A Name"], &["--name", "a-z"]),
    (&["create", "--user", "somebody"], &["--user"]),
    (&["create", "--lifetime", "1000000h"], &["--lifetime"]),
    (
        &["create", "--workspace", "not/absolute"],
        &["--workspace", "absolute"],
    ),
    (&["create", "--isolation", "vm"], &["isolation"]),
    (&["create", "--gpus", "1"], &["gpu", "process"]),
    (
        &["create", "--driver-config", "{\"no\":1}"],
        &["--driver-config", "no"],
    ),
    (&["create", "--network", "open"], &["network", "process"]),
    // Not a program of that name.
    (&["run", "--memroy", "64M", "true"], &["--memroy"]),
    (&["run", "--timeuot", "5s", "--", "true"], &["--timeuot"]),
    (&["exec", "box", "--wrokdir", "/", "true"], &["--wrokdir"]),
    (
        &["run", "--timeout", "0s", "true"],
        &["--timeout", "default"],
    ),
];

#[test]
fn what_cannot_work_is_refused_before_anything_is_created() {
    let gateway = TestGateway::start();
    for (args, words) in REFUSED {
        let ran = gateway.run(args);
        ran.exited(125);
        ran.says(words);
    }
    assert_eq!(gateway.ok(["ls", "-a", "-q"]), "");
    assert_eq!(gateway.ok(["ps", "-q", "--all"]), "");
    assert_eq!(gateway.supervisors(), [] as [u32; 0]);
}

#[test]
fn all_problems_of_a_request_come_at_once() {
    let gateway = TestGateway::start();
    let ran = gateway.run([
        "create",
        "--name",
        "-",
        "--memory",
        "1",
        "--pids",
        "1",
        "--workspace",
        "x",
        "--user",
        "somebody",
        "--driver-config",
        "{\"no\":1}",
        "--image",
        "debian:12",
    ]);
    ran.exited(125);
    ran.says([
        "images from a registry",
        "--name",
        "--memory",
        "--pids",
        "--workspace",
        "--user",
        "--driver-config",
    ]);
    let ran = gateway.run(["create", "--name", "a b"]);
    assert!(!ran.stderr.contains("hostname"), "{}", ran.stderr);
    let ran = gateway.run(["--json", "create", "--memory", "1", "--pids", "1"]);
    let result = ran.result();
    let violations = result["error"]["violations"].as_array().expect("a list");
    let flags: Vec<_> = violations
        .iter()
        .map(|violation| &violation["flag"])
        .collect();
    assert_eq!(flags, ["--memory", "--pids"], "{result:#}");
}

/// The fields that are complained of, in the order in which they are.
#[track_caller]
fn complaints(gateway: &TestGateway, args: &[&str]) -> Vec<String> {
    let ran = gateway.run(["--json"].iter().chain(args));
    ran.exited(125);
    let result = ran.result();
    let violations = result["error"]["violations"].as_array().expect("a list");
    let mut fields = Vec::new();
    for violation in violations {
        let message = violation["message"].as_str().expect("a message");
        assert!(!message.is_empty(), "{result:#}");
        fields.push(violation["field"].as_str().expect("a field").to_owned());
    }
    fields
}

#[test]
fn a_driver_that_is_not_there_is_told_with_everything_else() {
    let gateway = TestGateway::start();
    let args = [
        "create", "--driver", "nowhere", "--memory", "1", "--user", "somebody",
    ];
    assert_eq!(
        complaints(&gateway, &args),
        ["driver", "user", "memory_bytes"]
    );
    gateway.run(args).says(["nowhere", "drivers here: process"]);
    let args = [
        "run",
        "--driver",
        "nowhere",
        "--timeout",
        "9000h",
        "--pids",
        "1",
        "true",
    ];
    assert_eq!(
        complaints(&gateway, &args),
        ["driver", "timeout_ms", "pids"]
    );
    // Alone it is a sentence.
    let ran = gateway.run(["--json", "create", "--driver", "nowhere"]);
    assert_eq!(ran.result()["error"]["reason"], "UNKNOWN_DRIVER");
}

#[test]
fn an_image_that_a_driver_cannot_use_is_told_once() {
    let gateway = TestGateway::start();
    let args = ["create", "--image", "debian:12", "--memory", "1"];
    assert_eq!(complaints(&gateway, &args), ["memory_bytes", "image"]);
    gateway
        .run(args)
        .says(["--image", "images from a registry"]);
}

/// Neither what is asked for nor the answer may be larger than what carries it.
#[test]
fn an_absurd_name_is_refused_in_so_many_words() {
    let gateway = TestGateway::start();
    let long = "x".repeat(70_000);
    let path = format!("{long}:/workspace/x");
    for args in [
        &["exec", &long, "true"][..],
        &["inspect", &long],
        &["stop", &long],
        &["rm", &long],
        &["cp", "/etc/hostname", &path],
        &["logs", &long],
        &["create", "--name", &long],
        &["create", "--driver", &long],
        &["create", "--user", &long],
    ] {
        let ran = gateway.run(args);
        ran.exited(125);
        let (first, told) = (args[0], &ran.stderr);
        assert!(!told.contains("h2 "), "{first}: {told:.300}");
        assert!(!told.contains("http2"), "{first}: {told:.300}");
        assert!(told.len() < 8000, "{first}: {told:.300}");
        assert!(
            told.contains("63 ") || told.contains("xxx"),
            "{first}: {told:.300}"
        );
    }
    gateway.ok(["ls"]);
}

#[test]
fn a_name_is_taken_once_and_free_again() {
    let gateway = TestGateway::start();
    let first = gateway.create(["--name", "mine"]);
    let ran = gateway.run(["create", "--name", "mine"]);
    ran.exited(125);
    ran.says(["mine"]);
    assert_eq!(gateway.ok(["ls", "-a", "-q"]), first);
    gateway.ok(["rm", "mine"]);
    gateway.create(["--name", "mine"]);
}

#[test]
fn operations_on_what_is_not_there_say_so() {
    let gateway = TestGateway::start();
    for args in [
        &["exec", "nobody", "true"][..],
        &["inspect", "nobody"],
        &["stop", "nobody"],
        &["start", "nobody"],
        &["rm", "nobody"],
        &["logs", "exec-nobody"],
        &["attach", "exec-nobody"],
        &["cancel", "exec-nobody"],
        &["driver", "inspect", "nobody"],
    ] {
        let ran = gateway.run(args);
        ran.exited(125);
        ran.says(["nobody"]);
    }
    gateway.ok(["rm", "--force", "nobody"]);
}

/// As in sysexits.h.
const EX_CONFIG: i32 = 78;

/// Runs the gateway on a file that it must not accept; what it says.
fn refused(config: &str, flags: &[&str]) -> String {
    let home = Home::new(User::Tester);
    let file = home.file(User::Tester, "config.toml", config);
    let built = Installation::built();
    let output = Command::new(built.gateway())
        .env_clear()
        .arg("--config")
        .arg(&file)
        .args(["--state-dir", &home.join("state").to_string_lossy()])
        .args(["--runtime-dir", &home.join("run").to_string_lossy()])
        .args(["--libexec", &built.libexec.to_string_lossy()])
        .args(flags)
        .output()
        .expect("start the gateway");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(EX_CONFIG), "{text}");
    for name in ["state", "run"] {
        assert!(!home.join(name).exists(), "{name} was made");
    }
    text
}

#[test]
fn a_wrong_configuration_is_refused_with_all_its_problems_before_anything_binds() {
    let text = refused(
        "stat_dir = \"/x\"\n\
         default_driver = \"nowhere\"\n\
         [socket]\n\
         mode = \"everybody\"\n\
         [executions]\n\
         running_max = \"many\"\n\
         timeout_default = \"48h\"\n\
         timeout_max = \"1h\"\n\
         [drivers.process]\n\
         enabled = \"yes\"\n",
        &["--compute-driver-socket", "no-path"],
    );
    for word in [
        "config.toml:1",
        "state_dir",
        "config.toml:2",
        "nowhere",
        "config.toml:4",
        "mode",
        "config.toml:6",
        "running_max",
        "timeout_default",
        "config.toml:10",
        "enabled",
        "no-path",
    ] {
        assert!(text.contains(word), "{word:?} is missing in\n{text}");
    }
}

#[test]
fn settings_that_a_driver_refuses_are_told_with_their_names() {
    let gateway = TestGateway::builder()
        .process_setting("launch_timeout_ms = \"soon\"\nno_such_setting = 1")
        .start();
    let driver = gateway.driver("process");
    assert_eq!(driver["state"], "REFUSED");
    let error = driver["error"].as_str().expect("an error");
    for word in ["launch_timeout_ms", "no_such_setting"] {
        assert!(error.contains(word), "{word} is missing in {error}");
    }
    let ran = gateway.run(["run", "true"]);
    ran.exited(125);
    ran.says(["process", "launch_timeout_ms"]);
}
