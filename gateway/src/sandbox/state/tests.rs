//! What must hold of a sandbox's life, as sequences of events.

use super::*;

fn fresh() -> State {
    State::new(SandboxState::Provisioning, String::new(), String::new())
}

fn seen(state: ObservedState, boots: u64) -> Seen {
    Seen {
        state,
        boots,
        ended: None,
    }
}

fn failure(kind: FailureKind) -> Failure {
    Failure {
        reason: "X".into(),
        message: "x".into(),
        kind,
    }
}

/// Brings a new sandbox to READY.
fn ready_timeout() -> Event {
    Event::ReadyTimeout {
        driver: "driver \"x\" at /run/x.sock".to_owned(),
        is_away: false,
    }
}

fn session_down() -> Event {
    Event::SessionDown("frozen".to_owned())
}

fn ready() -> State {
    let mut state = fresh();
    step(&mut state, Event::Begin);
    step(
        &mut state,
        Event::Created(Ok(seen(ObservedState::Running, 1))),
    );
    step(&mut state, Event::SessionUp);
    step(&mut state, Event::Configured(Ok(())));
    assert_eq!(state.phase, SandboxState::Ready);
    state
}

#[test]
fn ready_needs_the_driver_and_a_configured_session_in_any_order() {
    let driver = Event::Created(Ok(seen(ObservedState::Running, 1)));
    let orders: [Vec<Event>; 2] = [
        vec![driver.clone(), Event::SessionUp, Event::Configured(Ok(()))],
        vec![Event::SessionUp, Event::Configured(Ok(())), driver],
    ];
    for order in orders {
        let mut state = fresh();
        step(&mut state, Event::Begin);
        let (last, before) = order.split_last().unwrap();
        for event in before {
            step(&mut state, event.clone());
            assert_eq!(state.phase, SandboxState::Provisioning);
        }
        step(&mut state, last.clone());
        assert_eq!(state.phase, SandboxState::Ready);
    }
}

#[test]
fn a_lost_session_demotes_at_once_and_a_new_one_promotes_again() {
    let mut state = ready();
    let effects = step(&mut state, session_down());
    assert_eq!(state.phase, SandboxState::Provisioning);
    assert!(effects.contains(&Effect::ArmReadyTimer));
    step(&mut state, Event::SessionUp);
    step(&mut state, Event::Configured(Ok(())));
    assert_eq!(state.phase, SandboxState::Ready);
}

#[test]
fn a_sandbox_that_was_ready_and_runs_is_waited_for_however_long_its_session_is_lost() {
    let mut state = ready();
    step(&mut state, session_down());
    assert_eq!(state.reason, "SESSION_DOWN");
    assert!(state.message.contains("frozen"), "{}", state.message);
    let lost = step(&mut state, ready_timeout());
    assert_eq!(lost, [Effect::Persist, Effect::ArmReadyTimer]);
    assert_eq!(state.phase, SandboxState::Provisioning);
    assert_eq!(state.reason, "SESSION_LOST");
    step(&mut state, Event::Observed(seen(ObservedState::Running, 1)));
    assert_eq!(step(&mut state, ready_timeout()), [Effect::ArmReadyTimer]);
    assert!(state.message.contains("frozen"), "{}", state.message);
    let stopped = step(&mut state.clone(), Event::Stop);
    assert!(stopped.contains(&Effect::Stop), "{stopped:?}");
    step(&mut state, Event::SessionUp);
    step(&mut state, Event::Configured(Ok(())));
    let told = (state.phase, state.reason.as_str(), state.message.as_str());
    assert_eq!(told, (SandboxState::Ready, "", ""));
}

#[test]
fn a_lost_session_is_waited_for_by_the_next_gateway_as_well() {
    for reason in ["SESSION_DOWN", "SESSION_LOST"] {
        let phase = SandboxState::Provisioning;
        let mut state = State::new(phase, reason.to_owned(), String::new());
        state.boots = 1;
        step(&mut state, Event::Resume);
        let running = seen(ObservedState::Running, 1);
        step(&mut state, Event::Settled(Ok(Some(running))));
        step(&mut state, ready_timeout());
        assert_eq!(state.phase, SandboxState::Provisioning);
        // Of a later boot nothing is known.
        step(&mut state, Event::Observed(seen(ObservedState::Running, 2)));
        assert_eq!(state.reason, "");
        step(&mut state, ready_timeout());
        assert_eq!(state.phase, SandboxState::Failed);
    }
}

