//! What is marked secret in the contracts does not print.

use cofferdam_proto::compute::v1::{CreateSandboxRequest, RunCommandRequest};

#[test]
fn debug_of_a_message_hides_its_secret_fields_only() {
    let request = CreateSandboxRequest {
        sandbox_id: "sbx-1".to_owned(),
        bootstrap_token: "hunter2".into(),
        ..CreateSandboxRequest::default()
    };
    let text = format!("{request:?}");
    assert!(text.contains("sbx-1"), "{text}");
    assert!(text.contains("bootstrap_token: [redacted]"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn debug_hides_the_names_of_secrets_too() {
    let request = RunCommandRequest {
        secret_environment: [("DEPLOY_KEY".to_owned(), "hunter2".to_owned())].into(),
        ..RunCommandRequest::default()
    };
    let text = format!("{request:#?}");
    assert!(
        !text.contains("hunter2") && !text.contains("DEPLOY_KEY"),
        "{text}"
    );
}
