//! Limits that a driver claims, and the platform enforces now: whether they hold.
//!
//! What goes beyond a limit here is bounded in itself, so that a driver that enforces nothing does not
//! take its host down with it.

use std::time::{Duration, Instant};

use cofferdam_proto::compute::v1::{Limits, ResourceLimits, SandboxState, TerminationReason};
use cofferdam_proto::supervisor::v1::WriteFileOpen;
use tonic::Code;

use super::stats;
use crate::callback::Session;
use crate::case::{Case, Stop, Verdict, ensure, fail, run, skip};
use crate::driver::Driver;
use crate::needs::Need;
use crate::process::{Output, Process, say, sh, shell};
use crate::random;
use crate::remote::{Ending, Remote, must_be, told};
use crate::subject::Subject;
use crate::suite::Suite;
use crate::wait::{self, Looks};

const MIB: u64 = 1 << 20;

const WHOLE: &str = "set the limit on the platform's group of the whole sandbox (cgroup, container, \
    virtual machine), or do not claim it in Capabilities.limits and FingerprintResponse.limits";

pub(super) const CASES: &[Case] = &[
    Case {
        id: "resources.memory.bound",
        source: "ResourceLimits.memory_bytes",
        says: "Memory below the limit is to be had; above it nothing is.",
        fix: WHOLE,
        needs: &[Need::Supervised, Need::Memory],
        run: run!(memory),
    },
    Case {
        id: "resources.memory.reported",
        source: "Sandbox.oom_kill_count, TerminationReason",
        says: "A process that the platform killed for want of memory is counted, or its sandbox is \
               OOM_KILLED.",
        fix: "read the platform's count (cgroup memory.events, the engine's OOMKilled) with each \
              observation; leave the field out only if there is none",
        needs: &[Need::Supervised, Need::Memory],
        run: run!(memory_reported),
    },
    Case {
        id: "resources.pids.bound",
        source: "ResourceLimits.pids",
        says: "Processes of the whole sandbox are bounded, whoever starts them, and another \
               sandbox's are not counted with them.",
        fix: WHOLE,
        needs: &[Need::Supervised, Need::Pids],
        run: run!(pids),
    },
    Case {
        id: "resources.pids.survives",
        source: "ResourceLimits.pids",
        says: "A sandbox that is full of processes still answers, and can be emptied.",
        fix: "keep the supervisor within the limit, and let it end what it started",
        needs: &[Need::Supervised, Need::Pids],
        run: run!(pids_survive),
    },
    Case {
        id: "resources.cpu.bound",
        source: "ResourceLimits.cpu_millis",
        says: "The sandbox gets no more processor time than that, however many processes want it.",
        fix: WHOLE,
        needs: &[Need::Supervised, Need::Cpu],
        run: run!(cpu),
    },
    Case {
        id: "resources.disk.bound",
        source: "ResourceLimits.disk_bytes",
        says: "No more than that may be written in the workspace; room that is freed can be used \
               again.",
        fix: "put the workspace on a file system of that size, or under a project quota",
        needs: &[Need::Supervised, Need::Disk],
        run: run!(disk),
    },
    Case {
        id: "resources.disk.tmp",
        source: "ResourceLimits.tmp_bytes",
        says: "/tmp has that size.",
        fix: "mount a tmpfs with size=tmp_bytes on /tmp",
        needs: &[Need::Supervised, Need::Disk],
        run: run!(tmp),
    },
    Case {
        id: "resources.disk.no-space",
        source: "WriteFile",
        says: "RESOURCE_EXHAUSTED when there is no space, and nothing of the file is left behind.",
        fix: "let the file system say ENOSPC or EDQUOT",
        needs: &[Need::Supervised, Need::Disk],
        run: run!(no_space),
    },
];

/// A sandbox with other limits than the suite's usual ones, insisted on.
async fn limited(
    suite: &Suite,
    change: impl FnOnce(&mut ResourceLimits),
) -> Result<(Driver, Subject, Session), Stop> {
    let driver = suite.driver().await?;
    let mut spec = suite.spec();
    let mut limits = spec.limits.unwrap_or_default();
    change(&mut limits);
    spec.limits = Some(limits);
    let subject = suite.subject_with(spec)?;
    subject.ready(&driver).await?;
    let session = subject.session().await?;
    Ok((driver, subject, session))
}

