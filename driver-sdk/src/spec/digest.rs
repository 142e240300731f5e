//! What "the same spec" means for a repeated create.

use std::fmt;

use prost::Message as _;
use sha2::{Digest as _, Sha256};

use crate::error::DriverError;
use crate::proto::SandboxSpec;

/// SHA-256 of a spec in a deterministic form: what "the same spec" means for a repeated create.
///
/// Credentials count only the first time: they may have been renewed when a create is repeated,
/// and a digest of them has no business on a disk.
#[derive(Clone, PartialEq, Eq)]
pub struct SpecDigest([u8; 32]);

impl SpecDigest {
    /// Of this spec.
    #[must_use]
    pub fn of(spec: &SandboxSpec) -> Self {
        let mut spec = spec.clone();
        if let Some(image) = &mut spec.image {
            image.credentials = None;
        }
        // Deterministic: fields by number, maps by key (the generated code has BTreeMaps).
        Self(Sha256::digest(spec.encode_to_vec()).into())
    }

    /// In hexadecimal digits, to be stored as a label or in a record.
    #[must_use]
    pub fn to_hex(&self) -> String {
        hex::encode(self.0)
    }

    /// Decides about a repeated create: the stored digest (as [`to_hex`](Self::to_hex) gave it) of
    /// the sandbox that exists, against this one.
    ///
    /// # Errors
    /// `ALREADY_EXISTS` when they differ.
    pub fn check(&self, stored_hex: &str, sandbox_id: &str) -> Result<(), DriverError> {
        if self.to_hex() == stored_hex {
            Ok(())
        } else {
            Err(DriverError::sandbox_exists(sandbox_id))
        }
    }
}

impl fmt::Debug for SpecDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpecDigest({})", self.to_hex())
    }
}
