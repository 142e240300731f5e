//! What may stand in a configuration file: every key, strictly. What else stands there is a problem.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Located, Origin, Problem};
use super::scalar::{Kind, Scalar};

/// One key, and by what else than a file it can be set.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// "none" is a value, too.
    pub(super) or_none: bool,
    pub(super) flag: Option<&'static str>,
    pub(super) variable: Option<&'static str>,
}

const fn key(name: &'static str, kind: Kind) -> Key {
    Key {
        name,
        kind,
        or_none: false,
        flag: None,
        variable: None,
    }
}

impl Key {
    const fn or_none(self) -> Self {
        Self {
            or_none: true,
            ..self
        }
    }

    const fn also(self, flag: &'static str, variable: &'static str) -> Self {
        Self {
            flag: Some(flag),
            variable: Some(variable),
            ..self
        }
    }
}

/// Less than this, and a supervisor does not start.
const MEMORY_MIN: Kind = Kind::Bytes { min: 16 << 20 };
const DISK_MIN: Kind = Kind::Bytes { min: 1 << 20 };
/// The supervisor, a process's shim and the process itself, with some room.
const PIDS: Kind = Kind::Count {
    min: 8,
    max: 4 << 20,
};
const COUNT: Kind = Kind::Count {
    min: 1,
    max: 1_000_000,
};
/// 2^32 − 1 is no id; the root user has to be asked for by the caller.
const ID: Kind = Kind::Count {
    min: 1,
    max: 4_294_967_294,
};
const SECONDS: Kind = Kind::Duration { min_ms: 1_000 };
const INSTANT: Kind = Kind::Duration { min_ms: 0 };
/// A driver's watch says something every 10 s, by the contract.
const SILENCE: Kind = Kind::Duration { min_ms: 11_000 };
const CAP: Kind = Kind::Bytes { min: 0 };

/// All keys but those of drivers, in the order in which they are shown.
pub(super) const KEYS: &[Key] = &[
    key("state_dir", Kind::Path).also("--state-dir", "COFFERDAM_STATE_DIR"),
    key("runtime_dir", Kind::Path).also("--runtime-dir", "COFFERDAM_RUNTIME_DIR"),
    key("libexec_dir", Kind::Path).also("--libexec", "COFFERDAM_LIBEXEC"),
    key("supervisor", Kind::Path).also("--supervisor", "COFFERDAM_SUPERVISOR"),
    key("default_driver", Kind::Text).also("--default-driver", "COFFERDAM_DEFAULT_DRIVER"),
    key("socket.path", Kind::Path).also("--socket", "COFFERDAM_SOCKET"),
    key("socket.mode", Kind::Mode),
    key("socket.group", Kind::Text).or_none(),
    key("defaults.memory", MEMORY_MIN),
    key("defaults.cpus", Kind::Cpus),
    key("defaults.pids", PIDS),
    key("defaults.disk", DISK_MIN),
    key("defaults.tmp", DISK_MIN),
    key("defaults.lifetime", SECONDS),
    key("defaults.uid", ID),
    key("defaults.gid", ID),
    key("maximum.memory", MEMORY_MIN).or_none(),
    key("maximum.cpus", Kind::Cpus).or_none(),
    key("maximum.pids", PIDS).or_none(),
    key("maximum.disk", DISK_MIN).or_none(),
    key("maximum.tmp", DISK_MIN).or_none(),
    key("maximum.lifetime", SECONDS).or_none(),
    key("maximum.sandboxes", COUNT).or_none(),
    key("executions.timeout_default", SECONDS),
    key("executions.timeout_max", SECONDS),
    key("executions.cancel_grace", INSTANT),
    key("executions.output_cap_default", CAP),
    key("executions.output_cap_max", CAP),
    key("executions.running_max", COUNT),
    key("executions.queue_max", COUNT),
    key("executions.retention", INSTANT),
    key("timeouts.create", SECONDS),
    key("timeouts.session", SECONDS),
    key("timeouts.drain", INSTANT),
    key("timeouts.driver", SECONDS),
    key("timeouts.driver_silence", SILENCE),
    key("log.format", Kind::Choice(&["text", "json"])).also("--log-format", "COFFERDAM_LOG_FORMAT"),
    key("log.filter", Kind::Text).also("--log", "COFFERDAM_LOG"),
];

const DRIVER_KEYS: &[&str] = &["enabled", "path", "socket", "settings"];

/// What one source says.
#[derive(Debug, Default)]
pub(super) struct Layer {
    pub(super) values: BTreeMap<&'static str, Located<Scalar>>,
    pub(super) drivers: BTreeMap<String, DriverLayer>,
}

