//! Checks of settings and `driver_config` against the schemas that drivers gave.

use serde_json::{Map, Value};

use super::Violation;

/// Everything in `value` that `schema` (JSON Schema, draft 2020-12; empty: takes nothing) does not
/// allow.
pub fn schema_violations(schema: &str, value: &Map<String, Value>) -> Vec<Violation> {
    let _ = (schema, value);
    todo!()
}
