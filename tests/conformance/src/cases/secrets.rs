//! Rule 8, where secrets would get out most easily: in the words about what is wrong with them, in
//! arguments and environments, on the console. All other answers are looked at, too: see
//! `core.answers.no-secrets`.

use cofferdam_gateway::driver::convert::struct_to_wire;
use cofferdam_proto::compute::v1 as wire;
use serde_json::{Map, Value, json};
use tonic::Code;

use crate::answer::refused_with;
use crate::case::{Case, Verdict, ensure, run, skip};
use crate::host;
use crate::needs::Need;
use crate::process::{Process, program};
use crate::recorder::Leak;
use crate::suite::Suite;

const SETTING: &str = "a setting";
const PASSWORD: &str = "a registry password";

/// Settings that are tried with a secret in them.
const SETTINGS_MAX: usize = 8;

pub(super) const CASES: &[Case] = &[
    Case {
        id: "core.secrets.settings",
        source: "ConfigureRequest.settings",
        says: "Settings may hold credentials: an error about one does not repeat its value.",
        fix: "say what is allowed, not what was given",
        needs: &[],
        run: run!(settings),
    },
    Case {
        id: "core.secrets.credentials",
        source: "RegistryCredentials.password",
        says: "A secret: it is not in what is said of a spec that is wrong, nor in what is shown of \
               one that is right.",
        fix: "leave the credentials out of whatever is logged, compared, stored or shown",
        needs: &[],
        run: run!(credentials),
    },
    Case {
        id: "core.secrets.processes",
        source: "rule 8",
        says: "Secrets never appear in an argument list: nor in an environment, which others can \
               read as easily.",
        fix: "hand the bootstrap on by descriptor, as docs/supervisor.md says",
        needs: &[Need::Supervised],
        run: run!(processes),
    },
    Case {
        id: "core.secrets.console",
        source: "ReadConsole",
        says: "The platform's log of a sandbox, in which there are no secrets.",
        fix: "print the bootstrap nowhere",
        needs: &[Need::Console],
        run: run!(console),
    },
];

/// Nothing of this kind has been seen.
fn must_be_kept(suite: &Suite, is_about: impl Fn(&Leak) -> bool) -> Verdict {
    let leaks = suite.recorder().tell_leaks(is_about);
    ensure!(leaks.is_empty(), "{}", leaks.join("; "));
    Ok(())
}

fn secret(suite: &Suite, what: &'static str) -> String {
    let secret = hex::encode(crate::random::bytes::<16>());
    suite.recorder().keep_secret(what, secret.as_bytes());
    secret
}

async fn settings(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let schema = suite
        .greeting()
        .map(|greeting| greeting.handshake.settings_schema);
    let wrong = wrong_settings(&schema.unwrap_or_default(), || secret(&suite, SETTING));
    if wrong.is_empty() {
        skip!("the driver's schema of settings forbids nothing that the suite could try");
    }
    for settings in wrong {
        let request = wire::ConfigureRequest {
            settings: Some(struct_to_wire(&settings)),
        };
        refused_with(driver.configure_with(request).await, Code::InvalidArgument)?;
    }
    must_be_kept(&suite, |leak| leak.secret.starts_with(SETTING))
}

/// Settings that their schema forbids, with secrets for values.
fn wrong_settings(schema: &str, secret: impl Fn() -> String) -> Vec<Map<String, Value>> {
    let Ok(schema) = serde_json::from_str::<Value>(schema) else {
        return Vec::new();
    };
    let Ok(validator) = jsonschema::draft202012::options().build(&schema) else {
        return Vec::new();
    };
    let properties = schema["properties"].as_object();
    let names = properties.into_iter().flat_map(Map::keys).cloned();
    let names = names.chain(["conformance".to_owned()]);
    let tries = names.flat_map(|name| {
        let values = [
            json!(secret()),
            json!([secret()]),
            json!({ "conformance": secret() }),
        ];
        values.map(|value| Map::from_iter([(name.clone(), value)]))
    });
    let forbidden = tries.filter(|settings| {
        let value = Value::Object(settings.clone());
        // Not because another one is missing.
        let about = |error: jsonschema::ValidationError<'_>| {
            let path = error.instance_path().to_string();
            path.len() > 1 || error.to_string().contains("conformance")
        };
        validator.iter_errors(&value).any(about)
    });
    forbidden.take(SETTINGS_MAX).collect()
}

