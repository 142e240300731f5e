//! Our own terminal: its size, raw mode, and that it comes back whatever happens.

use std::io::{self, IsTerminal as _};
use std::sync::{Mutex, PoisonError};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use crate::error::CommandError;

/// What the terminal was like before raw mode. One for the process, since a panic hook and the
/// printing of messages must know it.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Stdin's terminal in raw mode, until this is dropped.
#[derive(Debug)]
pub(crate) struct RawMode(());

impl RawMode {
    pub(crate) fn enter() -> Result<Self, CommandError> {
        let before = tcgetattr(rustix::stdio::stdin())
            .map_err(|error| CommandError::io("cannot read the terminal's settings", error))?;
        lock().replace(before);
        let raw = Self(());
        raw.apply()
            .map_err(|error| CommandError::io("cannot change the terminal's settings", error))?;
        Ok(raw)
    }

    /// Sets raw mode (again): a shell that has stopped us in between has put its own.
    pub(crate) fn apply(&self) -> io::Result<()> {
        let Some(mut raw) = lock().clone() else {
            return Ok(());
        };
        raw.make_raw();
        Ok(tcsetattr(
            rustix::stdio::stdin(),
            OptionalActions::Now,
            &raw,
        )?)
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

/// True while lines need a carriage return.
pub(crate) fn is_raw() -> bool {
    lock().is_some()
}

/// A panic shows its message on a terminal that can show it.
pub(crate) fn restore_on_panic() {
    let inner = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        restore();
        inner(info);
    }));
}

fn restore() {
    if let Some(before) = lock().take() {
        // A terminal that went away needs no restoring.
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &before);
    }
}

fn lock() -> std::sync::MutexGuard<'static, Option<Termios>> {
    BEFORE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Rows and columns, of whichever of our three is a terminal.
pub(crate) fn size() -> Option<(u32, u32)> {
    let sizes = [
        tcgetwinsize(rustix::stdio::stdin()),
        tcgetwinsize(rustix::stdio::stdout()),
        tcgetwinsize(rustix::stdio::stderr()),
    ];
    sizes
        .into_iter()
        .flatten()
        .map(|size| (u32::from(size.ws_row), u32::from(size.ws_col)))
        .find(|(rows, columns)| *rows > 0 && *columns > 0)
}

pub(crate) fn stdin_is_terminal() -> bool {
    io::stdin().is_terminal()
}

pub(crate) fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}
