//! Handshake and Configure: who is who, which revision, which settings.

use std::sync::atomic::Ordering;

use super::{CONTRACT, Connection, Server};
use crate::context::GatewayIdentity;
use crate::driver::ComputeDriver;
use crate::error::DriverError;
use crate::proto::{
    ConfigureRequest, ConfigureResponse, HandshakeRequest, HandshakeResponse, VersionRange,
};
use crate::settings;
use crate::spec::{Violations, bounds};

impl<D: ComputeDriver> Server<D> {
    pub(super) fn shake_hands(
        &self,
        connection: &Connection,
        request: HandshakeRequest,
    ) -> Result<HandshakeResponse, DriverError> {
        let theirs = checked(&request)?;
        let chosen = choose(&theirs).ok_or_else(|| self.no_common_revision(&theirs, &request))?;
        tracing::info!(
            gateway.id = request.gateway_id,
            gateway.version = request.gateway_version,
            contract = chosen,
            "a gateway has connected"
        );
        connection.shake_hands(GatewayIdentity {
            id: request.gateway_id,
            version: request.gateway_version,
            supervisor: request.supervisor,
            contract: chosen,
        });
        Ok(HandshakeResponse {
            contract: Some(CONTRACT),
            chosen,
            name: D::NAME.to_owned(),
            version: D::VERSION.to_owned(),
            incarnation: self.0.context.incarnation.to_string(),
            capabilities: Some(self.0.driver.capabilities()),
            settings_schema: D::settings_schema().to_owned(),
            driver_config_schema: D::driver_config_schema().to_owned(),
            description: self.0.driver.description(),
        })
    }

    fn no_common_revision(&self, theirs: &VersionRange, request: &HandshakeRequest) -> DriverError {
        let (name, version) = (D::NAME, D::VERSION);
        let install = if theirs.max < CONTRACT.min {
            format!("a newer gateway, or an older {name} driver")
        } else {
            format!("a newer {name} driver, or an older gateway")
        };
        DriverError::precondition(
            "CONTRACT_VERSION",
            "contract",
            format!(
                "gateway {} speaks revisions {} to {} of cofferdam.compute.v1, driver {name} \
                 {version} speaks {} to {}: install {install}",
                request.gateway_version, theirs.min, theirs.max, CONTRACT.min, CONTRACT.max
            ),
            format!("install {install}"),
        )
    }

    pub(super) async fn configure(
        &self,
        request: ConfigureRequest,
    ) -> Result<ConfigureResponse, DriverError> {
        let fields = request.settings.unwrap_or_default();
        let mut found = Violations::new();
        found.check(
            prost::Message::encoded_len(&fields) <= bounds::STRUCT_BYTES_MAX,
            "settings",
            "may have 256 KiB",
        );
        found.into_result()?;
        let settings =
            settings::read(&self.0.settings_schema, "", &fields).map_err(DriverError::invalid)?;
        let _one_at_a_time = self.0.configuring.lock().await;
        self.0.driver.configure(settings).await?;
        self.0.configured.store(true, Ordering::Release);
        self.0.fingerprints.settings_changed();
        Ok(ConfigureResponse {
            capabilities: Some(self.0.driver.capabilities()),
        })
    }
}

fn checked(request: &HandshakeRequest) -> Result<VersionRange, DriverError> {
    let mut found = Violations::new();
    let range = request.contract.unwrap_or_default();
    found.check(
        range.min > 0 && range.min <= range.max,
        "contract",
        "must be a range of revisions: 1 ≤ min ≤ max",
    );
    found.check(
        !request.gateway_id.is_empty(),
        "gateway_id",
        "must not be empty",
    );
    found.string("gateway_id", &request.gateway_id);
    found.string("gateway_version", &request.gateway_version);
    if let Some(supervisor) = &request.supervisor {
        found.string("supervisor.path", &supervisor.path);
        found.string("supervisor.version", &supervisor.version);
        found.string("supervisor.architecture", &supervisor.architecture);
        found.check(
            supervisor.sha256.len() == 32,
            "supervisor.sha256",
            "must have 32 bytes",
        );
        found.check(
            supervisor.path.starts_with('/'),
            "supervisor.path",
            "must be an absolute path",
        );
    }
    found.into_result()?;
    Ok(range)
}

/// The highest revision in both ranges.
fn choose(theirs: &VersionRange) -> Option<u32> {
    let highest = theirs.max.min(CONTRACT.max);
    (highest >= theirs.min && highest >= CONTRACT.min).then_some(highest)
}
