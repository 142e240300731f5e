//! What the command line and the environment say.

use std::ffi::OsString;
use std::path::PathBuf;

use super::paths::Host;
use super::problem::{Located, Origin, Problem};
use super::scalar::{Kind, Scalar};
use super::wire::{DriverLayer, KEYS, Key, Layer};

/// Flags that change the configuration. Each wins over its environment variable, which wins over
/// the files.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Flags {
    /// Configuration file; *.toml in conf.d beside it is read as well [env: COFFERDAM_CONFIG]
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,

    /// Socket for callers [env: COFFERDAM_SOCKET]
    #[arg(long, value_name = "PATH", global = true)]
    pub socket: Option<PathBuf>,

    /// Records and output [env: COFFERDAM_STATE_DIR]
    #[arg(long, value_name = "DIR", global = true)]
    pub state_dir: Option<PathBuf>,

    /// Sockets of drivers and sandboxes [env: COFFERDAM_RUNTIME_DIR]
    #[arg(long, value_name = "DIR", global = true)]
    pub runtime_dir: Option<PathBuf>,

    /// Where the supervisor and the built-in drivers are [env: COFFERDAM_LIBEXEC]
    #[arg(long, value_name = "DIR", global = true)]
    pub libexec: Option<PathBuf>,

    /// The supervisor's binary [env: COFFERDAM_SUPERVISOR]
    #[arg(long, value_name = "FILE", global = true)]
    pub supervisor: Option<PathBuf>,

    /// Use this built-in driver; repeatable [env: COFFERDAM_DRIVERS=NAME,…]
    #[arg(long = "driver", value_name = "NAME", global = true)]
    pub drivers: Vec<String>,

    /// Use a driver that listens here; repeatable [env: COFFERDAM_COMPUTE_DRIVER_SOCKETS=NAME=PATH,…]
    #[arg(
        long = "compute-driver-socket",
        value_name = "NAME=PATH",
        global = true
    )]
    pub compute_driver_sockets: Vec<OsString>,

    /// Driver of callers who name none [env: COFFERDAM_DEFAULT_DRIVER]
    #[arg(long, value_name = "NAME", global = true)]
    pub default_driver: Option<String>,

    /// Shape of the log: text or json [env: COFFERDAM_LOG_FORMAT]
    #[arg(long, value_name = "FORMAT", global = true)]
    pub log_format: Option<String>,

    /// What is logged: info, debug, cofferdam_gateway=debug,info … [env: COFFERDAM_LOG]
    #[arg(long = "log", value_name = "FILTER", global = true)]
    pub log_filter: Option<String>,
}

const DRIVERS_VARIABLE: &str = "COFFERDAM_DRIVERS";
const SOCKETS_VARIABLE: &str = "COFFERDAM_COMPUTE_DRIVER_SOCKETS";

/// What the flags say. Their relative paths are taken from the working directory.
pub(super) fn from_flags(flags: &Flags, host: &Host, problems: &mut Vec<Problem>) -> Layer {
    let text = |text: &Option<String>| text.as_ref().map(OsString::from);
    let path = |path: &Option<PathBuf>| {
        let path = path.as_ref()?;
        Some(host.directory.join(path).into_os_string())
    };
    let said = [
        ("--socket", path(&flags.socket)),
        ("--state-dir", path(&flags.state_dir)),
        ("--runtime-dir", path(&flags.runtime_dir)),
        ("--libexec", path(&flags.libexec)),
        ("--supervisor", path(&flags.supervisor)),
        ("--default-driver", text(&flags.default_driver)),
        ("--log-format", text(&flags.log_format)),
        ("--log", text(&flags.log_filter)),
    ];
    let mut layer = Layer::default();
    for (flag, value) in said {
        let key = KEYS.iter().find(|key| key.flag == Some(flag));
        if let (Some(key), Some(value)) = (key, value) {
            set(&mut layer, key, &value, Origin::Flag(flag), problems);
        }
    }
    let mut drivers = Drivers {
        layer: &mut layer,
        origin: Origin::Flag("--driver"),
        problems,
    };
    for name in &flags.drivers {
        drivers.enable(name);
    }
    drivers.origin = Origin::Flag("--compute-driver-socket");
    for socket in &flags.compute_driver_sockets {
        drivers.socket(socket, Some(&host.directory));
    }
    layer
}

