//! From what a caller asks for to a program that can be executed: checks, defaults, environment.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cofferdam_proto::supervisor::v1::{EnvironmentVariable, ProcessSpec};
use rustix::fs::{Mode, OFlags};
use thiserror::Error;

use super::launch::Stdio;
use super::plan::{Program, User, candidates};
use crate::pty;

const ARGUMENTS_MAX: usize = 65_536;
const SPOOL_BYTES_MIN: u64 = 4096;
const SPOOL_BYTES_MAX: u64 = 64 * 1024 * 1024;
const ACCOUNTS_BYTES_MAX: u64 = 256 * 1024;
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const DEFAULT_TERM: &str = "xterm-256color";

/// A field that cannot be.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{field}: {problem}")]
pub(crate) struct SpecError {
    field: &'static str,
    problem: &'static str,
}

/// What processes inherit, from the bootstrap and from `Configure`.
#[derive(Clone, Debug)]
pub(crate) struct Defaults {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) user: String,
    pub(crate) home: String,
    pub(crate) workspace: PathBuf,
    pub(crate) oom_score_adj: i32,
    pub(crate) open_files: libc::rlimit,
    /// See [`crate::bootstrap::Handed`].
    pub(crate) cpu_threads: Option<Arc<OwnedFd>>,
    pub(crate) environment: Vec<EnvironmentVariable>,
    /// What the image wants every program to have; goes before ours, after nothing.
    pub(crate) image_environment: BTreeMap<String, String>,
    pub(crate) spool_bytes: u64,
    /// The supervisor's own ids.
    pub(crate) own: (u32, u32),
}

/// A spec that can be tried.
#[derive(Debug)]
pub(crate) struct ValidSpec {
    pub(crate) program: Program,
    pub(crate) stdio: Stdio,
    pub(crate) spool_bytes: u64,
}

impl ValidSpec {
    pub(crate) fn new(spec: &ProcessSpec, defaults: &Defaults) -> Result<Self, SpecError> {
        let stdio = match &spec.pty {
            Some(pty) => Stdio::Terminal {
                size: pty::size(pty.rows, pty.columns),
            },
            None => Stdio::Pipes { stdin: spec.stdin },
        };
        Ok(Self {
            program: program(spec, defaults)?,
            stdio,
            spool_bytes: spool_bytes("spec.spool_bytes", spec.spool_bytes, defaults.spool_bytes)?,
        })
    }
}

/// A wish for the size of a spool; 0 is none.
pub(crate) fn spool_bytes(field: &'static str, wish: u64, default: u64) -> Result<u64, SpecError> {
    match wish {
        0 => Ok(default),
        SPOOL_BYTES_MIN..=SPOOL_BYTES_MAX => Ok(wish),
        _ => Err(SpecError {
            field,
            problem: "must be 0, or from 4 KiB to 64 MiB",
        }),
    }
}

/// Names and values that the system can hold.
pub(crate) fn check_environment(
    field: &'static str,
    variables: &[EnvironmentVariable],
) -> Result<(), SpecError> {
    for variable in variables {
        let name = variable.name.as_bytes();
        if name.is_empty() || name.contains(&b'=') || name.contains(&0) {
            return Err(SpecError {
                field,
                problem: "a name is empty or holds '=' or a zero byte",
            });
        }
        if variable.value.contains(&0) {
            return Err(SpecError {
                field,
                problem: "a value holds a zero byte",
            });
        }
    }
    Ok(())
}

