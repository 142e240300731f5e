//! How many executions may be at work, and waiting, so that no driver takes what others need.
//!
//! ```text
//!                  ╭── a sandbox that is ready ──────────────────────────────╮
//!   room? ──► QUEUED                                                         ├─ running place ─► RUNNING
//!                  ╰── one of its driver's places ─► CLAIMING ─ it is ready ─╯
//! ```
//!
//! While an execution waits for its driver it holds one of that driver's places and nothing else: a
//! driver that hangs fills its own places. Of the room for those that have not ended, half is for
//! whoever comes, and the other half belongs to the drivers in equal parts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::runner::{Final, Runner, SeedPlace};
use crate::model::{DriverName, SandboxState};

/// The places of all executions.
#[derive(Debug)]
pub(super) struct Places {
    max: usize,
    running: Arc<Semaphore>,
    of_drivers: Mutex<HashMap<DriverName, Arc<Semaphore>>>,
}

/// What one execution holds.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) of_driver: Option<OwnedSemaphorePermit>,
    pub(super) running: Option<OwnedSemaphorePermit>,
}

impl Held {
    pub(super) fn is_nothing(&self) -> bool {
        self.of_driver.is_none() && self.running.is_none()
    }
}

impl Places {
    /// So many run at the same time, and of each driver no more than that wait for it.
    pub(super) fn new(max: usize) -> Self {
        Self {
            max,
            running: Arc::new(Semaphore::new(max)),
            of_drivers: Mutex::default(),
        }
    }

    /// For those whose process can start at once.
    pub(super) fn running(&self) -> Arc<Semaphore> {
        self.running.clone()
    }

    /// For those that have to wait for this driver.
    pub(super) fn of_driver(&self, driver: &DriverName) -> Arc<Semaphore> {
        let mut of_drivers = (self.of_drivers.lock()).unwrap_or_else(PoisonError::into_inner);
        let places = of_drivers.entry(driver.clone());
        let new = || Arc::new(Semaphore::new(self.max));
        places.or_insert_with(new).clone()
    }
}

/// Those that have not ended.
#[derive(Debug, Default)]
pub(super) struct Crowd<'a> {
    all: usize,
    of_drivers: HashMap<&'a DriverName, usize>,
}

impl<'a> FromIterator<&'a DriverName> for Crowd<'a> {
    fn from_iter<T: IntoIterator<Item = &'a DriverName>>(drivers: T) -> Self {
        let mut crowd = Self::default();
        for driver in drivers {
            crowd.all += 1;
            *crowd.of_drivers.entry(driver).or_default() += 1;
        }
        crowd
    }
}

impl Crowd<'_> {
    /// Whether one more of this driver finds room, when there is room for `max` in all.
    pub(super) fn admits<'d>(
        &self,
        driver: &DriverName,
        all_drivers: impl ExactSizeIterator<Item = &'d DriverName>,
        max: usize,
    ) -> bool {
        let part = max / (2 * all_drivers.len().max(1));
        let others = all_drivers.filter(|other| *other != driver);
        let kept: usize = others
            .map(|other| part.saturating_sub(self.of(other)))
            .sum();
        self.all + kept < max
    }

    pub(super) fn of(&self, driver: &DriverName) -> usize {
        self.of_drivers.get(driver).copied().unwrap_or_default()
    }
}

impl Runner {
    /// Waits for a place of the kind that is of use.
    pub(super) async fn queue_for(&mut self, place: &SeedPlace) -> Result<(), Final> {
        let is_ready = matches!(place, SeedPlace::Existing(sandbox)
            if sandbox.view().facts.state == SandboxState::Ready);
        if is_ready {
            return self.queue_to_run().await;
        }
        let places = self.shared.places.of_driver(&self.facts.driver);
        let permit = self.interruptible(places.acquire_owned(), false).await?;
        self.held.of_driver = permit.ok();
        Ok(())
    }

    pub(super) async fn queue_to_run(&mut self) -> Result<(), Final> {
        let places = self.shared.places.running();
        let permit = self.interruptible(places.acquire_owned(), false).await?;
        self.held.running = permit.ok();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> DriverName {
        DriverName::parse(name).expect("a name")
    }

    /// How many of this driver find room after those.
    fn room(crowd: &[&str], driver: &str, drivers: &[&str], max: usize) -> usize {
        let drivers: Vec<DriverName> = drivers.iter().copied().map(name).collect();
        let mut present: Vec<DriverName> = crowd.iter().copied().map(name).collect();
        let driver = name(driver);
        let mut found = 0;
        loop {
            let crowd: Crowd<'_> = present.iter().collect();
            if !crowd.admits(&driver, drivers.iter(), max) {
                return found;
            }
            found += 1;
            present.push(driver.clone());
        }
    }

    #[test]
    fn one_driver_has_all_the_room() {
        assert_eq!(room(&[], "a", &["a"], 10), 10);
        assert_eq!(room(&["a"; 10], "a", &["a"], 10), 0);
    }

    #[test]
    fn a_driver_leaves_the_others_their_parts() {
        assert_eq!(room(&[], "a", &["a", "b"], 12), 9);
        assert_eq!(room(&["a"; 9], "b", &["a", "b"], 12), 3);
        assert_eq!(room(&["b"; 3], "a", &["a", "b"], 12), 9);
        // What is in use already need not be kept.
        assert_eq!(room(&["b"; 6], "a", &["a", "b"], 12), 6);
    }

    #[test]
    fn however_many_drivers_hang_there_is_room_for_the_last() {
        let drivers = ["a", "b", "c", "d"];
        let mut crowd = Vec::new();
        for hung in ["a", "b", "c"] {
            crowd.extend(std::iter::repeat_n(hung, room(&crowd, hung, &drivers, 16)));
        }
        assert_eq!(crowd.len(), 14);
        assert_eq!(room(&crowd, "d", &drivers, 16), 2);
    }

    #[test]
    fn each_driver_has_places_of_its_own() {
        let places = Places::new(1);
        let hung = places.of_driver(&name("a")).try_acquire_owned();
        assert!(hung.is_ok());
        assert!(places.of_driver(&name("a")).try_acquire().is_err());
        assert!(places.of_driver(&name("b")).try_acquire().is_ok());
        assert!(places.running().try_acquire().is_ok());
    }
}
