//! `PrepareImage`: an image made ready ahead of its use, with its progress.

use std::sync::Arc;

use cofferdam_driver_sdk::proto::{ImageSpec, PrepareImageResponse};
use cofferdam_driver_sdk::{DriverError, DriverStream};
use tokio::sync::watch;

use crate::client::Engine;
use crate::image::{ImageError, ImageFacts, Images, Progress};

/// Dropped, the engine stops pulling.
pub(crate) fn prepare(
    engine: Engine,
    images: Arc<Images>,
    image: ImageSpec,
) -> DriverStream<PrepareImageResponse> {
    let (tell, mut told) = watch::channel(Progress::default());
    let work = async move {
        match images.find(&engine, &image).await? {
            Some(facts) => Ok(facts),
            None => {
                images
                    .fetch(&engine, &image, |progress| {
                        tell.send_replace(progress.clone());
                    })
                    .await
            }
        }
    };
    Box::pin(async_stream::try_stream! {
        let mut work = Box::pin(work);
        let mut last = Progress::default();
        loop {
            let done = tokio::select! {
                done = &mut work => Some(done),
                Ok(()) = told.changed() => None,
            };
            if let Some(done) = done {
                let done: ImageFacts = done.map_err(|error: ImageError| DriverError::from(error))?;
                yield finished(&done, &last);
                return;
            }
            // Only the newest: a slow reader misses what is over anyway.
            last = told.borrow_and_update().clone();
            yield under_way(&last);
        }
    })
}

fn under_way(progress: &Progress) -> PrepareImageResponse {
    PrepareImageResponse {
        message: progress.sentence(),
        done_bytes: progress.done_bytes(),
        total_bytes: progress.total_bytes(),
        ..PrepareImageResponse::default()
    }
}

fn finished(image: &ImageFacts, last: &Progress) -> PrepareImageResponse {
    PrepareImageResponse {
        message: format!("{} is ready", image.name),
        done_bytes: last.total_bytes(),
        total_bytes: last.total_bytes(),
        done: true,
        digest: image.digest.clone(),
    }
}