fn program(spec: &ProcessSpec, defaults: &Defaults) -> Result<Program, SpecError> {
    let Some(name) = spec.argv.first().filter(|name| !name.is_empty()) else {
        return Err(SpecError {
            field: "spec.argv",
            problem: "needs a program",
        });
    };
    if spec.argv.len() > ARGUMENTS_MAX {
        return Err(SpecError {
            field: "spec.argv",
            problem: "has more than 65,536 entries",
        });
    }
    check_environment("spec.environment", &spec.environment)?;
    let user = user(spec, defaults);
    let environment = environment(spec, defaults, user);
    let directory = defaults.workspace.join(&spec.cwd);
    let path = environment
        .get(b"PATH".as_slice())
        .map_or(b"".as_slice(), Vec::as_slice);
    let candidates = candidates(name, path, &directory);
    let variables = environment
        .into_iter()
        .map(|(name, value)| [&name[..], b"=", &value].concat());
    Ok(Program {
        argv: strings(
            "spec.argv",
            spec.argv.iter().map(|argument| argument.to_vec()),
        )?,
        environment: strings("spec.environment", variables)?,
        candidates: strings("spec.argv", candidates)?,
        directory: string("spec.cwd", directory.into_os_string().into_encoded_bytes())?,
        user,
        open_files: defaults.open_files,
        oom_score_adj: defaults.oom_score_adj,
        cpu_threads: defaults.cpu_threads.clone(),
    })
}

fn user(spec: &ProcessSpec, defaults: &Defaults) -> User {
    let uid = spec.uid.unwrap_or(defaults.uid);
    let gid = spec.gid.unwrap_or(defaults.gid);
    User {
        uid,
        gid,
        differs: (uid, gid) != defaults.own,
    }
}

/// Defaults, then the image, then `Configure`, then the spec: whoever comes later wins.
fn environment(spec: &ProcessSpec, defaults: &Defaults, user: User) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let (name, home) = if user.uid == defaults.uid {
        (defaults.user.clone(), defaults.home.clone())
    } else {
        account(user.uid, Path::new("/etc/passwd"))
    };
    let term = spec.pty.as_ref().map(|pty| match pty.term.as_str() {
        "" => DEFAULT_TERM.to_owned(),
        term => term.to_owned(),
    });
    let defaults_of_ours = [
        ("PATH", Some(DEFAULT_PATH.to_owned())),
        ("HOME", Some(home)),
        ("USER", Some(name)),
        ("TERM", term),
    ];
    let mut environment = BTreeMap::new();
    for (name, value) in defaults_of_ours {
        if let Some(value) = value {
            environment.insert(name.as_bytes().to_vec(), value.into_bytes());
        }
    }
    for (name, value) in &defaults.image_environment {
        environment.insert(name.clone().into_bytes(), value.clone().into_bytes());
    }
    for variable in defaults.environment.iter().chain(&spec.environment) {
        environment.insert(variable.name.clone().into_bytes(), variable.value.to_vec());
    }
    environment
}

/// Name and home of a user by the sandbox's own account file, which is read without the system's
/// name services: a static binary has none.
fn account(uid: u32, file: &Path) -> (String, String) {
    let wanted = uid.to_string();
    let text = read_accounts(file).unwrap_or_default();
    for line in text.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        if let [name, _, uid, _, _, home, ..] = fields[..]
            && uid == wanted
        {
            return (name.to_owned(), home.to_owned());
        }
    }
    (wanted, "/".to_owned())
}

/// The workload may have put something else in the file's place: never waits, never reads much.
fn read_accounts(file: &Path) -> std::io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(file, flags, Mode::empty())?);
    let mut text = String::new();
    if file.metadata()?.is_file() {
        file.take(ACCOUNTS_BYTES_MAX).read_to_string(&mut text)?;
    }
    Ok(text)
}

fn strings(
    field: &'static str,
    values: impl IntoIterator<Item = Vec<u8>>,
) -> Result<Vec<CString>, SpecError> {
    values
        .into_iter()
        .map(|value| string(field, value))
        .collect()
}

fn string(field: &'static str, value: Vec<u8>) -> Result<CString, SpecError> {
    CString::new(value).map_err(|_| SpecError {
        field,
        problem: "holds a zero byte",
    })
}

