//! The gRPC server around a [`ComputeDriver`]: everything in the contract that is the same for all
//! platforms.
//!
//! ```text
//!   connection ─► handshake first ─► bounds, spec, schema ─► one operation per sandbox ─► driver
//!                                                            (delete takes over)
//!        answer ◄─ status with details ◄─ deadline · panic · shutdown ◄─ revision, order ◄─┘
//! ```
//!
//! It knows nothing of sockets; [`run`](mod@crate::run) brings those.

mod answer;
mod checks;
mod connection;
mod fingerprint;
mod handshake;
mod invoke;
mod list;
mod operations;
mod rpc;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cofferdam_proto::compute::v1::compute_driver_server::ComputeDriverServer;

use crate::context::{Call, Context};
use crate::driver::ComputeDriver;
use crate::error::DriverError;
use crate::proto;
use crate::settings::{Schema, SchemaError};
use crate::spec::bounds;

#[cfg(feature = "fake")]
pub(crate) use answer::ResponseStream;
pub use connection::Connection;
use fingerprint::Fingerprints;
use operations::Operations;

/// Revisions of the contract that this crate speaks.
pub const CONTRACT: proto::VersionRange = proto::VersionRange { min: 1, max: 1 };

/// A driver with everything that its server keeps. One for each process; cheap to clone.
#[derive(Debug)]
pub struct Server<D>(Arc<State<D>>);

impl<D> Clone for Server<D> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

struct State<D> {
    driver: D,
    context: Context,
    settings_schema: Schema,
    driver_config_schema: Schema,
    configured: AtomicBool,
    /// Two connections do not configure at the same time.
    configuring: tokio::sync::Mutex<()>,
    operations: Operations,
    fingerprints: Fingerprints,
}

impl<D> std::fmt::Debug for State<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("context", &self.context)
            .finish_non_exhaustive()
    }
}

impl<D: ComputeDriver> Server<D> {
    /// A server for `driver`, which was made with the same `context`. Starts the task that asks
    /// for fingerprints, so it wants a runtime.
    ///
    /// # Errors
    /// When a schema of the driver is none.
    pub fn new(driver: D, context: Context) -> Result<Self, SchemaError> {
        let server = Self(Arc::new(State {
            driver,
            settings_schema: Schema::compile("settings", D::settings_schema())?,
            driver_config_schema: Schema::compile("driver_config", D::driver_config_schema())?,
            configured: AtomicBool::new(false),
            configuring: tokio::sync::Mutex::default(),
            operations: Operations::default(),
            fingerprints: Fingerprints::new(),
            context,
        }));
        let poll = server.clone().poll_fingerprints();
        server.0.context.tasks.spawn(poll);
        Ok(server)
    }

    /// The driver inside.
    #[must_use]
    pub fn driver(&self) -> &D {
        &self.0.driver
    }

    /// The context it was made with.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.0.context
    }

    /// The tonic service. Requests need a [`Connection`] among their extensions.
    #[must_use]
    pub fn into_service(self) -> ComputeDriverServer<Self> {
        ComputeDriverServer::new(self)
            .max_decoding_message_size(bounds::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(bounds::MESSAGE_BYTES_MAX)
    }

    fn is_configured(&self) -> bool {
        self.0.configured.load(Ordering::Acquire)
    }

    /// The newest state of a sandbox, given one that was just observed.
    fn observed(
        &self,
        call: &Call,
        sandbox: proto::Sandbox,
    ) -> Result<proto::Sandbox, DriverError> {
        let id = sandbox.sandbox_id.clone();
        self.0
            .context
            .observations
            .record(call.gateway_id(), sandbox)
            .ok_or_else(|| DriverError::sandbox_not_found(&id))
    }
}
