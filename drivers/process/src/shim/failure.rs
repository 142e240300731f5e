//! From an errno to the stage that failed.

use std::fmt::Display;

use crate::sandbox::report::{Failure, Stage};

/// Says what was being done, and to what.
pub(crate) trait Context<T> {
    fn at(self, stage: Stage, detail: impl Display) -> Result<T, Failure>;
}

impl<T> Context<T> for rustix::io::Result<T> {
    fn at(self, stage: Stage, detail: impl Display) -> Result<T, Failure> {
        self.map_err(|errno| Failure::os(stage, errno.raw_os_error(), detail.to_string()))
    }
}

impl<T> Context<T> for std::io::Result<T> {
    fn at(self, stage: Stage, detail: impl Display) -> Result<T, Failure> {
        self.map_err(|error| match error.raw_os_error() {
            Some(errno) => Failure::os(stage, errno, detail.to_string()),
            None => Failure::own(stage, format!("{detail}: {error}")),
        })
    }
}
