//! When a run may start, and when one that gave its seat up goes on.
//!
//! `maxRuns` seats belong to the runs that are at work. A run that stands in a long wait (an
//! hour's budget that is spent, a long Retry-After, another run at its destination) gives its
//! seat up and keeps what it holds, its destination's turn above all; when its wait is over it
//! goes on before anything new starts, for it came earlier. Of what is queued, runs that somebody
//! asked for go first, then in order of arrival. A run whose destination is being written, or
//! whose connection has `runsPerConnection` runs already (those that wait count), stays in the
//! queue and lets others pass: it takes no seat. So the runs that are begun are bounded by the
//! number of connections, and by [`STANDING`] in all.

use std::collections::HashMap;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Engine;
use super::queue::{Queue, Queued, Running};
use super::targets::Targets;
use crate::http::Cx;
use crate::model::Time;
use crate::model::board::{Event, Waiting};
use crate::model::run::RunRequest;
use crate::plan::count;
use crate::store::Settings;

/// Runs that may stand in a wait at the same time: they keep what they have read in memory.
pub(super) const STANDING: usize = 64;
/// Pause between looks whether a run only waits.
pub(super) const LOOK: Duration = Duration::from_millis(250);
/// Pause between looks at one that is known to.
pub(super) const LOOK_AT_STANDING: Duration = Duration::from_secs(1);
/// A wait that ends sooner than this is no reason to give a seat up, in milliseconds.
const SHORT: i64 = 500;
/// A command that is the engine for a moment stays for waits of others up to this, in milliseconds.
const NOT_STAYED_FOR: i64 = 10_000;

/// What keeps a queued run besides those before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Blocked {
    /// Another run writes to the same destination: the one of this sync.
    Target(String),
    /// So many runs go over its connection already.
    Connection(usize),
    /// So many runs stand in a wait.
    Standing(usize),
    /// It was not asked for by hand, and auto-sync is paused.
    Paused,
}

impl Blocked {
    pub(super) fn text(&self, connection: &str) -> String {
        match self {
            Self::Target(sync) => format!("another run writes to the same destination ({sync})"),
            Self::Connection(n) => format!("{} over the connection {connection} (runsPerConnection)", going(*n)),
            Self::Standing(n) => format!("{} that wait themselves", going(*n)),
            Self::Paused => "auto-sync is paused".to_string(),
        }
    }
}

fn going(n: usize) -> String {
    if n == 1 { "1 run goes".to_string() } else { format!("{n} runs go") }
}

/// What keeps this run, whoever is before it.
fn blocked(queued: &Queued, running: &HashMap<String, Running>, targets: &Targets, settings: &Settings) -> Option<Blocked> {
    if settings.paused && queued.spec.trigger.unattended() {
        return Some(Blocked::Paused);
    }
    if let Some(other) = running.values().find(|r| targets.same(&r.target, &queued.target)) {
        return Some(Blocked::Target(other.request.sync.clone()));
    }
    let over = running.values().filter(|r| r.connection == queued.connection).count();
    if over >= settings.runs_per_connection {
        return Some(Blocked::Connection(over));
    }
    let standing = running.values().filter(|r| !r.seated()).count();
    (standing >= STANDING).then_some(Blocked::Standing(standing))
}

/// Positions in the queue, in the order in which their turn comes.
pub(super) fn order(queue: &Queue) -> Vec<usize> {
    let mut order: Vec<usize> = (0..queue.waiting.len()).filter(|i| queue.waiting[*i].ready).collect();
    order.sort_by_key(|i| (queue.waiting[*i].spec.trigger.unattended(), queue.waiting[*i].ticket));
    order
}

impl Engine {
    /// Gives free seats to those whose turn it is, and tells the others where they stand.
    pub(super) fn pump(&self) {
        let settings = self.settings();
        let mut queue = self.queue();
        if self.inner.parking.is_cancelled() {
            return;
        }
        self.seat(&mut queue, &settings);
        self.tell_positions(&mut queue, &settings);
        if !queue.running.is_empty() || !queue.waiting.is_empty() {
            self.begin_telling(&mut queue);
        }
    }

    fn seat(&self, queue: &mut Queue, settings: &Settings) {
        while queue.running.values().filter(|r| r.seated()).count() < settings.max_runs {
            let wanted = |r: &&Running| r.cx.as_ref().is_some_and(|cx| cx.seat().wanted());
            if let Some(running) = queue.running.values().filter(wanted).min_by_key(|r| (r.request.trigger.unattended(), r.ticket)) {
                running.cx.iter().for_each(|cx| cx.seat().sit_down());
                continue;
            }
            let free = |i: &usize| blocked(&queue.waiting[*i], &queue.running, &self.inner.targets, settings).is_none();
            let Some(job) = order(queue).into_iter().find(free).and_then(|i| queue.waiting.remove(i)) else { return };
            self.begin(queue, job, CancellationToken::new(), false);
        }
    }

