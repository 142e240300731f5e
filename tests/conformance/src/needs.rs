//! What a case needs of a driver, and the reason for which it is skipped without that.

use cofferdam_proto::compute::v1::{Capabilities, Execution};

use crate::suite::Suite;

/// What a case needs, besides a driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// A supervisor, and its stream.
    Supervised,
    /// `RunCommand`.
    DriverExecuted,
    StopStart,
    Console,
    Stats,
    Pause,
    Snapshot,
    Memory,
    Cpu,
    Pids,
    Disk,
    /// A driver that this suite has started.
    StartCommand,
}

impl Need {
    /// Why it is not there.
    pub(crate) fn missing(self, suite: &Suite) -> Option<String> {
        if self == Self::StartCommand {
            let reason = "the suite has not started this driver: --start-command says how";
            return (!suite.can_restart()).then(|| reason.to_owned());
        }
        let can = suite.capabilities();
        let holds = suite.enforced();
        let (there, claim) = match self {
            Self::Supervised => return other_execution(&can, Execution::Supervised),
            Self::DriverExecuted => return other_execution(&can, Execution::DriverExecuted),
            Self::StopStart => (can.stop_start, "stop_start"),
            Self::Console => (can.console, "console"),
            Self::Stats => (can.stats, "stats"),
            Self::Pause => (can.pause, "pause"),
            Self::Snapshot => (can.snapshot, "snapshot"),
            Self::Memory => (holds.memory, "limits.memory"),
            Self::Cpu => (holds.cpu, "limits.cpu"),
            Self::Pids => (holds.pids, "limits.pids"),
            Self::Disk => (holds.disk, "limits.disk"),
            Self::StartCommand => return None,
        };
        (!there).then(|| format!("the driver does not claim {claim}"))
    }
}

fn other_execution(can: &Capabilities, wanted: Execution) -> Option<String> {
    (can.execution() != wanted).then(|| {
        let (is, wanted) = (can.execution().as_str_name(), wanted.as_str_name());
        format!("the driver's execution is {is}, and this is about {wanted}")
    })
}
