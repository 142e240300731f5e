//! What people read: the effective configuration, the sample, the manual.

use super::*;
use crate::config::wire::KEYS;

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
