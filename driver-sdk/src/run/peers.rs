//! Who may call, by what the kernel says about the other side of a connection.

use std::collections::BTreeSet;

use tokio::net::UnixStream;

/// The users that may call.
#[derive(Debug, Clone)]
pub struct Peers(BTreeSet<u32>);

impl Peers {
    /// Root, the user of this process, those of `allowed`, and the user of the parent process if
    /// that made the listener.
    #[must_use]
    pub fn new(allowed: &[u32], inherited_listener: bool) -> Self {
        let mut users = BTreeSet::from([0, rustix::process::geteuid().as_raw()]);
        users.extend(allowed);
        if inherited_listener {
            users.extend(parent_user());
        }
        Self(users)
    }

    /// Whether the process on the other side may call.
    #[must_use]
    pub fn allow(&self, stream: &UnixStream) -> bool {
        match stream.peer_cred() {
            Ok(peer) if self.0.contains(&peer.uid()) => true,
            Ok(peer) => {
                tracing::warn!(
                    peer.uid = peer.uid(),
                    peer.pid = peer.pid(),
                    allowed = ?self.0,
                    "a connection was refused: this user may not call; see --allow-uid"
                );
                false
            }
            Err(error) => {
                tracing::warn!(%error, "a connection was refused: the kernel does not say whose");
                false
            }
        }
    }
}

/// The user of the process that started this one. Not the owner of its /proc directory, which is
/// root for a process that may not be dumped.
fn parent_user() -> Option<u32> {
    let parent = rustix::process::getppid()?.as_raw_nonzero();
    effective_user(&std::fs::read_to_string(format!("/proc/{parent}/status")).ok()?)
}

/// The second number in the line `Uid:` of /proc/PID/status.
fn effective_user(status: &str) -> Option<u32> {
    let users = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    users.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_user_is_read_from_the_status() {
        let status = "Name:\tx\nUid:\t1000\t7\t1000\t1000\n";
        assert_eq!(effective_user(status), Some(7));
        assert!(parent_user().is_some());
    }

    #[tokio::test]
    async fn other_users_are_refused() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        assert!(Peers::new(&[], false).allow(&ours));
        assert!(!Peers(BTreeSet::from([123_456])).allow(&ours));
    }
}
