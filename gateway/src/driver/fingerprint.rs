//! The platform's health: the first word before a driver counts as connected, then every change.

use std::sync::Arc;

use cofferdam_proto::compute::v1 as wire;
use tokio::time::{sleep, timeout};
use tonic::codec::Streaming;

use super::call::Client;
use super::handshake::describe;
use super::shared::Shared;
use super::status::Answer;
use super::{Fingerprint, Health, convert};
use crate::model::LimitSet;
use crate::transport::Channel;

type Stream = Streaming<wire::FingerprintResponse>;

/// Publishes the first fingerprint; one that says "unhealthy" if the driver says nothing.
pub(super) async fn first(shared: &Shared, channel: &Channel) -> Option<Stream> {
    let deadline = shared.timing.handshake;
    match timeout(deadline, open(channel)).await {
        Ok(Ok((fingerprint, stream))) => {
            shared.update(|view| view.fingerprint = Some(fingerprint));
            Some(stream)
        }
        Ok(Err(problem)) => {
            shared.update(|view| view.fingerprint = Some(unknown(problem)));
            None
        }
        Err(_) => {
            let problem = "the driver does not answer Fingerprint".to_owned();
            shared.update(|view| view.fingerprint = Some(unknown(problem)));
            None
        }
    }
}

/// Publishes changes for as long as the connection lasts. Never returns.
pub(super) async fn follow(shared: Arc<Shared>, channel: Channel, mut stream: Option<Stream>) {
    let mut pause = shared.timing.backoff_min;
    loop {
        if let Some(stream) = &mut stream {
            while let Ok(Some(message)) = stream.message().await {
                pause = shared.timing.backoff_min;
                let fingerprint = convert::fingerprint_from_wire(message);
                shared.update(|view| view.fingerprint = Some(fingerprint));
            }
        }
        // By the contract it ends only with the connection; a driver that ends it otherwise is
        // asked again. Its last word stands until then.
        sleep(pause).await;
        pause = (pause * 2).min(shared.timing.backoff_max);
        stream = first(&shared, &channel).await;
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
fn unknown(reason: String) -> Fingerprint {
    Fingerprint {
        health: Health::Unhealthy,
        reason,
        fix: String::new(),
        attributes: Default::default(),
        capacity: Default::default(),
        used: Default::default(),
        limits: LimitSet::default(),
        checks: Vec::new(),
    }
}
