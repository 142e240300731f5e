//! What an engine is and can do, in one value. Pure.

use crate::client::wire::{InfoJson, VersionJson};
use crate::endpoint::Endpoint;

/// An engine as it described itself when we connected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct EngineFacts {
    /// Its address, for people.
    pub(crate) address: String,
    /// Its own identity, stable over restarts; empty if it has none.
    pub(crate) id: String,
    /// "20.10.24".
    pub(crate) version: String,
    /// "1.41".
    pub(crate) api_version: String,
    /// Name of the engine's host.
    pub(crate) host: String,
    /// "Debian GNU/Linux 12 (bookworm)".
    pub(crate) operating_system: String,
    /// Kernel of the engine's host.
    pub(crate) kernel: String,
    /// As in an image: "amd64", "arm64".
    pub(crate) architecture: String,
    /// CPUs of the engine's host.
    pub(crate) cpus: u64,
    /// Memory of the engine's host.
    pub(crate) memory_bytes: u64,
    /// "overlay2".
    pub(crate) storage_driver: String,
    /// "1" or "2"; empty if it does not say.
    pub(crate) cgroup_version: String,
    /// "runc".
    pub(crate) default_runtime: String,
    /// All runtimes.
    pub(crate) runtimes: Vec<String>,
    /// Seccomp filters are there and on.
    pub(crate) seccomp: bool,
    /// "apparmor", "selinux".
    pub(crate) security_modules: Vec<String>,
    /// The engine runs without root.
    pub(crate) rootless: bool,
    /// Ids in containers are not the host's.
    pub(crate) userns: bool,
    /// Containers go on while the engine is restarted.
    pub(crate) live_restore: bool,
    /// What it can limit.
    pub(crate) limits: EngineLimits,
}

/// What an engine can limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EngineLimits {
    /// Memory.
    pub(crate) memory: bool,
    /// Memory and swap together.
    pub(crate) swap: bool,
    /// CPU time.
    pub(crate) cpu: bool,
    /// Processes.
    pub(crate) pids: bool,
}

impl Default for EngineLimits {
    fn default() -> Self {
        Self {
            memory: true,
            swap: true,
            cpu: true,
            pids: true,
        }
    }
}

/// Whatever driver asks: Podman may listen where Docker is expected.
fn is_podman(version: &VersionJson) -> bool {
    let mut components = version.components.iter();
    components.any(|component| component.name.starts_with("Podman"))
}

impl EngineFacts {
    pub(crate) fn new(endpoint: &Endpoint, version: &VersionJson, info: &InfoJson) -> Self {
        let options = &info.security_options;
        // "name=seccomp,profile=default"; older engines and Podman write only the name.
        let option = |name: &str| {
            options.iter().find(|option| {
                let first = option.split(',').next().unwrap_or_default();
                first.strip_prefix("name=").unwrap_or(first) == name
            })
        };
        let modules = ["apparmor", "selinux"];
        Self {
            address: endpoint.to_string(),
            id: match is_podman(version) {
                // It makes up another at every question.
                true => String::new(),
                false => info.id.clone(),
            },
            version: version.version.clone(),
            api_version: version.api_version.clone(),
            host: info.name.clone(),
            operating_system: info.operating_system.clone(),
            kernel: version.kernel_version.clone(),
            architecture: oci_architecture(&info.architecture).to_owned(),
            cpus: info.ncpu,
            memory_bytes: info.mem_total,
            storage_driver: info.driver.clone(),
            cgroup_version: info.cgroup_version.clone(),
            default_runtime: info.default_runtime.clone(),
            runtimes: info.runtimes.keys().cloned().collect(),
            seccomp: option("seccomp").is_some_and(|option| !option.contains("unconfined")),
            security_modules: modules
                .into_iter()
                .filter(|name| option(name).is_some())
                .map(str::to_owned)
                .collect(),
            rootless: option("rootless").is_some(),
            userns: option("userns").is_some(),
            live_restore: info.live_restore_enabled,
            limits: EngineLimits {
                memory: info.memory_limit.unwrap_or(true),
                swap: info.swap_limit.unwrap_or(true),
                cpu: info.cpu_cfs_quota.unwrap_or(true),
                pids: info.pids_limit.unwrap_or(true),
            },
        }
    }
}

/// Kernels and images have different names for the same machines.
pub(crate) fn oci_architecture(machine: &str) -> &str {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "armv7l" => "arm",
        "i386" | "i686" => "386",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(options: &[&str]) -> EngineFacts {
        let info = InfoJson {
            security_options: options.iter().map(|&option| option.to_owned()).collect(),
            architecture: "x86_64".to_owned(),
            swap_limit: Some(false),
            ..InfoJson::default()
        };
        let endpoint = Endpoint::Unix("/run/e.sock".into());
        EngineFacts::new(&endpoint, &VersionJson::default(), &info)
    }

    #[test]
    fn security_options_are_read_in_both_forms() {
        let docker = facts(&[
            "name=apparmor",
            "name=seccomp,profile=default",
            "name=rootless",
        ]);
        assert!(docker.seccomp && docker.rootless);
        assert_eq!(docker.security_modules, ["apparmor"]);
        assert!(facts(&["seccomp"]).seccomp);
        assert!(!facts(&["name=seccomp,profile=unconfined"]).seccomp);
        assert!(!facts(&[]).seccomp);
        assert!(!docker.limits.swap && docker.limits.memory);
    }
}