/// What one source says about one driver.
#[derive(Debug, Clone)]
pub(super) struct DriverLayer {
    pub(super) origin: Origin,
    pub(super) enabled: Option<bool>,
    /// Who starts it; at most one of the two is said in one place.
    pub(super) program: Option<Located<PathBuf>>,
    pub(super) socket: Option<Located<PathBuf>>,
    pub(super) settings: Map<String, Value>,
}

impl DriverLayer {
    pub(super) fn new(origin: Origin) -> Self {
        Self {
            origin,
            enabled: None,
            program: None,
            socket: None,
            settings: Map::new(),
        }
    }

    /// To be found among the gateway's own helper programs.
    pub(super) fn is_built_in(&self) -> bool {
        self.program.is_none() && self.socket.is_none()
    }

    /// Nobody named it.
    pub(super) fn is_implied(&self) -> bool {
        matches!(self.origin, Origin::Default(_))
    }
}

impl Layer {
    /// Puts a stronger layer over this one.
    pub(super) fn overlay(&mut self, stronger: Self) {
        self.values.extend(stronger.values);
        for (name, over) in stronger.drivers {
            match self.drivers.get_mut(&name) {
                None => {
                    self.drivers.insert(name, over);
                }
                Some(driver) => {
                    if over.program.is_some() || over.socket.is_some() {
                        driver.origin = over.origin;
                        driver.program = over.program;
                        driver.socket = over.socket;
                    }
                    driver.enabled = over.enabled.or(driver.enabled);
                    merge(&mut driver.settings, over.settings);
                }
            }
        }
    }
}

/// Tables are merged, everything else is replaced.
fn merge(base: &mut Map<String, Value>, over: Map<String, Value>) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Object(base)), Value::Object(over)) => merge(base, over),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// Reads one file.
pub(super) fn decode(path: PathBuf, text: &str, problems: &mut Vec<Problem>) -> Layer {
    let file = File {
        path: Arc::new(path),
        text,
    };
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        // What else is wrong with a file that cannot be read for sure is guesswork.
        problems.extend(errors.iter().map(|error| {
            let start = error.span().map_or(0, |span| span.start);
            Problem::new(file.origin(start), "", error.message())
        }));
        return Layer::default();
    }
    let mut layer = Layer::default();
    file.table("", table.get_ref(), &mut layer, problems);
    layer
}

struct File<'a> {
    path: Arc<PathBuf>,
    text: &'a str,
}

impl File<'_> {
    fn origin(&self, position: usize) -> Origin {
        let before = &self.text.as_bytes()[..position.min(self.text.len())];
        Origin::File {
            path: Arc::clone(&self.path),
            line: 1 + before.iter().filter(|byte| **byte == b'\n').count(),
        }
    }

    fn table(
        &self,
        prefix: &str,
        table: &DeTable<'_>,
        layer: &mut Layer,
        problems: &mut Vec<Problem>,
    ) {
        for (name, value) in table {
            let full = format!("{prefix}{}", name.get_ref());
            let origin = self.origin(name.span().start);
            if full == "drivers" {
                self.drivers(&origin, value, layer, problems);
            } else if let Some(key) = KEYS.iter().find(|key| key.name == full) {
                match key.kind.parse_toml(value.get_ref(), key.or_none) {
                    Ok(value) => {
                        layer.values.insert(key.name, Located { value, origin });
                    }
                    Err(message) => problems.push(Problem::new(origin, full, message)),
                }
            } else if is_section(&full) {
                match value.get_ref() {
                    DeValue::Table(table) => {
                        self.table(&format!("{full}."), table, layer, problems);
                    }
                    other => problems.push(not_a_table(origin, full, other)),
                }
            } else {
                problems.push(unknown(origin, &full, &siblings(prefix)));
            }
        }
    }

    fn drivers(
        &self,
        origin: &Origin,
        value: &Spanned<DeValue<'_>>,
        layer: &mut Layer,
        problems: &mut Vec<Problem>,
    ) {
        let DeValue::Table(drivers) = value.get_ref() else {
            let problem = not_a_table(origin.clone(), "drivers".to_owned(), value.get_ref());
            return problems.push(problem.hint("write [drivers.NAME]"));
        };
        for (name, value) in drivers {
            let origin = self.origin(name.span().start);
            let full = format!("drivers.{}", name.get_ref());
            match value.get_ref() {
                DeValue::Table(table) => {
                    let driver = self.driver(&full, origin, table, problems);
                    layer.drivers.insert(name.get_ref().to_string(), driver);
                }
                other => problems.push(not_a_table(origin, full, other)),
            }
        }
    }

    fn driver(
        &self,
        full: &str,
        origin: Origin,
        table: &DeTable<'_>,
        problems: &mut Vec<Problem>,
    ) -> DriverLayer {
        let mut driver = DriverLayer::new(origin);
        for (name, value) in table {
            let origin = self.origin(name.span().start);
            let subject = format!("{full}.{}", name.get_ref());
            let outcome = match (name.get_ref().as_ref(), value.get_ref()) {
                ("enabled", DeValue::Boolean(enabled)) => {
                    driver.enabled = Some(*enabled);
                    Ok(())
                }
                ("enabled", other) => {
                    Err(format!("must be true or false, not a {}", other.type_str()))
                }
                ("path", value) => path(value, &origin).map(|path| driver.program = Some(path)),
                ("socket", value) => path(value, &origin).map(|path| driver.socket = Some(path)),
                ("settings", DeValue::Table(table)) => {
                    object(table).map(|settings| driver.settings = settings)
                }
                ("settings", other) => {
                    problems.push(not_a_table(origin, subject, other));
                    continue;
                }
                _ => {
                    let hint = format!("what only this driver knows goes below [{full}.settings]");
                    problems.push(unknown(origin, &subject, DRIVER_KEYS).hint_if_none(hint));
                    continue;
                }
            };
            if let Err(message) = outcome {
                problems.push(Problem::new(origin, subject, message));
            }
        }
        if driver.program.is_some() && driver.socket.is_some() {
            let message = "has both a path and a socket";
            let hint = "path: the gateway starts the driver; socket: somebody else does";
            problems.push(Problem::new(driver.origin.clone(), full, message).hint(hint));
        }
        driver
    }
}

