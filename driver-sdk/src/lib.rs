//! Everything a compute driver needs, except the platform.
#![warn(missing_docs)]
