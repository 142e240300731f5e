//! A third party's driver, as its author would write it: the SDK, and the SDK's fake platform.

use std::process::ExitCode;
use std::time::Duration;

use cofferdam_driver_sdk::fake::{FakeDriver, FakeSettings};
use cofferdam_driver_sdk::supervisor::Token;
use cofferdam_driver_sdk::{
    Call, ComputeDriver, CreateRequest, Created, DriverError, Inventory, RecoverItem, Recovered,
    proto,
};

fn main() -> ExitCode {
    cofferdam_driver_sdk::run(|context| DemoDriver {
        fake: FakeDriver::new(context),
    })
}

struct DemoDriver {
    fake: FakeDriver,
}

impl ComputeDriver for DemoDriver {
    const NAME: &'static str = "demo";
    const VERSION: &'static str = "0.0.1";
    type Settings = FakeSettings;

    fn description(&self) -> String {
        "a driver of the end-to-end tests".to_owned()
    }

    fn settings_schema() -> &'static str {
        FakeDriver::settings_schema()
    }

    fn capabilities(&self) -> proto::Capabilities {
        self.fake.capabilities()
    }

    async fn configure(&self, settings: FakeSettings) -> Result<(), DriverError> {
        self.fake.configure(settings).await
    }

    async fn fingerprint(&self) -> proto::FingerprintResponse {
        self.fake.fingerprint().await
    }

    async fn validate(
        &self,
        call: &Call,
        spec: &proto::SandboxSpec,
    ) -> Result<Vec<proto::FieldViolation>, DriverError> {
        self.fake.validate(call, spec).await
    }

    async fn create(&self, call: &Call, request: CreateRequest) -> Result<Created, DriverError> {
        self.fake.create(call, request).await
    }

    async fn recover(&self, call: &Call, item: RecoverItem) -> Recovered {
        self.fake.recover(call, item).await
    }

    async fn start(
        &self,
        call: &Call,
        sandbox_id: &str,
        token: Token,
    ) -> Result<proto::Sandbox, DriverError> {
        self.fake.start(call, sandbox_id, token).await
    }

    async fn stop(
        &self,
        call: &Call,
        sandbox_id: &str,
        grace: Duration,
    ) -> Result<proto::Sandbox, DriverError> {
        self.fake.stop(call, sandbox_id, grace).await
    }

    async fn delete(&self, call: &Call, sandbox_id: &str) -> Result<(), DriverError> {
        self.fake.delete(call, sandbox_id).await
    }

    async fn get(&self, call: &Call, sandbox_id: &str) -> Result<proto::Sandbox, DriverError> {
        self.fake.get(call, sandbox_id).await
    }

    async fn list(&self, call: &Call) -> Result<Inventory, DriverError> {
        self.fake.list(call).await
    }
}
