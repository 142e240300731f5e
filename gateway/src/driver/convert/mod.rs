//! The only place where types of `compute.v1` and of the model meet.
//!
//! Towards the gateway: a value that a newer driver may have invented becomes `Unknown` or `None`;
//! what makes no sense at all is an error. Towards the wire: every field is written out.

mod json;
mod observation;
mod platform;
mod spec;
#[cfg(test)]
mod tests;
mod text;

pub(super) use json::INTEGER_MAX;
pub use json::{struct_from_wire, struct_to_wire};
pub(super) use observation::sandbox_id;
pub use observation::{
    handle_from_wire, handle_to_wire, observation_from_wire, observation_to_wire,
};
pub use platform::{
    capabilities_from_wire, capabilities_to_wire, fingerprint_from_wire, fingerprint_to_wire,
};
pub use spec::{spec_from_wire, spec_to_wire};
pub(super) use text::plain;

/// A message that no driver may send and no store may hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} is not valid: {problem}")]
pub struct ConvertError {
    pub what: &'static str,
    pub problem: String,
}

/// Maps two enums onto each other. The first pair is what the wire calls unspecified and stands for
/// everything that this gateway does not know.
macro_rules! enums {
    ($to:ident, $from:ident, $model:ty, $wire:ty: $none:ident = $unset:ident,
     $($here:ident = $there:ident),+ $(,)?) => {
        fn $to(value: $model) -> i32 {
            let there = match value {
                <$model>::$none => <$wire>::$unset,
                $(<$model>::$here => <$wire>::$there,)+
            };
            there as i32
        }

        fn $from(value: i32) -> $model {
            match <$wire>::try_from(value) {
                Ok(<$wire>::$unset) | Err(_) => <$model>::$none,
                $(Ok(<$wire>::$there) => <$model>::$here,)+
            }
        }
    };
}
use enums;
