//! The contracts that Cofferdam's processes share, as generated code.
//!
//! The `.proto` files under `proto/cofferdam/` are the source and hold the documentation;
//! `cargo xtask codegen` turns them into `src/gen/`, which is committed. This crate holds no logic
//! and forces no transport: clients and servers exist, `connect()` does not.
//!
//! Fields marked `[(secret) = true]` print as `[redacted]` in `Debug`.
#![allow(
    clippy::all,
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    rustdoc::all,
    reason = "all code here is generated"
)]

/// All packages with their imports, as an encoded `google.protobuf.FileDescriptorSet`; for
/// server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("gen/descriptors.bin");

pub mod hello;

/// Between gateway and driver.
pub mod compute {
    /// Version 1 of the driver contract.
    pub mod v1 {
        include!("gen/cofferdam.compute.v1.rs");
    }
}

/// Between gateway and supervisor.
pub mod supervisor {
    /// Version 1 of the supervisor contract.
    pub mod v1 {
        include!("gen/cofferdam.supervisor.v1.rs");
    }
}

/// Between callers and gateway.
pub mod gateway {
    /// Version 1 of the public API.
    pub mod v1 {
        include!("gen/cofferdam.gateway.v1.rs");
    }
}
