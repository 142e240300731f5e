//! Log lines on stderr.

use std::io::IsTerminal;

use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt};

use crate::config::{Host, LogConfig, LogFormat};

/// Starts logging. A second call changes nothing.
pub fn init(config: &LogConfig, host: &Host) {
    let is_set = |name: &str| host.environment.get(name).is_some_and(|v| !v.is_empty());
    let lines = fmt::layer().with_writer(std::io::stderr);
    let layer: Box<dyn Layer<Registry> + Send + Sync> = match config.format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        // The journal has a time of its own.
        LogFormat::Text if is_set("JOURNAL_STREAM") => {
            lines.with_ansi(false).without_time().boxed()
        }
        LogFormat::Text => {
            let colours = std::io::stderr().is_terminal() && !is_set("NO_COLOR");
            lines.with_ansi(colours).boxed()
        }
    };
    // The filter was checked with the configuration; if it is odd all the same, "info" it is.
    let filter = EnvFilter::try_new(&config.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let layer = layer.with_filter(filter);
    // An error says that somebody else has set up logging, which is fine.
    let _ = tracing_subscriber::registry().with(layer).try_init();
}
