//! Handles, and what is said of a sandbox after a restart.

use std::path::{Path, PathBuf};

use cofferdam_driver_sdk::handle::{self, HandleRecord};
use cofferdam_driver_sdk::proto::Sandbox;
use cofferdam_driver_sdk::{Created, DriverError, RecoverItem, Recovered};
use serde::{Deserialize, Serialize};

/// Everything about a sandbox is in the driver's state directory; the handle says in which.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ProcessHandle {
    state_dir: PathBuf,
}

impl HandleRecord for ProcessHandle {
    const VERSION: u32 = 1;
}

/// The answer to a create.
pub(crate) fn created(state_dir: &Path, sandbox: Sandbox) -> Result<Created, DriverError> {
    let handle = handle::seal(&ProcessHandle {
        state_dir: state_dir.to_owned(),
    })
    .map_err(|error| DriverError::internal("making a handle").because(error))?;
    Ok(Created { handle, sandbox })
}

/// What became of a sandbox, given what was `observed` under the state directory of the settings.
pub(crate) fn outcome(
    item: &RecoverItem,
    state_dir: Option<&Path>,
    observed: Result<Option<Sandbox>, DriverError>,
) -> Recovered {
    let handle = match item.handle.as_ref().map(handle::open::<ProcessHandle>) {
        Some(Err(error)) => {
            let message = error.to_string();
            return Recovered::Unknown { message };
        }
        Some(Ok(handle)) => Some(handle),
        None => None,
    };
    match observed {
        Ok(Some(sandbox)) => Recovered::Found {
            sandbox,
            handle: None,
        },
        Ok(None) => match handle.filter(|handle| Some(&*handle.state_dir) != state_dir) {
            Some(elsewhere) => Recovered::Unknown {
                message: format!(
                    "the sandbox was made under the state_dir {}, which the settings do not name \
                     any more",
                    elsewhere.state_dir.display()
                ),
            },
            None => Recovered::Gone {
                termination: None,
                message: "there is no record of this sandbox".to_owned(),
            },
        },
        Err(error) => Recovered::Unknown {
            message: error.chain(),
        },
    }
}

#[cfg(test)]
mod tests {
    use cofferdam_driver_sdk::proto::Handle;

    use super::*;

    fn item(state_dir: &str) -> RecoverItem {
        let handle = ProcessHandle {
            state_dir: state_dir.into(),
        };
        RecoverItem {
            sandbox_id: "sbx-1".to_owned(),
            handle: Some(handle::seal(&handle).unwrap()),
            callback_directory: None,
        }
    }

    fn outcome_here(item: &RecoverItem, found: Option<Sandbox>) -> Recovered {
        outcome(item, Some(Path::new("/state")), Ok(found))
    }

    #[test]
    fn what_is_on_record_is_found_and_what_is_not_is_gone() {
        let found = outcome_here(&item("/state"), Some(Sandbox::default()));
        assert!(matches!(found, Recovered::Found { .. }));
        assert!(matches!(
            outcome_here(&item("/state"), None),
            Recovered::Gone { .. }
        ));
        let without_handle = RecoverItem {
            handle: None,
            ..item("/state")
        };
        assert!(matches!(
            outcome_here(&without_handle, None),
            Recovered::Gone { .. }
        ));
    }

    #[test]
    fn what_cannot_be_known_is_unknown() {
        assert!(matches!(
            outcome_here(&item("/elsewhere"), None),
            Recovered::Unknown { .. }
        ));
        let newer = RecoverItem {
            handle: Some(Handle {
                version: 2,
                data: b"{}".as_slice().into(),
            }),
            ..item("/state")
        };
        assert!(matches!(
            outcome_here(&newer, None),
            Recovered::Unknown { .. }
        ));
        let failed = outcome(
            &item("/state"),
            None,
            Err(DriverError::unavailable("no disk")),
        );
        assert!(matches!(failed, Recovered::Unknown { message } if message == "no disk"));
    }
}