async fn credentials(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let mut spec = suite.spec();
    let image = spec.image.get_or_insert_default();
    image.credentials = Some(wire::RegistryCredentials {
        username: "someone".to_owned(),
        password: secret(&suite, PASSWORD),
        identity_token: secret(&suite, PASSWORD),
    });
    let mut wrong = spec.clone();
    wrong.uid = u32::MAX;
    wrong.workspace = "not/absolute".to_owned();
    wrong.hostname = "-no host name-".to_owned();
    wrong.network.get_or_insert_default().class = i32::MAX;
    let request = wire::ValidateSandboxRequest {
        spec: Some(wrong.clone()),
    };
    driver.validate_with(request).await?;
    let subject = suite.subject_with(wrong)?;
    refused_with(subject.create(&driver).await, Code::InvalidArgument)?;
    // Of an image that needs none they are not used, or refused: it is not shown in either case.
    let subject = suite.subject_with(spec)?;
    if subject.create(&driver).await.is_ok() {
        subject.running(&driver).await?;
        driver.list_ids().await?;
    }
    must_be_kept(&suite, |leak| leak.secret.starts_with(PASSWORD))
}

async fn processes(suite: Suite) -> Verdict {
    let (_driver, _subject, session) = suite.with_session().await?;
    // Whose arguments are seen here if those of the sandbox's processes are.
    let mark = format!("conformance-{}", crate::random::word());
    let script = "echo up; while :; do sleep 1; done";
    let argv = ["/bin/sh", "-c", script, mark.as_str()];
    let mut marked = Process::start(&suite, &session, program(&argv)).await?;
    marked.read_until("up").await?;
    let processes = host::processes();
    let is_marked = |process: &host::Process| {
        let arguments = process.arguments();
        arguments
            .split(|byte| *byte == 0)
            .any(|word| word == mark.as_bytes())
    };
    if !processes.iter().any(is_marked) {
        skip!("this host does not show the sandbox's processes in /proc");
    }
    let mut seen = Vec::new();
    for process in &processes {
        let shown = [
            ("arguments", process.arguments()),
            ("environment", process.environment()),
        ];
        for (place, bytes) in shown {
            if let Some(secret) = suite.recorder().secret_in(&bytes) {
                seen.push(format!(
                    "{secret} is in the {place} of process {}",
                    process.pid
                ));
            }
        }
    }
    ensure!(seen.is_empty(), "{}", seen.join("; "));
    Ok(())
}

async fn console(suite: Suite) -> Verdict {
    let (driver, subject) = suite.with_sandbox().await?;
    let request = wire::ReadConsoleRequest {
        sandbox_id: subject.id.clone(),
        ..Default::default()
    };
    driver.read_console(request).await?.all().await?;
    must_be_kept(&suite, |leak| leak.place == "the answer to ReadConsole")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_schema_forbids_is_tried() {
        let schema = r#"{"type": "object", "additionalProperties": false, "required": ["a"],
            "properties": {"any": true, "a": {"type": "string"}, "b": {"type": "array"}}}"#;
        let tried = wrong_settings(schema, || "hidden".to_owned());
        let names: Vec<_> = tried.iter().flat_map(Map::keys).collect();
        assert_eq!(
            names,
            [
                "a",
                "a",
                "b",
                "b",
                "conformance",
                "conformance",
                "conformance"
            ]
        );
        assert!(wrong_settings("", String::new).is_empty());
        assert!(wrong_settings(r#"{"type": "object"}"#, String::new).is_empty());
    }
}
