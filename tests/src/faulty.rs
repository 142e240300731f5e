//! A third party's driver that breaks on purpose, by a script: `cofferdam_driver_sdk::faults`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::ops::Deref;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;

use cofferdam_driver_sdk::faults::Journal;
use serde_json::{Value, json};

use crate::driver::{self, TestDriver};
use crate::home::Home;
use crate::{binaries, wait};

/// A running driver, which does as it should until it is told otherwise.
#[derive(Debug)]
pub struct FaultyDriver {
    driver: TestDriver,
    control: PathBuf,
}

impl FaultyDriver {
    pub fn start(home: &Home, name: &str) -> Self {
        let control = driver::directory(home, name).join("control.sock");
        let mut command = Command::new(binaries::own("cofferdam-test-fault-driver"));
        command.arg("--control").arg(&control);
        let driver = TestDriver::launch(home, name, command);
        Self { driver, control }
    }

    /// From now on this goes wrong, and nothing else.
    #[track_caller]
    pub fn set(&self, script: &Value) {
        self.ask(&json!({ "set": script }));
    }

    /// From now on nothing goes wrong.
    #[track_caller]
    pub fn heal(&self) {
        self.set(&json!({}));
    }

    /// Another incarnation.
    #[track_caller]
    pub fn restart(&self, how: &Value) {
        self.ask(&json!({ "restart": how }));
    }

    /// Closes the connections that there are.
    #[track_caller]
    pub fn cut(&self) {
        self.ask(&json!({ "cut": {} }));
    }

    /// What it was asked.
    #[track_caller]
    pub fn journal(&self) -> Journal {
        let journal = self.ask(&json!({ "journal": {} }));
        serde_json::from_value(journal).expect("a journal")
    }

    #[track_caller]
    fn ask(&self, command: &Value) -> Value {
        let mut stream = UnixStream::connect(&self.control).expect("connect to the control socket");
        stream
            .set_read_timeout(Some(wait::PATIENCE))
            .expect("set a timeout");
        stream
            .write_all(format!("{command}\n").as_bytes())
            .expect("ask the driver");
        let mut line = String::new();
        BufReader::new(stream)
            .read_line(&mut line)
            .expect("the driver answers");
        let mut answer: Value = serde_json::from_str(&line).expect("JSON");
        assert!(answer.get("error").is_none(), "{command}: {answer}");
        answer["ok"].take()
    }
}

impl Deref for FaultyDriver {
    type Target = TestDriver;

    fn deref(&self) -> &TestDriver {
        &self.driver
    }
}
