//! Where may this driver make cgroups?

use std::fs;
use std::path::{Path, PathBuf};

use super::files;
use super::{Backend, CgroupParent, v1, v2};

/// The cgroup that the driver moves itself (and its unit) to, when its own is to have children.
const OWN_LEAF: &str = "cofferdam-service";
/// The parent's name where the driver has to choose one.
const PARENT: &str = "cofferdam";

/// v2 if it offers as much as v1 does, else v1, else nothing.
pub(super) fn detect(setting: Option<&Path>) -> CgroupParent {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let found = hierarchies(&mounts, &own);
    let unified = found
        .iter()
        .find(|h| h.controllers.is_none())
        .and_then(|h| try_v2(h, setting));
    let split = try_v1(&found, setting);
    let unified_count = unified
        .as_ref()
        .map_or(0, |parent| parent.controllers.len());
    let split_count = split.as_ref().map_or(0, |parent| {
        v2::CONTROLLERS
            .iter()
            .filter(|name| parent.by_controller.contains_key(**name))
            .count()
    });
    let backend = match (unified, split) {
        (Some(parent), _) if unified_count > 0 && unified_count >= split_count => {
            Backend::V2(parent)
        }
        (_, Some(parent)) if split_count > 0 => Backend::V1(parent),
        _ => absent(setting, !found.is_empty()),
    };
    CgroupParent { backend }
}

fn absent(setting: Option<&Path>, mounted: bool) -> Backend {
    let why = match setting {
        Some(path) => format!(
            "cgroup_parent {} has no usable controllers, or is not the driver's to move processes \
             into",
            path.display()
        ),
        None if mounted => "the driver's own cgroup has not been delegated to it".to_owned(),
        None => "no cgroup file system is mounted".to_owned(),
    };
    let fix =
        "give the gateway control groups of its own: start it with `systemd-run --user --scope \
               -p Delegate=yes cofferdam-gateway` (any systemd unit with Delegate=yes will do), or \
               name a cgroup that belongs to its user, and that it runs below, in cgroup_parent"
            .to_owned();
    Backend::Absent { why, fix }
}

/// One mounted hierarchy and the driver's place in it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hierarchy {
    mount_point: PathBuf,
    /// The driver's own cgroup, as a directory.
    own: PathBuf,
    /// `None` is the unified hierarchy.
    controllers: Option<Vec<String>>,
}

/// Reads `/proc/self/mountinfo` and `/proc/self/cgroup`.
fn hierarchies(mounts: &str, own: &str) -> Vec<Hierarchy> {
    mounts
        .lines()
        .filter_map(|line| hierarchy(line, own))
        .collect()
}

fn hierarchy(line: &str, own: &str) -> Option<Hierarchy> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(3);
    let (root, mount_point) = (left.next()?, PathBuf::from(left.next()?));
    let mut right = right.split(' ');
    let (kind, options) = (right.next()?, right.nth(1)?);
    let controllers = match kind {
        "cgroup2" => None,
        "cgroup" => Some(known_controllers(options)?),
        _ => return None,
    };
    let path = own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (names, path) = (fields.next()?, fields.next()?);
        let matches = match &controllers {
            None => names.is_empty(),
            Some(wanted) => names
                .split(',')
                .any(|name| wanted.iter().any(|has| has == name)),
        };
        matches.then_some(path)
    })?;
    // Inside a cgroup namespace the mount's root may not be the hierarchy's.
    let below = Path::new(path)
        .strip_prefix(root)
        .unwrap_or(Path::new(path));
    let own = mount_point.join(below.strip_prefix("/").unwrap_or(below));
    Some(Hierarchy {
        own,
        mount_point,
        controllers,
    })
}

fn known_controllers(options: &str) -> Option<Vec<String>> {
    let known: Vec<String> = options
        .split(',')
        .filter(|name| v1::CONTROLLERS.contains(name))
        .map(str::to_owned)
        .collect();
    (!known.is_empty()).then_some(known)
}

fn try_v1(found: &[Hierarchy], setting: Option<&Path>) -> Option<v1::Parent> {
    let mut parent = v1::Parent {
        by_controller: Default::default(),
    };
    for hierarchy in found {
        let Some(controllers) = &hierarchy.controllers else {
            continue;
        };
        let dir = match setting {
            Some(path) => hierarchy.mount_point.join(relative(path)),
            None => hierarchy.own.join(PARENT),
        };
        if make_all(&hierarchy.mount_point, &dir) && files::writable(&dir) {
            let entries = controllers.iter().map(|name| (name.clone(), dir.clone()));
            parent.by_controller.extend(entries);
        }
    }
    (!parent.by_controller.is_empty()).then_some(parent)
}

