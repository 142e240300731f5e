//! The host under the present settings: where sandboxes are made, and with what.

use std::collections::HashMap;
use std::os::unix::fs::DirBuilderExt as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cofferdam_driver_sdk::DriverError;
use cofferdam_driver_sdk::capabilities::supervised;
use cofferdam_driver_sdk::proto::{
    Capabilities, ImageSources, Isolation, Limits, NetworkClass, Supervisor,
};
use cofferdam_driver_sdk::supervisor::{SupervisorBinary, SupervisorError};

use crate::cgroup::CgroupParent;
use crate::config::Config;
use crate::error;
use crate::ids::IdBlocks;
use crate::launch::{Launcher, LauncherConfig, SpareShim};
use crate::store::Store;

/// More versions of the supervisor than gateways ever use at the same time.
const LAUNCHERS_MAX: usize = 8;

/// What settings resolve to on this host.
#[derive(Debug)]
pub(crate) struct Platform {
    pub(crate) config: Config,
    pub(crate) store: Store,
    pub(crate) cgroups: CgroupParent,
    pub(crate) spare: SpareShim,
    /// By the supervisor's SHA-256.
    launchers: Mutex<HashMap<Vec<u8>, Launcher>>,
}

impl Platform {
    /// Makes directories and finds cgroups. Blocks briefly.
    pub(crate) fn open(config: Config) -> Result<Self, DriverError> {
        let dir = &config.state_dir;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|failed| error::store("make", dir, failed))?;
        let store = Store::open(dir).map_err(|failed| error::store("make", dir, failed))?;
        Ok(Self {
            cgroups: CgroupParent::detect(config.cgroup_parent.as_deref()),
            spare: SpareShim::new(config.shim_path.clone()),
            store,
            config,
            launchers: Mutex::default(),
        })
    }

    pub(crate) fn ids(&self) -> Option<IdBlocks> {
        self.config.id_claims_dir.clone().map(IdBlocks::new)
    }

    /// The launcher for a supervisor that has been used before.
    pub(crate) fn known_launcher(&self, supervisor: Option<&Supervisor>) -> Option<Launcher> {
        self.launchers().get(&supervisor?.sha256[..]).cloned()
    }

    /// The launcher for a supervisor, which is read and checked now. Blocks on the disk.
    pub(crate) fn new_launcher(
        &self,
        supervisor: Option<&Supervisor>,
    ) -> Result<Launcher, DriverError> {
        let named = supervisor.ok_or(SupervisorError::Missing)?;
        let instead_of_path = self.config.supervisor_path.as_deref();
        let launcher = Launcher::new(LauncherConfig {
            shim: self.config.shim_path.clone(),
            state_root: self.config.sandboxes_dir(),
            ids: self.ids(),
            cgroups: self.cgroups.clone(),
            supervisor: SupervisorBinary::open(supervisor, instead_of_path)?,
            timeout: self.config.launch_timeout,
        })
        .map_err(|failed| error::store("make", &self.config.sandboxes_dir(), failed))?
        .with_spare(self.spare.clone());
        let mut launchers = self.launchers();
        if launchers.len() >= LAUNCHERS_MAX {
            launchers.clear();
        }
        launchers.insert(named.sha256.to_vec(), launcher.clone());
        Ok(launcher)
    }

    fn launchers(&self) -> MutexGuard<'_, HashMap<Vec<u8>, Launcher>> {
        self.launchers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the driver can do with these settings, or, before there are any, with the defaults.
pub(crate) fn capabilities(config: Option<&Config>) -> Capabilities {
    let mut networks = vec![NetworkClass::None.into()];
    if config.is_some_and(|config| config.allow_host_network) {
        networks.push(NetworkClass::Open.into());
    }
    Capabilities {
        images: Some(ImageSources {
            host: true,
            ..ImageSources::default()
        }),
        networks,
        // What the kernel can do. Whether this host lets us is in the fingerprint, and a limit
        // that is insisted on and does not hold here is refused with the remedy.
        limits: Some(Limits {
            memory: true,
            cpu: true,
            pids: true,
            disk: true,
        }),
        stop_start: true,
        console: true,
        stats: true,
        host_mounts: config.is_some_and(|config| !config.read_only_paths.is_empty()),
        choose_user: true,
        ..supervised(Isolation::Namespaces)
    }
}
