//! A gateway with one driver that is right and some that are not.

use std::io::Write as _;
use std::time::{Duration, Instant};

use cofferdam_tests::faulty::FaultyDriver;
use cofferdam_tests::{TestGateway, wait};
use serde_json::{Value, json};

/// Short, so that a test sees their ends.
const CONFIG: &str = "default_driver = \"process\"\n\
                      [timeouts]\n\
                      driver_silence = \"11s\"";
/// For a sandbox to be ready, and for a driver to answer, where nothing else is said.
pub(super) const TIMES: &str = "create = \"20s\"\n\
                                driver = \"5s\"\n";

/// Whole runs whose median is taken.
const RUNS: usize = 5;

/// Nobody who waits for a driver that is not right gets on sooner: it is the timeout of [`TIMES`], and
/// a slow driver's delay is longer. A run of the other driver that waits for it anywhere takes more.
///
/// This is no bound on how fast a run is: on a quiet machine one takes a hundredth of that. It tells
/// a run that depends on the sick driver from one that does not, and the median of some forgives a
/// machine that stood still for a moment.
const SICK_MIN: Duration = Duration::from_secs(5);

/// The drivers are healed at its end, so that their sandboxes can be removed.
pub(super) struct Scene {
    pub(super) gateway: TestGateway,
    drivers: Vec<(String, FaultyDriver)>,
    /// What a command of the right driver takes while nothing is wrong.
    calm: Duration,
}

