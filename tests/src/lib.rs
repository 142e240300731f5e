//! The harness that the end-to-end tests and the conformance suite share.
