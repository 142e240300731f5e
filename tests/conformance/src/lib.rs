//! The conformance suite: whether what listens on a socket is a compute driver as
//! `compute_driver.proto` means it, in whatever language it was written.
//!
//! It needs nothing but the socket. It speaks for the gateway: handshake, a callback directory and
//! socket for each sandbox, hello, and the session with the supervisor; so it tries the byte stream
//! and not only the RPCs.
//!
//! ```text
//!  run ──► Suite (socket, config, supervisor, recorder)
//!            │ for each Case of cases/: skip with a reason, or run within a deadline, then clean up
//!            ▼
//!  case ──► Driver (calls)  ·  Subject (one sandbox) ──► Callback ──► Session ──► Process
//!            │
//!            ▼ Verdict                                recorder: secrets, shapes, codes of all answers
//!  Report ──► text · JSON · JUnit
//! ```
//!
//! It refuses to know any driver: what one needs to be told is in [`Config`].

mod answer;
mod bench;
mod callback;
mod case;
mod cases;
mod command;
mod config;
mod driver;
mod host;
mod needs;
mod options;
mod process;
mod program;
mod random;
mod raw;
mod recorder;
mod remote;
pub mod report;
mod run;
mod spec;
mod subject;
mod suite;
mod wait;
mod watcher;

pub use case::{Case, Tier};
pub use cases::all as cases;
pub use config::{Config, ConfigError};
pub use options::Options;
pub use report::{CaseReport, Outcome, Report};
pub use run::{CannotRun, run};
