//! The system calls a sandbox may make.
//!
//! An allow-list in the manner of the container engines: [`table`] says which calls pass, which
//! pass for some arguments, and which are answered `ENOSYS` so that libraries take their older
//! path; every other known call is `EPERM`; every call newer than the table is `ENOSYS`.
//! [`bpf`] compiles that into a filter. It binds the supervisor and all that it ever starts,
//! because no process can shed a filter.
//!
//! The filter is the second wall, not the first: the namespaces, the unmapped host root and the
//! dropped capabilities refuse most of these calls too. What it adds is that the kernel code
//! behind them is not reached.

mod bpf;
mod table;

use rustix::io::Errno;

use super::sys;

/// Binds this process and its descendants. Needs `no_new_privs`.
pub(crate) fn install() -> Result<(), Errno> {
    sys::seccomp(&bpf::compile(&table::rules()))
}
