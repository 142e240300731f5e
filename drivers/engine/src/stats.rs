//! Use of resources, as an engine measures it.

use cofferdam_driver_sdk::DriverError;
use cofferdam_driver_sdk::proto::{Sandbox, SandboxState, SandboxStatsResponse};

use crate::client::Engine;
use crate::client::wire::StatsJson;
use crate::error;
use crate::sandbox::now_unix_ms;

/// What is measured now. Of a sandbox that does not run, nothing is.
pub(crate) async fn of(
    engine: &Engine,
    container: &str,
    sandbox: &Sandbox,
) -> Result<SandboxStatsResponse, DriverError> {
    let is_running = matches!(
        sandbox.state(),
        SandboxState::Running | SandboxState::Paused
    );
    let stats = match is_running {
        true => engine
            .container_stats(container)
            .await
            .map_err(error::engine)?,
        false => StatsJson::default(),
    };
    Ok(SandboxStatsResponse {
        time_unix_ms: now_unix_ms(),
        oom_kill_count: sandbox.oom_kill_count,
        ..measured(&stats)
    })
}

fn measured(stats: &StatsJson) -> SandboxStatsResponse {
    let io = stats.blkio_stats.io_service_bytes_recursive.as_ref();
    let bytes = |wanted: &str| {
        let entries = io?.iter();
        let values = entries.filter(|entry| entry.op.eq_ignore_ascii_case(wanted));
        Some(values.map(|entry| entry.value).sum())
    };
    let cpu = &stats.cpu_stats;
    SandboxStatsResponse {
        cpu_us: cpu
            .cpu_usage
            .total_usage
            .map(|nanoseconds| nanoseconds / 1000),
        memory_bytes: stats.memory_stats.usage,
        memory_peak_bytes: stats.memory_stats.max_usage,
        pids: stats.pids_stats.current,
        io_read_bytes: bytes("read"),
        io_write_bytes: bytes("write"),
        throttled_us: cpu
            .throttling_data
            .throttled_time
            .map(|nanoseconds| nanoseconds / 1000),
        ..SandboxStatsResponse::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_measured_is_absent_and_not_zero() {
        let text = r#"{"cpu_stats":{"cpu_usage":{"total_usage":5000}},"memory_stats":{"usage":7},
            "pids_stats":{},"blkio_stats":{"io_service_bytes_recursive":
            [{"op":"Read","value":1},{"op":"read","value":2},{"op":"Write","value":4}]}}"#;
        let seen = measured(&serde_json::from_str(text).unwrap());
        assert_eq!(seen.cpu_us, Some(5));
        assert_eq!(
            (seen.io_read_bytes, seen.io_write_bytes),
            (Some(3), Some(4))
        );
        assert_eq!((seen.pids, seen.throttled_us), (None, None));
        let nothing = measured(&StatsJson::default());
        assert_eq!(nothing.io_read_bytes, None);
    }
}
