//! The trait that a driver implements, and its contract.
//!
//! # What holds for every method
//!
//! **The server guarantees** that the gateway has shaken hands and configured the driver, that ids
//! and sizes are within the contract's bounds, that a spec passed [`spec::validate`] and the
//! driver's schema, and that at most one of *create, recover, start, stop, pause, resume, snapshot,
//! delete* runs for one sandbox of one gateway. Calls for different sandboxes run side by side.
//!
//! **The driver guarantees** that a method may be repeated at any time, also when an earlier call
//! was lost half-way, and that it shows and touches only sandboxes of `call.gateway_id()`.
//!
//! **Every `.await` is a place where the method can be cancelled**: the deadline passed, the
//! gateway hung up, or a delete took over. Its future is dropped there and no other part of the
//! driver is told. What was begun must be found again by the next call: by the platform's own
//! names and labels, or by a record that was written before. Work on another thread
//! (`spawn_blocking`) is *not* cancelled; it must keep later calls for the same sandbox waiting
//! until it has ended.
//!
//! A panic is answered with `INTERNAL` and does not end the process.
//!
//! [`spec::validate`]: crate::spec::validate

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use serde::de::DeserializeOwned;

use crate::context::Call;
use crate::error::DriverError;
use crate::proto;
use crate::spec::SpecDigest;
use crate::supervisor::Token;

/// A stream of answers. It ends with its first error. The server bounds it by the call's deadline
/// and drops it when the gateway hangs up.
pub type DriverStream<T> = Pin<Box<dyn Stream<Item = Result<T, DriverError>> + Send>>;

