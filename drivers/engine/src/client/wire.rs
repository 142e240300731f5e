//! The parts of an engine's answers that we read. Narrow on purpose: what an engine adds, or says
//! in other words than its neighbours, does not break us.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

/// `GET /version`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct VersionJson {
    pub(crate) version: String,
    pub(crate) api_version: String,
    #[serde(rename = "MinAPIVersion")]
    pub(crate) min_api_version: String,
    pub(crate) kernel_version: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(crate) components: Vec<ComponentJson>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ComponentJson {
    pub(crate) name: String,
}

/// `GET /info`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct InfoJson {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    pub(crate) name: String,
    #[serde(rename = "OSType")]
    pub(crate) os_type: String,
    pub(crate) operating_system: String,
    pub(crate) architecture: String,
    #[serde(rename = "NCPU")]
    pub(crate) ncpu: u64,
    pub(crate) mem_total: u64,
    pub(crate) driver: String,
    pub(crate) cgroup_version: String,
    pub(crate) cgroup_driver: String,
    pub(crate) default_runtime: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(crate) runtimes: BTreeMap<String, serde_json::Value>,
    #[serde(deserialize_with = "null_is_default")]
    pub(crate) security_options: Vec<String>,
    pub(crate) docker_root_dir: String,
    pub(crate) live_restore_enabled: bool,
    pub(crate) memory_limit: Option<bool>,
    pub(crate) swap_limit: Option<bool>,
    pub(crate) pids_limit: Option<bool>,
    pub(crate) cpu_cfs_quota: Option<bool>,
}

/// `GET /containers/{id}/json`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ContainerJson {
    pub(crate) id: String,
    /// With a slash before it.
    pub(crate) name: String,
    pub(crate) created: String,
    pub(crate) state: StateJson,
    /// The image's id.
    pub(crate) image: String,
    pub(crate) config: ConfigJson,
}

impl ContainerJson {
    /// Its processes exist, though they may be frozen.
    pub(crate) fn is_running(&self) -> bool {
        matches!(self.state.status.as_str(), "running" | "paused")
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct StateJson {
    pub(crate) status: String,
    #[serde(rename = "OOMKilled")]
    pub(crate) oom_killed: bool,
    pub(crate) pid: i64,
    pub(crate) exit_code: i64,
    pub(crate) error: String,
    pub(crate) started_at: String,
    pub(crate) finished_at: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ConfigJson {
    #[serde(deserialize_with = "null_is_default")]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_is_default")]
    pub(crate) env: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub(crate) user: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(crate) volumes: BTreeMap<String, serde_json::Value>,
}

/// One of `GET /containers/json`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ContainerSummaryJson {
    pub(crate) id: String,
    /// Each with a slash before it.
    #[serde(deserialize_with = "null_is_default")]
    pub(crate) names: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_is_default")]
    pub(crate) state: String,
}

/// `GET /images/{name}/json`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ImageJson {
    pub(crate) id: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(crate) repo_digests: Vec<String>,
    pub(crate) architecture: String,
    pub(crate) os: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(crate) config: ConfigJson,
}

/// `POST /containers/create`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct CreatedJson {
    pub(crate) id: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(crate) warnings: Vec<String>,
}

/// `GET /volumes`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct VolumesJson {
    #[serde(deserialize_with = "null_is_default")]
    pub(crate) volumes: Vec<VolumeJson>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct VolumeJson {
    pub(crate) name: String,
    /// Of the engine's host.
    pub(crate) mountpoint: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(crate) labels: BTreeMap<String, String>,
}

/// One of `GET /events`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct EventJson {
    #[serde(rename = "Action")]
    pub(crate) action: String,
    #[serde(rename = "Actor")]
    pub(crate) actor: ActorJson,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ActorJson {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(crate) attributes: BTreeMap<String, String>,
}

/// `GET /containers/{id}/stats`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct StatsJson {
    pub(crate) cpu_stats: CpuJson,
    pub(crate) memory_stats: MemoryJson,
    pub(crate) pids_stats: PidsJson,
    pub(crate) blkio_stats: BlkioJson,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct CpuJson {
    pub(crate) cpu_usage: CpuUsageJson,
    pub(crate) throttling_data: ThrottlingJson,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct CpuUsageJson {
    pub(crate) total_usage: Option<u64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ThrottlingJson {
    pub(crate) throttled_time: Option<u64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct MemoryJson {
    pub(crate) usage: Option<u64>,
    pub(crate) max_usage: Option<u64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PidsJson {
    pub(crate) current: Option<u64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct BlkioJson {
    pub(crate) io_service_bytes_recursive: Option<Vec<BlkioEntryJson>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct BlkioEntryJson {
    pub(crate) op: String,
    pub(crate) value: u64,
}

/// Engines write `null` for what is empty.
fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Unix milliseconds of an engine's RFC 3339 time; 0 for its "never" (the year 1).
pub(crate) fn unix_ms(text: &str) -> u64 {
    let time: Result<jiff::Timestamp, _> = text.parse();
    time.map_or(0, |time| u64::try_from(time.as_millisecond()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_engines() {
        assert_eq!(unix_ms("0001-01-01T00:00:00Z"), 0);
        assert_eq!(unix_ms("1970-01-01T00:00:01.5Z"), 1500);
        assert_eq!(unix_ms("1970-01-01T02:00:01.123456789+02:00"), 1123);
        assert_eq!(unix_ms(""), 0);
    }

    #[test]
    fn an_event_says_what_happened_in_old_words_and_new() {
        let text = r#"{"status":"oom","id":"c1","Type":"container","Action":"oom",
            "Actor":{"ID":"c1","Attributes":{"a":"b"}},"scope":"local","time":1}"#;
        let event: EventJson = serde_json::from_str(text).unwrap();
        assert_eq!(
            (event.action.as_str(), event.actor.id.as_str()),
            ("oom", "c1")
        );
    }

    #[test]
    fn null_and_unknown_words_are_no_errors() {
        let text = r#"{"Id":"a","State":{"Status":"brand-new","Pid":0},
            "Config":{"Labels":null,"Env":null}}"#;
        let container: ContainerJson = serde_json::from_str(text).unwrap();
        assert_eq!(container.state.status, "brand-new");
        let image: ImageJson = serde_json::from_str(r#"{"Id":"a","Config":null}"#).unwrap();
        assert!(image.config.env.is_empty());
    }
}
