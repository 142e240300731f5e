//! `cofferdam port-forward`: a server in a sandbox without a network, reached from outside.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};

use cofferdam_tests::{TestGateway, wait};

use crate::sealed::probe::install;

/// One that nobody uses now.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    listener.local_addr().expect("address").port()
}

fn connect(port: u16) -> TcpStream {
    wait::until("the forward listens", || {
        TcpStream::connect(("127.0.0.1", port)).ok()
    })
}

#[test]
fn a_server_in_the_sandbox_is_reached_through_the_forward() {
    let gateway = TestGateway::start();
    gateway.create(["--name", "ports"]);
    install(&gateway, "ports");
    let server = gateway
        .cli(["exec", "ports", "./probe", "serve", "8080"])
        .spawn();
    server.expect("listening");
    let port = free_port();
    let forward = gateway
        .cli(["port-forward", "ports", &format!("{port}:8080")])
        .spawn();
    let clients: Vec<_> = (0..8_u8)
        .map(|number| {
            let stream = connect(port);
            std::thread::spawn(move || echoes(stream, number))
        })
        .collect();
    for client in clients {
        client.join().expect("a client");
    }
    // A connection is no execution.
    let held = connect(port);
    let counts = |gateway: &TestGateway| {
        let sandbox = gateway.json(["inspect", "ports"]);
        (
            sandbox["running_executions"].as_u64(),
            sandbox["running_transfers"].as_u64(),
        )
    };
    wait::until_true("it is counted", || counts(&gateway) == (Some(1), Some(1)));
    drop(held);
    wait::until_true("it has ended", || counts(&gateway) == (Some(1), Some(0)));
    forward.signal(rustix::process::Signal::INT);
    forward.wait();
    assert!(
        TcpStream::connect(("127.0.0.1", port)).is_err(),
        "it still listens"
    );
}

/// A few megabytes, more than any buffer on the way holds.
fn echoes(mut stream: TcpStream, number: u8) {
    let sent: Vec<u8> = (0..3_000_003_u32)
        .map(|i| i.to_le_bytes()[0] ^ number)
        .collect();
    let mut back = stream.try_clone().expect("another descriptor");
    let reader = std::thread::spawn(move || {
        let mut got = Vec::new();
        back.read_to_end(&mut got).expect("read");
        got
    });
    stream.write_all(&sent).expect("write");
    stream.shutdown(Shutdown::Write).expect("end");
    assert!(
        reader.join().expect("read") == sent,
        "client {number} got something else"
    );
}

#[test]
fn a_port_where_nobody_listens_ends_the_connection_and_not_the_forward() {
    let gateway = TestGateway::start();
    gateway.create(["--name", "quiet"]);
    let port = free_port();
    let mut forward = gateway
        .cli(["port-forward", "quiet", &format!("{port}:9")])
        .spawn();
    for _ in 0..2 {
        let mut got = Vec::new();
        // An end or a reset: both say that nobody is there.
        let _ = connect(port).read_to_end(&mut got);
        assert_eq!(got, b"");
    }
    assert!(!forward.has_ended(), "{}", forward.errors_so_far());
}