impl Scene {
    /// With a driver of each of these names, all connected, and nothing wrong yet.
    pub(super) fn start<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        Self::start_with(TIMES, names)
    }

    /// With more in its configuration, which begins in the table `timeouts`.
    pub(super) fn start_with<'a>(config: &str, names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut builder = TestGateway::builder().config(CONFIG).config(config);
        let start = |name: &str| (name.to_owned(), FaultyDriver::start(builder.home(), name));
        let drivers: Vec<_> = names.into_iter().map(start).collect();
        for (name, driver) in &drivers {
            builder = builder.driver_socket(name, driver.socket());
        }
        let mut scene = Self {
            gateway: builder.start(),
            drivers,
            calm: Duration::ZERO,
        };
        for (name, _) in &scene.drivers {
            scene.connected(name);
        }
        scene.calm = scene.command_of_the_right_driver();
        scene
    }

    /// One driver for each case, each with a sandbox of the same name that is ready.
    pub(super) fn with_sandboxes(cases: &[(&str, Value)]) -> Self {
        let scene = Self::start(cases.iter().map(|(name, _)| *name));
        for (name, _) in cases {
            scene.gateway.create(["--driver", name, "--name", name]);
        }
        scene
    }

    pub(super) fn driver(&self, name: &str) -> &FaultyDriver {
        let mut drivers = self.drivers.iter();
        let found = drivers.find(|(known, _)| known == name);
        &found.expect("a driver of that name").1
    }

    /// What is to go wrong in each.
    pub(super) fn set(&self, cases: &[(&str, Value)]) {
        for (name, script) in cases {
            self.driver(name).set(script);
        }
    }

    /// The driver that is right is asked for something, and does not wait for any that is not; how
    /// long it takes is told.
    #[track_caller]
    pub(super) fn others_do_not_notice(&self, during: &str) {
        let took = self.command_of_the_right_driver();
        let line = format!(
            "faults: {during}: a command of the other driver took {:.1} ms (before: {:.1} ms)\n",
            took.as_secs_f64() * 1e3,
            self.calm.as_secs_f64() * 1e3
        );
        // In one piece, between what other tests say.
        let told = std::io::stderr().lock().write_all(line.as_bytes());
        told.expect("write to stderr");
        assert!(
            took < SICK_MIN,
            "{during}: a run of the driver that is right took {took:?}: it waited for another"
        );
    }

    /// The median of some whole runs: sandbox, command, end.
    #[track_caller]
    fn command_of_the_right_driver(&self) -> Duration {
        let mut took: Vec<Duration> = (0..RUNS)
            .map(|_| {
                let begun = Instant::now();
                let args = ["run", "--driver", "process", "echo", "fine"];
                assert_eq!(self.gateway.ok(args), "fine");
                begun.elapsed()
            })
            .collect();
        took.sort();
        took[RUNS / 2]
    }

    #[track_caller]
    pub(super) fn connected(&self, name: &str) {
        wait::until_true("the driver is connected", || {
            self.gateway.driver(name)["state"] == "CONNECTED"
        });
    }

    /// `driver inspect`, `driver ls` and `doctor` say this, and what helps.
    #[track_caller]
    pub(super) fn is_explained(&self, name: &str, word: &str) {
        let mut last = Value::Null;
        let found = wait::within(wait::PATIENCE, || {
            last = self.gateway.driver(name);
            remedies(&last, word).filter(|fix| !fix.is_empty())
        });
        assert!(found.is_some(), "{name}: no {word:?} with a fix: {last:#}");
        let mut listed = String::new();
        let found = wait::within(wait::PATIENCE, || {
            let ran = self.gateway.run(["driver", "ls"]);
            listed = format!("{}{}", ran.text(), ran.stderr);
            let mut rows = listed.lines().filter(|row| row.starts_with(name));
            let is_said = rows.any(|row| row.contains(word));
            let about = format!("cofferdam: driver {name:?}: ");
            let mut notes = listed.lines().filter_map(|line| line.strip_prefix(&about));
            (is_said && notes.any(|fix| !fix.is_empty())).then_some(())
        });
        assert!(
            found.is_some(),
            "{name}: no {word:?} with a fix in\n{listed}"
        );
        let mut said = String::new();
        let found = wait::within(wait::PATIENCE, || {
            said = self.gateway.run(["--json", "doctor", name]).text();
            let doctor: Value = serde_json::from_str(&said).expect("JSON");
            let findings = doctor["findings"].as_array()?.clone();
            let finding = findings.into_iter().find(|one| one["subject"] == name)?;
            let fixes = remedies(&finding, word)?;
            (finding["result"] != "PASSED" && !fixes.is_empty()).then_some(())
        });
        assert!(
            found.is_some(),
            "{name}: no {word:?} with a fix from doctor: {said}"
        );
    }

    /// Nothing is said against it.
    #[track_caller]
    pub(super) fn is_not_complained_of(&self, name: &str) {
        let mut last = Value::Null;
        let found = wait::within(wait::PATIENCE, || {
            last = self.gateway.driver(name);
            let is_silent = last["notices"] == json!([]) && last["error"].is_null();
            (is_silent && last["state"] == "CONNECTED").then_some(())
        });
        assert!(found.is_some(), "{name} is complained of: {last:#}");
    }

    pub(super) fn sandbox(&self, sandbox: &str) -> Value {
        self.gateway.json(["inspect", sandbox])
    }

    #[track_caller]
    pub(super) fn has_state(&self, sandbox: &str, state: &str) -> Value {
        let mut last = Value::Null;
        let found = wait::within(wait::PATIENCE, || {
            last = self.sandbox(sandbox);
            (last["state"] == state).then(|| last.clone())
        });
        found.unwrap_or_else(|| panic!("{sandbox} is not {state}: {last:#}"))
    }

    /// Its command runs, whatever its driver does.
    #[track_caller]
    pub(super) fn works(&self, sandbox: &str) {
        let script = "echo out; exit 7";
        let ran = self.gateway.run(["exec", sandbox, "sh", "-c", script]);
        assert_eq!(ran.exited(7), "out", "{sandbox}");
    }

    /// As a new one of this driver does.
    #[track_caller]
    pub(super) fn runs(&self, driver: &str) {
        let args = ["run", "--driver", driver, "sh", "-c", "echo out; exit 7"];
        assert_eq!(self.gateway.run(args).exited(7), "out", "{driver}");
    }

    #[track_caller]
    pub(super) fn is_gone(&self, sandbox: &str) {
        wait::until_true("it is gone", || {
            let left = self.gateway.ok(["--json", "ls", "--all"]);
            !left.contains(&format!("\"{sandbox}\""))
        });
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            for (name, driver) in &self.drivers {
                driver.heal();
                self.connected(name);
            }
        }
    }
}

/// What helps, wherever this is said; all of it.
fn remedies(said: &Value, word: &str) -> Option<String> {
    let notices = said["notices"].as_array().into_iter().flatten();
    let checks = said["checks"].as_array().into_iter().flatten();
    let whole = json!({ "detail": said["error"], "fix": said["fix"] });
    let finding = json!({ "detail": said["detail"], "fix": said["fix"] });
    let platform = json!({
        "detail": said["fingerprint"]["reason"],
        "fix": said["fingerprint"]["fix"],
    });
    let all = notices.chain(checks).chain([&whole, &finding, &platform]);
    let fits = all.filter(|one| {
        one["detail"]
            .as_str()
            .is_some_and(|text| text.contains(word))
    });
    fits.map(|one| one["fix"].as_str().unwrap_or_default().to_owned())
        .reduce(|one, other| one + &other)
}
