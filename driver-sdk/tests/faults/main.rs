//! The fault driver breaks what it is told to break, and nothing else.

mod calls;
mod door;
mod observing;
mod program;
mod support;
mod variants;
