//! The process driver: sandboxes made of Linux namespaces, with nothing to install.
