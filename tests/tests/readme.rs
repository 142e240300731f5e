//! The first command of the README: a command in a sandbox, with no gateway running.

use cofferdam_tests::binaries::Installation;
use cofferdam_tests::cli::{Cli, Ran};
use cofferdam_tests::engine::Engine;
use cofferdam_tests::home::Home;
use cofferdam_tests::{User, leaks, long_time, need, process};

/// `cofferdam run` by this user, in a place of its own. Afterwards nothing may be left there.
fn run(user: User, args: &[&str]) -> Ran {
    let home = Home::new(user);
    for name in ["home", "xdg-run", "xdg-state", "xdg-cache"] {
        home.private(user, name);
    }
    let built = Installation::built();
    let installation = match user.is_other() {
        true => built.copy_to(&home.join("opt")),
        false => built,
    };
    let ran = Cli::new(&installation, user, &home).args(args).run();
    let left: Vec<String> = process::with_argument(&home.path().to_string_lossy())
        .into_iter()
        .map(process::describe)
        .collect();
    assert!(left.is_empty(), "processes are left: {left:#?}");
    for name in ["home", "xdg-run", "xdg-state"] {
        let left = leaks::files_below(&home.join(name));
        // Where a driver keeps its records there may be an empty place for the next ones.
        let files: Vec<_> = left.iter().filter(|path| !path.is_dir()).collect();
        assert!(files.is_empty(), "files are left in {name}: {files:?}");
    }
    ran
}

fn main_command(user: User) {
    let script = "echo hello; id -u; exit 7";
    let ran = run(user, &["run", "--embedded", "--", "sh", "-c", script]);
    let text = ran.exited(7);
    let (hello, uid) = text.split_once('\n').expect("two lines");
    assert_eq!(hello, "hello");
    assert_ne!(uid.parse::<u32>().expect("a user id"), 0);
}

#[test]
fn the_main_command_says_hello_as_nobody_special_and_passes_seven_on() {
    main_command(User::Tester);
}

#[test]
fn the_main_command_works_for_an_ordinary_user() {
    need!(Engine::Root);
    main_command(User::Ordinary);
}

#[test]
fn without_a_gateway_run_brings_one_along() {
    let ran = run(User::Ordinary, &["run", "echo", "hello"]);
    assert_eq!(ran.success(), "hello");
}

#[test]
fn what_a_command_leaves_running_ends_with_it() {
    let marker = long_time();
    let script = format!("setsid sleep {marker} >/dev/null 2>&1 & sleep 0.1; echo gone");
    let ran = run(User::Tester, &["run", "--embedded", "sh", "-c", &script]);
    assert_eq!(ran.success(), "gone");
    assert_eq!(process::with_argument(&marker), [] as [u32; 0]);
}
