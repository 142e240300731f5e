//! JSON objects as `google.protobuf.Struct`.
//!
//! A `Struct` has no integers: numbers are doubles. Whole ones come back as integers, and
//! `schema_violations` refuses those that a double cannot hold.

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value as WireValue};
use serde_json::{Map, Number, Value};

/// Up to here every integer is exactly a double.
pub(in crate::driver) const INTEGER_MAX: u64 = 1 << 53;

pub fn struct_to_wire(map: &Map<String, Value>) -> Struct {
    let field = |(name, value): (&String, &Value)| (name.clone(), value_to_wire(value));
    Struct {
        fields: map.iter().map(field).collect(),
    }
}

pub fn struct_from_wire(value: Struct) -> Map<String, Value> {
    let field = |(name, value): (String, WireValue)| (name, value_from_wire(value));
    value.fields.into_iter().map(field).collect()
}

fn value_to_wire(value: &Value) -> WireValue {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(*value),
        Value::Number(value) => Kind::NumberValue(value.as_f64().unwrap_or_default()),
        Value::String(value) => Kind::StringValue(value.clone()),
        Value::Array(values) => Kind::ListValue(ListValue {
            values: values.iter().map(value_to_wire).collect(),
        }),
        Value::Object(map) => Kind::StructValue(struct_to_wire(map)),
    };
    WireValue { kind: Some(kind) }
}

fn value_from_wire(value: WireValue) -> Value {
    match value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(value)) => Value::Bool(value),
        Some(Kind::NumberValue(value)) => number(value),
        Some(Kind::StringValue(value)) => Value::String(value),
        Some(Kind::ListValue(list)) => list.values.into_iter().map(value_from_wire).collect(),
        Some(Kind::StructValue(value)) => Value::Object(struct_from_wire(value)),
    }
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "checked to be whole and small"
)]
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() <= INTEGER_MAX as f64 {
        return Value::Number(Number::from(value as i64));
    }
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}
