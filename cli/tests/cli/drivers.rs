//! `driver` and `doctor`.

use cofferdam_proto::compute::v1 as compute;
use cofferdam_proto::gateway::v1::*;

use crate::support::{Fake, code, cofferdam, shown, text};

fn driver(name: &str, health: compute::Health) -> Driver {
    Driver {
        name: name.into(),
        state: DriverState::Connected as i32,
        built_in: true,
        socket: format!("/run/cofferdam/drivers/{name}.sock"),
        path: format!("/usr/libexec/cofferdam/cofferdam-driver-{name}"),
        driver_name: name.into(),
        version: "0.1.0".into(),
        capabilities: Some(compute::Capabilities {
            execution: compute::Execution::Supervised as i32,
            isolation: compute::Isolation::Namespaces as i32,
            images: Some(compute::ImageSources {
                host: true,
                ..Default::default()
            }),
            networks: vec![
                compute::NetworkClass::None as i32,
                compute::NetworkClass::Open as i32,
            ],
            stop_start: true,
            console: true,
            ..Default::default()
        }),
        fingerprint: Some(compute::FingerprintResponse {
            health: health as i32,
            ..Default::default()
        }),
        sandboxes: 2,
        connects: 1,
        pid: 4711,
        ..Driver::default()
    }
}

fn check(id: &str, result: compute::CheckResult, detail: &str, fix: &str) -> compute::Check {
    compute::Check {
        id: id.into(),
        result: result as i32,
        detail: detail.into(),
        fix: fix.into(),
    }
}

/// A healthy default driver with a warning; an engine that is not here; one that is broken.
fn drivers() -> Vec<Driver> {
    use compute::CheckResult::{Failed, Passed, Warning};
    let mut process = driver("process", compute::Health::Healthy);
    process.fingerprint = Some(compute::FingerprintResponse {
        checks: vec![
            check(
                "user_namespaces",
                Passed,
                "max_user_namespaces is 95000",
                "",
            ),
            check(
                "cgroup_memory",
                Warning,
                "memory limits are not enforced",
                "systemctl edit user@.service\nset Delegate=yes",
            ),
        ],
        attributes: [("kernel".to_owned(), "6.18.0".to_owned())].into(),
        capacity: Some(compute::Resources {
            cpu_millis: Some(2000),
            memory_bytes: Some(8 << 30),
            ..Default::default()
        }),
        ..process.fingerprint.take().unwrap()
    });
    let mut docker = driver("docker", compute::Health::Undetected);
    docker.fingerprint = Some(compute::FingerprintResponse {
        reason: "no engine answers at /var/run/docker.sock".into(),
        fix: "apt-get install docker.io".into(),
        ..docker.fingerprint.take().unwrap()
    });
    let mut vm = driver("vm", compute::Health::Unhealthy);
    vm.fingerprint = Some(compute::FingerprintResponse {
        reason: "/dev/kvm: permission denied".into(),
        fix: "usermod -aG kvm cofferdam".into(),
        checks: vec![check(
            "kvm",
            Failed,
            "open /dev/kvm: EACCES",
            "usermod -aG kvm cofferdam",
        )],
        ..vm.fingerprint.take().unwrap()
    });
    vec![process, docker, vm]
}

fn fake(drivers: Vec<Driver>) -> Fake {
    let fake = Fake::start();
    fake.on_get_info(|_| {
        Ok(GetInfoResponse {
            version: "0.1.0".into(),
            ready: true,
            default_driver: "process".into(),
            ..Default::default()
        })
    });
    let one = drivers[0].clone();
    fake.on_get_driver(move |_| {
        Ok(GetDriverResponse {
            driver: Some(one.clone()),
        })
    });
    fake.on_list_drivers(move |_| {
        Ok(ListDriversResponse {
            drivers: drivers.clone(),
        })
    });
    fake
}

