//! The right driver below, and its incarnations.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use cofferdam_proto::compute::v1::compute_driver_server::ComputeDriver as Service;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use tonic::{Extensions, Request};

use crate::context::Context;
use crate::driver::ComputeDriver as _;
use crate::fake::FakeDriver;
use crate::proto::ConfigureRequest;
use crate::server::Server;
use crate::settings::SchemaError;

/// Sandboxes are killed at the end; that takes milliseconds.
const END_MAX: Duration = Duration::from_secs(5);

/// How a new incarnation begins. By default as after an orderly restart: nothing is forgotten, the
/// connections are cut, and the new incarnation is said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Restart {
    /// Of all sandboxes nothing is known any more. Their processes go on, until the program ends.
    pub forget: bool,
    /// The driver says that it is the same as before.
    pub silent: bool,
    /// The connections stay, as with a proxy in between.
    pub keep_connections: bool,
}

#[derive(Debug)]
pub(super) struct Platform(RwLock<Present>);

#[derive(Debug)]
struct Present {
    server: Server<FakeDriver>,
    /// What the driver says that its incarnation is.
    said: String,
    /// Their sandboxes' tasks go on until the end.
    earlier: Vec<Server<FakeDriver>>,
    /// The last Configure, with what the SDK remembers of its connection.
    configured: Option<(Extensions, ConfigureRequest)>,
}

impl Platform {
    pub(super) fn new() -> Result<Self, SchemaError> {
        let context = Context::new();
        let said = context.incarnation.to_string();
        let server = Server::new(FakeDriver::new(context.clone()), context)?;
        Ok(Self(RwLock::new(Present {
            server,
            said,
            earlier: Vec::new(),
            configured: None,
        })))
    }

    pub(super) fn server(&self) -> Server<FakeDriver> {
        self.read().server.clone()
    }

    /// As it is, and as it is said to be.
    pub(super) fn incarnation(&self) -> (String, String) {
        let present = self.read();
        let real = present.server.context().incarnation.to_string();
        (real, present.said.clone())
    }

    pub(super) fn configured(&self, extensions: &Extensions, request: &ConfigureRequest) {
        let mut present = self.0.write().unwrap_or_else(PoisonError::into_inner);
        present.configured = Some((extensions.clone(), request.clone()));
    }

    pub(super) async fn restart(&self, restart: Restart) -> Result<(), SchemaError> {
        let (old, configured) = {
            let present = self.read();
            (present.server.clone(), present.configured.clone())
        };
        let context = Context::new();
        let said = context.incarnation.to_string();
        let driver = match restart.forget {
            true => FakeDriver::new(context.clone()),
            false => old.driver().reincarnate(context.clone()),
        };
        let server = Server::new(driver, context)?;
        if let Some((extensions, message)) = configured
            && restart.keep_connections
        {
            let mut request = Request::new(message);
            *request.extensions_mut() = extensions;
            if let Err(status) = Service::configure(&server, request).await {
                tracing::warn!(%status, "the new incarnation is not configured");
            }
        }
        let mut present = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut present.server, server);
        present.earlier.push(old);
        if !restart.silent {
            present.said = said;
        }
        Ok(())
    }

    /// Ends all sandboxes of all incarnations.
    pub(super) async fn end(&self) {
        let servers = {
            let present = self.read();
            let mut servers = present.earlier.clone();
            servers.push(present.server.clone());
            servers
        };
        for server in &servers {
            server.context().shutdown.cancel();
            server.context().tasks.close();
        }
        for server in &servers {
            if timeout(END_MAX, server.context().tasks.wait())
                .await
                .is_err()
            {
                tracing::warn!("not all sandboxes have ended in time");
            }
            server.driver().shutdown().await;
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Present> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request like the one that came with these extensions.
pub(super) fn likewise<T>(extensions: &Extensions, message: T) -> Request<T> {
    let mut request = Request::new(message);
    *request.extensions_mut() = extensions.clone();
    request
}

pub(super) type Shared = Arc<super::live::Live>;
