//! What a workload that reaches its sandbox's socket can do: nothing.

use tokio::io::AsyncWriteExt;

use super::*;

#[tokio::test]
async fn silent_connections_do_not_disturb_a_live_session() {
    let setup = Setup::new().await;
    let (_, _serving) = setup.connect().await.serve(SANDBOX, &setup.token).await;
    let session = setup.session().await;
    let mut streams = Vec::new();
    for _ in 0..200 {
        streams.push(silent(&setup.callback).await);
    }
    within(session.client().ping(wire::PingRequest {}))
        .await
        .unwrap();
    assert_eq!(setup.session().await.id(), session.id());
}

#[tokio::test]
async fn a_flood_of_connections_with_noise_does_not_keep_the_supervisor_out() {
    let setup = Setup::new().await;
    let socket = setup.callback.directory().join("gateway.sock");
    // The very process that holds the session floods: the worst case for telling them apart.
    let flood = tokio::spawn(async move {
        loop {
            if let Ok(mut stream) = UnixStream::connect(&socket).await {
                let _ = stream.write_all(&[0; 4096]).await;
            }
        }
    });
    let mut token = setup.token.clone();
    let supervisor = within(async {
        loop {
            // As a supervisor does: again and again.
            let mut supervisor = setup.connect().await;
            let hello = timeout(Duration::from_millis(500), supervisor.hear_hello_or_end());
            if let Ok(Some(())) = hello.await {
                supervisor
                    .send_reply(supervisor.reply(SANDBOX, &token))
                    .await;
                token = supervisor.hear_welcome(&token).await;
                supervisor.send_ready(&token).await;
                return supervisor;
            }
        }
    })
    .await;
    let served = tokio::spawn(supervisor.answer_pings());
    let session = setup.session().await;
    within(session.client().ping(wire::PingRequest {}))
        .await
        .unwrap();
    flood.abort();
    served.abort();
}

#[tokio::test]
async fn endless_noise_ends_the_connection() {
    let setup = Setup::new().await;
    let mut stream = silent(&setup.callback).await;
    let noise = vec![0xab; 64 * 1024];
    within(async { while stream.write_all(&noise).await.is_ok() {} }).await;
}

#[tokio::test]
async fn a_reply_to_another_hello_proves_nothing() {
    let setup = Setup::new().await;
    let mut one = setup.connect().await;
    one.hear_hello().await;
    let recorded = one.reply(SANDBOX, &setup.token);
    drop(one);
    let mut other = setup.connect().await;
    let hello = other.hear_hello().await;
    let mut replayed = recorded;
    replayed.nonce = hello.nonce;
    other.send_reply(replayed).await;
    assert_eq!(rejection(&mut other).await, Reason::BadToken);
}

#[tokio::test]
async fn who_has_the_token_but_not_the_next_one_gets_no_session() {
    let setup = Setup::new().await;
    let mut supervisor = setup.connect().await;
    within(supervisor.prove(SANDBOX, &setup.token)).await;
    supervisor.send_ready(&Token([0; 32])).await;
    let _serving = tokio::spawn(supervisor.answer_pings());
    let mut sessions = setup.callback.session();
    let waited = timeout(
        Duration::from_millis(200),
        sessions.wait_for(Option::is_some),
    )
    .await;
    assert!(waited.is_err());
}

/// Time stands still until nothing else is left to do.
#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_closed_after_its_deadline() {
    let setup = Setup::new().await;
    let mut supervisor = setup.connect().await;
    let before = tokio::time::Instant::now();
    while supervisor.frame().await.is_some() {}
    let after = before.elapsed();
    assert!(
        after >= Duration::from_secs(29) && after < Duration::from_secs(40),
        "{after:?}"
    );
}
