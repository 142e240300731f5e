//! PrepareImage: an image made ready ahead of its use.

use cofferdam_proto::compute::v1::{
    ImageSources, ImageSpec, PrepareImageRequest, PrepareImageResponse, image_spec::Source,
};
use tonic::Code;

use crate::answer::{Refused, refused_with_one_of};
use crate::case::{Case, Stop, Verdict, ensure, run, skip};
use crate::driver::Driver;
use crate::random;
use crate::suite::Suite;

pub(super) const CASES: &[Case] = &[
    Case {
        id: "core.images.prepared",
        source: "PrepareImage",
        says: "Makes an image ready ahead of its use; ends after the message with `done`. Every RPC \
               may come twice.",
        fix: "answer with `done` and the digest at once when the image is there already",
        needs: &[],
        run: run!(prepared),
    },
    Case {
        id: "core.images.missing",
        source: "PrepareImage",
        says: "NOT_FOUND for an image that is not there, UNAVAILABLE for a registry that is not.",
        fix: "map the platform's errors about images; say `done` only of what can be used",
        needs: &[],
        run: run!(missing),
    },
];

/// An image that is nowhere, of a kind that this driver takes.
pub(super) fn nowhere(images: ImageSources) -> Option<Source> {
    let name = format!("conformance-{}", random::word());
    match (images.archive, images.registry) {
        (true, _) => Some(Source::Archive(format!("/{name}.tar"))),
        // RFC 2606: there is no such host, so nobody is asked.
        (false, true) => Some(Source::Reference(format!("registry.invalid/{name}:none"))),
        (false, false) => None,
    }
}

/// What one may answer for it.
pub(super) const NOWHERE: [Code; 3] = [Code::NotFound, Code::InvalidArgument, Code::Unavailable];

async fn prepare(driver: &Driver, image: ImageSpec) -> Result<Vec<PrepareImageResponse>, Refused> {
    let request = PrepareImageRequest { image: Some(image) };
    driver.prepare_image(request).await?.all().await
}

/// The last message, if it is the only one with `done`.
fn finished(told: &[PrepareImageResponse]) -> Result<&PrepareImageResponse, Stop> {
    for message in told {
        let (done, total) = (message.done_bytes, message.total_bytes);
        ensure!(
            total == 0 || done <= total,
            "{done} bytes of {total} are there"
        );
    }
    let done = told.iter().filter(|message| message.done).count();
    match told.last() {
        Some(last) if last.done && done == 1 => Ok(last),
        _ => Err(Stop::failed(format!(
            "of {} messages {done} have `done`; the last must, and no other",
            told.len()
        ))),
    }
}

async fn prepared(suite: Suite) -> Verdict {
    let image = suite.spec().image.unwrap_or_default();
    if let Some(Source::Host(_)) | None = image.source {
        skip!("the suite's sandboxes are made of the host's directories: no image to prepare");
    }
    let driver = suite.driver().await?;
    let told = prepare(&driver, image.clone()).await?;
    let first = finished(&told)?;
    let is_of_registry = matches!(image.source, Some(Source::Reference(_)));
    ensure!(
        !is_of_registry || !first.digest.is_empty(),
        "the image is ready, and its digest is not told"
    );
    let told = prepare(&driver, image).await?;
    let second = finished(&told)?;
    ensure!(
        first.digest == second.digest,
        "the same image has the digest {:?} at first and then {:?}",
        first.digest,
        second.digest
    );
    let subject = suite.subject()?;
    subject.ready(&driver).await?;
    let used = driver.get(&subject.id).await?.image_digest;
    ensure!(
        used.is_empty() || first.digest.is_empty() || used == first.digest,
        "{:?} was made ready, and a sandbox of the same image uses {used:?}",
        first.digest
    );
    Ok(())
}

async fn missing(suite: Suite) -> Verdict {
    let Some(source) = nowhere(suite.capabilities().images.unwrap_or_default()) else {
        skip!("the driver takes no images");
    };
    let driver = suite.driver().await?;
    let image = ImageSpec {
        source: Some(source),
        ..suite.spec().image.unwrap_or_default()
    };
    refused_with_one_of(prepare(&driver, image).await, &NOWHERE)?;
    Ok(())
}
