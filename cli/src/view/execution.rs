//! Executions, for programs and for people.

use std::collections::BTreeMap;

use cofferdam_proto::gateway::v1::{Execution, ExecutionReason, ExecutionState, Notice};
use serde::Serialize;

use super::{known, name, text};
use crate::outcome;
use crate::render::Block;
use crate::ui::Tone;
use crate::units::{show_duration_ms, show_size, show_span_us, show_time};

#[derive(Debug, Serialize)]
pub(crate) struct ExecutionView {
    execution_id: String,
    sandbox_id: Option<String>,
    one_shot: bool,
    driver: String,
    state: String,
    reason: Option<String>,
    message: Option<String>,
    exit_code: Option<i32>,
    signal: Option<u32>,
    /// Bytes that are not UTF-8 are replaced.
    argv: Vec<String>,
    cwd: Option<String>,
    pty: bool,
    timeout_ms: Option<u64>,
    labels: BTreeMap<String, String>,
    environment_names: Vec<String>,
    owner_uid: u32,
    create_time_unix_ms: Option<u64>,
    start_time_unix_ms: Option<u64>,
    end_time_unix_ms: Option<u64>,
    queued_us: u64,
    claiming_us: u64,
    running_us: u64,
    output_bytes: u64,
    output_dropped_bytes: u64,
    cpu_user_us: Option<u64>,
    cpu_system_us: Option<u64>,
    max_rss_bytes: Option<u64>,
}

impl From<&Execution> for ExecutionView {
    fn from(execution: &Execution) -> Self {
        Self {
            execution_id: execution.execution_id.clone(),
            sandbox_id: text(&execution.sandbox_id),
            one_shot: execution.one_shot,
            driver: execution.driver.clone(),
            state: state(execution),
            reason: reason(execution),
            message: text(&execution.message),
            exit_code: execution.exit_code,
            signal: execution.signal,
            argv: argv(execution),
            cwd: text(&execution.cwd),
            pty: execution.pty,
            timeout_ms: known(execution.timeout_ms),
            labels: execution.labels.clone().into_iter().collect(),
            environment_names: execution.environment_names.clone(),
            owner_uid: execution.owner_uid,
            create_time_unix_ms: known(execution.create_time_unix_ms),
            start_time_unix_ms: known(execution.start_time_unix_ms),
            end_time_unix_ms: known(execution.end_time_unix_ms),
            queued_us: execution.queued_us,
            claiming_us: execution.claiming_us,
            running_us: execution.running_us,
            output_bytes: execution.output_bytes,
            output_dropped_bytes: execution.output_dropped_bytes,
            cpu_user_us: execution.cpu_user_us,
            cpu_system_us: execution.cpu_system_us,
            max_rss_bytes: execution.max_rss_bytes,
        }
    }
}

/// What the gateway tells people about an execution that goes on.
pub(crate) fn notice(notice: &Notice) -> String {
    match notice.hint.as_str() {
        "" => notice.message.clone(),
        hint => format!("{}; {hint}", notice.message),
    }
}

/// "RUNNING"
pub(crate) fn state(execution: &Execution) -> String {
    name(
        execution.state,
        ExecutionState::as_str_name,
        &["EXECUTION_STATE_", "EXECUTION_"],
    )
}

/// "OOM_KILLED"; none while it runs.
pub(crate) fn reason(execution: &Execution) -> Option<String> {
    (execution.reason != 0).then(|| {
        name(
            execution.reason,
            ExecutionReason::as_str_name,
            &["EXECUTION_REASON_", "REASON_"],
        )
    })
}

pub(crate) fn has_ended(execution: &Execution) -> bool {
    use ExecutionState as State;
    matches!(
        execution.state(),
        State::ExecutionSucceeded
            | State::ExecutionFailed
            | State::ExecutionCanceled
            | State::ExecutionTimedOut
            | State::ExecutionLost
    )
}

pub(crate) fn state_tone(execution: &Execution) -> Tone {
    use ExecutionState as State;
    match execution.state() {
        State::ExecutionSucceeded => Tone::Good,
        State::ExecutionFailed | State::ExecutionLost | State::ExecutionTimedOut => Tone::Bad,
        State::ExecutionCanceled => Tone::Faint,
        _ => Tone::Warning,
    }
}

pub(crate) fn argv(execution: &Execution) -> Vec<String> {
    execution
        .argv
        .iter()
        .map(|argument| String::from_utf8_lossy(argument).into_owned())
        .collect()
}

/// The command as a person would type it.
pub(crate) fn command(execution: &Execution) -> String {
    let words: Vec<String> = argv(execution).iter().map(|word| quote(word)).collect();
    words.join(" ")
}

fn quote(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./=:,+@%^~".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// What a shell would see, once it has ended.
pub(crate) fn exit_text(execution: &Execution) -> String {
    if has_ended(execution) {
        outcome::exit_code(execution).to_string()
    } else {
        String::new()
    }
}

/// For `inspect`.
pub(crate) fn lines(execution: &Execution) -> Block {
    let mut block = Block::default();
    let time = |unix_ms| known(unix_ms).map(show_time).unwrap_or_default();
    let span = |micros| known(micros).map(show_span_us).unwrap_or_default();
    let dropped = known(execution.output_dropped_bytes)
        .map(|bytes| format!(", of which {} are not kept", show_size(bytes)))
        .unwrap_or_default();
    block
        .add("execution", &execution.execution_id)
        .add("sandbox", &execution.sandbox_id)
        .add("driver", &execution.driver)
        .add("command", command(execution))
        .add("directory", &execution.cwd)
        .toned("state", state(execution), state_tone(execution))
        .add("reason", reason(execution).unwrap_or_default())
        .add("message", &execution.message)
        .add("exit", exit_text(execution))
        .add("created", time(execution.create_time_unix_ms))
        .add("started", time(execution.start_time_unix_ms))
        .add("ended", time(execution.end_time_unix_ms))
        .add("queued for", span(execution.queued_us))
        .add("claiming for", span(execution.claiming_us))
        .add("running for", span(execution.running_us))
        .add(
            "timeout",
            known(execution.timeout_ms)
                .map(show_duration_ms)
                .unwrap_or_default(),
        )
        .add(
            "output",
            format!("{}{dropped}", show_size(execution.output_bytes)),
        )
        .add(
            "cpu (user)",
            execution.cpu_user_us.map(show_span_us).unwrap_or_default(),
        )
        .add(
            "cpu (system)",
            execution
                .cpu_system_us
                .map(show_span_us)
                .unwrap_or_default(),
        )
        .add(
            "memory peak",
            execution.max_rss_bytes.map(show_size).unwrap_or_default(),
        )
        .add("terminal", if execution.pty { "yes" } else { "no" })
        .add("owner", format!("uid {}", execution.owner_uid))
        .list("variables", &execution.environment_names)
        .list("labels", {
            let mut labels: Vec<_> = execution
                .labels
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            labels.sort();
            labels
        });
    block
}

#[cfg(test)]
mod tests {
    use super::quote;

    #[test]
    fn a_command_is_shown_so_that_it_can_be_pasted() {
        assert_eq!(quote("--a=b"), "--a=b");
        assert_eq!(quote(""), "''");
        assert_eq!(quote("it's here"), r"'it'\''s here'");
    }
}
