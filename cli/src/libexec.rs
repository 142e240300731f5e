//! Where the programs are that an embedded gateway starts: drivers and the supervisor.

use std::path::{Path, PathBuf};

use crate::error::{CommandError, Kind};

const VARIABLE: &str = "COFFERDAM_LIBEXEC";
const INSTALLED: &str = "/usr/libexec/cofferdam";
/// Every installation has it, whatever drivers there are.
const SUPERVISOR: &str = "cofferdam-supervisor";

/// The first directory that holds the supervisor: $COFFERDAM_LIBEXEC alone if it is set, else
/// beside our own program, else where packages put it.
pub(crate) fn find() -> Result<PathBuf, CommandError> {
    let named = std::env::var_os(VARIABLE).filter(|dir| !dir.is_empty());
    let own = std::env::current_exe().ok();
    let places = places(named.map(PathBuf::from), own.as_deref());
    places
        .iter()
        .find(|dir| dir.join(SUPERVISOR).is_file())
        .cloned()
        .ok_or_else(|| missing(&places))
}

fn places(named: Option<PathBuf>, own: Option<&Path>) -> Vec<PathBuf> {
    if let Some(dir) = named {
        return vec![dir];
    }
    let mut places = Vec::new();
    if let Some(prefix) = own.and_then(Path::parent).and_then(Path::parent) {
        places.push(prefix.join("libexec/cofferdam"));
        places.push(prefix.join("libexec"));
    }
    if !places.iter().any(|place| place == Path::new(INSTALLED)) {
        places.push(PathBuf::from(INSTALLED));
    }
    places
}

fn missing(places: &[PathBuf]) -> CommandError {
    let list: Vec<String> = places
        .iter()
        .map(|place| place.join(SUPERVISOR).display().to_string())
        .collect();
    CommandError::new(
        Kind::NoGateway,
        format!(
            "no gateway runs, and none can be brought along: there is no {}",
            list.join(", nor ")
        ),
    )
    .hint(format!(
        "install the cofferdam package, or set {VARIABLE} to the directory that holds {SUPERVISOR} \
         and the drivers"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_is_the_only_place_when_it_is_set() {
        let own = Path::new("/opt/x/bin/cofferdam");
        assert_eq!(places(Some("/l".into()), Some(own)), [PathBuf::from("/l")]);
    }

    #[test]
    fn otherwise_our_own_prefix_comes_before_the_system() {
        assert_eq!(
            places(None, Some(Path::new("/opt/x/bin/cofferdam"))),
            ["/opt/x/libexec/cofferdam", "/opt/x/libexec", INSTALLED].map(PathBuf::from)
        );
        assert_eq!(
            places(None, Some(Path::new("/usr/bin/cofferdam"))),
            [INSTALLED, "/usr/libexec"].map(PathBuf::from)
        );
    }
}
