//! Commands that a driver runs itself, by RunCommand.

use std::collections::BTreeMap;

use bytes::Bytes;
use cofferdam_proto::compute::v1 as wire;
use cofferdam_proto::compute::v1::TerminationReason;
use cofferdam_proto::compute::v1::run_command_response::Event;

use crate::answer::Refused;
use crate::case::Stop;
use crate::driver::{Answers, Driver};
use crate::random;

/// A stream of one command, and what came on it so far.
#[derive(Debug)]
pub(crate) struct Command {
    stream: Answers<wire::RunCommandResponse>,
    /// Where the first byte that was asked for is.
    from: u64,
    pub(crate) all: Vec<u8>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) exited: Option<wire::CommandExited>,
}

/// `/bin/sh -c SCRIPT` under an id of its own.
pub(crate) fn script(sandbox_id: &str, script: &str) -> wire::RunCommandRequest {
    let argv = ["/bin/sh", "-c", script].map(|word| Bytes::copy_from_slice(word.as_bytes()));
    wire::RunCommandRequest {
        sandbox_id: sandbox_id.to_owned(),
        command_id: format!("cmd-{}", random::word()),
        argv: argv.to_vec(),
        environment: BTreeMap::new(),
        operation_id: "op-command".to_owned(),
        ..wire::RunCommandRequest::default()
    }
}

/// Runs it to its end.
pub(crate) async fn run(
    driver: &Driver,
    request: wire::RunCommandRequest,
) -> Result<Command, Stop> {
    let mut command = Command::open(driver, request).await?;
    command.finish().await?;
    Ok(command)
}

/// The trimmed stdout of a script that must succeed.
pub(crate) async fn say(driver: &Driver, sandbox_id: &str, text: &str) -> Result<String, Stop> {
    let command = run(driver, script(sandbox_id, text)).await?;
    if command.code() != Some(0) {
        return Err(Stop::failed(format!(
            "`{text}` in the sandbox: {}; {:?}",
            command.ending(),
            command.text()
        )));
    }
    Ok(String::from_utf8_lossy(&command.stdout).trim().to_owned())
}

impl Command {
    pub(crate) async fn open(
        driver: &Driver,
        request: wire::RunCommandRequest,
    ) -> Result<Self, Refused> {
        let from = request.from_offset;
        Ok(Self {
            stream: driver.run_command(request).await?,
            from,
            all: Vec::new(),
            stdout: Vec::new(),
            stderr: Vec::new(),
            exited: None,
        })
    }

    /// Reads one event. False when the stream has ended.
    pub(crate) async fn step(&mut self) -> Result<bool, Stop> {
        let Some(message) = self.stream.next().await? else {
            return Ok(false);
        };
        if self.exited.is_some() {
            return Err(Stop::failed("after `exited` something else came"));
        }
        match message.event {
            Some(Event::Output(output)) => self.add(output)?,
            Some(Event::Exited(exited)) => self.end_with(exited)?,
            None => {}
        }
        Ok(true)
    }

    fn add(&mut self, output: wire::CommandOutput) -> Result<(), Stop> {
        if output.offset != self.end() {
            return Err(Stop::failed(format!(
                "output came from offset {} on where {} was next",
                output.offset,
                self.end()
            )));
        }
        self.all.extend_from_slice(&output.data);
        match output.stderr {
            true => self.stderr.extend_from_slice(&output.data),
            false => self.stdout.extend_from_slice(&output.data),
        }
        Ok(())
    }

    fn end_with(&mut self, exited: wire::CommandExited) -> Result<(), Stop> {
        if exited.output_bytes != self.end() {
            return Err(Stop::failed(format!(
                "the command wrote {} bytes, and {} came",
                exited.output_bytes,
                self.end()
            )));
        }
        self.exited = Some(exited);
        if self.reason() == TerminationReason::Unspecified {
            return Err(Stop::failed("`exited` does not say why: no reason is set"));
        }
        Ok(())
    }

    /// Reads until the stream ends; it must end with `exited`.
    pub(crate) async fn finish(&mut self) -> Result<(), Stop> {
        while self.step().await? {}
        match self.exited {
            Some(_) => Ok(()),
            None => Err(Stop::failed(
                "the stream ended without `exited`: the exit code is lost",
            )),
        }
    }

    /// Reads until its output has this in it.
    pub(crate) async fn read_until(&mut self, text: &str) -> Result<(), Stop> {
        while !self.text().contains(text) {
            if !self.step().await? {
                let (ending, said) = (self.ending(), self.text());
                return Err(Stop::failed(format!(
                    "a command ended without saying {text:?}: {ending}; {said:?}"
                )));
            }
        }
        Ok(())
    }

    /// After the last byte.
    pub(crate) fn end(&self) -> u64 {
        self.from + self.all.len() as u64
    }

    fn termination(&self) -> Option<&wire::Termination> {
        self.exited.as_ref()?.termination.as_ref()
    }

    /// Why it ended.
    pub(crate) fn reason(&self) -> TerminationReason {
        let termination = self.termination();
        termination
            .map(wire::Termination::reason)
            .unwrap_or_default()
    }

    /// Its exit code, if it exited.
    pub(crate) fn code(&self) -> Option<i32> {
        let termination = self.termination()?;
        (termination.reason() == TerminationReason::Exited).then_some(termination.exit_code)
    }

    /// For people.
    pub(crate) fn ending(&self) -> String {
        match self.termination() {
            Some(termination) => format!(
                "{} (exit code {}, signal {})",
                termination.reason().as_str_name(),
                termination.exit_code,
                termination.signal
            ),
            None => "no exit".to_owned(),
        }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.all).into_owned()
    }
}
