//! Limits that contradict each other.

use std::time::Duration;

use super::problem::Problem;
use super::settled::Settled;
use super::{ExecutionLimits, SandboxDefaults, SandboxMaximum};

/// What a caller gets unasked must be something that it may ask for.
pub(super) fn check(
    settled: &mut Settled,
    defaults: &SandboxDefaults,
    maximum: &SandboxMaximum,
    executions: &ExecutionLimits,
) {
    let mut at_most = |small: &'static str, fits: bool, large: &'static str| {
        if !fits {
            settled.problem_with(small, |shown| {
                let message = format!("is more than {large}, which is {}", shown(large));
                Problem::new(None, small, message)
            });
        }
    };
    let within = |value: u64, max: Option<u64>| max.is_none_or(|max| value <= max);
    at_most(
        "defaults.memory",
        within(defaults.memory_bytes, maximum.memory_bytes),
        "maximum.memory",
    );
    at_most(
        "defaults.cpus",
        within(defaults.cpu_millis, maximum.cpu_millis),
        "maximum.cpus",
    );
    at_most(
        "defaults.pids",
        within(defaults.pids, maximum.pids),
        "maximum.pids",
    );
    at_most(
        "defaults.disk",
        within(defaults.disk_bytes, maximum.disk_bytes),
        "maximum.disk",
    );
    at_most(
        "defaults.tmp",
        within(defaults.tmp_bytes, maximum.tmp_bytes),
        "maximum.tmp",
    );
    let lifetime_max = maximum.lifetime.unwrap_or(Duration::MAX);
    at_most(
        "defaults.lifetime",
        defaults.lifetime <= lifetime_max,
        "maximum.lifetime",
    );
    at_most(
        "executions.timeout_default",
        executions.timeout_default <= executions.timeout_max,
        "executions.timeout_max",
    );
    // The sandbox of a one-shot would be gone before its time is over.
    at_most(
        "executions.timeout_default",
        executions.timeout_default <= defaults.lifetime,
        "defaults.lifetime",
    );
    at_most(
        "executions.output_cap_default",
        executions.output_cap_default_bytes <= executions.output_cap_max_bytes,
        "executions.output_cap_max",
    );
}
