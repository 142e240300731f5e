//! The command-line tool in a pseudo-terminal, with somebody typing.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use rustix::fs::{Mode, OFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use crate::cli::contains;
use crate::user::User;
use crate::wait;

/// A call in a terminal. Killed when it is dropped.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    master: File,
    /// Held open, so that the terminal lives on when the call has ended.
    slave: OwnedFd,
    screen: Arc<(Mutex<Vec<u8>>, Condvar)>,
    /// How much of the screen `expect` has gone past.
    seen: usize,
    what: String,
}

impl Terminal {
    /// `command` is to make its stdin its controlling terminal.
    pub(crate) fn start(
        mut command: Command,
        user: User,
        (rows, columns): (u16, u16),
        what: String,
    ) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = rustix::pty::openpt(flags).expect("open a pseudo-terminal");
        rustix::pty::grantpt(&master).expect("grantpt");
        rustix::pty::unlockpt(&master).expect("unlockpt");
        let name = rustix::pty::ptsname(&master, Vec::new()).expect("ptsname");
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave = rustix::fs::open(&*name, flags, Mode::empty()).expect("open the terminal");
        user.own(Path::new(std::ffi::OsStr::from_bytes(name.as_bytes())));
        let end = || Stdio::from(slave.try_clone().expect("another descriptor"));

        command.stdin(end()).stdout(end()).stderr(end());
        resize(&master, rows, columns);
        let child = command.spawn().expect("start the launcher of the tests");
        let screen = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        let master = File::from(master);
        let reader = master.try_clone().expect("another descriptor");
        let shared = Arc::clone(&screen);
        std::thread::spawn(move || watch(reader, &shared));
        Self {
            child,
            master,
            slave,
            screen,
            seen: 0,
            what,
        }
    }

    /// Types.
    pub fn send(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("type");
    }

    /// Changes the window's size, as dragging its corner does.
    pub fn resize(&self, rows: u16, columns: u16) {
        resize(&self.master, rows, columns);
    }

    /// Waits until this text appears after what was waited for before.
    #[track_caller]
    pub fn expect(&mut self, text: &str) {
        let part = text.as_bytes();
        let screen = self.screen.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = self.seen;
        let (screen, _) = self
            .screen
            .1
            .wait_timeout_while(screen, wait::PATIENCE, |screen| {
                !contains(&screen[seen..], part)
            })
            .unwrap_or_else(PoisonError::into_inner);
        let place = screen[seen..]
            .windows(part.len())
            .position(|window| window == part);
        let Some(place) = place else {
            panic!(
                "{}: {text:?} does not appear; after what was expected before there is {:?}",
                self.what,
                String::from_utf8_lossy(&screen[seen..])
            );
        };
        self.seen = seen + place + part.len();
    }

    /// Everything that ever appeared.
    pub fn screen(&self) -> String {
        let screen = self.screen.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&screen).into_owned()
    }

    /// How the terminal treats keys and output now.
    pub fn modes(&self) -> String {
        let modes = rustix::termios::tcgetattr(&self.slave).expect("tcgetattr");
        format!(
            "{:?} {:?} {:?}",
            modes.input_modes, modes.output_modes, modes.local_modes
        )
    }

    /// Waits for the end of the call; its exit code.
    #[track_caller]
    pub fn wait(self) -> i32 {
        self.wait_with_modes().0
    }

    /// As `wait`, with the terminal's modes after it.
    #[track_caller]
    pub fn wait_with_modes(mut self) -> (i32, String) {
        let status = wait::within(wait::PATIENCE, || self.child.try_wait().expect("wait"));
        let Some(status) = status else {
            panic!("{} does not end; screen: {:?}", self.what, self.screen());
        };
        match (status.code(), status.signal()) {
            (Some(code), _) => (code, self.modes()),
            (None, signal) => panic!("{} died of signal {signal:?}", self.what),
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn resize(master: impl std::os::fd::AsFd, rows: u16, columns: u16) {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(master, size).expect("set the size of the terminal");
}

fn watch(mut master: File, shared: &(Mutex<Vec<u8>>, Condvar)) {
    let mut buffer = [0; 4096];
    // An error: the last end of the terminal was closed.
    while let Ok(length @ 1..) = master.read(&mut buffer) {
        let mut screen = shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        screen.extend_from_slice(&buffer[..length]);
        shared.1.notify_all();
    }
}
