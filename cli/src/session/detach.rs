//! The keys that leave a session without ending it. Pure.
//!
//! `Ctrl-]` then `d` detaches; `Ctrl-]` twice sends one `Ctrl-]`; before any other key it is sent
//! along with that key.

use bytes::{Bytes, BytesMut};

const PREFIX: u8 = 0x1d;

#[derive(Debug, Default)]
pub(crate) struct DetachKeys {
    after_prefix: bool,
}

/// What to send, and whether to leave after it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Typed {
    pub(crate) data: Bytes,
    pub(crate) detach: bool,
}

impl DetachKeys {
    /// Looks through what was typed. The keys may come in pieces.
    pub(crate) fn filter(&mut self, typed: Bytes) -> Typed {
        if !self.after_prefix && !typed.contains(&PREFIX) {
            return Typed {
                data: typed,
                detach: false,
            };
        }
        let mut data = BytesMut::with_capacity(typed.len() + 1);
        for byte in typed {
            match (self.after_prefix, byte) {
                (false, PREFIX) => {
                    self.after_prefix = true;
                    continue;
                }
                (true, b'd') => {
                    return Typed {
                        data: data.freeze(),
                        detach: true,
                    };
                }
                (true, PREFIX) => data.extend_from_slice(&[PREFIX]),
                (true, other) => data.extend_from_slice(&[PREFIX, other]),
                (false, other) => data.extend_from_slice(&[other]),
            }
            self.after_prefix = false;
        }
        Typed {
            data: data.freeze(),
            detach: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: &mut DetachKeys, text: &'static [u8]) -> (Vec<u8>, bool) {
        let typed = keys.filter(Bytes::from_static(text));
        (typed.data.to_vec(), typed.detach)
    }

    #[test]
    fn the_keys_detach_also_in_pieces() {
        let mut keys = DetachKeys::default();
        assert_eq!(typed(&mut keys, b"ls\x1d"), (b"ls".to_vec(), false));
        assert_eq!(typed(&mut keys, b"dx"), (b"".to_vec(), true));
    }

    #[test]
    fn the_prefix_can_be_typed() {
        let mut keys = DetachKeys::default();
        assert_eq!(typed(&mut keys, b"\x1d\x1da"), (b"\x1da".to_vec(), false));
        assert_eq!(typed(&mut keys, b"\x1dx"), (b"\x1dx".to_vec(), false));
        assert_eq!(typed(&mut keys, b"d"), (b"d".to_vec(), false));
    }
}
