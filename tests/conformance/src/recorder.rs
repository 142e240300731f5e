//! Looks at every answer of a run, whichever case asked: for secrets, for shapes that the contract
//! does not allow, and for codes that are not in its table.
//!
//! What it finds is told by the cases of `cases/everything.rs`, which come last.

mod secrets;
mod shapes;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cofferdam_proto::compute::v1::Sandbox;
use prost::Message;
use tonic::{Code, Status};

use secrets::Secrets;

/// Enough to see what is wrong.
const FINDINGS_MAX: usize = 10;

/// What was found so far. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recorder(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    secrets: Secrets,
    /// Each once. There are no more places than RPCs, twice, and the log.
    leaks: Vec<Leak>,
    shapes: Vec<String>,
    codes: Vec<String>,
    observations: u64,
    answers: u64,
}

/// A secret that was seen where it must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leak {
    /// What it is, and in which form it was seen: `a bootstrap_token (in hexadecimal)`.
    pub(crate) secret: String,
    pub(crate) place: String,
    /// A case has failed for it.
    is_told: bool,
}

/// What was found in a run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Findings {
    pub(crate) shapes: Vec<String>,
    pub(crate) codes: Vec<String>,
    pub(crate) observations: u64,
    pub(crate) answers: u64,
}

impl Recorder {
    /// From now on this must not be seen anywhere.
    pub(crate) fn keep_secret(&self, what: &'static str, secret: &[u8]) {
        self.state().secrets.add(what, secret);
    }

    /// An answer.
    pub(crate) fn answer(&self, rpc: &str, answer: &impl Message) {
        let mut state = self.state();
        state.answers += 1;
        state.look(&format!("the answer to {rpc}"), &answer.encode_to_vec());
    }

    /// A refusal.
    pub(crate) fn status(&self, rpc: &str, status: &Status) {
        let mut state = self.state();
        let what = format!("the error of {rpc}");
        state.look(&what, status.message().as_bytes());
        state.look(&what, status.details());
        for entry in status.metadata().clone().into_headers().values() {
            state.look(&what, entry.as_bytes());
        }
        if !is_in_the_table(status.code(), rpc) {
            let code = crate::answer::code_name(status.code());
            let text = format!("{rpc} answered {code}: {:?}", status.message());
            note(&mut state.codes, text);
        }
    }

    /// Anything else that a driver shows: its log.
    pub(crate) fn text(&self, what: &str, bytes: &[u8]) {
        self.state().look(what, bytes);
    }

    /// Which secret is in there. Nobody else is told of it.
    pub(crate) fn secret_in(&self, bytes: &[u8]) -> Option<String> {
        self.state().secrets.found_in(bytes).map(str::to_owned)
    }

    /// The leaks that a case is about. It fails for them, and no later one does.
    pub(crate) fn tell_leaks(&self, is_about: impl Fn(&Leak) -> bool) -> Vec<String> {
        let mut state = self.state();
        let leaks = state.leaks.iter_mut();
        let told = leaks.filter(|leak| !leak.is_told && is_about(leak));
        told.map(|leak| {
            leak.is_told = true;
            format!("{} is in {}", leak.secret, leak.place)
        })
        .take(FINDINGS_MAX)
        .collect()
    }

    /// A sandbox as a driver observed it.
    pub(crate) fn observation(&self, rpc: &str, sandbox: &Sandbox) {
        let mut state = self.state();
        state.observations += 1;
        for problem in shapes::problems(sandbox) {
            let id = &sandbox.sandbox_id;
            note(&mut state.shapes, format!("{rpc} of {id}: {problem}"));
        }
    }

    pub(crate) fn findings(&self) -> Findings {
        let state = self.state();
        Findings {
            shapes: state.shapes.clone(),
            codes: state.codes.clone(),
            observations: state.observations,
            answers: state.answers,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn look(&mut self, place: &str, bytes: &[u8]) {
        let Some(secret) = self.secrets.found_in(bytes) else {
            return;
        };
        let is_this = |leak: &Leak| leak.secret == secret && leak.place == place;
        if !self.leaks.iter().any(is_this) {
            self.leaks.push(Leak {
                secret: secret.to_owned(),
                place: place.to_owned(),
                is_told: false,
            });
        }
    }
}

fn note(findings: &mut Vec<String>, text: String) {
    if findings.len() < FINDINGS_MAX && !findings.contains(&text) {
        findings.push(text);
    }
}

/// The error table at the head of the contract, and what gRPC itself answers.
fn is_in_the_table(code: Code, rpc: &str) -> bool {
    match code {
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::ResourceExhausted
        | Code::Unavailable
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::DeadlineExceeded
        | Code::Internal
        | Code::Cancelled => true,
        Code::PermissionDenied => rpc == "PrepareImage",
        Code::Ok | Code::Unknown | Code::DataLoss | Code::Unauthenticated => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leak_is_told_once_by_the_case_that_is_about_it() {
        let recorder = Recorder::default();
        recorder.keep_secret("a token", b"0123456789abcdef");
        for _ in 0..2 {
            recorder.text("the driver's log", b"token=0123456789abcdef");
            recorder.text("the answer to X", b"0123456789abcdef");
        }
        recorder.text("the answer to Y", b"nothing");
        let of_log = |leak: &Leak| leak.place == "the driver's log";
        let said = "a token (as it is) is in the driver's log";
        assert_eq!(recorder.tell_leaks(of_log), [said]);
        assert_eq!(recorder.tell_leaks(of_log), Vec::<String>::new());
        let said = "a token (as it is) is in the answer to X";
        assert_eq!(recorder.tell_leaks(|_| true), [said]);
        let found = recorder.secret_in(b"--token 0123456789abcdef");
        assert_eq!(found.as_deref(), Some("a token (as it is)"));
        assert_eq!(recorder.tell_leaks(|_| true), Vec::<String>::new());
    }
}
