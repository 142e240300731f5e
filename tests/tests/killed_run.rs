//! A `cofferdam run` that brought its gateway along and was killed: whoever comes next clears up.

use cofferdam_tests::binaries::Installation;
use cofferdam_tests::cli::{Cli, Ran};
use cofferdam_tests::engine::Engine;
use cofferdam_tests::home::Home;
use cofferdam_tests::{User, leaks, long_time, need, process, wait};
use rustix::process::Signal;

/// Where a user keeps nothing but what these tests make there.
struct Place {
    user: User,
    home: Home,
    installation: Installation,
}

impl Place {
    fn new(user: User) -> Self {
        let home = Home::new(user);
        for name in ["home", "xdg-run", "xdg-state", "xdg-cache"] {
            home.private(user, name);
        }
        let built = Installation::built();
        let installation = match user.is_other() {
            true => built.copy_to(&home.join("opt")),
            false => built,
        };
        Self {
            user,
            home,
            installation,
        }
    }

    fn cli(&self, args: &[&str]) -> Cli {
        Cli::new(&self.installation, self.user, &self.home).args(args)
    }

    /// Kills a run while its command sleeps; returns what the sleeper is found by.
    fn killed_run(&self) -> String {
        let time = long_time();
        let script = format!("echo up; exec sleep {time}");
        let running = self
            .cli(&["run", "--embedded", "--", "sh", "-c", &script])
            .spawn();
        running.expect("up");
        running.signal(Signal::KILL);
        let ran = running.wait();
        assert!(!ran.status.success(), "it was killed: {ran:?}");
        assert!(!self.is_clear(), "a killed run cannot clear up");
        time
    }

    /// Nothing of a gateway that was brought along is there.
    fn is_clear(&self) -> bool {
        leaks::files_below(&self.home.join("xdg-run")).is_empty()
    }
}

fn the_next_run_clears_up(user: User) {
    let place = Place::new(user);
    let sleeper = place.killed_run();
    // One that has no time for it leaves it to the one after.
    wait::until_true("the next runs clear what the killed one left", || {
        let ran = place.cli(&["run", "--embedded", "--", "echo", "hello"]);
        assert_eq!(ran.run().success(), "hello");
        place.is_clear()
    });
    let left = process::with_argument(&sleeper);
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn what_a_killed_run_left_is_cleared_by_the_next() {
    the_next_run_clears_up(User::Tester);
}

#[test]
fn what_a_killed_run_of_an_ordinary_user_left_is_cleared_by_the_next() {
    need!(Engine::Root);
    the_next_run_clears_up(User::Ordinary);
}

#[test]
fn doctor_clears_what_a_killed_run_left_and_says_so_once() {
    let place = Place::new(User::Tester);
    let sleeper = place.killed_run();
    let mut said = String::new();
    wait::until_true("doctor clears up", || {
        let ran: Ran = place.cli(&["doctor"]).run();
        said = String::from_utf8_lossy(&ran.stdout).into_owned();
        place.is_clear()
    });
    assert!(said.contains("1 sandbox: removed"), "{said}");
    let left = process::with_argument(&sleeper);
    assert!(left.is_empty(), "{left:?}");
    let again = place.cli(&["doctor"]).run();
    let said = String::from_utf8_lossy(&again.stdout).into_owned();
    assert!(!said.contains("leftovers"), "{said}");
}

#[test]
fn a_run_that_goes_on_is_left_alone() {
    let place = Place::new(User::Tester);
    let mut running = place
        .cli(&["run", "--embedded", "-i", "--", "sh", "-c", "echo up; cat"])
        .spawn();
    running.expect("up");
    let other = place.cli(&["run", "--embedded", "--", "echo", "hello"]);
    assert_eq!(other.run().success(), "hello");
    running.type_in("still here\n");
    running.expect("still here");
    running.end_stdin();
    running.wait().success();
    assert!(place.is_clear());
}
