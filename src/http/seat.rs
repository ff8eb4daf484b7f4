//! A run's seat among those that may be at work at once. A run that only waits is asked to give
//! its seat up, and takes one again before it sends anything.
//!
//! Whoever hands seats out (the engine) calls [`Seat::stand_up`] and [`Seat::sit_down`]; whoever
//! sends requests passes [`Seat::enter`]. A context that belongs to no engine keeps its seat.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Told that a run that had given its seat up wants to go on.
pub type SeatWanted = Arc<dyn Fn() + Send + Sync>;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Seated,
    /// It only waits.
    Standing,
    /// It would go on, and waits for a seat.
    Wanting,
}

#[derive(Default)]
struct State {
    place: Place,
    /// Requests under way.
    busy: usize,
    /// Requests so far: tells whether anything moved.
    moves: u64,
    wanted: Option<SeatWanted>,
}

/// The seat of one run.
#[derive(Default)]
pub struct Seat {
    state: Mutex<State>,
    seated: Notify,
}

/// A request under way; it ends when this is dropped.
pub struct Busy<'s>(&'s Seat);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.lock().busy -= 1;
    }
}

impl Seat {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says whom to tell when the run wants a seat again.
    pub fn on_wanted(&self, wanted: SeatWanted) {
        self.lock().wanted = Some(wanted);
    }

    /// True while the run may work.
    pub fn taken(&self) -> bool {
        self.lock().place == Place::Seated
    }

    /// True when the run would go on and has no seat.
    pub fn wanted(&self) -> bool {
        self.lock().place == Place::Wanting
    }

    /// Changes with every request of the run.
    pub fn moves(&self) -> u64 {
        self.lock().moves
    }

    /// Gives the seat up, unless a request is under way or began since `moves`.
    pub fn stand_up(&self, moves: u64) -> bool {
        let mut state = self.lock();
        let idle = state.busy == 0 && state.moves == moves && state.place == Place::Seated;
        if idle {
            state.place = Place::Standing;
        }
        idle
    }

    /// Gives the run a seat.
    pub fn sit_down(&self) {
        self.lock().place = Place::Seated;
        self.seated.notify_waiters();
    }

    /// The right to send one request, at once when the run has its seat; `None` when it has to
    /// wait for one, see [`Self::offered`].
    pub fn try_enter(&self) -> Option<Busy<'_>> {
        let mut state = self.lock();
        (state.place == Place::Seated).then(|| {
            state.busy += 1;
            state.moves += 1;
            Busy(self)
        })
    }

    /// Asks for a seat and waits for it. Cancel safe.
    pub async fn offered(&self) {
        let offered = self.seated.notified();
        tokio::pin!(offered);
        // From here on no offer is missed.
        offered.as_mut().enable();
        let wanted = {
            let mut state = self.lock();
            match state.place {
                Place::Seated => return,
                Place::Standing => state.place = Place::Wanting,
                Place::Wanting => {}
            }
            state.wanted.clone()
        };
        if let Some(wanted) = wanted {
            wanted();
        }
        offered.await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_run_gives_its_seat_up_only_when_nothing_moves() {
        let seat = Seat::default();
        let before = seat.moves();
        let busy = seat.try_enter().expect("its seat");
        assert!(!seat.stand_up(seat.moves()), "a request is under way");
        drop(busy);
        assert!(!seat.stand_up(before), "one began since");
        assert!(seat.stand_up(seat.moves()));
        assert!(!seat.taken() && seat.try_enter().is_none());
    }

    #[tokio::test]
    async fn it_asks_once_it_would_go_on_and_all_its_work_goes_on_together() {
        let (seat, asked) = (Arc::new(Seat::default()), Arc::new(AtomicUsize::new(0)));
        let count = asked.clone();
        seat.on_wanted(Arc::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        }));
        assert!(seat.stand_up(seat.moves()));
        assert_eq!(asked.load(Ordering::Relaxed), 0, "waiting asks for nothing");
        let work: Vec<_> = (0..3)
            .map(|_| {
                tokio::spawn({
                    let seat = seat.clone();
                    async move { seat.offered().await }
                })
            })
            .collect();
        while !seat.wanted() {
            tokio::task::yield_now().await;
        }
        assert!(asked.load(Ordering::Relaxed) >= 1);
        seat.sit_down();
        // Whoever asks after the offer has its seat at once.
        for task in work {
            tokio::time::timeout(std::time::Duration::from_secs(5), task).await.expect("an offer for all").expect("no panic");
        }
        assert!(seat.taken() && seat.try_enter().is_some());
    }
}
