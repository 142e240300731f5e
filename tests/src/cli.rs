//! The real command-line tool, as a person or a script would call it.

use std::io::{Read, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::binaries::Installation;
use crate::home::Home;
use crate::pty::Terminal;
use crate::user::User;
use crate::{gateway, process, wait};

/// No call of a test takes longer; one that does is killed, and the test fails.
const CALL_MAX: Duration = Duration::from_secs(120);

/// A call that has not been made yet.
#[derive(Debug)]
pub struct Cli {
    command: Command,
    program: PathBuf,
    launcher: PathBuf,
    user: User,
    stdin: Vec<u8>,
}

/// A call that has ended.
#[derive(Debug)]
pub struct Ran {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: String,
    what: String,
}

impl Cli {
    /// Without a gateway: it finds, or brings along, what it can.
    pub fn new(installation: &Installation, user: User, home: &Home) -> Self {
        let program = installation.cli();
        let mut command = Command::new(&program);
        gateway::environment(&mut command, home);
        command.env("COFFERDAM_LIBEXEC", &installation.libexec);
        command.current_dir("/");
        user.run(&mut command);
        Self {
            command,
            program,
            launcher: installation.launcher.clone(),
            user,
            stdin: Vec::new(),
        }
    }

    pub fn args<I: AsRef<str>>(mut self, args: impl IntoIterator<Item = I>) -> Self {
        for arg in args {
            self.command.arg(arg.as_ref());
        }
        self
    }

    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.command.env(key, value);
        self
    }

    pub fn without_env(mut self, key: &str) -> Self {
        self.command.env_remove(key);
        self
    }

    /// What it reads; nothing otherwise.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn run(mut self) -> Ran {
        let stdin = std::mem::take(&mut self.stdin);
        let mut running = self.spawn();
        let mut pipe = running.stdin.take().expect("stdin is a pipe");
        let writer = std::thread::spawn(move || {
            // It need not read to the end.
            let _ = pipe.write_all(&stdin);
        });
        let ran = running.wait();
        writer.join().expect("write stdin");
        ran
    }

    /// Starts it; its stdin stays open until it is dropped.
    pub fn spawn(mut self) -> Running {
        self.command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let what = self.what();
        let mut child = self
            .command
            .spawn()
            .unwrap_or_else(|error| panic!("start {what}: {error}"));
        Running {
            stdin: child.stdin.take(),
            stdout: Some(Pipe::read(child.stdout.take().expect("a pipe"))),
            stderr: Some(Pipe::read(child.stderr.take().expect("a pipe"))),
            child,
            what,
        }
    }

    /// Starts it with stdout going to another program's stdin or to a file, for bulk.
    pub fn spawn_into(mut self, stdin: Stdio, stdout: Stdio) -> Running {
        self.command
            .stdin(stdin)
            .stdout(stdout)
            .stderr(Stdio::piped());
        let what = self.what();
        let mut child = self
            .command
            .spawn()
            .unwrap_or_else(|error| panic!("start {what}: {error}"));
        Running {
            stdin: None,
            stdout: None,
            stderr: Some(Pipe::read(child.stderr.take().expect("a pipe"))),
            child,
            what,
        }
    }

    /// Starts it in a terminal of its own.
    pub fn terminal(self, rows: u16, columns: u16) -> Terminal {
        let mut command = Command::new(&self.launcher);
        command.args(["terminal", "--"]).arg(&self.program);
        command.args(self.command.get_args());
        command.env_clear();
        for (key, value) in self.command.get_envs() {
            command.env(key, value.unwrap_or_default());
        }
        command.env("TERM", "xterm").current_dir("/");
        self.user.run(&mut command);
        Terminal::start(command, self.user, (rows, columns), self.what())
    }

    fn what(&self) -> String {
        let args = self.command.get_args();
        let words: Vec<_> = args.map(|arg| arg.to_string_lossy()).collect();
        format!("cofferdam {}", words.join(" "))
    }
}

