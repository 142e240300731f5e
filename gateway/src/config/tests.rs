use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::wire::KEYS;
use super::*;

/// A host in a directory: with the helper programs, a group file, and no configuration.
struct World {
    home: tempfile::TempDir,
    host: Host,
}

impl World {
    fn new(uid: u32) -> Self {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().to_owned();
        let world = Self {
            host: Host {
                environment: [("HOME".to_owned(), root.join("home/me").into())].into(),
                uid,
                program: Some(root.join("usr/bin/cofferdam-gateway")),
                directory: root.join("here"),
                root: root.clone(),
            },
            home,
        };
        for name in [
            "cofferdam-supervisor",
            "cofferdam-driver-process",
            "cofferdam-driver-other",
        ] {
            world.program(&format!("usr/libexec/cofferdam/{name}"));
        }
        world.write("etc/group", "root:x:0:\ncofferdam:x:990:me\n");
        world
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.home.path().join(relative)
    }

    fn write(&self, relative: &str, text: &str) -> PathBuf {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn program(&self, relative: &str) -> PathBuf {
        let path = self.write(relative, "#!/bin/true\n");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn set(&mut self, name: &str, value: impl Into<std::ffi::OsString>) {
        self.host.environment.insert(name.to_owned(), value.into());
    }

    fn load(&self, flags: &Flags) -> Resolved {
        load(flags, &self.host).unwrap_or_else(|error| panic!("{error}"))
    }

    fn config(&self) -> Config {
        self.load(&Flags::default()).config
    }

    /// What is wrong, with this world's own directory cut out.
    fn problems(&self, flags: &Flags) -> String {
        let error = load(flags, &self.host).unwrap_err().to_string();
        error.replace(self.home.path().to_str().unwrap(), "")
    }

    fn problems_of(&self, text: &str) -> String {
        self.write("etc/cofferdam/config.toml", text);
        self.problems(&Flags::default())
    }
}

fn names(config: &Config) -> Vec<&str> {
    config
        .drivers
        .iter()
        .map(|driver| driver.name.as_str())
        .collect()
}

#[test]
fn without_any_configuration_the_built_in_driver_runs() {
    let world = World::new(0);
    let config = world.config();
    assert_eq!(config.state_dir, world.path("var/lib/cofferdam"));
    assert_eq!(
        config.socket.path,
        world.path("run/cofferdam/cofferdam.sock")
    );
    assert_eq!(
        (config.socket.mode, config.socket.group.as_deref()),
        (0o660, Some("cofferdam"))
    );
    assert_eq!(
        config.supervisor,
        world.path("usr/libexec/cofferdam/cofferdam-supervisor")
    );
    assert_eq!(
        (names(&config), config.default_driver.as_str()),
        (vec!["process"], "process")
    );
    let program = world.path("usr/libexec/cofferdam/cofferdam-driver-process");
    assert_eq!(config.drivers[0].source, DriverSource::BuiltIn { program });
    assert_eq!(config.defaults.memory_bytes, 512 << 20);
    assert_eq!(config.maximum.memory_bytes, None);
    assert_eq!(config.executions.timeout_default, Duration::from_secs(300));
}

#[test]
fn users_have_paths_of_their_own() {
    let mut world = World::new(1000);
    let config = world.config();
    assert_eq!(
        config.state_dir,
        world.path("home/me/.local/state/cofferdam")
    );
    assert_eq!(config.runtime_dir, world.path("tmp/cofferdam-1000"));
    assert_eq!((config.socket.mode, config.socket.group), (0o600, None));

    world.set("XDG_STATE_HOME", "/xdg/state");
    world.set("XDG_RUNTIME_DIR", "/run/user/1000");
    world.set("XDG_CONFIG_HOME", world.path("xdg"));
    world.write("xdg/cofferdam/config.toml", "[defaults]\npids = 99\n");
    let config = world.config();
    assert_eq!(config.state_dir, Path::new("/xdg/state/cofferdam"));
    assert_eq!(
        config.socket.path,
        Path::new("/run/user/1000/cofferdam/cofferdam.sock")
    );
    assert_eq!(config.defaults.pids, 99);
}

#[test]
fn a_unit_of_an_ordinary_user_uses_the_directories_that_systemd_made() {
    let mut world = World::new(990);
    world.set("STATE_DIRECTORY", "/var/lib/cofferdam");
    world.set("RUNTIME_DIRECTORY", "/run/cofferdam:/run/other");
    let config = world.config();
    assert_eq!(config.state_dir, Path::new("/var/lib/cofferdam"));
    assert_eq!(config.runtime_dir, Path::new("/run/cofferdam"));
    assert_eq!((config.socket.mode, config.socket.group), (0o660, None));
}

#[test]
fn flags_win_over_environment_over_drop_ins_over_the_file_over_defaults() {
    let mut world = World::new(0);
    world.write(
        "etc/cofferdam/config.toml",
        "state_dir = \"/file\"\n[log]\nfilter = \"error\"\nformat = \"json\"\n\
         [defaults]\npids = 10\ncpus = 0.5\nmemory = \"1GiB\"\n",
    );
    world.write("etc/cofferdam/conf.d/20-b.toml", "[defaults]\npids = 30\n");
    world.write(
        "etc/cofferdam/conf.d/10-a.toml",
        "[defaults]\npids = 20\ncpus = 2\n",
    );
    world.write("etc/cofferdam/conf.d/.hidden.toml", "nonsense");
    world.write("etc/cofferdam/conf.d/readme", "nonsense");
    let config = world.config();
    assert_eq!(
        (config.defaults.pids, config.defaults.cpu_millis),
        (30, 2000)
    );
    assert_eq!(config.defaults.memory_bytes, 1 << 30);
    assert_eq!(config.state_dir, Path::new("/file"));

    world.set("COFFERDAM_STATE_DIR", "/environment");
    world.set("COFFERDAM_LOG", "warn");
    world.set("COFFERDAM_SOCKET", "");
    let config = world.config();
    assert_eq!(config.state_dir, Path::new("/environment"));
    assert_eq!(
        (config.log.filter.as_str(), config.log.format),
        ("warn", LogFormat::Json)
    );

    let flags = Flags {
        state_dir: Some("relative".into()),
        log_format: Some("text".to_owned()),
        ..Flags::default()
    };
    let config = world.load(&flags).config;
    assert_eq!(config.state_dir, world.path("here/relative"));
    assert_eq!(config.log.format, LogFormat::Text);
}

#[test]
fn every_problem_is_reported_at_once_with_its_place() {
    let mut world = World::new(0);
    world.set("COFFERDAM_RUNTIME_DIR", "run");
    world.write(
        "etc/cofferdam/conf.d/10.toml",
        "[defaults\npids = 1\n[x]]\n",
    );
    let flags = Flags {
        log_format: Some("xml".to_owned()),
        compute_driver_sockets: vec!["acme".into(), "b=/b.sock".into(), "b=/c.sock".into()],
        ..Flags::default()
    };
    world.write(
        "etc/cofferdam/config.toml",
        r#"stat_dir = "/x"
state_dir = "relative"
default_driver = "proces"

[socket]
mode = "0999"
group = "nobody-here"
path = 7

[defaults]
memory = "1MiB"
pids = 100
lifetime = 3600
uid = 0
colour = "blue"

[maximum]
pids = 50
memory = true
sandboxes = "none"

[executions]
timeout_default = "2 days"

[driver.process]
settings = {}

[drivers.process]
enabled = "yes"
image = "debian"

[drivers.proces2]

[drivers.UPPER]
socket = "/a.sock"

[drivers.both]
path = "/p"
socket = "/s"

[log]
filter = "a=b=c"
"#,
    );
    insta::assert_snapshot!(world.problems(&flags));
}

#[test]
fn a_file_that_was_asked_for_has_to_be_there() {
    let mut world = World::new(0);
    let flags = Flags {
        config: Some("my.toml".into()),
        ..Flags::default()
    };
    let problems = world.problems(&flags);
    assert!(
        problems.contains("--config: /here/my.toml: cannot be read"),
        "{problems}"
    );
    world.write("here/my.toml", "[defaults]\npids = 77\n");
    world.write("etc/cofferdam/config.toml", "[defaults]\npids = 78\n");
    assert_eq!(world.load(&flags).config.defaults.pids, 77);
    world.set("COFFERDAM_CONFIG", "/not/there.toml");
    let problems = world.problems(&Flags::default());
    assert!(
        problems.contains("$COFFERDAM_CONFIG: /not/there.toml: cannot be read"),
        "{problems}"
    );
}

#[test]
fn files_that_cannot_be_read_are_problems() {
    let world = World::new(0);
    fs::create_dir_all(world.path("etc/cofferdam/config.toml")).unwrap();
    world.write("etc/cofferdam/conf.d", "not a directory");
    let problems = world.problems(&Flags::default());
    assert!(problems.contains("/etc/cofferdam/config.toml: cannot be read: it is not a file"));
    assert!(
        problems.contains("/etc/cofferdam/conf.d: cannot be read"),
        "{problems}"
    );
}

#[test]
fn without_helper_programs_the_places_are_named() {
    let world = World::new(0);
    fs::remove_dir_all(world.path("usr/libexec")).unwrap();
    let problems = world.problems(&Flags::default());
    assert!(problems.contains("problem:"), "just one: {problems}");
    assert!(problems.contains("there is no cofferdam-supervisor in /usr/libexec/cofferdam"));
    assert!(problems.contains("COFFERDAM_LIBEXEC"), "{problems}");
}

#[test]
fn helper_programs_are_found_beside_the_gateway() {
    let mut world = World::new(0);
    world.host.program = Some(world.path("opt/bin/cofferdam-gateway"));
    let supervisor = world.program("opt/libexec/cofferdam-supervisor");
    world.program("opt/libexec/cofferdam-driver-process");
    assert_eq!(world.config().supervisor, supervisor);
    world.set("COFFERDAM_LIBEXEC", world.path("usr/libexec/cofferdam"));
    let supervisor = world.path("usr/libexec/cofferdam/cofferdam-supervisor");
    assert_eq!(world.config().supervisor, supervisor);
}

#[test]
fn programs_have_to_be_there_and_executable() {
    let world = World::new(0);
    let driver = world.path("usr/libexec/cofferdam/cofferdam-driver-process");
    fs::set_permissions(&driver, fs::Permissions::from_mode(0o644)).unwrap();
    let problems = world.problems_of(
        "supervisor = \"/no/supervisor\"\n[drivers.process]\n[drivers.mine]\npath = \"/etc\"\n",
    );
    assert!(problems.contains("config.toml:1: supervisor: /no/supervisor does not exist"));
    assert!(
        problems.contains("cofferdam-driver-process is not executable"),
        "{problems}"
    );
    assert!(
        problems.contains("config.toml:4: drivers.mine: /etc is not a file"),
        "{problems}"
    );
}

#[test]
fn drivers_come_from_files_environment_and_flags_together() {
    let mut world = World::new(0);
    let text = "[drivers.process]\n[drivers.process.settings]\na = 1\nb = { c = 0x10, d = [1.5, 2020-01-01] }\n";
    world.write("etc/cofferdam/config.toml", text);
    world.write(
        "etc/cofferdam/conf.d/1.toml",
        "[drivers.process.settings]\na = 2\nb = { e = true }\n[drivers.off]\nenabled = false\n",
    );
    world.set(
        "COFFERDAM_COMPUTE_DRIVER_SOCKETS",
        "acme=/acme.sock, zeta=/zeta.sock",
    );
    let flags = Flags {
        drivers: vec!["other".to_owned()],
        compute_driver_sockets: vec!["zeta=z.sock".into()],
        ..Flags::default()
    };
    let config = world.load(&flags).config;
    assert_eq!(names(&config), ["acme", "other", "process", "zeta"]);
    let settings = serde_json::json!({
        "a": 2, "b": {"c": 16, "d": [1.5, "2020-01-01"], "e": true}
    });
    assert_eq!(
        serde_json::Value::Object(config.drivers[2].settings.clone()),
        settings
    );
    let path = world.path("here/z.sock");
    assert_eq!(config.drivers[3].source, DriverSource::Socket { path });
    assert_eq!(config.default_driver.as_str(), "process");
}

#[test]
fn somebody_elses_driver_may_take_a_built_in_name() {
    let world = World::new(0);
    world.write(
        "etc/cofferdam/config.toml",
        "[drivers.process.settings]\na = 1\n",
    );
    let flags = Flags {
        compute_driver_sockets: vec!["process=/theirs.sock".into()],
        ..Flags::default()
    };
    let config = world.load(&flags).config;
    let path = PathBuf::from("/theirs.sock");
    assert_eq!(config.drivers[0].source, DriverSource::Socket { path });
    assert_eq!(config.drivers[0].settings.len(), 1);
}

#[test]
fn a_single_named_driver_needs_no_helper_drivers_and_is_the_default() {
    let world = World::new(0);
    fs::remove_file(world.path("usr/libexec/cofferdam/cofferdam-driver-process")).unwrap();
    let flags = Flags {
        compute_driver_sockets: vec!["fake=/fake.sock".into()],
        ..Flags::default()
    };
    let config = world.load(&flags).config;
    assert_eq!(
        (names(&config), config.default_driver.as_str()),
        (vec!["fake"], "fake")
    );
}

#[test]
fn several_drivers_without_an_obvious_default_need_one() {
    let world = World::new(0);
    let text = "[drivers.a]\nsocket = \"/a\"\n[drivers.b]\nsocket = \"/b\"\n";
    let problems = world.problems_of(text);
    assert!(
        problems.contains("default_driver: has to say which of a, b is meant"),
        "{problems}"
    );
    let problems = world.problems_of("[drivers.process]\nenabled = false\n");
    assert!(problems.contains("every driver is disabled"), "{problems}");
}

#[test]
fn sockets_that_the_system_cannot_address_are_refused() {
    let world = World::new(0);
    let long = format!("/{}", "x".repeat(120));
    let problems = world.problems_of(&format!(
        "[socket]\npath = \"{long}\"\n[drivers.a]\nsocket = \"{long}\"\n"
    ));
    assert_eq!(problems.matches("121 bytes").count(), 2, "{problems}");
}

#[test]
fn settings_are_neither_shown_nor_logged() {
    let world = World::new(0);
    world.write(
        "etc/cofferdam/config.toml",
        "[drivers.process.settings]\ntoken = \"hunter2\"\n",
    );
    let resolved = world.load(&Flags::default());
    let effective = resolved.effective.to_string();
    assert!(effective.contains("token"), "{effective}");
    for text in [
        effective,
        format!("{:?}", resolved.config),
        format!("{resolved:?}"),
    ] {
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn what_is_shown_as_effective_can_be_used_as_a_file() {
    let mut world = World::new(0);
    world.write(
        "etc/cofferdam/config.toml",
        "[defaults]\ncpus = 0.25\ndisk = \"1.5GiB\"\n[maximum]\nmemory = \"8GiB\"\nlifetime = \"none\"\n\
         [drivers.process]\n[drivers.far]\nsocket = \"/far.sock\"\n",
    );
    world.set("COFFERDAM_LOG", "debug");
    let before = world.load(&Flags::default());
    let text = before.effective.to_string();
    insta::assert_snapshot!(text.replace(world.home.path().to_str().unwrap(), ""));
    world.write("here/shown.toml", &text);
    world.host.environment.remove("COFFERDAM_LOG");
    let flags = Flags {
        config: Some("shown.toml".into()),
        ..Flags::default()
    };
    let after = world.load(&flags);
    assert_eq!(
        format!("{:?}", after.config),
        format!("{:?}", before.config)
    );
}

#[test]
fn a_socket_for_everybody_is_warned_of() {
    let world = World::new(0);
    world.write("etc/cofferdam/config.toml", "[socket]\nmode = \"0666\"\n");
    let warnings = world.load(&Flags::default()).warnings;
    assert!(
        warnings[0]
            .to_string()
            .starts_with("socket.mode: lets everybody"),
        "{warnings:?}"
    );
}

fn repository(relative: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(relative);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The sample names every key; with every comment mark taken off, it still parses and changes
/// nothing.
#[test]
fn the_sample_configuration_says_the_defaults() {
    let world = World::new(0);
    let sample = repository("packaging/config.toml");
    world.write("etc/cofferdam/config.toml", &sample);
    let before = World::new(0).config();
    let shown = |config: &Config, world: &World| {
        format!("{config:?}").replace(world.home.path().to_str().unwrap(), "")
    };
    assert_eq!(world.config().defaults, before.defaults);

    let uncommented: String = sample
        .lines()
        .map(|line| {
            line.strip_prefix('#')
                .filter(|rest| !rest.starts_with(' '))
                .unwrap_or(line)
        })
        .map(|line| format!("{line}\n"))
        .collect();
    for key in KEYS {
        let name = key.name.rsplit('.').next().unwrap();
        assert!(
            uncommented.contains(&format!("\n{name} = ")),
            "{} is missing",
            key.name
        );
    }
    // Paths on this world's root instead of the real one.
    let root = world.home.path().to_str().unwrap();
    let here = uncommented.replace("= \"/", &format!("= \"{root}/"));
    world.write("etc/cofferdam/config.toml", &here);
    let plain = World::new(0);
    assert_eq!(
        shown(&world.config(), &world),
        shown(&plain.config(), &plain)
    );
}

#[test]
fn the_manual_describes_every_key_flag_and_variable() {
    let manual = repository("docs/configuration.md");
    let mut wanted = vec![
        "--driver",
        "--compute-driver-socket",
        "--config",
        "COFFERDAM_CONFIG",
    ];
    for key in KEYS {
        wanted.extend([key.flag, key.variable].into_iter().flatten());
        let name = key.name.rsplit('.').next().unwrap();
        assert!(
            manual.contains(&format!("`{name}`")),
            "{} is missing",
            key.name
        );
    }
    for word in wanted {
        assert!(manual.contains(word), "{word} is missing");
    }
}