    /// Told while the queue is held, so that nobody hears of a place in the line of a run that
    /// has begun meanwhile.
    fn tell_positions(&self, queue: &mut Queue, settings: &Settings) {
        for (at, i) in order(queue).into_iter().enumerate() {
            let why = blocked(&queue.waiting[i], &queue.running, &self.inner.targets, settings);
            let queued = &mut queue.waiting[i];
            let (position, before) = (at + 1, queued.told.replace((at + 1, why.clone())));
            let sync = &queued.spec.config.name;
            if before.as_ref().is_none_or(|(p, _)| *p != position) {
                self.inner.hub.publish(Event::Queue { sync: sync.clone(), position: Some(position) });
            }
            if before.map(|(_, b)| b).unwrap_or_default() != why {
                let connection = self.connection_of(sync);
                let waiting = why.map(|b| Waiting { reason: b.text(&connection), until: None });
                self.inner.hub.publish(Event::Waiting { sync: sync.clone(), waiting });
            }
        }
        self.tell_counts(queue);
    }

    /// Tells how many runs are at work, queued, and standing in a wait.
    pub(super) fn tell_counts(&self, queue: &Queue) {
        let standing = queue.running.values().filter(|r| !r.seated()).count();
        let (running, queued) = (queue.running.len() - standing, queue.waiting.len());
        self.inner.hub.facts(|f| (f.running, f.queued, f.standing) = (running, queued, standing));
    }

    /// The name of a sync's connection, as the board has it.
    fn connection_of(&self, sync: &str) -> String {
        self.inner.hub.read(|b| b.cards.get(sync).map(|c| c.connection.clone()).unwrap_or_default())
    }

    /// What keeps each queued run, in the order of their turns.
    pub(super) fn queue_waits(&self) -> Vec<QueueWait> {
        let settings = self.settings();
        let queue = self.queue();
        let told = |(at, i): (usize, usize)| {
            let q = &queue.waiting[i];
            let why = blocked(q, &queue.running, &self.inner.targets, &settings);
            let reason = match &why {
                Some(why) => format!("queued: {}", why.text(&self.connection_of(&q.spec.config.name))),
                None if at == 0 => format!("queued: {} at work (maxRuns)", runs(queue.running.values().filter(|r| r.seated()).count())),
                None => format!("queued: behind {}", count(at, "run")),
            };
            let of = Waiter { run: q.id.clone(), request: q.spec.request(), destination: q.spec.config.destination.clone() };
            QueueWait { of, since: q.since, held: why.is_some(), reason }
        };
        order(&queue).into_iter().enumerate().map(told).collect()
    }
}

/// A run that waits.
pub(super) struct Waiter {
    pub run: String,
    pub request: RunRequest,
    /// The destination's kind.
    pub destination: String,
}

/// A queued run, for whoever wants to know why it does not go.
pub(super) struct QueueWait {
    pub of: Waiter,
    pub since: Time,
    /// Something else than the line keeps it.
    pub held: bool,
    pub reason: String,
}

fn runs(n: usize) -> String {
    if n == 1 { "1 run is".to_string() } else { format!("{n} runs are") }
}

/// True when the run's wait ends so late that an engine which is about to end does not stay for it.
pub(super) fn outlasts_the_engine(cx: &Cx) -> bool {
    cx.next_wake().flatten().is_some_and(|until| until.as_millisecond() - crate::model::now().as_millisecond() > NOT_STAYED_FOR)
}

/// Whether a run only waits, looked at again and again.
#[derive(Default)]
pub(super) struct Stillness {
    moves: Option<u64>,
}

impl Stillness {
    /// True when nothing moved since the last look, and the run stands in a wait that lasts.
    /// `moves` belongs to [`crate::http::Seat::stand_up`].
    pub fn look(&mut self, cx: &Cx) -> Option<u64> {
        let moves = cx.seat().moves();
        let Some(wake) = cx.next_wake() else {
            self.moves = None;
            return None;
        };
        let still = self.moves.replace(moves) == Some(moves);
        let lasts = wake.is_none_or(|until| until.as_millisecond() - crate::model::now().as_millisecond() > SHORT);
        (still && lasts).then_some(moves)
    }
}
