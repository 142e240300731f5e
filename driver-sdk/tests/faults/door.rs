//! What connections meet, and new incarnations.

use cofferdam_driver_sdk::faults::script::Door;
use cofferdam_driver_sdk::faults::{Restart, Script};
use cofferdam_driver_sdk::proto::SandboxState;
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tonic::Code;

use crate::support::*;

async fn first_bytes(fixture: &Fixture) -> Vec<u8> {
    let mut stream = UnixStream::connect(&fixture.socket).await.unwrap();
    let mut buffer = vec![0; 16];
    let count = within("bytes", stream.read(&mut buffer)).await.unwrap();
    buffer.truncate(count);
    buffer
}

fn door(door: Door) -> Script {
    Script {
        door,
        ..Script::default()
    }
}

#[tokio::test]
async fn doors_say_what_they_are_told_to_and_open_again() {
    let fixture = Fixture::start(door(Door::Http1));
    assert!(first_bytes(&fixture).await.starts_with(b"HTTP/1.1 400"));
    fixture.driver.set(door(Door::Garbage));
    assert_eq!(first_bytes(&fixture).await[..4], [255, 254, 253, 252]);
    fixture.driver.set(door(Door::Closing));
    assert_eq!(first_bytes(&fixture).await, b"");
    fixture.driver.set(door(Door::Silent));
    let mut silent = UnixStream::connect(&fixture.socket).await.unwrap();
    let mut connected = fixture.driver.journal().connections;
    within("it is accepted", async {
        while connected < 4 {
            tokio::task::yield_now().await;
            connected = fixture.driver.journal().connections;
        }
    })
    .await;
    assert_eq!(
        silent.try_read(&mut [0; 16]).unwrap_err().kind(),
        std::io::ErrorKind::WouldBlock
    );
    fixture.driver.set(Script::default());
    // Who waited behind the closed door has to come again.
    assert_eq!(
        within("its end", silent.read(&mut [0; 16])).await.unwrap(),
        0
    );
    fixture.client().await;
}

#[tokio::test]
async fn closing_the_door_closes_open_connections() {
    let fixture = Fixture::start(Script::default());
    let mut client = fixture.client().await;
    let mut stream = watch(&mut client, "").await;
    assert_eq!(events(&mut stream, 1).await, ["synced"]);
    fixture.driver.set(door(Door::Silent));
    assert!(within("the end", stream.message()).await.is_err());
}

#[tokio::test]
async fn a_restart_keeps_or_forgets_and_says_so_or_not() {
    for forget in [false, true] {
        for silent in [false, true] {
            let fixture = Fixture::start(Script::default());
            let mut client = fixture.client().await;
            client.create_sandbox(create("a")).await.unwrap();
            let mut stream = watch(&mut client, "").await;
            events(&mut stream, 1).await;
            let cursor = next(&mut stream).await.cursor;
            let before = fixture.driver.journal().incarnation;
            let restart = Restart {
                forget,
                silent,
                ..Restart::default()
            };
            fixture.driver.restart(restart).await.unwrap();
            assert!(within("the end", stream.message()).await.is_err());
            let mut client = fixture.connect().await.unwrap();
            let after = shake_hands(&mut client).await.unwrap().incarnation;
            assert_eq!(after == before, silent);
            let expected = match forget {
                true => Err(Code::NotFound),
                false => Ok(SandboxState::Running),
            };
            assert_eq!(state(&mut client, "a").await, expected);
            let (listed, complete) = list(&mut client).await;
            assert_eq!((listed.is_empty(), complete), (forget, true));
            // A cursor of the earlier one is too old, also when its incarnation seems to be the same:
            // the log of the new one is not that long.
            let mut stream = watch(&mut client, &cursor).await;
            let ended = within("the end", stream.message()).await.unwrap_err();
            assert_eq!(ended.code(), Code::OutOfRange);
        }
    }
}

#[tokio::test]
async fn a_restart_behind_a_proxy_keeps_the_connection() {
    let fixture = Fixture::start(Script::default());
    let mut client = fixture.client().await;
    client.create_sandbox(create("a")).await.unwrap();
    let restart = Restart {
        keep_connections: true,
        ..Restart::default()
    };
    fixture.driver.restart(restart).await.unwrap();
    assert_eq!(state(&mut client, "a").await, Ok(SandboxState::Running));
    client.stop_sandbox(stop("a")).await.unwrap();
    assert_eq!(state(&mut client, "a").await, Ok(SandboxState::Stopped));
    assert_eq!(fixture.driver.journal().connections, 1);
}
