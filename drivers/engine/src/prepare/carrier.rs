//! A container that never runs: the way to put files and owners into volumes.

use std::collections::BTreeMap;

use bollard_stubs::models::{
    ContainerCreateBody, HostConfig, Mount, MountType, MountVolumeOptions,
};

use super::For;
use crate::client::EngineError;
use crate::{labels, naming};

/// A volume, and what is to be in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item<'a> {
    pub(super) volume: &'a str,
    pub(super) role: &'static str,
    /// Of the volume itself, and of the file.
    pub(super) owner: (u32, u32),
    /// Name and content of an executable file.
    pub(super) file: Option<(&'a str, &'a [u8])>,
}

#[derive(Debug)]
pub(super) struct Carrier<'a> {
    whom: For<'a>,
    name: String,
}

impl<'a> Carrier<'a> {
    pub(super) fn new(whom: For<'a>) -> Self {
        let name = naming::object(whom.gateway_id, "carrier", &super::spares::random_id());
        Self { whom, name }
    }

    /// Makes the volumes as they are to be. On an error some may be left, unused and labelled.
    pub(super) async fn carry(&self, items: &[Item<'_>]) -> Result<(), EngineError> {
        let engine = self.whom.engine;
        let made = engine
            .create_container(&self.name, None, &self.request(items))
            .await?;
        // Cancelled here, the carrier is left; it is labelled, and removed by the next run.
        let uploaded = self.fill(&made.id, items).await;
        let removed = engine.remove_container(&made.id, crate::client::SLOW).await;
        uploaded?;
        removed
    }

    /// Owners are set from above the volumes, which not every engine heeds: those give a new volume
    /// to its first user. Files are put in from within, which every engine does.
    async fn fill(&self, id: &str, items: &[Item<'_>]) -> Result<(), EngineError> {
        let engine = self.whom.engine;
        let failed = |error| EngineError::protocol("pack", "files", error);
        let owners = owners(items).map_err(failed)?;
        engine.upload(id, "/", owners).await?;
        for (index, item) in items.iter().enumerate() {
            if let Some((name, content)) = item.file {
                let file = file(name, content, item.owner).map_err(failed)?;
                let place = format!("/{}", directory(index));
                engine.upload(id, &place, file).await?;
            }
        }
        Ok(())
    }

    fn request(&self, items: &[Item<'_>]) -> ContainerCreateBody {
        let mounts = items.iter().enumerate().map(|(index, item)| Mount {
            typ: Some(MountType::VOLUME),
            source: Some(item.volume.to_owned()),
            target: Some(format!("/{}", directory(index))),
            volume_options: Some(MountVolumeOptions {
                no_copy: Some(true),
                labels: Some(
                    volume_labels(self.whom.gateway_id, item.role)
                        .into_iter()
                        .collect(),
                ),
                ..MountVolumeOptions::default()
            }),
            ..Mount::default()
        });
        let own = volume_labels(self.whom.gateway_id, labels::ROLE_CARRIER);
        ContainerCreateBody {
            image: Some(self.whom.image_id.to_owned()),
            // Never executed; an engine wants one.
            entrypoint: Some(vec!["/never".to_owned()]),
            cmd: Some(Vec::new()),
            working_dir: Some("/".to_owned()),
            labels: Some(own.into_iter().collect()),
            host_config: Some(HostConfig {
                network_mode: Some("none".to_owned()),
                cap_drop: Some(vec!["ALL".to_owned()]),
                mounts: Some(mounts.collect()),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        }
    }
}

pub(super) fn volume_labels(gateway_id: &str, role: &str) -> BTreeMap<String, String> {
    [
        (labels::GATEWAY.to_owned(), gateway_id.to_owned()),
        (labels::ROLE.to_owned(), role.to_owned()),
    ]
    .into()
}

fn directory(index: usize) -> String {
    format!("cofferdam-{index}")
}

fn owners(items: &[Item<'_>]) -> std::io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for (index, item) in items.iter().enumerate() {
        let mut header = header(tar::EntryType::Directory, 0o755, item.owner);
        let path = format!("{}/", directory(index));
        archive.append_data(&mut header, path, std::io::empty())?;
    }
    archive.into_inner()
}

fn file(name: &str, content: &[u8], owner: (u32, u32)) -> std::io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = header(tar::EntryType::Regular, 0o555, owner);
    header.set_size(content.len() as u64);
    archive.append_data(&mut header, name, content)?;
    archive.into_inner()
}

fn header(kind: tar::EntryType, mode: u32, (uid, gid): (u32, u32)) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(uid.into());
    header.set_gid(gid.into());
    header.set_size(0);
    header.set_mtime(crate::sandbox::now_unix_ms() / 1000);
    header
}

/// Whether a container could not be started because the supervisor's volume is not what it was.
pub(crate) fn is_supervisor_missing(error: &EngineError) -> bool {
    // In free text only, and with every status.
    let text = &error.message;
    text.contains(crate::plan::SUPERVISOR_NAME)
        && (text.contains("no such file") || text.contains("not found"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_have_owners_and_an_executable() {
        let item = |owner| Item {
            volume: "v",
            role: labels::ROLE_WORKSPACE,
            owner,
            file: None,
        };
        let seen = entries(&owners(&[item((1000, 1001)), item((0, 0))]).unwrap());
        assert_eq!(seen, ["cofferdam-0/ 755 1000 1001", "cofferdam-1/ 755 0 0"]);
        let seen = entries(&file("program", b"#!x", (0, 0)).unwrap());
        assert_eq!(seen, ["program 555 0 0"]);
    }

    fn entries(bytes: &[u8]) -> Vec<String> {
        let mut archive = tar::Archive::new(bytes);
        let entries = archive.entries().unwrap();
        entries
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                format!(
                    "{} {:o} {} {}",
                    entry.path().unwrap().display(),
                    header.mode().unwrap(),
                    header.uid().unwrap(),
                    header.gid().unwrap()
                )
            })
            .collect()
    }
}
