//! Where values come from, and which of them wins.

use super::*;

#[test]
fn without_any_configuration_the_built_in_driver_runs() {
    let world = World::new(0);
    let config = world.config();
    assert_eq!(config.state_dir, world.path("var/lib/cofferdam"));
    assert_eq!(config.socket.path, world.path("run/cofferdam/gateway.sock"));
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
        Path::new("/run/user/1000/cofferdam/gateway.sock")
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
fn a_driver_behind_a_socket_is_one_more_and_not_one_instead() {
    let world = World::new(0);
    let flags = Flags {
        compute_driver_sockets: vec!["demo=/demo.sock".into()],
        ..Flags::default()
    };
    let config = world.load(&flags).config;
    assert_eq!(names(&config), ["demo", "process"]);
    assert_eq!(config.default_driver.as_str(), "process");
}

#[test]
fn a_disabled_default_driver_stays_out() {
    let world = World::new(0);
    world.write(
        "etc/cofferdam/config.toml",
        "[drivers.process]\nenabled = false\n",
    );
    let flags = Flags {
        compute_driver_sockets: vec!["demo=/demo.sock".into()],
        ..Flags::default()
    };
    assert_eq!(names(&world.load(&flags).config), ["demo"]);
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
    world.write(
        "etc/cofferdam/config.toml",
        "[drivers.process]\nenabled = false\n",
    );
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
fn an_empty_device_is_an_empty_file() {
    let world = World::new(0);
    world.write("etc/cofferdam/config.toml", "[defaults]\npids = 99\n");
    let flags = Flags {
        config: Some("/dev/null".into()),
        ..Flags::default()
    };
    assert_eq!(world.load(&flags).config.defaults.pids, 256);
}

#[test]
fn the_default_driver_is_not_missed_where_it_is_not_installed() {
    let world = World::new(0);
    fs::remove_file(world.path("usr/libexec/cofferdam/cofferdam-driver-process")).unwrap();
    let flags = Flags {
        compute_driver_sockets: vec!["demo=/demo.sock".into()],
        ..Flags::default()
    };
    assert_eq!(names(&world.load(&flags).config), ["demo"]);
    // Unless it is the only one there could be.
    let problems = world.problems(&Flags::default());
    assert!(
        problems.contains("cofferdam-driver-process does not exist"),
        "{problems}"
    );
}
