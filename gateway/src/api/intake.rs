//! From a request to something that can be started: defaults, bounds, capabilities, the driver's
//! own rules. Everything is refused here, all problems at once, or nothing is.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cofferdam_proto::gateway::v1 as wire;
use prost::Message;
use sha2::{Digest, Sha256};
use tonic::Code;

use super::caller::Caller;
use super::convert;
use super::status::ApiError;
use crate::config::Config;
use crate::driver::{Driver, DriverState, DriverView, Registry, Violation};
use crate::execution::{NewExecution, Place};
use crate::model::{
    DriverName, Environment, ExecutionFacts, ExecutionId, ExecutionState, OutputTotals,
    SandboxFacts, SandboxId, SandboxName, SandboxSpec, SandboxState, StageTimes, UnixMillis,
};
use crate::sandbox::admission::{
    self, ExecutionNeeds, Problems, Wishes, check_environment, parse_user,
};
use crate::sandbox::{NewSandbox, Sandboxes, is_settled};
use crate::store::IdempotencyKey;

const ARGUMENTS_MAX: usize = 65_536;
const ARGUMENT_BYTES_MAX: usize = 1 << 20;
/// How long a request waits for its driver's connection.
const REACH_PATIENCE: Duration = Duration::from_secs(5);
/// For killing the command, and for storing how it ended.
const ONE_SHOT_MARGIN: Duration = Duration::from_secs(60);
/// Specs that the driver has found good lately need not be asked about again.
const KNOWN_GOOD_MAX: usize = 32;

/// Turns requests into new sandboxes and executions.
#[derive(Debug)]
pub(super) struct Intake {
    config: Config,
    drivers: Registry,
    known_good: Mutex<VecDeque<KnownGood>>,
}

#[derive(Debug, PartialEq)]
struct KnownGood {
    driver: DriverName,
    incarnation: String,
    spec: SandboxSpec,
}

