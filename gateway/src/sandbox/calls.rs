//! The driver calls of one sandbox, as futures that end in an event.

use std::path::PathBuf;
use std::time::Duration;

use cofferdam_proto::supervisor::v1 as wire;

use super::state::{Event, Failure, FailureKind, Seen};
use super::task::Outcome;
use crate::callback::Session;
use crate::driver::{
    CallError, CallErrorKind, CreateCall, Driver, RecoverItem, RecoverOutcome, StartCall,
};
use crate::model::{
    DriverName, Environment, Handle, Observation, OperationId, SandboxId, SandboxSpec, Token,
};

const CONFIGURE_TIMEOUT: Duration = Duration::from_secs(10);
const CONFIGURE_RETRY: Duration = Duration::from_millis(500);

/// Which sandbox, through which driver.
pub(super) struct CallContext {
    pub(super) driver: Option<Driver>,
    pub(super) driver_name: DriverName,
    pub(super) id: SandboxId,
    pub(super) operation: OperationId,
}

impl CallContext {
    fn driver(&self) -> Result<&Driver, Failure> {
        self.driver.as_ref().ok_or_else(|| Failure {
            reason: "UNKNOWN_DRIVER".into(),
            message: format!(
                "driver \"{}\" is not configured in this gateway (any more)",
                self.driver_name
            ),
            kind: FailureKind::Transient,
        })
    }
}

impl From<&Observation> for Seen {
    fn from(observation: &Observation) -> Self {
        Self {
            state: observation.state,
            boots: observation.boots,
            ended: observation
                .termination
                .as_ref()
                .map(|end| (end.reason, end.message.clone())),
        }
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        let kind = if error.is_ambiguous() {
            FailureKind::Ambiguous
        } else {
            match error.kind {
                CallErrorKind::Unavailable | CallErrorKind::Unreachable => FailureKind::Transient,
                _ => FailureKind::Permanent,
            }
        };
        let message = if error.fix.is_empty() {
            error.message.clone()
        } else {
            format!("{}; {}", error.message, error.fix)
        };
        let reason = match error.kind {
            CallErrorKind::Invalid => "INVALID_SPEC",
            CallErrorKind::NotFound => "OBJECT_NOT_FOUND",
            CallErrorKind::AlreadyExists => "ID_CONFLICT",
            CallErrorKind::Denied => "ACCESS_DENIED",
            CallErrorKind::Precondition => "DRIVER_UNHEALTHY",
            CallErrorKind::Exhausted { .. } => "NO_RESOURCES",
            CallErrorKind::Unimplemented => "CAPABILITY_MISMATCH",
            CallErrorKind::Internal => "DRIVER_FAULT",
            _ => "DRIVER_UNAVAILABLE",
        };
        Self {
            reason: reason.into(),
            message,
            kind,
        }
    }
}

fn answered<T>(
    result: Result<T, CallError>,
    wrap: impl FnOnce(Result<Seen, Failure>) -> Event,
    parts: impl FnOnce(T) -> (Option<Handle>, Observation),
) -> Outcome {
    match result {
        Ok(value) => {
            let (handle, observation) = parts(value);
            Outcome {
                event: wrap(Ok(Seen::from(&observation))),
                handle,
                observation: Some(observation),
                incarnation: None,
            }
        }
        Err(error) => Outcome::event(wrap(Err(error.into()))),
    }
}

pub(super) async fn create(
    context: CallContext,
    spec: SandboxSpec,
    callback_directory: PathBuf,
    token: Token,
) -> Outcome {
    let driver = match context.driver() {
        Ok(driver) => driver,
        Err(failure) => return Outcome::event(Event::Created(Err(failure))),
    };
    let call = CreateCall {
        sandbox_id: context.id.clone(),
        spec,
        callback_directory,
        token,
        operation: context.operation.clone(),
    };
    let result = driver.create(call).await;
    answered(result, Event::Created, |(handle, seen)| {
        (Some(handle), seen)
    })
}

