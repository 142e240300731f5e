//! The real binary in a terminal: a session of its own, with the terminal as its controlling one.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Termios, Winsize, tcgetattr, tcsetwinsize};

/// Long enough for a slow machine; a test that passes never waits for it.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Terminal {
    master: Arc<OwnedFd>,
    child: Child,
    seen: Arc<Seen>,
    before: Termios,
}

#[derive(Default)]
struct Seen {
    text: Mutex<String>,
    more: Condvar,
}

impl Terminal {
    /// Starts a command on a terminal of 30 rows and 100 columns.
    pub(crate) fn start(command: &Command) -> Self {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let slave = open(
            ptsname(&master, Vec::new()).unwrap(),
            OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .unwrap();
        let master = Arc::new(master);
        set_size(&master, 30, 100);
        let before = tcgetattr(&slave).unwrap();
        let child = in_session(command)
            .stdin(Stdio::from(slave.try_clone().unwrap()))
            .stdout(Stdio::from(slave.try_clone().unwrap()))
            .stderr(Stdio::from(slave))
            .spawn()
            .unwrap();
        let seen = Arc::new(Seen::default());
        let (reader, writer) = (master.clone(), seen.clone());
        std::thread::spawn(move || collect(&reader, &writer));
        Self {
            master,
            child,
            seen,
            before,
        }
    }

    pub(crate) fn type_keys(&self, keys: &[u8]) {
        File::from(self.master.try_clone().unwrap())
            .write_all(keys)
            .unwrap();
    }

    /// The kernel tells the foreground process about it.
    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        set_size(&self.master, rows, columns);
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn is_raw(&self) -> bool {
        let now = tcgetattr(&*self.master).unwrap();
        !now.local_modes
            .intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    /// Exactly as it was before the command started.
    pub(crate) fn is_restored(&self) -> bool {
        let now = tcgetattr(&*self.master).unwrap();
        now.local_modes == self.before.local_modes
            && now.input_modes == self.before.input_modes
            && now.output_modes == self.before.output_modes
    }

    /// Waits until the terminal has shown a text.
    pub(crate) fn wait_for(&self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = self.seen.text.lock().unwrap();
        while !seen.contains(text) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{text:?} is not in {seen:?}");
            seen = self.seen.more.wait_timeout(seen, left).unwrap().0;
        }
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

fn set_size(master: &OwnedFd, rows: u16, columns: u16) {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(master, size).unwrap();
}

/// The same command, led by `setsid --ctty`, which execs it.
fn in_session(command: &Command) -> Command {
    let mut wrapped = Command::new("setsid");
    wrapped
        .arg("--ctty")
        .arg(command.get_program())
        .args(command.get_args())
        .env_clear();
    for (key, value) in command.get_envs() {
        if let Some(value) = value {
            wrapped.env(key, value);
        }
    }
    if let Some(dir) = command.get_current_dir() {
        wrapped.current_dir(dir);
    }
    wrapped
}

fn collect(master: &OwnedFd, seen: &Seen) {
    let mut master = File::from(master.try_clone().unwrap());
    let mut buffer = [0; 4096];
    // EIO: nobody has the terminal open any more.
    while let Ok(length @ 1..) = master.read(&mut buffer) {
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        seen.text.lock().unwrap().push_str(&text);
        seen.more.notify_all();
    }
}
