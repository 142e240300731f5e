//! What drivers say for people.
//!
//! It ends up in terminals and logs, so nothing of it may steer them; and it is bounded, since not
//! every driver keeps to the contract's bounds.

/// The contract's bound for strings is 1,024 bytes.
const CHARACTERS_MAX: usize = 4096;

/// The text without control characters, except line breaks and tabs, and not longer than people
/// read.
pub(in crate::driver) fn plain(text: String) -> String {
    let steers = |c: char| c.is_control() && c != '\n' && c != '\t';
    if text.len() <= CHARACTERS_MAX && !text.contains(steers) {
        return text;
    }
    let plain = |c: char| if steers(c) { ' ' } else { c };
    text.chars().take(CHARACTERS_MAX).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_taken_out() {
        assert_eq!(plain("a\n\tb".into()), "a\n\tb");
        assert_eq!(plain("a\x1b[2Jb\u{9b}c".into()), "a [2Jb c");
        assert_eq!(plain("ä".repeat(9000)).chars().count(), CHARACTERS_MAX);
    }
}
