//! Why runs do not go on, told outside the live picture: in the state database, so that
//! `list --json` and `show --json` of another process tell it, and once in the log.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::Engine;
use super::lines::Line;
use super::queue::Running;
use super::slots::Waiter;
use crate::model::board::Waiting;
use crate::model::sync::SyncWait;
use crate::model::{Memory, Time};
use crate::plan::count;
use crate::store::{EngineLock, Process, Store};

/// The fact that holds them.
const FACT: &str = "run-waits";
/// A wait that is known to last this long is told at once, in milliseconds; others when they have lasted.
const TOLD: i64 = 1_500;
/// A wait of this length is worth a line in the log, in milliseconds.
const LOGGED: i64 = 4_000;
/// Different waits of one run that are logged.
const REASONS: usize = 8;

#[derive(Serialize, Deserialize)]
struct Kept {
    process: Process,
    /// By run id.
    runs: BTreeMap<String, SyncWait>,
}

/// What the runs of the engine that is there wait for, by run id. It is looked at once a second:
/// of a run that has ended meanwhile it is no longer true.
pub fn of_runs(store: &Store) -> BTreeMap<String, SyncWait> {
    let kept = store.get(FACT).and_then(|v| serde_json::from_value::<Kept>(v).ok());
    // What a dead engine was waiting for is nobody's wait any more.
    let engine = |k: &Kept| EngineLock::holder(store.dirs()).is_ok_and(|h| h.is_some_and(|h| h.process == k.process));
    kept.filter(|k| !k.runs.is_empty() && engine(k)).map(|k| k.runs).unwrap_or_default()
}

/// A run that stands in a wait.
struct Standing {
    of: Waiter,
    waiting: Waiting,
}

/// What was told of one run's waits.
#[derive(Default)]
struct Told {
    /// The wait under way, without its figures, and since when.
    now: Option<(String, Time)>,
    logged: HashSet<String>,
}

/// Looks once a second, while something runs or is queued.
#[derive(Default)]
pub(super) struct Teller {
    runs: HashMap<String, Told>,
    kept: BTreeMap<String, SyncWait>,
    queue_logged: bool,
}

impl Teller {
    /// True when there is nothing that was told and may be over.
    pub fn idle(&self) -> bool {
        self.runs.is_empty() && self.kept.is_empty() && !self.queue_logged
    }

    /// One look.
    pub fn tick(&mut self, engine: &Engine) {
        let now = crate::model::now();
        let mut waits = BTreeMap::new();
        self.queued(engine, now, &mut waits);
        self.standing(engine, now, &mut waits);
        if waits != self.kept {
            let fact = Kept { process: Process::me(), runs: waits.clone() };
            engine.store().put(FACT, serde_json::to_value(&fact).unwrap_or_default());
            self.kept = waits;
        }
    }

    fn queued(&mut self, engine: &Engine, now: Time, waits: &mut BTreeMap<String, SyncWait>) {
        let queued = engine.queue_waits();
        let (mut line, mut oldest) = (0, now);
        for wait in &queued {
            waits.insert(wait.of.run.clone(), SyncWait { reason: wait.reason.clone(), since: wait.since, next_at: None });
            if wait.held {
                let waiting = Waiting { reason: wait.reason.clone(), until: None };
                self.log(&wait.of, &waiting, wait.since, now);
            } else {
                line += 1;
                oldest = oldest.min(wait.since);
            }
        }
        if queued.is_empty() {
            self.queue_logged = false;
        } else if line > 0 && lasted(oldest, now) >= LOGGED && !std::mem::replace(&mut self.queue_logged, true) {
            let running = engine.hub().read(|b| b.engine.running);
            let text = format!("{} queued, {} at work (maxRuns)", count(line, "run"), count(running, "run"));
            Line { event: "queue", reason: Some(&text), ..Line::default() }.log("info", &text);
        }
    }

    fn standing(&mut self, engine: &Engine, now: Time, waits: &mut BTreeMap<String, SyncWait>) {
        let standing = engine.standing();
        let known: HashSet<&String> = standing.going.iter().collect();
        self.runs.retain(|run, _| known.contains(run));
        for Standing { of, waiting } in standing.waiting {
            let told = self.runs.entry(of.run.clone()).or_default();
            let what = waiting.plain();
            let since = match &told.now {
                Some((reason, since)) if *reason == what => *since,
                _ => now,
            };
            let seen = told.now.replace((what, since)).is_some_and(|(_, s)| s == since);
            if seen || ahead(waiting.until, now) >= TOLD {
                let next_at = waiting.until.and_then(|t| Time::from_millisecond(t.as_millisecond()).ok());
                let wait = SyncWait { reason: waiting.reason.clone(), since, next_at };
                waits.insert(of.run.clone(), wait);
            }
            self.log(&of, &waiting, since, now);
        }
        for told in self.runs.iter_mut().filter(|(run, _)| !standing.stands.contains(*run)).map(|(_, t)| t) {
            told.now = None;
        }
    }

    fn log(&mut self, of: &Waiter, waiting: &Waiting, since: Time, now: Time) {
        if lasted(since, now).max(ahead(waiting.until, now)) < LOGGED {
            return;
        }
        let told = self.runs.entry(of.run.clone()).or_default();
        if told.logged.len() >= REASONS || !told.logged.insert(waiting.plain()) {
            return;
        }
        let text = format!("{} waits: {}", of.request.sync, waiting.told());
        let line = Line {
            event: "run-waits",
            sync: Some(&of.request.sync),
            run: Some(&of.run),
            kind: Some(of.request.kind),
            trigger: Some(of.request.trigger),
            reason: Some(&waiting.reason),
            provider: Some(&of.destination),
            until: waiting.until,
            ..Line::default()
        };
        line.log("info", &text);
    }
}

fn lasted(since: Time, now: Time) -> i64 {
    now.as_millisecond() - since.as_millisecond()
}

fn ahead(until: Option<Time>, now: Time) -> i64 {
    until.map_or(0, |u| u.as_millisecond() - now.as_millisecond())
}

/// The runs that have begun, or are queued, and those of them that stand in a wait.
struct Look {
    /// Ids of all of them.
    going: Vec<String>,
    /// Ids of those in `waiting`.
    stands: HashSet<String>,
    waiting: Vec<Standing>,
}

impl Engine {
    fn standing(&self) -> Look {
        let queue = self.queue();
        let waiter = |r: &Running| Waiter { run: r.id.clone(), request: r.request.clone(), destination: r.destination.clone() };
        let begun: Vec<_> = queue.running.values().map(|r| (waiter(r), r.cx.clone())).collect();
        let mut going: Vec<String> = queue.waiting.iter().map(|q| q.id.clone()).collect();
        drop(queue);
        let mut waiting = Vec::new();
        for (of, cx) in begun {
            going.push(of.run.clone());
            if let Some(cx) = cx
                && let Some(wait) = cx.longest_wait()
            {
                // A server's words may be part of it.
                let wait = Waiting { reason: cx.redact(&wait.reason), until: wait.until };
                waiting.push(Standing { of, waiting: wait });
            }
        }
        Look { stands: waiting.iter().map(|w| w.of.run.clone()).collect(), going, waiting }
    }
}
