//! The task of one callback: accepts, lets hellos happen, and keeps the one live session.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admission::{self, Admission, Peer, Verdict};
use super::hello::{Host, exchange};
use super::session::{self, Session};
use super::tokens::Offer;
use crate::transport::{Channel, ChannelOptions, Prefixed};

/// After an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the task owns.
#[derive(Debug)]
pub(super) struct Acceptor {
    pub(super) listener: UnixListener,
    pub(super) host: Arc<Host>,
    pub(super) session: Arc<watch::Sender<Option<Session>>>,
    pub(super) tasks: TaskTracker,
    pub(super) cancel: CancellationToken,
}

/// A hello that came to its end: a session that has answered its first call, or nothing.
type Outcome = (u64, Option<(Session, Offer)>);

/// Hellos under way.
#[derive(Debug, Default)]
struct Hellos {
    admission: Admission,
    running: JoinSet<Outcome>,
    handles: HashMap<u64, AbortHandle>,
}

impl Hellos {
    fn end(&mut self, id: u64) {
        self.admission.leave(id);
        if let Some(handle) = self.handles.remove(&id) {
            handle.abort();
        }
    }
}

impl Acceptor {
    /// Runs until cancelled. Then hellos and the session end with it.
    pub(super) async fn run(self) {
        let cancel = self.cancel.clone();
        cancel.run_until_cancelled(self.serve()).await;
        if let Some(session) = self.session.send_replace(None) {
            session.cut();
        }
    }

    async fn serve(&self) {
        let mut hellos = Hellos::default();
        // As many as there are places: sending never waits.
        let (trusted, mut trusting) = mpsc::channel(admission::PLACES_MAX);
        loop {
            tokio::select! {
                biased;
                Some(id) = trusting.recv() => hellos.admission.trust(id),
                Some(joined) = hellos.running.join_next() => {
                    // Evicted hellos join as cancelled; their places are free already.
                    let Ok((id, outcome)) = joined else { continue };
                    hellos.end(id);
                    if let Some((session, offer)) = outcome {
                        self.publish(session, offer);
                    }
                }
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => self.admit(&mut hellos, stream, &trusted),
                    Err(error) => {
                        let sandbox = &self.host.sandbox_id;
                        tracing::warn!(sandbox.id = %sandbox, %error, "cannot accept");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }

    fn admit(&self, hellos: &mut Hellos, stream: UnixStream, trusted: &mpsc::Sender<u64>) {
        // Gone already, if its credentials cannot be had.
        let Ok(credentials) = stream.peer_cred() else {
            return;
        };
        let mut peer = Peer {
            uid: credentials.uid(),
            pid: credentials.pid(),
            is_init: false,
        };
        let id = session::next_id();
        let now = Instant::now();
        let mut verdict = hellos.admission.admit(id, peer, now);
        if verdict == Verdict::Refuse && peer.pid.is_some_and(is_init) {
            peer.is_init = true;
            verdict = hellos.admission.admit(id, peer, now);
        }
        match verdict {
            Verdict::Refuse => return,
            Verdict::Replace(old) => hellos.end(old),
            Verdict::Admit => {}
        }
        let hello = Hello {
            id,
            peer,
            host: self.host.clone(),
            trusted: trusted.clone(),
            tasks: self.tasks.clone(),
            cancel: self.cancel.clone(),
        };
        let handle = hellos.running.spawn(hello.run(stream));
        hellos.handles.insert(id, handle);
    }

    /// The newest proven session is the sandbox's; the one before is over.
    fn publish(&self, session: Session, offer: Offer) {
        let sandbox = &self.host.sandbox_id;
        tracing::debug!(sandbox.id = %sandbox, session.id = session.id(), "session is up");
        if let Some(old) = self.session.send_replace(Some(session.clone())) {
            old.cut();
        }
        let published = self.session.clone();
        let host = self.host.clone();
        self.tasks.spawn(async move {
            if let Err(error) = host.book.confirm(&offer).await {
                let sandbox = &host.sandbox_id;
                tracing::warn!(sandbox.id = %sandbox, error, "cannot store the confirmed token");
            }
            session.watch().await;
            let (sandbox, reason) = (&host.sandbox_id, session.end_reason());
            tracing::debug!(sandbox.id = %sandbox, session.id = session.id(), reason, "session ended");
            published.send_if_modified(|current| {
                let ours = current.as_ref().is_some_and(|current| current.id() == session.id());
                if ours {
                    *current = None;
                }
                ours
            });
        });
    }
}

/// Whether a process is the first one of its pid namespace, as far as can be seen.
fn is_init(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    ids.and_then(|ids| ids.split_whitespace().last()) == Some("1")
}

/// One connection until it is a session.
struct Hello {
    id: u64,
    peer: Peer,
    host: Arc<Host>,
    trusted: mpsc::Sender<u64>,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

impl Hello {
    /// A drop at any point closes the connection, and leaves tokens that the next hello can use.
    async fn run(self, mut stream: UnixStream) -> Outcome {
        let id = self.id;
        let sandbox = &self.host.sandbox_id;
        let trusted = || {
            let _ = self.trusted.try_send(id);
        };
        let proof = match exchange(&mut stream, &self.host, id, trusted).await {
            Ok(proof) => proof,
            Err(error) => {
                let (uid, pid) = (self.peer.uid, self.peer.pid);
                let source = std::error::Error::source(&error);
                tracing::debug!(sandbox.id = %sandbox, uid, pid, %error, source, "no session");
                return (id, None);
            }
        };
        let (uid, pid, noise_bytes) = (self.peer.uid, self.peer.pid, proof.noise_bytes);
        tracing::debug!(sandbox.id = %sandbox, session.id = id, uid, pid, noise_bytes, "hello done");
        let offer = proof.offer.clone();
        let cancel = self.cancel.child_token();
        let guard = cancel.clone().drop_guard();
        let options = ChannelOptions {
            keep_alive: Some(session::KEEP_ALIVE),
            tasks: &self.tasks,
            cancel,
        };
        let stream = Prefixed::new(proof.rest.clone(), stream);
        let Ok(channel) = Channel::open(stream, options).await else {
            return (id, None);
        };
        let session = Session::new(id, proof, channel);
        if !session.first_ping().await {
            tracing::debug!(sandbox.id = %sandbox, session.id = id, "no answer to the first ping");
            return (id, None);
        }
        guard.disarm();
        (id, Some((session, offer)))
    }
}
