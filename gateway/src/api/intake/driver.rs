//! What a driver says to a sandbox that is wanted of it: what it cannot do, what its schema and its
//! own rules forbid. Told together with what the gateway found, and nothing twice.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tonic::Code;

use super::super::status::ApiError;
use super::{Intake, names};
use crate::driver::{Driver, DriverState, DriverView, Violation};
use crate::model::{DriverName, SandboxSpec, UnixMillis};
use crate::sandbox::admission::{self, ExecutionNeeds, Missing, Problems, Wishes};

/// Specs that the driver has found good lately need not be asked about again.
const KNOWN_GOOD_MAX: usize = 32;

impl Intake {
    /// Refuses what the driver cannot make, with all `problems` that there are already.
    pub(super) async fn check(
        &self,
        driver: &Driver,
        wishes: &Wishes,
        spec: &SandboxSpec,
        needs: ExecutionNeeds,
        mut problems: Problems,
    ) -> Result<(), ApiError> {
        let violations = driver.driver_config_violations(&wishes.driver_config);
        let in_config = violations.into_iter().map(in_driver_config);
        problems.0.extend(in_config);
        let view = driver.view();
        let missing = admission::missing(spec, needs, &view);
        if !problems.0.is_empty() {
            // That it needs an image when none is named was found already.
            let is_told = |field| field == "image" && wishes.image.is_empty();
            let lacking = missing.iter().filter(|missing| !is_told(missing.field));
            let lacking = lacking.map(|missing| Violation {
                field: missing.field.to_owned(),
                message: format!("driver \"{}\" cannot do: {}", driver.name(), missing.what),
            });
            problems.0.extend(lacking);
            let more = more_of_driver(driver, &view, spec, &problems).await;
            problems.0.extend(more);
            let hints = match missing.is_empty() {
                true => limit_fixes(&view, spec),
                false => self.ways_out(&view, spec, needs),
            };
            let error = ApiError::invalid("INVALID_SPEC", problems.0);
            return Err(error.hint(hints.join("\n")));
        }
        if !missing.is_empty() {
            let hints = self.ways_out(&view, spec, needs);
            return Err(cannot(driver, &words(&missing)).hint(hints.join("\n")));
        }
        if !view.is_usable() {
            return Err(unusable(driver));
        }
        self.check_with_driver(driver, spec).await
    }

    /// What would make this driver able, and who is already, for people. That nobody is says something
    /// only where nothing can be done about it.
    fn ways_out(
        &self,
        view: &DriverView,
        spec: &SandboxSpec,
        needs: ExecutionNeeds,
    ) -> Vec<String> {
        let mut hints = limit_fixes(view, spec);
        match self.able(spec, needs) {
            Some(able) => hints.push(format!("drivers here that can: {able}")),
            None if hints.is_empty() => hints.push("no driver of this gateway can".to_owned()),
            None => {}
        }
        hints
    }

    /// Names of those who could do all of that.
    fn able(&self, spec: &SandboxSpec, needs: ExecutionNeeds) -> Option<String> {
        let all = self.drivers.list();
        let able = all.iter().filter(|other| {
            let view = other.view();
            view.capabilities.is_some() && admission::missing(spec, needs, &view).is_empty()
        });
        Some(names(able)).filter(|list| !list.is_empty())
    }

    async fn check_with_driver(&self, driver: &Driver, spec: &SandboxSpec) -> Result<(), ApiError> {
        let good = Good::new(driver, spec);
        if self.known_good.holds(&good) {
            return Ok(());
        }
        let violations = driver.validate(spec).await?;
        if !violations.is_empty() {
            return Err(ApiError::invalid("INVALID_SPEC", violations));
        }
        self.known_good.note(good);
        Ok(())
    }
}

/// What drivers have found good lately.
#[derive(Debug, Default)]
pub(super) struct KnownGood(Mutex<VecDeque<Good>>);

#[derive(Debug, PartialEq)]
struct Good {
    driver: DriverName,
    incarnation: String,
    spec: SandboxSpec,
}

impl Good {
    /// Without what no driver has an opinion about.
    fn new(driver: &Driver, spec: &SandboxSpec) -> Self {
        let mut plain = spec.clone();
        plain.expire_time = UnixMillis::default();
        plain.hostname = "sandbox".into();
        plain.labels.clear();
        Self {
            driver: driver.name().clone(),
            incarnation: driver.view().incarnation.clone(),
            spec: plain,
        }
    }
}

impl KnownGood {
    fn holds(&self, good: &Good) -> bool {
        self.lock().contains(good)
    }

    fn note(&self, good: Good) {
        let mut known = self.lock();
        if known.len() >= KNOWN_GOOD_MAX {
            known.pop_front();
        }
        known.push_back(good);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Good>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
        "network.class" => "network",
        field if field.starts_with("network.allow") => "egress_allow",
        field if field.starts_with("image.") => "image",
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

/// A request needs what its driver lacks. The first word is for those who get only the message.
pub(in crate::api) fn cannot(driver: &Driver, what: &str) -> ApiError {
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

/// What is lacking, in the words of the command line.
fn words(missing: &[Missing]) -> String {
    let words: Vec<&str> = missing.iter().map(|missing| missing.what).collect();
    words.join(", ")
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
