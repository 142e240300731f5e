//! Looks at every answer of a run, whichever case asked: for secrets, for shapes that the contract
//! does not allow, and for codes that are not in its table.
//!
//! What it finds is told by the cases of `cases/everything.rs`, which come last.

mod secrets;
mod shapes;

use std::sync::{Mutex, MutexGuard, PoisonError};

use cofferdam_proto::compute::v1::Sandbox;
use prost::Message;
use tonic::{Code, Status};

use secrets::Secrets;

/// Enough to see what is wrong.
const FINDINGS_MAX: usize = 10;

/// What was found so far.
#[derive(Debug, Default)]
pub(crate) struct Recorder(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    secrets: Secrets,
    leaks: Vec<String>,
    shapes: Vec<String>,
    codes: Vec<String>,
    observations: u64,
    answers: u64,
}

/// What was found in a run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Findings {
    pub(crate) leaks: Vec<String>,
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

    /// Anything else that a driver shows: a log, a process's arguments.
    pub(crate) fn text(&self, what: &str, bytes: &[u8]) {
        self.state().look(what, bytes);
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
            leaks: state.leaks.clone(),
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
        if let Some(secret) = self.secrets.found_in(bytes) {
            note(&mut self.leaks, format!("{secret} is in {place}"));
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
