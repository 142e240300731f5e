//! The platform's health: the first word before a driver counts as connected, then every change.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use cofferdam_proto::compute::v1 as wire;
use futures_util::FutureExt;
use tokio::time::{Instant, sleep, timeout};
use tonic::codec::Streaming;

use super::call::Client;
use super::handshake::describe;
use super::notices::{FAULT_FIX, Subject};
use super::shared::Shared;
use super::status::Answer;
use super::trouble::SILENT_FIX;
use super::{Fingerprint, Health, convert};
use crate::model::LimitSet;
use crate::transport::Channel;

type Stream = Streaming<wire::FingerprintResponse>;

/// Between two that are shown.
const INTERVAL: Duration = Duration::from_secs(1);
/// More than fit into the stream's window.
const DRAINED_MAX: usize = 100_000;
/// A platform that turns so often within a minute is not to be relied on.
const TURNS_MANY: usize = 6;
const TURNS_WITHIN: Duration = Duration::from_secs(60);
const TURNS_MAX: usize = 1_000;
/// How often it is looked whether it has stopped.
const CALM_CHECK: Duration = Duration::from_secs(10);

/// Publishes the first fingerprint; one that says "unhealthy" if the driver says nothing.
pub(super) async fn first(shared: &Shared, channel: &Channel) -> Option<Stream> {
    let deadline = shared.timing.handshake;
    match timeout(deadline, open(channel)).await {
        Ok(Ok((fingerprint, stream))) => {
            shared.update(|view| view.fingerprint = Some(fingerprint));
            Some(stream)
        }
        Ok(Err(problem)) => {
            shared.update(|view| view.fingerprint = Some(unknown(problem, FAULT_FIX)));
            None
        }
        Err(_) => {
            let problem = "the driver does not answer Fingerprint".to_owned();
            shared.update(|view| view.fingerprint = Some(unknown(problem, SILENT_FIX)));
            None
        }
    }
}

/// Publishes changes for as long as the connection lasts. Never returns.
pub(super) async fn follow(shared: Arc<Shared>, channel: Channel, mut stream: Option<Stream>) {
    let mut pause = shared.timing.backoff_min;
    let mut turns = Turns::default();
    loop {
        if let Some(stream) = &mut stream {
            while let Some(fingerprint) = latest(stream, &mut turns, &shared).await {
                pause = shared.timing.backoff_min;
                shared.update(|view| view.fingerprint = Some(fingerprint));
                turns.tell(&shared);
                // By the contract there is at most one a second.
                sleep(INTERVAL).await;
            }
        }
        // By the contract it ends only with the connection; a driver that ends it otherwise is
        // asked again. Its last word stands until then.
        sleep(pause).await;
        pause = (pause * 2).min(shared.timing.backoff_max);
        stream = first(&shared, &channel).await;
    }
}

/// Waits for the next message, and takes the last of those that are there already: what is said
/// faster than it is shown must not be shown late.
async fn latest(stream: &mut Stream, turns: &mut Turns, shared: &Shared) -> Option<Fingerprint> {
    let first = loop {
        match timeout(CALM_CHECK, stream.message()).await {
            Ok(message) => break message.ok().flatten()?,
            Err(_) => turns.tell(shared),
        }
    };
    let mut latest = convert::fingerprint_from_wire(first);
    turns.note(latest.health);
    for _ in 0..DRAINED_MAX {
        match stream.message().now_or_never() {
            Some(Ok(Some(message))) => {
                latest = convert::fingerprint_from_wire(message);
                turns.note(latest.health);
            }
            // Its end is seen by the next call.
            Some(_) | None => break,
        }
    }
    Some(latest)
}

/// How often the health has turned lately.
#[derive(Debug, Default)]
struct Turns {
    last: Option<Health>,
    times: VecDeque<Instant>,
}

impl Turns {
    fn note(&mut self, health: Health) {
        if self.last.replace(health).is_some_and(|last| last != health) {
            self.times.push_back(Instant::now());
            if self.times.len() > TURNS_MAX {
                self.times.pop_front();
            }
        }
    }

    /// Tells people, or takes it back.
    fn tell(&mut self, shared: &Shared) {
        while (self.times.front()).is_some_and(|at| at.elapsed() > TURNS_WITHIN) {
            self.times.pop_front();
        }
        let count = self.times.len();
        if count >= TURNS_MANY {
            let detail = format!("its health has turned {count} times within a minute");
            let fix = "see its checks and the driver's log for what comes and goes";
            shared.notice(|notices| notices.fact(Subject::Health, false, &detail, fix));
        } else if shared.view().notices.has_fact(Subject::Health) {
            shared.notice(|notices| notices.no_fact(Subject::Health));
        }
    }
}

async fn open(channel: &Channel) -> Result<(Fingerprint, Stream), String> {
    let mut client = Client::new(channel.clone());
    let failed = |status| format!("Fingerprint failed: {}", describe(&Answer::of(&status)));
    let response = client
        .fingerprint(wire::FingerprintRequest {})
        .await
        .map_err(failed)?;
    let mut stream = response.into_inner();
    match stream.message().await.map_err(failed)? {
        Some(message) => Ok((convert::fingerprint_from_wire(message), stream)),
        None => Err("the driver says nothing about its platform".to_owned()),
    }
}

/// A platform of which nothing is known is not healthy.
fn unknown(reason: String, fix: &str) -> Fingerprint {
    Fingerprint {
        health: Health::Unhealthy,
        reason,
        fix: fix.to_owned(),
        attributes: Default::default(),
        capacity: Default::default(),
        used: Default::default(),
        limits: LimitSet::default(),
        checks: Vec::new(),
    }
}
