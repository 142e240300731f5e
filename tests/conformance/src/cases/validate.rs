//! ValidateSandbox, and a create that is refused for the same reasons.

use cofferdam_gateway::driver::convert::struct_to_wire;
use cofferdam_proto::compute::v1 as wire;
use cofferdam_proto::compute::v1::{
    HostImage, ImageSpec, Isolation, NetworkClass, NetworkSpec, SandboxSpec, image_spec,
};
use serde_json::{Map, json};
use tonic::Code;

use super::configure::broken_settings;
use crate::answer::refused_with;
use crate::case::{Case, Stop, Verdict, ensure, run, skip};
use crate::driver::Driver;
use crate::suite::Suite;

const ALL: &str = "collect every violation before you answer, each with the path of its field";

pub(super) const CASES: &[Case] = &[
    Case {
        id: "core.validate.right",
        source: "ValidateSandbox",
        says: "A spec that is right has no violations.",
        fix: "if the spec should be refused, say in the capabilities what cannot be asked for",
        needs: &[],
        run: run!(right),
    },
    Case {
        id: "core.validate.all-at-once",
        source: "ValidateSandbox",
        says: "Says everything that is wrong with a spec, not only the first thing; violations are \
               data, the call itself is OK.",
        fix: ALL,
        needs: &[],
        run: run!(all_at_once),
    },
    Case {
        id: "core.validate.no-spec",
        source: "ValidateSandbox, CreateSandbox",
        says: "A request without a spec is INVALID_ARGUMENT: there is nothing to look at.",
        fix: "check that `spec` is set",
        needs: &[],
        run: run!(no_spec),
    },
    Case {
        id: "core.validate.changes-nothing",
        source: "ValidateSandbox",
        says: "Changes nothing.",
        fix: "only look",
        needs: &[],
        run: run!(changes_nothing),
    },
    Case {
        id: "core.validate.isolation",
        source: "SandboxSpec.isolation_min",
        says: "A driver that gives less isolation than the caller accepts answers INVALID_ARGUMENT.",
        fix: "compare with `Capabilities.isolation`; the enum is in order, weakest first",
        needs: &[],
        run: run!(isolation),
    },
    Case {
        id: "core.validate.required-limits",
        source: "ResourceLimits.required",
        says: "A limit that the caller asked for by name is enforced, or the spec is refused.",
        fix: "refuse required limits that `Capabilities.limits` does not claim",
        needs: &[],
        run: run!(required_limits),
    },
    Case {
        id: "core.validate.driver-config",
        source: "SandboxSpec.driver_config",
        says: "It is valid under `driver_config_schema`; an empty schema takes none.",
        fix: "check it against your own schema: the gateway's check is not the only one",
        needs: &[],
        run: run!(driver_config),
    },
    Case {
        id: "core.validate.expired",
        source: "SandboxSpec.expire_time_unix_ms",
        says: "Never 0, and not in the past when a sandbox is made.",
        fix: "refuse 0, and for a new sandbox a time that has passed",
        needs: &[],
        run: run!(expired),
    },
    Case {
        id: "core.validate.create-agrees",
        source: "CreateSandbox",
        says: "INVALID_ARGUMENT as ValidateSandbox would say, with all violations, and nothing is \
               left behind.",
        fix: "validate in CreateSandbox before anything is made, and answer with a \
              google.rpc.BadRequest whose fields begin with `spec.`",
        needs: &[],
        run: run!(create_agrees),
    },
];

/// The fields that the driver finds wrong.
async fn wrong_fields(driver: &Driver, spec: SandboxSpec) -> Result<Vec<String>, Stop> {
    let request = wire::ValidateSandboxRequest { spec: Some(spec) };
    let answer = driver.validate_with(request).await?;
    for violation in &answer.violations {
        if violation.message.is_empty() {
            let field = &violation.field;
            return Err(Stop::failed(format!(
                "the violation of {field:?} has no message"
            )));
        }
    }
    Ok(answer
        .violations
        .into_iter()
        .map(|violation| violation.field)
        .collect())
}

fn names(fields: &[String], wanted: &str) -> bool {
    fields.iter().any(|field| {
        let rest = field.strip_prefix(wanted);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    })
}

fn must_name(fields: &[String], wanted: &[&str]) -> Verdict {
    let missing: Vec<_> = wanted
        .iter()
        .filter(|field| !names(fields, field))
        .collect();
    ensure!(
        missing.is_empty(),
        "{missing:?} were wrong and are not among the violations {fields:?}"
    );
    Ok(())
}

async fn right(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let fields = wrong_fields(&driver, suite.spec()).await?;
    ensure!(
        fields.is_empty(),
        "a plain spec has the violations {fields:?}"
    );
    Ok(())
}

/// A spec with as many mistakes as this driver's capabilities allow, and the fields they are in.
fn broken(suite: &Suite) -> (SandboxSpec, Vec<&'static str>) {
    let can = suite.capabilities();
    let mut spec = suite.spec();
    let mut wrong = vec!["expire_time_unix_ms", "image"];
    spec.expire_time_unix_ms = 0;
    spec.image = other_image(&can);
    if can.isolation() < Isolation::RemoteMachine {
        spec.isolation_min = Isolation::RemoteMachine.into();
        wrong.push("isolation_min");
    }
    if let Some(class) = other_network(&can) {
        spec.network = Some(NetworkSpec {
            class: class.into(),
            allow: Vec::new(),
        });
        wrong.push("network");
    }
    if !can.gpu {
        spec.gpus = 1;
        wrong.push("gpus");
    }
    (spec, wrong)
}

