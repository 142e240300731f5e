//! Making an image be on the engine.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cofferdam_driver_sdk::proto::{ImageSpec, PullPolicy, image_spec};
use futures_util::{Stream, StreamExt as _};

use super::{ImageError, ImageFacts, Problem, Progress, Reference};
use crate::client::wire::ImageJson;
use crate::client::{Engine, EngineError, Kind, PullEvent};

/// A registry that says nothing for so long will not say more.
const SILENCE_MAX: Duration = Duration::from_secs(180);

/// Which archives have been loaded, so that each is read once.
#[derive(Debug, Default)]
pub(crate) struct Images {
    /// The archive's device, inode, size and change, and the image's id.
    loaded: Mutex<HashMap<(u64, u64, u64, i64), String>>,
}

/// More archives than anybody uses side by side.
const LOADED_MAX: usize = 256;

impl Images {
    /// The image if it need not be fetched. `None`: [`fetch`](Self::fetch) it.
    pub(crate) async fn find(
        &self,
        engine: &Engine,
        spec: &ImageSpec,
    ) -> Result<Option<ImageFacts>, ImageError> {
        match &spec.source {
            Some(image_spec::Source::Reference(text)) => {
                let reference = parse(text)?;
                if spec.pull() == PullPolicy::Always && reference.digest.is_none() {
                    return Ok(None);
                }
                let found = inspect(engine, text).await?;
                match (found, spec.pull()) {
                    (Some(image), policy) => {
                        let facts = examined(engine, spec, text, Some(&reference), &image);
                        match facts {
                            // Another platform of it may be had.
                            Err(error)
                                if error.problem == Problem::WrongPlatform
                                    && policy != PullPolicy::Never =>
                            {
                                Ok(None)
                            }
                            facts => facts.map(Some),
                        }
                    }
                    (None, PullPolicy::Never) => Err(ImageError::new(
                        Problem::NotFound,
                        text,
                        "the engine does not have it, and the pull policy is \"never\"",
                    )),
                    (None, _) => Ok(None),
                }
            }
            Some(image_spec::Source::Archive(path)) => {
                let Some(id) = self.loaded_from(path)? else {
                    return Ok(None);
                };
                match inspect(engine, &id).await? {
                    Some(image) => examined(engine, spec, path, None, &image).map(Some),
                    None => Ok(None),
                }
            }
            Some(image_spec::Source::Host(_)) | None => Err(ImageError::new(
                Problem::NotFound,
                "",
                "this driver needs an image",
            )),
        }
    }

    /// Pulls or loads it. Cancelled, the engine stops; what is complete of it stays.
    pub(crate) async fn fetch(
        &self,
        engine: &Engine,
        spec: &ImageSpec,
        mut tell: impl FnMut(&Progress),
    ) -> Result<ImageFacts, ImageError> {
        match &spec.source {
            Some(image_spec::Source::Reference(text)) => {
                let reference = parse(text)?;
                pull(engine, spec, text, &reference, &mut tell).await?;
                let found = inspect(engine, text).await?;
                let image = found.ok_or_else(|| {
                    let message = "the engine pulled it and does not have it";
                    ImageError::new(Problem::PullFailed, text, message)
                })?;
                examined(engine, spec, text, Some(&reference), &image)
            }
            Some(image_spec::Source::Archive(path)) => {
                tell(&Progress::new(path));
                let id = load(engine, path).await?;
                self.remember(path, &id)?;
                let found = inspect(engine, &id).await?;
                let image = found.ok_or_else(|| {
                    let message = "the engine loaded it and does not have it";
                    ImageError::new(Problem::BadArchive, path, message)
                })?;
                examined(engine, spec, path, None, &image)
            }
            Some(image_spec::Source::Host(_)) | None => Err(ImageError::new(
                Problem::NotFound,
                "",
                "this driver needs an image",
            )),
        }
    }

    fn loaded_from(&self, path: &str) -> Result<Option<String>, ImageError> {
        let identity = identity(path)?;
        let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(loaded.get(&identity).cloned())
    }