/// A platform on which sandboxes can be made.
///
/// Methods with a body are optional; what they do instead is said in each. The contract's text in
/// `compute_driver.proto` holds for all of them; here is what it means for an implementation.
pub trait ComputeDriver: Send + Sync + 'static {
    /// What the driver calls itself: `docker`.
    const NAME: &'static str;
    /// Semantic version of the driver.
    const VERSION: &'static str;

    /// Driver-wide settings. Derive `Deserialize` with `deny_unknown_fields` and defaults for
    /// everything that can have one.
    type Settings: DeserializeOwned + Send;

    /// One line for people: what it is, where it keeps things.
    fn description(&self) -> String;

    /// JSON Schema (draft 2020-12) of [`Self::Settings`]. The server checks settings against it
    /// before it calls [`configure`](Self::configure). Empty: anything that deserializes.
    fn settings_schema() -> &'static str {
        ""
    }

    /// JSON Schema of `SandboxSpec.driver_config`. The server checks specs against it. Empty: the
    /// driver takes none.
    fn driver_config_schema() -> &'static str {
        ""
    }

    /// What the driver can do with its present settings. Cheap: it is asked with every call.
    fn capabilities(&self) -> proto::Capabilities;

    /// Takes the settings. Called at least once before anything else, and again with every
    /// connection; the same settings again change nothing. This is where a driver finds what it
    /// left behind before a restart and starts to watch it: after this method has returned,
    /// [`list`](Self::list) is complete.
    ///
    /// Errors: `invalid` with all violations, and `precondition` when the settings are right but
    /// cannot be used here.
    fn configure(
        &self,
        settings: Self::Settings,
    ) -> impl Future<Output = Result<(), DriverError>> + Send;

    /// What the platform is and can do now. Called at once, then every
    /// [`FINGERPRINT_INTERVAL`] and after `Context::fingerprint_changed`; the server sends it on
    /// when it has changed. Never fails: what fails here is `UNHEALTHY`, with a reason and a fix.
    fn fingerprint(&self) -> impl Future<Output = proto::FingerprintResponse> + Send;

    /// What is wrong with a spec beyond what the server has checked. Changes nothing.
    /// The default finds nothing.
    fn validate(
        &self,
        call: &Call,
        spec: &proto::SandboxSpec,
    ) -> impl Future<Output = Result<Vec<proto::FieldViolation>, DriverError>> + Send {
        let _ = (call, spec);
        async { Ok(Vec::new()) }
    }

    /// Accepts a sandbox and starts it. Returns as soon as the driver has taken responsibility,
    /// which includes that somebody other than the gateway will end it at its expire time.
    ///
    /// Idempotent on the sandbox id: if it exists, `request.digest.check(stored)` decides between
    /// the same answer again and `ALREADY_EXISTS`. On an error nothing is left behind, or what is
    /// left shows in [`list`](Self::list). [`validate`](Self::validate) has passed.
    fn create(
        &self,
        call: &Call,
        request: CreateRequest,
    ) -> impl Future<Output = Result<Created, DriverError>> + Send;

    /// After a restart: is it still there? Runs and starts nothing.
    fn recover(&self, call: &Call, item: RecoverItem) -> impl Future<Output = Recovered> + Send;

    /// Starts a stopped sandbox with its workspace. OK if it runs. The default is
    /// `UNIMPLEMENTED`; implement it together with [`stop`](Self::stop).
    fn start(
        &self,
        call: &Call,
        sandbox_id: &str,
        token: Token,
    ) -> impl Future<Output = Result<proto::Sandbox, DriverError>> + Send {
        let _ = (call, sandbox_id, token);
        async { Err(DriverError::unimplemented("StartSandbox")) }
    }

    /// Stops it: asks, kills after `grace`, and returns when nothing of it runs any more. OK if it
    /// is stopped. The default is `UNIMPLEMENTED`.
    fn stop(
        &self,
        call: &Call,
        sandbox_id: &str,
        grace: Duration,
    ) -> impl Future<Output = Result<proto::Sandbox, DriverError>> + Send {
        let _ = (call, sandbox_id, grace);
        async { Err(DriverError::unimplemented("StopSandbox")) }
    }

    /// Removes it with all that belongs to it, from every state. OK for an unknown id. Whatever
    /// operation was pending on this sandbox has been dropped before. Returns when nothing is
    /// left; `aborted` or `unavailable` mean "call again".
    fn delete(
        &self,
        call: &Call,
        sandbox_id: &str,
    ) -> impl Future<Output = Result<(), DriverError>> + Send;

    /// Observes one sandbox on the platform itself, not in a cache. `NOT_FOUND` only when the
    /// platform says so.
    fn get(
        &self,
        call: &Call,
        sandbox_id: &str,
    ) -> impl Future<Output = Result<proto::Sandbox, DriverError>> + Send;

    /// Observes all sandboxes of this gateway, in any order; the server sorts and pages.
    fn list(&self, call: &Call) -> impl Future<Output = Result<Inventory, DriverError>> + Send;

    /// Makes an image ready ahead of its use; the last message has `done`. The default is
    /// `UNIMPLEMENTED`.
    fn prepare_image(
        &self,
        call: &Call,
        image: proto::ImageSpec,
    ) -> impl Future<Output = Result<DriverStream<proto::PrepareImageResponse>, DriverError>> + Send
    {
        let _ = (call, image);
        async { Err(DriverError::unimplemented("PrepareImage")) }
    }

    /// The platform's log of a sandbox. The default is `UNIMPLEMENTED`.
    fn read_console(
        &self,
        call: &Call,
        request: proto::ReadConsoleRequest,
    ) -> impl Future<Output = Result<DriverStream<Bytes>, DriverError>> + Send {
        let _ = (call, request);
        async { Err(DriverError::unimplemented("ReadConsole")) }
    }

    /// Use of resources, measured now; the server repeats it at the asked interval. The default is
    /// `UNIMPLEMENTED`. Leave out what is not measured: 0 means zero.
    fn stats(
        &self,
        call: &Call,
        sandbox_id: &str,
    ) -> impl Future<Output = Result<proto::SandboxStatsResponse, DriverError>> + Send {
        let _ = (call, sandbox_id);
        async { Err(DriverError::unimplemented("SandboxStats")) }
    }

    /// Runs one command on a platform that can give no byte stream. The default is
    /// `UNIMPLEMENTED`. Dropping the stream leaves the command running; the same command id
    /// attaches to it.
    fn run_command(
        &self,
        call: &Call,
        request: proto::RunCommandRequest,
    ) -> impl Future<Output = Result<DriverStream<proto::RunCommandResponse>, DriverError>> + Send
    {
        let _ = (call, request);
        async { Err(DriverError::unimplemented("RunCommand")) }
    }

    /// Freezes all processes. Idempotent. The default is `UNIMPLEMENTED`.
    fn pause(
        &self,
        call: &Call,
        sandbox_id: &str,
    ) -> impl Future<Output = Result<proto::Sandbox, DriverError>> + Send {
        let _ = (call, sandbox_id);
        async { Err(DriverError::unimplemented("PauseSandbox")) }
    }

    /// Thaws them. Idempotent. The default is `UNIMPLEMENTED`.
    fn resume(
        &self,
        call: &Call,
        sandbox_id: &str,
    ) -> impl Future<Output = Result<proto::Sandbox, DriverError>> + Send {
        let _ = (call, sandbox_id);
        async { Err(DriverError::unimplemented("ResumeSandbox")) }
    }

    /// Stores a sandbox under `snapshot_id`. Idempotent. The default is `UNIMPLEMENTED`.
    fn snapshot(
        &self,
        call: &Call,
        sandbox_id: &str,
        snapshot_id: &str,
    ) -> impl Future<Output = Result<proto::SnapshotSandboxResponse, DriverError>> + Send {
        let _ = (call, sandbox_id, snapshot_id);
        async { Err(DriverError::unimplemented("SnapshotSandbox")) }
    }

    /// Makes a new sandbox from a snapshot; otherwise as [`create`](Self::create). The default is
    /// `UNIMPLEMENTED`.
    fn restore(
        &self,
        call: &Call,
        snapshot_id: &str,
        handle: Option<proto::Handle>,
        request: CreateRequest,
    ) -> impl Future<Output = Result<Created, DriverError>> + Send {
        let _ = (call, snapshot_id, handle, request);
        async { Err(DriverError::unimplemented("RestoreSandbox")) }
    }

    /// Removes a snapshot. OK for an unknown id. The default is `UNIMPLEMENTED`.
    fn delete_snapshot(
        &self,
        call: &Call,
        snapshot_id: &str,
        handle: Option<proto::Handle>,
    ) -> impl Future<Output = Result<(), DriverError>> + Send {
        let _ = (call, snapshot_id, handle);
        async { Err(DriverError::unimplemented("DeleteSnapshot")) }
    }

    /// The process is about to end: flush what has to be flushed. Sandboxes stay. Bounded by the
    /// drain deadline. The default does nothing.
    fn shutdown(&self) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// How often the server asks for a fingerprint without being told that it has changed.