const MEMORY: u64 = 128 * MIB;

async fn with_memory(suite: &Suite) -> Result<(Driver, Subject, Session), Stop> {
    limited(suite, |limits| {
        limits.memory_bytes = MEMORY;
        limits.required = Some(Limits {
            memory: true,
            ..Limits::default()
        });
    })
    .await
}

/// A shell that holds so many bytes in a variable, and says so.
fn hold(bytes: u64) -> String {
    format!("x=$(head -c {bytes} /dev/zero | tr '\\0' x); echo held ${{#x}}")
}

/// Takes several times the limit. None if nobody is left to say how it ended.
async fn take_too_much(suite: &Suite, session: &Session) -> Result<Option<Output>, Stop> {
    let too_much = shell(&hold(4 * MEMORY));
    let mut process = Process::start(suite, session, too_much).await?;
    match process.finish().await {
        Ok(()) => Ok(Some(process.output)),
        // The platform may have ended the whole sandbox.
        Err(_) if !session.is_up() => Ok(None),
        Err(stop) => Err(stop),
    }
}

async fn memory(suite: Suite) -> Verdict {
    let (driver, subject, session) = with_memory(&suite).await?;
    let little = MEMORY / 16;
    let held = say(&suite, &session, &hold(little)).await?;
    ensure!(
        held == format!("held {little}"),
        "a sixteenth of the limit could not be used: {held:?}"
    );
    let Some(output) = take_too_much(&suite, &session).await? else {
        return ended_by_oom(&subject, &driver).await;
    };
    ensure!(
        output.code() != Some(0) && !output.text().contains("held"),
        "four times the limit of {MEMORY} bytes was used: {}; {:?}",
        output.ending(),
        output.text()
    );
    // Who is left is the sandbox, with all of its memory.
    let held = say(&suite, &session, &hold(little)).await?;
    ensure!(
        held == format!("held {little}"),
        "after it the sandbox cannot be used any more: {held:?}"
    );
    Ok(())
}

async fn ended_by_oom(subject: &Subject, driver: &Driver) -> Verdict {
    let sandbox = subject.observed(driver, SandboxState::Stopped).await?;
    let reason = sandbox.termination.unwrap_or_default().reason();
    ensure!(
        reason == TerminationReason::OomKilled,
        "the sandbox ended for want of memory, and the reason is {}",
        reason.as_str_name()
    );
    Ok(())
}

async fn memory_reported(suite: Suite) -> Verdict {
    let (driver, subject, session) = with_memory(&suite).await?;
    let before = driver.get(&subject.id).await?;
    ensure!(
        before.oom_kill_count.unwrap_or_default() == 0,
        "nothing was killed yet, and oom_kill_count is {:?}",
        before.oom_kill_count
    );
    let Some(output) = take_too_much(&suite, &session).await? else {
        return ended_by_oom(&subject, &driver).await;
    };
    if output.signal() != Some(9) {
        skip!("nobody was killed for want of memory: {}", output.ending());
    }
    let mut last = None;
    let mut looks = Looks::within(suite.patience() / 3);
    while looks.again().await {
        last = driver.get(&subject.id).await?.oom_kill_count;
        if last.is_some_and(|count| count > 0) {
            return Ok(());
        }
    }
    match last {
        None => fail!(
            "a process was killed for want of memory, and nobody can tell: oom_kill_count is \
             absent, and the sandbox goes on"
        ),
        Some(count) => {
            fail!("a process was killed for want of memory, and oom_kill_count is {count}")
        }
    }
}

const PIDS: u64 = 40;

async fn with_pids(suite: &Suite) -> Result<(Driver, Subject, Session), Stop> {
    limited(suite, |limits| {
        limits.pids = PIDS;
        limits.required = Some(Limits {
            pids: true,
            ..Limits::default()
        });
    })
    .await
}

