//! Drivers that break one rule of the contract and keep all others. A conformance suite that is
//! worth its name fails each of them, with the case that is about that rule.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! variants {
    ($($variant:ident $name:literal $rule:literal)*) => {
        /// A rule that is broken.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Variant {
            $(#[doc = $rule] $variant,)*
        }

        impl Variant {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// As in scripts and flags: `wrong_order`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// What such a driver does, in one sentence.
            #[must_use]
            pub fn rule(self) -> &'static str {
                match self { $(Self::$variant => $rule),* }
            }
        }
    };
}

variants! {
    NonIdempotentCreate "non_idempotent_create"
        "The same create again is refused with ALREADY_EXISTS."
    InventedSuccess "invented_success"
        "StopSandbox says STOPPED and DeleteSandbox says OK, and nothing was done."
    LostWatchEvent "lost_watch_event"
        "The change to STOPPED is never told by WatchSandboxes."
    WrongOrder "wrong_order"
        "WatchSandboxes tells CREATING after what followed it."
    DeletedBecauseUnseen "deleted_because_unseen"
        "RecoverSandboxes deletes every sandbox of the gateway that is not among its items."
    LeakedSecretInLabel "leaked_secret_in_label"
        "The bootstrap token, as hexadecimal digits, is part of the platform id."
    IgnoredDeadline "ignored_deadline"
        "The expire time passes, and the sandbox goes on."
    UnboundedListPage "unbounded_list_page"
        "ListSandboxes puts everything on one page, whatever the page size."
    IncarnationUnreported "incarnation_unreported"
        "The incarnation is the same at every start, though nothing is remembered."
    ExitCodeLost "exit_code_lost"
        "Every exit code is 0."
    DuplicateCreate "duplicate_create"
        "The same create again makes the sandbox anew."
    SpecIgnored "spec_ignored"
        "A create with another spec under the same id is OK."
    GoneBecauseUnreadable "gone_because_unreadable"
        "A handle that cannot be read is answered with GONE."
    IgnoredRpcDeadline "ignored_rpc_deadline"
        "The deadline of an RPC passes, and nothing happens."
    UnknownDeleteFails "unknown_delete_fails"
        "DeleteSandbox of an unknown id is NOT_FOUND."
    TerminationLost "termination_lost"
        "Nothing is said about why a sandbox does not run."
    HandshakeNotNeeded "handshake_not_needed"
        "Every RPC works without a handshake."
    EndlessPages "endless_pages"
        "ListSandboxes never comes to its last page."
    NeverSynced "never_synced"
        "WatchSandboxes never says that the snapshot is whole."
    OldCursorAccepted "old_cursor_accepted"
        "A cursor of another incarnation is continued from now on, silently."
    UnreadHoldsUp "unread_holds_up"
        "A watcher that does not read holds up all the others."
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// There is no such variant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no variant {0:?}; there are {names}", names = names())]
pub struct UnknownVariant(String);

fn names() -> String {
    let names: Vec<&str> = Variant::ALL.iter().map(|variant| variant.name()).collect();
    names.join(", ")
}

impl FromStr for Variant {
    type Err = UnknownVariant;

    fn from_str(name: &str) -> Result<Self, UnknownVariant> {
        let found = Self::ALL.iter().find(|variant| variant.name() == name);
        found
            .copied()
            .ok_or_else(|| UnknownVariant(name.to_owned()))
    }
}
