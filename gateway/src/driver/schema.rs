//! Checks of settings and `driver_config` against the schemas that drivers gave.

use serde_json::{Map, Value};

use super::Violation;
use super::convert::INTEGER_MAX;

/// More than so many violations help nobody.
const VIOLATIONS_MAX: usize = 100;

/// A compiled schema.
#[derive(Debug, Default)]
pub(super) enum Schema {
    /// The driver takes nothing.
    #[default]
    Empty,
    Compiled(Box<jsonschema::Validator>),
}

impl Schema {
    /// Compiles a JSON Schema, draft 2020-12. Never fetches anything: a reference to elsewhere is an
    /// error.
    pub(super) fn compile(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Self::Empty);
        }
        let schema: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let validator = jsonschema::draft202012::options().build(&schema);
        validator
            .map(|v| Self::Compiled(Box::new(v)))
            .map_err(|error| error.to_string())
    }

    /// Everything that is wrong with `value`.
    pub(super) fn violations(&self, value: &Map<String, Value>) -> Vec<Violation> {
        let mut violations = Vec::new();
        match self {
            Self::Empty => violations.extend(value.keys().map(|name| Violation {
                field: name.clone(),
                message: "not known: this driver takes no settings here".to_owned(),
            })),
            Self::Compiled(validator) => {
                let value = Value::Object(value.clone());
                let errors = validator.iter_errors(&value).take(VIOLATIONS_MAX);
                violations.extend(errors.map(|error| Violation {
                    field: field_path(&error.instance_path().to_string()),
                    message: message(&error),
                }));
            }
        }
        inexact(value, "", &mut violations);
        violations
    }
}

/// Everything in `value` that `schema` (empty: takes nothing) does not allow. A schema that is not
/// one allows nothing.
pub fn schema_violations(schema: &str, value: &Map<String, Value>) -> Vec<Violation> {
    match Schema::compile(schema) {
        Ok(schema) => schema.violations(value),
        Err(error) => vec![Violation {
            field: String::new(),
            message: format!("the driver's own schema is not valid: {error}"),
        }],
    }
}

/// What is wrong, without the value: it may be a secret.
fn message(error: &jsonschema::ValidationError<'_>) -> String {
    error.masked_with("the value").to_string()
}

/// `/volumes/0/name` as `volumes[0].name`.
fn field_path(pointer: &str) -> String {
    let mut path = String::new();
    for part in pointer.split('/').skip(1) {
        let part = part.replace("~1", "/").replace("~0", "~");
        if !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) {
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

/// Integers that would change on their way: the contract's numbers are doubles.
fn inexact(map: &Map<String, Value>, at: &str, violations: &mut Vec<Violation>) {
    for (name, value) in map {
        let field = match at {
            "" => name.clone(),
            at => format!("{at}.{name}"),
        };
        inexact_value(value, field, violations);
    }
}

fn inexact_value(value: &Value, field: String, violations: &mut Vec<Violation>) {
    match value {
        Value::Number(number) => {
            let size = number.as_u64().or(number.as_i64().map(i64::unsigned_abs));
            if size.is_some_and(|size| size > INTEGER_MAX) {
                let message = "integers beyond 2^53 cannot be passed exactly: write a string";
                let message = message.to_owned();
                violations.push(Violation { field, message });
            }
        }
        Value::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                inexact_value(value, format!("{field}[{index}]"), violations);
            }
        }
        Value::Object(map) => inexact(map, &field, violations),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SCHEMA: &str = r#"{
        "type": "object",
        "additionalProperties": false,
        "required": ["host"],
        "properties": {
            "host": {"type": "string"},
            "password": {"type": "string", "minLength": 20},
            "volumes": {"type": "array", "items": {
                "type": "object", "properties": {"name": {"type": "string"}}
            }}
        }
    }"#;

    fn check(schema: &str, value: Value) -> Vec<Violation> {
        schema_violations(schema, value.as_object().unwrap())
    }

    #[test]
    fn all_violations_come_at_once_with_paths() {
        let value = json!({"volumes": [{"name": 7}], "hots": "x"});
        let found = check(SCHEMA, value);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found.iter().any(|v| v.field == "volumes[0].name"));
        assert!(found.iter().any(|v| v.message.contains("hots")));
        assert!(found.iter().any(|v| v.message.contains("host")));
    }

    #[test]
    fn a_violation_never_shows_the_value() {
        let found = check(SCHEMA, json!({"host": "h", "password": "hunter2"}));
        assert_eq!(found.len(), 1);
        assert!(!format!("{found:?}").contains("hunter2"), "{found:?}");
    }

    #[test]
    fn an_empty_schema_takes_nothing() {
        assert_eq!(check("", json!({})), vec![]);
        assert_eq!(check(" ", json!({"a": 1}))[0].field, "a");
    }

    #[test]
    fn a_broken_schema_allows_nothing() {
        assert!(check("{", json!({}))[0].message.contains("own schema"));
        assert!(
            check(r#"{"type": 7}"#, json!({}))[0]
                .message
                .contains("own schema")
        );
    }

    #[test]
    fn a_schema_cannot_make_the_gateway_read_files_or_hosts() {
        for reference in ["file:///etc/passwd", "http://localhost:1/x"] {
            let schema = json!({"$ref": reference}).to_string();
            assert!(check(&schema, json!({}))[0].message.contains("own schema"));
        }
    }

    #[test]
    fn integers_that_would_change_on_the_wire_are_refused() {
        let value = json!({"a": {"b": [1, 9_007_199_254_740_993_u64]}});
        let found = check(r#"{"type": "object"}"#, value);
        assert_eq!(found[0].field, "a.b[1]");
    }
}
