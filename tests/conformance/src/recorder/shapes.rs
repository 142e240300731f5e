//! What an observation must look like, whatever it says.

use cofferdam_proto::compute::v1::{Sandbox, SandboxState, TerminationReason};

/// Of the contract's rule 7.
const STRING_BYTES_MAX: usize = 1024;
const LIST_ITEMS_MAX: usize = 1024;

/// Times before this were not meant as Unix milliseconds: 2020.
const TIME_MS_MIN: u64 = 1_577_836_800_000;
/// Nor after this: 2100.
const TIME_MS_MAX: u64 = 4_102_444_800_000;

/// Everything that is wrong with it.
pub(super) fn problems(sandbox: &Sandbox) -> Vec<String> {
    let mut found = Vec::new();
    let mut check = |true_of_it: bool, problem: String| {
        if !true_of_it {
            found.push(problem);
        }
    };
    let state = sandbox.state();
    let name = state.as_str_name();
    check(
        state != SandboxState::Unspecified,
        format!("state {} is none of SandboxState", sandbox.state),
    );
    check(is_id(&sandbox.sandbox_id), "sandbox_id is no id".to_owned());
    check(
        sandbox.revision > 0,
        "revision is 0; it has to grow with every change".to_owned(),
    );
    check(
        sandbox.boots > 0,
        "boots is 0; it counts the starts, 1 after create".to_owned(),
    );
    let has_ended = matches!(state, SandboxState::Stopped | SandboxState::FailedState);
    check(
        sandbox.termination.is_some() == has_ended || state == SandboxState::Deleting,
        match has_ended {
            true => format!("{name} without termination"),
            false => format!("{name} with a termination, which is of STOPPED and FAILED_STATE"),
        },
    );
    check(
        is_time(sandbox.create_time_unix_ms),
        format!(
            "create_time_unix_ms {} is not in milliseconds",
            sandbox.create_time_unix_ms
        ),
    );
    let starts = state == SandboxState::Creating && sandbox.start_time_unix_ms == 0;
    check(
        starts || sandbox.start_time_unix_ms == 0 || is_time(sandbox.start_time_unix_ms),
        format!(
            "start_time_unix_ms {} is not in milliseconds",
            sandbox.start_time_unix_ms
        ),
    );
    check(
        state != SandboxState::Running || sandbox.start_time_unix_ms > 0,
        "RUNNING without start_time_unix_ms".to_owned(),
    );
    let digest = &sandbox.image_digest;
    check(
        digest.is_empty() || digest.starts_with("sha256:"),
        format!("image_digest {digest:?} does not begin with sha256:"),
    );
    for (field, text) in [
        ("platform_id", &sandbox.platform_id),
        ("image_digest", digest),
        ("stream", &sandbox.stream),
    ] {
        check(
            text.len() <= STRING_BYTES_MAX,
            format!("{field} has {} bytes", text.len()),
        );
    }
    check(
        sandbox.weaknesses.len() <= LIST_ITEMS_MAX
            && sandbox
                .weaknesses
                .iter()
                .all(|text| text.len() <= STRING_BYTES_MAX),
        "weaknesses are more or longer than rule 7 allows".to_owned(),
    );
    found.extend(condition_problems(sandbox));
    found.extend(termination_problems(sandbox));
    found
}

fn condition_problems(sandbox: &Sandbox) -> Vec<String> {
    let mut found = Vec::new();
    let mut types: Vec<i32> = sandbox.conditions.iter().map(|c| c.r#type).collect();
    types.sort_unstable();
    if types.windows(2).any(|pair| pair[0] == pair[1]) {
        found.push("two conditions of one type".to_owned());
    }
    if types.contains(&0) || sandbox.conditions.iter().any(|c| c.status == 0) {
        found.push("a condition without type or status".to_owned());
    }
    if sandbox
        .conditions
        .iter()
        .any(|c| c.message.len() > STRING_BYTES_MAX)
    {
        found.push("a condition's message is longer than rule 7 allows".to_owned());
    }
    found
}

fn termination_problems(sandbox: &Sandbox) -> Vec<String> {
    let mut found = Vec::new();
    let Some(termination) = &sandbox.termination else {
        return found;
    };
    let reason = termination.reason();
    if reason == TerminationReason::Unspecified {
        found.push(format!("termination.reason {} is none", termination.reason));
    }
    if reason == TerminationReason::Signaled && termination.signal == 0 {
        found.push("SIGNALED without a signal".to_owned());
    }
    if reason == TerminationReason::Deadline && sandbox.state() != SandboxState::FailedState {
        found.push("DEADLINE in another state than FAILED_STATE".to_owned());
    }
    if !is_time(termination.time_unix_ms) {
        let time = termination.time_unix_ms;
        found.push(format!(
            "termination.time_unix_ms {time} is not in milliseconds"
        ));
    }
    if termination.message.len() > STRING_BYTES_MAX {
        found.push("termination.message is longer than rule 7 allows".to_owned());
    }
    found
}

fn is_time(ms: u64) -> bool {
    (TIME_MS_MIN..TIME_MS_MAX).contains(&ms)
}

pub(crate) fn is_id(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && !text.starts_with('-')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use cofferdam_proto::compute::v1::Termination;

    use super::*;

    fn running() -> Sandbox {
        Sandbox {
            sandbox_id: "sbx-1".to_owned(),
            state: SandboxState::Running.into(),
            revision: 1,
            boots: 1,
            create_time_unix_ms: 1_700_000_000_000,
            start_time_unix_ms: 1_700_000_000_001,
            ..Sandbox::default()
        }
    }

    #[test]
    fn a_right_one_has_no_problems() {
        assert_eq!(problems(&running()), Vec::<String>::new());
        let stopped = Sandbox {
            state: SandboxState::Stopped.into(),
            termination: Some(Termination {
                reason: TerminationReason::StoppedByRequest.into(),
                time_unix_ms: 1_700_000_000_002,
                ..Termination::default()
            }),
            ..running()
        };
        assert_eq!(problems(&stopped), Vec::<String>::new());
    }

    #[test]
    fn wrong_ones_are_told_apart() {
        let wrong = [
            Sandbox {
                state: 99,
                ..running()
            },
            Sandbox {
                boots: 0,
                ..running()
            },
            Sandbox {
                revision: 0,
                ..running()
            },
            Sandbox {
                create_time_unix_ms: 1_700_000_000,
                ..running()
            },
            Sandbox {
                start_time_unix_ms: 0,
                ..running()
            },
            Sandbox {
                termination: Some(Termination::default()),
                ..running()
            },
            Sandbox {
                state: SandboxState::Stopped.into(),
                ..running()
            },
            Sandbox {
                image_digest: "latest".to_owned(),
                ..running()
            },
            Sandbox {
                weaknesses: vec!["x".repeat(1025)],
                ..running()
            },
        ];
        for sandbox in wrong {
            assert!(!problems(&sandbox).is_empty(), "{sandbox:?}");
        }
    }
}
