//! A gigabyte out, a gigabyte in: every byte arrives, and nobody keeps it in memory.

use std::io::Read as _;
use std::process::{Child, Command, Stdio};

use cofferdam_tests::cli::Running;
use cofferdam_tests::{TestGateway, process, wait};

const GIBIBYTE: u64 = 1 << 30;
/// Windows, buffers and a debug build's ballast; a tenth of what passes through.
const MEMORY_MAX: u64 = 100 << 20;

/// A gibibyte without a period, the same at each call, on every system.
fn gibibyte() -> String {
    format!("seq 1 300000000 | head -c {GIBIBYTE}")
}

/// `sha256sum` of what a command writes, to be asked for later.
fn digest_of(script: &str) -> Child {
    Command::new("sh")
        .args(["-c", &format!("{script} | sha256sum")])
        .stdout(Stdio::piped())
        .spawn()
        .expect("start sh")
}

fn digest(mut child: Child) -> String {
    let mut text = String::new();
    let mut stdout = child.stdout.take().expect("a pipe");
    stdout.read_to_string(&mut text).expect("read a digest");
    assert!(child.wait().expect("wait").success());
    text.split_whitespace().next().expect("a digest").to_owned()
}

/// The most memory that each of them ever had, as far as one could look.
struct Peaks(Vec<(&'static str, u32, u64)>);

impl Peaks {
    fn of(gateway: &TestGateway, call: &Running) -> Self {
        let mut watched = vec![("gateway", gateway.pid(), 0), ("cli", call.pid(), 0)];
        watched.extend(
            gateway
                .supervisors()
                .iter()
                .map(|pid| ("supervisor", *pid, 0)),
        );
        assert!(watched.len() >= 3, "no supervisor to watch");
        Self(watched)
    }

    fn watch(&mut self, call: &mut Running) {
        // It takes as long as it takes; the call's own deadline ends it.
        wait::within(std::time::Duration::from_secs(110), || {
            for (_, pid, peak) in &mut self.0 {
                *peak = (*peak).max(process::memory_peak_bytes(*pid).unwrap_or(0));
            }
            call.has_ended().then_some(())
        });
        for (who, _, peak) in &self.0 {
            assert_ne!(*peak, 0, "{who} was not seen");
            assert!(*peak <= MEMORY_MAX, "{who} had {} MiB", peak >> 20);
        }
    }
}

#[test]
fn a_gibibyte_comes_out_of_a_sandbox_unchanged_in_little_memory() {
    let gateway = TestGateway::start();
    gateway.create(["--name", "out"]);
    let expected = digest_of(&gibibyte());
    let mut sink = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start sha256sum");
    let pipe = sink.stdin.take().expect("a pipe");
    let mut call = gateway
        .cli(["exec", "out", "sh", "-c", &gibibyte()])
        .spawn_into(Stdio::null(), pipe.into());
    Peaks::of(&gateway, &call).watch(&mut call);
    call.wait().success();
    assert_eq!(digest(sink), digest(expected));
    // The record has the head and the tail of it, and counts the rest.
    let record = gateway.json(["ps", "--last", "1"]);
    assert_eq!(record["output_bytes"], GIBIBYTE);
    assert_eq!(record["output_dropped_bytes"], GIBIBYTE - (64 << 20));
}

#[test]
fn a_gibibyte_goes_into_a_sandbox_unchanged_in_little_memory() {
    let gateway = TestGateway::start();
    gateway.create(["--name", "in"]);
    let expected = digest_of(&gibibyte());
    let mut source = Command::new("sh")
        .args(["-c", &gibibyte()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("start sh");
    let pipe = source.stdout.take().expect("a pipe");
    let mut call = gateway
        .cli(["exec", "-i", "in", "sh", "-c", "sha256sum > digest"])
        .spawn_into(pipe.into(), Stdio::null());
    Peaks::of(&gateway, &call).watch(&mut call);
    call.wait().success();
    assert!(source.wait().expect("wait").success());
    let arrived = gateway.ok(["exec", "in", "cut", "-d", " ", "-f", "1", "digest"]);
    assert_eq!(arrived, digest(expected));
}
