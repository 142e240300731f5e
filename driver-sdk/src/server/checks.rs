//! Requests against the contract's bounds, before anything else is done with them.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message as _;

use super::Server;
use crate::context::Call;
use crate::driver::{ComputeDriver, CreateRequest};
use crate::error::DriverError;
use crate::handle::HANDLE_BYTES_MAX;
use crate::proto::{
    self, CreateSandboxRequest, Execution, FieldViolation, Handle, RecoverSandboxesRequest,
    RunCommandRequest, SandboxSpec, SandboxStatsRequest,
};
use crate::settings;
use crate::spec::{self, SpecDigest, Violations, bounds};
use crate::supervisor::Token;

/// The shortest interval of statistics.
const STATS_INTERVAL_MS_MIN: u64 = 100;

impl<D: ComputeDriver> Server<D> {
    /// Everything that is wrong with a spec: the contract, the schema, then the driver's own view.
    pub(super) async fn violations(
        &self,
        call: &Call,
        spec: &SandboxSpec,
    ) -> Result<Vec<FieldViolation>, DriverError> {
        let mut found = spec::validate(spec, &self.0.driver.capabilities());
        found.extend(self.driver_config_violations(spec));
        if found.is_empty() {
            // The driver may rely on a spec that is right in itself.
            found = self.0.driver.validate(call, spec).await?;
        }
        Ok(found)
    }

    fn driver_config_violations(&self, spec: &SandboxSpec) -> Vec<FieldViolation> {
        let violation = |message: &str| {
            vec![FieldViolation {
                field: "driver_config".to_owned(),
                message: message.to_owned(),
            }]
        };
        let Some(config) = &spec.driver_config else {
            return Vec::new();
        };
        if config.encoded_len() > bounds::STRUCT_BYTES_MAX {
            return violation("may have 256 KiB");
        }
        if !self.0.driver_config_schema.exists() && !config.fields.is_empty() {
            return violation("this driver takes none");
        }
        self.0
            .driver_config_schema
            .violations("driver_config", &settings::to_json(config))
    }

    /// The request as the driver gets it.
    pub(super) async fn checked_create(
        &self,
        call: &Call,
        request: CreateSandboxRequest,
    ) -> Result<CreateRequest, DriverError> {
        let supervised = self.0.driver.capabilities().execution() == Execution::Supervised;
        let mut found = Violations::new();
        found.id("sandbox_id", &request.sandbox_id);
        found.string("operation_id", &request.operation_id);
        found.string("callback_directory", &request.callback_directory);
        found.check(request.spec.is_some(), "spec", "must be set");
        let token = Token::from_slice(&request.bootstrap_token);
        if supervised {
            found.check(token.is_some(), "bootstrap_token", "must have 32 bytes");
            found.check(
                request.callback_directory.starts_with('/'),
                "callback_directory",
                "must be an absolute path",
            );
        }
        found.into_result()?;
        let spec = request.spec.unwrap_or_default();
        let mut found = Violations::new();
        found.extend(in_spec(self.violations(call, &spec).await?));
        if self.is_new(call, &request.sandbox_id) {
            found.extend(in_spec(expired(&spec)));
        }
        found.into_result()?;
        Ok(CreateRequest {
            digest: SpecDigest::of(&spec),
            sandbox_id: request.sandbox_id,
            spec,
            callback_directory: directory(request.callback_directory),
            token: token.unwrap_or_else(Token::unused),
        })
    }

    fn is_new(&self, call: &Call, sandbox_id: &str) -> bool {
        let observations = &self.0.context.observations;
        observations
            .current(call.gateway_id(), sandbox_id)
            .is_none()
    }
}

/// In a create, the fields of the spec are below `spec`; in the answer to ValidateSandbox they are
/// not.
fn in_spec(violations: Vec<FieldViolation>) -> impl Iterator<Item = FieldViolation> {
    violations.into_iter().map(|mut violation| {
        violation.field = format!("spec.{}", violation.field);
        violation
    })
}

