//! What of the host's file tree a sandbox gets to see.
//!
//! Sources are opened before the shim gives up the driver's identity, as detached copies
//! (`open_tree`), and attached after the new root exists.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, fstat, readlink, statat};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::sandbox::plan::{Network, ShimPlan};
use crate::sandbox::report::{Failure, Stage};
use crate::shim::sys;

/// A detached copy of a host path, and where it goes (relative to the new root).
#[derive(Debug)]
pub(super) struct Source {
    pub(super) tree: OwnedFd,
    pub(super) target: PathBuf,
    pub(super) is_dir: bool,
    /// `MOUNT_ATTR_*` to set on the whole tree.
    pub(super) attributes: u64,
}

/// All that is taken from the host.
#[derive(Debug)]
pub(crate) struct Sources {
    pub(super) binds: Vec<Source>,
    /// Link (relative to the new root) and its content.
    pub(super) links: Vec<(PathBuf, PathBuf)>,
}

/// Where a distribution may keep programs and libraries outside `/usr`, or links into it.
const SYSTEM: [&str; 6] = ["bin", "sbin", "lib", "lib64", "lib32", "libx32"];

/// Configuration that programs need and that tells nothing about this host: the loader's,
/// certificate authorities (never `ssl/private`), time zone, fonts, name lists.
const ETC: [&str; 17] = [
    "alternatives",
    "crypto-policies",
    "fonts",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "os-release",
    "pki/ca-trust/extracted",
    "pki/tls/cert.pem",
    "pki/tls/certs",
    "protocols",
    "services",
    "ssl/cert.pem",
    "ssl/certs",
    "ssl/openssl.cnf",
];

/// With the host's network come the host's names.
const ETC_OF_NETWORK: [&str; 2] = ["resolv.conf", "hosts"];

const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

const PLAIN: u64 = sys::READ_ONLY | sys::NO_SUID | sys::NO_DEV;
const DATA: u64 = PLAIN | sys::NO_EXEC;

/// Opens everything the plan names.
pub(crate) fn open(plan: &ShimPlan) -> Result<Sources, Failure> {
    let mut sources = Sources {
        binds: Vec::with_capacity(32),
        links: Vec::with_capacity(16),
    };
    sources.bind(Path::new("/usr"), "usr".into(), PLAIN)?;
    for name in SYSTEM {
        sources.link_or_bind(name.into(), PLAIN)?;
    }
    for name in ETC {
        sources.link_or_bind(Path::new("etc").join(name), DATA)?;
    }
    if plan.network == Network::Host {
        for name in ETC_OF_NETWORK {
            sources.bind_if_present(&Path::new("etc").join(name), DATA)?;
        }
    }
    for name in DEVICES {
        sources.bind(
            &Path::new("/dev").join(name),
            Path::new("dev").join(name),
            0,
        )?;
    }
    for granted in &plan.binds {
        let target = granted.target.strip_prefix("/").unwrap_or(&granted.target);
        sources.bind(&granted.source, target.to_path_buf(), PLAIN)?;
    }
    Ok(sources)
}

impl Sources {
    /// A link stays a link when it points into `/usr`; anything else is shown as what it is.
    fn link_or_bind(&mut self, relative: PathBuf, attributes: u64) -> Result<(), Failure> {
        let host = Path::new("/").join(&relative);
        match readlink(&host, Vec::new()) {
            Ok(content) => {
                let content = PathBuf::from(std::ffi::OsString::from(
                    content.into_string().unwrap_or_default(),
                ));
                if leads_into_usr(&relative, &content) {
                    self.links.push((relative, content));
                    return Ok(());
                }
                self.bind_if_present(&relative, attributes)
            }
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
            Err(_) => self.bind_if_present(&relative, attributes),
        }
    }

    fn bind_if_present(&mut self, relative: &Path, attributes: u64) -> Result<(), Failure> {
        match self.bind(
            &Path::new("/").join(relative),
            relative.to_path_buf(),
            attributes,
        ) {
            Err(failure) if failure.errno == libc::ENOENT || failure.errno == libc::EACCES => {
                Ok(())
            }
            other => other,
        }
    }

    fn bind(&mut self, host: &Path, target: PathBuf, attributes: u64) -> Result<(), Failure> {
        let failed = |errno: Errno| {
            Failure::os(
                Stage::OpenBindSource,
                errno.raw_os_error(),
                host.display().to_string(),
            )
        };
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_RECURSIVE;
        let tree = open_tree(rustix::fs::CWD, host, flags).map_err(failed)?;
        let mode = fstat(&tree).map_err(failed)?.st_mode;
        let is_dir = FileType::from_raw_mode(mode) == FileType::Directory;
        self.binds.push(Source {
            tree,
            target,
            is_dir,
            attributes,
        });
        Ok(())
    }
}

/// Whether a link at `/relative` with this content stays inside what every sandbox has.
fn leads_into_usr(relative: &Path, content: &Path) -> bool {
    use std::path::Component;
    let mut at: Vec<_> = if content.is_absolute() {
        Vec::new()
    } else {
        relative
            .parent()
            .into_iter()
            .flat_map(Path::components)
            .collect()
    };
    for part in content.components() {
        match part {
            Component::ParentDir => drop(at.pop()),
            Component::Normal(_) => at.push(part),
            _ => {}
        }
    }
    at.first() == Some(&Component::Normal("usr".as_ref()))
}

/// Whether the host has this path, for things made only where the host has them.
pub(super) fn host_has(path: &str) -> bool {
    statat(rustix::fs::CWD, path, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_links_into_usr_stay_links() {
        let leads = |at: &str, content: &str| leads_into_usr(Path::new(at), Path::new(content));
        assert!(leads("bin", "usr/bin"));
        assert!(leads("lib64", "/usr/lib64"));
        assert!(leads("etc/os-release", "../usr/lib/os-release"));
        assert!(leads("etc/localtime", "/usr/share/zoneinfo/Etc/UTC"));
        assert!(!leads(
            "etc/resolv.conf",
            "../run/systemd/resolve/stub-resolv.conf"
        ));
        assert!(!leads(
            "etc/pki/tls/cert.pem",
            "/etc/pki/ca-trust/extracted/pem/bundle.pem"
        ));
        assert!(!leads("bin", "usrlocal/bin"));
    }
}
