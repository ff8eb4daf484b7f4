//! The live picture: what the dashboard shows, and the events that change it.
//!
//! The engine keeps a [`Board`] and publishes every change as an [`Event`]; whoever watches
//! starts from one snapshot and applies events with the same reducer, in this process or
//! over the engine's socket. Nothing here holds a secret value.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::Time;
use super::run::{Counts, Outcome, RunKind, RunRecord, RunStatus, SecretOutcome, Trigger};

/// How many per-secret lines a live run keeps for the screen.
pub const RECENT: usize = 500;

/// Everything a watcher needs to draw.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Board {
    /// By sync name.
    pub cards: BTreeMap<String, Card>,
    pub engine: EngineFacts,
}

/// One sync on the dashboard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Card {
    pub name: String,
    pub destination: String,
    /// Short text of the destination, e.g. `AWS us-east-1`.
    pub destination_label: String,
    /// `prod:/billing`.
    pub source_label: String,
    pub connection: String,
    pub enabled: bool,
    pub key_schema: Option<String>,
    pub last: Option<LastRun>,
    /// When this sync last succeeded.
    pub last_synced: Option<Time>,
    pub run: Option<LiveRun>,
    /// When the next check happens and why then; `None` for manual syncs.
    pub next: Option<Next>,
    /// Set when the file of this sync cannot be used; the reason.
    pub broken: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LastRun {
    pub id: String,
    pub kind: RunKind,
    pub status: RunStatus,
    pub message: Option<String>,
    pub at: Time,
    pub counts: Counts,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Next {
    pub at: Time,
    /// `poll`, `retry`, `drift`, `paused`, …
    pub why: String,
    /// The source cannot be read: whether the sync is in step is not known.
    #[serde(default)]
    pub unread: bool,
    /// A drift check that only reports found that the destination differs.
    #[serde(default)]
    pub drifted: bool,
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, strum::Display, strum::IntoStaticStr)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Phase {
    Queued,
    ReadingSource,
    ReadingDestination,
    Importing,
    Planning,
    Applying,
    Settling,
    Finishing,
}

/// A run in progress.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LiveRun {
    pub id: String,
    pub kind: RunKind,
    pub trigger: Trigger,
    pub phase: Phase,
    /// When it began; while it is queued: since when.
    pub started_at: Time,
    /// Position in the queue while `phase` is `Queued`, from 1.
    pub queue_position: Option<usize>,
    /// Keys done and keys to do, once planned.
    pub done: u64,
    pub total: u64,
    pub counts: Counts,
    /// Set while the run waits; the overlay of any phase.
    pub waiting: Option<Waiting>,
    /// Newest last, at most [`RECENT`].
    pub recent: VecDeque<SecretOutcome>,
    /// Keys being worked on now, with the action's participle (`creating`).
    pub active: Vec<(String, String)>,
    pub requests: u64,
    pub retries: u64,
    pub waited_ms: u64,
}

/// Why a run stands still.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Waiting {
    pub reason: String,
    pub until: Option<Time>,
}

impl Waiting {
    /// The reason and, where it is known, the end: `reason, until 12:00:00Z`.
    pub fn told(&self) -> String {
        let until = self.until.map(|t| format!(", until {}", t.strftime("%H:%M:%SZ"))).unwrap_or_default();
        format!("{}{until}", self.reason)
    }

    /// The reason without its figures: `902 of 1000 calls` and `903 of 1000 calls` are one wait.
    pub fn plain(&self) -> String {
        self.reason.chars().filter(|c| !c.is_ascii_digit()).collect()
    }

    /// True unless it is known to end within so many seconds.
    pub fn lasts(&self, seconds: i64) -> bool {
        self.until.is_none_or(|u| u.as_second() - crate::model::now().as_second() >= seconds)
    }
}

/// The engine as a whole.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EngineFacts {
    /// `KMS host (organisation or project)`, for the header.
    pub account: Option<String>,
    pub paused: bool,
    /// Runs at work.
    pub running: usize,
    pub queued: usize,
    /// Runs that stand in a long wait, and leave their seat to others meanwhile.
    #[serde(default)]
    pub standing: usize,
    /// Requests per second by provider over the last seconds.
    pub rates: BTreeMap<String, f64>,
    /// Rate-limit budgets by connection: text for the pane, e.g. `612 of 1000 this hour`.
    pub budgets: BTreeMap<String, String>,
    /// True when the engine lives in another process.
    pub attached: bool,
}