    fn remember(&self, path: &str, id: &str) -> Result<(), ImageError> {
        let identity = identity(path)?;
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if loaded.len() >= LOADED_MAX {
            loaded.clear();
        }
        loaded.insert(identity, id.to_owned());
        Ok(())
    }
}

fn parse(text: &str) -> Result<Reference, ImageError> {
    Reference::parse(text)
        .map_err(|error| ImageError::new(Problem::NotFound, text, error.to_string()))
}

async fn inspect(engine: &Engine, name: &str) -> Result<Option<ImageJson>, ImageError> {
    match engine.inspect_image(name).await {
        Ok(image) => Ok(Some(image)),
        Err(error) if error.kind == Kind::NotFound => Ok(None),
        Err(error) => Err(ImageError::engine(name, error)),
    }
}

fn examined(
    engine: &Engine,
    spec: &ImageSpec,
    name: &str,
    reference: Option<&Reference>,
    image: &ImageJson,
) -> Result<ImageFacts, ImageError> {
    let repository = reference.map(|reference| reference.repository.as_str());
    ImageFacts::examine(name, repository, &spec.platform, image, &engine.facts)
}

async fn pull(
    engine: &Engine,
    spec: &ImageSpec,
    text: &str,
    reference: &Reference,
    tell: &mut impl FnMut(&Progress),
) -> Result<(), ImageError> {
    let mut progress = Progress::new(text);
    tell(&progress);
    let asked = engine.pull(
        reference.registry(),
        &reference.repository,
        reference.version(),
        &spec.platform,
        spec.credentials.as_ref(),
    );
    let failed = |error| ImageError::pull(text, error);
    let events = match tokio::time::timeout(SILENCE_MAX, asked).await {
        Ok(events) => events.map_err(failed)?,
        Err(_) => return Err(silent(text)),
    };
    follow(text, events, |event| {
        if progress.take(event) {
            tell(&progress);
        }
    })
    .await?
    .map_err(failed)
}

/// Loads an archive; the id or the name of its first image.
async fn load(engine: &Engine, path: &str) -> Result<String, ImageError> {
    let failed = |error| ImageError::load(path, error);
    let lines = match tokio::time::timeout(SILENCE_MAX, engine.load(Path::new(path))).await {
        Ok(lines) => lines.map_err(failed)?,
        Err(_) => return Err(silent(path)),
    };
    let mut name = None;
    follow(path, lines, |line| {
        let loaded = line.status.strip_prefix("Loaded image");
        let loaded = loaded.and_then(|rest| rest.split_once(": "));
        name = name.take().or_else(|| {
            // Podman names several, with commas between.
            let first = loaded?.1.split(',').next()?;
            Some(first.trim().to_owned())
        });
    })
    .await?
    .map_err(failed)?;
    name.ok_or_else(|| ImageError::new(Problem::BadArchive, path, "there is no image in it"))
}

/// Reads to the end; an outer error is a silence.
async fn follow(
    name: &str,
    events: impl Stream<Item = Result<PullEvent, EngineError>>,
    mut take: impl FnMut(&PullEvent),
) -> Result<Result<(), EngineError>, ImageError> {
    let mut events = pin!(events);
    loop {
        match tokio::time::timeout(SILENCE_MAX, events.next()).await {
            Err(_) => return Err(silent(name)),
            Ok(None) => return Ok(Ok(())),
            Ok(Some(Err(error))) => return Ok(Err(error)),
            Ok(Some(Ok(event))) => take(&event),
        }
    }
}

fn silent(name: &str) -> ImageError {
    let message = format!("nothing came for {} s", SILENCE_MAX.as_secs());
    ImageError::new(Problem::PullFailed, name, message)
}

fn identity(path: &str) -> Result<(u64, u64, u64, i64), ImageError> {
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_file() => {
            let nanoseconds = meta.mtime().wrapping_mul(1_000_000_000) + meta.mtime_nsec();
            Ok((meta.dev(), meta.ino(), meta.size(), nanoseconds))
        }
        Ok(_) => Err(ImageError::new(
            Problem::BadArchive,
            path,
            "is not a file: an archive is made with `docker save` or `podman save`",
        )),
        Err(error) => Err(ImageError::new(Problem::NotFound, path, error.to_string())),
    }
}
