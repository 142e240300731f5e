//! Every state that a sandbox can come into, by every order of events: what must hold in all of
//! them, and after each step.

use std::collections::{HashSet, VecDeque};

use super::*;

/// A sandbox with what its task keeps for it.
#[derive(Debug, Clone, PartialEq)]
struct World {
    state: State,
    /// The call whose answer is awaited.
    calling: Option<Call>,
    has_retry: bool,
    is_timer_armed: bool,
}

const BOOTS_MAX: u64 = 2;
const FAILURES_MAX: u32 = CREATE_ATTEMPTS_MAX + 1;

fn failures() -> impl Iterator<Item = Failure> {
    use FailureKind::{Ambiguous, Permanent, Transient};
    [Permanent, Transient, Ambiguous]
        .into_iter()
        .map(|kind| Failure {
            reason: "X".to_owned(),
            message: "x".to_owned(),
            kind,
        })
}

fn sights() -> Vec<Seen> {
    use ObservedState::{Creating, Deleting, Failed, Paused, Running, Stopped, Unknown};
    let mut all = Vec::new();
    for state in [
        Unknown, Creating, Running, Stopped, Failed, Deleting, Paused,
    ] {
        for boots in 1..=BOOTS_MAX {
            let ended = None;
            all.push(Seen {
                state,
                boots,
                ended,
            });
        }
    }
    all
}

/// The answers that a call can have.
fn answers(call: Call) -> Vec<Event> {
    let seen = sights().into_iter();
    match call {
        Call::Create => seen
            .map(Ok)
            .chain(failures().map(Err))
            .map(Event::Created)
            .collect(),
        Call::Settle => seen
            .map(|seen| Ok(Some(seen)))
            .chain([Ok(None)])
            .chain(failures().map(Err))
            .map(Event::Settled)
            .collect(),
        Call::Start => seen
            .map(Ok)
            .chain(failures().map(Err))
            .map(Event::Started)
            .collect(),
        Call::Stop => seen
            .map(Ok)
            .chain(failures().map(Err))
            .map(Event::StopEnded)
            .collect(),
        Call::Delete => [Ok(())]
            .into_iter()
            .chain(failures().map(Err))
            .map(Event::DeleteEnded)
            .collect(),
    }
}

impl World {
    /// A sandbox whose task has begun.
    fn begun(phase: SandboxState, reason: &str, first: Event) -> Self {
        let mut world = Self {
            state: State::new(phase, reason.to_owned(), String::new()),
            calling: None,
            has_retry: false,
            is_timer_armed: false,
        };
        // Only one that has been seen can have been ready.
        world.state.boots = u64::from(!reason.is_empty());
        world.take(first);
        world
    }

    /// What can happen now.
    fn events(&self) -> Vec<Event> {
        let mut events: Vec<Event> = sights().into_iter().map(Event::Observed).collect();
        events.extend([
            Event::Gone,
            Event::SessionUp,
            Event::SessionDown("gone".to_owned()),
            Event::Configured(Ok(())),
            Event::Configured(Err("no".to_owned())),
            Event::Stop,
            Event::Start,
            Event::Delete {
                reason: "DELETED_BY_REQUEST",
                message: String::new(),
            },
        ]);
        let wanted = self.calling.filter(|call| self.state.call == Some(*call));
        events.extend(wanted.into_iter().flat_map(answers));
        events.extend(self.has_retry.then_some(Event::Retry));
        if self.is_timer_armed {
            events.extend([false, true].map(|is_away| Event::ReadyTimeout {
                driver: "d".to_owned(),
                is_away,
            }));
        }
        events
    }

    /// As the sandbox's task does it.
    fn take(&mut self, event: Event) -> Vec<Effect> {
        match &event {
            Event::Created(_)
            | Event::Settled(_)
            | Event::Started(_)
            | Event::StopEnded(_)
            | Event::DeleteEnded(_) => self.calling = None,
            Event::Retry => self.has_retry = false,
            Event::ReadyTimeout { .. } => self.is_timer_armed = false,
            _ => {}
        }
        let effects = step(&mut self.state, event);
        for effect in &effects {
            match effect {
                Effect::ArmReadyTimer => self.is_timer_armed = true,
                Effect::DisarmReadyTimer => self.is_timer_armed = false,
                Effect::RetryAfter(_) => self.has_retry = true,
                _ => {}
            }
            // The earlier call is cancelled, its answer not wanted any more.
            if let Some(call) = call_of(effect) {
                self.calling = Some(call);
                self.has_retry = false;
            }
        }
        self.state.failures = self.state.failures.min(FAILURES_MAX);
        effects
    }

    /// What decides what can happen next; texts do not.
    fn key(&self) -> String {
        let mut plain = self.clone();
        plain.state.message.clear();
        plain.state.reason.clear();
        format!("{plain:?}")
    }
}

