//! An execution as it is stored, version 1.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::bytes::Bytes;
use super::names;
use crate::model::{
    DriverName, Ending, ExecutionFacts, ExecutionId, ExecutionReason, ExecutionState, IdError,
    OutputTotals, PtySize, SandboxId, StageTimes, UnixMillis,
};

#[derive(Serialize, Deserialize)]
pub(super) struct ExecutionV1 {
    id: String,
    sandbox_id: String,
    driver: String,
    one_shot: bool,
    detachable: bool,
    owner_uid: u32,
    argv: Vec<Bytes>,
    cwd: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<(u32, Option<u32>)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pty: Option<PtyV1>,
    stdin: bool,
    timeout_ms: u64,
    output_cap_bytes: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    environment_names: Vec<String>,
    #[serde(with = "names::execution_state")]
    state: ExecutionState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ending: Option<EndingV1>,
    create_time_unix_ms: u64,
    start_time_unix_ms: u64,
    end_time_unix_ms: u64,
    queued_us: u64,
    claiming_us: u64,
    running_us: u64,
    output_bytes: u64,
    output_dropped_bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cpu_user_us: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cpu_system_us: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_rss_bytes: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct PtyV1 {
    rows: u32,
    columns: u32,
    term: String,
}

#[derive(Serialize, Deserialize)]
struct EndingV1 {
    #[serde(with = "names::execution_reason")]
    reason: ExecutionReason,
    message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signal: Option<u32>,
}

impl From<&ExecutionFacts> for ExecutionV1 {
    fn from(facts: &ExecutionFacts) -> Self {
        // Taken apart, so that a new field cannot be forgotten.
        let ExecutionFacts {
            id,
            sandbox_id,
            driver,
            one_shot,
            detachable,
            owner_uid,
            argv,
            cwd,
            user,
            pty,
            stdin,
            timeout_ms,
            output_cap_bytes,
            labels,
            environment_names,
            state,
            ending,
            create_time,
            start_time,
            end_time,
            stages,
            output,
            cpu_user_us,
            cpu_system_us,
            max_rss_bytes,
        } = facts;
        Self {
            id: id.to_string(),
            sandbox_id: sandbox_id.to_string(),
            driver: driver.to_string(),
            one_shot: *one_shot,
            detachable: *detachable,
            owner_uid: *owner_uid,
            argv: argv.iter().cloned().map(Bytes).collect(),
            cwd: cwd.clone(),
            user: *user,
            pty: pty.as_ref().map(PtyV1::from),
            stdin: *stdin,
            timeout_ms: *timeout_ms,
            output_cap_bytes: *output_cap_bytes,
            labels: labels.clone(),
            environment_names: environment_names.clone(),
            state: *state,
            ending: ending.as_ref().map(EndingV1::from),
            create_time_unix_ms: create_time.0,
            start_time_unix_ms: start_time.0,
            end_time_unix_ms: end_time.0,
            queued_us: stages.queued_us,
            claiming_us: stages.claiming_us,
            running_us: stages.running_us,
            output_bytes: output.bytes,
            output_dropped_bytes: output.dropped_bytes,
            cpu_user_us: *cpu_user_us,
            cpu_system_us: *cpu_system_us,
            max_rss_bytes: *max_rss_bytes,
        }
    }
}

impl TryFrom<ExecutionV1> for ExecutionFacts {
    type Error = IdError;

    fn try_from(record: ExecutionV1) -> Result<Self, IdError> {
        Ok(Self {
            id: ExecutionId::parse(&record.id)?,
            sandbox_id: SandboxId::parse(&record.sandbox_id)?,
            driver: DriverName::parse(&record.driver)?,
            one_shot: record.one_shot,
            detachable: record.detachable,
            owner_uid: record.owner_uid,
            argv: record.argv.into_iter().map(|bytes| bytes.0).collect(),
            cwd: record.cwd,
            user: record.user,
            pty: record.pty.map(PtySize::from),
            stdin: record.stdin,
            timeout_ms: record.timeout_ms,
            output_cap_bytes: record.output_cap_bytes,
            labels: record.labels,
            environment_names: record.environment_names,
            state: record.state,
            ending: record.ending.map(Ending::from),
            create_time: UnixMillis(record.create_time_unix_ms),
            start_time: UnixMillis(record.start_time_unix_ms),
            end_time: UnixMillis(record.end_time_unix_ms),
            stages: StageTimes {
                queued_us: record.queued_us,
                claiming_us: record.claiming_us,
                running_us: record.running_us,
            },
            output: OutputTotals {
                bytes: record.output_bytes,
                dropped_bytes: record.output_dropped_bytes,
            },
            cpu_user_us: record.cpu_user_us,
            cpu_system_us: record.cpu_system_us,
            max_rss_bytes: record.max_rss_bytes,
        })
    }
}

impl From<&PtySize> for PtyV1 {
    fn from(pty: &PtySize) -> Self {
        let PtySize {
            rows,
            columns,
            term,
        } = pty;
        Self {
            rows: *rows,
            columns: *columns,
            term: term.clone(),
        }
    }
}

impl From<PtyV1> for PtySize {
    fn from(record: PtyV1) -> Self {
        Self {
            rows: record.rows,
            columns: record.columns,
            term: record.term,
        }
    }
}

impl From<&Ending> for EndingV1 {
    fn from(ending: &Ending) -> Self {
        let Ending {
            reason,
            message,
            exit_code,
            signal,
        } = ending;
        Self {
            reason: *reason,
            message: message.clone(),
            exit_code: *exit_code,
            signal: *signal,
        }
    }
}

impl From<EndingV1> for Ending {
    fn from(record: EndingV1) -> Self {
        Self {
            reason: record.reason,
            message: record.message,
            exit_code: record.exit_code,
            signal: record.signal,
        }
    }
}
