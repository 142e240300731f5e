//! One sandbox under test: its id, spec and token, its callback, and what every case does with it.

use cofferdam_proto::compute::v1 as wire;
use cofferdam_proto::compute::v1::{SandboxSpec, SandboxState};
use cofferdam_proto::hello::KEY_BYTES;
use tokio::time::{Instant, sleep};

use crate::answer::Refused;
use crate::callback::{Callback, Session, Token};
use crate::case::Stop;
use crate::driver::Driver;
use crate::random;
use crate::suite::Suite;

/// Between two looks at a driver that tells nothing by itself.
const LOOK_INTERVAL: std::time::Duration = std::time::Duration::from_millis(50);

/// A sandbox that a case has to do with.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    suite: Suite,
    pub(crate) id: String,
    pub(crate) spec: SandboxSpec,
    pub(crate) token: Token,
    /// None on driver-executed platforms.
    pub(crate) callback: Option<Callback>,
}

/// What has to be removed after a case.
#[derive(Debug, Clone)]
pub(crate) struct Made {
    pub(crate) sandbox_id: String,
    pub(crate) gateway_id: String,
    pub(crate) callback: Option<Callback>,
}

impl Made {
    /// Somebody has called on its socket since it was deleted.
    pub(crate) fn is_called(&self) -> bool {
        self.callback
            .as_ref()
            .is_some_and(|callback| callback.connections() > 0)
    }

    /// Its supervisor had a session when it was already deleted.
    pub(crate) fn has_outlived(&self) -> bool {
        self.callback.as_ref().is_some_and(Callback::has_outlived)
    }
}

impl Subject {
    /// Nothing is asked of the driver yet.
    pub(crate) fn plan(suite: &Suite, spec: SandboxSpec) -> Result<Self, Stop> {
        let id = format!("conf-{}", random::word());
        Self::plan_as(suite, id, suite.gateway_id(), spec)
    }

    /// Under an id of the case's own, or for another gateway.
    pub(crate) fn plan_as(
        suite: &Suite,
        id: String,
        gateway_id: &str,
        spec: SandboxSpec,
    ) -> Result<Self, Stop> {
        let token = new_token(suite);
        let callback = match suite.is_supervised() {
            true => Some(Callback::open(suite, &id, token)?),
            false => None,
        };
        suite.add_made(Made {
            sandbox_id: id.clone(),
            gateway_id: gateway_id.to_owned(),
            callback: callback.clone(),
        });
        Ok(Self {
            suite: suite.clone(),
            id,
            spec,
            token,
            callback,
        })
    }

    pub(crate) fn request(&self) -> wire::CreateSandboxRequest {
        let directory = self.callback.as_ref().map(|callback| callback.directory());
        wire::CreateSandboxRequest {
            sandbox_id: self.id.clone(),
            spec: Some(self.spec.clone()),
            callback_directory: directory
                .map(|path| path.to_string_lossy().into_owned())
                .unwrap_or_default(),
            bootstrap_token: self.token.to_vec().into(),
            operation_id: "op-create".to_owned(),
        }
    }

    /// Asks for it.
    pub(crate) async fn create(
        &self,
        driver: &Driver,
    ) -> Result<wire::CreateSandboxResponse, Refused> {
        let answer = driver.create_with(self.request()).await?;
        if let Some(sandbox) = &answer.sandbox {
            self.suite.recorder().observation("CreateSandbox", sandbox);
        }
        Ok(answer)
    }

