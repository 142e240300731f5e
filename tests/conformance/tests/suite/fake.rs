//! The SDK's fake driver, which is right in everything that it claims.

use std::time::Duration;

use cofferdam_driver_sdk::Context;
use cofferdam_driver_sdk::fake::FakeDriver;
use cofferdam_driver_sdk::run::{Listeners, Peers, serve};
use cofferdam_driver_sdk::server::Server;
use tokio_util::sync::CancellationToken;

use crate::support::{Place, must_have_skipped};

/// What it does not claim, or nobody can see.
const SKIPPED: &[&str] = &[
    "core.images",
    "core.ending.no-image",
    "interactive.stats",
    "command",
    "resources",
    "faults.restart",
    "faults.kill",
];

#[tokio::test(flavor = "multi_thread")]
async fn the_fake_driver_is_conformant() {
    let place = Place::new();
    let listeners = Listeners::bind(&place.options.socket, 0o600).unwrap();
    let context = Context::new();
    let server = Server::new(FakeDriver::new(context.clone()), context).unwrap();
    let stop = CancellationToken::new();
    let serving = tokio::spawn(serve(
        server,
        listeners,
        Peers::new(&[], false),
        stop.clone().cancelled_owned(),
        Duration::from_secs(5),
        std::future::pending(),
    ));
    let report = place.run().await.unwrap();
    stop.cancel();
    serving.await.unwrap();
    assert_eq!(report.failed(), Vec::<&str>::new());
    must_have_skipped(&report, SKIPPED);
}
