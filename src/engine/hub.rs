//! The live picture and its publication. Everything the engine does becomes visible here,
//! and only here; watchers never ask the engine itself.

use std::sync::{Mutex, PoisonError};

use tokio::sync::broadcast;

use super::lines::Line;
use crate::model::board::{Board, Card, EngineFacts, Event, Next};

/// Events a slow watcher may fall behind before it must take a new snapshot.
const CAPACITY: usize = 16_384;

/// Holds the board and tells watchers of every change.
pub struct Hub {
    board: Mutex<Board>,
    events: broadcast::Sender<Event>,
}

impl Default for Hub {
    fn default() -> Self {
        Self { board: Mutex::default(), events: broadcast::Sender::new(CAPACITY) }
    }
}

impl Hub {
    /// Applies an event to the board and publishes it, in this order and without a gap:
    /// a snapshot taken together with a subscription misses nothing and sees nothing twice.
    pub fn publish(&self, event: Event) {
        self.put(&mut self.board.lock().unwrap_or_else(PoisonError::into_inner), event);
    }

    fn put(&self, board: &mut Board, event: Event) {
        board.apply(&event);
        // No watcher is no error.
        let _ = self.events.send(event);
    }

    /// A snapshot and what follows it.
    pub fn watch(&self) -> (Board, broadcast::Receiver<Event>) {
        let board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        (board.clone(), self.events.subscribe())
    }

    /// Reads the board without copying it.
    pub fn read<R>(&self, f: impl FnOnce(&Board) -> R) -> R {
        f(&self.board.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Tells when a sync is looked at next, unless that is what its card says already (to the
    /// second or so). One step: a card read before and published after a run's end would bring
    /// that run back to the board.
    pub fn next(&self, name: &str, next: Option<Next>) {
        let mut board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(card) = board.cards.get(name) else { return };
        let near = |a: &Next, b: &Next| a.why == b.why && (a.at.as_second() - b.at.as_second()).abs() <= 1;
        let same = match (&card.next, &next) {
            (Some(a), Some(b)) => near(a, b),
            (a, b) => a.is_none() && b.is_none(),
        };
        if !same {
            let card = Box::new(Card { next, ..card.clone() });
            self.put(&mut board, Event::Card { card });
        }
    }

    /// Changes the engine's facts and publishes them, when something really changed.
    pub fn facts(&self, change: impl FnOnce(&mut EngineFacts)) {
        let mut board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        let mut facts = board.engine.clone();
        change(&mut facts);
        if facts != board.engine {
            self.put(&mut board, Event::Engine { facts });
        }
    }

    /// A line for log and toast.
    pub fn notice(&self, level: &str, text: impl Into<String>, sync: Option<&str>) {
        self.tell(level, text, &Line { event: "notice", sync, ..Line::default() });
    }

    /// A line for log and toast, with what it tells machines.
    pub(super) fn tell(&self, level: &str, text: impl Into<String>, line: &Line<'_>) {
        let text = text.into();
        line.log(level, &text);
        self.publish(Event::Notice { level: level.to_string(), text, sync: line.sync.map(str::to_owned) });
    }
}
