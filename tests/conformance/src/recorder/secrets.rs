//! Secrets, and finding them in any of the forms in which they get out.

use std::collections::HashMap;

use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};

/// So many first bytes find the candidates.
const HEAD_BYTES: usize = 8;

/// What must not be seen. Forms are found by their first bytes, so that looking stays cheap however
/// many secrets a run has.
#[derive(Default)]
pub(super) struct Secrets(HashMap<[u8; HEAD_BYTES], Vec<Form>>);

struct Form {
    bytes: Vec<u8>,
    name: String,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secrets({} forms)", self.0.len())
    }
}

impl Secrets {
    /// A secret of at least 16 bytes, called `what`.
    pub(super) fn add(&mut self, what: &str, secret: &[u8]) {
        let whole_groups = secret.len() / 3 * 3;
        let forms = [
            (secret.to_vec(), "as it is"),
            (HEXLOWER.encode(secret).into_bytes(), "in hexadecimal"),
            (HEXUPPER.encode(secret).into_bytes(), "in hexadecimal"),
            // The last group depends on what follows.
            (
                BASE64_NOPAD.encode(&secret[..whole_groups]).into_bytes(),
                "in base64",
            ),
            (
                BASE64URL_NOPAD.encode(&secret[..whole_groups]).into_bytes(),
                "in base64",
            ),
        ];
        for (bytes, form) in forms {
            let Some(head) = head(&bytes) else { continue };
            let name = format!("{what} ({form})");
            self.0.entry(head).or_default().push(Form { bytes, name });
        }
    }

    /// Which one is in there.
    pub(super) fn found_in(&self, bytes: &[u8]) -> Option<&str> {
        bytes
            .windows(HEAD_BYTES)
            .enumerate()
            .find_map(|(at, window)| {
                let candidates = self.0.get(window)?;
                let form = candidates
                    .iter()
                    .find(|form| bytes[at..].starts_with(&form.bytes))?;
                Some(form.name.as_str())
            })
    }
}

fn head(bytes: &[u8]) -> Option<[u8; HEAD_BYTES]> {
    bytes.get(..HEAD_BYTES)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"\x01\x02\x03 thirty-two bytes of secrecy\xff";

    #[test]
    fn a_secret_is_found_in_each_form() {
        let mut secrets = Secrets::default();
        secrets.add("the token", SECRET);
        let hex = hex::encode(SECRET);
        let base64 = data_encoding::BASE64.encode(SECRET);
        let forms = [
            SECRET.to_vec(),
            hex.to_uppercase().into_bytes(),
            hex.into_bytes(),
            base64.into_bytes(),
        ];
        for form in forms {
            let text = [b"label=".as_slice(), &form, b" and more"].concat();
            assert!(secrets.found_in(&text).is_some(), "{text:?}");
        }
    }

    #[test]
    fn half_a_secret_and_other_text_are_none() {
        let mut secrets = Secrets::default();
        secrets.add("the token", SECRET);
        assert_eq!(secrets.found_in(&SECRET[..20]), None);
        assert_eq!(secrets.found_in(b"nothing to see"), None);
        assert_eq!(secrets.found_in(b""), None);
    }
}
