//! What callers may know about drivers.

use cofferdam_proto::gateway::v1 as wire;
use tonic::{Code, Response};

use super::caller::Caller;
use super::service::Answer;
use super::status::ApiError;
use super::{Api, convert};

impl Api {
    pub(super) async fn list_drivers(
        &self,
        _caller: Caller,
        _request: wire::ListDriversRequest,
    ) -> Answer<wire::ListDriversResponse> {
        let drivers = self.0.drivers.list();
        let drivers = drivers
            .iter()
            .map(|driver| convert::driver(driver, self.0.sandboxes.of_driver(driver.name()).len()))
            .collect();
        Ok(Response::new(wire::ListDriversResponse { drivers }))
    }

    pub(super) async fn get_driver(
        &self,
        _caller: Caller,
        request: wire::GetDriverRequest,
    ) -> Answer<wire::GetDriverResponse> {
        let name = &request.name;
        let found = self
            .0
            .drivers
            .list()
            .into_iter()
            .find(|driver| driver.name().as_str() == name);
        let Some(driver) = found else {
            let message = format!("there is no driver {name:?} in this gateway");
            return Err(ApiError::new(Code::NotFound, "UNKNOWN_DRIVER", message)
                .hint("`cofferdam driver ls` lists those that are")
                .into());
        };
        let count = self.0.sandboxes.of_driver(driver.name()).len();
        Ok(Response::new(wire::GetDriverResponse {
            driver: Some(convert::driver(&driver, count)),
        }))
    }
}