/// One that the driver does not claim; or none at all, which is wrong as well.
fn other_image(can: &wire::Capabilities) -> Option<ImageSpec> {
    let images = can.images.unwrap_or_default();
    let source = match (images.host, images.registry, images.archive) {
        (false, ..) => image_spec::Source::Host(HostImage {}),
        (_, false, _) => image_spec::Source::Reference("debian:12".to_owned()),
        (.., false) => image_spec::Source::Archive("/nowhere".to_owned()),
        (true, true, true) => return None,
    };
    Some(ImageSpec {
        source: Some(source),
        ..ImageSpec::default()
    })
}

fn other_network(can: &wire::Capabilities) -> Option<NetworkClass> {
    [NetworkClass::None, NetworkClass::Egress, NetworkClass::Open]
        .into_iter()
        .find(|class| !can.networks().any(|known| known == *class))
}

async fn all_at_once(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let (spec, wrong) = broken(&suite);
    let fields = wrong_fields(&driver, spec).await?;
    must_name(&fields, &wrong)
}

async fn no_spec(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let request = wire::ValidateSandboxRequest { spec: None };
    refused_with(driver.validate_with(request).await, Code::InvalidArgument)?;
    let subject = suite.subject()?;
    let request = wire::CreateSandboxRequest {
        spec: None,
        ..subject.request()
    };
    refused_with(driver.create_with(request).await, Code::InvalidArgument)?;
    Ok(())
}

async fn changes_nothing(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let before = driver.list_ids().await?;
    wrong_fields(&driver, suite.spec()).await?;
    wrong_fields(&driver, broken(&suite).0).await?;
    let after = driver.list_ids().await?;
    ensure!(
        before == after,
        "sandboxes before: {before:?}; after: {after:?}"
    );
    Ok(())
}

async fn isolation(suite: Suite) -> Verdict {
    let can = suite.capabilities();
    if can.isolation() == Isolation::RemoteMachine {
        skip!("the driver gives the strongest isolation there is");
    }
    let driver = suite.driver().await?;
    let subject = suite.subject_with(SandboxSpec {
        isolation_min: Isolation::RemoteMachine.into(),
        ..suite.spec()
    })?;
    let fields = wrong_fields(&driver, subject.spec.clone()).await?;
    must_name(&fields, &["isolation_min"])?;
    refused_with(subject.create(&driver).await, Code::InvalidArgument)?;
    // What it gives, and what is weaker, can be asked for.
    let spec = SandboxSpec {
        isolation_min: can.isolation,
        ..suite.spec()
    };
    let fields = wrong_fields(&driver, spec).await?;
    ensure!(
        fields.is_empty(),
        "its own isolation has the violations {fields:?}"
    );
    Ok(())
}

async fn required_limits(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let claimed = suite.capabilities().limits.unwrap_or_default();
    let all = wire::Limits {
        memory: true,
        cpu: true,
        pids: true,
        disk: true,
    };
    let each = |limits: wire::Limits| [limits.memory, limits.cpu, limits.pids, limits.disk];
    let is_missing = each(claimed).contains(&false);
    let with = |required| {
        let mut spec = suite.spec();
        if let Some(limits) = spec.limits.as_mut() {
            limits.required = Some(required);
        }
        spec
    };
    if is_missing {
        let fields = wrong_fields(&driver, with(all)).await?;
        must_name(&fields, &["limits"])?;
        let subject = suite.subject_with(with(all))?;
        refused_with(subject.create(&driver).await, Code::InvalidArgument)?;
    }
    let fields = wrong_fields(&driver, with(claimed)).await?;
    ensure!(
        fields.is_empty(),
        "limits that the capabilities claim have the violations {fields:?}"
    );
    Ok(())
}

async fn driver_config(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let greeting = suite.greeting();
    let schema = greeting.map(|greeting| greeting.handshake.driver_config_schema);
    let schema = schema.unwrap_or_default();
    let mut broken = broken_settings(&schema);
    if schema.is_empty() {
        broken = Map::from_iter([("conformance".to_owned(), json!("no such key"))]);
    }
    if broken.is_empty() {
        skip!("the driver's schema of driver_config forbids nothing that the suite could try");
    }
    let mut config = suite.options().config.sandbox.driver_config.clone();
    config.extend(broken);
    let subject = suite.subject_with(SandboxSpec {
        driver_config: Some(struct_to_wire(&config)),
        ..suite.spec()
    })?;
    let fields = wrong_fields(&driver, subject.spec.clone()).await?;
    must_name(&fields, &["driver_config"])?;
    refused_with(subject.create(&driver).await, Code::InvalidArgument)?;
    Ok(())
}

async fn expired(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    for expire_time_unix_ms in [0, 1, crate::wait::now_ms() - 60_000] {
        let subject = suite.subject_with(SandboxSpec {
            expire_time_unix_ms,
            ..suite.spec()
        })?;
        let fields = wrong_fields(&driver, subject.spec.clone()).await?;
        must_name(&fields, &["expire_time_unix_ms"])?;
        refused_with(subject.create(&driver).await, Code::InvalidArgument)?;
    }
    Ok(())
}

async fn create_agrees(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let (spec, wrong) = broken(&suite);
    let subject = suite.subject_with(spec)?;
    let refused = refused_with(subject.create(&driver).await, Code::InvalidArgument)?;
    let wrong: Vec<String> = wrong.iter().map(|field| format!("spec.{field}")).collect();
    let wrong: Vec<&str> = wrong.iter().map(String::as_str).collect();
    must_name(&refused.fields(), &wrong)?;
    subject.must_be_gone(&driver).await
}
