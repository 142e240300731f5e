//! A connection on which next to nothing may be on its way, so that what is not read stays with the
//! driver.

use cofferdam_gateway::transport::{self, Channel, ChannelOptions};

use super::{Client, Driver};
use crate::case::Stop;

/// Of one stream: a few messages of a watch.
const WINDOW_BYTES: u32 = 1024;

impl Driver {
    /// Another connection of this driver's gateway, with a handshake, for calls that nobody reads. It
    /// ends with the last call on it, or with the suite.
    pub(crate) async fn narrow(&self) -> Result<Client, Stop> {
        let socket = self.suite.socket();
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            Stop::failed(format!("{what} on a second connection: {error}"))
        };
        let stream = transport::connect(&socket)
            .await
            .map_err(|error| failed("connecting", &error))?;
        let options = ChannelOptions {
            keep_alive: None,
            tasks: self.suite.tasks(),
            cancel: self.suite.cancel().child_token(),
        };
        let channel = Channel::open_with_window(stream, options, WINDOW_BYTES)
            .await
            .map_err(|error| failed("beginning HTTP/2", &error))?;
        let mut client = Client::new(channel);
        client
            .handshake(self.hello(&self.gateway_id))
            .await
            .map_err(|status| failed("the handshake", &status))?;
        Ok(client)
    }
}
