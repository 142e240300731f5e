//! Where things are on this host when nobody says otherwise.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::problem::Problem;

/// What the configuration depends on besides flags and files, taken together so that a test can
/// make one up.
#[derive(Debug, Clone)]
pub struct Host {
    pub environment: BTreeMap<String, OsString>,
    pub uid: u32,
    /// This program.
    pub program: Option<PathBuf>,
    /// The working directory.
    pub directory: PathBuf,
    /// `/`, but for tests.
    pub root: PathBuf,
}

impl Host {
    /// The one that this process runs on.
    pub fn here() -> Self {
        let environment =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
        Self {
            environment: environment.collect(),
            uid: rustix::process::geteuid().as_raw(),
            program: std::env::current_exe().ok(),
            directory: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
            root: PathBuf::from("/"),
        }
    }

    /// A variable that is set, and not to nothing.
    pub(super) fn variable(&self, name: &str) -> Option<&OsString> {
        self.environment.get(name).filter(|value| !value.is_empty())
    }

    fn directory_variable(&self, name: &str) -> Option<PathBuf> {
        let path = PathBuf::from(self.variable(name)?);
        // The XDG specification has relative paths ignored.
        path.is_absolute().then_some(path)
    }

    /// A directory that systemd made for the unit; the first, if there are several.
    fn unit_directory(&self, name: &str) -> Option<PathBuf> {
        let list = self.variable(name)?.to_str()?;
        list.split(':').next().map(PathBuf::from)
    }

    /// Whether this is the machine's gateway rather than a user's own.
    pub(super) fn is_system(&self) -> bool {
        self.uid == 0 || self.variable("STATE_DIRECTORY").is_some()
    }

    fn home(&self) -> Option<PathBuf> {
        self.directory_variable("HOME")
    }

    pub(super) fn config_file(&self) -> PathBuf {
        let system = self.root.join("etc/cofferdam/config.toml");
        if self.is_system() {
            return system;
        }
        let config = self.directory_variable("XDG_CONFIG_HOME");
        match config.or_else(|| Some(self.home()?.join(".config"))) {
            Some(config) => config.join("cofferdam/config.toml"),
            None => system,
        }
    }

    pub(super) fn state_dir(&self) -> (PathBuf, &'static str) {
        if let Some(directory) = self.unit_directory("STATE_DIRECTORY") {
            return (directory, "the unit's state directory");
        }
        if self.uid == 0 {
            return (
                self.root.join("var/lib/cofferdam"),
                "where services keep state",
            );
        }
        let reason = "where your programs keep state";
        if let Some(state) = self.directory_variable("XDG_STATE_HOME") {
            return (state.join("cofferdam"), reason);
        }
        match self.home() {
            Some(home) => (home.join(".local/state/cofferdam"), reason),
            None => (self.private_tmp().join("state"), "there is no HOME"),
        }
    }

    pub(super) fn runtime_dir(&self) -> (PathBuf, &'static str) {
        if let Some(directory) = self.unit_directory("RUNTIME_DIRECTORY") {
            return (directory, "the unit's runtime directory");
        }
        if self.uid == 0 {
            return (
                self.root.join("run/cofferdam"),
                "where services keep sockets",
            );
        }
        match self.directory_variable("XDG_RUNTIME_DIR") {
            Some(run) => (run.join("cofferdam"), "where your programs keep sockets"),
            None => (self.private_tmp(), "there is no XDG_RUNTIME_DIR"),
        }
    }

    fn private_tmp(&self) -> PathBuf {
        self.root.join(format!("tmp/cofferdam-{}", self.uid))
    }

    /// Where the supervisor and the built-in drivers may be, most specific first.
    fn libexec_places(&self) -> Vec<PathBuf> {
        let mut places = Vec::new();
        if let Some(prefix) = self
            .program
            .as_deref()
            .and_then(Path::parent)
            .and_then(Path::parent)
        {
            places.push(prefix.join("libexec/cofferdam"));
            places.push(prefix.join("libexec"));
        }
        let installed = self.root.join("usr/libexec/cofferdam");
        if !places.contains(&installed) {
            places.push(installed);
        }
        places
    }

    /// The first of them that holds a supervisor.
    pub(super) fn libexec_dir(&self) -> Result<(PathBuf, &'static str), Problem> {
        let places = self.libexec_places();
        if let Some(found) = places.iter().find(|place| place.join(SUPERVISOR).is_file()) {
            return Ok((found.clone(), "the first place that holds a supervisor"));
        }
        let list: Vec<_> = places
            .iter()
            .map(|place| place.display().to_string())
            .collect();
        let message = format!("there is no {SUPERVISOR} in {}", list.join(", nor in "));
        let hint = "install Cofferdam's helper programs, or say where they are: --libexec, \
                    COFFERDAM_LIBEXEC or libexec_dir";
        Err(Problem::new(None, "libexec_dir", message).hint(hint))
    }

    /// The id of a group, from the group file or because it is a number.
    pub(super) fn group_exists(&self, group: &str) -> bool {
        if group.parse::<u32>().is_ok() {
            return true;
        }
        let groups = std::fs::read_to_string(self.root.join("etc/group")).unwrap_or_default();
        groups
            .lines()
            .any(|line| line.split(':').next() == Some(group))
    }
}

/// File name of the supervisor's binary.
pub(super) const SUPERVISOR: &str = "cofferdam-supervisor";

/// File names of built-in drivers begin with this.
pub(super) const DRIVER_PREFIX: &str = "cofferdam-driver-";

/// Why a file cannot be executed, if it cannot.
pub(super) fn executable_trouble(path: &Path) -> Option<String> {
    use std::os::unix::fs::PermissionsExt;
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Some(format!("{} does not exist", path.display()))
        }
        Err(error) => Some(format!("{} cannot be looked at: {error}", path.display())),
        Ok(metadata) if !metadata.is_file() => Some(format!("{} is not a file", path.display())),
        Ok(metadata) if metadata.permissions().mode() & 0o111 == 0 => {
            Some(format!("{} is not executable", path.display()))
        }
        Ok(_) => None,
    }
}
