//! Configure: settings are taken once, checked, and change nothing when they are the same.

use cofferdam_gateway::driver::convert::struct_to_wire;
use cofferdam_proto::compute::v1 as wire;
use serde_json::{Map, Value, json};
use tonic::Code;

use crate::answer::refused_with;
use crate::case::{Case, Verdict, ensure, run, skip};
use crate::suite::Suite;

pub(super) const CASES: &[Case] = &[
    Case {
        id: "core.configure.first",
        source: "Configure",
        says: "Until a driver process has been configured once, every RPC but Handshake, Configure \
               and Fingerprint is FAILED_PRECONDITION with the violation type NOT_CONFIGURED.",
        fix: "remember in the process whether Configure has succeeded",
        needs: &[],
        run: run!(first),
    },
    Case {
        id: "core.configure.same-again",
        source: "Configure",
        says: "The same settings again change nothing, and sandboxes that exist are not touched.",
        fix: "compare with the settings that are in use, and do nothing if they are equal",
        needs: &[],
        run: run!(same_again),
    },
    Case {
        id: "core.configure.capabilities",
        source: "ConfigureResponse",
        says: "Capabilities as in the handshake, now with these settings.",
        fix: "answer Configure with the capabilities that hold from here on",
        needs: &[],
        run: run!(capabilities),
    },
    Case {
        id: "core.configure.wrong",
        source: "Configure",
        says: "A setting that is wrong is INVALID_ARGUMENT; all violations at once, with paths as \
               in the settings.",
        fix: "check settings against your own schema, and answer with a google.rpc.BadRequest that \
              names every field",
        needs: &[],
        run: run!(wrong),
    },
];

async fn first(suite: Suite) -> Verdict {
    let Some(answer) = suite.before_configure() else {
        skip!("the driver was not asked anything before Configure");
    };
    let expected = "FAILED_PRECONDITION NOT_CONFIGURED";
    if answer != expected && answer.starts_with("NOT_FOUND") && !suite.can_restart() {
        skip!("this process was configured before the suite came; start it anew");
    }
    ensure!(
        answer == expected,
        "GetSandbox before Configure was answered with {answer}"
    );
    Ok(())
}

async fn same_again(suite: Suite) -> Verdict {
    let (driver, subject) = suite.with_sandbox().await?;
    let before = driver.get(&subject.id).await?;
    let session = subject.current();
    let settings = &suite.options().config.settings;
    driver.configure(settings).await?;
    driver.configure(settings).await?;
    let elsewhere = suite.driver().await?;
    ensure!(
        elsewhere.incarnation() == driver.incarnation(),
        "settings that are the same made a new incarnation"
    );
    subject
        .must_be_untouched(&driver, &before, session.as_ref())
        .await
}

async fn capabilities(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let settings = struct_to_wire(&suite.options().config.settings);
    let request = wire::ConfigureRequest {
        settings: Some(settings),
    };
    let first = driver.configure_with(request.clone()).await?.capabilities;
    let again = driver.configure_with(request).await?.capabilities;
    ensure!(first.is_some(), "the answer has no capabilities");
    ensure!(first == again, "the same settings gave other capabilities");
    Ok(())
}

async fn wrong(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let schema = suite
        .greeting()
        .map(|greeting| greeting.handshake.settings_schema);
    let schema = schema.unwrap_or_default();
    let broken = broken_settings(&schema);
    if broken.is_empty() {
        skip!("the driver's schema of settings forbids nothing that the suite could try");
    }
    let request = wire::ConfigureRequest {
        settings: Some(struct_to_wire(&broken)),
    };
    let refused = refused_with(driver.configure_with(request).await, Code::InvalidArgument)?;
    let fields = refused.fields();
    for name in broken.keys() {
        ensure!(
            fields.iter().any(|field| field.starts_with(name.as_str())),
            "{name:?} was wrong, and the violations name {fields:?}"
        );
    }
    // What was in use before still is.
    driver.configure(&suite.options().config.settings).await
}

/// Up to two settings with values that their schema forbids.
pub(super) fn broken_settings(schema: &str) -> Map<String, Value> {
    const SETTINGS_MAX: usize = 2;
    let mut broken = Map::new();
    let Ok(schema) = serde_json::from_str::<Value>(schema) else {
        return broken;
    };
    let Ok(validator) = jsonschema::draft202012::options().build(&schema) else {
        return broken;
    };
    let names = schema["properties"]
        .as_object()
        .into_iter()
        .flat_map(Map::keys);
    for name in names {
        let odd = [
            json!({"conformance": [1]}),
            json!(-1.5),
            json!("\u{1}"),
            json!(true),
        ];
        let pointer = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
        let forbidden = odd.into_iter().find(|value| {
            let settings = json!({ name.as_str(): value });
            let mut errors = validator.iter_errors(&settings);
            errors.any(|error| error.instance_path().to_string().starts_with(&pointer))
        });
        broken.extend(forbidden.map(|value| (name.clone(), value)));
        if broken.len() == SETTINGS_MAX {
            break;
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_schema_forbids_is_found() {
        let schema = r#"{"type": "object", "required": ["a"], "properties": {
            "any": true, "a": {"type": "string"}, "b": {"type": "integer", "minimum": 0}
        }}"#;
        let broken = broken_settings(schema);
        assert_eq!(broken.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert!(broken_settings("").is_empty());
        assert!(broken_settings(r#"{"type": "object"}"#).is_empty());
    }
}
