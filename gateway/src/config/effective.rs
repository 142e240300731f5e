//! The configuration as it is used, for people: each value, and why it is that.

use std::fmt::{self, Write as _};
use std::path::PathBuf;

use super::problem::Origin;
use super::{DriverSource, DriverSpec};

/// What a gateway would run with. Displayed, it is a configuration file that says the same (but for
/// the drivers' settings, which may be secrets).
#[derive(Debug, Clone)]
pub struct Effective {
    pub(super) files: Vec<PathBuf>,
    pub(super) lines: Vec<Line>,
    pub(super) drivers: Vec<(DriverSpec, Origin)>,
}

#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) name: &'static str,
    pub(super) value: String,
    pub(super) origin: Origin,
}

/// Comments begin here, if the value leaves room.
const COMMENT_COLUMN: usize = 44;

impl fmt::Display for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.files.as_slice() {
            [] => writeln!(f, "# No configuration file was found.")?,
            files => {
                for path in files {
                    writeln!(f, "# From {}", path.display())?;
                }
            }
        }
        let mut section = "";
        for line in &self.lines {
            let (table, key) = line.name.rsplit_once('.').unwrap_or(("", line.name));
            if table != section {
                writeln!(f, "\n[{table}]")?;
                section = table;
            }
            let text = format!("{key} = {}", line.value);
            writeln!(f, "{text:<COMMENT_COLUMN$} # {}", Why(&line.origin))?;
        }
        for (driver, origin) in &self.drivers {
            writeln!(f, "\n[drivers.{}]", driver.name)?;
            let mut text = String::new();
            match &driver.source {
                DriverSource::BuiltIn { program } => write!(text, "path = {}", quote(program))?,
                DriverSource::Socket { path } => write!(text, "socket = {}", quote(path))?,
            }
            writeln!(f, "{text:<COMMENT_COLUMN$} # {}", Why(origin))?;
            if !driver.settings.is_empty() {
                let names: Vec<&str> = driver.settings.keys().map(String::as_str).collect();
                writeln!(f, "# settings (values are not shown): {}", names.join(", "))?;
            }
        }
        Ok(())
    }
}

struct Why<'a>(&'a Origin);

impl fmt::Display for Why<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Origin::Default(reason) => write!(f, "default: {reason}"),
            origin => write!(f, "{origin}"),
        }
    }
}

fn quote(path: &std::path::Path) -> String {
    toml::Value::String(path.display().to_string()).to_string()
}
