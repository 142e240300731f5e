//! What goes wrong with images, by kind. Engines say it in free text only; this is the one place
//! that reads it.

use cofferdam_driver_sdk::DriverError;
use cofferdam_driver_sdk::proto::TerminationReason;

use crate::client::{EngineError, Kind};

/// An image cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("image {name}: {message}")]
pub(crate) struct ImageError {
    pub(crate) problem: Problem,
    pub(crate) name: String,
    message: String,
    #[source]
    source: Option<Box<EngineError>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Problem {
    /// There is none of this name.
    NotFound,
    /// The registry wants (other) credentials.
    AccessDenied,
    /// For another machine.
    WrongPlatform,
    NoSpace,
    /// The registry cannot be reached, or something broke on the way.
    PullFailed,
    /// The file that was named is no image archive.
    BadArchive,
    /// Not about the image.
    Engine,
}

impl ImageError {
    pub(crate) fn new(problem: Problem, name: &str, message: impl Into<String>) -> Self {
        Self {
            problem,
            name: name.to_owned(),
            message: message.into(),
            source: None,
        }
    }

    /// What an engine says about a pull.
    pub(crate) fn pull(name: &str, error: EngineError) -> Self {
        Self::of(name, problem_of_pull(&error), error)
    }

    pub(crate) fn load(name: &str, error: EngineError) -> Self {
        let problem = match error.kind {
            Kind::NoSpace => Problem::NoSpace,
            Kind::Unreachable | Kind::Timeout => Problem::Engine,
            _ => Problem::BadArchive,
        };
        Self::of(name, problem, error)
    }

    pub(crate) fn engine(name: &str, error: EngineError) -> Self {
        Self::of(name, Problem::Engine, error)
    }

    fn of(name: &str, problem: Problem, error: EngineError) -> Self {
        Self {
            source: None,
            ..Self::new(problem, name, error.message.clone())
        }
        .because(error)
    }

    fn because(mut self, error: EngineError) -> Self {
        self.source = Some(Box::new(error));
        self
    }

    /// For a sandbox that was accepted and cannot be made.
    pub(crate) fn reason(&self) -> TerminationReason {
        match self.problem {
            Problem::NotFound => TerminationReason::ImageNotFound,
            Problem::AccessDenied => TerminationReason::ImageAccessDenied,
            Problem::WrongPlatform => TerminationReason::ImageWrongPlatform,
            Problem::NoSpace => TerminationReason::NoSpace,
            Problem::PullFailed | Problem::BadArchive => TerminationReason::ImagePullFailed,
            Problem::Engine => TerminationReason::PlatformError,
        }
    }
}

impl From<ImageError> for DriverError {
    fn from(error: ImageError) -> Self {
        let text = error.to_string();
        match error.problem {
            Problem::NotFound => DriverError::not_found("image", error.name.clone()).because(error),
            Problem::AccessDenied => DriverError::permission_denied(text),
            Problem::WrongPlatform => DriverError::invalid_field("image.platform", text),
            Problem::BadArchive => DriverError::invalid_field("image.archive", text),
            Problem::NoSpace => DriverError::exhausted("the engine's disk", text, None),
            Problem::PullFailed => DriverError::unavailable(text),
            Problem::Engine => match error.source {
                Some(source) => crate::error::engine(*source),
                None => DriverError::internal(text),
            },
        }
    }
}

/// The phrases are those of Docker, containerd, Podman and the registries' own answers.
fn problem_of_pull(error: &EngineError) -> Problem {
    let text = error.message.to_lowercase();
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| text.contains(phrase));
    match error.kind {
        Kind::NoSpace => return Problem::NoSpace,
        Kind::Unreachable | Kind::Timeout => return Problem::Engine,
        _ => {}
    }
    if says(&[
        "no matching manifest",
        "no image found in manifest list",
        "no image found in image index",
    ]) {
        return Problem::WrongPlatform;
    }
    // A registry that hides what it has says both; asking with credentials is what helps.
    if says(&[
        "unauthorized",
        "authentication required",
        "no basic auth credentials",
        "access to the resource is denied",
        "requested access",
        "access denied",
        "403 forbidden",
        "invalid username/password",
        "denied:",
    ]) {
        return Problem::AccessDenied;
    }
    let is_absent = says(&[
        "manifest unknown",
        "name unknown",
        "repository does not exist",
        "repository name not known",
        "no such image",
        "not found: manifest",
        "short-name",
        "unable to find",
    ]) || (says(&["not found"]) && says(&["manifest", "repository", "image"]));
    if is_absent || error.kind == Kind::NotFound {
        return Problem::NotFound;
    }
    Problem::PullFailed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(status: u16, text: &str) -> Problem {
        ImageError::pull("x", EngineError::answered("pull image", "x", status, text)).problem
    }

    #[test]
    fn what_engines_say_has_a_kind() {
        use Problem::{AccessDenied, NoSpace, NotFound, PullFailed, WrongPlatform};
        for (status, text, wanted) in [
            (
                404,
                "manifest for r.example/a:b not found: manifest unknown: manifest unknown",
                NotFound,
            ),
            (500, "manifest unknown: manifest unknown", NotFound),
            (
                500,
                "Get \"http://127.0.0.1:5000/v2/a/manifests/b\": no basic auth credentials",
                AccessDenied,
            ),
            (500, "unauthorized: authentication required", AccessDenied),
            (
                404,
                "pull access denied for a, repository does not exist or may require 'docker login': \
                 denied: requested access to the resource is denied",
                AccessDenied,
            ),
            (
                500,
                "no matching manifest for linux/arm64 in the manifest list entries",
                WrongPlatform,
            ),
            (500, "write /x: no space left on device", NoSpace),
            (
                500,
                "Get \"http://r.example/v2/\": dial tcp 127.0.0.1:1: connect: connection refused",
                PullFailed,
            ),
            (500, "error pulling image: unexpected EOF", PullFailed),
        ] {
            assert_eq!(problem(status, text), wanted, "{text}");
        }
    }

    #[test]
    fn each_kind_has_its_code_and_reason() {
        let error = ImageError::new(Problem::AccessDenied, "r/a", "unauthorized");
        assert_eq!(error.reason(), TerminationReason::ImageAccessDenied);
        assert!(DriverError::from(error).to_string().contains("r/a"));
    }
}
