//! Between the supervisor's own types and the contract's.

use cofferdam_proto::supervisor::v1::process_event::Event;
use cofferdam_proto::supervisor::v1::process_exited::Result as WireResult;
use cofferdam_proto::supervisor::v1::start_failure::Reason;
use cofferdam_proto::supervisor::v1::{
    OutputData, ProcessEvent, ProcessExited, ProcessInfo, ProcessStarted, StartFailure, StdinAck,
};

use crate::output::Piece;
use crate::process::{Exit, ExitResult, Phase, Process, Stage};

pub(super) fn started(process: &Process, existed: bool) -> ProcessEvent {
    let facts = process.facts();
    let pid = match facts.phase {
        Phase::Starting => 0,
        Phase::Running { pid } | Phase::Ended { pid, .. } => pid,
    };
    event(Event::Started(ProcessStarted {
        pid: u32::try_from(pid).unwrap_or(0),
        start_time_unix_ms: process.start_time_unix_ms(),
        existed,
        stdin_offset: facts.stdin_taken,
        output_offset: facts.output_first,
    }))
}

pub(super) fn output(piece: Piece) -> ProcessEvent {
    event(Event::Output(OutputData {
        offset: piece.offset,
        stream: piece.stream as i32,
        data: piece.data,
    }))
}

pub(super) fn stdin_ack(offset: u64, closed: bool) -> ProcessEvent {
    event(Event::StdinAck(StdinAck { offset, closed }))
}

pub(super) fn exited_event(exit: &Exit, output_bytes: u64) -> ProcessEvent {
    event(Event::Exited(exited(exit, output_bytes)))
}

fn event(event: Event) -> ProcessEvent {
    ProcessEvent { event: Some(event) }
}

fn exited(exit: &Exit, output_bytes: u64) -> ProcessExited {
    let result = match &exit.result {
        ExitResult::Code(code) => Some(WireResult::ExitCode(*code)),
        ExitResult::Signal(signal) => Some(WireResult::Signal(*signal)),
        ExitResult::Unknown => None,
        ExitResult::Failed {
            stage,
            errno,
            message,
        } => Some(WireResult::StartFailure(StartFailure {
            reason: reason(*stage, *errno) as i32,
            message: message.clone(),
            errno: *errno,
        })),
    };
    ProcessExited {
        result,
        output_bytes,
        exit_time_unix_ms: exit.time_unix_ms,
        output_abandoned: exit.output_abandoned,
        cpu_user_us: exit.usage.user_us,
        cpu_system_us: exit.usage.system_us,
        max_rss_bytes: exit.usage.max_rss_kib.saturating_mul(1024),
        oom_kills: exit.oom_kills,
    }
}

pub(super) fn info(process: &Process) -> ProcessInfo {
    let facts = process.facts();
    let (pid, exit) = match &facts.phase {
        Phase::Starting => (0, None),
        Phase::Running { pid } => (*pid, None),
        Phase::Ended { pid, exit } => (*pid, Some(exited(exit, facts.output_end))),
    };
    ProcessInfo {
        process_id: process.id().to_owned(),
        pid: u32::try_from(pid).unwrap_or(0),
        start_time_unix_ms: process.start_time_unix_ms(),
        exited: exit,
        output_offset: facts.output_first,
        output_bytes: facts.output_end,
    }
}

/// Which of the contract's reasons a refusal by the kernel is.
fn reason(stage: Stage, errno: i32) -> Reason {
    match (stage, errno) {
        (_, libc::EAGAIN | libc::ENOMEM | libc::EMFILE | libc::ENFILE) => Reason::NoResources,
        (Stage::Execute, libc::ENOENT | libc::ENOTDIR) => Reason::NotFound,
        (
            Stage::Execute,
            libc::EACCES
            | libc::EPERM
            | libc::ENOEXEC
            | libc::EISDIR
            | libc::ELIBBAD
            | libc::EINVAL
            | libc::ETXTBSY
            | libc::E2BIG
            | libc::ELOOP
            | libc::ENAMETOOLONG,
        ) => Reason::NotExecutable,
        (Stage::Directory, _) => Reason::BadDirectory,
        (Stage::User, _) => Reason::BadUser,
        _ => Reason::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_of_the_kernel_have_reasons_that_shells_know() {
        for (stage, errno, expected) in [
            (Stage::Execute, libc::ENOENT, Reason::NotFound),
            (Stage::Execute, libc::EACCES, Reason::NotExecutable),
            (Stage::Execute, libc::ENOEXEC, Reason::NotExecutable),
            (Stage::Execute, libc::ENOMEM, Reason::NoResources),
            (Stage::Directory, libc::ENOENT, Reason::BadDirectory),
            (Stage::Directory, libc::EACCES, Reason::BadDirectory),
            (Stage::User, libc::EPERM, Reason::BadUser),
            (Stage::User, libc::EINVAL, Reason::BadUser),
            (Stage::Clone, libc::EAGAIN, Reason::NoResources),
            (Stage::Terminal, libc::EPERM, Reason::Other),
        ] {
            assert_eq!(reason(stage, errno), expected, "{stage:?} {errno}");
        }
    }
}
