//! The gateway: admission, readiness, callbacks, execution, output and records, for any platform.
//!
//! It never names a backend: every platform is a driver process behind `compute_driver.proto`.

mod api;
pub mod app;
pub mod callback;
pub mod config;
pub mod driver;
pub mod embed;
pub mod execution;
pub mod model;
pub mod output;
mod reconcile;
pub mod sandbox;
pub mod service;
pub mod state_dir;
pub mod store;
pub mod transport;
pub mod units;
