//! The ways in which following ends, and what is still to be done then.

use cofferdam_proto::gateway::v1::Execution;

use super::Follower;
use crate::error::{CommandError, Kind};
use crate::outcome;
use crate::session::detach::KEYS;
use crate::session::ended::Ended;
use crate::session::signals::{Incoming, SIGINT, SIGTERM};
use crate::view::execution;

impl Follower<'_> {
    /// Everything has come; now everything must get out.
    pub(super) async fn flush(mut self, execution: Execution) -> Ended {
        if self.leaving.is_some() {
            self.latest = Some(execution);
            return self.left();
        }
        let finish = self.output.finish();
        tokio::pin!(finish);
        loop {
            tokio::select! {
                written = &mut finish => {
                    self.raw = None;
                    return match written {
                        Ok(()) => Ended::finished(execution, self.canceled_by),
                        Err(error) => {
                            Ended::without_result(Some(execution), CommandError::output(error))
                        }
                    };
                }
                incoming = self.signals.next() => {
                    // Whoever reads our output does not: there is nothing else left to stop.
                    if let Incoming::Signal(signal @ (SIGINT | SIGTERM)) = incoming {
                        let error = CommandError::new(
                            Kind::Failed,
                            "ended before all output was written",
                        );
                        return Ended::without_result(
                            Some(execution),
                            error.exits_with(outcome::signal_code(signal)),
                        );
                    }
                }
            }
        }
    }

    pub(super) fn left(mut self) -> Ended {
        self.raw = None;
        let error = self.leave_error();
        Ended::without_result(self.latest, error)
    }

    pub(super) fn leave_error(&mut self) -> CommandError {
        let error = match self.leaving.take() {
            Some(leaving) => leaving.error,
            None => CommandError::new(Kind::Internal, "left without a reason"),
        };
        match &self.latest {
            Some(execution) if !execution::has_ended(execution) => error.hint(format!(
                "it was told to end, but did not say so yet: `cofferdam inspect {}`",
                execution.execution_id
            )),
            _ => error,
        }
    }

    pub(super) fn detached(mut self) -> Ended {
        self.raw = None;
        let id = self
            .latest
            .as_ref()
            .map(|execution| execution.execution_id.clone())
            .unwrap_or_default();
        // Not 0: the command has not succeeded, it goes on.
        let error = CommandError::new(Kind::Failed, format!("detached from {id}, which goes on"))
            .hint(format!(
                "`cofferdam attach {id}` comes back ({KEYS} leaves again)"
            ));
        Ended::without_result(self.latest, error)
    }
}