#[test]
fn one_whose_driver_does_not_say_that_it_runs_fails_with_its_session() {
    let mut state = ready();
    step(&mut state, session_down());
    step(&mut state, Event::Observed(seen(ObservedState::Unknown, 1)));
    step(&mut state, ready_timeout());
    assert_eq!(state.phase, SandboxState::Failed);
}

#[test]
fn a_lagging_snapshot_cannot_demote_a_live_session() {
    let mut state = ready();
    step(
        &mut state,
        Event::Observed(seen(ObservedState::Creating, 1)),
    );
    assert_eq!(state.phase, SandboxState::Ready);
}

#[test]
fn an_end_of_an_earlier_boot_is_old_news() {
    let mut state = ready();
    step(&mut state, Event::Observed(seen(ObservedState::Running, 2)));
    step(&mut state, Event::Observed(seen(ObservedState::Stopped, 1)));
    assert_ne!(state.phase, SandboxState::Stopped);
}

#[test]
fn a_sandbox_that_ended_by_itself_says_why() {
    let mut state = ready();
    let ended = Some((TerminationReason::OomKilled, "memory".to_owned()));
    let stopped = Seen {
        ended,
        ..seen(ObservedState::Stopped, 1)
    };
    step(&mut state, Event::Observed(stopped));
    assert_eq!(state.phase, SandboxState::Stopped);
    assert_eq!(state.reason, "OOM_KILLED");
}

#[test]
fn an_ambiguous_create_is_settled_by_looking_and_not_by_creating_again() {
    let mut state = fresh();
    step(&mut state, Event::Begin);
    let lost = Event::Created(Err(failure(FailureKind::Ambiguous)));
    assert_eq!(step(&mut state, lost), [Effect::Settle]);
    let found = Event::Settled(Ok(Some(seen(ObservedState::Running, 1))));
    assert!(!step(&mut state, found).contains(&Effect::Create));
    assert_eq!(state.call, None);
}

#[test]
fn a_create_that_left_nothing_is_tried_again_a_bounded_number_of_times() {
    let mut state = fresh();
    step(&mut state, Event::Begin);
    let mut creates = 0;
    while state.phase != SandboxState::Failed {
        step(
            &mut state,
            Event::Created(Err(failure(FailureKind::Ambiguous))),
        );
        let effects = step(&mut state, Event::Settled(Ok(None)));
        creates += usize::from(effects.contains(&Effect::Create));
        assert!(creates <= CREATE_ATTEMPTS_MAX as usize);
    }
    assert_eq!(creates, CREATE_ATTEMPTS_MAX as usize);
}

#[test]
fn a_driver_that_cannot_tell_is_asked_again_and_nothing_is_concluded() {
    let mut state = ready();
    state.wanted = Wanted::Running;
    state.phase = SandboxState::Ready;
    step(&mut state, Event::Resume);
    let unknown = Event::Settled(Err(failure(FailureKind::Transient)));
    let effects = step(&mut state, unknown);
    assert!(matches!(effects[..], [Effect::RetryAfter(_)]));
    assert_ne!(state.phase, SandboxState::Failed);
    assert_eq!(step(&mut state, Event::Retry), [Effect::Settle]);
}

#[test]
fn delete_is_legal_in_every_state_and_only_its_end_matters_then() {
    for phase in [
        SandboxState::Queued,
        SandboxState::Provisioning,
        SandboxState::Ready,
        SandboxState::Stopping,
        SandboxState::Stopped,
        SandboxState::Failed,
    ] {
        let mut state = State::new(phase, String::new(), String::new());
        let delete = Event::Delete {
            reason: "DELETED_BY_REQUEST",
            message: String::new(),
        };
        let effects = step(&mut state, delete);
        let persist = effects.iter().position(|e| *e == Effect::Persist);
        let call = effects.iter().position(|e| *e == Effect::Delete);
        assert!(persist < call, "the intent is stored first");
        for noise in [
            Event::Created(Ok(seen(ObservedState::Running, 1))),
            Event::Observed(seen(ObservedState::Failed, 1)),
            Event::SessionUp,
            Event::Stop,
            Event::Start,
            Event::Gone,
            ready_timeout(),
        ] {
            assert_eq!(step(&mut state, noise), []);
            assert_eq!(state.phase, SandboxState::Deleting);
        }
        assert!(step(&mut state, Event::DeleteEnded(Ok(()))).contains(&Effect::Remove));
        assert_eq!(state.phase, SandboxState::Deleted);
    }
}

