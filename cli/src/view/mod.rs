//! What the contract's objects look like to programs (`Serialize`) and to people (`lines`).
//!
//! The JSON is stable: keys only get added, and every key is always there. Names are those of
//! `gateway.proto`, with their units; states are upper-case; what is not known is `null`.

pub(crate) mod driver;
pub(crate) mod execution;
pub(crate) mod json;
pub(crate) mod sandbox;

/// A time or an amount for which the contract's 0 means "not yet" or "none".
fn known(value: u64) -> Option<u64> {
    (value != 0).then_some(value)
}

/// A text for which the contract's "" means "none".
fn text(value: &str) -> Option<String> {
    (!value.is_empty()).then(|| value.to_owned())
}

/// The name of an enum value without its prefixes; a value from the future keeps its number.
fn name<E: TryFrom<i32>>(
    value: i32,
    name: impl Fn(&E) -> &'static str,
    prefixes: &[&str],
) -> String {
    match E::try_from(value) {
        Ok(known) => {
            let mut name = name(&known);
            for prefix in prefixes {
                name = name.strip_prefix(prefix).unwrap_or(name);
            }
            name.to_owned()
        }
        Err(_) => format!("UNKNOWN_{value}"),
    }
}
