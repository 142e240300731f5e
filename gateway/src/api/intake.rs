//! From a request to something that can be started: defaults, bounds, capabilities, the driver's
//! own rules. Everything is refused here, all problems at once, or nothing is.
//!
//! ```text
//! execution.rs ── what a command is, and where ──► here: what a sandbox is, and of which driver
//!                                                    └─► driver.rs: what that driver says to it
//! ```

mod driver;
mod execution;

use std::sync::Arc;
use std::time::Duration;

use cofferdam_proto::gateway::v1 as wire;
use prost::Message;
use sha2::{Digest, Sha256};
use tonic::Code;

use self::driver::KnownGood;
pub(super) use self::driver::cannot;
use super::caller::Caller;
use super::convert;
use super::status::ApiError;
use crate::config::Config;
use crate::driver::{Driver, DriverState, DriverView, Registry, Violation};
use crate::model::{
    DriverName, SandboxFacts, SandboxId, SandboxName, SandboxSpec, SandboxState, UnixMillis,
};
use crate::sandbox::admission::{self, ExecutionNeeds, Problems, Wishes};
use crate::sandbox::{NewSandbox, is_session_lost};
use crate::store::IdempotencyKey;

/// How long a request waits for its driver's connection.
const REACH_PATIENCE: Duration = Duration::from_secs(5);

/// Turns requests into new sandboxes and executions.
#[derive(Debug)]
pub(super) struct Intake {
    config: Config,
    drivers: Registry,
    known_good: KnownGood,
}

impl Intake {
    pub(super) fn new(config: Config, drivers: Registry) -> Self {
        Self {
            config,
            drivers,
            known_good: KnownGood::default(),
        }
    }

    pub(super) async fn sandbox(
        &self,
        caller: Caller,
        request: wire::SandboxRequest,
        needs: ExecutionNeeds,
        mut problems: Problems,
    ) -> Result<NewSandbox, ApiError> {
        let wishes = convert::wishes(request, &mut problems);
        let found = self.driver(&wishes);
        let view = match &found {
            Ok(driver) => Some(reached(driver).await),
            Err(_) => None,
        };
        // Without a driver, or with one that was never reached, the rest is checked all the same.
        let capabilities = view.as_ref().and_then(|view| view.capabilities.as_ref());
        let spec = admission::resolve(
            &wishes,
            &self.config.defaults,
            &self.config.maximum,
            capabilities,
            &mut problems,
        );
        let driver = found.map_err(|unknown| self.no_driver(unknown, &mut problems))?;
        self.check(&driver, &wishes, &spec, needs, problems).await?;
        Ok(new_sandbox(caller, &driver, wishes, spec))
    }

    /// The driver that is wanted, or what is wrong with its name.
    fn driver(&self, wishes: &Wishes) -> Result<Driver, Violation> {
        let name = match wishes.driver.as_str() {
            "" => self.config.default_driver.as_str(),
            name => name,
        };
        let found = DriverName::parse(name)
            .ok()
            .and_then(|name| self.drivers.get(&name));
        found.ok_or_else(|| Violation {
            field: "driver".to_owned(),
            message: format!("there is no driver {name:?} in this gateway"),
        })
    }

    fn no_driver(&self, unknown: Violation, problems: &mut Problems) -> ApiError {
        let error = if problems.0.is_empty() {
            ApiError::new(Code::InvalidArgument, "UNKNOWN_DRIVER", unknown.message)
        } else {
            problems.0.insert(0, unknown);
            ApiError::invalid("INVALID_SPEC", std::mem::take(&mut problems.0))
        };
        let here = names(self.drivers.list().iter());
        error.hint(format!("drivers here: {here}"))
    }
}

fn new_sandbox(caller: Caller, driver: &Driver, wishes: Wishes, spec: SandboxSpec) -> NewSandbox {
    let now = UnixMillis::now();
    let facts = SandboxFacts {
        id: SandboxId::generate(),
        // Checked by admission.
        name: SandboxName::parse(&wishes.name).ok(),
        driver: driver.name().clone(),
        owner_uid: caller.uid,
        execution_id: None,
        weaknesses: admission::weaknesses(&spec),
        spec,
        state: SandboxState::Provisioning,
        reason: String::new(),
        message: String::new(),
        handle: None,
        observed: None,
        create_time: now,
        ready_time: UnixMillis::default(),
        state_time: now,
        idle_timeout_ms: wishes.idle_timeout_ms,
        environment_names: wishes.environment.names(),
    };
    NewSandbox {
        lifetime: facts.spec.expire_time.remaining(),
        facts,
        environment: wishes.environment,
    }
}

pub(super) fn not_ready(facts: &SandboxFacts) -> ApiError {
    let name = facts
        .name
        .as_ref()
        .map_or(facts.id.as_str(), SandboxName::as_str);
    let (reason, hint) = match facts.state {
        SandboxState::Failed => ("SANDBOX_FAILED", format!("remove it: cofferdam rm {name}")),
        SandboxState::Stopped => (
            "SANDBOX_NOT_READY",
            format!("start it: cofferdam start {name}"),
        ),
        _ if is_session_lost(facts) => (
            "SANDBOX_NOT_READY",
            format!(
                "it is ready again when its supervisor answers; to end what runs in it: cofferdam \
                 stop {name} && cofferdam start {name}"
            ),
        ),
        _ => ("SANDBOX_NOT_READY", String::new()),
    };
    let why = match (facts.reason.as_str(), facts.message.as_str()) {
        ("", "") => String::new(),
        ("", message) => format!(": {message}"),
        (reason, "") => format!(": {reason}"),
        (reason, message) => format!(": {reason}: {message}"),
    };
    let state = facts.state.name();
    let message = format!("sandbox {name:?} is {state}{why}");
    ApiError::new(Code::FailedPrecondition, reason, message).hint(hint)
}

/// A driver that is just being reached, at the gateway's start or after its own, is worth a moment.
async fn reached(driver: &Driver) -> Arc<DriverView> {
    let is_worth_it = |view: &DriverView| {
        view.state == DriverState::Connecting && (view.built_in || view.error.is_empty())
    };
    let mut changes = driver.changes();
    let decided = changes.wait_for(|view| !is_worth_it(view));
    // Still not reached: the answer says so.
    let _waited = tokio::time::timeout(REACH_PATIENCE, decided).await;
    driver.view()
}

fn names<'a>(drivers: impl Iterator<Item = &'a Driver>) -> String {
    let names: Vec<&str> = drivers.map(|driver| driver.name().as_str()).collect();
    names.join(", ")
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The key of a request, with a digest of what it asked for.
pub(super) fn idempotency(
    caller: Caller,
    key: &str,
    request: &impl Message,
) -> Result<Option<IdempotencyKey>, ApiError> {
    if key.is_empty() {
        return Ok(None);
    }
    if key.len() > 128 {
        return Err(ApiError::field("idempotency_key", "use 1 to 128 bytes"));
    }
    // Maps are encoded in the order of their keys, so equal requests have equal bytes.
    let digest = Sha256::digest(request.encode_to_vec());
    Ok(Some(IdempotencyKey {
        caller_uid: caller.uid,
        key: key.to_owned(),
        digest: digest.into(),
    }))
}