/// Starts up to so many processes that stay, tells of each, and waits.
fn crowd(most: u64) -> String {
    format!("i=0; while [ $i -lt {most} ]; do sleep 300 & i=$((i+1)); echo n; done; echo all; wait")
}

/// Runs a crowd until it has stopped growing; how many it has become. It stays.
async fn grow(suite: &Suite, session: &Session, most: u64) -> Result<(Process, u64), Stop> {
    let mut process = Process::start(suite, session, shell(&crowd(most))).await?;
    loop {
        let text = process.output.text();
        if text.contains("all") || process.output.exited.is_some() {
            break;
        }
        // A shell that cannot fork says so, and ends, or tries again, each time after a longer pause.
        match tokio::time::timeout(suite.patience() / 2, process.step()).await {
            Ok(step) => step?,
            Err(_) => break,
        };
    }
    let said = String::from_utf8_lossy(&process.output.stdout).into_owned();
    let grown = said.lines().filter(|line| *line == "n").count() as u64;
    Ok((process, grown))
}

async fn pids(suite: Suite) -> Verdict {
    let (driver, subject, session) = with_pids(&suite).await?;
    let (_first, grown) = grow(&suite, &session, PIDS / 4).await?;
    ensure!(
        grown == PIDS / 4,
        "of {} processes only {grown} could be started, and the limit is {PIDS}",
        PIDS / 4
    );
    let (_second, more) = grow(&suite, &session, 3 * PIDS).await?;
    must_be_about_the_limit(grown + more)?;
    if suite.capabilities().stats
        && let Some(count) = stats::now(&driver, &subject.id).await?.pids
    {
        ensure!(
            count <= PIDS,
            "SandboxStats counts {count} processes, and the limit is {PIDS}"
        );
    }
    let neighbour = suite.subject()?;
    neighbour.ready(&driver).await?;
    let free = neighbour.session().await?;
    let (_third, others) = grow(&suite, &free, PIDS).await?;
    ensure!(
        others == PIDS,
        "beside a full sandbox another one could start {others} processes of {PIDS}"
    );
    Ok(())
}

/// The shells, the supervisor and what the platform adds are counted as well, and leave the larger
/// part of it to the sandbox.
fn must_be_about_the_limit(running: u64) -> Verdict {
    ensure!(
        running < PIDS,
        "{running} processes run beside the shells and the supervisor, and the limit is {PIDS}"
    );
    ensure!(
        running >= PIDS / 2,
        "no more than {running} processes can run beside the shells and the supervisor, and the \
         limit is {PIDS}: less than half of what was asked for is given"
    );
    Ok(())
}

async fn pids_survive(suite: Suite) -> Verdict {
    let (_driver, _subject, session) = with_pids(&suite).await?;
    let (process, grown) = grow(&suite, &session, 3 * PIDS).await?;
    ensure!(
        (1..PIDS).contains(&grown),
        "{grown} processes were started, and the limit is {PIDS}"
    );
    session.must_answer().await?;
    let killed = Remote::new(&suite, &session).kill(&process.id).await;
    killed.map_err(|status| told("KillProcess in a full sandbox", &status))?;
    let mut looks = Looks::within(suite.patience() / 3);
    while looks.again().await {
        // What was killed may take a moment to be gone.
        let output = sh(&suite, &session, "echo here").await?;
        if output.text() == "here\n" {
            return Ok(());
        }
    }
    fail!("its processes were killed, and no command runs all the same")
}

/// Of one processor.
const CPU_MILLIS: u64 = 200;

