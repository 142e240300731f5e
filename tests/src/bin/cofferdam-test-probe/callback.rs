//! Answers the gateway in the supervisor's place, wherever its socket may be reached.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use cofferdam_proto::hello::{Frame, Scanner};
use cofferdam_proto::supervisor::v1::HelloReply;

use crate::{Findings, outcome};

/// A gateway that still says nothing has not taken the bait.
const PATIENCE: Duration = Duration::from_secs(10);

/// The sandbox's id, then sockets. "ok": the gateway has taken it for the supervisor.
pub(crate) fn probe(args: &[String]) -> Findings {
    let Some((id, paths)) = args.split_first() else {
        return Findings::new();
    };
    let ends = |path: &String| match answer(id, path) {
        Ok(word) => (path.clone(), word.to_owned()),
        Err(error) => (path.clone(), outcome(Err(error))),
    };
    paths.iter().map(ends).collect()
}

fn answer(sandbox_id: &str, path: &str) -> io::Result<&'static str> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut scanner = Scanner::new();
    let mut buffer = [0; 4096];
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        match scanner.next_frame() {
            Some(Frame::Hello(hello)) => {
                let reply = Frame::HelloReply(HelloReply {
                    sandbox_id: sandbox_id.to_owned(),
                    protocol_min: 1,
                    protocol_max: 1,
                    boot_id: vec![7; 16].into(),
                    version: "0.0.0".to_owned(),
                    nonce: hello.nonce,
                    hmac: vec![0; 32].into(),
                    ..HelloReply::default()
                });
                let bytes = reply.encode().ok_or_else(|| io::Error::other("too long"))?;
                stream.write_all(&bytes)?;
            }
            Some(Frame::Welcome(_)) => return Ok("ok"),
            Some(Frame::Reject(_)) => return Ok("rejected"),
            Some(_) => return Ok("something else"),
            None => match stream.read(&mut buffer)? {
                0 => return Ok("closed"),
                length => scanner.push(&buffer[..length]),
            },
        }
    }
    Ok("no answer")
}
