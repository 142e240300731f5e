//! What is written on everything that this driver makes: whose it is, and what a driver needs to
//! know of it later. Nothing secret.

use std::collections::BTreeMap;

/// The gateway's id. On everything.
pub(crate) const GATEWAY: &str = "cofferdam.driver.gateway";
/// The sandbox's id. On its container, and on nothing else.
pub(crate) const SANDBOX: &str = "cofferdam.driver.sandbox";
/// What else a container or volume is for.
pub(crate) const ROLE: &str = "cofferdam.driver.role";
pub(crate) const ROLE_CARRIER: &str = "carrier";
pub(crate) const ROLE_SUPERVISOR: &str = "supervisor";
pub(crate) const ROLE_WORKSPACE: &str = "workspace";

const PREFIX: &str = "cofferdam.driver.";
const DIGEST: &str = "cofferdam.driver.digest";
const CREATED: &str = "cofferdam.driver.created-unix-ms";
const EXPIRES: &str = "cofferdam.driver.expires-unix-ms";
const STREAM: &str = "cofferdam.driver.stream";
const IMAGE: &str = "cofferdam.driver.image";
const IMAGE_DIGEST: &str = "cofferdam.driver.image-digest";
const WORKSPACE: &str = "cofferdam.driver.workspace-volume";
const USER: &str = "cofferdam.driver.user";
const HOME: &str = "cofferdam.driver.workspace-path";
const WEAKNESSES: &str = "cofferdam.driver.weaknesses";
const ENVIRONMENT: &str = "cofferdam.driver.image-environment";
const CALLBACK: &str = "cofferdam.driver.callback";

/// Whether a label is the driver's own; the gateway's callers cannot set such.
pub(crate) fn is_own(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// All that is remembered of a sandbox, in its container's labels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) gateway_id: String,
    pub(crate) sandbox_id: String,
    /// Of the spec, in hexadecimal digits.
    pub(crate) spec_digest: String,
    pub(crate) create_time_unix_ms: u64,
    pub(crate) expire_time_unix_ms: u64,
    /// "mount" or "relay".
    pub(crate) stream: String,
    /// As the caller named it.
    pub(crate) image: String,
    pub(crate) image_digest: String,
    /// Empty: the workspace is in memory.
    pub(crate) workspace_volume: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// The workspace's path.
    pub(crate) workspace: String,
    pub(crate) weaknesses: Vec<String>,
    /// What the image wants every program to have in its environment.
    pub(crate) environment: BTreeMap<String, String>,
    /// The callback directory, of the engine's host when mounted.
    pub(crate) callback: String,
}

impl Record {
    pub(crate) fn to_labels(&self) -> BTreeMap<String, String> {
        [
            (GATEWAY, self.gateway_id.clone()),
            (SANDBOX, self.sandbox_id.clone()),
            (DIGEST, self.spec_digest.clone()),
            (CREATED, self.create_time_unix_ms.to_string()),
            (EXPIRES, self.expire_time_unix_ms.to_string()),
            (STREAM, self.stream.clone()),
            (IMAGE, self.image.clone()),
            (IMAGE_DIGEST, self.image_digest.clone()),
            (WORKSPACE, self.workspace_volume.clone()),
            (USER, format!("{}:{}", self.uid, self.gid)),
            (HOME, self.workspace.clone()),
            (WEAKNESSES, json(&self.weaknesses)),
            (ENVIRONMENT, json(&self.environment)),
            (CALLBACK, self.callback.clone()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// None: not a sandbox's container. What is damaged is as if it were not there.
    pub(crate) fn from_labels(labels: &BTreeMap<String, String>) -> Option<Self> {
        let text = |name: &str| labels.get(name).cloned().unwrap_or_default();
        let number = |name: &str| text(name).parse().unwrap_or_default();
        let user = text(USER);
        let (uid, gid) = user.split_once(':').unwrap_or_default();
        Some(Self {
            gateway_id: labels.get(GATEWAY)?.clone(),
            sandbox_id: labels.get(SANDBOX)?.clone(),
            spec_digest: text(DIGEST),
            create_time_unix_ms: number(CREATED),
            expire_time_unix_ms: number(EXPIRES),
            stream: text(STREAM),
            image: text(IMAGE),
            image_digest: text(IMAGE_DIGEST),
            workspace_volume: text(WORKSPACE),
            uid: uid.parse().unwrap_or_default(),
            gid: gid.parse().unwrap_or_default(),
            workspace: text(HOME),
            weaknesses: serde_json::from_str(&text(WEAKNESSES)).unwrap_or_default(),
            environment: serde_json::from_str(&text(ENVIRONMENT)).unwrap_or_default(),
            callback: text(CALLBACK),
        })
    }
}

/// Texts and maps of texts always are JSON.
fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_from_its_labels() {
        let record = Record {
            gateway_id: "gw".to_owned(),
            sandbox_id: "sbx-1".to_owned(),
            create_time_unix_ms: 7,
            uid: 1000,
            gid: 1001,
            weaknesses: vec!["a \"b\"".to_owned()],
            environment: [("PATH".to_owned(), "/x".to_owned())].into(),
            ..Record::default()
        };
        let labels = record.to_labels();
        assert!(labels.keys().all(|name| is_own(name)));
        assert_eq!(Record::from_labels(&labels), Some(record));
        assert_eq!(Record::from_labels(&BTreeMap::new()), None);
    }
}
