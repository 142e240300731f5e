//! A terminal with the real binary in it.
