//! One run: what all cases share, and how they reach the driver.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cofferdam_gateway::driver::SupervisorBinary;
use cofferdam_proto::compute::v1::{Capabilities, Limits, SandboxSpec};
use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::callback::Session;
use crate::case::Stop;
use crate::driver::{Driver, Greeting};
use crate::program::Program;
use crate::recorder::Recorder;
use crate::subject::{Made, Subject};
use crate::{Options, random, spec};

/// What all cases share. Clones are the same run.
#[derive(Debug, Clone)]
pub(crate) struct Suite(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    options: Options,
    supervisor: SupervisorBinary,
    gateway_id: String,
    /// Of callback directories, as a gateway's: nobody else may look into it.
    runtime_dir: PathBuf,
    recorder: Recorder,
    program: Option<Program>,
    facts: Mutex<Facts>,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

#[derive(Debug, Default)]
struct Facts {
    /// The last one.
    greeting: Option<Greeting>,
    /// What the first fingerprint says of limits.
    enforced: Limits,
    /// What is being tried just now, for the report of a case that hangs.
    step: String,
    /// Sandboxes of the case that runs.
    made: Vec<Made>,
    /// Sandboxes that were deleted after their case.
    gone: Vec<Made>,
    /// What was found wrong while cleaning up, and is not told yet.
    leaks: Vec<String>,
    /// How an RPC before the first Configure was answered: the code, or that it was not.
    before_configure: Option<String>,
}

impl Suite {
    pub(crate) fn new(
        options: Options,
        supervisor: SupervisorBinary,
        runtime_dir: PathBuf,
        program: Option<Program>,
        recorder: Recorder,
    ) -> Self {
        Self(Arc::new(Shared {
            options,
            supervisor,
            gateway_id: format!("conformance-{}", random::word()),
            runtime_dir,
            recorder,
            program,
            facts: Mutex::default(),
            tasks: TaskTracker::new(),
            cancel: CancellationToken::new(),
        }))
    }

    /// A new connection, with handshake and settings, as a gateway makes it.
    pub(crate) async fn driver(&self) -> Result<Driver, Stop> {
        self.driver_of(self.gateway_id()).await
    }

    /// The same for another gateway.
    pub(crate) async fn driver_of(&self, gateway_id: &str) -> Result<Driver, Stop> {
        let driver = self.stranger().await?;
        let driver = driver.shake_hands_as(gateway_id).await?;
        driver.configure(&self.options().config.settings).await?;
        Ok(driver)
    }

    /// A new connection on which nothing has been said yet.
    pub(crate) async fn stranger(&self) -> Result<Driver, Stop> {
        self.step("connecting");
        Driver::connect(self.clone()).await
    }

    /// A sandbox that could be made: an id, a spec, a callback that listens. Removed after the case.
    pub(crate) fn subject(&self) -> Result<Subject, Stop> {
        self.subject_with(self.spec())
    }

    pub(crate) fn subject_with(&self, spec: SandboxSpec) -> Result<Subject, Stop> {
        Subject::plan(self, spec)
    }

    /// The same for this gateway.
    pub(crate) fn subject_of(&self, gateway_id: &str) -> Result<Subject, Stop> {
        let id = format!("conf-{}", random::word());
        Subject::plan_as(self, id, gateway_id, self.spec())
    }

    /// A connection, and a sandbox that can be used.
    pub(crate) async fn with_sandbox(&self) -> Result<(Driver, Subject), Stop> {
        let driver = self.driver().await?;
        let subject = self.subject()?;
        subject.ready(&driver).await?;
        Ok((driver, subject))
    }

    /// The same, with the session of its supervisor.
    pub(crate) async fn with_session(&self) -> Result<(Driver, Subject, Session), Stop> {
        let (driver, subject) = self.with_sandbox().await?;
        let session = subject.session().await?;
        Ok((driver, subject, session))
    }

    /// So many sandboxes that can be used, made side by side.
    pub(crate) async fn several(
        &self,
        driver: &Driver,
        count: usize,
    ) -> Result<Vec<Subject>, Stop> {
        let subjects = (0..count).map(|_| self.subject());
        let subjects = subjects.collect::<Result<Vec<_>, _>>()?;
        let made = join_all(subjects.iter().map(|subject| subject.ready(driver)));
        made.await.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(subjects)
    }

    /// What the suite's sandboxes are, if a case wants nothing special.
    pub(crate) fn spec(&self) -> SandboxSpec {
        spec::plain(&self.options().config.sandbox, &self.capabilities())
    }

    pub(crate) fn options(&self) -> &Options {
        &self.0.options
    }

    /// For one answer, for one sandbox to be ready, for one command.
    pub(crate) fn patience(&self) -> Duration {
        self.options().config.timing.patience()
    }

    pub(crate) fn supervisor(&self) -> &SupervisorBinary {
        &self.0.supervisor
    }

    pub(crate) fn gateway_id(&self) -> &str {
        &self.0.gateway_id
    }

    pub(crate) fn runtime_dir(&self) -> &Path {
        &self.0.runtime_dir
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.options().socket.clone()
    }

    pub(crate) fn recorder(&self) -> &Recorder {
        &self.0.recorder
    }

    pub(crate) fn program(&self) -> Option<&Program> {
        self.0.program.as_ref()
    }

    pub(crate) fn can_restart(&self) -> bool {
        self.0.program.is_some()
    }

    /// SIGKILL to the driver. Every connection to it ends.
    pub(crate) async fn kill_driver(&self) -> Result<(), Stop> {
        self.step("killing the driver");
        self.started()?.kill().await.map_err(Stop::failed)
    }

    /// How the driver has ended, if the suite has started it and not ended it.
    pub(crate) async fn crash(&self, is_likely: bool) -> Option<String> {
        self.program()?.crashed(is_likely).await
    }

    /// SIGTERM to the driver, which must end with 0.
    pub(crate) async fn end_driver(&self) -> Result<(), Stop> {
        self.step("waiting for the driver to end after SIGTERM");
        match self.started()?.end().await {
            Some(Ok(status)) if status.success() => Ok(()),
            Some(Ok(status)) => Err(Stop::failed(format!(
                "after SIGTERM the driver ended with {status}"
            ))),
            Some(Err(problem)) => Err(Stop::failed(format!("the driver: {problem}"))),
            None => Err(Stop::failed("the driver has ended by itself")),
        }
    }

    /// Starts it again.
    pub(crate) async fn start_driver(&self) -> Result<(), Stop> {
        self.step("starting the driver again");
        let started = self.started()?.start().await;
        started.map_err(|problem| {
            Stop::failed(problem).with_fix(
                "let a driver start wherever another one has died: a socket on which nobody \
                 listens any more is in nobody's way, nor is what it has left on the platform",
            )
        })
    }

    fn started(&self) -> Result<&Program, Stop> {
        let none = || Stop::Skipped("the suite has not started this driver".to_owned());
        self.program().ok_or_else(none)
    }

    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.0.tasks
    }

    pub(crate) fn cancel(&self) -> &CancellationToken {
        &self.0.cancel
    }

    /// As of the last handshake and Configure.
    pub(crate) fn capabilities(&self) -> Capabilities {
        let facts = self.facts();
        let greeting = facts.greeting.as_ref();
        greeting
            .map(|greeting| greeting.capabilities.clone())
            .unwrap_or_default()
    }

    pub(crate) fn is_supervised(&self) -> bool {
        use cofferdam_proto::compute::v1::Execution;
        self.capabilities().execution() == Execution::Supervised
    }

    pub(crate) fn greeting(&self) -> Option<Greeting> {
        self.facts().greeting.clone()
    }

    pub(crate) fn set_greeting(&self, greeting: Greeting) {
        self.facts().greeting = Some(greeting);
    }

    /// Limits that are claimed and hold now.
    pub(crate) fn enforced(&self) -> Limits {
        let claimed = self.capabilities().limits.unwrap_or_default();
        let now = self.facts().enforced;
        Limits {
            memory: claimed.memory && now.memory,
            cpu: claimed.cpu && now.cpu,
            pids: claimed.pids && now.pids,
            disk: claimed.disk && now.disk,
        }
    }

    pub(crate) fn set_enforced(&self, limits: Limits) {
        self.facts().enforced = limits;
    }

    pub(crate) fn before_configure(&self) -> Option<String> {
        self.facts().before_configure.clone()
    }

    pub(crate) fn set_before_configure(&self, answer: String) {
        self.facts().before_configure = Some(answer);
    }

    /// Notes what is being tried.
    pub(crate) fn step(&self, what: impl Into<String>) {
        self.facts().step = what.into();
    }

    pub(crate) fn last_step(&self) -> String {
        self.facts().step.clone()
    }

    pub(crate) fn add_made(&self, made: Made) {
        self.facts().made.push(made);
    }

    pub(crate) fn take_made(&self) -> Vec<Made> {
        std::mem::take(&mut self.facts().made)
    }

    pub(crate) fn add_gone(&self, gone: Made) {
        self.facts().gone.push(gone);
    }

    pub(crate) fn gone(&self) -> Vec<Made> {
        self.facts().gone.clone()
    }

    pub(crate) fn add_leak(&self, leak: String) {
        self.facts().leaks.push(leak);
    }

    /// What was found wrong while cleaning up. It is told once.
    pub(crate) fn take_leaks(&self) -> Vec<String> {
        std::mem::take(&mut self.facts().leaks)
    }

    /// Ends everything that still runs in this process.
    pub(crate) async fn close(&self) {
        // Callbacks know the suite: it would keep itself alive.
        self.facts().made.clear();
        self.facts().gone.clear();
        self.0.cancel.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
        if let Some(program) = &self.0.program {
            program.close().await;
        }
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.0.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