    /// Waits until the driver observes it in this state.
    pub(crate) async fn observed(
        &self,
        driver: &Driver,
        wanted: SandboxState,
    ) -> Result<wire::Sandbox, Stop> {
        let end = Instant::now() + self.suite.patience();
        loop {
            let sandbox = driver.get(&self.id).await?;
            if sandbox.state() == wanted {
                return Ok(sandbox);
            }
            let (is, wanted) = (sandbox.state().as_str_name(), wanted.as_str_name());
            let why = sandbox.termination.map(|ended| {
                let reason = ended.reason().as_str_name();
                format!(" ({reason}: {:?})", ended.message)
            });
            let why = why.unwrap_or_default();
            let is_final = is == SandboxState::FailedState.as_str_name();
            if is_final || Instant::now() >= end {
                let seconds = self.suite.patience().as_secs();
                return Err(Stop::failed(format!(
                    "the sandbox is {is}{why} where {wanted} was expected within {seconds} s"
                )));
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    pub(crate) async fn running(&self, driver: &Driver) -> Result<wire::Sandbox, Stop> {
        self.observed(driver, SandboxState::Running).await
    }

    /// The session, on a platform with a supervisor.
    pub(crate) async fn session(&self) -> Result<Session, Stop> {
        match &self.callback {
            Some(callback) => callback.session().await,
            None => Err(Stop::Skipped("the driver gives no byte stream".to_owned())),
        }
    }

    /// The callback, on a platform with a supervisor.
    pub(crate) fn callback(&self) -> Result<&Callback, Stop> {
        let none = || Stop::Skipped("the driver gives no byte stream".to_owned());
        self.callback.as_ref().ok_or_else(none)
    }

    /// The session that is up now, if there is one.
    pub(crate) fn current(&self) -> Option<Session> {
        self.callback.as_ref().and_then(Callback::current)
    }

    /// The session of this boot: the same one, or the next after it was cut.
    pub(crate) async fn same_boot(&self, before: &Session) -> Result<Session, Stop> {
        let callback = self.callback()?;
        self.suite.step("waiting for the supervisor to call again");
        let is_same = |session: &Session| session.boot_id() == before.boot_id();
        let found = callback.session_that(self.suite.patience(), is_same).await;
        let session = found
            .ok_or_else(|| Stop::failed("its supervisor does not call again on the byte stream"))?;
        session.must_answer().await?;
        Ok(session)
    }

    /// Makes it, and waits until it runs and can be used.
    pub(crate) async fn ready(&self, driver: &Driver) -> Result<wire::CreateSandboxResponse, Stop> {
        let answer = self.create(driver).await?;
        self.running(driver).await?;
        if self.callback.is_some() {
            self.session().await?;
        }
        Ok(answer)
    }

    /// It still runs, and its supervisor still answers on the session that was up before.
    pub(crate) async fn must_be_untouched(
        &self,
        driver: &Driver,
        before: &wire::Sandbox,
        session: Option<&Session>,
    ) -> Result<(), Stop> {
        let now = driver.get(&self.id).await?;
        let facts = |sandbox: &wire::Sandbox| {
            let (state, boots) = (sandbox.state().as_str_name(), sandbox.boots);
            format!(
                "{state}, boots {boots}, platform_id {:?}",
                sandbox.platform_id
            )
        };
        let (was, is) = (facts(before), facts(&now));
        if was != is {
            return Err(Stop::failed(format!(
                "the sandbox was touched: before it was {was}, now it is {is}"
            )));
        }
        match session {
            Some(session) => session.must_answer().await,
            None => Ok(()),
        }
    }

    /// Cuts the byte stream, as when the gateway dies, and waits until the same supervisor is back.
    pub(crate) async fn cut_and_return(&self, before: &Session) -> Result<Session, Stop> {
        before.cut();
        before.ends_within(self.suite.patience()).await;
        self.same_boot(before).await
    }

    /// A token for the next start.
    pub(crate) fn renew_token(&mut self) {
        self.token = new_token(&self.suite);
        if let Some(callback) = &self.callback {
            callback.add_token(self.token);
        }
    }

    pub(crate) fn start_request(&self) -> wire::StartSandboxRequest {
        wire::StartSandboxRequest {
            sandbox_id: self.id.clone(),
            bootstrap_token: self.token.to_vec().into(),
            operation_id: "op-start".to_owned(),
        }
    }

    /// Starts it with a new token.
    pub(crate) async fn start(&mut self, driver: &Driver) -> Result<wire::Sandbox, Refused> {
        self.renew_token();
        let answer = driver.start_with(self.start_request()).await?;
        let sandbox = answer.sandbox.unwrap_or_default();
        self.suite.recorder().observation("StartSandbox", &sandbox);
        Ok(sandbox)
    }

    /// Waits until the driver says that it does not know it.
    pub(crate) async fn must_be_gone(&self, driver: &Driver) -> Result<(), Stop> {
        let answer = driver.get(&self.id).await;
        crate::answer::refused_with(answer, tonic::Code::NotFound)?;
        let ids = driver.list_ids().await?;
        if ids.contains(&self.id) {
            return Err(Stop::failed(
                "GetSandbox says NOT_FOUND, and ListSandboxes still has it",
            ));
        }
        Ok(())
    }

    /// Waits until nobody in it has a connection to the suite any more.
    pub(crate) async fn must_be_silent(&self, session: &Session) -> Result<(), Stop> {
        // Its end reaches the suite by itself; a moment for that.
        if session.ends_within(self.suite.patience() / 3).await {
            return Ok(());
        }
        Err(Stop::failed(
            "its supervisor still answers on the byte stream: nothing was ended",
        ))
    }

    /// Waits for a session of another boot than this one.
    pub(crate) async fn next_boot(&self, before: &Session) -> Result<Session, Stop> {
        let callback = self.callback()?;
        self.suite
            .step("waiting for the supervisor of the next boot");
        let is_new = |session: &Session| session.boot_id() != before.boot_id();
        let found = callback.session_that(self.suite.patience(), is_new).await;
        found.ok_or_else(|| {
            Stop::failed("no supervisor of a new boot has called on the byte stream")
        })
    }
}

/// A token that must not be seen anywhere.
fn new_token(suite: &Suite) -> Token {
    let token = random::bytes::<KEY_BYTES>();
    suite.recorder().keep_secret("a bootstrap_token", &token);
    token
}
