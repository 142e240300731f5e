//! The ways in which following ends, and what is still to be done then.

use super::Follower;
use crate::error::{CommandError, Kind};
use crate::outcome;
use crate::session::ended::Ended;
use crate::session::signals::{Incoming, SIGINT, SIGTERM};
use crate::view::execution;

impl Follower<'_> {
    /// Everything has come that will come; now everything must get out.
    pub(super) async fn flush(self, ended: Ended) -> Ended {
        // The terminal stays raw until the last byte is written.
        let Self {
            mut output,
            pending,
            mut signals,
            raw: _raw,
            ..
        } = self;
        let written = async move {
            if let Some(chunk) = pending {
                output.write(chunk).await?;
            }
            output.finish().await
        };
        tokio::pin!(written);
        loop {
            tokio::select! {
                written = &mut written => {
                    return match written {
                        Ok(()) => ended,
                        Err(error) => ended.but(CommandError::output(error)),
                    };
                }
                incoming = signals.next() => {
                    // Whoever reads our output does not: there is nothing else left to stop.
                    if let Incoming::Signal(signal @ (SIGINT | SIGTERM)) = incoming {
                        let text = "ended before all output was written";
                        let code = outcome::signal_code(signal);
                        return ended.but(CommandError::new(Kind::Failed, text).exits_with(code));
                    }
                }
            }
        }
    }

    pub(super) async fn flush_without_result(mut self, error: CommandError) -> Ended {
        let ended = Ended::without_result(self.latest.take(), error);
        self.flush(ended).await
    }

    /// In a hurry: what is not written by now stays unwritten.
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

    pub(super) async fn detached(mut self) -> Ended {
        let ended = Ended::detached(self.latest.take());
        self.flush(ended).await
    }
}
