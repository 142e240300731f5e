//! Plans for specs, and everything that can be wrong with a spec.

use cofferdam_driver_sdk::proto::{Limits, NetworkSpec, TmpfsMount};
use cofferdam_driver_sdk::settings::from_json;
use serde_json::json;

use super::*;
use crate::config::{Settings, Surroundings};

fn config() -> Config {
    let here = Surroundings {
        is_root: true,
        state_home: None,
        program: Some("/libexec/driver".into()),
    };
    let settings = Settings {
        read_only_paths: vec!["/opt/tools".into()],
        ..Settings::default()
    };
    settings.resolve(&here).unwrap()
}

/// `/opt/tools/link` leads out; nothing below `/gone` exists.
fn canonicalize(path: &Path) -> io::Result<PathBuf> {
    match path.to_str() {
        Some("/opt/tools/link") => Ok("/root/secret".into()),
        Some(path) if path.starts_with("/gone") => Err(io::ErrorKind::NotFound.into()),
        _ => Ok(path.to_owned()),
    }
}

fn plan_of(spec: &SandboxSpec) -> Result<SandboxPlan, Vec<FieldViolation>> {
    plan(
        "sbx-1",
        spec,
        "/run/callback/sbx-1".into(),
        &config(),
        &canonicalize,
    )
}

fn spec() -> SandboxSpec {
    SandboxSpec {
        uid: 1000,
        gid: 1000,
        expire_time_unix_ms: 4_000_000_000_000,
        ..SandboxSpec::default()
    }
}

fn host_path(source: &str, target: &str, read_only: bool) -> Mount {
    Mount {
        target: target.to_owned(),
        read_only,
        source: Some(mount::Source::HostPath(source.to_owned())),
    }
}

