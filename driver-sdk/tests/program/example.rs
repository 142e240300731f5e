//! `examples/relay`, run to its end.

use std::process::Stdio;

use tokio::process::Command;
use tokio::time::timeout;

use crate::harness::{LIMIT, example};

#[tokio::test]
async fn the_relay_outlives_its_gateway() {
    let mut relay = Command::new(example("relay"));
    relay.stdin(Stdio::null()).kill_on_drop(true);
    let ran = timeout(LIMIT, relay.output()).await;
    let ran = ran.expect("it ends by itself").unwrap();
    let said = String::from_utf8(ran.stdout).unwrap();
    let lines: Vec<&str> = said.lines().collect();
    let answer = |life| format!("{life} gateway was answered: I heard \"hello from {life}\"");
    assert_eq!(lines.len(), 3, "{said}");
    assert_eq!(lines[..2], [answer("the first"), answer("the second")]);
    assert!(lines[2].starts_with("the relay ended: "), "{said}");
    assert!(ran.status.success(), "{}", ran.status);
}
