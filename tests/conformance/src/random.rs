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

/// So many bytes that compress badly and repeat nowhere near: which ones of them are lost, doubled
/// or swapped is seen.
pub(crate) fn long(count: usize) -> Vec<u8> {
    let mut state = u64::from_le_bytes(bytes::<8>()) | 1;
    let mut next = || {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..count).map(|_| next()).collect()
}