/// A call that runs. Killed when it is dropped.
#[derive(Debug)]
pub struct Running {
    pub stdin: Option<ChildStdin>,
    child: Child,
    stdout: Option<Pipe>,
    stderr: Option<Pipe>,
    what: String,
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("signal the command");
    }

    /// Writes to its stdin.
    pub fn type_in(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().expect("stdin is open");
        stdin.write_all(text.as_bytes()).expect("write stdin");
        stdin.flush().expect("write stdin");
    }

    /// Ends its stdin.
    pub fn end_stdin(&mut self) {
        self.stdin = None;
    }

    /// Waits until stdout holds this text.
    #[track_caller]
    pub fn expect(&self, text: &str) {
        let pipe = self.stdout.as_ref().expect("stdout is a pipe");
        if !pipe.wait_for(|bytes| contains(bytes, text.as_bytes())) {
            panic!(
                "{}: {text:?} does not come; stdout: {:?}; stderr: {:?}",
                self.what,
                String::from_utf8_lossy(&pipe.so_far()),
                self.errors_so_far(),
            );
        }
    }

    pub fn stdout_so_far(&self) -> Vec<u8> {
        self.stdout.as_ref().map(Pipe::so_far).unwrap_or_default()
    }

    pub fn errors_so_far(&self) -> String {
        let bytes = self.stderr.as_ref().map(Pipe::so_far);
        String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
    }

    /// The most memory it has used so far, if it still runs.
    pub fn memory_peak_bytes(&self) -> Option<u64> {
        process::memory_peak_bytes(self.pid())
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("wait").is_some()
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(mut self) -> Ran {
        let status = wait::within(CALL_MAX, || self.child.try_wait().expect("wait"));
        let Some(status) = status else {
            panic!(
                "{} did not end in {CALL_MAX:?}; stdout: {:?}; stderr: {:?}",
                self.what,
                String::from_utf8_lossy(&self.stdout_so_far()),
                self.errors_so_far(),
            );
        };
        let stderr = self.stderr.take().map(Pipe::finish).unwrap_or_default();
        Ran {
            status,
            stdout: self.stdout.take().map(Pipe::finish).unwrap_or_default(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
            what: std::mem::take(&mut self.what),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ran {
    pub fn code(&self) -> i32 {
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => code,
            (None, signal) => panic!("{} died of signal {signal:?}", self.what),
        }
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Fails the test unless it exited with 0; stdout without the last newline.
    #[track_caller]
    pub fn success(&self) -> String {
        self.exited(0)
    }

    /// Fails the test unless it exited with this code; stdout without the last newline.
    #[track_caller]
    pub fn exited(&self, code: i32) -> String {
        assert_eq!(
            self.status.code(),
            Some(code),
            "{}\nstdout: {}\nstderr: {}",
            self.what,
            self.text(),
            self.stderr
        );
        self.text().trim_end_matches('\n').to_owned()
    }

    /// Fails the test unless stderr says all of this, in whatever case.
    #[track_caller]
    pub fn says<I: AsRef<str>>(&self, words: impl IntoIterator<Item = I>) -> &Self {
        let stderr = self.stderr.to_lowercase();
        for word in words {
            let word = word.as_ref();
            assert!(
                stderr.contains(&word.to_lowercase()),
                "{}: {word:?} is missing in stderr:\n{}",
                self.what,
                self.stderr
            );
        }
        self
    }

    /// The object on the last line of stderr, as `--json` writes it.
    #[track_caller]
    pub fn result(&self) -> Value {
        let line = self.stderr.lines().last().unwrap_or_default();
        serde_json::from_str(line)
            .unwrap_or_else(|error| panic!("{}: {error} in {:?}", self.what, self.stderr))
    }
}

/// An output that is read as it comes.
#[derive(Debug)]
struct Pipe {
    shared: Arc<(Mutex<Read_>, Condvar)>,
    reader: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Read_ {
    bytes: Vec<u8>,
    has_ended: bool,
}

impl Pipe {
    fn read(mut pipe: impl Read + Send + 'static) -> Self {
        let shared = Arc::new((Mutex::new(Read_::default()), Condvar::new()));
        let writer = Arc::clone(&shared);
        let reader = std::thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            loop {
                let length = pipe.read(&mut buffer).unwrap_or(0);
                let mut read = writer.0.lock().unwrap_or_else(PoisonError::into_inner);
                read.bytes.extend_from_slice(&buffer[..length]);
                read.has_ended = length == 0;
                writer.1.notify_all();
                if length == 0 {
                    return;
                }
            }
        });
        Self { shared, reader }
    }

    fn wait_for(&self, found: impl Fn(&[u8]) -> bool) -> bool {
        let read = self.shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (read, _) = self
            .shared
            .1
            .wait_timeout_while(read, wait::PATIENCE, |read| {
                !found(&read.bytes) && !read.has_ended
            })
            .unwrap_or_else(PoisonError::into_inner);
        found(&read.bytes)
    }

    fn so_far(&self) -> Vec<u8> {
        let read = self.shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        read.bytes.clone()
    }

    fn finish(self) -> Vec<u8> {
        self.reader.join().expect("read an output");
        let mut read = self.shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut read.bytes)
    }
}

/// True if this is somewhere in it.
pub(crate) fn contains(bytes: &[u8], part: &[u8]) -> bool {
    part.is_empty() || bytes.windows(part.len()).any(|window| window == part)
}
