//! A relay that outlives its gateway: what a driver does where the callback socket cannot be mounted
//! into the sandbox.
//!
//! ```sh
//! cargo run -p cofferdam-driver-sdk --example relay
//! ```
//!
//! In place of a supervisor behind a serial port there is something that answers whatever it is
//! sent. In place of the gateway there is its socket, which comes, goes, and comes again.
//!
//! ```text
//!   "sandbox" ◄── one stream that stays ──► relay ──► DIRECTORY/gateway.sock, as often as it is there
//! ```
#![allow(clippy::print_stdout, reason = "an example for people to run")]

use std::error::Error;
use std::path::Path;

use cofferdam_driver_sdk::relay::{self, SOCKET_NAME};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream, duplex, split};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // A driver is given this by `CreateRequest::callback_directory`.
    let directory = tempfile::tempdir()?;
    let (stream, inside) = duplex(4096);
    let sandbox = tokio::spawn(sandbox(inside));

    // A driver spawns this in `Context::tasks`, once for each sandbox, and cancels it with the sandbox.
    let cancel = CancellationToken::new();
    let relaying = {
        let (directory, cancel) = (directory.path().to_owned(), cancel.clone());
        tokio::spawn(async move { relay::persistent(stream, &directory, &cancel).await })
    };

    for life in ["the first", "the second"] {
        let answer = gateway(directory.path(), life).await?;
        println!("{life} gateway was answered: {answer}");
    }
    cancel.cancel();
    println!("the relay ended: {:?}", relaying.await?);
    sandbox.await??;
    Ok(())
}

/// A gateway's life: it binds its socket, talks, and is gone without a word.
async fn gateway(directory: &Path, life: &str) -> std::io::Result<String> {
    let path = directory.join(SOCKET_NAME);
    let listener = UnixListener::bind(&path)?;
    let (connection, _) = listener.accept().await?;
    let (reader, mut writer) = connection.into_split();
    writer
        .write_all(format!("hello from {life}\n").as_bytes())
        .await?;
    let mut answer = String::new();
    BufReader::new(reader).read_line(&mut answer).await?;
    std::fs::remove_file(path)?;
    Ok(answer.trim_end().to_owned())
}

/// Answers each line, until the relay lets go of its stream.
async fn sandbox(stream: DuplexStream) -> std::io::Result<()> {
    let (reader, mut writer) = split(stream);
    let mut lines = BufReader::new(reader).lines();
    while let Some(line) = lines.next_line().await? {
        writer
            .write_all(format!("I heard {line:?}\n").as_bytes())
            .await?;
    }
    Ok(())
}
