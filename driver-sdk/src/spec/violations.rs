//! Violations, collected: all of them, not the first.

use super::{bounds, is_id};
use crate::error::DriverError;
use crate::proto::FieldViolation;

/// Collects violations, so that all are reported and not only the first.
///
/// ```
/// use cofferdam_driver_sdk::proto::SandboxSpec;
/// use cofferdam_driver_sdk::spec::Violations;
///
/// let spec = SandboxSpec { gpus: 2, ..SandboxSpec::default() };
/// let mut found = Violations::new();
/// found.check(spec.gpus <= 1, "gpus", "at most one can be passed through");
/// found.check(spec.mounts.is_empty(), "mounts", "this platform mounts nothing");
/// assert_eq!(found.into_violations().unwrap_err()[0].field, "gpus");
/// ```
#[derive(Debug, Default)]
pub struct Violations(Vec<FieldViolation>);

impl Violations {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one: the field's path from the message, and what is wrong and what is allowed.
    pub fn add(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.0.push(FieldViolation {
            field: field.into(),
            message: message.into(),
        });
    }

    /// Adds one unless `ok`.
    pub fn check(&mut self, ok: bool, field: &str, message: &str) {
        if !ok {
            self.add(field, message);
        }
    }

    /// A string within the contract's bound.
    pub fn string(&mut self, field: &str, value: &str) {
        if value.len() > bounds::STRING_BYTES_MAX {
            let (len, max) = (value.len(), bounds::STRING_BYTES_MAX);
            self.add(field, format!("has {len} bytes; at most {max} are allowed"));
        }
    }

    /// A list within the contract's bound.
    pub fn list(&mut self, field: &str, len: usize) {
        if len > bounds::LIST_ITEMS_MAX {
            let max = bounds::LIST_ITEMS_MAX;
            self.add(field, format!("has {len} items; at most {max} are allowed"));
        }
    }

    /// A map within the contract's bounds.
    pub fn map<'a>(
        &mut self,
        field: &str,
        entries: impl Iterator<Item = (&'a String, &'a String)>,
    ) {
        let mut count = 0_usize;
        for (key, value) in entries {
            count += 1;
            if key.len() > bounds::MAP_KEY_BYTES_MAX || value.len() > bounds::MAP_VALUE_BYTES_MAX {
                let key: String = key.chars().take(64).collect();
                self.add(
                    format!("{field}[{key:?}]"),
                    format!(
                        "a key may have {} bytes, a value {}",
                        bounds::MAP_KEY_BYTES_MAX,
                        bounds::MAP_VALUE_BYTES_MAX
                    ),
                );
            }
        }
        if count > bounds::MAP_ENTRIES_MAX {
            let max = bounds::MAP_ENTRIES_MAX;
            self.add(
                field,
                format!("has {count} entries; at most {max} are allowed"),
            );
        }
    }

    /// An id: 1 to 63 bytes of `[a-z0-9-]`, not beginning with a dash.
    pub fn id(&mut self, field: &str, value: &str) {
        if !is_id(value) {
            self.add(
                field,
                "must be 1 to 63 bytes of [a-z0-9-], not beginning with a dash",
            );
        }
    }

    /// Whether nothing was found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What was found.
    #[must_use]
    pub fn into_vec(self) -> Vec<FieldViolation> {
        self.0
    }

    /// What was found, as an error if there is any.
    ///
    /// # Errors
    /// If there are any.
    pub fn into_violations(self) -> Result<(), Vec<FieldViolation>> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(self.0)
        }
    }

    /// `INVALID_ARGUMENT` with all of them, if there are any.
    ///
    /// # Errors
    /// If there are any.
    pub fn into_result(self) -> Result<(), DriverError> {
        self.into_violations().map_err(DriverError::invalid)
    }
}

impl Extend<FieldViolation> for Violations {
    fn extend<T: IntoIterator<Item = FieldViolation>>(&mut self, iter: T) {
        self.0.extend(iter);
    }
}
