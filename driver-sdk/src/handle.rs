//! Handles: what a driver wants back after a restart, kept by the gateway, which never looks inside.
//!
//! A handle is a versioned JSON object. The version is the driver's own; a handle of a newer driver
//! is refused and not guessed at, so that a downgrade says `UNKNOWN` and deletes nothing.
//!
//! ```
//! use cofferdam_driver_sdk::handle::{self, HandleRecord};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Container {
//!     id: String,
//!     /// Came with version 2.
//!     #[serde(default)]
//!     node: String,
//! }
//!
//! impl HandleRecord for Container {
//!     const VERSION: u32 = 2;
//! }
//!
//! let made = Container { id: "c-1".to_owned(), node: "n-7".to_owned() };
//! let mut sealed = handle::seal(&made)?;
//! let found: Container = handle::open(&sealed)?;
//! assert_eq!(found.node, "n-7");
//!
//! // Of a newer driver: the answer to RecoverSandboxes is UNKNOWN, and not GONE.
//! sealed.version = 3;
//! assert!(handle::open::<Container>(&sealed).is_err());
//! # Ok::<(), handle::HandleError>(())
//! ```

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::proto::Handle;

/// Bound of the contract on `Handle.data`.
pub const HANDLE_BYTES_MAX: usize = 64 * 1024;

/// A type that is stored in a handle. Derive `Serialize` and `Deserialize`; put no secrets in it.
pub trait HandleRecord: Serialize + DeserializeOwned {
    /// Goes up when an older driver could not read what this one writes.
    const VERSION: u32;

    /// Reads what version `version` wrote, which is older than [`Self::VERSION`]. The default
    /// reads it as the present version, which is right as long as fields were only added.
    ///
    /// # Errors
    /// When `data` is not what that version wrote.
    fn migrate(version: u32, data: &[u8]) -> Result<Self, serde_json::Error> {
        let _ = version;
        serde_json::from_slice(data)
    }
}

/// Why a handle cannot be used. The answer to the gateway is `UNKNOWN`, with this as its message.
#[derive(Debug, thiserror::Error)]
pub enum HandleError {
    /// Made by a newer driver.
    #[error("the handle has version {found}, and this driver reads up to {supported}")]
    Newer {
        /// Of the handle.
        found: u32,
        /// Of this driver.
        supported: u32,
    },
    /// Damaged, or of another driver.
    #[error("the handle of version {version} cannot be read")]
    Unreadable {
        /// Of the handle.
        version: u32,
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
    /// More than a gateway stores.
    #[error("the handle takes {size} bytes, and the contract allows {HANDLE_BYTES_MAX}")]
    TooLarge {
        /// In bytes.
        size: usize,
    },
}

/// Packs a record.
///
/// # Errors
/// When it is larger than [`HANDLE_BYTES_MAX`] or cannot be written as JSON.
pub fn seal<R: HandleRecord>(record: &R) -> Result<Handle, HandleError> {
    let data = serde_json::to_vec(record).map_err(|source| HandleError::Unreadable {
        version: R::VERSION,
        source,
    })?;
    if data.len() > HANDLE_BYTES_MAX {
        return Err(HandleError::TooLarge { size: data.len() });
    }
    Ok(Handle {
        version: R::VERSION,
        data: data.into(),
    })
}

/// Unpacks a record, also an older one.
///
/// # Errors
/// When it is of a newer driver, damaged, or too large.
pub fn open<R: HandleRecord>(handle: &Handle) -> Result<R, HandleError> {
    let version = handle.version;
    if handle.data.len() > HANDLE_BYTES_MAX {
        return Err(HandleError::TooLarge {
            size: handle.data.len(),
        });
    }
    if version > R::VERSION {
        return Err(HandleError::Newer {
            found: version,
            supported: R::VERSION,
        });
    }
    let record = if version == R::VERSION {
        serde_json::from_slice(&handle.data)
    } else {
        R::migrate(version, &handle.data)
    };
    record.map_err(|source| HandleError::Unreadable { version, source })
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Record {
        container: String,
        #[serde(default)]
        node: String,
    }

    impl HandleRecord for Record {
        const VERSION: u32 = 2;
    }

    #[test]
    fn a_record_comes_back() {
        let record = Record {
            container: "abc".to_owned(),
            node: "n1".to_owned(),
        };
        assert_eq!(open::<Record>(&seal(&record).unwrap()).unwrap(), record);
    }

    #[test]
    fn an_older_handle_is_migrated() {
        let handle = Handle {
            version: 1,
            data: br#"{"container":"abc"}"#.as_slice().into(),
        };
        assert_eq!(open::<Record>(&handle).unwrap().node, "");
    }

    #[test]
    fn a_newer_or_damaged_handle_is_an_error_and_no_guess() {
        let newer = Handle {
            version: 3,
            data: br#"{"container":"abc"}"#.as_slice().into(),
        };
        assert!(matches!(
            open::<Record>(&newer),
            Err(HandleError::Newer {
                found: 3,
                supported: 2
            })
        ));
        let damaged = Handle {
            version: 2,
            data: b"\x00".as_slice().into(),
        };
        assert!(matches!(
            open::<Record>(&damaged),
            Err(HandleError::Unreadable { .. })
        ));
    }
}
