//! On whatever file system the tests have; what takes a full one is an end-to-end test.

use std::os::unix::fs::MetadataExt;

use super::reserve::RESERVE_BYTES;
use super::*;

fn full(path: &Path) -> Trouble {
    Trouble::Full {
        path: path.to_owned(),
        left_bytes: None,
    }
}

fn reserved(path: &Path) -> u64 {
    let about = path.join("reserve").metadata().unwrap();
    assert_eq!(about.mode() & 0o077, 0);
    about.blocks() * 512
}

#[test]
fn the_reserve_is_real_is_given_up_once_and_comes_back() {
    let home = tempfile::tempdir().unwrap();
    let state_dir = StateDir::lasting(home.path());
    assert!(reserved(home.path()) >= RESERVE_BYTES);
    state_dir.failed(&full(home.path()));
    assert!(state_dir.release_reserve());
    assert_eq!(reserved(home.path()), 0);
    assert!(!state_dir.release_reserve(), "there is only one");
    state_dir.wrote();
    assert_eq!(state_dir.trouble(), None);
    assert!(reserved(home.path()) >= RESERVE_BYTES);
}

#[test]
fn the_next_gateway_has_the_reserve_of_the_one_before() {
    let home = tempfile::tempdir().unwrap();
    drop(StateDir::lasting(home.path()));
    assert!(StateDir::lasting(home.path()).release_reserve());
    // Given up and not taken anew: there is room, so it is taken now.
    assert!(StateDir::lasting(home.path()).release_reserve());
}

#[test]
fn a_gateway_whose_records_go_with_it_reserves_nothing() {
    let home = tempfile::tempdir().unwrap();
    let state_dir = StateDir::temporary(home.path());
    assert!(!state_dir.release_reserve());
    assert!(!home.path().join("reserve").exists());
}

#[test]
fn trouble_lasts_until_something_was_written() {
    let home = tempfile::tempdir().unwrap();
    let state_dir = StateDir::temporary(home.path());
    assert_eq!(state_dir.trouble(), None);
    state_dir.failed(&full(home.path()));
    assert_eq!(state_dir.trouble(), Some(full(home.path())));
    // There is room as far as one can see, as with a quota: trying is the only way to know.
    assert_eq!(state_dir.admit(), Ok(()));
    assert_eq!(state_dir.room_for(1), Ok(()));
    state_dir.wrote();
    assert_eq!(state_dir.trouble(), None);
}

#[test]
fn what_an_operation_has_met_is_told_by_who_has_to_act() {
    use std::io::{Error, ErrorKind};
    let path = Path::new("/state");
    let of = |kind: ErrorKind| Trouble::of(path, &Error::from(kind)).to_string();
    assert_eq!(
        of(ErrorKind::StorageFull),
        "the state directory /state is full"
    );
    assert_eq!(
        of(ErrorKind::QuotaExceeded),
        "the state directory /state is full"
    );
    assert_eq!(
        of(ErrorKind::ReadOnlyFilesystem),
        "the state directory /state is read-only"
    );
    assert_eq!(
        of(ErrorKind::PermissionDenied),
        "the state directory /state cannot be written: permission denied"
    );
    let left = Trouble::Full {
        path: path.to_owned(),
        left_bytes: Some(1536),
    };
    assert_eq!(
        left.to_string(),
        "the state directory /state is full (1.5 KiB left)"
    );
}
