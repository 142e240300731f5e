//! Where a copy comes from or goes to. Pure.

use std::path::PathBuf;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Spot {
    Local(PathBuf),
    /// "-"
    Stdio,
    /// SANDBOX:PATH; a relative path is below the workspace.
    Sandbox {
        sandbox: String,
        path: String,
    },
}

impl Spot {
    /// A local path with a colon in it is written with a slash before: ./a:b.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            _ if text.is_empty() => Err("a path is needed".to_owned()),
            _ if text == "-" => Ok(Self::Stdio),
            Some((sandbox, path)) if is_name(sandbox) => Ok(Self::Sandbox {
                sandbox: sandbox.to_owned(),
                path: if path.is_empty() { "." } else { path }.to_owned(),
            }),
            _ => Ok(Self::Local(PathBuf::from(text))),
        }
    }
}

/// What the contract allows as a name or an id.
fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && !text.starts_with('-') && text.bytes().all(allowed)
}

/// The last component of a path in a sandbox; none of "/", "." and "..".
pub(super) fn base_name(path: &str) -> Option<&str> {
    path.trim_end_matches('/')
        .rsplit('/')
        .next()
        .filter(|name| !matches!(*name, "" | "." | ".."))
}

/// A path below a directory in a sandbox.
pub(super) fn join(directory: &str, name: &str) -> String {
    match directory {
        "." => name.to_owned(),
        _ => format!("{}/{name}", directory.trim_end_matches('/')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox(sandbox: &str, path: &str) -> Result<Spot, String> {
        Ok(Spot::Sandbox {
            sandbox: sandbox.to_owned(),
            path: path.to_owned(),
        })
    }

    #[test]
    fn only_a_name_before_the_colon_means_a_sandbox() {
        assert_eq!(Spot::parse("web:/etc/hosts"), sandbox("web", "/etc/hosts"));
        assert_eq!(Spot::parse("web:"), sandbox("web", "."));
        assert_eq!(Spot::parse("-"), Ok(Spot::Stdio));
        for local in ["./a:b", "/x:y", "A:b", "file", "a b:c"] {
            assert_eq!(Spot::parse(local), Ok(Spot::Local(local.into())), "{local}");
        }
    }

    #[test]
    fn names_are_taken_and_joined_as_people_expect() {
        assert_eq!(base_name("/a/b/"), Some("b"));
        assert_eq!(base_name("b"), Some("b"));
        for none in ["/", ".", "a/..", "a/."] {
            assert_eq!(base_name(none), None, "{none}");
        }
        assert_eq!(join(".", "x"), "x");
        assert_eq!(join("/", "x"), "/x");
        assert_eq!(join("a/", "x"), "a/x");
    }
}
