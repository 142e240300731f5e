//! Settings on their way to a driver.

use serde_json::json;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use super::fake::{FakeDriver, Script, socket_path};
use super::*;

const SCHEMA: &str = r#"{
    "type": "object", "additionalProperties": false,
    "properties": {"host": {"type": "string"}, "count": {"type": "integer"}}
}"#;

fn spec_with(socket: &Path, settings: serde_json::Value) -> Vec<DriverSpec> {
    let settings = settings.as_object().unwrap().clone();
    vec![DriverSpec {
        settings,
        ..socket_spec("d", socket)
    }]
}

#[tokio::test]
async fn settings_that_fit_the_schema_reach_the_driver() {
    let (script, (_dir, socket)) = (Script::new(), socket_path());
    script.handshake().settings_schema = SCHEMA.to_owned();
    let _driver = FakeDriver::serve(&script, &socket);
    let settings = json!({"host": "h", "count": 3});
    let gateway = Gateway::start(eager(), spec_with(&socket, settings.clone()));
    connected(&gateway.driver()).await;
    let got = convert::struct_from_wire(script.configured().unwrap());
    assert_eq!(serde_json::Value::Object(got), settings);
}

#[tokio::test]
async fn all_wrong_settings_are_told_and_none_is_sent() {
    let (script, (_dir, socket)) = (Script::new(), socket_path());
    script.handshake().settings_schema = SCHEMA.to_owned();
    let _driver = FakeDriver::serve(&script, &socket);
    let settings = json!({"hots": "h", "count": "three"});
    let gateway = Gateway::start(eager(), spec_with(&socket, settings));
    let view = refused(&gateway.driver()).await;
    assert!(
        view.error.contains("hots") && view.error.contains("count"),
        "{view:?}"
    );
    assert_eq!(view.driver_name, "fake");
    assert_eq!(script.count("Configure"), 0);
}

#[tokio::test]
async fn a_driver_without_a_schema_takes_no_settings() {
    let (script, (_dir, socket)) = (Script::new(), socket_path());
    let _driver = FakeDriver::serve(&script, &socket);
    let gateway = Gateway::start(eager(), spec_with(&socket, json!({"host": "h"})));
    let view = refused(&gateway.driver()).await;
    assert!(view.error.contains("host"), "{view:?}");
}

#[tokio::test]
async fn what_the_driver_itself_finds_wrong_is_told() {
    let (script, (_dir, socket)) = (Script::new(), socket_path());
    script.handshake().settings_schema = SCHEMA.to_owned();
    let details = ErrorDetails::with_bad_request(vec![
        FieldViolation::new("host", "no such host"),
        FieldViolation::new("count", "too many"),
    ]);
    for _ in 0..1000 {
        let code = Code::InvalidArgument;
        script.fail(
            "Configure",
            Status::with_error_details(code, "no", details.clone()),
        );
    }
    let _driver = FakeDriver::serve(&script, &socket);
    let gateway = Gateway::start(eager(), spec_with(&socket, json!({"host": "h"})));
    let view = refused(&gateway.driver()).await;
    assert!(
        view.error.contains("host: no such host; count: too many"),
        "{view:?}"
    );
}

#[tokio::test]
async fn driver_config_is_checked_against_the_drivers_schema() {
    let (script, (_dir, socket)) = (Script::new(), socket_path());
    script.handshake().driver_config_schema = SCHEMA.to_owned();
    let _driver = FakeDriver::serve(&script, &socket);
    let gateway = Gateway::with_socket(eager(), &socket);
    let driver = gateway.driver();
    connected(&driver).await;
    let check =
        |value: serde_json::Value| driver.driver_config_violations(value.as_object().unwrap());
    assert_eq!(check(json!({"host": "h"})), vec![]);
    assert_eq!(check(json!({"count": "x"}))[0].field, "count");
}
