//! Environment variables for the command: flags, files, and this process's own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::error::CommandError;

#[derive(Debug, Args)]
#[command(next_help_heading = "Environment options")]
pub(crate) struct EnvironmentFlags {
    /// Set a variable; without =VALUE, take it from this environment.
    #[arg(long, short, value_name = "KEY[=VALUE]")]
    env: Vec<String>,
    /// Set variables from a file of KEY=VALUE lines; # starts a comment.
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Pass a secret from this environment: its value is on no command line and in no log.
    #[arg(long, value_name = "KEY")]
    secret_env: Vec<String>,
}

impl EnvironmentFlags {
    /// All of them; a later kind wins: files, then --env, then --secret-env.
    pub(crate) fn resolve(&self) -> Result<BTreeMap<String, String>, CommandError> {
        let own = |key: &str| std::env::var(key).ok();
        let mut all = BTreeMap::new();
        for path in &self.env_file {
            let text = std::fs::read_to_string(path).map_err(|error| {
                CommandError::io(format!("cannot read {}", path.display()), error)
            })?;
            all.extend(parse_file(path, &text, own)?);
        }
        for text in &self.env {
            all.extend(parse_variable(text, own).map_err(CommandError::usage)?);
        }
        for key in &self.secret_env {
            if key.contains('=') {
                // Not shown: what follows the sign may be the secret.
                return Err(CommandError::usage(
                    "--secret-env takes the name of a variable, without a value",
                )
                .hint("export the secret in this shell and pass its name only"));
            }
            let value = own(key).ok_or_else(|| {
                CommandError::usage(format!("--secret-env {key}: not set in this environment"))
                    .hint(format!("export {key} before the call"))
            })?;
            all.insert(key.clone(), value);
        }
        Ok(all)
    }
}

/// "KEY=VALUE", for labels.
pub(crate) fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not KEY=VALUE")),
    }
}

/// "KEY=VALUE", or "KEY" for a variable of our own, which is left out when it is not set.
fn parse_variable(
    text: &str,
    own: impl Fn(&str) -> Option<String>,
) -> Result<Option<(String, String)>, String> {
    match text.split_once('=') {
        Some(("", _)) => Err("a variable needs a name before the =".to_owned()),
        Some((key, value)) => Ok(Some((key.to_owned(), value.to_owned()))),
        None if text.is_empty() => Err("a variable needs a name".to_owned()),
        None => Ok(own(text).map(|value| (text.to_owned(), value))),
    }
}

fn parse_file(
    path: &Path,
    text: &str,
    own: impl Fn(&str) -> Option<String> + Copy,
) -> Result<Vec<(String, String)>, CommandError> {
    let mut all = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let variable = parse_variable(line, own).map_err(|problem| {
            CommandError::usage(format!("{}:{}: {problem}", path.display(), index + 1))
        })?;
        all.extend(variable);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(key: &str) -> Option<String> {
        (key == "HOME").then(|| "/home/me".to_owned())
    }

    #[test]
    fn a_file_holds_pairs_comments_and_own_variables() {
        let text = "# comment\n\nA=1\n  B=x=y # kept\nHOME\nUNSET\nEMPTY=\n";
        assert_eq!(
            parse_file(Path::new("f"), text, own).unwrap(),
            [
                ("A", "1"),
                ("B", "x=y # kept"),
                ("HOME", "/home/me"),
                ("EMPTY", "")
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
        );
    }

    #[test]
    fn a_wrong_line_is_named_by_its_number() {
        let error = parse_file(Path::new("f.env"), "A=1\n=2\n", own).unwrap_err();
        assert_eq!(
            error.message,
            "f.env:2: a variable needs a name before the ="
        );
    }
}
