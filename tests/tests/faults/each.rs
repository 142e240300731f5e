//! Every call of the contract hangs, each in a driver of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cofferdam_proto::gateway::v1::{
    CreateSandboxRequest, DeleteSandboxRequest, ReadConsoleRequest, SandboxRequest,
    StartSandboxRequest, StopSandboxRequest,
};
use cofferdam_tests::client::{self, Client};
use cofferdam_tests::{random_name, wait};
use prost::Message as _;
use serde_json::{Value, json};

use super::scene::Scene;

/// What a gateway asks of this driver in a sandbox's life.
const CALLS: [&str; 13] = [
    "Configure",
    "CreateSandbox",
    "DeleteSandbox",
    "Fingerprint",
    "GetSandbox",
    "Handshake",
    "ListSandboxes",
    "ReadConsole",
    "RecoverSandboxes",
    "StartSandbox",
    "StopSandbox",
    "ValidateSandbox",
    "WatchSandboxes",
];
/// It has no capability that these belong to, or nothing asks for them yet.
const UNUSED: [&str; 8] = [
    "DeleteSnapshot",
    "PauseSandbox",
    "PrepareImage",
    "RestoreSandbox",
    "ResumeSandbox",
    "RunCommand",
    "SandboxStats",
    "SnapshotSandbox",
];

/// As the contract has them.
fn all_calls() -> Vec<String> {
    let files = prost_types::FileDescriptorSet::decode(cofferdam_proto::FILE_DESCRIPTOR_SET);
    let files = files.expect("descriptors").file;
    let services = files.iter().flat_map(|file| &file.service);
    let mut calls: Vec<String> = services
        .filter(|service| service.name() == "ComputeDriver")
        .flat_map(|service| &service.method)
        .map(|method| method.name().to_owned())
        .collect();
    calls.sort();
    calls
}

fn script(rpc: &str) -> Value {
    let hang = json!([{ "rpc": rpc, "fault": {"hang": {}} }]);
    match rpc {
        // What is not on a list is asked for by name.
        "GetSandbox" => json!({ "rules": hang, "inventory": {"omit": ["*"]} }),
        _ => json!({ "rules": hang }),
    }
}

/// All that can be asked of a driver, in this order; what comes of it is not asked here.
async fn life(caller: Client, driver: String, is_healed: Arc<AtomicBool>) {
    let console = ReadConsoleRequest {
        sandbox: driver.clone(),
        ..ReadConsoleRequest::default()
    };
    let mut another = caller.clone();
    let console = async move {
        if let Ok(stream) = another.read_console(client::request(console)).await {
            let mut stream = stream.into_inner();
            while let Ok(Some(_)) = stream.message().await {}
        }
    };
    tokio::join!(console, changes(caller, driver, is_healed));
}

async fn changes(mut caller: Client, driver: String, is_healed: Arc<AtomicBool>) {
    let Some(sandbox) = begun(&mut caller, &driver, &is_healed).await else {
        return;
    };
    let stop = StopSandboxRequest {
        sandbox: sandbox.clone(),
        grace_ms: 1,
    };
    drop(caller.stop_sandbox(client::request(stop)).await);
    let start = StartSandboxRequest {
        sandbox: sandbox.clone(),
    };
    drop(caller.start_sandbox(client::request(start)).await);
    let delete = DeleteSandboxRequest {
        sandbox,
        wait: true,
        allow_missing: true,
    };
    drop(caller.delete_sandbox(client::request(delete)).await);
}

/// A sandbox that is being made. A driver that cannot be reached now may be so in a moment.
async fn begun(caller: &mut Client, driver: &str, is_healed: &AtomicBool) -> Option<String> {
    loop {
        let create = CreateSandboxRequest {
            sandbox: Some(SandboxRequest {
                driver: driver.to_owned(),
                // Not as the first one: what was found good is not asked about again.
                tmp_bytes: Some(9 << 20),
                ..SandboxRequest::default()
            }),
            wait: false,
            idempotency_key: random_name(),
        };
        match caller.create_sandbox(client::request(create)).await {
            Ok(made) => return Some(made.into_inner().sandbox?.sandbox_id),
            Err(_) if !is_healed.load(Ordering::Relaxed) => {
                tokio::task::spawn_blocking(wait::pause).await.ok()?;
            }
            Err(_) => return None,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_driver_that_hangs_in_any_call_stalls_no_other() {
    let mut known: Vec<&str> = CALLS.iter().chain(&UNUSED).copied().collect();
    known.sort_unstable();
    assert_eq!(known, all_calls(), "a call that this test does not know");
    let names = CALLS.map(str::to_lowercase);
    let cases: Vec<(&str, Value)> = names
        .iter()
        .zip(CALLS)
        .map(|(name, rpc)| (name.as_str(), script(rpc)))
        .collect();
    let scene = Scene::with_sandboxes(&cases);
    scene.set(&cases);
    for name in &names {
        // So that what comes with a connection is called again, too.
        scene.driver(name).cut();
    }
    let caller = client::connect(&scene.gateway).await;
    let is_healed = Arc::new(AtomicBool::new(false));
    let lives = names
        .clone()
        .map(|name| tokio::spawn(life(caller.clone(), name, is_healed.clone())));
    for (name, rpc) in names.iter().zip(CALLS) {
        wait::until_true(&format!("{rpc} hangs"), || {
            let journal = scene.driver(name).journal();
            let mut calls = journal.calls.iter();
            calls.any(|call| call.rpc == rpc && call.fault.is_some())
        });
    }
    for round in 0..3 {
        scene.others_do_not_notice(&format!("each call hangs in another driver, round {round}"));
    }
    for name in &names {
        scene.has_state(name, "READY");
        scene.works(name);
    }
    is_healed.store(true, Ordering::Relaxed);
    for name in &names {
        scene.driver(name).heal();
    }
    for life in lives {
        life.await.expect("no panic");
    }
    for name in &names {
        scene.connected(name);
        scene.runs(name);
        scene.has_state(name, "READY");
    }
}