async fn cpu(suite: Suite) -> Verdict {
    let (_driver, _subject, session) = limited(&suite, |limits| {
        limits.cpu_millis = CPU_MILLIS;
        limits.required = Some(Limits {
            cpu: true,
            ..Limits::default()
        });
    })
    .await?;
    let remote = Remote::new(&suite, &session);
    let begun = Instant::now();
    let mut burning = Vec::new();
    for _ in 0..2 {
        burning.push(Process::start(&suite, &session, shell("while :; do :; done")).await?);
    }
    // Many of the periods in which platforms account for it.
    wait::pause(Duration::from_secs(3)).await;
    let mut used_us = 0;
    for mut process in burning {
        let killed = remote.kill(&process.id).await;
        killed.map_err(|status| told("KillProcess", &status))?;
        process.finish().await?;
        let exited = process.output.exited.unwrap_or_default();
        used_us += exited.cpu_user_us + exited.cpu_system_us;
    }
    let wall_us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
    let used_millis = used_us.saturating_mul(1000) / wall_us;
    ensure!(
        used_millis > CPU_MILLIS / 20,
        "two busy loops got {used_millis} thousandths of a processor: next to nothing"
    );
    // A burst at the beginning is usual.
    ensure!(
        used_millis <= CPU_MILLIS * 3 / 2,
        "two busy loops got {used_millis} thousandths of a processor, and the limit is {CPU_MILLIS}"
    );
    Ok(())
}

/// Writes so many bytes into a file; what there is of it then.
async fn fill(suite: &Suite, session: &Session, path: &str, bytes: u64) -> Result<u64, Stop> {
    let script = format!("head -c {bytes} /dev/zero > {path} 2>/dev/null; wc -c < {path}");
    let said = say(suite, session, &script).await?;
    said.parse()
        .map_err(|_| Stop::failed(format!("`wc -c` said {said:?}")))
}

async fn with_disk(suite: &Suite) -> Result<(Session, ResourceLimits), Stop> {
    let (_driver, subject, session) = limited(suite, |limits| {
        limits.required = Some(Limits {
            disk: true,
            ..Limits::default()
        });
    })
    .await?;
    Ok((session, subject.spec.limits.unwrap_or_default()))
}

async fn disk(suite: Suite) -> Verdict {
    let (session, limits) = with_disk(&suite).await?;
    must_be_bounded(&suite, &session, "file", limits.disk_bytes).await
}

async fn tmp(suite: Suite) -> Verdict {
    let (session, limits) = with_disk(&suite).await?;
    let path = format!("/tmp/conformance-{}", random::word());
    must_be_bounded(&suite, &session, &path, limits.tmp_bytes).await
}

async fn must_be_bounded(suite: &Suite, session: &Session, path: &str, limit: u64) -> Verdict {
    // File systems keep something for themselves.
    let most_of_it = limit * 3 / 4;
    for time in ["at first", "after it was freed"] {
        let little = fill(suite, session, path, most_of_it).await?;
        let too_much = fill(suite, session, path, limit + limit / 2).await?;
        // Before anything is said: it may be a file of the host.
        say(suite, session, &format!("rm {path}")).await?;
        ensure!(
            little == most_of_it,
            "{time} {little} bytes of {most_of_it} could be written to {path}, and the limit is {limit}"
        );
        ensure!(
            too_much <= limit + MIB,
            "{too_much} bytes could be written to {path}, and the limit is {limit}"
        );
    }
    Ok(())
}

async fn no_space(suite: Suite) -> Verdict {
    let (session, limits) = with_disk(&suite).await?;
    let room = 2 * MIB;
    let used = limits.disk_bytes.saturating_sub(room);
    fill(&suite, &session, "ballast", used).await?;
    let remote = Remote::new(&suite, &session);
    let too_much = vec![b'x'; usize::try_from(3 * room).unwrap_or(usize::MAX)];
    let open = WriteFileOpen {
        path: "big".to_owned(),
        ..WriteFileOpen::default()
    };
    let written = remote.write(open, &too_much, Ending::Whole).await;
    must_be(
        "a file larger than the space that is left",
        written,
        Code::ResourceExhausted,
    )?;
    let names = say(&suite, &session, "ls -A").await?;
    ensure!(
        names == "ballast",
        "after a write without space there is {names:?}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_processes_is_neither_missing_nor_far_below_what_was_asked_for() {
        for (running, is_right) in [
            (19, false),
            (20, true),
            (39, true),
            (40, false),
            (120, false),
        ] {
            let verdict = must_be_about_the_limit(running);
            assert_eq!(verdict.is_ok(), is_right, "{running}: {verdict:?}");
        }
    }
}
