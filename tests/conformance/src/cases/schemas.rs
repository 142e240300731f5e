//! The schemas by which a gateway checks settings before the driver sees them.

use serde_json::Value;

use crate::case::{Case, Verdict, ensure, fail, run};
use crate::suite::Suite;

/// As settings themselves.
const SCHEMA_BYTES_MAX: usize = 256 * 1024;

pub(super) const CASES: &[Case] = &[
    Case {
        id: "core.schemas.settings",
        source: "HandshakeResponse.settings_schema",
        says: "A JSON Schema (draft 2020-12) of the settings, or empty.",
        fix: "check the schema with any validator; it must not refer to other places",
        needs: &[],
        run: run!(settings),
    },
    Case {
        id: "core.schemas.driver-config",
        source: "HandshakeResponse.driver_config_schema",
        says: "A JSON Schema (draft 2020-12) of `SandboxSpec.driver_config`, or empty.",
        fix: "check the schema with any validator; it must not refer to other places",
        needs: &[],
        run: run!(driver_config),
    },
];

async fn settings(suite: Suite) -> Verdict {
    let stranger = suite.stranger().await?;
    let answer = stranger
        .handshake(stranger.hello(suite.gateway_id()))
        .await?;
    check(&answer.settings_schema)
}

async fn driver_config(suite: Suite) -> Verdict {
    let stranger = suite.stranger().await?;
    let answer = stranger
        .handshake(stranger.hello(suite.gateway_id()))
        .await?;
    check(&answer.driver_config_schema)
}

fn check(text: &str) -> Verdict {
    ensure!(
        text.len() <= SCHEMA_BYTES_MAX,
        "the schema has {} bytes, more than {SCHEMA_BYTES_MAX}",
        text.len()
    );
    if text.is_empty() {
        return Ok(());
    }
    let schema: Value = match serde_json::from_str(text) {
        Ok(schema) => schema,
        Err(error) => fail!("the schema is no JSON: {error}"),
    };
    if let Err(error) = jsonschema::draft202012::meta::validate(&schema) {
        let at = error.instance_path().to_string();
        fail!("the schema is none, at {at:?}: {error}");
    }
    // References that cannot be had show only here.
    if let Err(error) = jsonschema::draft202012::options().build(&schema) {
        fail!("the schema cannot be used: {error}");
    }
    Ok(())
}
