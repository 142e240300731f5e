//! What is refused, and how it is said.

use super::*;

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
        compute_driver_sockets: ["acme", "=/a.sock", "b=/b.sock", "b=/c.sock"]
            .map(Into::into)
            .to_vec(),
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
    assert!(problems.contains("/etc/cofferdam/config.toml: cannot be read: it is a directory"));
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
fn several_drivers_without_an_obvious_default_need_one() {
    let world = World::new(0);
    let text = "[drivers.a]\nsocket = \"/a\"\n[drivers.b]\nsocket = \"/b\"\n\
                [drivers.process]\nenabled = false\n";
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
