//! How following an execution ended, and telling it.

use cofferdam_proto::gateway::v1::{Execution, ExecutionReason};
use serde_json::json;

use crate::error::CommandError;
use crate::outcome;
use crate::ui::{Ui, error_value};
use crate::view::execution::ExecutionView;

/// Exit code of a session that was left by its keys: the command has no code yet.
const DETACHED: u8 = 0;

#[derive(Debug)]
pub(crate) struct Ended {
    /// As last heard of; none before it was accepted.
    execution: Option<Execution>,
    verdict: Result<u8, CommandError>,
    is_detached: bool,
}

impl Ended {
    /// The gateway has said how it ended. `canceled_by`: the signal of ours that made us ask.
    pub(super) fn finished(execution: Execution, canceled_by: Option<u32>) -> Self {
        let asked = execution.reason() == ExecutionReason::ReasonCanceledByCaller;
        let verdict = match (outcome::complaint(&execution), canceled_by) {
            (Some(error), Some(signal)) if asked => {
                Err(error.exits_with(outcome::signal_code(signal)))
            }
            (Some(error), _) => Err(error),
            (None, _) => Ok(outcome::exit_code(&execution)),
        };
        Self {
            execution: Some(execution),
            verdict,
            is_detached: false,
        }
    }

    /// It goes on, as the person at the terminal wants it to: they have left, and that is all that
    /// was asked for.
    pub(super) fn detached(execution: Option<Execution>) -> Self {
        Self {
            execution,
            verdict: Ok(DETACHED),
            is_detached: true,
        }
    }

    /// It goes on, or nobody knows.
    pub(super) fn without_result(execution: Option<Execution>, error: CommandError) -> Self {
        Self {
            execution,
            verdict: Err(error),
            is_detached: false,
        }
    }

    /// Something went wrong afterwards that counts more.
    pub(super) fn but(self, error: CommandError) -> Self {
        Self::without_result(self.execution, error)
    }

    /// Tells how it ended: as JSON on the last line of stderr, or as an error for `main` to show.
    pub(crate) fn report(self, ui: &Ui) -> Result<u8, CommandError> {
        if !ui.json {
            if self.is_detached && self.verdict.is_ok() {
                self.tell_detached(ui);
            }
            return self.verdict;
        }
        let (code, error) = match &self.verdict {
            Ok(code) => (*code, None),
            Err(error) => (error.exit_code(), Some(error)),
        };
        let result = json!({
            "exit_code": code,
            "execution": self.execution.as_ref().map(ExecutionView::from),
            "detached": self.is_detached,
            "error": error.map(error_value),
        });
        ui.err(&format!("{result}\n"));
        Ok(code)
    }

    fn tell_detached(&self, ui: &Ui) {
        let id = self
            .execution
            .as_ref()
            .map_or("", |execution| execution.execution_id.as_str());
        ui.note(&format!(
            "left {id}, which goes on; `cofferdam attach {id}` comes back to it"
        ));
    }
}