#[test]
fn a_delete_that_fails_is_tried_until_it_works() {
    let mut state = ready();
    let delete = Event::Delete {
        reason: "DELETED_BY_REQUEST",
        message: String::new(),
    };
    step(&mut state, delete);
    for _ in 0..50 {
        let failed = Event::DeleteEnded(Err(failure(FailureKind::Permanent)));
        let effects = step(&mut state, failed);
        let [Effect::RetryAfter(delay)] = effects[..] else {
            panic!("{effects:?}");
        };
        assert!(delay <= Duration::from_millis(RETRY_MS_MAX));
        assert_eq!(step(&mut state, Event::Retry), [Effect::Delete]);
    }
}

#[test]
fn stop_and_start_keep_the_record_honest() {
    let mut state = ready();
    assert!(step(&mut state, Event::Stop).contains(&Effect::Stop));
    assert_eq!(state.phase, SandboxState::Stopping);
    step(&mut state, session_down());
    step(
        &mut state,
        Event::StopEnded(Ok(seen(ObservedState::Stopped, 1))),
    );
    assert_eq!(state.phase, SandboxState::Stopped);
    assert!(step(&mut state, Event::Start).contains(&Effect::Start));
    // A snapshot from before the start.
    step(&mut state, Event::Observed(seen(ObservedState::Stopped, 1)));
    assert_eq!(state.phase, SandboxState::Provisioning);
    step(
        &mut state,
        Event::Started(Ok(seen(ObservedState::Running, 2))),
    );
    step(&mut state, Event::SessionUp);
    step(&mut state, Event::Configured(Ok(())));
    assert_eq!(state.phase, SandboxState::Ready);
}

#[test]
fn never_ready_is_a_failure_that_says_what_was_missing() {
    let mut state = fresh();
    step(&mut state, Event::Begin);
    step(
        &mut state,
        Event::Created(Ok(seen(ObservedState::Running, 1))),
    );
    step(&mut state, ready_timeout());
    assert_eq!(state.phase, SandboxState::Failed);
    assert_eq!(state.reason, "SESSION_TIMEOUT");
    for words in ["session is not up", "driver \"x\" at /run/x.sock"] {
        assert!(state.message.contains(words), "{}", state.message);
    }
}

#[test]
fn what_the_driver_says_is_gone_is_failed_and_can_still_be_deleted() {
    let mut state = ready();
    step(&mut state, Event::Gone);
    assert_eq!(state.phase, SandboxState::Failed);
    assert_eq!(state.reason, "PLATFORM_LOST");
    let delete = Event::Delete {
        reason: "DELETED_BY_REQUEST",
        message: String::new(),
    };
    assert!(step(&mut state, delete).contains(&Effect::Delete));
}

#[test]
fn what_processes_inherit_and_cannot_be_bound_is_a_failure_and_no_ready_sandbox() {
    let mut state = fresh();
    step(&mut state, Event::Begin);
    let running = seen(ObservedState::Running, 1);
    step(&mut state, Event::Created(Ok(running)));
    assert_eq!(step(&mut state, Event::SessionUp), [Effect::Configure]);
    step(&mut state, Event::Configured(Err("lost".to_owned())));
    assert_eq!(
        (state.phase, state.reason.as_str(), state.message.as_str()),
        (SandboxState::Failed, "CONFIGURE_FAILED", "lost")
    );
}

#[test]
fn every_new_session_is_configured_and_the_answer_for_an_old_one_counts_for_nothing() {
    let mut state = ready();
    step(&mut state, session_down());
    // Of the session that is gone.
    step(&mut state, Event::Configured(Ok(())));
    assert_eq!(state.phase, SandboxState::Provisioning);
    assert_eq!(step(&mut state, Event::SessionUp), [Effect::Configure]);
    assert_eq!(state.phase, SandboxState::Provisioning);
    step(&mut state, Event::Configured(Ok(())));
    assert_eq!(state.phase, SandboxState::Ready);
}

