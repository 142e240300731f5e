//! The name of a sandbox's container, and what it remembers.
//!
//! ```text
//!   cofferdam-3f9a2c41d07b-sbx-01j…          made; its first boot
//!   cofferdam-3f9a2c41d07b-sbx-01j….2.start  about to begin its second, or just begun
//!   cofferdam-3f9a2c41d07b-sbx-01j….2        in its second
//!   cofferdam-3f9a2c41d07b-sbx-01j….2.stop   asked to stop in its second
//! ```
//!
//! A container's labels never change, its name can. So the name is the journal: it is written
//! before what it announces is done, lives on the engine and nowhere else, and a driver that was
//! killed, or runs on another host, reads it like everybody.

use sha2::{Digest as _, Sha256};

const PREFIX: &str = "cofferdam";

/// What a container's name says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name {
    /// Of the gateway's id.
    tag: String,
    sandbox_id: String,
    /// Counts the starts.
    pub(crate) boots: u64,
    /// Somebody asked for the end of this boot.
    pub(crate) is_stopping: bool,
    /// This boot was asked for; whether it has begun, the container says by running.
    pub(crate) is_starting: bool,
}

impl Name {
    pub(crate) fn new(gateway_id: &str, sandbox_id: &str) -> Self {
        Self {
            tag: gateway_tag(gateway_id),
            sandbox_id: sandbox_id.to_owned(),
            boots: 1,
            is_stopping: false,
            is_starting: false,
        }
    }

    /// The name of a container of this sandbox. One that somebody renamed says "first boot".
    pub(crate) fn read(gateway_id: &str, sandbox_id: &str, text: &str) -> Self {
        let fresh = Self::new(gateway_id, sandbox_id);
        let text = text.strip_prefix('/').unwrap_or(text);
        let Some(journal) = text.strip_prefix(&fresh.base()) else {
            return fresh;
        };
        let without = |suffix: &str| journal.strip_suffix(suffix);
        let (journal, is_stopping, is_starting) = match (without(".stop"), without(".start")) {
            (Some(journal), _) => (journal, true, false),
            (None, Some(journal)) => (journal, false, true),
            (None, None) => (journal, false, false),
        };
        let boots = journal
            .strip_prefix('.')
            .and_then(|boots| boots.parse().ok());
        Self {
            boots: boots.unwrap_or(1),
            is_stopping,
            is_starting,
            ..fresh
        }
    }

    pub(crate) fn stopping(&self) -> Self {
        Self {
            is_stopping: true,
            is_starting: false,
            ..self.clone()
        }
    }

    /// Of a container that does not run, and is about to.
    pub(crate) fn next_boot(&self) -> Self {
        Self {
            boots: self.boots_begun(false) + 1,
            is_stopping: false,
            is_starting: true,
            ..self.clone()
        }
    }

    /// What was about to begin has begun.
    pub(crate) fn begun(&self) -> Self {
        Self {
            is_starting: false,
            ..self.clone()
        }
    }

    /// How many boots there were, as far as the name and the container know together.
    pub(crate) fn boots_begun(&self, is_running: bool) -> u64 {
        match self.is_starting && !is_running {
            true => self.boots.saturating_sub(1),
            false => self.boots,
        }
    }

    fn base(&self) -> String {
        format!("{PREFIX}-{}-{}", self.tag, self.sandbox_id)
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.base())?;
        if self.boots != 1 {
            write!(f, ".{}", self.boots)?;
        }
        match (self.is_stopping, self.is_starting) {
            (true, _) => f.write_str(".stop"),
            (false, true) => f.write_str(".start"),
            (false, false) => Ok(()),
        }
    }
}

/// Names something else of a gateway: a volume, a container that only carries files.
pub(crate) fn object(gateway_id: &str, what: &str, id: &str) -> String {
    format!("{PREFIX}-{}-{what}-{id}", gateway_tag(gateway_id))
}

/// Twelve digits that tell gateways on one engine apart; the label has the whole id.
fn gateway_tag(gateway_id: &str) -> String {
    let digest = Sha256::digest(gateway_id.as_bytes());
    data_encoding::HEXLOWER.encode(&digest[..6])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_remembers_boots_and_stops() {
        let first = Name::new("gw", "sbx-1");
        let base = first.to_string();
        assert!(base.ends_with("-sbx-1"), "{base}");
        for name in [
            first.clone(),
            first.stopping(),
            first.next_boot(),
            first.next_boot().begun(),
            first.next_boot().stopping(),
        ] {
            let text = format!("/{name}");
            assert_eq!(Name::read("gw", "sbx-1", &text), name);
        }
        assert_eq!(
            first.next_boot().stopping().to_string(),
            format!("{base}.2.stop")
        );
    }

    #[test]
    fn a_boot_that_was_only_asked_for_does_not_count() {
        let asked = Name::new("gw", "sbx-1").stopping().next_boot();
        assert_eq!((asked.boots_begun(false), asked.boots_begun(true)), (1, 2));
        // Asked for again, because whoever did it first was killed before it began.
        assert_eq!(asked.next_boot(), asked);
        assert_eq!(asked.begun().boots_begun(false), 2);
        assert_eq!(asked.begun().next_boot().boots_begun(true), 3);
    }

    #[test]
    fn a_name_that_somebody_changed_is_a_first_boot() {
        assert_eq!(Name::read("gw", "sbx-1", "/mine"), Name::new("gw", "sbx-1"));
    }

    #[test]
    fn gateways_have_names_of_their_own() {
        assert_ne!(
            Name::new("a", "x").to_string(),
            Name::new("b", "x").to_string()
        );
    }
}
