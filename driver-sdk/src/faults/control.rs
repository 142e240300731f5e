//! The control socket: one JSON object a line, and one answer a line, in order.
//!
//! ```text
//!   {"set": SCRIPT}                                {"ok": null}
//!   {"restart": {"forget": true, "silent": true}}  {"ok": null}
//!   {"cut": {}}                                    {"ok": null}
//!   {"journal": {}}                                {"ok": JOURNAL}
//!   anything else                                  {"error": "what is wrong with it"}
//! ```
//!
//! When an answer has come, what was asked for holds.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio_util::task::TaskTracker;

use super::platform::{Restart, Shared};
use super::script::Script;
use crate::run::{ListenError, Listeners};

/// What can be asked for.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Command {
    Set(Box<Script>),
    Restart(Restart),
    Cut {},
    Journal {},
}

/// A control socket that listens.
#[derive(Debug)]
pub(super) struct Control(Listeners);

impl Control {
    /// At `path`, for this user only.
    pub(super) fn bind(path: &Path) -> Result<Self, ListenError> {
        Ok(Self(Listeners::bind(path, 0o600)?))
    }

    /// Serves until it is dropped.
    pub(super) async fn serve(self, live: Shared) {
        let Listeners { sockets, own: _own } = self.0;
        let tasks = TaskTracker::new();
        let accepting = sockets.into_iter().map(|socket| {
            let (live, tasks) = (live.clone(), tasks.clone());
            async move {
                while let Ok((stream, _)) = socket.accept().await {
                    tasks.spawn(converse(live.clone(), stream));
                }
            }
        });
        futures_util::future::join_all(accepting).await;
    }
}

async fn converse(live: Shared, stream: UnixStream) {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let answer = match serde_json::from_str(&line) {
            Ok(command) => obey(&live, command).await,
            Err(error) => Err(error.to_string()),
        };
        let answer = match answer {
            Ok(value) => json!({"ok": value}),
            Err(message) => json!({"error": message}),
        };
        // Who does not read has no questions.
        if write
            .write_all(format!("{answer}\n").as_bytes())
            .await
            .is_err()
        {
            return;
        }
    }
}

async fn obey(live: &Shared, command: Command) -> Result<Value, String> {
    match command {
        Command::Set(script) => live.set(*script),
        Command::Restart(restart) => {
            let restarted = live.restart(restart).await;
            restarted.map_err(|error| error.to_string())?;
        }
        Command::Cut {} => live.cut(),
        Command::Journal {} => {
            return serde_json::to_value(live.journal()).map_err(|error| error.to_string());
        }
    }
    Ok(Value::Null)
}
