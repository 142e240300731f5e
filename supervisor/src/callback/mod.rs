//! The supervisor's end of the callback: one session after another, for as long as the sandbox lives.
//!
//! ```text
//!  connect ──► hello ──► HTTP/2 ──► (the stream ends) ──► connect …
//!     └──────────┴── failed: wait 50 ms, doubling to 2 s ──┘
//! ```
//!
//! Processes know nothing of this. A session that is gone takes only its own streams with it.

mod connect;
mod wire;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cofferdam_proto::supervisor::v1::reject::Reason;
use tokio::time::{sleep, timeout};

pub(crate) use self::connect::Connector;
pub(crate) use self::wire::Wire;
use crate::core::Core;
use crate::hello::{HelloError, exchange};
use crate::log::log;
use crate::serve::serve;
use crate::token::Tokens;

/// The gateway gives up after 10 s. On a socket, so do we, since it may have died silently.
const HELLO_PATIENCE: Duration = Duration::from_secs(15);
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_LAST: Duration = Duration::from_secs(2);

/// Why there will be no other session.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NoMore {
    /// The gateway does not want this sandbox any more.
    SandboxGone,
    /// The only stream there ever was has ended.
    StreamEnded,
}

/// Keeps a session up. Returns when there cannot be another one.
pub(crate) async fn keep_session(
    mut connector: Connector,
    core: Arc<Core>,
    tokens: Tokens,
) -> NoMore {
    let tokens = Arc::new(Mutex::new(tokens));
    let mut backoff = Backoff::new();
    loop {
        match one_session(&mut connector, &core, &tokens).await {
            Outcome::Served => backoff = Backoff::new(),
            Outcome::Failed(reason) => backoff.note(&reason),
            Outcome::Gone => return NoMore::SandboxGone,
        }
        if !connector.can_reconnect() {
            return NoMore::StreamEnded;
        }
        backoff.wait().await;
    }
}

enum Outcome {
    /// There was a session, and it has ended.
    Served,
    Failed(String),
    Gone,
}

async fn one_session(
    connector: &mut Connector,
    core: &Arc<Core>,
    tokens: &Arc<Mutex<Tokens>>,
) -> Outcome {
    let mut wire = match connector.connect().await {
        Ok(wire) => wire,
        Err(error) => return Outcome::Failed(format!("cannot reach the gateway: {error}")),
    };
    let counts = core.table.counts();
    let hello = exchange(
        &mut wire,
        &core.identity,
        tokens,
        counts.running + counts.ended,
    );
    let agreed = if connector.is_relayed() {
        // Whoever may come speaks on this very stream; there is nothing better to wait for.
        hello.await
    } else {
        match timeout(HELLO_PATIENCE, hello).await {
            Ok(agreed) => agreed,
            Err(_) => return Outcome::Failed("the gateway did not finish the hello".into()),
        }
    };
    let agreed = match agreed {
        Ok(agreed) => agreed,
        Err(HelloError::Rejected(reject)) if reject.reason() == Reason::SandboxGone => {
            return Outcome::Gone;
        }
        Err(error) => {
            if let HelloError::Rejected(reject) = &error
                && reject.reason() == Reason::BadToken
            {
                tokens
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .rejected();
            }
            return Outcome::Failed(error.to_string());
        }
    };
    if let Err(error) = core.start_threads() {
        return Outcome::Failed(format!("cannot make the threads it needs: {error}"));
    }
    log!(
        "session {} with protocol {}",
        agreed.session,
        agreed.protocol
    );
    wire.begin_session(agreed.rest);
    let confirmed = Arc::clone(tokens);
    let on_first_call = move || {
        confirmed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .confirm()
    };
    if let Err(error) = serve(wire, core, connector.is_relayed(), on_first_call).await {
        log!("session {} failed: {error}", agreed.session);
    } else {
        log!("session {} ended", agreed.session);
    }
    Outcome::Served
}

/// Waiting times between attempts, with some chance in them, since a restarted gateway is awaited by
/// all its sandboxes at once.
struct Backoff {
    next: Duration,
    noted: String,
}

impl Backoff {
    fn new() -> Self {
        Self {
            next: BACKOFF_FIRST,
            noted: String::new(),
        }
    }

    /// Logs a failure, unless it is the one that was logged last.
    fn note(&mut self, reason: &str) {
        if self.noted != reason {
            log!("{reason}");
            reason.clone_into(&mut self.noted);
        }
    }

    async fn wait(&mut self) {
        let mut random = [0; 1];
        // Without randomness the wait is merely regular.
        let _ = getrandom::fill(&mut random);
        let wait = self.next.mul_f64(0.5 + f64::from(random[0]) / 512.0);
        self.next = (self.next * 2).min(BACKOFF_LAST);
        sleep(wait).await;
    }
}
