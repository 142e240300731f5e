use crate::gateway::hello;
use crate::sandbox::Sandbox;

#[tokio::test]
async fn a_session_is_made_and_answers() {
    let mut sandbox = Sandbox::start();
    let mut client = sandbox.session().await;
    let ping = client
        .ping(cofferdam_proto::supervisor::v1::PingRequest {})
        .await;
    assert_eq!(ping.expect("answered").into_inner().boot_id.len(), 16);
}

#[tokio::test]
async fn the_reply_says_who_it_is() {
    let mut sandbox = Sandbox::start();
    let mut stream = sandbox.accept().await;
    let next = sandbox.next_token();
    let (reply, _) = hello(&mut stream, &sandbox.token, &next).await;
    assert_eq!(reply.sandbox_id, "sbx-test");
    assert_eq!(reply.version, env!("CARGO_PKG_VERSION"));
    assert_eq!(reply.processes, 0);
}
