//! Figures of one supervisor: `cargo bench -p cofferdam-supervisor`.
//!
//! Each is set beside what the bare system gives in the same run. `COFFERDAM_SUPERVISOR` names
//! another binary than the one that cargo built, e.g. the static one.

#[path = "../tests/it/gateway.rs"]
#[allow(dead_code, reason = "made for the tests")]
mod gateway;
#[path = "../tests/it/sandbox.rs"]
#[allow(dead_code, reason = "made for the tests")]
mod sandbox;

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cofferdam_proto::supervisor::v1::process_event::Event;
use cofferdam_proto::supervisor::v1::{ForgetProcessRequest, PingRequest};

use gateway::{Client, run, spec, start};
use sandbox::Sandbox;

const BULK_BYTES: u64 = 1 << 30;

fn main() {
    // Like the gateway: its own threads, not the supervisor's only one.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(measure());
}

async fn measure() {
    let mut sandbox = Sandbox::start();
    let client = sandbox.session().await;
    let pid = sandbox.child.id();
    print("idle RSS", &memory(pid));

    bare_spawn();
    ping(&client).await;
    exec(&client, 1, 2000).await;
    exec(&client, 16, 4000).await;
    print("RSS after that", &memory(pid));
    bare_pipe();
    for _ in 0..3 {
        let before = cpu_seconds(pid);
        bulk(&client).await;
        let took = cpu_seconds(pid) - before;
        print("  supervisor's CPU time", &format!("{took:.2} s per GiB"));
    }
    print("RSS after bulk", &memory(pid));
}

fn print(name: &str, value: &str) {
    writeln!(std::io::stdout(), "{name:<34} {value}").expect("stdout is there");
}

fn percentiles(name: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_micros();
    print(name, &format!("p50 {} µs, p99 {} µs", at(0.5), at(0.99)));
}

fn bare_spawn() {
    let mut times = Vec::new();
    for _ in 0..1000 {
        let begin = Instant::now();
        Command::new("/bin/true")
            .stdin(Stdio::null())
            .status()
            .expect("runs");
        times.push(begin.elapsed());
    }
    percentiles("bare spawn and wait", times);
}

async fn ping(client: &Client) {
    let mut times = Vec::new();
    for _ in 0..2000 {
        let begin = Instant::now();
        client.clone().ping(PingRequest {}).await.expect("answered");
        times.push(begin.elapsed());
    }
    percentiles("ping", times);
}

/// From the request to the exit event of `/bin/true`.
async fn exec(client: &Client, at_once: usize, count: usize) {
    let begin = Instant::now();
    let workers = (0..at_once).map(|worker| {
        let client = client.clone();
        tokio::spawn(async move {
            let mut times = Vec::new();
            for number in 0..count / at_once {
                let id = format!("exec-{at_once}-{worker}-{number}");
                let begin = Instant::now();
                assert_eq!(run(&client, &id, spec(&["/bin/true"])).await.code(), 0);
                times.push(begin.elapsed());
                let forget = ForgetProcessRequest { process_id: id };
                client
                    .clone()
                    .forget_process(forget)
                    .await
                    .expect("forgotten");
            }
            times
        })
    });
    let mut times = Vec::new();
    for worker in workers.collect::<Vec<_>>() {
        times.extend(worker.await.expect("no panic"));
    }
    let rate = times.len() as f64 / begin.elapsed().as_secs_f64();
    percentiles(&format!("exec, {at_once} at once ({rate:.0}/s)"), times);
}

fn bare_pipe() {
    let mut child = Command::new("head")
        .args(["-c", &BULK_BYTES.to_string(), "/dev/zero"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("runs");
    let mut stdout = child.stdout.take().expect("piped");
    let mut buffer = vec![0; 256 * 1024];
    let begin = Instant::now();
    let mut total = 0;
    while let Ok(count @ 1..) = stdout.read(&mut buffer) {
        total += count as u64;
    }
    throughput("bare pipe, 1 GiB", total, begin.elapsed());
    child.wait().expect("ended");
}

async fn bulk(client: &Client) {
    let count = BULK_BYTES.to_string();
    let begin = Instant::now();
    let mut attached = start(client, "bulk", spec(&["head", "-c", &count, "/dev/zero"])).await;
    let pinger = tokio::spawn(ping_until_idle(client.clone()));
    let mut total = 0;
    loop {
        match attached.event().await.expect("goes on").expect("an event") {
            Event::Output(output) => {
                total += output.data.len() as u64;
                attached.ack(total).await;
            }
            Event::Exited(_) => break,
            _ => {}
        }
    }
    let took = begin.elapsed();
    assert_eq!(total, BULK_BYTES);
    throughput("stdout, 1 GiB", total, took);
    pinger.abort();
    let pings = pinger.await;
    drop(pings);
    let forget = ForgetProcessRequest {
        process_id: "bulk".into(),
    };
    client
        .clone()
        .forget_process(forget)
        .await
        .expect("forgotten");
}

async fn ping_until_idle(client: Client) {
    let mut times = Vec::new();
    for _ in 0..50 {
        let begin = Instant::now();
        client.clone().ping(PingRequest {}).await.expect("answered");
        times.push(begin.elapsed());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    percentiles("  ping meanwhile", times);
}

fn throughput(name: &str, bytes: u64, took: Duration) {
    print(
        name,
        &format!("{:.0} MB/s", bytes as f64 / 1e6 / took.as_secs_f64()),
    );
}

/// User and system time.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("alive");
    let (_, rest) = stat.rsplit_once(") ").expect("a name");
    let ticks: u64 = rest
        .split(' ')
        .skip(11)
        .take(2)
        .filter_map(|n| n.parse::<u64>().ok())
        .sum();
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

fn memory(pid: u32) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("alive");
    let line = |name: &str| {
        let line = status
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_default();
        line.split_whitespace()
            .skip(1)
            .collect::<Vec<_>>()
            .join(" ")
    };
    format!("{} (anonymous {})", line("VmRSS:"), line("RssAnon:"))
}