pub const FINGERPRINT_INTERVAL: Duration = Duration::from_secs(10);

/// A checked request for a sandbox.
#[derive(Debug)]
pub struct CreateRequest {
    /// Chosen by the gateway, unique for ever.
    pub sandbox_id: String,
    /// Valid as far as the server can tell.
    pub spec: proto::SandboxSpec,
    /// What "the same spec" is measured by. Store it with the sandbox.
    pub digest: SpecDigest,
    /// Directory that holds the sandbox's `gateway.sock`. Absent for driver-executed platforms.
    pub callback_directory: Option<PathBuf>,
    /// For the supervisor's bootstrap. Forget it afterwards.
    pub token: Token,
}

/// An accepted sandbox.
#[derive(Debug, Clone, PartialEq)]
pub struct Created {
    /// What the driver wants back after a restart; see [`handle`](crate::handle).
    pub handle: proto::Handle,
    /// As it is now. The server fills in the revision.
    pub sandbox: proto::Sandbox,
}

/// One sandbox that a gateway remembers.
#[derive(Debug, Clone, PartialEq)]
pub struct RecoverItem {
    /// Its id.
    pub sandbox_id: String,
    /// Absent: the answer to the create was lost. Look for the id on the platform.
    pub handle: Option<proto::Handle>,
    /// Where its `gateway.sock` is now.
    pub callback_directory: Option<PathBuf>,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq)]
#[allow(
    clippy::large_enum_variant,
    reason = "made once for each sandbox after a restart, and moved, not stored"
)]
pub enum Recovered {
    /// It is there, and watched again.
    Found {
        /// As it is now.
        sandbox: proto::Sandbox,
        /// A new handle to store, if it has changed.
        handle: Option<proto::Handle>,
    },
    /// The platform says for certain that it is not there any more.
    Gone {
        /// Why, if that is known.
        termination: Option<proto::Termination>,
        /// One sentence.
        message: String,
    },
    /// Cannot tell: the platform is down, or the handle cannot be read. The gateway asks again.
    Unknown {
        /// One sentence.
        message: String,
    },
}

/// What exists on the platform for one gateway.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Inventory {
    /// All that was seen.
    pub sandboxes: Vec<proto::Sandbox>,
    /// Whether that is everything that exists. Only then does the gateway conclude from absence.
    pub complete: bool,
}
