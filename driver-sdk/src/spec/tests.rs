//! What is valid, and what "the same spec" means.

use proptest::prelude::*;

use super::*;
use crate::capabilities::supervised;
use crate::proto::{
    HostImage, ImageSources, ImageSpec, NetworkSpec, RegistryCredentials, ResourceLimits,
};

fn capabilities() -> Capabilities {
    Capabilities {
        images: Some(ImageSources {
            host: true,
            ..ImageSources::default()
        }),
        ..supervised(Isolation::Namespaces)
    }
}

fn spec() -> SandboxSpec {
    SandboxSpec {
        image: Some(ImageSpec {
            source: Some(image_spec::Source::Host(HostImage {})),
            ..ImageSpec::default()
        }),
        uid: 1000,
        gid: 1000,
        expire_time_unix_ms: 1,
        ..SandboxSpec::default()
    }
}

fn fields(spec: &SandboxSpec) -> Vec<String> {
    validate(spec, &capabilities())
        .into_iter()
        .map(|violation| violation.field)
        .collect()
}

#[test]
fn a_plain_spec_has_no_violations() {
    assert_eq!(fields(&spec()), Vec::<String>::new());
}

#[test]
fn everything_wrong_is_reported_at_once() {
    let spec = SandboxSpec {
        image: None,
        limits: Some(ResourceLimits {
            required: Some(Limits {
                memory: true,
                ..Limits::default()
            }),
            ..ResourceLimits::default()
        }),
        network: Some(NetworkSpec {
            class: NetworkClass::Open.into(),
            allow: vec!["example.org".to_owned()],
        }),
        mounts: vec![
            Mount {
                target: "relative/../x".to_owned(),
                ..Mount::default()
            },
            Mount {
                target: "/data".to_owned(),
                source: Some(mount::Source::HostPath("/srv".to_owned())),
                ..Mount::default()
            },
        ],
        expire_time_unix_ms: 0,
        gpus: 1,
        isolation_min: Isolation::VirtualMachine.into(),
        workspace: "/".to_owned(),
        hostname: "-bad".to_owned(),
        ..spec()
    };
    insta::assert_debug_snapshot!(fields(&spec), @r#"
    [
        "image",
        "limits.required.memory",
        "network.class",
        "network.allow",
        "mounts[0].target",
        "mounts[0]",
        "mounts[1].host_path",
        "workspace",
        "hostname",
        "expire_time_unix_ms",
        "gpus",
        "isolation_min",
    ]
    "#);
}

#[test]
fn bounds_are_checked() {
    let mut spec = spec();
    spec.workspace = format!("/{}", "x".repeat(bounds::STRING_BYTES_MAX));
    spec.labels = (0..=bounds::MAP_ENTRIES_MAX)
        .map(|index| (format!("k{index}"), String::new()))
        .collect();
    assert_eq!(fields(&spec), ["labels", "workspace"]);
}

#[test]
fn credentials_do_not_count_for_sameness() {
    let with = |password: &str| {
        let mut spec = spec();
        spec.image.as_mut().unwrap().credentials = Some(RegistryCredentials {
            password: password.to_owned(),
            ..RegistryCredentials::default()
        });
        SpecDigest::of(&spec)
    };
    assert_eq!(with("a"), with("b"));
}

#[test]
fn the_digest_depends_on_every_label() {
    let with = |key: &str, value: &str| {
        let mut spec = spec();
        spec.labels.insert(key.to_owned(), value.to_owned());
        SpecDigest::of(&spec)
    };
    assert_eq!(with("a", "b"), with("a", "b"));
    assert_ne!(with("a", "b"), with("ab", ""));
    assert_ne!(with("a", "b"), SpecDigest::of(&spec()));
}

#[test]
fn another_spec_is_already_exists() {
    let digest = SpecDigest::of(&spec());
    assert!(digest.check(&digest.to_hex(), "sbx-1").is_ok());
    let mut other = spec();
    other.uid = 1001;
    let error = SpecDigest::of(&other)
        .check(&digest.to_hex(), "sbx-1")
        .unwrap_err();
    assert_eq!(error.code(), tonic::Code::AlreadyExists);
}

proptest! {
    #[test]
    fn ids_are_what_the_contract_says(id in "\\PC{0,70}") {
        let plain = regex_like(&id);
        prop_assert_eq!(is_id(&id), plain);
    }
}

fn regex_like(id: &str) -> bool {
    let bytes = id.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes[0] != b'-'
        && bytes
            .iter()
            .all(|byte| b"abcdefghijklmnopqrstuvwxyz0123456789-".contains(byte))
}

#[test]
fn what_is_asked_for_by_an_unknown_value_is_refused() {
    let mut asked = spec();
    asked.isolation_min = 99;
    asked.image.as_mut().unwrap().pull = 99;
    asked.network = Some(NetworkSpec {
        class: 99,
        allow: Vec::new(),
    });
    let mut found = fields(&asked);
    found.sort();
    assert_eq!(found, ["image.pull", "isolation_min", "network.class"]);
}
