//! Facts and a store to test with.

mod files;
mod rows;
mod speed;

use std::path::PathBuf;

use super::*;
use crate::model::*;

fn driver() -> DriverName {
    DriverName::parse("one").unwrap()
}

fn spec() -> SandboxSpec {
    SandboxSpec {
        image: ImageSpec {
            source: ImageSource::Host,
            pull: PullPolicy::Missing,
            credentials: None,
            platform: String::new(),
        },
        uid: 1000,
        gid: 1000,
        limits: ResourceLimits {
            memory_bytes: 512 << 20,
            cpu_millis: 1000,
            pids: 256,
            disk_bytes: 512 << 20,
            tmp_bytes: 100 << 20,
            required: LimitSet::default(),
        },
        network: NetworkSpec {
            class: NetworkClass::None,
            allow: Vec::new(),
        },
        mounts: Vec::new(),
        labels: Default::default(),
        expire_time: UnixMillis(2_000_000_000_000),
        gpus: 0,
        driver_config: Default::default(),
        isolation_min: None,
        root_writable: false,
        workspace: "/workspace".to_owned(),
        hostname: "sandbox".to_owned(),
    }
}

fn sandbox(name: Option<&str>) -> SandboxFacts {
    SandboxFacts {
        id: SandboxId::generate(),
        name: name.map(|name| SandboxName::parse(name).unwrap()),
        driver: driver(),
        owner_uid: 1000,
        execution_id: None,
        spec: spec(),
        state: SandboxState::Provisioning,
        reason: String::new(),
        message: String::new(),
        handle: None,
        observed: None,
        create_time: UnixMillis(1_700_000_000_000),
        ready_time: UnixMillis(0),
        state_time: UnixMillis(1_700_000_000_000),
        idle_timeout_ms: 0,
        weaknesses: Vec::new(),
        environment_names: Vec::new(),
    }
}

fn execution(sandbox: &SandboxFacts) -> ExecutionFacts {
    ExecutionFacts {
        id: ExecutionId::generate(),
        sandbox_id: sandbox.id.clone(),
        driver: driver(),
        one_shot: true,
        detachable: false,
        owner_uid: 1000,
        argv: vec![b"true".to_vec()],
        cwd: String::new(),
        user: None,
        pty: None,
        stdin: false,
        timeout_ms: 300_000,
        output_cap_bytes: 64 << 20,
        labels: Default::default(),
        environment_names: Vec::new(),
        state: ExecutionState::Claiming,
        ending: None,
        create_time: UnixMillis(1_700_000_000_000),
        start_time: UnixMillis(0),
        end_time: UnixMillis(0),
        stages: StageTimes::default(),
        output: OutputTotals::default(),
        cpu_user_us: None,
        cpu_system_us: None,
        max_rss_bytes: None,
    }
}

fn ended(mut facts: ExecutionFacts, end: u64) -> ExecutionFacts {
    facts.state = ExecutionState::Succeeded;
    facts.end_time = UnixMillis(end);
    facts
}

fn key(text: &str, digest: u8) -> IdempotencyKey {
    IdempotencyKey {
        caller_uid: 1000,
        key: text.to_owned(),
        digest: [digest; 32],
    }
}

struct Fixture {
    home: tempfile::TempDir,
    store: Store,
}

impl Fixture {
    async fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("state/store.db"))
            .await
            .unwrap();
        Self { home, store }
    }

    fn path(&self) -> PathBuf {
        self.home.path().join("state/store.db")
    }

    async fn reopen(self) -> Self {
        let path = self.path();
        self.store.close().await;
        let store = Store::open(&path).await.unwrap();
        Self { store, ..self }
    }
}
