//! Why a driver cannot be used, in words for its operator.

/// For a driver that is there and says nothing.
pub(super) const SILENT_FIX: &str =
    "see what the driver's process is doing (stopped, stuck, overloaded), or start it again";

/// An attempt at a driver ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    /// Trying again will not mend it, an operator must.
    pub(super) refused: bool,
    /// The driver took the connection and said nothing.
    pub(super) silent: bool,
    /// What is behind the path is not the driver's socket, or nothing is.
    pub(super) no_socket: bool,
    /// One sentence.
    pub(super) error: String,
    /// What to do; may be empty.
    pub(super) fix: String,
}

impl Trouble {
    /// May pass by itself.
    pub(super) fn failing(error: impl Into<String>) -> Self {
        Self {
            refused: false,
            silent: false,
            no_socket: false,
            error: error.into(),
            fix: String::new(),
        }
    }

    /// The driver does not answer `what`.
    pub(super) fn silent(what: &str) -> Self {
        Self {
            silent: true,
            fix: SILENT_FIX.to_owned(),
            ..Self::failing(format!("the driver does not answer{what}"))
        }
    }

    /// An operator must mend it.
    pub(super) fn refused(error: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            refused: true,
            silent: false,
            no_socket: false,
            error: error.into(),
            fix: fix.into(),
        }
    }

    /// There is nobody to talk to behind the path.
    pub(super) fn without_socket(self) -> Self {
        Self {
            no_socket: true,
            ..self
        }
    }

    pub(super) fn with_fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = fix.into();
        self
    }
}
