//! The first connection: who is there, and whether sandboxes can be made at all.

use std::time::Duration;

use cofferdam_proto::compute::v1::{FingerprintRequest, GetSandboxRequest, Health};

use crate::answer::code_name;
use crate::case::Stop;
use crate::spec;
use crate::suite::Suite;

/// Why most cases cannot be tried.
#[derive(Debug)]
pub(super) struct Gate {
    pub(super) reason: String,
    pub(super) fix: String,
    /// Groups of cases that can be.
    pub(super) open: &'static [&'static str],
}

const NO_HANDSHAKE: &[&str] = &["core.handshake"];
const NO_SETTINGS: &[&str] = &["core.handshake", "core.schemas", "core.configure"];
const NOT_HEALTHY: &[&str] = &[
    "core.handshake",
    "core.schemas",
    "core.configure",
    "core.fingerprint",
];

/// How long a platform may take to look at itself the first time.
const FIRST_FINGERPRINT: Duration = Duration::from_secs(60);

pub(super) async fn probe(suite: &Suite) -> Option<Gate> {
    let stranger = match suite.stranger().await {
        Ok(stranger) => stranger,
        Err(stop) => return Some(gate(stop, "the driver cannot be reached", &[])),
    };
    let driver = match stranger.shake_hands_as(suite.gateway_id()).await {
        Ok(driver) => driver,
        Err(stop) => return Some(gate(stop, "the driver does not shake hands", NO_HANDSHAKE)),
    };
    let early = GetSandboxRequest {
        sandbox_id: "conf-nobody".to_owned(),
    };
    let answer = driver.get_with(early).await;
    suite.set_before_configure(match &answer {
        Ok(_) => "OK".to_owned(),
        Err(refused) => {
            let code = refused.code().map_or("nothing", code_name);
            format!("{code} {}", refused.precondition_types().join(","))
        }
    });
    if let Err(stop) = driver.configure(&suite.options().config.settings).await {
        return Some(gate(
            stop,
            "the driver does not take its settings",
            NO_SETTINGS,
        ));
    }
    let fingerprint = async {
        let mut stream = driver.fingerprint(FingerprintRequest {}).await?;
        stream.next_within(FIRST_FINGERPRINT).await
    };
    let print = match fingerprint.await {
        Ok(print) => print.unwrap_or_default(),
        Err(refused) => return Some(gate(refused.into(), "no fingerprint", NOT_HEALTHY)),
    };
    suite.set_enforced(print.limits.unwrap_or_default());
    if print.health() != Health::Healthy {
        return Some(Gate {
            reason: format!(
                "the driver is {}: {}",
                print.health().as_str_name(),
                print.reason
            ),
            fix: print.fix,
            open: NOT_HEALTHY,
        });
    }
    let trouble = spec::image_trouble(&suite.options().config.sandbox, &suite.capabilities());
    trouble.map(|(reason, fix)| Gate {
        reason,
        fix,
        open: NOT_HEALTHY,
    })
}

fn gate(stop: Stop, what: &str, open: &'static [&'static str]) -> Gate {
    let (seen, fix) = match stop {
        Stop::Failed { seen, fix } => (seen, fix.unwrap_or_default()),
        Stop::Skipped(reason) => (reason, String::new()),
    };
    Gate {
        reason: format!("{what}: {seen}"),
        fix,
        open,
    }
}
