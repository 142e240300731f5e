//! Without a network there is nobody to talk to.

use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};

use cofferdam_tests::{User, binaries, random_name};

use super::{Sealed, for_each_user, none_is_ok};

for_each_user!(
    there_is_only_loopback_and_no_route,
    sockets_of_the_host_are_out_of_reach
);

fn there_is_only_loopback_and_no_route(user: User) {
    let sealed = Sealed::new(user);
    let found = sealed.probe(["network"]);
    assert_eq!(found["interfaces"], "lo");
    assert_eq!(found["routes"], "0");
    assert_eq!(found["udp"], "ENETUNREACH");
    assert_ne!(found["packet socket"], "ok");
    // Loopback itself is up: programs that talk to themselves work.
    let server = sealed
        .gateway
        .cli(["exec", "sealed", "./probe", "serve", "9000"])
        .spawn();
    server.expect("listening");
    assert_eq!(
        sealed.probe(["network", "127.0.0.1:9000"])["127.0.0.1:9000"],
        "ok"
    );
}

fn sockets_of_the_host_are_out_of_reach(user: User) {
    let sealed = Sealed::new(user);
    let name = format!("cofferdam-test-{}", random_name());
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let _abstract = UnixListener::bind_addr(&address).expect("bind");
    // Everybody on the host may connect to this one.
    let path = sealed.gateway.home().join("open.sock");
    let _open = UnixListener::bind(&path).expect("bind");
    binaries::open_to_all(sealed.gateway.home().path());
    binaries::open_to_all(&path);
    let tcp = TcpListener::bind("0.0.0.0:0").expect("bind");
    let port = tcp.local_addr().expect("address").port();
    let mut places = vec![
        format!("@{name}"),
        path.to_string_lossy().into_owned(),
        format!("127.0.0.1:{port}"),
        format!("0.0.0.0:{port}"),
        "192.0.2.1:80".to_owned(),
        "[2001:db8::1]:80".to_owned(),
        sealed.gateway.socket().to_string_lossy().into_owned(),
    ];
    places.extend(own_address().map(|address| format!("{address}:{port}")));
    for known in [
        "/run/dbus/system_bus_socket",
        "/var/run/docker.sock",
        "/run/systemd/notify",
    ] {
        places.push(known.to_owned());
    }
    let words = ["network".to_owned()].into_iter().chain(places.clone());
    let mut found = sealed.probe(words);
    found.retain(|place, _| places.contains(place));
    assert_eq!(found.len(), places.len());
    none_is_ok(&found);
}

/// The host's address towards the world, if it has one. Nothing is sent.
fn own_address() -> Option<std::net::IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip())
}
