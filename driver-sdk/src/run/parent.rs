//! A gateway that starts its drivers holds the other end of their stdin: when that closes, the
//! gateway is gone, and a driver that nobody can call any more has no reason to stay.

use std::future::pending;
use std::os::fd::AsFd as _;

use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;

/// Completes when the gateway that started this process is gone. Never for a driver that runs as a
/// service of its own.
pub(super) async fn gone() {
    let Some(mut pipe) = held_pipe() else {
        return pending().await;
    };
    let mut buffer = [0; 64];
    loop {
        match pipe.read(&mut buffer).await {
            Ok(0) | Err(_) => {
                tracing::info!("the gateway that started this driver is gone");
                return;
            }
            // Nothing is said there.
            Ok(_) => {}
        }
    }
}

fn held_pipe() -> Option<Receiver> {
    std::env::var_os(super::listen::LISTEN_FD_VARIABLE)?;
    let stdin = std::io::stdin().as_fd().try_clone_to_owned().ok()?;
    // Anything but a pipe says nothing about a parent.
    Receiver::from_owned_fd(stdin).ok()
}
