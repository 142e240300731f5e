//! The gateway: admission, readiness, callbacks, execution, output and records, for any platform.
