//! Cleans up after a run, whatever has ended it.
//!
//! ```text
//!  bench ──pipe──► janitor (a session of its own)
//!    └─ the pipe ends, by hand or by the kernel ─► processes, dockerd, cgroups, directory
//! ```
//!
//! A run that was killed cannot clean up, so a process beside it does: it waits for the end of a
//! pipe, which the kernel closes whatever happens to the run. After a run in good order there is only
//! a directory to remove; anything else that it finds is a fault of ours, and makes the run fail.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::procfs;

/// The argument that makes this program the janitor.
pub(crate) const JANITOR: &str = "--as-janitor";

/// Where a dockerd of our own lives, in the directory to be cleaned.
pub(crate) const DOCKER_DIR: &str = "docker";

/// Processes that were killed are gone by then, and their cgroups empty.
const PATIENCE: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// How deep below a hierarchy's root a sandbox's cgroup is looked for.
const CGROUP_DEPTH_MAX: usize = 8;

#[derive(Debug)]
pub(crate) struct Janitor {
    child: Child,
    pipe: Option<ChildStdin>,
}

impl Janitor {
    /// One that knows the directory everything of this run is in.
    pub(crate) fn start(work: &Path, xtask: Option<&Path>) -> Result<Self> {
        let program = std::env::current_exe().context("find this program")?;
        let mut child = Command::new(program)
            .arg(JANITOR)
            .arg(work)
            .args(xtask)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // Ctrl-C is for the run, which then lets go of the pipe.
            .process_group(0)
            .spawn()
            .context("start the janitor")?;
        let pipe = child.stdin.take();
        Ok(Self { child, pipe })
    }

    /// The run has cleaned up. An error if it has forgotten something, which is removed by now.
    pub(crate) fn inspect(mut self) -> Result<()> {
        self.pipe = None;
        let status = self.child.wait().context("wait for the janitor")?;
        if !status.success() {
            bail!("something was left and has been removed: see above");
        }
        Ok(())
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        self.pipe = None;
        // It has said what there was to say.
        let _ended = self.child.wait();
    }
}

/// The janitor's side: waits for the end of the run, cleans, and says what it has found.
pub(crate) fn serve(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let Some(work) = arguments.next().map(PathBuf::from) else {
        return ExitCode::from(2);
    };
    let xtask = arguments.next().map(PathBuf::from);
    // Nothing is ever sent: any return is the end.
    let _ended = std::io::stdin().read(&mut [0]);
    let left = clean(&work, xtask.as_deref());
    for line in &left {
        eprintln!("bench: {line}");
    }
    if left.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Removes the directory, and what should have gone before it: only that is said.
fn clean(work: &Path, xtask: Option<&Path>) -> Vec<String> {
    let mut said = Vec::new();
    let processes = end_processes(work);
    if processes > 0 {
        said.push(format!("{processes} processes still ran and were killed"));
    }
    let docker = work.join(DOCKER_DIR);
    if let (Some(xtask), true) = (xtask, docker.join("docker.pid").exists()) {
        said.push("dockerd still ran and was stopped".to_owned());
        let stopped = Command::new(xtask)
            .args(["engines", "stop-docker"])
            .arg(&docker)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status();
        if !stopped.is_ok_and(|status| status.success()) {
            said.push(format!("dockerd of {} did not stop", docker.display()));
        }
    }
    let cgroups = remove_cgroups(&sandboxes(work));
    if cgroups > 0 {
        said.push(format!("{cgroups} cgroups were left and removed"));
    }
    if let Err(error) = fs::remove_dir_all(work)
        && work.exists()
    {
        said.push(format!("cannot remove {}: {error}", work.display()));
    }
    said
}

/// Kills what runs from the directory until nothing does; returns how many there were.
fn end_processes(work: &Path) -> usize {
    let (mut killed, deadline) = (HashSet::new(), Instant::now() + PATIENCE);
    loop {
        let left = procfs::running_from(work);
        if left.is_empty() || Instant::now() > deadline {
            return killed.len();
        }
        for pid in left {
            killed.insert(pid);
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                // Gone meanwhile is fine.
                let _gone = kill_process(pid, Signal::KILL);
            }
        }
        pause();
    }
}

/// The sandboxes that drivers of this run have not finished removing: each has a directory there.
fn sandboxes(work: &Path) -> HashSet<OsString> {
    let entries = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten();
    entries(work)
        .flat_map(|home| entries(&home.path().join("driver/sandboxes")))
        .map(|sandbox| sandbox.file_name())
        .collect()
}

/// Removes the cgroups that are named like these sandboxes; returns how many there were.
fn remove_cgroups(names: &HashSet<OsString>) -> usize {
    if names.is_empty() {
        return 0;
    }
    let mut found = Vec::new();
    for root in hierarchies() {
        find_cgroups(&root, names, CGROUP_DEPTH_MAX, &mut found);
    }
    let deadline = Instant::now() + PATIENCE;
    for cgroup in &found {
        // Until what was killed in it is gone for the kernel, too.
        while fs::remove_dir(cgroup).is_err() && cgroup.exists() && Instant::now() < deadline {
            pause();
        }
    }
    found.len()
}

fn hierarchies() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (place, kind) = (fields.next()?, fields.next()?);
            matches!(kind, "cgroup" | "cgroup2").then(|| PathBuf::from(place))
        })
        .collect()
}

fn find_cgroups(dir: &Path, names: &HashSet<OsString>, depth: usize, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if names.contains(&entry.file_name()) {
            found.push(entry.path());
        } else if depth > 0 {
            find_cgroups(&entry.path(), names, depth - 1, found);
        }
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "no runtime here, and the kernel tells nobody that a cgroup is empty"
)]
fn pause() {
    std::thread::sleep(POLL_INTERVAL);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_a_run_is_removed_and_said() {
        let work = tempfile::tempdir().unwrap().keep();
        let sleep = crate::raw::find("sleep").unwrap();
        let own = work.join("sleep");
        fs::copy(sleep, &own).unwrap();
        let mut child = Command::new(&own).arg("600").spawn().unwrap();
        fs::create_dir_all(work.join("gw/driver/sandboxes/sbx-x")).unwrap();
        assert!(sandboxes(&work).contains(std::ffi::OsStr::new("sbx-x")));

        // Reaped meanwhile, since a zombie is still there for whoever looks.
        let reaper = std::thread::spawn(move || child.wait());
        let said = clean(&work, None);
        assert!(!reaper.join().unwrap().unwrap().success());
        assert!(
            said.iter().any(|line| line.starts_with("1 processes")),
            "{said:?}"
        );
        assert!(!work.exists());
        assert_eq!(clean(&work, None), Vec::<String>::new());
    }
}
