//! How following an execution ended, and telling it.

use cofferdam_proto::gateway::v1::{Execution, ExecutionReason};
use serde_json::json;

use crate::error::CommandError;
use crate::outcome;
use crate::ui::{Ui, error_value};
use crate::view::execution::ExecutionView;

#[derive(Debug)]
pub(crate) struct Ended {
    /// As last heard of; none before it was accepted.
    execution: Option<Execution>,
    verdict: Result<u8, CommandError>,
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
        }
    }

    /// It goes on, or nobody knows.
    pub(super) fn without_result(execution: Option<Execution>, error: CommandError) -> Self {
        Self {
            execution,
            verdict: Err(error),
        }
    }

    /// Something went wrong afterwards that counts more.
    pub(super) fn but(self, error: CommandError) -> Self {
        Self::without_result(self.execution, error)
    }

    /// Tells how it ended: as JSON on the last line of stderr, or as an error for `main` to show.
    pub(crate) fn report(self, ui: &Ui) -> Result<u8, CommandError> {
        if !ui.json {
            return self.verdict;
        }
        let (code, error) = match &self.verdict {
            Ok(code) => (*code, None),
            Err(error) => (error.exit_code(), Some(error)),
        };
        let result = json!({
            "exit_code": code,
            "execution": self.execution.as_ref().map(ExecutionView::from),
            "error": error.map(error_value),
        });
        ui.err(&format!("{result}\n"));
        Ok(code)
    }
}
