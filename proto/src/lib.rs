//! The contracts that Cofferdam's processes share, as generated code.
//!
//! The `.proto` files under `proto/cofferdam/` are the source; `cargo xtask codegen` turns them
//! into `src/gen/`, which is committed. This crate holds no logic and forces no transport.
