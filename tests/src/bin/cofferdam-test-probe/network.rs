//! Whom can one reach from here?

use std::fs;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixStream};
use std::time::Duration;

use crate::{Findings, name, outcome};

const PATIENCE: Duration = Duration::from_secs(2);

/// `places`: "@NAME" for an abstract socket, "/PATH" for another, HOST:PORT otherwise.
pub(crate) fn probe(places: &[String]) -> Findings {
    let mut found = Findings::new();
    found.insert("interfaces".to_owned(), interfaces());
    found.insert("routes".to_owned(), routes());
    for place in places {
        found.insert(place.clone(), connect(place));
    }
    let datagram = UdpSocket::bind("0.0.0.0:0")
        .and_then(|socket| socket.send_to(b"x", "192.0.2.1:53").map(|_| ()));
    found.insert("udp".to_owned(), outcome(datagram));
    found.insert("packet socket".to_owned(), packet_socket());
    found
}

fn interfaces() -> String {
    let table = fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let names: Vec<&str> = table
        .lines()
        .filter_map(|line| Some(line.split_once(':')?.0.trim()))
        .collect();
    names.join(" ")
}

/// How many lead anywhere but to loopback.
fn routes() -> String {
    let four = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let six = fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default();
    let lines = four.lines().skip(1).chain(six.lines());
    lines
        .filter(|line| !line.split_whitespace().any(|word| word == "lo"))
        .count()
        .to_string()
}

fn connect(place: &str) -> String {
    if let Some(abstract_name) = place.strip_prefix('@') {
        let address = UnixAddress::from_abstract_name(abstract_name);
        return outcome(address.and_then(|address| UnixStream::connect_addr(&address).map(|_| ())));
    }
    if place.starts_with('/') {
        return outcome(UnixStream::connect(place).map(|_| ()));
    }
    match place.parse::<SocketAddr>() {
        Ok(address) => outcome(TcpStream::connect_timeout(&address, PATIENCE).map(|_| ())),
        Err(error) => error.to_string(),
    }
}

fn packet_socket() -> String {
    let family = rustix::net::AddressFamily::PACKET;
    match rustix::net::socket(family, rustix::net::SocketType::RAW, None) {
        Ok(_) => "ok".to_owned(),
        Err(errno) => name(errno.raw_os_error()),
    }
}
