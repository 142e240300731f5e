//! Environment variables for the command: flags, files, and this process's own.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::error::CommandError;
use crate::ui::Ui;

#[derive(Debug, Args)]
#[command(next_help_heading = "Environment options")]
pub(crate) struct EnvironmentFlags {
    /// Set a variable; without =VALUE, pass on this environment's, if it has one.
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
    /// All of them; a later kind wins: files, then --env, then --secret-env. What is to come from
    /// this environment and is not in it is left out, and told.
    pub(crate) fn resolve(&self, ui: &Ui) -> Result<BTreeMap<String, String>, CommandError> {
        let mut all = BTreeMap::new();
        let mut add = |origin: &str, variable| match variable {
            Variable::Set(key, value) => {
                all.insert(key, value);
            }
            Variable::NotHere(key) => ui.note(&format!(
                "{origin} {key}: not set in this environment, so not passed on"
            )),
        };
        for path in &self.env_file {
            let text = std::fs::read_to_string(path).map_err(|error| {
                CommandError::io(format!("cannot read {}", path.display()), error)
            })?;
            for (origin, variable) in parse_file(path, &text, own)? {
                add(&origin, variable);
            }
        }
        for text in &self.env {
            let problem = |problem| CommandError::usage(format!("--env: {problem}"));
            add("--env", parse_variable(text, own).map_err(problem)?);
        }
        for key in &self.secret_env {
            let value = secret(key)?;
            all.insert(key.clone(), value);
        }
        Ok(all)
    }
}

/// What a KEY or KEY=VALUE comes to.
#[derive(Debug, PartialEq, Eq)]
enum Variable {
    Set(String, String),
    /// To be taken from this environment, which has none of this name.
    NotHere(String),
}

/// Of this process. An error: it is there, but cannot be passed on.
fn own(key: &str) -> Result<Option<String>, String> {
    match std::env::var_os(key).map(OsString::into_string) {
        None => Ok(None),
        Some(Ok(value)) => Ok(Some(value)),
        // The value is not shown: it may be a secret.
        Some(Err(_)) => Err(format!("the value of {key} is not UTF-8")),
    }
}

fn secret(key: &str) -> Result<String, CommandError> {
    if key.contains('=') {
        // Not shown: what follows the sign may be the secret.
        return Err(CommandError::usage(
            "--secret-env takes the name of a variable, without a value",
        )
        .hint("export the secret in this shell and pass its name only"));
    }
    let found = own(key).map_err(|problem| CommandError::usage(format!("--secret-env: {problem}")));
    found?.ok_or_else(|| {
        CommandError::usage(format!("--secret-env {key}: not set in this environment"))
            .hint(format!("export {key} before the call"))
    })
}

/// "KEY=VALUE", for labels.
pub(crate) fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not KEY=VALUE")),
    }
}

/// Where variables of our own come from.
type Own = fn(&str) -> Result<Option<String>, String>;

/// "KEY=VALUE", or "KEY" for a variable of our own.
fn parse_variable(text: &str, own: Own) -> Result<Variable, String> {
    match text.split_once('=') {
        Some(("", _)) => Err("a variable needs a name before the =".to_owned()),
        Some((key, value)) => Ok(Variable::Set(key.to_owned(), value.to_owned())),
        None if text.is_empty() => Err("a variable needs a name".to_owned()),
        None => Ok(match own(text)? {
            Some(value) => Variable::Set(text.to_owned(), value),
            None => Variable::NotHere(text.to_owned()),
        }),
    }
}

/// Each with the line that it is on.
fn parse_file(path: &Path, text: &str, own: Own) -> Result<Vec<(String, Variable)>, CommandError> {
    let mut all = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let origin = format!("{}:{}", path.display(), index + 1);
        match parse_variable(line, own) {
            Ok(variable) => all.push((format!("{origin}:"), variable)),
            Err(problem) => return Err(CommandError::usage(format!("{origin}: {problem}"))),
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(key: &str) -> Result<Option<String>, String> {
        match key {
            "HOME" => Ok(Some("/home/me".to_owned())),
            "ODD" => Err("the value of ODD is not UTF-8".to_owned()),
            _ => Ok(None),
        }
    }

    fn set(key: &str, value: &str) -> Variable {
        Variable::Set(key.to_owned(), value.to_owned())
    }

    #[test]
    fn a_file_holds_pairs_comments_and_own_variables() {
        let text = "# comment\n\nA=1\n  B=x=y # kept\nHOME\nUNSET\nEMPTY=\n";
        let parsed = parse_file(Path::new("f"), text, own).unwrap();
        let (lines, variables): (Vec<_>, Vec<_>) = parsed.into_iter().unzip();
        assert_eq!(lines, ["f:3:", "f:4:", "f:5:", "f:6:", "f:7:"]);
        assert_eq!(
            variables,
            [
                set("A", "1"),
                set("B", "x=y # kept"),
                set("HOME", "/home/me"),
                Variable::NotHere("UNSET".to_owned()),
                set("EMPTY", ""),
            ]
        );
    }

    #[test]
    fn a_value_that_cannot_be_passed_on_is_an_error_and_not_a_gap() {
        let error = parse_file(Path::new("f"), "A=1\nODD\n", own).unwrap_err();
        assert_eq!(error.message, "f:2: the value of ODD is not UTF-8");
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
