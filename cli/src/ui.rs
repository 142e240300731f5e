//! The two outputs: stdout for data, stderr for people. Nothing else writes text.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde_json::{Value, json};

use crate::error::{CommandError, Kind, Violation};
use crate::repeats::Repeats;
use crate::session::terminal;

#[derive(Debug)]
pub(crate) struct Ui {
    /// One object, or one object a line, instead of text.
    pub(crate) json: bool,
    /// Ids only, and no remarks.
    pub(crate) quiet: bool,
    colour_stdout: bool,
    colour_stderr: bool,
    stderr_is_terminal: bool,
    repeats: Mutex<Repeats>,
}

/// What a text means, not how it looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Good,
    Warning,
    Bad,
    Faint,
}

impl Ui {
    pub(crate) fn new(json: bool, quiet: bool) -> Self {
        // https://no-color.org: set and not empty, whatever it says.
        let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        Self {
            json,
            quiet,
            colour_stdout: colour && io::stdout().is_terminal(),
            colour_stderr: colour && io::stderr().is_terminal(),
            stderr_is_terminal: io::stderr().is_terminal(),
            repeats: Mutex::default(),
        }
    }

    /// Somebody is looking.
    pub(crate) fn is_watched(&self) -> bool {
        self.stderr_is_terminal && !self.quiet && !self.json
    }

    /// Writes data.
    pub(crate) fn out(&self, text: &str) -> Result<(), CommandError> {
        let mut stdout = io::stdout().lock();
        stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush())
            .map_err(CommandError::output)
    }

    pub(crate) fn line(&self, text: &str) -> Result<(), CommandError> {
        self.out(&format!("{text}\n"))
    }

    /// Writes one JSON object on a line of its own.
    pub(crate) fn object(&self, value: &impl serde::Serialize) -> Result<(), CommandError> {
        let text = serde_json::to_string(value).map_err(|error| {
            CommandError::new(Kind::Internal, "cannot write the result as JSON").caused_by(error)
        })?;
        self.line(&text)
    }

    /// Tells people something that is not an error.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            self.remark(text);
        }
    }

    /// Tells people something that they must not miss.
    pub(crate) fn remark(&self, text: &str) {
        let name = paint("cofferdam:", Tone::Faint, self.colour_stderr);
        self.err(&format!("{name} {}\n", one_line(text)));
    }

    /// A remark that may come often: of each topic the first few are shown, the rest counted.
    pub(crate) fn remark_again(&self, topic: &str, text: &str) {
        let admitted = self.repeats().admit(topic, Instant::now());
        match admitted {
            None => {}
            Some(0) => self.remark(text),
            Some(withheld) => self.remark(&format!("{text} ({withheld} more like it before)")),
        }
    }

    /// As `remark_again`, for what need not be heard.
    pub(crate) fn note_again(&self, topic: &str, text: &str) {
        if !self.quiet {
            self.remark_again(topic, text);
        }
    }

    /// At the end, what was not shown is at least counted.
    pub(crate) fn tell_withheld(&self) {
        let withheld = self.repeats().take_withheld();
        for (topic, count) in withheld {
            self.remark(&format!("{topic}: {count} more remarks were not shown"));
        }
    }

    fn repeats(&self) -> MutexGuard<'_, Repeats> {
        self.repeats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn error(&self, error: &CommandError) {
        if error.kind == Kind::OutputClosed {
            return;
        }
        if self.json {
            self.err(&format!(
                "{}\n",
                json!({ "exit_code": error.exit_code(), "error": error_value(error) })
            ));
        } else {
            self.err(&self.error_text(error));
        }
    }

    fn error_text(&self, error: &CommandError) -> String {
        let label = paint("error:", Tone::Bad, self.colour_stderr);
        let (sentence, listed) = told_once(error);
        let mut text = format!("{label} {}: {}\n", error.kind.words(), one_line(&sentence));
        for violation in listed {
            text.push_str(&format!("  {}\n", one_line(&violation_text(violation))));
        }
        let hints = error.hint.as_deref().unwrap_or_default();
        for hint in hints.lines().filter(|line| !line.trim().is_empty()) {
            let label = paint("hint:", Tone::Warning, self.colour_stderr);
            text.push_str(&format!("{label} {}\n", one_line(hint)));
        }
        if let Some(request_id) = &error.request_id {
            let line = format!("request: {}", one_line(request_id));
            text.push_str(&format!(
                "{}\n",
                paint(&line, Tone::Faint, self.colour_stderr)
            ));
        }
        text
    }

    pub(crate) fn paint_out(&self, text: &str, tone: Tone) -> String {
        paint(text, tone, self.colour_stdout)
    }

    /// Writes to stderr as it is. That nobody reads it is no reason to fail.
    pub(crate) fn err(&self, text: &str) {
        let text = if terminal::is_raw() {
            text.replace('\n', "\r\n")
        } else {
            text.to_owned()
        };
        let mut stderr = io::stderr().lock();
        let _ = stderr.write_all(text.as_bytes());
    }
}