/// What the environment says. A variable that is set to nothing says nothing.
pub(super) fn from_environment(host: &Host, problems: &mut Vec<Problem>) -> Layer {
    let mut layer = Layer::default();
    for key in KEYS {
        if let Some(variable) = key.variable
            && let Some(value) = host.variable(variable)
        {
            set(
                &mut layer,
                key,
                value,
                Origin::Environment(variable),
                problems,
            );
        }
    }
    let mut drivers = Drivers {
        layer: &mut layer,
        origin: Origin::Environment(DRIVERS_VARIABLE),
        problems,
    };
    let list = |variable| {
        let text = host.variable(variable).map(|text| text.to_string_lossy());
        let text = text.unwrap_or_default().into_owned();
        let parts = text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty());
        parts.map(str::to_owned).collect::<Vec<_>>()
    };
    for name in list(DRIVERS_VARIABLE) {
        drivers.enable(&name);
    }
    drivers.origin = Origin::Environment(SOCKETS_VARIABLE);
    for socket in list(SOCKETS_VARIABLE) {
        drivers.socket(socket.as_ref(), None);
    }
    layer
}

fn set(
    layer: &mut Layer,
    key: &Key,
    value: &OsString,
    origin: Origin,
    problems: &mut Vec<Problem>,
) {
    let read = match (key.kind, value.to_str()) {
        (Kind::Path, None) => Ok(Scalar::Path(value.into())),
        (_, Some(text)) => key.kind.parse_text(text, key.or_none),
        (_, None) => Err("is not UTF-8".to_owned()),
    };
    match read {
        Ok(value) => {
            layer.values.insert(key.name, Located { value, origin });
        }
        Err(message) => problems.push(Problem::new(origin, key.name, message)),
    }
}

struct Drivers<'a> {
    layer: &'a mut Layer,
    origin: Origin,
    problems: &'a mut Vec<Problem>,
}

impl Drivers<'_> {
    fn enable(&mut self, name: &str) {
        let mut driver = DriverLayer::new(self.origin.clone());
        driver.enabled = Some(true);
        self.add(name, driver);
    }

    /// "NAME=PATH"
    fn socket(&mut self, text: &std::ffi::OsStr, directory: Option<&std::path::Path>) {
        let shown = text.to_string_lossy();
        let parts = shown.split_once('=');
        let Some((name, path)) = parts.filter(|(name, path)| !name.is_empty() && !path.is_empty())
        else {
            let message = format!("must be NAME=PATH, not {shown:?}");
            return self
                .problems
                .push(Problem::new(self.origin.clone(), "", message));
        };
        let path = match directory {
            Some(directory) => directory.join(path),
            None => path.into(),
        };
        if !path.is_absolute() {
            let message = format!(
                "must be an absolute path, not {:?}",
                path.display().to_string()
            );
            return self.problems.push(Problem::new(
                self.origin.clone(),
                format!("drivers.{name}"),
                message,
            ));
        }
        let mut driver = DriverLayer::new(self.origin.clone());
        driver.enabled = Some(true);
        driver.socket = Some(Located {
            value: path,
            origin: self.origin.clone(),
        });
        self.add(name, driver);
    }

    fn add(&mut self, name: &str, driver: DriverLayer) {
        if self.layer.drivers.insert(name.to_owned(), driver).is_some() {
            let message = "is named twice";
            self.problems.push(Problem::new(
                self.origin.clone(),
                format!("drivers.{name}"),
                message,
            ));
        }
    }
}