fn call_of(effect: &Effect) -> Option<Call> {
    Some(match effect {
        Effect::Create => Call::Create,
        Effect::Settle => Call::Settle,
        Effect::Start => Call::Start,
        Effect::Stop => Call::Stop,
        Effect::Delete => Call::Delete,
        _ => return None,
    })
}

/// Of a state, however it was reached.
fn check(world: &World) {
    let state = &world.state;
    let is_leaving = matches!(state.phase, SandboxState::Deleting | SandboxState::Deleted);
    assert_eq!(state.wanted == Wanted::Gone, is_leaving, "{world:#?}");
    if state.phase == SandboxState::Ready {
        assert_eq!(state.session, SessionState::Configured, "{world:#?}");
        let stands = [
            None,
            Some(ObservedState::Running),
            Some(ObservedState::Creating),
        ];
        let stands = stands.contains(&state.seen) || state.seen == Some(ObservedState::Unknown);
        assert!(stands, "{world:#?}");
    }
    // Nobody waits for ever.
    let moves = world.calling.is_some() || world.has_retry;
    match state.phase {
        SandboxState::Queued | SandboxState::Provisioning => {
            assert!(
                world.is_timer_armed,
                "never ready, never failed: {world:#?}"
            );
        }
        SandboxState::Stopping | SandboxState::Deleting => {
            assert!(moves, "nothing will end it: {world:#?}");
        }
        SandboxState::Deleted => assert!(!moves, "{world:#?}"),
        _ => {}
    }
}

/// Of a step.
fn check_step(before: &World, event: &Event, effects: &[Effect], after: &World) {
    let told = || format!("{before:#?}\n{event:?} → {effects:?}\n{after:#?}");
    if let Event::ReadyTimeout { .. } = event {
        // What runs, and was ready, is not given up for want of a session; what never was is.
        let state = &before.state;
        let lives = state.was_ready && state.seen == Some(ObservedState::Running);
        let is_failed = after.state.phase == SandboxState::Failed;
        assert!(!(lives && is_failed), "{}", told());
        let is_awaited = state.was_ready || state.call.is_some();
        assert!(is_failed || is_awaited, "{}", told());
        if lives {
            check_awaited(after);
        }
    }
    let calls: Vec<_> = effects.iter().filter_map(call_of).collect();
    assert!(calls.len() <= 1, "{}", told());
    let Some(call) = calls.first() else { return };
    assert_eq!(after.state.call, Some(*call), "{}", told());
    if before.state.phase != after.state.phase {
        let stored = effects.iter().position(|effect| *effect == Effect::Persist);
        let called = effects.iter().position(|effect| call_of(effect).is_some());
        assert!(stored.is_some() && stored < called, "{}", told());
    }
}

/// Of one whose session is awaited: it can be ended, and is as before once the session is back.
fn check_awaited(world: &World) {
    let ends = [
        (Event::Stop, Effect::Stop),
        (
            Event::Delete {
                reason: "DELETED_BY_REQUEST",
                message: String::new(),
            },
            Effect::Delete,
        ),
    ];
    for (wish, effect) in ends {
        let effects = world.clone().take(wish);
        let is_pending = matches!(world.state.call, Some(Call::Create | Call::Settle));
        assert!(is_pending || effects.contains(&effect), "{world:#?}");
    }
    let mut back = world.clone();
    back.take(Event::SessionUp);
    back.take(Event::Configured(Ok(())));
    assert_eq!(back.state.phase, SandboxState::Ready, "{world:#?}");
}

#[test]
fn whatever_happens_in_whatever_order_nothing_hangs_and_intents_are_stored_first() {
    let fresh = World::begun(SandboxState::Provisioning, "", Event::Begin);
    let resumed = [
        SandboxState::Provisioning,
        SandboxState::Ready,
        SandboxState::Stopping,
        SandboxState::Stopped,
        SandboxState::Failed,
        SandboxState::Deleting,
    ]
    .map(|phase| World::begun(phase, "", Event::Resume));
    let lost = World::begun(SandboxState::Provisioning, SESSION_LOST, Event::Resume);
    let mut queue: VecDeque<World> = resumed.into_iter().chain([fresh, lost]).collect();
    let mut known: HashSet<String> = queue.iter().map(World::key).collect();
    while let Some(world) = queue.pop_front() {
        check(&world);
        for event in world.events() {
            let mut next = world.clone();
            let effects = next.take(event.clone());
            check_step(&world, &event, &effects, &next);
            if known.insert(next.key()) {
                queue.push_back(next);
            }
        }
    }
    assert!(known.len() > 500, "only {} states were seen", known.len());
}
