//! The flags that say what a sandbox is to be, the same for `run` and `create`.

use std::collections::BTreeMap;

use clap::{Args, ValueEnum};
use cofferdam_proto::compute::v1 as compute;
use cofferdam_proto::gateway::v1::SandboxRequest;

use crate::environment::parse_pair;
use crate::error::CommandError;
use crate::mount::parse_mount;
use crate::units::{parse_count_limit, parse_cpus_limit, parse_size_limit, parse_time_limit_ms};
use crate::view::json;

#[derive(Debug, Args)]
#[command(next_help_heading = "Sandbox options")]
pub(crate) struct SandboxFlags {
    /// Driver to use [default: the gateway's].
    #[arg(long, value_name = "NAME")]
    pub(crate) driver: Option<String>,
    /// Root file system: "host", an OCI reference, or archive:PATH [default: the driver's].
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// When to pull the image.
    #[arg(long, value_name = "WHEN", value_enum)]
    pull: Option<Pull>,
    /// Name of the sandbox, usable wherever its id is.
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Memory limit for the whole sandbox: 512M, 2G, or none [default: the gateway's].
    #[arg(long, short, value_name = "SIZE", value_parser = parse_size_limit)]
    memory: Option<u64>,
    /// CPU limit: 2, 0.5, or none [default: the gateway's].
    #[arg(long, value_name = "N", value_parser = parse_cpus_limit)]
    cpus: Option<u64>,
    /// Limit of processes and threads, or none [default: the gateway's].
    #[arg(long, value_name = "N", value_parser = parse_count_limit)]
    pids: Option<u64>,
    /// How much may be written in the workspace, or none [default: the gateway's].
    #[arg(long, value_name = "SIZE", value_parser = parse_size_limit)]
    disk: Option<u64>,
    /// Size of /tmp, or none for as much as there is [default: the gateway's].
    #[arg(long, value_name = "SIZE", value_parser = parse_size_limit)]
    tmp: Option<u64>,
    /// Network: none, egress (only what --allow names), or open [default: none].
    #[arg(long, value_name = "CLASS", value_enum)]
    network: Option<Network>,
    /// Reachable from inside: HOST, HOST:PORT, *.HOST or CIDR; implies --network egress.
    #[arg(long, value_name = "TARGET")]
    allow: Vec<String>,
    /// Mount: type=bind|volume|tmpfs,src=…,dst=…[,ro][,size=…].
    #[arg(long, value_name = "SPEC", value_parser = parse_mount)]
    mount: Vec<compute::Mount>,
    /// User to run as: UID or UID:GID [default: the gateway's, not root].
    #[arg(long, short, value_name = "UID[:GID]")]
    pub(crate) user: Option<String>,
    /// Label for finding it again.
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = parse_pair)]
    pub(crate) label: Vec<(String, String)>,
    /// How long the sandbox may exist: 30m, 24h [default: the gateway's].
    #[arg(long, value_name = "DURATION", value_parser = parse_time_limit_ms)]
    lifetime: Option<u64>,
    /// Remove it after this long without use [default: never].
    #[arg(long, value_name = "DURATION", value_parser = parse_time_limit_ms)]
    idle_timeout: Option<u64>,
    /// Number of GPUs.
    #[arg(long, value_name = "N")]
    gpus: Option<u32>,
    /// The weakest isolation that will do.
    #[arg(long, value_name = "LEVEL", value_enum)]
    isolation: Option<Isolation>,
    /// Make the root file system writable.
    #[arg(long)]
    root_writable: bool,
    /// Path of the workspace [default: /workspace].
    #[arg(long, value_name = "PATH")]
    workspace: Option<String>,
    /// Settings that only this driver knows: a JSON object, or @FILE.
    #[arg(long, value_name = "JSON")]
    driver_config: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Pull {
    Missing,
    Always,
    Never,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Network {
    None,
    Egress,
    Open,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Isolation {
    None,
    Namespaces,
    Container,
    UserspaceKernel,
    Vm,
    RemoteMachine,
}

impl SandboxFlags {
    /// What they ask the gateway for. `environment` is what every execution in it gets.
    pub(crate) fn into_request(
        self,
        environment: BTreeMap<String, String>,
    ) -> Result<SandboxRequest, CommandError> {
        let network = self.network()?;
        let driver_config = self
            .driver_config
            .as_deref()
            .map(driver_config)
            .transpose()?;
        Ok(SandboxRequest {
            driver: self.driver.unwrap_or_default(),
            name: self.name.unwrap_or_default(),
            image: self.image.unwrap_or_default(),
            pull: self.pull.map_or(0, |pull| pull.to_wire() as i32),
            user: self.user.unwrap_or_default(),
            memory_bytes: self.memory,
            cpu_millis: self.cpus,
            pids: self.pids,
            disk_bytes: self.disk,
            tmp_bytes: self.tmp,
            network: network as i32,
            egress_allow: self.allow,
            mounts: self.mount,
            labels: self.label.into_iter().collect(),
            lifetime_ms: self.lifetime.unwrap_or_default(),
            idle_timeout_ms: self.idle_timeout.unwrap_or_default(),
            gpus: self.gpus.unwrap_or_default(),
            driver_config,
            isolation_min: self.isolation.map_or(0, |level| level.to_wire() as i32),
            root_writable: self.root_writable,
            workspace: self.workspace.unwrap_or_default(),
            environment,
        })
    }

    fn network(&self) -> Result<compute::NetworkClass, CommandError> {
        match (self.network, self.allow.is_empty()) {
            (None, true) => Ok(compute::NetworkClass::Unspecified),
            (None | Some(Network::Egress), false) => Ok(compute::NetworkClass::Egress),
            (Some(Network::None), true) => Ok(compute::NetworkClass::None),
            (Some(Network::Open), true) => Ok(compute::NetworkClass::Open),
            (Some(Network::Egress), true) => Err(CommandError::usage(
                "--network egress lets nothing through without --allow",
            )
            .hint("add --allow HOST for each target, or choose --network open")),
            (Some(Network::None | Network::Open), false) => Err(CommandError::usage(
                "--allow goes with --network egress only",
            )
            .hint("leave --network away: --allow implies it")),
        }
    }
}

impl Pull {
    fn to_wire(self) -> compute::PullPolicy {
        match self {
            Self::Missing => compute::PullPolicy::Missing,
            Self::Always => compute::PullPolicy::Always,
            Self::Never => compute::PullPolicy::Never,
        }
    }
}

impl Isolation {
    fn to_wire(self) -> compute::Isolation {
        match self {
            Self::None => compute::Isolation::NoIsolation,
            Self::Namespaces => compute::Isolation::Namespaces,
            Self::Container => compute::Isolation::Container,
            Self::UserspaceKernel => compute::Isolation::UserspaceKernel,
            Self::Vm => compute::Isolation::VirtualMachine,
            Self::RemoteMachine => compute::Isolation::RemoteMachine,
        }
    }
}

fn driver_config(text: &str) -> Result<prost_types::Struct, CommandError> {
    let (origin, text) = match text.strip_prefix('@') {
        Some(path) => {
            let content = std::fs::read_to_string(path)
                .map_err(|error| CommandError::io(format!("cannot read {path}"), error))?;
            (path.to_owned(), content)
        }
        None => ("--driver-config".to_owned(), text.to_owned()),
    };
    match serde_json::from_str(&text) {
        Ok(serde_json::Value::Object(object)) => Ok(json::to_struct(object)),
        Ok(_) => Err(CommandError::usage(format!(
            "{origin} is not a JSON object"
        ))),
        Err(error) => Err(CommandError::usage(format!("{origin} is not JSON")).caused_by(error)),
    }
}
