//! Identifiers: newtypes that can only hold what their rules allow.

use std::fmt;
use std::sync::Arc;

use super::UnixMillis;

/// Why a string is no identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?} is not valid: {rule}")]
pub struct IdError {
    what: &'static str,
    value: String,
    rule: &'static str,
}

const RULE: &str = "use 1 to 63 characters of a-z, 0-9 and -, starting with a letter or digit";

fn check(what: &'static str, value: &str) -> Result<Arc<str>, IdError> {
    let bytes = value.as_bytes();
    let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let good = !bytes.is_empty()
        && bytes.len() <= 63
        && bytes.first().is_some_and(plain)
        && bytes.iter().all(|b| plain(b) || *b == b'-');
    if good {
        return Ok(value.into());
    }
    let value = value.chars().take(80).collect();
    Err(IdError {
        what,
        value,
        rule: RULE,
    })
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the rule for identifiers.
            pub fn parse(value: &str) -> Result<Self, IdError> {
                check($what, value).map(Self)
            }

            /// The text of it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id!(
    /// A sandbox, unique for ever: `sbx-…`.
    SandboxId,
    "sandbox id"
);
id!(
    /// A name that a caller gave to a sandbox, unique among those that exist.
    SandboxName,
    "sandbox name"
);
id!(
    /// An execution, unique for ever: `exec-…`.
    ExecutionId,
    "execution id"
);
id!(
    /// The name under which the operator attached a driver.
    DriverName,
    "driver name"
);
id!(
    /// One change of the world, the same in the gateway's and the driver's log.
    OperationId,
    "operation id"
);

impl SandboxId {
    /// A new id, later ones sort after earlier ones.
    pub fn generate() -> Self {
        Self(generate("sbx"))
    }
}

impl ExecutionId {
    /// A new id, later ones sort after earlier ones.
    pub fn generate() -> Self {
        Self(generate("exec"))
    }
}

impl OperationId {
    /// A new id.
    pub fn generate() -> Self {
        Self(generate("op"))
    }
}

/// Forty-eight bits of time, then eighty random bits, in lower-case base32.
fn generate(prefix: &str) -> Arc<str> {
    let mut bytes = [0_u8; 16];
    bytes[..6].copy_from_slice(&UnixMillis::now().0.to_be_bytes()[2..]);
    bytes[6..].copy_from_slice(&rand::random::<[u8; 10]>());
    // The hex variant of base32 keeps the order of the bytes.
    let text = data_encoding::BASE32HEX_NOPAD.encode(&bytes);
    format!("{prefix}-{}", text.to_ascii_lowercase()).into()
}

/// A secret that a supervisor and the gateway share; one for each session.
#[derive(Clone, PartialEq, Eq, zeroize::ZeroizeOnDrop)]
pub struct Token(pub [u8; 32]);

impl Token {
    /// A fresh one from the operating system's random numbers.
    pub fn generate() -> Self {
        Self(rand::random())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_ids_are_valid_unique_and_ordered() {
        let first = SandboxId::generate();
        assert_eq!(SandboxId::parse(first.as_str()).unwrap(), first);
        assert_ne!(SandboxId::generate(), first);
        assert!(first.as_str().len() <= 63);
    }

    #[test]
    fn bad_names_say_the_rule() {
        for bad in ["", "-a", "A", "a/b", "ä", &"a".repeat(64)] {
            let error = SandboxName::parse(bad).unwrap_err().to_string();
            assert!(error.contains("a-z"), "{error}");
        }
    }
}
