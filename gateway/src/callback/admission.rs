//! Which connections get a hello, and which have to go for them. Pure: no sockets, no clock.
//!
//! A workload may be able to reach its sandbox's socket. It cannot prove anything, but it could keep
//! the supervisor out by taking all the places. So places are shared out by peer: one for each
//! process, some for each user, others for each user's init processes (which a supervisor is where
//! the workload sees the socket too), and the process that held the last session always has its own.
//! Who a peer is decides only about its place in the queue, never about trust.

use std::time::Duration;

use tokio::time::Instant;

/// Hellos at the same time. Each is a descriptor and some kilobytes.
pub(super) const PLACES_MAX: usize = 96;
/// Of one user.
const PLACES_PER_USER_MAX: usize = 32;
/// For so long nobody takes a place away: more than a supervisor needs to answer.
const AGE_MIN: Duration = Duration::from_millis(250);

/// Who connected, as the kernel says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) uid: u32,
    pub(super) pid: Option<i32>,
    /// The first process of a pid namespace.
    pub(super) is_init: bool,
}

impl Peer {
    fn is_process(self, other: Peer) -> bool {
        self.pid.is_some() && (self.uid, self.pid) == (other.uid, other.pid)
    }

    fn shares_places_with(self, other: Peer) -> bool {
        (self.uid, self.is_init) == (other.uid, other.is_init)
    }
}

/// The places and who has them.
#[derive(Debug, Default)]
pub(super) struct Admission {
    places: Vec<Place>,
    /// Who held the last session.
    known: Option<Peer>,
}

#[derive(Debug)]
struct Place {
    id: u64,
    peer: Peer,
    since: Instant,
    /// It has proved itself.
    trusted: bool,
}

/// What happens to a new connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Admit,
    /// In place of this one, which has to go.
    Replace(u64),
    Refuse,
}

impl Admission {
    /// Decides about a connection; if it is admitted it has its place as `id`.
    pub(super) fn admit(&mut self, id: u64, peer: Peer, now: Instant) -> Verdict {
        let verdict = self.judge(peer, now);
        if let Verdict::Replace(old) = verdict {
            self.leave(old);
        }
        if verdict != Verdict::Refuse {
            let place = Place {
                id,
                peer,
                since: now,
                trusted: false,
            };
            self.places.push(place);
        }
        verdict
    }

    fn judge(&self, peer: Peer, now: Instant) -> Verdict {
        let same_process = |place: &&Place| place.peer.is_process(peer);
        if self.places.iter().any(|place| same_process(&place)) {
            return self.oldest(now, |place| same_process(&place));
        }
        if self.known.is_some_and(|known| known.is_process(peer)) {
            return Verdict::Admit;
        }
        let same_group = |place: &&Place| place.peer.shares_places_with(peer);
        if self.places.iter().filter(same_group).count() >= PLACES_PER_USER_MAX {
            return self.oldest(now, |place| same_group(&place));
        }
        if self.places.len() >= PLACES_MAX {
            return self.oldest(now, |_| true);
        }
        Verdict::Admit
    }

    /// The oldest place among some, if it is old enough to be taken.
    fn oldest(&self, now: Instant, among: impl Fn(&Place) -> bool) -> Verdict {
        let takeable = |place: &&Place| {
            !place.trusted && among(place) && now.duration_since(place.since) >= AGE_MIN
        };
        let oldest = self
            .places
            .iter()
            .filter(takeable)
            .min_by_key(|place| place.since);
        oldest.map_or(Verdict::Refuse, |place| Verdict::Replace(place.id))
    }

    /// It has proved itself: nobody takes its place, and its process is known.
    pub(super) fn trust(&mut self, id: u64) {
        if let Some(place) = self.places.iter_mut().find(|place| place.id == id) {
            place.trusted = true;
            self.known = Some(place.peer);
        }
    }

    pub(super) fn leave(&mut self, id: u64) {
        self.places.retain(|place| place.id != id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(uid: u32, pid: i32) -> Peer {
        Peer {
            uid,
            pid: Some(pid),
            is_init: false,
        }
    }

    /// As many processes of a user as there are places for it, from `since` on.
    fn crowd(admission: &mut Admission, uid: u32, since: Instant) {
        for pid in 0..100 {
            admission.admit(uid as u64 * 1000 + pid, peer(uid, pid as i32 + 1), since);
        }
    }

    #[test]
    fn one_process_has_one_place_whatever_it_does() {
        let mut admission = Admission::default();
        let now = Instant::now();
        assert_eq!(admission.admit(1, peer(7, 1), now), Verdict::Admit);
        assert_eq!(admission.admit(2, peer(7, 1), now), Verdict::Refuse);
        let later = now + AGE_MIN;
        assert_eq!(admission.admit(3, peer(7, 1), later), Verdict::Replace(1));
        assert_eq!(admission.places.len(), 1);
    }

    #[test]
    fn a_crowd_of_one_user_keeps_no_other_user_out() {
        let mut admission = Admission::default();
        let now = Instant::now();
        crowd(&mut admission, 7, now);
        assert_eq!(admission.places.len(), PLACES_PER_USER_MAX);
        assert_eq!(admission.admit(1, peer(8, 1), now), Verdict::Admit);
    }

    #[test]
    fn in_a_crowd_of_its_own_user_a_process_gets_in_after_a_moment() {
        let mut admission = Admission::default();
        let now = Instant::now();
        crowd(&mut admission, 7, now);
        assert_eq!(admission.admit(1, peer(7, 999), now), Verdict::Refuse);
        let later = now + AGE_MIN;
        assert_eq!(
            admission.admit(1, peer(7, 999), later),
            Verdict::Replace(7000)
        );
    }

    #[test]
    fn the_process_of_the_last_session_always_gets_in() {
        let mut admission = Admission::default();
        let now = Instant::now();
        admission.admit(1, peer(7, 999), now);
        admission.trust(1);
        admission.leave(1);
        for uid in 0..10 {
            crowd(&mut admission, uid, now);
        }
        assert_eq!(admission.places.len(), PLACES_MAX);
        assert_eq!(admission.admit(2, peer(7, 998), now), Verdict::Refuse);
        assert_eq!(admission.admit(3, peer(7, 999), now), Verdict::Admit);
    }

    #[test]
    fn an_init_process_gets_in_whatever_its_users_other_processes_do() {
        let mut admission = Admission::default();
        let now = Instant::now();
        crowd(&mut admission, 7, now);
        assert_eq!(admission.admit(1, peer(7, 999), now), Verdict::Refuse);
        let init = Peer {
            is_init: true,
            ..peer(7, 999)
        };
        assert_eq!(admission.admit(2, init, now), Verdict::Admit);
    }

    #[test]
    fn a_place_that_has_proved_itself_is_not_taken() {
        let mut admission = Admission::default();
        let now = Instant::now();
        admission.admit(1, peer(7, 1), now);
        admission.trust(1);
        let later = now + AGE_MIN * 100;
        assert_eq!(admission.admit(2, peer(7, 1), later), Verdict::Refuse);
    }

    #[test]
    fn peers_without_a_pid_share_their_users_places() {
        let mut admission = Admission::default();
        let now = Instant::now();
        let nobody = Peer {
            pid: None,
            ..peer(7, 1)
        };
        for id in 0..PLACES_PER_USER_MAX as u64 {
            assert_eq!(admission.admit(id, nobody, now), Verdict::Admit);
        }
        assert_eq!(admission.admit(99, nobody, now), Verdict::Refuse);
    }
}