fn try_v2(hierarchy: &Hierarchy, setting: Option<&Path>) -> Option<v2::Parent> {
    let root = &hierarchy.mount_point;
    let offered = v2::words(root, "cgroup.controllers");
    if !v2::CONTROLLERS
        .iter()
        .any(|name| offered.iter().any(|has| has == name))
    {
        return None;
    }
    let own = &hierarchy.own;
    if let Some(path) = setting {
        let dir = root.join(relative(path));
        return may_move(own, &dir).then(|| prepare_below(root, &dir))?;
    }
    // A unit with DelegateSubgroup=, or a driver that has moved here before.
    if let Some(above) = own
        .parent()
        .filter(|above| above.starts_with(root) && *above != root)
        && files::writable(above)
        && files::pids(above).is_empty()
        && is_delegated(above)
    {
        return v2::Parent::prepare(above.to_owned()).ok();
    }
    if own != root && files::writable(own) && may_vacate(own) && vacate(own) {
        return v2::Parent::prepare(own.clone()).ok();
    }
    let is_root = rustix::process::geteuid().is_root();
    (is_root && files::writable(root)).then(|| prepare_below(root, &root.join(PARENT)))?
}

/// Makes the path and hands controllers down along it.
fn prepare_below(root: &Path, dir: &Path) -> Option<v2::Parent> {
    if !make_all(root, dir) {
        return None;
    }
    let mut above: Vec<&Path> = dir
        .ancestors()
        .skip(1)
        .take_while(|path| path.starts_with(root))
        .collect();
    above.reverse();
    above.into_iter().for_each(v2::enable_controllers);
    v2::Parent::prepare(dir.to_owned()).ok()
}

fn make_all(root: &Path, dir: &Path) -> bool {
    let mut missing: Vec<&Path> = dir.ancestors().take_while(|path| *path != root).collect();
    missing.reverse();
    missing.into_iter().all(|path| files::make(path).is_ok())
}

/// systemd marks the cgroups it hands over.
fn is_delegated(dir: &Path) -> bool {
    let mut value = [0; 8];
    ["user.delegate", "trusted.delegate"].iter().any(|name| {
        rustix::fs::getxattr(dir, *name, &mut value).is_ok_and(|length| &value[..length] == b"1")
    }) || dir.join(OWN_LEAF).exists()
}

/// Whether v2 lets this process move its children to below `dir`: that takes writing to
/// `cgroup.procs` of the nearest cgroup that is above both.
fn may_move(own: &Path, dir: &Path) -> bool {
    use rustix::fs::{Access, AtFlags, CWD, accessat};
    let above_both = own.ancestors().find(|above| dir.starts_with(above));
    above_both.is_some_and(|above| {
        let procs = above.join(files::PROCS);
        accessat(CWD, procs, Access::WRITE_OK, AtFlags::EACCESS).is_ok()
    })
}

/// The processes of a delegated unit may be moved within it; of any other cgroup only oneself.
fn may_vacate(own: &Path) -> bool {
    let me = std::process::id() as i32;
    is_delegated(own) || files::pids(own).iter().all(|&pid| pid == me)
}

fn vacate(own: &Path) -> bool {
    let leaf = own.join(OWN_LEAF);
    if files::make(&leaf).is_err() {
        return false;
    }
    // A process may fork while we move; a few rounds catch up with it.
    for _ in 0..4 {
        for pid in files::pids(own) {
            // It may be gone already.
            let _ = files::write(&leaf, files::PROCS, &pid.to_string());
        }
        if files::pids(own).is_empty() {
            return true;
        }
    }
    false
}

fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/unified rw shared:10 - cgroup2 cgroup2 rw
33 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:15 - cgroup cgroup rw,cpu,cpuacct
34 30 0:30 /docker/abc /sys/fs/cgroup/memory rw shared:16 - cgroup cgroup rw,memory
35 30 0:31 / /sys/fs/cgroup/freezer rw shared:17 - cgroup cgroup rw,freezer
";
    const OWN: &str = "\
5:memory:/docker/abc/inner
4:freezer:/
3:cpu,cpuacct:/system.slice/x.service
0::/system.slice/x.service
";

    #[test]
    fn hierarchies_are_found_with_the_drivers_place_in_them() {
        let found = hierarchies(MOUNTS, OWN);
        let own: Vec<_> = found.iter().map(|h| h.own.to_str().unwrap()).collect();
        assert_eq!(
            own,
            [
                "/sys/fs/cgroup/unified/system.slice/x.service",
                "/sys/fs/cgroup/cpu,cpuacct/system.slice/x.service",
                "/sys/fs/cgroup/memory/inner",
            ]
        );
        assert_eq!(found[0].controllers, None);
        assert_eq!(found[1].controllers.as_deref().unwrap(), ["cpu", "cpuacct"]);
    }
}