#[test]
fn after_a_restart_a_live_session_is_word_enough_while_the_driver_is_away() {
    let mut state = State::new(SandboxState::Ready, String::new(), String::new());
    step(&mut state, Event::Resume);
    assert_eq!(state.phase, SandboxState::Provisioning);
    step(&mut state, Event::SessionUp);
    step(&mut state, Event::Configured(Ok(())));
    assert_eq!(state.phase, SandboxState::Ready);
    // One that never was ready has to wait for the driver.
    let mut state = fresh();
    step(&mut state, Event::Resume);
    step(&mut state, Event::SessionUp);
    step(&mut state, Event::Configured(Ok(())));
    assert_eq!(state.phase, SandboxState::Provisioning);
}

#[test]
fn a_sandbox_that_is_stopped_while_it_is_made_is_stopped_when_it_is_there() {
    let mut state = fresh();
    step(&mut state, Event::Begin);
    let effects = step(&mut state, Event::Stop);
    assert!(!effects.contains(&Effect::Stop), "{effects:?}");
    let made = Event::Created(Ok(seen(ObservedState::Running, 1)));
    let effects = step(&mut state, made);
    assert_eq!(effects.last(), Some(&Effect::Stop));
    step(
        &mut state,
        Event::StopEnded(Ok(seen(ObservedState::Stopped, 1))),
    );
    assert_eq!(
        (state.phase, state.reason.as_str()),
        (SandboxState::Stopped, "STOPPED_BY_REQUEST")
    );
}

#[test]
fn a_session_that_takes_the_place_of_another_is_configured_before_anything_runs_over_it() {
    let mut state = ready();
    let effects = step(&mut state, Event::SessionUp);
    assert_eq!(state.phase, SandboxState::Provisioning);
    assert_eq!(effects.last(), Some(&Effect::Configure));
    step(&mut state, Event::Configured(Ok(())));
    assert_eq!(state.phase, SandboxState::Ready);
}

#[test]
fn a_driver_that_says_it_stopped_and_shows_it_running_is_asked_again() {
    let mut state = ready();
    step(&mut state, Event::Stop);
    let running = Event::StopEnded(Ok(seen(ObservedState::Running, 1)));
    let effects = step(&mut state, running);
    assert!(
        matches!(effects[..], [Effect::RetryAfter(_)]),
        "{effects:?}"
    );
    assert_eq!(step(&mut state, Event::Retry), [Effect::Stop]);
}

#[test]
fn what_runs_in_a_failed_sandbox_can_be_ended_and_it_stays_failed() {
    let mut state = fresh();
    step(&mut state, Event::Begin);
    let running = seen(ObservedState::Running, 1);
    step(&mut state, Event::Created(Ok(running)));
    step(&mut state, ready_timeout());
    assert_eq!(state.phase, SandboxState::Failed);
    let failed = (state.reason.clone(), state.message.clone());
    assert_eq!(step(&mut state, Event::Stop), [Effect::Stop]);
    let refused = Event::StopEnded(Err(failure(FailureKind::Permanent)));
    assert_eq!(step(&mut state, refused), []);
    assert_eq!(step(&mut state, Event::Stop), [Effect::Stop]);
    step(
        &mut state,
        Event::StopEnded(Ok(seen(ObservedState::Stopped, 1))),
    );
    assert_eq!(state.phase, SandboxState::Failed);
    assert_eq!((state.reason.clone(), state.message.clone()), failed);
    // Nothing runs any more.
    assert_eq!(step(&mut state, Event::Stop), []);
}

#[test]
fn a_start_waits_for_a_driver_that_is_away_and_keeps_its_workspace() {
    let mut state = ready();
    step(&mut state, Event::Stop);
    let stopped = seen(ObservedState::Stopped, 1);
    step(&mut state, Event::StopEnded(Ok(stopped)));
    step(&mut state, Event::Start);
    step(
        &mut state,
        Event::Started(Err(failure(FailureKind::Transient))),
    );
    let away = Event::ReadyTimeout {
        driver: "d".to_owned(),
        is_away: true,
    };
    assert_eq!(step(&mut state, away), [Effect::ArmReadyTimer]);
    assert_eq!(step(&mut state, Event::Retry), [Effect::Start]);
    step(&mut state, ready_timeout());
    assert_eq!(state.phase, SandboxState::Failed);
}
