//! What a driver's program says of itself without being used: `--describe`, one JSON object.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::time::timeout;

use super::{DriverSource, DriverSpec, Violation, environment, schema_violations};

/// It only has to print.
const DESCRIBE_DEADLINE: Duration = Duration::from_secs(20);
const DESCRIPTION_BYTES_MAX: u64 = 1024 * 1024;

/// Settings that cannot be compared with a schema.
#[derive(Debug, thiserror::Error)]
pub enum DescribeError {
    #[error("its program cannot be asked")]
    Program(#[source] io::Error),
    #[error("its program says nothing within {} s", DESCRIBE_DEADLINE.as_secs())]
    Silent,
    #[error("its program does not describe itself")]
    Description(#[source] serde_json::Error),
}

/// As drivers built on the SDK describe themselves; there may be more in it.
#[derive(Deserialize)]
struct Description {
    settings_schema: Value,
}

/// What is wrong with the settings of a driver, as far as that can be seen before it runs. Nothing
/// of one that its operator starts, and of one without settings, whose program is not run either.
pub async fn check_settings(driver: &DriverSpec) -> Result<Vec<Violation>, DescribeError> {
    let program = match &driver.source {
        DriverSource::BuiltIn { program } if !driver.settings.is_empty() => program,
        _ => return Ok(Vec::new()),
    };
    // Dropped when it is late, which kills the program.
    let description = timeout(DESCRIBE_DEADLINE, describe(program)).await;
    let description = description.map_err(|_| DescribeError::Silent)??;
    let schema = description.settings_schema.to_string();
    Ok(schema_violations(&schema, &driver.settings))
}

async fn describe(program: &Path) -> Result<Description, DescribeError> {
    let mut child = Command::new(program)
        .arg("--describe")
        .env_clear()
        .envs(environment::passed_on(program, std::env::vars_os()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(DescribeError::Program)?;
    let mut text = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        let mut stdout = stdout.take(DESCRIPTION_BYTES_MAX);
        let read = stdout.read_to_end(&mut text).await;
        read.map_err(DescribeError::Program)?;
    }
    serde_json::from_slice(&text).map_err(DescribeError::Description)
}
