//! Which namespaces, and how ids map into them.

use std::fmt::Write as _;
use std::os::fd::AsFd;

use rustix::fs::{Mode, OFlags, openat};
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::failure::Context;
use super::sys;
use crate::sandbox::plan::{IdMapLine, IdMapping, Network, ShimPlan, Workload};
use crate::sandbox::report::{Failure, Stage};

/// The flags the shim itself is cloned with, for all but the host's network. The pid and cgroup
/// namespaces are the init's.
pub(crate) const USUAL: u64 =
    sys::NEW_USER | sys::NEW_MOUNT | sys::NEW_IPC | sys::NEW_UTS | sys::NEW_NET;

/// The flags for a plan.
pub(crate) fn flags(plan: &ShimPlan) -> u64 {
    match plan.network {
        Network::None => USUAL,
        Network::Host => USUAL & !sys::NEW_NET,
    }
}

/// Writes the maps of a process just cloned; `proc` is the host's. Only somebody outside the
/// namespace may map ids that are not his own.
pub(crate) fn write_maps(proc: impl AsFd, pid: i32, plan: &ShimPlan) -> Result<(), Failure> {
    let dir = pid.to_string();
    write_file(
        &proc,
        &format!("{dir}/uid_map"),
        &render(&plan.ids.uid_lines(plan.workload.uid)),
    )?;
    if matches!(plan.ids, IdMapping::Single { .. }) {
        write_file(&proc, &format!("{dir}/setgroups"), "deny")?;
    }
    write_file(
        &proc,
        &format!("{dir}/gid_map"),
        &render(&plan.ids.gid_lines(plan.workload.gid)),
    )
}

/// Takes on inner root, which until now was only mapped.
pub(crate) fn become_inner_root(ids: &IdMapping) -> Result<(), Failure> {
    let step = Stage::SetIdentity;
    if matches!(ids, IdMapping::Block { .. }) {
        set_thread_groups(&[]).at(step, "setgroups")?;
    }
    set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).at(step, "setresgid")?;
    set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).at(step, "setresuid")
}

/// Enters a user namespace inside the current one, where inner root is the workload's id. The
/// mounts, the network and the rest stay the outer one's property, out of reach.
pub(crate) fn become_workload_id(who: &Workload) -> Result<(), Failure> {
    sys::unshare(sys::NEW_USER).at(Stage::SetIdentity, "second user namespace")?;
    let proc = openat(
        rustix::fs::CWD,
        "/proc",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .at(Stage::WriteIdMap, "/proc")?;
    write_file(&proc, "self/uid_map", &render(&[(who.uid, 0, 1)]))?;
    write_file(&proc, "self/setgroups", "deny")?;
    write_file(&proc, "self/gid_map", &render(&[(who.gid, 0, 1)]))
}

fn render(lines: &[IdMapLine]) -> String {
    lines
        .iter()
        .fold(String::new(), |mut text, (inner, outer, count)| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{inner} {outer} {count}");
            text
        })
}

fn write_file(proc: impl AsFd, path: &str, content: &str) -> Result<(), Failure> {
    let file = openat(proc, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        .at(Stage::WriteIdMap, path)?;
    rustix::io::write(&file, content.as_bytes()).at(Stage::WriteIdMap, path)?;
    Ok(())
}
