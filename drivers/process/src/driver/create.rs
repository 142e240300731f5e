//! Making a sandbox: intent on disk, launch, and what is said of it.

use std::sync::Arc;
use std::time::Duration;

use cofferdam_driver_sdk::proto::SandboxState;
use cofferdam_driver_sdk::supervisor::{self, OOM_SCORE_ADJ, Token};
use cofferdam_driver_sdk::{Call, CreateRequest, Created, DriverError};

use super::{ProcessDriver, blocking};
use crate::cgroup::NotEnforced;
use crate::launch::{self, Bootstrap, SandboxPlan};
use crate::plan::{self, USER, WORKSPACE};
use crate::platform::Platform;
use crate::sandbox::plan::{CPU_THREADS_FD, MEMORY_EVENTS_FD};
use crate::store::{Stored, callback_identity};
use crate::tracked::{Tracked, now_unix_ms};
use crate::{error, recover, watch};

/// After a launch its sandbox has more use for the processors than the next one.
const SPARE_DELAY: Duration = Duration::from_millis(50);

impl ProcessDriver {
    /// The sandbox of this request: the one that exists, or a new one.
    pub(super) async fn make(
        &self,
        call: &Call,
        request: CreateRequest,
    ) -> Result<Created, DriverError> {
        let platform = self.platform()?;
        let id = request.sandbox_id.clone();
        if let Some(tracked) = self.find(call, &id)? {
            request.digest.check(&tracked.stored().spec_digest, &id)?;
            // An earlier call may have gone while its work goes on: this waits for it.
            let _operation = tracked.operation.lock().await;
            let (sandbox, _) = self.look(&tracked)?;
            if sandbox.state() != SandboxState::Creating {
                return recover::created(&platform.config.state_dir, sandbox);
            }
            // Half-made, and not by us: a driver was killed meanwhile. What it left is removed, and
            // made anew.
            launch::destroy(&tracked.state_dir, platform.config.launch_timeout)
                .await
                .map_err(error::destroy)?;
            self.forget(&platform, &tracked)?;
        }
        self.make_new(call, &platform, request).await
    }

    async fn make_new(
        &self,
        call: &Call,
        platform: &Arc<Platform>,
        request: CreateRequest,
    ) -> Result<Created, DriverError> {
        let plan = planned(platform, &request)?;
        refuse_unenforceable(platform, &request)?;
        let launcher = match platform.known_launcher(call.gateway.supervisor.as_ref()) {
            Some(launcher) => launcher,
            None => {
                let (platform, gateway) = (Arc::clone(platform), Arc::clone(&call.gateway));
                blocking(move || platform.new_launcher(gateway.supervisor.as_ref())).await?
            }
        };
        let stored = stored(call, &request);
        let state_dir = platform.config.sandboxes_dir().join(&stored.sandbox_id);
        let tracked = Arc::new(Tracked::new(state_dir, stored.clone()));
        // Before anybody can find it: a delete waits until all of it is there, and removes that.
        let _operation = tracked.operation.lock().await;
        self.accept(platform, &stored, &tracked)?;
        let bootstrap = bootstrap(&stored, request.token);
        match launcher.launch(&plan, &bootstrap).await {
            Ok(handle) => {
                self.note_weaknesses(platform, &tracked, &handle.not_enforced);
                self.keep_spare(platform, SPARE_DELAY);
                let (sandbox, seen) = self.look(&tracked)?;
                watch::spawn_after(&self.0.context, &tracked, Some(seen));
                recover::created(&platform.config.state_dir, sandbox)
            }
            Err(failed) => {
                // What could not be cleaned up stays on record, is listed, and can be deleted.
                if !tracked.state_dir.exists() {
                    self.forget(platform, &tracked)?;
                }
                Err(error::launch(failed))
            }
        }
    }

    /// Writes the intent down. Two drivers on one directory do not accept the same id twice: the
    /// launcher makes its state directory exclusively.
    fn accept(
        &self,
        platform: &Platform,
        stored: &Stored,
        tracked: &Arc<Tracked>,
    ) -> Result<(), DriverError> {
        let id = &stored.sandbox_id;
        let mut sandboxes = self.sandboxes();
        if sandboxes.contains_key(id) {
            // Another gateway's, since this one's would have been found.
            return Err(DriverError::sandbox_exists(id));
        }
        let written = platform.store.put(stored);
        written.map_err(|failed| error::store("write to", platform.store.dir(), failed))?;
        sandboxes.insert(id.clone(), Arc::clone(tracked));
        Ok(())
    }

    fn note_weaknesses(&self, platform: &Platform, tracked: &Tracked, lacking: &[NotEnforced]) {
        if lacking.is_empty() {
            return;
        }
        let sentence = |lacking: &NotEnforced| {
            let bound = format!("{:?}", lacking.bound).to_lowercase();
            format!(
                "the default limit on {bound} is not enforced: {}",
                lacking.why
            )
        };
        let stored = tracked.add_weaknesses(lacking.iter().map(sentence));
        if let Err(failed) = platform.store.put(&stored) {
            tracing::warn!(error = %failed, "the weaknesses of a sandbox could not be recorded");
        }
    }
}

fn planned(platform: &Platform, request: &CreateRequest) -> Result<SandboxPlan, DriverError> {
    let callback_directory = request.callback_directory.clone().unwrap_or_default();
    let canonicalize = |path: &std::path::Path| path.canonicalize();
    let (id, spec, config) = (&request.sandbox_id, &request.spec, &platform.config);
    plan::plan(id, spec, callback_directory, config, &canonicalize).map_err(DriverError::invalid)
}

fn refuse_unenforceable(platform: &Platform, request: &CreateRequest) -> Result<(), DriverError> {
    for (limit, bound) in plan::required_bounds(&request.spec) {
        if let Some(lacking) = platform.cgroups.lacks(bound) {
            return Err(error::unenforceable(limit, &lacking));
        }
    }
    Ok(())
}

fn stored(call: &Call, request: &CreateRequest) -> Stored {
    Stored {
        version: Stored::VERSION,
        sandbox_id: request.sandbox_id.clone(),
        gateway_id: call.gateway_id().to_owned(),
        spec_digest: request.digest.to_hex(),
        create_time_unix_ms: now_unix_ms(),
        weaknesses: plan::trims(&request.spec),
        uid: request.spec.uid,
        gid: request.spec.gid,
        expire_time_unix_ms: request.spec.expire_time_unix_ms,
        callback: request
            .callback_directory
            .as_deref()
            .and_then(callback_identity),
    }
}

/// What the supervisor is told at each boot.
pub(super) fn bootstrap(stored: &Stored, token: Token) -> Bootstrap {
    let bootstrap = supervisor::Bootstrap {
        sandbox_id: stored.sandbox_id.clone(),
        token,
        expire_time_unix_ms: stored.expire_time_unix_ms,
        workload: supervisor::Workload {
            uid: stored.uid,
            gid: stored.gid,
            home: WORKSPACE.to_owned(),
            user: USER.to_owned(),
        },
        workspace: WORKSPACE.to_owned(),
        oom_score_adj: OOM_SCORE_ADJ,
        environment: Default::default(),
    };
    // Moved out, not copied.
    let mut json = bootstrap.to_json_with(supervisor::Descriptors {
        memory_events: Some(MEMORY_EVENTS_FD),
        cpu_threads: Some(CPU_THREADS_FD),
    });
    Bootstrap::new(std::mem::take(&mut *json))
}
