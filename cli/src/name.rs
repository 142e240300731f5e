//! What nothing can be called need not be asked for.

use crate::error::CommandError;

/// What the contract allows for ids and names.
const NAME_BYTES_MAX: usize = 63;

/// Refuses what is too long for an id or a name; everything else is the gateway's to judge.
pub(crate) fn check<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> Result<(), CommandError> {
    let mut lengths = names.into_iter().map(|name| name.as_ref().len());
    match lengths.find(|length| *length > NAME_BYTES_MAX) {
        None => Ok(()),
        Some(length) => Err(CommandError::usage(format!(
            "an id or name has at most {NAME_BYTES_MAX} characters, not {length}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_too_long_is_refused() {
        assert!(check(["a", "", &"x".repeat(63)]).is_ok());
        let error = check(["a", &"x".repeat(70_000)]).unwrap_err();
        assert!(error.message.contains("not 70000"), "{error:?}");
    }
}
