//! A driver's last word on a sandbox as it is stored, version 1.

use serde::{Deserialize, Serialize};

use super::names;
use crate::model::{
    Condition, ConditionStatus, ConditionType, IdError, Observation, ObservedState, SandboxId,
    Termination, TerminationReason, UnixMillis,
};

#[derive(Serialize, Deserialize)]
pub(super) struct ObservationV1 {
    sandbox_id: String,
    #[serde(with = "names::observed_state")]
    state: ObservedState,
    revision: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    conditions: Vec<ConditionV1>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    termination: Option<TerminationV1>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    oom_kill_count: Option<u64>,
    boots: u64,
    create_time_unix_ms: u64,
    start_time_unix_ms: u64,
    platform_id: String,
    image_digest: String,
    stream: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    weaknesses: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct ConditionV1 {
    #[serde(rename = "type", with = "names::condition_type")]
    kind: ConditionType,
    #[serde(with = "names::condition_status")]
    status: ConditionStatus,
    message: String,
    change_time_unix_ms: u64,
    #[serde(default)]
    progress_done_bytes: u64,
    #[serde(default)]
    progress_total_bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct TerminationV1 {
    #[serde(with = "names::termination_reason")]
    reason: TerminationReason,
    exit_code: i32,
    signal: u32,
    message: String,
    time_unix_ms: u64,
}

impl From<&Observation> for ObservationV1 {
    fn from(observation: &Observation) -> Self {
        // Taken apart, so that a new field cannot be forgotten.
        let Observation {
            sandbox_id,
            state,
            revision,
            conditions,
            termination,
            oom_kill_count,
            boots,
            create_time,
            start_time,
            platform_id,
            image_digest,
            stream,
            weaknesses,
        } = observation;
        Self {
            sandbox_id: sandbox_id.to_string(),
            state: *state,
            revision: *revision,
            conditions: conditions.iter().map(ConditionV1::from).collect(),
            termination: termination.as_ref().map(TerminationV1::from),
            oom_kill_count: *oom_kill_count,
            boots: *boots,
            create_time_unix_ms: create_time.0,
            start_time_unix_ms: start_time.0,
            platform_id: platform_id.clone(),
            image_digest: image_digest.clone(),
            stream: stream.clone(),
            weaknesses: weaknesses.clone(),
        }
    }
}

impl TryFrom<ObservationV1> for Observation {
    type Error = IdError;

    fn try_from(record: ObservationV1) -> Result<Self, IdError> {
        Ok(Self {
            sandbox_id: SandboxId::parse(&record.sandbox_id)?,
            state: record.state,
            revision: record.revision,
            conditions: record.conditions.into_iter().map(Condition::from).collect(),
            termination: record.termination.map(Termination::from),
            oom_kill_count: record.oom_kill_count,
            boots: record.boots,
            create_time: UnixMillis(record.create_time_unix_ms),
            start_time: UnixMillis(record.start_time_unix_ms),
            platform_id: record.platform_id,
            image_digest: record.image_digest,
            stream: record.stream,
            weaknesses: record.weaknesses,
        })
    }
}

impl From<&Condition> for ConditionV1 {
    fn from(condition: &Condition) -> Self {
        let Condition {
            kind,
            status,
            message,
            change_time,
            progress_done_bytes,
            progress_total_bytes,
        } = condition;
        Self {
            kind: *kind,
            status: *status,
            message: message.clone(),
            change_time_unix_ms: change_time.0,
            progress_done_bytes: *progress_done_bytes,
            progress_total_bytes: *progress_total_bytes,
        }
    }
}

impl From<ConditionV1> for Condition {
    fn from(record: ConditionV1) -> Self {
        Self {
            kind: record.kind,
            status: record.status,
            message: record.message,
            change_time: UnixMillis(record.change_time_unix_ms),
            progress_done_bytes: record.progress_done_bytes,
            progress_total_bytes: record.progress_total_bytes,
        }
    }
}

impl From<&Termination> for TerminationV1 {
    fn from(termination: &Termination) -> Self {
        let Termination {
            reason,
            exit_code,
            signal,
            message,
            time,
        } = termination;
        Self {
            reason: *reason,
            exit_code: *exit_code,
            signal: *signal,
            message: message.clone(),
            time_unix_ms: time.0,
        }
    }
}

impl From<TerminationV1> for Termination {
    fn from(record: TerminationV1) -> Self {
        Self {
            reason: record.reason,
            exit_code: record.exit_code,
            signal: record.signal,
            message: record.message,
            time: UnixMillis(record.time_unix_ms),
        }
    }
}