/// One change of the board.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Event {
    /// A sync appeared or changed (configuration, next check, last run).
    Card {
        card: Box<Card>,
    },
    /// A sync is gone.
    Gone {
        name: String,
    },
    /// A run was queued or started, or moved to another phase.
    Run {
        sync: String,
        run: Box<LiveRun>,
    },
    Phase {
        sync: String,
        phase: Phase,
    },
    Queue {
        sync: String,
        position: Option<usize>,
    },
    /// The plan is known: this many keys will be touched.
    Total {
        sync: String,
        total: u64,
        unchanged: u64,
    },
    /// Work on a key began.
    Started {
        sync: String,
        key: String,
        doing: String,
    },
    /// Work on a key ended.
    Done {
        sync: String,
        outcome: SecretOutcome,
    },
    /// Work on a key ended: it was as it should be.
    Kept {
        sync: String,
        key: String,
    },
    Waiting {
        sync: String,
        waiting: Option<Waiting>,
    },
    /// Coalesced request counters.
    Meter {
        sync: String,
        requests: u64,
        retries: u64,
        waited_ms: u64,
    },
    Finished {
        sync: String,
        record: Box<RunRecord>,
    },
    Engine {
        facts: EngineFacts,
    },
    /// A line for the log and the toast: level `info`, `warn` or `error`.
    Notice {
        level: String,
        text: String,
        sync: Option<String>,
    },
    /// The watcher fell behind and must take a new snapshot.
    Lagged,
}

impl Board {
    /// Applies one event. Unknown syncs are ignored: their card arrives by its own event.
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::Card { card } => {
                let mut card = (**card).clone();
                if let Some(old) = self.cards.get_mut(&card.name) {
                    card.run = card.run.or_else(|| old.run.take());
                    // A run may have ended after this card was put together.
                    if old.last.as_ref().is_some_and(|o| card.last.as_ref().is_none_or(|l| l.at < o.at)) {
                        card.last = old.last.take();
                        card.last_synced = card.last_synced.max(old.last_synced);
                    }
                }
                self.cards.insert(card.name.clone(), card);
            }
            Event::Gone { name } => {
                self.cards.remove(name);
            }
            Event::Run { sync, run } => {
                if let Some(card) = self.cards.get_mut(sync) {
                    card.run = Some((**run).clone());
                }
            }
            Event::Finished { sync, record } => {
                if let Some(card) = self.cards.get_mut(sync) {
                    // The next run may stand there already.
                    card.run = card.run.take().filter(|run| run.id != record.id);
                    card.last = Some(LastRun::of(record));
                    if record.status == RunStatus::Succeeded && record.kind == RunKind::Sync {
                        card.last_synced = record.finished_at;
                    }
                }
            }
            Event::Engine { facts } => self.engine = facts.clone(),
            Event::Phase { sync, phase } => self.run(sync, |r| {
                r.phase = *phase;
                r.queue_position = None;
                r.waiting = None;
            }),
            Event::Queue { sync, position } => self.run(sync, |r| r.queue_position = *position),
            Event::Total { sync, total, unchanged } => self.run(sync, |r| {
                r.total = *total;
                r.counts.unchanged = *unchanged;
            }),
            Event::Started { sync, key, doing } => self.run(sync, |r| r.active.push((key.clone(), doing.clone()))),
            Event::Done { sync, outcome } => self.run(sync, |r| {
                r.active.retain(|(k, _)| *k != outcome.key);
                if outcome.outcome != Outcome::Withheld {
                    r.done += 1;
                }
                r.counts.add(outcome.outcome);
                if r.recent.len() == RECENT {
                    r.recent.pop_front();
                }
                r.recent.push_back(outcome.clone());
            }),
            Event::Kept { sync, key } => self.run(sync, |r| {
                r.active.retain(|(k, _)| k != key);
                r.done += 1;
                r.counts.unchanged += 1;
            }),
            Event::Waiting { sync, waiting } => self.run(sync, |r| r.waiting = waiting.clone()),
            Event::Meter { sync, requests, retries, waited_ms } => self.run(sync, |r| {
                r.requests = *requests;
                r.retries = *retries;
                r.waited_ms = *waited_ms;
            }),
            Event::Notice { .. } | Event::Lagged => {}
        }
    }

    fn run(&mut self, sync: &str, f: impl FnOnce(&mut LiveRun)) {
        if let Some(run) = self.cards.get_mut(sync).and_then(|c| c.run.as_mut()) {
            f(run);
        }
    }
}

impl LiveRun {
    /// A run that is queued, or has just begun.
    pub fn new(record: &RunRecord, phase: Phase) -> Self {
        Self {
            id: record.id.clone(),
            kind: record.kind,
            trigger: record.trigger,
            phase,
            started_at: record.started_at,
            queue_position: None,
            done: 0,
            total: 0,
            counts: Counts::default(),
            waiting: None,
            recent: VecDeque::new(),
            active: Vec::new(),
            requests: 0,
            retries: 0,
            waited_ms: 0,
        }
    }
}

impl LastRun {
    /// The short form of a finished run.
    pub fn of(record: &RunRecord) -> Self {
        Self {
            id: record.id.clone(),
            kind: record.kind,
            status: record.status,
            message: record.message.clone(),
            at: record.finished_at.unwrap_or(record.started_at),
            counts: record.counts,
        }
    }
}