fn path(value: &DeValue<'_>, origin: &Origin) -> Result<Located<PathBuf>, String> {
    match Kind::Path.parse_toml(value, false)? {
        Scalar::Path(value) => Ok(Located {
            value,
            origin: origin.clone(),
        }),
        _ => Err("must be a path".to_owned()),
    }
}

fn not_a_table(origin: Origin, full: String, found: &DeValue<'_>) -> Problem {
    let message = format!("must be a table, not {}", article(found.type_str()));
    let hint = format!("write [{full}]");
    Problem::new(origin, full, message).hint(hint)
}

fn article(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'i']) {
        "an"
    } else {
        "a"
    };
    format!("{article} {noun}")
}

fn is_section(full: &str) -> bool {
    let inside = |key: &Key| {
        key.name
            .strip_prefix(full)
            .is_some_and(|rest| rest.starts_with('.'))
    };
    KEYS.iter().any(inside)
}

/// What may stand directly below a prefix.
fn siblings(prefix: &str) -> Vec<&'static str> {
    let mut names: Vec<_> = KEYS
        .iter()
        .filter_map(|key| key.name.strip_prefix(prefix))
        .filter_map(|rest| rest.split('.').next())
        .collect();
    if prefix.is_empty() {
        names.push("drivers");
    }
    names.dedup();
    names
}

fn unknown(origin: Origin, full: &str, known: &[&str]) -> Problem {
    let problem = Problem::new(origin, full, "is not a key that Cofferdam knows");
    let name = full.rsplit('.').next().unwrap_or(full);
    match nearest(name, known.iter().copied()) {
        Some(near) => problem.hint(format!("did you mean {near}?")),
        None => problem,
    }
}

impl Problem {
    fn hint_if_none(mut self, hint: String) -> Self {
        self.hint.get_or_insert(hint);
        self
    }
}

/// The one that is probably meant.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = name.chars().count().div_ceil(3);
    known
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

/// How many letters have to be added, removed or changed.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let change = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

fn object(table: &DeTable<'_>) -> Result<Map<String, Value>, String> {
    let pairs = table
        .iter()
        .map(|(key, value)| Ok((key.get_ref().to_string(), json(value.get_ref())?)));
    pairs.collect()
}

/// TOML as JSON; dates become strings.
fn json(value: &DeValue<'_>) -> Result<Value, String> {
    Ok(match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Boolean(value) => Value::Bool(*value),
        DeValue::Datetime(time) => Value::String(time.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map(Value::from)
            .map_err(|_| format!("holds {number}, which does not fit in 64 bits"))?,
        DeValue::Float(number) => number
            .as_str()
            .parse()
            .ok()
            .and_then(serde_json::Number::from_f64)
            .map(Value::Number)
            .ok_or_else(|| format!("holds {number}, which JSON does not know"))?,
        DeValue::Array(values) => {
            let values = values.iter().map(|value| json(value.get_ref()));
            Value::Array(values.collect::<Result<_, _>>()?)
        }
        DeValue::Table(table) => Value::Object(object(table)?),
    })
}