/// For messages: a program's name, whatever bytes it has.
pub(super) fn printable(name: &CString) -> String {
    OsStr::from_bytes(name.as_bytes())
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use bytes::Bytes;
    use cofferdam_proto::supervisor::v1::PtySpec;

    use super::*;

    fn defaults() -> Defaults {
        Defaults {
            uid: 1000,
            gid: 1000,
            user: "sandbox".into(),
            home: "/workspace".into(),
            workspace: "/workspace".into(),
            oom_score_adj: 500,
            open_files: libc::rlimit {
                rlim_cur: 1024,
                rlim_max: 4096,
            },
            cpu_threads: None,
            image_environment: [
                ("B".to_owned(), "image".to_owned()),
                ("I".to_owned(), "image".to_owned()),
            ]
            .into(),
            environment: vec![variable("A", "configured"), variable("B", "configured")],
            spool_bytes: 1 << 20,
            own: (0, 0),
        }
    }

    fn variable(name: &str, value: &str) -> EnvironmentVariable {
        EnvironmentVariable {
            name: name.into(),
            value: Bytes::from(value.to_owned()),
        }
    }

    fn spec(argv: &[&str]) -> ProcessSpec {
        let argv = argv
            .iter()
            .map(|&argument| Bytes::from(argument.to_owned()))
            .collect();
        ProcessSpec {
            argv,
            ..ProcessSpec::default()
        }
    }

    fn environment_of(spec: &ProcessSpec) -> Vec<String> {
        let valid = ValidSpec::new(spec, &defaults()).expect("valid");
        valid.program.environment.iter().map(printable).collect()
    }

    #[test]
    fn the_environment_is_defaults_then_configure_then_the_spec() {
        let mut spec = spec(&["x"]);
        spec.environment = vec![variable("B", "own"), variable("HOME", "/own")];
        assert_eq!(
            environment_of(&spec),
            [
                "A=configured",
                "B=own",
                "HOME=/own",
                "I=image",
                &format!("PATH={DEFAULT_PATH}"),
                "USER=sandbox"
            ]
        );
        spec.pty = Some(PtySpec::default());
        assert!(environment_of(&spec).contains(&"TERM=xterm-256color".to_owned()));
    }

    #[test]
    fn a_relative_directory_is_below_the_workspace() {
        let mut relative = spec(&["x"]);
        relative.cwd = "a/b".into();
        let valid = ValidSpec::new(&relative, &defaults()).expect("valid");
        assert_eq!(printable(&valid.program.directory), "/workspace/a/b");
        relative.cwd = "/tmp".into();
        let valid = ValidSpec::new(&relative, &defaults()).expect("valid");
        assert_eq!(printable(&valid.program.directory), "/tmp");
    }

    #[test]
    fn what_the_system_cannot_hold_is_named() {
        let refused = |spec: &ProcessSpec| {
            ValidSpec::new(spec, &defaults())
                .expect_err("refused")
                .to_string()
        };
        assert_eq!(refused(&spec(&[])), "spec.argv: needs a program");
        assert_eq!(refused(&spec(&["a\0b"])), "spec.argv: holds a zero byte");
        let mut bad_name = spec(&["x"]);
        bad_name.environment = vec![variable("A=B", "x")];
        assert!(refused(&bad_name).starts_with("spec.environment: a name"));
        let mut small = spec(&["x"]);
        small.spool_bytes = 1;
        assert!(refused(&small).starts_with("spec.spool_bytes: "));
    }

    #[test]
    fn another_users_name_and_home_come_from_the_account_file() {
        let mut file = tempfile::NamedTempFile::new().expect("temporary file");
        writeln!(
            file,
            "root:x:0:0:root:/root:/bin/sh\nann:x:1001:1001::/home/ann:/bin/sh"
        )
        .expect("written");
        assert_eq!(
            account(1001, file.path()),
            ("ann".into(), "/home/ann".into())
        );
        assert_eq!(account(7, file.path()), ("7".into(), "/".into()));
        assert_eq!(
            account(7, Path::new("/nonexistent")),
            ("7".into(), "/".into())
        );
    }
}
