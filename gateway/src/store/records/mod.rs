//! How facts look in the store: versioned JSON, apart from the live types and from every wire.
//!
//! A record says its version in `v`. A later version is a new set of types beside these; records
//! of all versions that were ever released are read, the newest is written. Fields may be added to
//! a version when their absence has a meaning (`#[serde(default)]`).
//!
//! What is a secret is not stored: no environment values, no registry credentials.

mod bytes;
mod execution;
mod names;
mod observation;
mod sandbox;
mod spec;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Serialize};

use crate::model::{ExecutionFacts, SandboxFacts};
use execution::ExecutionV1;
use sandbox::SandboxV1;

#[derive(Serialize)]
struct Written<T> {
    v: u32,
    #[serde(flatten)]
    record: T,
}

#[derive(Deserialize)]
struct Version {
    v: u32,
}

pub(super) fn write_sandbox(facts: &SandboxFacts) -> Result<String, serde_json::Error> {
    write(SandboxV1::from(facts))
}

pub(super) fn read_sandbox(record: &str) -> Result<SandboxFacts, serde_json::Error> {
    read::<SandboxV1, _>(record)
}

pub(super) fn write_execution(facts: &ExecutionFacts) -> Result<String, serde_json::Error> {
    write(ExecutionV1::from(facts))
}

pub(super) fn read_execution(record: &str) -> Result<ExecutionFacts, serde_json::Error> {
    read::<ExecutionV1, _>(record)
}

fn write(record: impl Serialize) -> Result<String, serde_json::Error> {
    serde_json::to_string(&Written { v: 1, record })
}

fn read<V1, T>(record: &str) -> Result<T, serde_json::Error>
where
    V1: DeserializeOwned + TryInto<T, Error = crate::model::IdError>,
{
    match serde_json::from_str::<Version>(record)?.v {
        1 => {
            let record: V1 = serde_json::from_str(record)?;
            record.try_into().map_err(serde_json::Error::custom)
        }
        other => Err(serde_json::Error::custom(format_args!(
            "record version {other} is not known"
        ))),
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
