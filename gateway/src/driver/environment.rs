//! What a driver's process has of the gateway's own environment: what the client of a platform needs
//! to find it, and nothing else.
//!
//! The gateway's environment may hold what no driver is to see: the secrets of a workload, for one,
//! when a caller's own process is the gateway.

use std::ffi::{OsStr, OsString};
use std::path::Path;

/// By name. `COFFERDAM_LOG` is the drivers' as much as the gateway's.
const NAMES: [&str; 8] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "TMPDIR",
    "TZ",
    "SSH_AUTH_SOCK",
    "COFFERDAM_LOG",
];
/// By how the name begins: languages, a user's directories, the log of a Rust program, whose
/// certificates are trusted, where an engine of any make listens.
const BEGINNINGS: [&str; 6] = ["LANG", "LC_", "XDG_", "RUST_", "SSL_CERT_", "CONTAINER_"];
/// By how the name ends, in either case.
const PROXY: &str = "_PROXY";
/// A built-in driver's program is this and the name of its platform.
const PROGRAM: &str = "cofferdam-driver-";

/// Those of `variables` that `program` is to have. The variables of its platform's own tools, which
/// begin with the platform's name, are among them.
pub(super) fn passed_on(
    program: &Path,
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Vec<(OsString, OsString)> {
    let platform = platform(program);
    variables
        .filter(|(name, _)| is_passed_on(name, platform.as_deref()))
        .collect()
}

fn is_passed_on(name: &OsStr, platform: Option<&str>) -> bool {
    let Some(name) = name.to_str() else {
        return false;
    };
    let is_a_platforms = platform.is_some_and(|beginning| name.starts_with(beginning));
    NAMES.contains(&name)
        || BEGINNINGS.iter().any(|begin| name.starts_with(begin))
        || name.to_ascii_uppercase().ends_with(PROXY)
        || is_a_platforms
}

/// `cofferdam-driver-abc` → `ABC_`.
fn platform(program: &Path) -> Option<String> {
    let name = program.file_name()?.to_str()?.strip_prefix(PROGRAM)?;
    let name = name.to_ascii_uppercase().replace('-', "_");
    (!name.is_empty()).then(|| format!("{name}_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(program: &str, variables: &[&str]) -> Vec<String> {
        let variables = variables.iter().map(|name| (name.into(), "x".into()));
        passed_on(Path::new(program), variables)
            .into_iter()
            .map(|(name, _)| name.into_string().unwrap())
            .collect()
    }

    #[test]
    fn what_finds_a_platform_is_passed_on() {
        let needed = [
            "PATH",
            "HOME",
            "LANG",
            "LC_ALL",
            "XDG_RUNTIME_DIR",
            "RUST_BACKTRACE",
            "SSL_CERT_FILE",
            "https_proxy",
            "NO_PROXY",
            "SSH_AUTH_SOCK",
            "CONTAINER_HOST",
            "ABC_HOST",
        ];
        assert_eq!(names("/x/cofferdam-driver-abc", &needed), needed);
    }

    #[test]
    fn what_nobody_has_listed_is_not() {
        let others = [
            "TOKEN",
            "DATABASE_PASSWORD",
            "ABCD_HOST",
            "ABC",
            "COFFERDAM_GATEWAY",
            "LISTEN_PID",
            "NOTIFY_SOCKET",
            "WATCHDOG_USEC",
            "LD_PRELOAD",
            "PATHS",
            "",
        ];
        assert_eq!(names("/x/cofferdam-driver-abc", &others), [""; 0]);
        assert_eq!(names("/x/cofferdam-driver-", &["_X", "X"]), [""; 0]);
        // Another's program has no platform's name.
        assert_eq!(names("/x/abc", &["ABC_HOST"]), [""; 0]);
    }
}