#[test]
fn a_plain_spec_becomes_a_sealed_sandbox() {
    insta::assert_debug_snapshot!(plan_of(&spec()).unwrap(), @r#"
    SandboxPlan {
        sandbox_id: "sbx-1",
        callback_dir: "/run/callback/sbx-1",
        workload: Workload {
            uid: 1000,
            gid: 1000,
            user: "sandbox",
        },
        limits: SandboxLimits {
            cgroup: CgroupLimits {
                memory_bytes: None,
                pids: None,
                cpu_millis: None,
            },
            tmp_bytes: 1099511627776,
            workspace_bytes: 1099511627776,
        },
        network: None,
        binds: [],
        hostname: "sandbox",
        expire_time_unix_ms: 4000000000000,
    }
    "#);
}

#[test]
fn what_is_memory_leaves_some_to_processes() {
    let limits = |memory: u64, disk: u64, tmp: u64, asked| SandboxSpec {
        limits: Some(ResourceLimits {
            memory_bytes: memory << 20,
            disk_bytes: disk << 20,
            tmp_bytes: tmp << 20,
            required: Some(Limits {
                disk: asked,
                ..Limits::default()
            }),
            ..ResourceLimits::default()
        }),
        ..spec()
    };
    let sizes = |spec| {
        let limits = plan_of(&spec).unwrap().limits;
        (limits.workspace_bytes >> 20, limits.tmp_bytes >> 20)
    };
    assert_eq!(sizes(limits(512, 512, 100, false)), (256, 100));
    assert_eq!(sizes(limits(96, 0, 0, false)), (40, 16));
    assert_eq!(sizes(limits(16, 512, 100, false)), (2, 0));
    assert_eq!(sizes(limits(512, 256, 8, true)), (256, 8));
    assert_eq!(sizes(limits(0, 512, 100, true)), (512, 100));
    let found = plan_of(&limits(512, 512, 100, true)).unwrap_err();
    assert_eq!(found[0].field, "limits.disk_bytes");
    let fix = "with 512 MiB of memory at most 256 MiB; or give 1025 MiB of memory";
    assert!(found[0].message.ends_with(fix), "{found:?}");
    assert_eq!(trims(&limits(512, 256, 100, false)), [] as [&str; 0]);
    assert_eq!(trims(&limits(0, 0, 0, false)), [] as [&str; 0]);
    let said = trims(&limits(96, 512, 0, false));
    assert!(said[0].starts_with("the workspace has 40 MiB"), "{said:?}");
    assert!(said[0].ends_with("(512 MiB were allowed)"), "{said:?}");
    assert!(said[1].starts_with("/tmp has 16 MiB"), "{said:?}");
    for disk in [1, 16, 40, 100, 512, 4096] {
        let enough = (memory_for_workspace(disk << 20) >> 20) + 1;
        assert_eq!(sizes(limits(enough, disk, 0, true)).0, disk, "{enough}");
    }
}

#[test]
fn everything_that_can_be_asked_for_reaches_the_plan() {
    let spec = SandboxSpec {
        limits: Some(ResourceLimits {
            memory_bytes: 512 << 20,
            cpu_millis: 1500,
            pids: 64,
            disk_bytes: 256 << 20,
            tmp_bytes: 32 << 20,
            required: Some(Limits {
                memory: true,
                ..Limits::default()
            }),
        }),
        network: Some(NetworkSpec {
            class: NetworkClass::Open.into(),
            ..NetworkSpec::default()
        }),
        mounts: vec![host_path("/opt/tools/a", "/srv/a", true)],
        driver_config: Some(from_json(&json!({"read_only_paths": ["/opt/tools/b"]}))),
        workspace: WORKSPACE.to_owned(),
        hostname: "builder".to_owned(),
        ..spec()
    };
    insta::assert_debug_snapshot!(plan_of(&spec).unwrap(), @r#"
    SandboxPlan {
        sandbox_id: "sbx-1",
        callback_dir: "/run/callback/sbx-1",
        workload: Workload {
            uid: 1000,
            gid: 1000,
            user: "sandbox",
        },
        limits: SandboxLimits {
            cgroup: CgroupLimits {
                memory_bytes: Some(
                    536870912,
                ),
                pids: Some(
                    64,
                ),
                cpu_millis: Some(
                    1500,
                ),
            },
            tmp_bytes: 33554432,
            workspace_bytes: 268435456,
        },
        network: Host,
        binds: [
            ReadOnlyBind {
                source: "/opt/tools/a",
                target: "/srv/a",
            },
            ReadOnlyBind {
                source: "/opt/tools/b",
                target: "/opt/tools/b",
            },
        ],
        hostname: "builder",
        expire_time_unix_ms: 4000000000000,
    }
    "#);
    assert_eq!(required_bounds(&spec), [("memory", Bound::Memory)]);
}

#[test]
fn everything_that_this_platform_cannot_do_is_said_at_once() {
    let spec = SandboxSpec {
        mounts: vec![
            host_path("/opt/tools/a", "/srv/a", false),
            host_path("/etc/shadow", "/srv/b", true),
            host_path("/opt/tools/link", "/srv/c", true),
            host_path("/gone", "/srv/d", true),
            host_path("/opt/tools/a", "/usr/lib/x", true),
            Mount {
                target: "/data".to_owned(),
                source: Some(mount::Source::Tmpfs(TmpfsMount { size_bytes: 1 })),
                ..Mount::default()
            },
        ],
        driver_config: Some(from_json(&json!({"read_only_paths": ["/home"]}))),
        root_writable: true,
        workspace: "/work".to_owned(),
        ..spec()
    };
    let found = plan_of(&spec).unwrap_err();
    let fields: Vec<_> = found
        .iter()
        .map(|violation| violation.field.as_str())
        .collect();
    assert_eq!(
        fields,
        [
            "mounts[0].read_only",
            "mounts[1].host_path",
            "mounts[2].host_path",
            "mounts[3].host_path",
            "mounts[4].host_path",
            "mounts[5]",
            "driver_config.read_only_paths[0]",
            "root_writable",
            "workspace",
        ]
    );
}
