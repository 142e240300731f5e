//! An image's name, taken apart as an engine's API wants it.

/// `[registry/]name[:tag][@digest]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reference {
    /// Registry and name, as written.
    pub(crate) repository: String,
    /// "12", "latest".
    tag: Option<String>,
    /// "sha256:…".
    pub(crate) digest: Option<String>,
}

/// A text that names no image.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{text:?} is no image reference ([registry/]name[:tag][@digest]): {problem}")]
pub(crate) struct ReferenceError {
    text: String,
    problem: &'static str,
}

/// Names without a registry are of this one.
const DEFAULT_REGISTRY: &str = "https://index.docker.io/v1/";

impl Reference {
    pub(crate) fn parse(text: &str) -> Result<Self, ReferenceError> {
        let error = |problem| ReferenceError {
            text: text.to_owned(),
            problem,
        };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        // A colon before the last slash is a registry's port.
        let name_start = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (repository, tag) = match rest[name_start..].split_once(':') {
            Some((name, tag)) => (&rest[..name_start + name.len()], Some(tag)),
            None => (rest, None),
        };
        let is_name = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_./".contains(&byte)
        };
        let (registry, path) = split_registry(repository);
        if path.is_empty() || path.split('/').any(str::is_empty) || !path.bytes().all(is_name) {
            return Err(error(
                "the name has lower-case letters, digits, '-', '_', '.' and '/'",
            ));
        }
        if registry.is_some_and(|host| host.is_empty() || host.contains(char::is_whitespace)) {
            return Err(error("the registry is a host, with a port if need be"));
        }
        let is_tag = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if tag.is_some_and(|tag| tag.is_empty() || tag.len() > 128 || !tag.bytes().all(is_tag)) {
            return Err(error(
                "a tag has letters, digits, '-', '_' and '.', at most 128",
            ));
        }
        if digest.is_some_and(|digest| !is_digest(digest)) {
            return Err(error(
                "a digest is an algorithm, a colon, and hexadecimal digits",
            ));
        }
        Ok(Self {
            repository: repository.to_owned(),
            tag: tag.map(str::to_owned),
            digest: digest.map(str::to_owned),
        })
    }

    /// What is pulled of the repository: the digest before the tag, and "latest" without either.
    pub(crate) fn version(&self) -> &str {
        let named = self.digest.as_deref().or(self.tag.as_deref());
        named.unwrap_or("latest")
    }

    /// The registry, as people name it.
    pub(crate) fn registry_host(&self) -> &str {
        let (registry, _) = split_registry(&self.repository);
        registry.unwrap_or("docker.io")
    }

    /// The registry, as credentials name it.
    pub(crate) fn registry(&self) -> &str {
        split_registry(&self.repository)
            .0
            .unwrap_or(DEFAULT_REGISTRY)
    }
}

/// The first part is a registry when it cannot be a name.
fn split_registry(repository: &str) -> (Option<&str>, &str) {
    match repository.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
            (Some(first), rest)
        }
        _ => (None, repository),
    }
}

fn is_digest(text: &str) -> bool {
    text.split_once(':').is_some_and(|(algorithm, digits)| {
        !algorithm.is_empty()
            && digits.len() >= 32
            && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> String {
        match Reference::parse(text) {
            Ok(parsed) => format!(
                "{} {} {}",
                parsed.registry(),
                parsed.repository,
                parsed.version()
            ),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn names_as_people_write_them() {
        let hub = DEFAULT_REGISTRY;
        assert_eq!(parts("busybox"), format!("{hub} busybox latest"));
        assert_eq!(parts("team/app:1.2"), format!("{hub} team/app 1.2"));
        assert_eq!(parts("r.example/a/b"), "r.example r.example/a/b latest");
        assert_eq!(
            parts("localhost:5000/a:x"),
            "localhost:5000 localhost:5000/a x"
        );
        let digest = format!("sha256:{}", "ab".repeat(32));
        assert_eq!(parts(&format!("a:1@{digest}")), format!("{hub} a {digest}"));
    }

    #[test]
    fn what_names_no_image_is_refused() {
        for text in [
            "",
            "A",
            "a b",
            "a:",
            "a@sha256:12",
            "/a",
            "a//b",
            "r.example/",
            "a:b/c:d e",
        ] {
            assert!(Reference::parse(text).is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,80}") {
            let _ = Reference::parse(&text);
        }
    }
}