/// A sandbox that would have to be removed before it is made.
pub(super) fn expired(spec: &SandboxSpec) -> Vec<FieldViolation> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_ms = now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
    if spec.expire_time_unix_ms > now_ms {
        return Vec::new();
    }
    vec![FieldViolation {
        field: "expire_time_unix_ms".to_owned(),
        message: "has passed already".to_owned(),
    }]
}

pub(super) fn directory(path: String) -> Option<PathBuf> {
    (!path.is_empty()).then(|| PathBuf::from(path))
}

/// A call about one sandbox.
pub(super) fn sandbox(sandbox_id: &str, operation_id: &str) -> Result<(), DriverError> {
    let mut found = Violations::new();
    found.id("sandbox_id", sandbox_id);
    found.string("operation_id", operation_id);
    found.into_result()
}

/// A call about one snapshot.
pub(super) fn snapshot(
    snapshot_id: &str,
    operation_id: &str,
    snapshot: Option<&Handle>,
) -> Result<(), DriverError> {
    let mut found = Violations::new();
    found.id("snapshot_id", snapshot_id);
    found.string("operation_id", operation_id);
    handle("handle", snapshot, &mut found);
    found.into_result()
}

pub(super) fn start_token(bytes: &[u8]) -> Result<Token, DriverError> {
    Token::from_slice(bytes)
        .ok_or_else(|| DriverError::invalid_field("bootstrap_token", "must have 32 bytes"))
}

pub(super) fn recover(request: &RecoverSandboxesRequest) -> Result<(), DriverError> {
    let mut found = Violations::new();
    found.list("items", request.items.len());
    for (index, item) in request
        .items
        .iter()
        .enumerate()
        .take(bounds::LIST_ITEMS_MAX)
    {
        let field = |name: &str| format!("items[{index}].{name}");
        found.id(&field("sandbox_id"), &item.sandbox_id);
        found.string(&field("callback_directory"), &item.callback_directory);
        handle(&field("handle"), item.handle.as_ref(), &mut found);
    }
    found.into_result()
}

fn handle(field: &str, handle: Option<&Handle>, found: &mut Violations) {
    let bytes = handle.map_or(0, |handle| handle.data.len());
    found.check(bytes <= HANDLE_BYTES_MAX, field, "may have 64 KiB");
}

pub(super) fn stats(request: &SandboxStatsRequest) -> Result<(), DriverError> {
    let mut found = Violations::new();
    found.id("sandbox_id", &request.sandbox_id);
    found.check(
        request.interval_ms == 0 || request.interval_ms >= STATS_INTERVAL_MS_MIN,
        "interval_ms",
        "must be 0 (once) or at least 100",
    );
    found.into_result()
}

pub(super) fn text(field: &str, value: &str) -> Result<(), DriverError> {
    let mut found = Violations::new();
    found.string(field, value);
    found.into_result()
}

pub(super) fn image(image: Option<&proto::ImageSpec>) -> Result<proto::ImageSpec, DriverError> {
    image
        .filter(|image| image.source.is_some())
        .cloned()
        .ok_or_else(|| DriverError::invalid_field("image.source", "must be set"))
}

pub(super) fn run_command(request: &RunCommandRequest) -> Result<(), DriverError> {
    let mut found = Violations::new();
    found.id("sandbox_id", &request.sandbox_id);
    found.id("command_id", &request.command_id);
    found.string("operation_id", &request.operation_id);
    found.string("cwd", &request.cwd);
    found.check(!request.argv.is_empty(), "argv", "must not be empty");
    found.list("argv", request.argv.len());
    found.map("environment", request.environment.iter());
    found.map("secret_environment", request.secret_environment.iter());
    found.list("files", request.files.len());
    for (index, file) in request
        .files
        .iter()
        .enumerate()
        .take(bounds::LIST_ITEMS_MAX)
    {
        found.string(&format!("files[{index}].path"), &file.path);
    }
    found.into_result()
}
