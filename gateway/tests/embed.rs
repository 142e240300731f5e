//! A gateway inside another program: reachable while it lives, and nothing left of it afterwards.

use std::path::PathBuf;

use cofferdam_gateway::embed::{self, EmbedOptions};
use cofferdam_proto::gateway::v1::GetInfoRequest;
use cofferdam_proto::gateway::v1::gateway_client::GatewayClient;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Endpoint, Uri};

/// A directory with a supervisor that is never started: any ELF file will do.
fn libexec() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::copy("/bin/true", directory.path().join("cofferdam-supervisor")).unwrap();
    directory
}

#[tokio::test(flavor = "multi_thread")]
async fn an_embedded_gateway_answers_and_leaves_nothing() {
    let libexec = libexec();
    let never = libexec.path().join("never.sock");
    let start = std::time::Instant::now();
    let gateway = embed::start(EmbedOptions {
        libexec_dir: libexec.path().to_owned(),
        driver_sockets: vec![("never".to_owned(), never)],
        ..EmbedOptions::default()
    })
    .await
    .unwrap();
    let took = start.elapsed();
    let socket = gateway.socket().to_owned();
    let directory = socket.parent().unwrap().to_owned();
    assert!(socket.as_os_str().len() < 100, "{}", socket.display());

    let info = info(socket).await;
    assert_eq!(info.default_driver, "never");
    gateway.shutdown().await;
    assert!(!directory.exists());
    show_figure(&format!("an embedded gateway listens after {took:?}"));
}

async fn info(socket: PathBuf) -> cofferdam_proto::gateway::v1::GetInfoResponse {
    let connect = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
    });
    let channel = Endpoint::from_static("http://gateway")
        .connect_with_connector(connect)
        .await
        .unwrap();
    let answer = GatewayClient::new(channel)
        .get_info(GetInfoRequest {})
        .await;
    answer.unwrap().into_inner()
}

#[allow(
    clippy::print_stderr,
    reason = "figures are for the person who runs the test"
)]
fn show_figure(text: &str) {
    eprintln!("{text}");
}
