//! The SDK's example for readers, `smallest_driver`: what it shows is right.

use cofferdam_conformance::Tier;

use crate::support::{Place, built, must_have_skipped};

/// What it does not claim.
const SKIPPED: &[&str] = &[
    "core.configure.wrong",
    "core.images",
    "core.delete.stopped",
    "core.delete.paused",
    "core.stop",
    "core.start",
    "core.watch.every-change",
    "core.deadline.for-good",
    "core.deadline.stopped",
    "core.ending.no-image",
    "core.recover.runs-nothing",
    "core.rpc.deadline-of-call",
    "core.secrets.settings",
    "core.secrets.console",
    "interactive.console",
    "interactive.stats",
];

/// Its sandboxes end with it, as it says, so it is not killed here: that is the tier `faults`.
#[tokio::test(flavor = "multi_thread")]
async fn the_smallest_driver_is_conformant_as_long_as_it_lives() {
    let mut place = Place::new();
    place.options.tiers = vec![Tier::Core, Tier::Interactive];
    let program = built("examples/smallest_driver", "cofferdam-driver-sdk");
    place.options.start_command = vec![
        program.into(),
        "--socket".into(),
        place.options.socket.clone().into(),
    ];
    let report = place.run().await.unwrap();
    assert_eq!(report.failed(), Vec::<&str>::new());
    must_have_skipped(&report, SKIPPED);
}
