use crate::gateway::{run, shell, spec};
use crate::sandbox::Sandbox;

#[tokio::test]
async fn output_and_exit_code_come_back() {
    let mut sandbox = Sandbox::start();
    let client = sandbox.session().await;
    let outcome = run(&client, "p1", shell("echo out; echo err >&2; exit 7")).await;
    assert_eq!(outcome.code(), 7);
    assert_eq!(outcome.stdout, b"out\n");
    assert_eq!(outcome.stderr, b"err\n");
    assert!(!outcome.exited.output_abandoned);
    assert!(outcome.exited.max_rss_bytes > 0);
}

#[tokio::test]
async fn a_program_is_found_in_the_path() {
    let mut sandbox = Sandbox::start();
    let client = sandbox.session().await;
    assert_eq!(run(&client, "p1", spec(&["true"])).await.code(), 0);
}
