//! Brings the prober into a sandbox.

use cofferdam_tests::{TestGateway, binaries};

/// As `./probe` of its workspace.
#[track_caller]
pub(crate) fn install(gateway: &TestGateway, sandbox: &str) {
    let built = binaries::own("cofferdam-test-probe");
    let mine = gateway.home().join("probe");
    if !mine.exists() {
        binaries::link_or_copy(&built, &mine);
    }
    gateway.ok(["cp", &mine.to_string_lossy(), &format!("{sandbox}:probe")]);
}
