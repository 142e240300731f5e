//! A sandbox as it is stored, version 1.

use data_encoding::BASE64;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::names;
use super::observation::ObservationV1;
use super::spec::SpecV1;
use crate::model::{
    DriverName, ExecutionId, Handle, IdError, Observation, SandboxFacts, SandboxId, SandboxName,
    SandboxState, UnixMillis,
};

#[derive(Serialize, Deserialize)]
pub(super) struct SandboxV1 {
    id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    driver: String,
    owner_uid: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    execution_id: Option<String>,
    spec: SpecV1,
    #[serde(with = "names::sandbox_state")]
    state: SandboxState,
    reason: String,
    message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    handle: Option<HandleV1>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    observed: Option<ObservationV1>,
    create_time_unix_ms: u64,
    ready_time_unix_ms: u64,
    state_time_unix_ms: u64,
    idle_timeout_ms: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    weaknesses: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    environment_names: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct HandleV1 {
    version: u32,
    #[serde(serialize_with = "base64", deserialize_with = "from_base64")]
    data: Vec<u8>,
}

fn base64<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&BASE64.encode(bytes))
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    BASE64.decode(text.as_bytes()).map_err(D::Error::custom)
}

impl From<&SandboxFacts> for SandboxV1 {
    fn from(facts: &SandboxFacts) -> Self {
        // Taken apart, so that a new field cannot be forgotten.
        let SandboxFacts {
            id,
            name,
            driver,
            owner_uid,
            execution_id,
            spec,
            state,
            reason,
            message,
            handle,
            observed,
            create_time,
            ready_time,
            state_time,
            idle_timeout_ms,
            weaknesses,
            environment_names,
        } = facts;
        Self {
            id: id.to_string(),
            name: name.as_ref().map(SandboxName::to_string),
            driver: driver.to_string(),
            owner_uid: *owner_uid,
            execution_id: execution_id.as_ref().map(ExecutionId::to_string),
            spec: spec.into(),
            state: *state,
            reason: reason.clone(),
            message: message.clone(),
            handle: handle.as_ref().map(|handle| HandleV1 {
                version: handle.version,
                data: handle.data.clone(),
            }),
            observed: observed.as_ref().map(ObservationV1::from),
            create_time_unix_ms: create_time.0,
            ready_time_unix_ms: ready_time.0,
            state_time_unix_ms: state_time.0,
            idle_timeout_ms: *idle_timeout_ms,
            weaknesses: weaknesses.clone(),
            environment_names: environment_names.clone(),
        }
    }
}

impl TryFrom<SandboxV1> for SandboxFacts {
    type Error = IdError;

    fn try_from(record: SandboxV1) -> Result<Self, IdError> {
        let name = record.name.as_deref().map(SandboxName::parse);
        let execution_id = record.execution_id.as_deref().map(ExecutionId::parse);
        Ok(Self {
            id: SandboxId::parse(&record.id)?,
            name: name.transpose()?,
            driver: DriverName::parse(&record.driver)?,
            owner_uid: record.owner_uid,
            execution_id: execution_id.transpose()?,
            spec: record.spec.into(),
            state: record.state,
            reason: record.reason,
            message: record.message,
            handle: record.handle.map(|handle| Handle {
                version: handle.version,
                data: handle.data,
            }),
            observed: record.observed.map(Observation::try_from).transpose()?,
            create_time: UnixMillis(record.create_time_unix_ms),
            ready_time: UnixMillis(record.ready_time_unix_ms),
            state_time: UnixMillis(record.state_time_unix_ms),
            idle_timeout_ms: record.idle_timeout_ms,
            weaknesses: record.weaknesses,
            environment_names: record.environment_names,
        })
    }
}
