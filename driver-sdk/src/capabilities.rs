//! Builders for what a driver says about itself: capabilities, fingerprints, checks, terminations.
//!
//! ```
//! use cofferdam_driver_sdk::capabilities::{failed, fingerprint, passed, supervised};
//! use cofferdam_driver_sdk::proto::{Capabilities, Health, ImageSources, Isolation};
//!
//! let can = Capabilities {
//!     images: Some(ImageSources { registry: true, ..ImageSources::default() }),
//!     stop_start: true,
//!     ..supervised(Isolation::Container)
//! };
//! assert!(!can.pause);
//!
//! let seen = fingerprint(vec![
//!     passed("engine", "version 27.1 answers"),
//!     failed("disk", "/var/lib/engine is full", "engine prune, or a larger disk"),
//! ]);
//! assert_eq!(seen.health(), Health::Unhealthy);
//! assert_eq!(seen.fix, "engine prune, or a larger disk");
//! ```

use crate::proto::{
    Capabilities, Check, CheckResult, Execution, FingerprintResponse, Health, ImageSources,
    Isolation, Limits, NetworkClass, Termination, TerminationReason,
};

/// Capabilities of a platform that runs the gateway's supervisor, to be narrowed or widened by
/// setting fields: no images, no network but loopback, no limits, nothing optional.
#[must_use]
pub fn supervised(isolation: Isolation) -> Capabilities {
    Capabilities {
        execution: Execution::Supervised.into(),
        isolation: isolation.into(),
        images: Some(ImageSources::default()),
        networks: vec![NetworkClass::None.into()],
        limits: Some(Limits::default()),
        ..Capabilities::default()
    }
}

/// Capabilities of a platform that runs commands itself.
#[must_use]
pub fn driver_executed(isolation: Isolation) -> Capabilities {
    Capabilities {
        execution: Execution::DriverExecuted.into(),
        ..supervised(isolation)
    }
}

/// A check that passed.
#[must_use]
pub fn passed(id: &str, detail: impl Into<String>) -> Check {
    check(id, CheckResult::Passed, detail, "")
}

/// A check that passed with a loss, which the detail names.
#[must_use]
pub fn warning(id: &str, detail: impl Into<String>, fix: impl Into<String>) -> Check {
    check(id, CheckResult::Warning, detail, fix)
}

/// A check that failed, with its exact remedy.
#[must_use]
pub fn failed(id: &str, detail: impl Into<String>, fix: impl Into<String>) -> Check {
    check(id, CheckResult::Failed, detail, fix)
}

fn check(
    id: &str,
    result: CheckResult,
    detail: impl Into<String>,
    fix: impl Into<String>,
) -> Check {
    Check {
        id: id.to_owned(),
        result: result.into(),
        detail: detail.into(),
        fix: fix.into(),
    }
}

/// A fingerprint whose health follows from its checks: the first failed one is the reason.
#[must_use]
pub fn fingerprint(checks: Vec<Check>) -> FingerprintResponse {
    let broken = checks
        .iter()
        .find(|check| check.result() == CheckResult::Failed);
    let (health, reason, fix) = match broken {
        Some(check) => (Health::Unhealthy, check.detail.clone(), check.fix.clone()),
        None => (Health::Healthy, String::new(), String::new()),
    };
    FingerprintResponse {
        health: health.into(),
        reason,
        fix,
        checks,
        ..FingerprintResponse::default()
    }
}

/// Why a sandbox does not run, at `time_unix_ms`.
#[must_use]
pub fn termination(
    reason: TerminationReason,
    message: impl Into<String>,
    time_unix_ms: u64,
) -> Termination {
    Termination {
        reason: reason.into(),
        message: message.into(),
        time_unix_ms,
        ..Termination::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failed_check_is_the_reason() {
        let print = fingerprint(vec![
            passed("kernel", "6.1"),
            failed("engine", "no answer", "systemctl start engine"),
        ]);
        assert_eq!(print.health(), Health::Unhealthy);
        assert_eq!(print.fix, "systemctl start engine");
        assert_eq!(print.checks.len(), 2);
    }
}