/// An error as programs get it.
pub(crate) fn error_value(error: &CommandError) -> Value {
    json!({
        "kind": error.kind.name(),
        "reason": error.reason,
        "message": error.sentence(),
        "hint": error.hint,
        "violations": error.violations.iter().map(|violation| json!({
            "field": violation.field,
            "flag": violation.flag,
            "message": violation.message,
        })).collect::<Vec<_>>(),
        "request_id": error.request_id,
        "retry_after_ms": error.retry_after_ms,
    })
}

/// Text from elsewhere must not move the cursor or forge lines: control characters are escaped.
pub(crate) fn one_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}

/// The sentence, and the problems that it does not tell. A lone one is the whole sentence.
fn told_once(error: &CommandError) -> (String, &[Violation]) {
    match error.violations.as_slice() {
        [one] if error.message.ends_with(&one.message) => (violation_text(one), &[]),
        all => (error.sentence(), all),
    }
}

/// By its flag where there is one; the contract's name only where it says more.
fn violation_text(violation: &Violation) -> String {
    let Violation { field, message, .. } = violation;
    match violation.flag {
        Some(flag) if flag == "--driver-config" || field.contains('[') => {
            format!("{flag}: {message} ({field})")
        }
        Some(flag) => format!("{flag}: {message}"),
        None if field.is_empty() => message.clone(),
        None => format!("{field}: {message}"),
    }
}

fn paint(text: &str, tone: Tone, colour: bool) -> String {
    let code = match tone {
        Tone::Plain => return text.to_owned(),
        Tone::Good => "32",
        Tone::Warning => "33",
        Tone::Bad => "1;31",
        Tone::Faint => "2",
    };
    if colour {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invalid(message: &str, violations: &[(&str, Option<&'static str>, &str)]) -> CommandError {
        let mut error = CommandError::new(Kind::Invalid, message);
        error.violations = violations
            .iter()
            .map(|(field, flag, message)| Violation {
                field: (*field).to_owned(),
                flag: *flag,
                message: (*message).to_owned(),
            })
            .collect();
        error
    }

    #[test]
    fn foreign_text_cannot_steer_the_terminal() {
        assert_eq!(one_line("a\x1b[2Jb\nc\u{9b}d"), "a\\u{1b}[2Jb\\nc\\u{9b}d");
    }

    #[test]
    fn a_lone_problem_is_told_once_and_by_its_flag() {
        let field = ("memory_bytes", Some("--memory"), "1 KiB is too small");
        let error = invalid("memory_bytes: 1 KiB is too small", &[field]);
        let (sentence, listed) = told_once(&error);
        assert_eq!(sentence, "--memory: 1 KiB is too small");
        assert!(listed.is_empty());
    }

    #[test]
    fn several_problems_are_listed() {
        let fields = [
            ("memory_bytes", Some("--memory"), "1 KiB is too small"),
            ("driver_config.x", Some("--driver-config"), "is unknown"),
            ("argv", None, "is empty"),
        ];
        let error = invalid("the request has 3 problems", &fields);
        let (sentence, listed) = told_once(&error);
        assert_eq!(sentence, "the request has 3 problems");
        let listed: Vec<_> = listed.iter().map(violation_text).collect();
        assert_eq!(
            listed,
            [
                "--memory: 1 KiB is too small",
                "--driver-config: is unknown (driver_config.x)",
                "argv: is empty",
            ]
        );
    }
}
