//! From a request to an execution that can be started: the command, its bounds, and its place.

use std::time::Duration;

use cofferdam_proto::gateway::v1 as wire;

use super::super::caller::Caller;
use super::super::convert;
use super::super::status::ApiError;
use super::{Intake, millis, not_ready};
use crate::execution::{NewExecution, Place};
use crate::model::{
    DriverName, Environment, ExecutionFacts, ExecutionId, ExecutionState, OutputTotals, SandboxId,
    StageTimes, UnixMillis,
};
use crate::sandbox::admission::{ExecutionNeeds, Problems, check_environment, parse_user};
use crate::sandbox::{Sandboxes, is_session_lost, is_settled};
use crate::units::{show_duration_ms, show_size};

const ARGUMENTS_MAX: usize = 65_536;
const ARGUMENT_BYTES_MAX: usize = 1 << 20;
/// For killing the command, and for storing how it ended.
const ONE_SHOT_MARGIN: Duration = Duration::from_secs(60);

impl Intake {
    pub(in crate::api) async fn execution(
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
                if is_settled(facts.state) || is_session_lost(facts) {
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
            let (wish, max) = (
                show_duration_ms(request.timeout_ms),
                show_duration_ms(timeout_max),
            );
            let message = format!("{wish} is more than this gateway allows, {max}");
            problems.add("timeout_ms", message);
        }
        if request.output_cap_bytes > limits.output_cap_max_bytes {
            let (wish, max) = (
                show_size(request.output_cap_bytes),
                show_size(limits.output_cap_max_bytes),
            );
            let message = format!("{wish} is more than this gateway allows, {max}");
            problems.add("output_cap_bytes", message);
        }
        if let Some(pty) = &request.pty
            && (pty.rows > 65_535 || pty.columns > 65_535)
        {
            problems.add("pty", "rows and columns are at most 65,535");
        }
    }
}
