//! Measures Cofferdam beside the raw platforms.
fn main() {}