/// The path of the socket is another one in each run.
fn settled(fake: &Fake, text: &str) -> String {
    text.replace(&fake.socket().display().to_string(), "SOCKET")
}

#[test]
fn drivers_are_listed_and_shown() {
    let fake = fake(drivers());
    insta::assert_snapshot!("driver_ls", shown(&fake.run(&["driver", "ls"])));
    assert_eq!(
        text(&fake.run(&["driver", "ls", "-q"]).stdout),
        "process\ndocker\nvm\n"
    );
    insta::assert_snapshot!(
        "driver_inspect",
        shown(&fake.run(&["driver", "inspect", "process"]))
    );
    insta::assert_snapshot!(
        "driver_inspect_json",
        shown(&fake.run(&["driver", "inspect", "--json", "process"]))
    );
}

#[test]
fn doctor_says_what_fails_and_how_to_mend_it() {
    let fake = fake(drivers());
    let output = fake.run(&["doctor"]);
    assert_eq!(code(&output), 1);
    insta::assert_snapshot!("doctor", settled(&fake, &shown(&output)));
    let output = fake.run(&["doctor", "--json"]);
    insta::assert_snapshot!("doctor_json", settled(&fake, &shown(&output)));
}

/// Connected, with a healthy platform, and all the same of no use: it does not answer.
#[test]
fn what_the_gateway_noticed_about_a_driver_is_said_everywhere() {
    use compute::CheckResult::{Failed, Warning};
    let mut odd = driver("odd", compute::Health::Healthy);
    odd.notices = vec![
        check(
            "unanswered",
            Failed,
            "it has not answered create sbx-1 for 8 s",
            "start it again",
        ),
        check(
            "inventory",
            Warning,
            "its list of sandboxes is not complete",
            "see the driver's log",
        ),
    ];
    let fake = fake(vec![
        odd.clone(),
        driver("process", compute::Health::Healthy),
    ]);
    let said = [
        ["driver", "ls"].as_slice(),
        &["driver", "inspect", "odd"],
        &["doctor"],
    ];
    let said = said.map(|args| shown(&fake.run(args))).join("\n");
    insta::assert_snapshot!("noticed", settled(&fake, &said));
    assert_eq!(code(&fake.run(&["doctor", "odd"])), 1);
    assert_eq!(code(&fake.run(&["doctor", "process"])), 0);
    odd.notices.remove(0);
    let fake = self::fake(vec![odd]);
    assert_eq!(code(&fake.run(&["doctor", "odd"])), 0);
}

#[test]
fn a_platform_that_is_not_here_fails_only_for_who_needs_it() {
    let fake = fake(drivers()[..2].to_vec());
    assert_eq!(code(&fake.run(&["doctor"])), 0);
    assert_eq!(code(&fake.run(&["doctor", "docker"])), 1);
    assert_eq!(code(&fake.run(&["doctor", "process"])), 0);
    let unknown = fake.run(&["doctor", "nope"]);
    assert_eq!(code(&unknown), 1);
    assert!(text(&unknown.stdout).contains("the gateway has no driver of this name"));
}

#[test]
fn doctor_gives_a_starting_gateway_a_moment() {
    let fake = fake(drivers()[..1].to_vec());
    let mut calls = 0;
    fake.on_get_info(move |_| {
        calls += 1;
        Ok(GetInfoResponse {
            version: "0.1.0".into(),
            ready: calls > 2,
            default_driver: "process".into(),
            ..Default::default()
        })
    });
    let output = fake.run(&["doctor"]);
    assert!(text(&output.stdout).starts_with("ok    gateway: version 0.1.0, ready"));
}

#[test]
fn doctor_without_the_gateway_that_was_named_fails() {
    let dir = tempfile::tempdir().unwrap();
    let output = cofferdam(dir.path())
        .args(["--gateway", "/nonexistent/gateway.sock", "doctor"])
        .output()
        .unwrap();
    insta::assert_snapshot!("doctor_no_gateway", shown(&output));
}
