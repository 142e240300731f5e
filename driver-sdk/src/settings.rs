//! From `google.protobuf.Struct` to typed values, by way of a JSON Schema.
//!
//! The gateway has checked settings and `driver_config` against the driver's schema already. A
//! driver checks again, since it may be called by something else, and reports all problems with
//! their paths.

use jsonschema::Validator;
use prost_types::{Struct, Value as ProtoValue, value::Kind};
use serde::de::DeserializeOwned;
use serde_json::{Map, Number, Value};

use crate::proto::{FieldViolation, SandboxSpec};

/// A compiled JSON Schema, or none.
#[derive(Debug)]
pub struct Schema(Option<Validator>);

/// A driver's own schema is not one.
#[derive(Debug, thiserror::Error)]
#[error("the schema of {what} is not a valid JSON Schema: {reason}")]
pub struct SchemaError {
    what: &'static str,
    reason: String,
}

impl Schema {
    /// Compiles `text`; empty text is no schema.
    ///
    /// # Errors
    /// When it is not JSON or not a schema: a mistake in the driver, found when it starts.
    pub fn compile(what: &'static str, text: &str) -> Result<Self, SchemaError> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        let error = |reason: String| SchemaError { what, reason };
        let schema: Value =
            serde_json::from_str(text).map_err(|source| error(source.to_string()))?;
        let validator =
            jsonschema::validator_for(&schema).map_err(|source| error(source.to_string()))?;
        Ok(Self(Some(validator)))
    }

    /// Whether there is one.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.0.is_some()
    }

    /// All violations of `value`, their paths below `prefix` (which may be empty).
    #[must_use]
    pub fn violations(&self, prefix: &str, value: &Value) -> Vec<FieldViolation> {
        let Some(validator) = &self.0 else {
            return Vec::new();
        };
        validator
            .iter_errors(value)
            .map(|error| FieldViolation {
                field: field_path(prefix, error.instance_path().as_str()),
                message: error.masked().to_string(),
            })
            .collect()
    }
}

/// `/volumes/0/name` below `driver_config` becomes `driver_config.volumes[0].name`.
fn field_path(prefix: &str, pointer: &str) -> String {
    let mut path = prefix.to_owned();
    for part in pointer.split('/').filter(|part| !part.is_empty()) {
        let part = part.replace("~1", "/").replace("~0", "~");
        if part.bytes().all(|byte| byte.is_ascii_digit()) {
            path.push_str(&format!("[{part}]"));
        } else {
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(&part);
        }
    }
    path
}

/// JSON of a struct. Numbers without a fraction become integers, as they were before protobuf.
#[must_use]
pub fn to_json(fields: &Struct) -> Value {
    let entries = fields.fields.iter();
    Value::Object(
        entries
            .map(|(name, value)| (name.clone(), value_to_json(value)))
            .collect::<Map<_, _>>(),
    )
}

/// 2^53: up to here a double holds every integer.
const EXACT_INTEGER_MAX: f64 = 9_007_199_254_740_992.0;

fn value_to_json(value: &ProtoValue) -> Value {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(value)) => Value::Bool(*value),
        Some(Kind::StringValue(value)) => Value::String(value.clone()),
        Some(Kind::ListValue(list)) => {
            Value::Array(list.values.iter().map(value_to_json).collect())
        }
        Some(Kind::StructValue(fields)) => to_json(fields),
        Some(Kind::NumberValue(number)) => number_to_json(*number),
    }
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "the value was just checked to be a whole number within 53 bits"
)]
fn number_to_json(number: f64) -> Value {
    if number.fract() == 0.0 && number.abs() <= EXACT_INTEGER_MAX {
        Value::Number(Number::from(number as i64))
    } else {
        Number::from_f64(number).map_or(Value::Null, Value::Number)
    }
}

/// Checks `fields` against `schema` and reads them as `T`.
///
/// # Errors
/// All violations; if the schema finds none and `T` still does not fit, the parser's one.
pub fn read<T: DeserializeOwned>(
    schema: &Schema,
    prefix: &str,
    fields: &Struct,
) -> Result<T, Vec<FieldViolation>> {
    let json = to_json(fields);
    let violations = schema.violations(prefix, &json);
    if !violations.is_empty() {
        return Err(violations);
    }
    serde_json::from_value(json).map_err(|error| {
        vec![FieldViolation {
            field: prefix.to_owned(),
            message: error.to_string(),
        }]
    })
}

/// The `driver_config` of a spec, which the server has checked against the driver's schema already.
///
/// # Errors
/// When `T` does not fit what the schema allows: a mistake in the driver.
pub fn driver_config<T: DeserializeOwned>(spec: &SandboxSpec) -> Result<T, Vec<FieldViolation>> {
    let fields = spec.driver_config.clone().unwrap_or_default();
    read(&Schema(None), "driver_config", &fields)
}

/// A struct of JSON; for tests, and for drivers that hold settings as JSON. Anything but an object
/// becomes an empty struct.
#[must_use]
pub fn from_json(value: &Value) -> Struct {
    let fields = value.as_object().into_iter().flatten();
    Struct {
        fields: fields
            .map(|(name, value)| (name.clone(), json_to_value(value)))
            .collect(),
    }
}

fn json_to_value(value: &Value) -> ProtoValue {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(*value),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or(f64::NAN)),
        Value::String(value) => Kind::StringValue(value.clone()),
        Value::Array(values) => Kind::ListValue(prost_types::ListValue {
            values: values.iter().map(json_to_value).collect(),
        }),
        Value::Object(_) => Kind::StructValue(from_json(value)),
    };
    ProtoValue { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Settings {
        workers: u32,
        #[serde(default)]
        paths: Vec<String>,
    }

    const SCHEMA: &str = r#"{
        "type": "object", "additionalProperties": false, "required": ["workers"],
        "properties": {
            "workers": {"type": "integer", "minimum": 1},
            "paths": {"type": "array", "items": {"type": "string", "pattern": "^/"}}
        }
    }"#;

    fn read_json(value: &Value) -> Result<Settings, Vec<FieldViolation>> {
        let schema = Schema::compile("settings", SCHEMA).unwrap();
        read(&schema, "", &from_json(value))
    }

    #[test]
    fn integers_survive_protobuf() {
        assert_eq!(read_json(&json!({"workers": 3})).unwrap().workers, 3);
    }

    #[test]
    fn all_problems_come_with_their_paths() {
        let found = read_json(&json!({"workers": 0, "paths": ["/a", "b"], "x": 1})).unwrap_err();
        let mut fields: Vec<_> = found
            .iter()
            .map(|violation| violation.field.as_str())
            .collect();
        fields.sort_unstable();
        assert_eq!(fields, ["", "paths[1]", "workers"]);
    }

    #[test]
    fn values_are_not_repeated_in_messages() {
        let found = read_json(&json!({"workers": "s3cret"})).unwrap_err();
        assert!(!found[0].message.contains("s3cret"), "{}", found[0].message);
    }

    #[test]
    fn a_wrong_schema_is_the_drivers_mistake() {
        assert!(Schema::compile("settings", "{").is_err());
        assert!(Schema::compile("settings", r#"{"type": 3}"#).is_err());
    }
}
