//! Ids and secrets that nobody has used before.

/// Bytes that nobody can guess.
///
/// # Panics
/// When the system has no randomness, without which nothing here can be trusted.
#[allow(clippy::expect_used, reason = "there is nothing to do without it")]
pub(crate) fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system gives random bytes");
    bytes
}

/// A short word of `[0-9a-f]`.
pub(crate) fn word() -> String {
    hex::encode(bytes::<5>())
}