/// Asks the driver to look for it; never creates or starts anything.
pub(super) async fn settle(
    context: CallContext,
    handle: Option<Handle>,
    callback_directory: PathBuf,
) -> Outcome {
    let driver = match context.driver() {
        Ok(driver) => driver,
        Err(failure) => return Outcome::event(Event::Settled(Err(failure))),
    };
    let item = RecoverItem {
        sandbox_id: context.id.clone(),
        handle,
        callback_directory,
    };
    let recovered = match driver.recover(vec![item]).await {
        Ok(mut recovered) => recovered.pop(),
        Err(error) => return Outcome::event(Event::Settled(Err(error.into()))),
    };
    let unknown = |message: String| {
        Outcome::event(Event::Settled(Err(Failure {
            reason: "DRIVER_UNAVAILABLE".into(),
            message,
            kind: FailureKind::Transient,
        })))
    };
    let Some(recovered) = recovered else {
        return unknown("the driver did not answer for this sandbox".into());
    };
    match (recovered.outcome, recovered.observation) {
        (RecoverOutcome::Recovered, Some(observation)) => Outcome {
            event: Event::Settled(Ok(Some(Seen::from(&observation)))),
            handle: recovered.handle,
            observation: Some(observation),
            incarnation: None,
        },
        (RecoverOutcome::Gone, _) => Outcome::event(Event::Settled(Ok(None))),
        _ => unknown(format!("the driver cannot tell yet: {}", recovered.message)),
    }
}

/// Asks how it is now. Changes nothing, and concludes nothing from an absence.
pub(super) async fn look(context: CallContext) -> Outcome {
    let unseen = |message: String| Outcome::event(Event::Unseen(message));
    let driver = match context.driver() {
        Ok(driver) => driver,
        Err(failure) => return unseen(failure.message),
    };
    let incarnation = driver.view().incarnation.clone();
    let seen = driver.get(&context.id).await;
    if driver.view().incarnation != incarnation {
        return unseen("the driver has restarted meanwhile".into());
    }
    match seen {
        Ok(Some(observation)) => Outcome {
            event: Event::Observed(Seen::from(&observation)),
            handle: None,
            observation: Some(observation),
            incarnation: Some(incarnation),
        },
        Ok(None) => unseen("the driver does not find it".into()),
        Err(error) => unseen(error.message),
    }
}

pub(super) async fn start(context: CallContext, token: Token) -> Outcome {
    let result = match context.driver() {
        Ok(driver) => {
            let call = StartCall {
                sandbox_id: context.id.clone(),
                token,
                operation: context.operation.clone(),
            };
            driver.start(call).await
        }
        Err(failure) => return Outcome::event(Event::Started(Err(failure))),
    };
    answered(result, Event::Started, |seen| (None, seen))
}

pub(super) async fn stop(context: CallContext, grace: Duration) -> Outcome {
    let result = match context.driver() {
        Ok(driver) => driver.stop(&context.id, grace, &context.operation).await,
        Err(failure) => return Outcome::event(Event::StopEnded(Err(failure))),
    };
    answered(result, Event::StopEnded, |seen| (None, seen))
}

pub(super) async fn delete(context: CallContext) -> Outcome {
    let result = match context.driver() {
        Ok(driver) => driver
            .delete(&context.id, &context.operation)
            .await
            .map_err(Failure::from),
        Err(failure) => Err(failure),
    };
    Outcome::event(Event::DeleteEnded(result))
}

/// Binds what later processes inherit. The values go over the session and nowhere else. Tried
/// until it works or the session ends.
pub(super) async fn configure(session: Session, environment: Environment) -> Outcome {
    let request = wire::ConfigureRequest {
        environment: environment
            .0
            .into_iter()
            .map(|(name, value)| wire::EnvironmentVariable {
                name,
                value: value.into_bytes().into(),
            })
            .collect(),
        ..Default::default()
    };
    loop {
        let mut client = session.client();
        let call = client.configure(request.clone());
        let problem = match tokio::time::timeout(CONFIGURE_TIMEOUT, call).await {
            Ok(Ok(_)) => return Outcome::event(Event::Configured(Ok(()))),
            Ok(Err(status)) if status.code() == tonic::Code::InvalidArgument => {
                let message = format!("the supervisor refuses it: {}", status.message());
                return Outcome::event(Event::Configured(Err(message)));
            }
            Ok(Err(status)) => status.message().to_owned(),
            Err(_) => "the supervisor did not answer".to_owned(),
        };
        tracing::warn!(problem, "a sandbox could not be configured yet");
        tokio::select! {
            // The task hears of that, and configures the next session.
            () = session.closed() => std::future::pending().await,
            () = tokio::time::sleep(CONFIGURE_RETRY) => {}
        }
    }
}
