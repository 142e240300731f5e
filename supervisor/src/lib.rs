//! PID 1 of a sandbox: serves processes, files and tunnels to the gateway over one byte stream.
