//! The one-time token, and its successor.
//!
//! ```text
//!  {current} ──Welcome──► {current: next, previous} ──first call──► {current: next}
//! ```
//!
//! Until the first call of a session nobody knows whether the gateway has kept the new token, so
//! both are held; a gateway that rejects one is offered the other.

use std::fmt;

use cofferdam_proto::hello::KEY_BYTES;
use zeroize::{Zeroize as _, Zeroizing};

/// A token; wiped from memory when it is dropped, and never printed. In a box, since moving a value
/// leaves a copy of it behind.
pub(crate) struct Token(Box<Zeroizing<[u8; KEY_BYTES]>>);

impl Token {
    /// Takes a copy and wipes what it was made from.
    pub(crate) fn take(bytes: &mut [u8; KEY_BYTES]) -> Self {
        let mut token = Self(Box::default());
        token.0.copy_from_slice(bytes);
        bytes.zeroize();
        token
    }

    /// From 64 hexadecimal digits.
    pub(crate) fn from_hex(text: &str) -> Option<Self> {
        let mut token = Self(Box::default());
        hex::decode_to_slice(text, token.0.as_mut_slice()).ok()?;
        Some(token)
    }

    pub(crate) fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token")
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Tokens {
    current: Token,
    previous: Option<Token>,
    offer_previous: bool,
}

impl Tokens {
    pub(crate) fn new(first: Token) -> Self {
        Self {
            current: first,
            previous: None,
            offer_previous: false,
        }
    }

    /// The token to prove with.
    pub(crate) fn offered(&self) -> &Token {
        match &self.previous {
            Some(previous) if self.offer_previous => previous,
            _ => &self.current,
        }
    }

    /// The gateway did not know what was offered.
    pub(crate) fn rejected(&mut self) {
        self.offer_previous = self.previous.is_some() && !self.offer_previous;
    }

    /// The gateway, which knows the offered token, chose the next one.
    pub(crate) fn rotate(&mut self, next: Token) {
        let current = std::mem::replace(&mut self.current, next);
        // Whichever was offered is the one that the gateway has for sure.
        if !self.offer_previous || self.previous.is_none() {
            self.previous = Some(current);
        }
        self.offer_previous = false;
    }

    /// The gateway has the current token.
    pub(crate) fn confirm(&mut self) {
        self.previous = None;
        self.offer_previous = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(mut bytes: [u8; KEY_BYTES]) -> Token {
        Token::take(&mut bytes)
    }

    fn tokens() -> Tokens {
        Tokens::new(token([1; KEY_BYTES]))
    }

    fn offered(tokens: &Tokens) -> u8 {
        tokens.offered().bytes()[0]
    }

    #[test]
    fn the_newest_is_offered_first_and_the_other_after_a_rejection() {
        let mut tokens = tokens();
        tokens.rotate(token([2; KEY_BYTES]));
        assert_eq!(offered(&tokens), 2);
        tokens.rejected();
        assert_eq!(offered(&tokens), 1);
        tokens.rejected();
        assert_eq!(offered(&tokens), 2);
    }

    #[test]
    fn after_the_first_call_only_the_newest_remains() {
        let mut tokens = tokens();
        tokens.rotate(token([2; KEY_BYTES]));
        tokens.confirm();
        tokens.rejected();
        assert_eq!(offered(&tokens), 2);
    }

    #[test]
    fn a_gateway_that_lost_the_next_token_is_met_at_the_one_before() {
        let mut tokens = tokens();
        tokens.rotate(token([2; KEY_BYTES]));
        tokens.rejected();
        // The gateway knew 1, not 2, and chooses 3.
        tokens.rotate(token([3; KEY_BYTES]));
        assert_eq!(offered(&tokens), 3);
        tokens.rejected();
        assert_eq!(offered(&tokens), 1);
    }
}
