//! Where a gateway listens that nobody has named: as the gateway itself chooses it.
//!
//! A place in a directory that everybody may write to is used only if it is ours alone: else
//! somebody could wait there for us, and get to see what we run.

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

const SOCKET: &str = "gateway.sock";
const SYSTEM: &str = "/run/cofferdam";

/// A socket, and whether its directory has to be looked at first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) socket: PathBuf,
    is_shared_ground: bool,
}

impl Place {
    /// The one that somebody has named: they know why.
    pub(crate) fn named(socket: PathBuf) -> Self {
        Self {
            socket,
            is_shared_ground: false,
        }
    }

    /// Why it is not to be used, if it is not.
    pub(crate) fn check(&self, uid: u32) -> io::Result<()> {
        match self.socket.parent() {
            Some(directory) if self.is_shared_ground => is_private(directory, uid),
            _ => Ok(()),
        }
    }
}

/// The user's own gateway, then the machine's.
pub(crate) fn usual(uid: u32, runtime_dir: Option<OsString>) -> Vec<Place> {
    let mut places = Vec::new();
    let mut add = |directory: PathBuf, is_shared_ground| {
        let place = Place {
            socket: directory.join(SOCKET),
            is_shared_ground,
        };
        if !places.contains(&place) {
            places.push(place);
        }
    };
    // The specification has relative paths ignored.
    let runtime_dir = runtime_dir.map(PathBuf::from);
    if let Some(directory) = runtime_dir.filter(|path| path.is_absolute()) {
        add(directory.join("cofferdam"), false);
    }
    if uid != 0 {
        // A gateway of the same user's login session, when this is not one: cron, su, sudo.
        add(PathBuf::from(format!("/run/user/{uid}/cofferdam")), false);
        // A gateway without a session.
        add(PathBuf::from(format!("/tmp/cofferdam-{uid}")), true);
    }
    add(PathBuf::from(SYSTEM), false);
    places
}

fn is_private(directory: &Path, uid: u32) -> io::Result<()> {
    // Of the link, not of what it points to.
    let about = directory.symlink_metadata()?;
    let refused = |why: String| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    if !about.is_dir() {
        return refused("not a directory, so not used".to_owned());
    }
    if about.uid() != uid {
        return refused(format!("belongs to uid {}, so not used", about.uid()));
    }
    if about.mode() & 0o022 != 0 {
        return refused(format!(
            "others may write there (mode {:o}), so not used",
            about.mode() & 0o777
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn sockets(uid: u32, runtime_dir: Option<&str>) -> Vec<String> {
        let places = usual(uid, runtime_dir.map(OsString::from));
        let paths = places
            .iter()
            .map(|place| place.socket.display().to_string());
        paths.collect()
    }

    #[test]
    fn a_users_own_gateway_comes_before_the_machines() {
        assert_eq!(
            sockets(7, Some("/xdg")),
            [
                "/xdg/cofferdam/gateway.sock",
                "/run/user/7/cofferdam/gateway.sock",
                "/tmp/cofferdam-7/gateway.sock",
                "/run/cofferdam/gateway.sock",
            ]
        );
        assert_eq!(sockets(7, Some("/run/user/7")), sockets(7, None));
        assert_eq!(sockets(7, Some("relative")), sockets(7, None));
    }

    #[test]
    fn root_has_no_place_where_others_could_wait_for_it() {
        assert_eq!(sockets(0, None), ["/run/cofferdam/gateway.sock"]);
    }

    #[test]
    fn a_place_that_others_can_change_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("own");
        fs::create_dir(&own).unwrap();
        let uid = own.metadata().unwrap().uid();
        let why = |path: &Path, uid| is_private(path, uid).map_err(|error| error.to_string());
        fs::set_permissions(&own, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(why(&own, uid), Ok(()));
        fs::set_permissions(&own, fs::Permissions::from_mode(0o775)).unwrap();
        assert!(why(&own, uid).unwrap_err().contains("mode 775"));
        assert!(why(&own, uid + 1).unwrap_err().contains("belongs to uid"));
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&own, &link).unwrap();
        assert!(why(&link, uid).unwrap_err().contains("not a directory"));
    }
}
