//! Whether the engine can mount what the gateway has, or has to be reached by a relay.

use std::path::Path;

use bollard_stubs::models::{ContainerCreateBody, HostConfig, Mount, MountType};

use crate::client::{Engine, EngineError, Kind};
use crate::discover::Surroundings;
use crate::flavor::Flavor;
use crate::plan::{SUPERVISOR_NAME, Stream};
use crate::settings::{Config, StreamSetting};

/// No image has this name: the engine looks at mounts before it looks for it.
const NO_IMAGE: &str = "cofferdam.invalid/no-such-image";

pub(super) async fn stream<F: Flavor>(
    engine: &Engine,
    config: &Config,
    here: &Surroundings,
    callback: &Path,
    supervisor_volume: &str,
) -> Result<Stream, EngineError> {
    match config.stream {
        StreamSetting::Mount => Ok(Stream::Mount),
        StreamSetting::Relay => Ok(Stream::Relay),
        StreamSetting::Auto if !may_mount(engine, here) => Ok(Stream::Relay),
        StreamSetting::Auto if F::CHECKS_MOUNTS_FIRST => sees(engine, callback).await,
        // In a container our paths may not be the engine's.
        StreamSetting::Auto if here.in_container => is_seen(engine, supervisor_volume).await,
        StreamSetting::Auto => Ok(Stream::Mount),
    }
}

/// What keeps a container from a socket of the gateway's, mounted or not.
fn may_mount(engine: &Engine, here: &Surroundings) -> bool {
    let facts = &engine.facts;
    // A confined container may not connect to a service that is not.
    let is_confined = facts.security_modules.iter().any(|name| name == "selinux");
    // The directories above the socket are root's alone.
    let is_out_of_reach = facts.userns || (facts.rootless && here.uid == 0);
    facts.address.starts_with("unix://") && !is_confined && !is_out_of_reach
}

/// Looks for what the engine has of ours: who sees that has the engine's paths.
async fn is_seen(engine: &Engine, supervisor_volume: &str) -> Result<Stream, EngineError> {
    let volume = engine.inspect_volume(supervisor_volume).await?;
    let file = Path::new(&volume.mountpoint).join(SUPERVISOR_NAME);
    match tokio::fs::try_exists(&file).await {
        Ok(true) => Ok(Stream::Mount),
        // Not ours to look at, or not there.
        Ok(false) | Err(_) => Ok(Stream::Relay),
    }
}

/// Asks for a container that cannot be, with this directory. Its name has the sandbox's id in it:
/// an engine that has such a directory has this one.
async fn sees(engine: &Engine, callback: &Path) -> Result<Stream, EngineError> {
    let body = ContainerCreateBody {
        image: Some(NO_IMAGE.to_owned()),
        host_config: Some(HostConfig {
            mounts: Some(vec![Mount {
                typ: Some(MountType::BIND),
                source: Some(callback.to_string_lossy().into_owned()),
                target: Some("/x".to_owned()),
                ..Mount::default()
            }]),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    };
    let name = crate::naming::object("", "reach", "probe");
    match engine.create_container(&name, None, &body).await {
        // The mount is fine, the image is not.
        Err(error) if error.kind == Kind::NotFound => Ok(Stream::Mount),
        Err(error) if error.kind == Kind::Invalid => Ok(Stream::Relay),
        Err(error) => Err(error),
        Ok(_) => Err(EngineError::protocol(
            "ask for",
            NO_IMAGE,
            "the engine made a container of an image that cannot be",
        )),
    }
}
