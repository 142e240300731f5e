//! How an execution ended → exit code and words. Pure.
//!
//! Only SUCCEEDED is 0. Whatever this table does not know is ours: 125.

use cofferdam_proto::gateway::v1::{Execution, ExecutionReason as Reason, ExecutionState as State};

use crate::error::{CommandError, EXIT_OURS, Kind};
use crate::units::{show_duration_ms, show_size};
use crate::view::execution;

const EXIT_TIMEOUT: u8 = 124;
const EXIT_NOT_EXECUTABLE: u8 = 126;
const EXIT_NOT_FOUND: u8 = 127;
const SIGKILL: u32 = 9;

/// What the caller's shell is to see.
pub(crate) fn exit_code(execution: &Execution) -> u8 {
    match execution.state() {
        State::ExecutionSucceeded => match execution.exit_code {
            None | Some(0) => 0,
            // The record contradicts itself.
            Some(_) => EXIT_OURS,
        },
        State::ExecutionFailed => failed_code(execution),
        State::ExecutionTimedOut => EXIT_TIMEOUT,
        State::ExecutionCanceled => match execution.reason() {
            Reason::ReasonCanceledByCaller => signal_code(execution.signal.unwrap_or(SIGKILL)),
            Reason::ReasonSandboxExpired => EXIT_TIMEOUT,
            _ => EXIT_OURS,
        },
        _ => EXIT_OURS,
    }
}

fn failed_code(execution: &Execution) -> u8 {
    match execution.reason() {
        Reason::ReasonExited => match execution.exit_code {
            Some(code) => u8::try_from(code)
                .ok()
                .filter(|code| *code != 0)
                .unwrap_or(EXIT_OURS),
            None => EXIT_OURS,
        },
        Reason::ReasonSignaled => execution.signal.map_or(EXIT_OURS, signal_code),
        Reason::ReasonOomKilled => signal_code(SIGKILL),
        Reason::ReasonProgramNotFound => EXIT_NOT_FOUND,
        Reason::ReasonProgramNotExecutable => EXIT_NOT_EXECUTABLE,
        Reason::ReasonTimeout | Reason::ReasonSandboxExpired => EXIT_TIMEOUT,
        _ => EXIT_OURS,
    }
}

/// 128+n, as shells show it.
pub(crate) fn signal_code(signal: u32) -> u8 {
    u8::try_from(signal)
        .ok()
        .filter(|signal| (1..128).contains(signal))
        .map_or(EXIT_OURS, |signal| 128 + signal)
}

/// What to tell people, unless the command ended by itself: then its exit code says it all.
pub(crate) fn complaint(execution: &Execution) -> Option<CommandError> {
    let code = exit_code(execution);
    let is_the_commands_own = execution.exit_code == Some(i32::from(code));
    if code == 0 || (is_the_commands_own && execution.reason() == Reason::ReasonExited) {
        return None;
    }
    let (kind, default, hint) = words(execution);
    let message = if execution.message.is_empty() {
        default
    } else {
        execution.message.clone()
    };
    let mut error = CommandError::new(kind, message).exits_with(code);
    error.reason = execution::reason(execution);
    Some(match hint {
        Some(hint) => error.hint(hint),
        None => error,
    })
}

/// Kind, one sentence for when the gateway sent none, and a hint.
fn words(execution: &Execution) -> (Kind, String, Option<String>) {
    let program = execution::argv(execution)
        .into_iter()
        .next()
        .unwrap_or_default();
    let id = &execution.execution_id;
    match execution.reason() {
        Reason::ReasonSignaled => {
            let name = execution.signal.map_or("a signal".to_owned(), signal_name);
            (
                Kind::Failed,
                format!("the command was ended by {name}"),
                None,
            )
        }
        Reason::ReasonOomKilled => (
            Kind::Failed,
            match execution.max_rss_bytes {
                Some(bytes) => format!("out of memory, after {}", show_size(bytes)),
                None => "out of memory".to_owned(),
            },
            Some("give it more with --memory SIZE".to_owned()),
        ),
        Reason::ReasonTimeout => (
            Kind::Failed,
            match execution.timeout_ms {
                0 => "timed out".to_owned(),
                millis => format!("timed out after {}", show_duration_ms(millis)),
            },
            Some("give it longer with --timeout DURATION".to_owned()),
        ),
        Reason::ReasonStdinLost => (
            Kind::Lost,
            "a part of its input never arrived, and so it was killed".to_owned(),
            Some("run it again".to_owned()),
        ),
        Reason::ReasonOutputNotStored => (
            Kind::Failed,
            "timed out while its output could not be stored".to_owned(),
            Some("`cofferdam doctor` says what is wrong with the gateway's state directory".into()),
        ),
        Reason::ReasonCanceledByCaller => (Kind::Failed, "canceled".to_owned(), None),
        Reason::ReasonCallerLeft => (
            Kind::Failed,
            "canceled, because the stream of its caller was cut".to_owned(),
            Some("start it with --detach if it has to survive that".to_owned()),
        ),
        Reason::ReasonSandboxDeleted => (Kind::Failed, "its sandbox was removed".to_owned(), None),
        Reason::ReasonSandboxStopped => (
            Kind::Failed,
            "its sandbox was stopped".to_owned(),
            // That of a one-shot is removed.
            (!execution.one_shot)
                .then(|| format!("`cofferdam start {}` starts it again", execution.sandbox_id)),
        ),
        Reason::ReasonSandboxExpired => (
            Kind::Failed,
            "its sandbox has reached the end of its lifetime".to_owned(),
            Some("give it longer with --lifetime DURATION".to_owned()),
        ),
        Reason::ReasonSandboxFailed => (
            Kind::Failed,
            "its sandbox could not be made".to_owned(),
            Some("`cofferdam doctor` checks the drivers".to_owned()),
        ),
        Reason::ReasonProgramNotFound => (
            Kind::Failed,
            format!("{program}: not found in the sandbox"),
            None,
        ),
        Reason::ReasonProgramNotExecutable => (
            Kind::Failed,
            format!("{program}: not executable in the sandbox"),
            None,
        ),
        Reason::ReasonStartFailed => (
            Kind::Failed,
            format!("{program}: could not be started"),
            None,
        ),
        Reason::ReasonSupervisorLost | Reason::ReasonGatewayFault => lost(id),
        Reason::ReasonExited | Reason::Unspecified => match execution.state() {
            State::ExecutionLost => lost(id),
            State::ExecutionCanceled => (Kind::Failed, "canceled".to_owned(), None),
            State::ExecutionTimedOut => (Kind::Failed, "timed out".to_owned(), None),
            _ => (
                Kind::Internal,
                "the gateway did not say how the command ended".to_owned(),
                Some(format!("`cofferdam inspect {id}` shows its record")),
            ),
        },
    }
}

