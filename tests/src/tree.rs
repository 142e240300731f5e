//! A program with everything that descends from it, however far it goes: see `bin/cofferdam-test-launch.rs`.

use std::io::BufReader;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::process;
use crate::user::User;
use crate::wait;

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Code(i32),
    Signal(i32),
}

/// A running program and its descendants. Dropped, they are killed, whoever they hide behind.
#[derive(Debug)]
pub struct Tree {
    launcher: Child,
    /// Held open to let them live.
    leash: Option<ChildStdin>,
    pid: u32,
    state: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Debug, Default)]
struct State {
    pid: Option<u32>,
    end: Option<End>,
    /// The launcher has nothing more to say.
    silent: bool,
}

impl Tree {
    /// Starts `command`, whose output goes to `log`. Its environment is exactly that of `command`.
    pub fn start(user: User, command: &Command, log: &Path, launcher: &Path) -> Self {
        let mut launch = Command::new(launcher);
        launch.args(["tree", "--log"]).arg(log).arg("--");
        launch.arg(command.get_program()).args(command.get_args());
        launch.env_clear();
        for (key, value) in command.get_envs() {
            launch.env(key, value.expect("a variable with a value"));
        }
        launch.current_dir("/");
        launch.stdin(Stdio::piped()).stdout(Stdio::piped());
        user.run(&mut launch);
        let mut launcher = launch.spawn().expect("start the launcher of the tests");
        let leash = launcher.stdin.take();
        let reports = launcher.stdout.take().expect("stdout is a pipe");
        let state = Arc::new((Mutex::new(State::default()), Condvar::new()));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || listen(BufReader::new(reports), &shared));
        let mut tree = Self {
            launcher,
            leash,
            pid: 0,
            state,
        };
        tree.pid = tree
            .wait_for(wait::PATIENCE, |state| state.pid)
            .unwrap_or_else(|| panic!("{:?} was not started", command.get_program()));
        tree
    }

    /// Of the program itself.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// How it ended, if it has.
    pub fn end(&self) -> Option<End> {
        self.lock().end
    }

    /// Waits for the program's end, not for that of its descendants.
    pub fn wait(&self, patience: Duration) -> Option<End> {
        self.wait_for(patience, |state| state.end)
    }

    /// Sends the program a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        assert_eq!(self.end(), None, "the program has ended");
        let pid = rustix::process::Pid::from_raw(self.pid.cast_signed()).expect("a pid");
        rustix::process::kill_process(pid, signal).expect("signal the program");
    }

    /// Everybody who lives below the launcher.
    pub fn members(&self) -> Vec<u32> {
        process::descendants(self.launcher.id())
    }

    /// Waits until nobody is left; answers with those who stay.
    pub fn left_over(&mut self, patience: Duration) -> Vec<u32> {
        let gone = wait::within(patience, || {
            self.launcher.try_wait().expect("wait for the launcher")
        });
        match gone {
            Some(_) => Vec::new(),
            None => self.members(),
        }
    }

    fn wait_for<T>(
        &self,
        patience: Duration,
        mut look: impl FnMut(&State) -> Option<T>,
    ) -> Option<T> {
        let state = self.lock();
        let (state, _) = self
            .state
            .1
            .wait_timeout_while(state, patience, |state| {
                look(state).is_none() && !state.silent
            })
            .unwrap_or_else(PoisonError::into_inner);
        look(&state)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        drop(self.leash.take());
        let _ = self.launcher.wait();
    }
}

/// Until the launcher ends.
fn listen(reports: impl std::io::BufRead, shared: &(Mutex<State>, Condvar)) {
    let change = |change: &dyn Fn(&mut State)| {
        change(&mut shared.0.lock().unwrap_or_else(PoisonError::into_inner));
        shared.1.notify_all();
    };
    for line in reports.lines().map_while(Result::ok) {
        let Some((word, number)) = line.split_once(' ') else {
            continue;
        };
        let number: i32 = number.parse().unwrap_or_default();
        change(&|state| match word {
            "pid" => state.pid = Some(number.cast_unsigned()),
            "code" => state.end = Some(End::Code(number)),
            _ => state.end = Some(End::Signal(number)),
        });
    }
    change(&|state| state.silent = true);
}