impl Intake {
    pub(super) fn new(config: Config, drivers: Registry) -> Self {
        Self {
            config,
            drivers,
            known_good: Mutex::default(),
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
        let driver = self.driver(&wishes)?;
        let view = reached(&driver).await;
        let Some(capabilities) = view.capabilities.clone() else {
            return Err(unusable(&driver));
        };
        let spec = admission::resolve(
            &wishes,
            &self.config.defaults,
            &self.config.maximum,
            &capabilities,
            &mut problems,
        );
        let violations = driver.driver_config_violations(&wishes.driver_config);
        problems
            .0
            .extend(violations.into_iter().map(in_driver_config));
        if !problems.0.is_empty() {
            let more = more_of_driver(&driver, &view, &spec, &problems).await;
            problems.0.extend(more);
            let missing = admission::missing(&spec, needs, &view);
            problems.0.extend(missing.into_iter().map(|what| Violation {
                field: String::new(),
                message: format!("driver \"{}\" cannot do: {what}", driver.name()),
            }));
            return Err(ApiError::invalid("INVALID_SPEC", problems.0));
        }
        self.check_capabilities(&driver, &spec, needs)?;
        if !view.is_usable() {
            return Err(unusable(&driver));
        }
        self.check_with_driver(&driver, &spec).await?;
        Ok(new_sandbox(caller, &driver, wishes, spec))
    }

    fn driver(&self, wishes: &Wishes) -> Result<Driver, ApiError> {
        let name = match wishes.driver.as_str() {
            "" => self.config.default_driver.as_str(),
            name => name,
        };
        let found = DriverName::parse(name)
            .ok()
            .and_then(|name| self.drivers.get(&name));
        found.ok_or_else(|| {
            let here = names(self.drivers.list().iter());
            ApiError::new(
                Code::InvalidArgument,
                "UNKNOWN_DRIVER",
                format!("there is no driver {name:?} in this gateway"),
            )
            .hint(format!("drivers here: {here}"))
        })
    }

    fn check_capabilities(
        &self,
        driver: &Driver,
        spec: &SandboxSpec,
        needs: ExecutionNeeds,
    ) -> Result<(), ApiError> {
        let missing = admission::missing(spec, needs, &driver.view());
        if missing.is_empty() {
            return Ok(());
        }
        let all = self.drivers.list();
        let able = all.iter().filter(|other| {
            let view = other.view();
            view.capabilities.is_some() && admission::missing(spec, needs, &view).is_empty()
        });
        let able = match names(able) {
            list if list.is_empty() => "no driver of this gateway can".to_owned(),
            list => format!("drivers here that can: {list}"),
        };
        let mut hints = limit_fixes(&driver.view(), spec);
        hints.push(able);
        Err(cannot(driver, &missing.join(", ")).hint(hints.join("\n")))
    }

    async fn check_with_driver(&self, driver: &Driver, spec: &SandboxSpec) -> Result<(), ApiError> {
        let mut plain = spec.clone();
        plain.expire_time = UnixMillis::default();
        plain.hostname = "sandbox".into();
        plain.labels.clear();
        let good = KnownGood {
            driver: driver.name().clone(),
            incarnation: driver.view().incarnation.clone(),
            spec: plain,
        };
        if self.lock().contains(&good) {
            return Ok(());
        }
        let violations = driver.validate(spec).await?;
        if !violations.is_empty() {
            return Err(ApiError::invalid("INVALID_SPEC", violations));
        }
        let mut known = self.lock();
        if known.len() >= KNOWN_GOOD_MAX {
            known.pop_front();
        }
        known.push_back(good);
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<KnownGood>> {
        self.known_good
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn execution(
        &self,
        caller: Caller,
        request: wire::ExecutionRequest,
        attached: bool,
        sandboxes: &Sandboxes,
    ) -> Result<NewExecution, ApiError> {
        let mut problems = Problems::default();
        let environment = Environment(request.environment.clone().into_iter().collect());
        self.check_execution(&request, &environment, &mut problems);
        let needs = ExecutionNeeds {
            stdin: request.stdin,
            pty: request.pty.is_some(),
        };
        let id = ExecutionId::generate();
        let (place, sandbox_id, driver) = match request.place.clone() {
            Some(wire::execution_request::Place::Sandbox(name)) => {
                let sandbox = caller.sandbox(sandboxes, &name)?;
                let facts = &sandbox.view().facts;
                if is_settled(facts.state) {
                    return Err(not_ready(facts));
                }
                let ids = (facts.id.clone(), facts.driver.clone());
                (Place::Existing(sandbox), ids.0, ids.1)
            }
            Some(wire::execution_request::Place::OneShot(wanted)) => {
                let wanted = self.bounded_by_its_command(wanted, &request);
                let mut new = self
                    .sandbox(caller, wanted, needs, std::mem::take(&mut problems))
                    .await?;
                new.facts.execution_id = Some(id.clone());
                let ids = (new.facts.id.clone(), new.facts.driver.clone());
                (Place::OneShot(Box::new(new)), ids.0, ids.1)
            }
            None => {
                let message = "say where it is to run: in a sandbox, or one_shot";
                problems.add("place", message);
                return Err(ApiError::invalid("INVALID_REQUEST", problems.0));
            }
        };
        if !problems.0.is_empty() {
            return Err(ApiError::invalid("INVALID_REQUEST", problems.0));
        }
        let facts = ExecutionFacts {
            one_shot: matches!(place, Place::OneShot(_)),
            ..self.execution_facts(id, sandbox_id, driver, caller, request, attached)
        };
        Ok(NewExecution {
            facts,
            environment,
            place,
            attached,
        })
    }

    /// A one-shot sandbox needs to live no longer than its command may: should everybody die, the
    /// deadline that the driver enforces is near.
    fn bounded_by_its_command(
        &self,
        mut wanted: wire::SandboxRequest,
        request: &wire::ExecutionRequest,
    ) -> wire::SandboxRequest {
        if wanted.lifetime_ms == 0 {
            let needed = self.timeout_ms(request)
                + millis(self.config.create_timeout)
                + millis(self.config.session_timeout)
                + millis(ONE_SHOT_MARGIN);
            let max = self.config.maximum.lifetime.map_or(u64::MAX, millis);
            wanted.lifetime_ms = needed.min(max);
        }
        wanted
    }

    fn timeout_ms(&self, request: &wire::ExecutionRequest) -> u64 {
        match request.timeout_ms {
            0 => millis(self.config.executions.timeout_default),
            asked => asked.min(millis(self.config.executions.timeout_max)),
        }
    }

    fn execution_facts(
        &self,
        id: ExecutionId,
        sandbox_id: SandboxId,
        driver: DriverName,
        caller: Caller,
        request: wire::ExecutionRequest,
        attached: bool,
    ) -> ExecutionFacts {
        let limits = &self.config.executions;
        let timeout_ms = self.timeout_ms(&request);
        let mut environment_names: Vec<String> = request.environment.into_keys().collect();
        environment_names.sort();
        ExecutionFacts {
            id,
            sandbox_id,
            driver,
            one_shot: false,
            detachable: request.detachable || !attached,
            owner_uid: caller.uid,
            argv: request.argv.iter().map(|a| a.to_vec()).collect(),
            cwd: request.cwd,
            user: parse_user(&request.user),
            pty: request.pty.map(convert::pty),
            stdin: request.stdin,
            timeout_ms,
            output_cap_bytes: match request.output_cap_bytes {
                0 => limits.output_cap_default_bytes,
                asked => asked,
            },
            labels: request.labels.into_iter().collect(),
            environment_names,
            state: ExecutionState::Queued,
            ending: None,
            create_time: UnixMillis::now(),
            start_time: UnixMillis::default(),
            end_time: UnixMillis::default(),
            stages: StageTimes::default(),
            output: OutputTotals::default(),
            cpu_user_us: None,
            cpu_system_us: None,
            max_rss_bytes: None,
        }
    }

    fn check_execution(
        &self,
        request: &wire::ExecutionRequest,
        environment: &Environment,
        problems: &mut Problems,
    ) {
        let limits = &self.config.executions;
        check_environment("environment", environment, problems);
        let bytes: usize = request.argv.iter().map(|a| a.len() + 1).sum();
        if request
            .argv
            .first()
            .is_none_or(|program| program.is_empty())
        {
            problems.add("argv", "give a program to run");
        }
        if request.argv.len() > ARGUMENTS_MAX || bytes > ARGUMENT_BYTES_MAX {
            problems.add(
                "argv",
                "at most 65,536 arguments of 1 MiB together are possible",
            );
        }
        if request.argv.iter().any(|argument| argument.contains(&0)) {
            problems.add("argv", "an argument cannot hold a NUL byte");
        }
        if !request.user.is_empty() && parse_user(&request.user).is_none() {
            problems.add("user", "give a numeric id: UID or UID:GID");
        }
        let timeout_max = millis(limits.timeout_max);
        if request.timeout_ms > timeout_max {
            let message = format!("is more than this gateway allows, {timeout_max}");
            problems.add("timeout_ms", message);
        }
        if request.output_cap_bytes > limits.output_cap_max_bytes {
            let max = limits.output_cap_max_bytes;
            problems.add(
                "output_cap_bytes",
                format!("is more than this gateway allows, {max}"),
            );
        }
        if let Some(pty) = &request.pty
            && (pty.rows > 65_535 || pty.columns > 65_535)
        {
            problems.add("pty", "rows and columns are at most 65,535");
        }
    }
}

/// What the driver finds wrong beside that, so that everything is told at once. What the gateway
/// found already is not told again in the driver's words.
async fn more_of_driver(
    driver: &Driver,
    view: &DriverView,
    spec: &SandboxSpec,
    problems: &Problems,
) -> Vec<Violation> {
    if !view.is_usable() {
        return Vec::new();
    }
    // A driver that does not answer now is asked again about a spec that is right.
    let mut found = driver.validate(spec).await.unwrap_or_default();
    let told: Vec<_> = problems
        .0
        .iter()
        .map(|told| asked_as(&told.field))
        .collect();
    found.retain(|violation| !told.contains(&asked_as(&violation.field)));
    found
}

/// What a driver calls `limits.memory_bytes`, callers call `memory_bytes`.
fn asked_as(field: &str) -> &str {
    match field {
        "uid" | "gid" => "user",
        "expire_time_unix_ms" => "lifetime_ms",
        _ => field.strip_prefix("limits.").unwrap_or(field),
    }
}

/// What the driver's schema calls by its own names.
fn in_driver_config(violation: Violation) -> Violation {
    let field = match violation.field.as_str() {
        "" => "driver_config".to_owned(),
        inner => format!("driver_config.{inner}"),
    };
    Violation { field, ..violation }
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

/// A limit that the driver has in principle, and not on this host now.
/// A request needs what its driver lacks. The first word is for those who get only the message.
pub(super) fn cannot(driver: &Driver, what: &str) -> ApiError {
    let name = driver.name();
    ApiError::new(
        Code::InvalidArgument,
        "CAPABILITY_MISMATCH",
        format!("capability_mismatch: driver \"{name}\" cannot do: {what}"),
    )
}

/// Limits are a matter of the host: the driver's checks say what would make them possible.
fn limit_fixes(view: &DriverView, spec: &SandboxSpec) -> Vec<String> {
    let Some(print) = &view.fingerprint else {
        return Vec::new();
    };
    let (asked, held) = (spec.limits.required, print.limits);
    let lacking = [
        (asked.memory && !held.memory, "limit_memory"),
        (asked.cpu && !held.cpu, "limit_cpu"),
        (asked.pids && !held.pids, "limit_pids"),
        (asked.disk && !held.disk, "limit_disk"),
    ];
    let mut fixes = Vec::new();
    for (_, id) in lacking.into_iter().filter(|(lacks, _)| *lacks) {
        let check = print.checks.iter().find(|check| check.id == id);
        if let Some(fix) = check.map(|check| &check.fix)
            && !fix.is_empty()
            && !fixes.contains(fix)
        {
            fixes.push(fix.clone());
        }
    }
    fixes
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
async fn reached(driver: &Driver) -> std::sync::Arc<DriverView> {
    let is_worth_it = |view: &DriverView| {
        view.state == DriverState::Connecting && (view.built_in || view.error.is_empty())
    };
    let mut changes = driver.changes();
    let decided = changes.wait_for(|view| !is_worth_it(view));
    // Still not reached: the answer says so.
    let _waited = tokio::time::timeout(REACH_PATIENCE, decided).await;
    driver.view()
}

fn unusable(driver: &Driver) -> ApiError {
    let view = driver.view();
    let (error, fix) = view.trouble().unwrap_or_default();
    let message = format!("driver \"{}\" cannot be used now: {error}", driver.name());
    if view.state == DriverState::Connected {
        return ApiError::new(Code::FailedPrecondition, "DRIVER_UNHEALTHY", message).hint(fix);
    }
    ApiError::new(Code::Unavailable, "DRIVER_UNAVAILABLE", message)
        .hint(fix)
        .retry(Duration::from_secs(1))
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
