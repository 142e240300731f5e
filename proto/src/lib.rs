//! The contracts that Cofferdam's processes share: generated code, and the framing of the hello.
//!
//! The `.proto` files under `proto/cofferdam/` are the source and hold the documentation;
//! `cargo xtask codegen` turns them into `src/gen/`, which is committed. [`hello`] is what both
//! ends of a callback stream must do alike before HTTP/2 begins. Besides that and two
//! sizes this crate holds no logic, and it forces no transport: clients and servers exist,
//! `connect()` does not.
//!
//! Fields marked `[(secret) = true]` print as `[redacted]` in `Debug`.
#![warn(missing_docs)]

pub mod hello;

/// Longest HTTP/2 frame on all of our connections. Large frames are most of what makes bulk output
/// fast.
pub const FRAME_BYTES_MAX: u32 = 128 * 1024;

/// Longest piece of a stream of bytes in one message: what is around it has room in the same frame.
/// A piece that is longer needs a second frame for its last bytes, and at the end of a window that
/// one waits for the reader.
pub const PIECE_BYTES_MAX: usize = FRAME_BYTES_MAX as usize - 512;

/// All packages with their imports, as an encoded `google.protobuf.FileDescriptorSet`; for
/// server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("gen/descriptors.bin");

/// A module with one generated file, which cannot keep all of our lints.
macro_rules! generated {
    ($(#[$doc:meta])* $version:ident, $file:literal) => {
        $(#[$doc])*
        #[allow(
            clippy::all,
            missing_debug_implementations,
            unreachable_pub,
            unused_qualifications,
            missing_docs,
            reason = "generated code; what needs words has them in the .proto file"
        )]
        pub mod $version {
            include!(concat!("gen/", $file));
        }
    };
}

/// Between gateway and driver.
pub mod compute {
    generated!(
        /// Version 1 of the driver contract.
        v1, "cofferdam.compute.v1.rs"
    );
}

/// Between gateway and supervisor.
pub mod supervisor {
    generated!(
        /// Version 1 of the supervisor contract.
        v1, "cofferdam.supervisor.v1.rs"
    );
}

/// Between callers and gateway.
pub mod gateway {
    generated!(
        /// Version 1 of the public API.
        v1, "cofferdam.gateway.v1.rs"
    );
}
