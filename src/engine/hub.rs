//! The live picture and its publication. Everything the engine does becomes visible here,
//! and only here; watchers never ask the engine itself.

use std::sync::{Mutex, PoisonError};

use tokio::sync::broadcast;

use crate::model::board::{Board, Card, EngineFacts, Event};

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
        let mut board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
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

    /// Changes one card and publishes it, when something really changed.
    pub fn card(&self, name: &str, change: impl FnOnce(&mut Card)) {
        let changed = self.read(|b| {
            let before = b.cards.get(name)?;
            let mut after = before.clone();
            change(&mut after);
            (after != *before).then_some(after)
        });
        if let Some(card) = changed {
            self.publish(Event::Card { card: Box::new(card) });
        }
    }

    /// Changes the engine's facts and publishes them, when something really changed.
    pub fn facts(&self, change: impl FnOnce(&mut EngineFacts)) {
        let changed = self.read(|b| {
            let mut after = b.engine.clone();
            change(&mut after);
            (after != b.engine).then_some(after)
        });
        if let Some(facts) = changed {
            self.publish(Event::Engine { facts });
        }
    }

    /// A line for log and toast.
    pub fn notice(&self, level: &str, text: impl Into<String>, sync: Option<&str>) {
        let text = text.into();
        match level {
            "error" => tracing::error!(sync, "{text}"),
            "warn" => tracing::warn!(sync, "{text}"),
            _ => tracing::info!(sync, "{text}"),
        }
        self.publish(Event::Notice { level: level.to_string(), text, sync: sync.map(str::to_owned) });
    }
}
