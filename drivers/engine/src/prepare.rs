//! What a container needs before it is made: a volume with the supervisor, and one for its
//! workspace.
//!
//! ```text
//!   carrier: a container that never runs. Files and owners are put into its volumes through it.
//!     supervisor volume   once for each gateway, supervisor and run of the driver; mounted read-only
//!     workspace volumes   a few at a time, each for one sandbox, and owned by its user
//! ```
//!
//! An engine makes volumes that belong to root, and a sandbox has no root. Changing that takes a
//! carrier, which costs as much as half a container, so workspaces are prepared ahead.

mod carrier;
mod clean;
mod spares;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use cofferdam_driver_sdk::supervisor::SupervisorBinary;

use crate::client::{Engine, EngineError};
use crate::labels;
use crate::naming;
pub(crate) use carrier::is_supervisor_missing;
use carrier::{Carrier, Item};
use spares::{Kind, Spares};

/// What was prepared, and is prepared ahead. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Preparations(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Held while one is made, so that it is made once.
    supervisors: tokio::sync::Mutex<HashMap<SupervisorKey, String>>,
    spares: Mutex<Spares>,
    /// Those that this driver has worked for; true once it has cleaned up after earlier runs.
    gateways: tokio::sync::Mutex<HashMap<String, bool>>,
    /// Held by whoever makes something, or uses what was made.
    busy: tokio::sync::RwLock<()>,
}

/// A gateway's id, and the digest of the supervisor.
type SupervisorKey = (String, Vec<u8>);

/// For whom something is prepared.
#[derive(Debug, Clone, Copy)]
pub(crate) struct For<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) gateway_id: &'a str,
    /// Any image that the engine has: a carrier never runs.
    pub(crate) image_id: &'a str,
}

impl Preparations {
    /// The volume with this supervisor. Each run of the driver fills one of its own: a driver that was
    /// killed may have left one half filled, or an engine that still fills it.
    pub(crate) async fn supervisor(
        &self,
        whom: For<'_>,
        digest: &[u8],
        binary: &SupervisorBinary,
    ) -> Result<String, EngineError> {
        // Cancelled here, a carrier may be left; the next run of the driver removes it.
        let mut made = self.0.supervisors.lock().await;
        let key = (whom.gateway_id.to_owned(), digest.to_vec());
        if let Some(volume) = made.get(&key) {
            return Ok(volume.clone());
        }
        let digits = data_encoding::HEXLOWER.encode(&digest[..digest.len().min(4)]);
        let id = format!("{digits}-{}", spares::random_id());
        let volume = naming::object(whom.gateway_id, "supervisor", &id);
        let content = binary
            .read()
            .map_err(|error| EngineError::protocol("read", "the supervisor", error))?;
        let items = [Item {
            volume: &volume,
            role: labels::ROLE_SUPERVISOR,
            owner: (0, 0),
            file: Some((crate::plan::SUPERVISOR_NAME, &content)),
        }];
        Carrier::new(whom).carry(&items).await?;
        made.insert(key, volume.clone());
        Ok(volume)
    }

    /// The supervisor's volume is not what it was: it is made anew for the next container.
    pub(crate) async fn forget_supervisors(&self) {
        self.0.supervisors.lock().await.clear();
    }

    /// An empty volume of this user's. `follows_user`: the engine itself gives a new volume to the
    /// first user of it.
    pub(crate) async fn workspace(
        &self,
        whom: For<'_>,
        user: (u32, u32),
        follows_user: bool,
        ahead: usize,
    ) -> Result<String, EngineError> {
        let kind = Kind::new(whom.gateway_id, user);
        loop {
            let Some(spare) = self.spares().take(&kind) else {
                break;
            };
            // Somebody may have pruned it; the engine would make another, which is root's.
            if whom.engine.inspect_volume(&spare).await.is_ok() {
                return Ok(spare);
            }
        }
        if follows_user {
            let name = spares::fresh_name(whom.gateway_id);
            let labels = carrier::volume_labels(whom.gateway_id, labels::ROLE_WORKSPACE);
            whom.engine.create_volume(&name, &labels).await?;
            return Ok(name);
        }
        let mut made = self.prepare(whom, user, spares::batch(ahead)).await?;
        let one = made.pop().ok_or_else(|| {
            EngineError::protocol("prepare", "a workspace", "nothing was asked for")
        })?;
        self.spares().put(&kind, made);
        Ok(one)
    }

    /// Fills up what was taken, if nobody does already.
    pub(crate) async fn replenish(&self, whom: For<'_>, user: (u32, u32), ahead: usize) {
        let kind = Kind::new(whom.gateway_id, user);
        let Some(missing) = self.spares().begin_filling(&kind, ahead) else {
            return;
        };
        let made = self.prepare(whom, user, missing).await;
        let mut spares = self.spares();
        spares.end_filling(&kind);
        match made {
            Ok(made) => spares.put(&kind, made),
            Err(error) => {
                tracing::debug!(error = %error.chain(), "no workspaces were prepared ahead");
            }
        }
    }

    async fn prepare(
        &self,
        whom: For<'_>,
        owner: (u32, u32),
        count: usize,
    ) -> Result<Vec<String>, EngineError> {
        let names: Vec<String> = (0..count)
            .map(|_| spares::fresh_name(whom.gateway_id))
            .collect();
        let items: Vec<Item<'_>> = names
            .iter()
            .map(|volume| Item {
                volume,
                role: labels::ROLE_WORKSPACE,
                owner,
                file: None,
            })
            .collect();
        Carrier::new(whom).carry(&items).await?;
        Ok(names)
    }

    /// What is prepared stays where it is while this is held.
    pub(crate) async fn in_use(&self) -> tokio::sync::RwLockReadGuard<'_, ()> {
        self.0.busy.read().await
    }

    /// Remembers a gateway, for the end.
    pub(crate) async fn meet(&self, gateway_id: &str) {
        let mut gateways = self.0.gateways.lock().await;
        gateways.entry(gateway_id.to_owned()).or_default();
    }

    /// Removes what earlier runs of the driver have left for this gateway. Once in a run, before
    /// anything is prepared in it. What cannot be removed is in nobody's way: the engine may be at work
    /// with what a driver that was killed had asked of it.
    pub(crate) async fn clean(&self, engine: &Engine, gateway_id: &str) {
        let mut gateways = self.0.gateways.lock().await;
        if gateways.insert(gateway_id.to_owned(), true) == Some(true) {
            return;
        }
        if let Err(error) = clean::clean(engine, gateway_id).await {
            tracing::info!(error = %error.chain(), "something of an earlier run is left");
        }
    }

    /// Removes all that nobody uses: the next run would do it, if there is one.
    pub(crate) async fn put_away(&self, engine: &Engine) {
        let _alone = self.0.busy.write().await;
        self.spares().forget();
        self.0.supervisors.lock().await.clear();
        for gateway_id in self.0.gateways.lock().await.keys() {
            if let Err(error) = clean::clean(engine, gateway_id).await {
                tracing::debug!(error = %error.chain(), "something is left for the next run");
            }
        }
    }

    fn spares(&self) -> std::sync::MutexGuard<'_, Spares> {
        self.0.spares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