fn lost(id: &str) -> (Kind, String, Option<String>) {
    (
        Kind::Lost,
        "how the command ended cannot be known".to_owned(),
        Some(format!("`cofferdam inspect {id}` shows its record")),
    )
}

const SIGNAL_NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// 9 → "SIGKILL" (Linux numbers, as in the contract).
pub(crate) fn signal_name(signal: u32) -> String {
    (signal as usize)
        .checked_sub(1)
        .and_then(|index| SIGNAL_NAMES.get(index))
        .map_or_else(|| format!("signal {signal}"), |name| format!("SIG{name}"))
}

/// "9", "KILL", "sigkill" → 9.
pub(crate) fn parse_signal(text: &str) -> Result<u32, String> {
    const SIGNAL_MAX: u32 = 64;
    if let Ok(number) = text.parse::<u32>() {
        return if (1..=SIGNAL_MAX).contains(&number) {
            Ok(number)
        } else {
            Err(format!("there is no signal {number}"))
        };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    SIGNAL_NAMES
        .iter()
        .position(|known| *known == name)
        .map(|index| index as u32 + 1)
        .ok_or_else(|| format!("there is no signal {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(state: State, reason: Reason) -> Execution {
        Execution {
            state: state as i32,
            reason: reason as i32,
            ..Execution::default()
        }
    }

    #[test]
    fn zero_takes_a_success() {
        let states = (0..20).filter(|state| *state != State::ExecutionSucceeded as i32);
        for state in states {
            for reason in 0..20 {
                for exit_code in [None, Some(0), Some(256), Some(-1)] {
                    for signal in [None, Some(0), Some(128), Some(384)] {
                        let execution = Execution {
                            state,
                            reason,
                            exit_code,
                            signal,
                            ..Execution::default()
                        };
                        assert_ne!(super::exit_code(&execution), 0, "{execution:?}");
                    }
                }
            }
        }
        assert_eq!(
            exit_code(&ended(State::ExecutionSucceeded, Reason::ReasonExited)),
            0
        );
    }

    #[test]
    fn a_success_with_an_exit_code_is_no_success() {
        let mut execution = ended(State::ExecutionSucceeded, Reason::ReasonExited);
        execution.exit_code = Some(3);
        assert_eq!(exit_code(&execution), EXIT_OURS);
    }

    #[test]
    fn the_codes_are_those_of_shells() {
        let mut exited = ended(State::ExecutionFailed, Reason::ReasonExited);
        exited.exit_code = Some(42);
        let mut signaled = ended(State::ExecutionFailed, Reason::ReasonSignaled);
        signaled.signal = Some(15);
        for (execution, code) in [
            (exited, 42),
            (signaled, 143),
            (ended(State::ExecutionFailed, Reason::ReasonOomKilled), 137),
            (
                ended(State::ExecutionFailed, Reason::ReasonProgramNotFound),
                127,
            ),
            (
                ended(State::ExecutionFailed, Reason::ReasonProgramNotExecutable),
                126,
            ),
            (
                ended(State::ExecutionFailed, Reason::ReasonSandboxFailed),
                125,
            ),
            (ended(State::ExecutionTimedOut, Reason::ReasonTimeout), 124),
            (
                ended(State::ExecutionTimedOut, Reason::ReasonOutputNotStored),
                124,
            ),
            (ended(State::ExecutionFailed, Reason::ReasonStdinLost), 125),
            (
                ended(State::ExecutionCanceled, Reason::ReasonCanceledByCaller),
                137,
            ),
            (
                ended(State::ExecutionCanceled, Reason::ReasonSandboxDeleted),
                125,
            ),
            (
                ended(State::ExecutionCanceled, Reason::ReasonSandboxStopped),
                125,
            ),
            (
                ended(State::ExecutionTimedOut, Reason::ReasonSandboxExpired),
                124,
            ),
            (
                ended(State::ExecutionLost, Reason::ReasonSupervisorLost),
                125,
            ),
            (ended(State::ExecutionRunning, Reason::Unspecified), 125),
        ] {
            assert_eq!(exit_code(&execution), code, "{execution:?}");
        }
    }

    #[test]
    fn signals_have_names_and_numbers() {
        assert_eq!(signal_name(9), "SIGKILL");
        assert_eq!(signal_name(31), "SIGSYS");
        assert_eq!(signal_name(40), "signal 40");
        assert_eq!(parse_signal("sigterm"), Ok(15));
        assert_eq!(parse_signal("1"), Ok(1));
        assert!(parse_signal("0").is_err());
        assert!(parse_signal("NOPE").is_err());
    }
}
