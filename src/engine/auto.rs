//! Auto-sync: the source poll and the drift check.
//!
//! The poll asks each distinct source once per interval with a conditional request, however
//! many syncs share it; what has not changed costs nothing more. The drift check re-reads a
//! destination every few hours ([`drift`]). Failed runs are tried again with growing pauses,
//! five times; then the sync rests until something changes or somebody runs it ([`attempts`]).
//! What all this comes to is told by [`shown`].

mod attempts;
mod drift;
mod hints;
mod once;
mod polls;
mod shown;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::pool;
use super::readings::Moment;
use super::targets::Targets;
use super::{Engine, Finished, carried};
use crate::http::ErrorKind;
use crate::model::board::Waiting;
use crate::model::run::{RunKind, RunRequest, RunStatus, Trigger};
use crate::model::sync::SyncConfig;
use crate::model::sync::SyncWait;
use crate::model::{Memory, Time};
use crate::source::{Change, Polled, SourceMap, SourceRef};
use crate::store::Settings;

pub use shown::waits;

use attempts::{End, Pending, Retry};
use hints::Listener;
use polls::{cursor_key, seen_key};

/// Longest pause between polls of a source that keeps failing.
const POLL_CEILING: Duration = Duration::from_secs(15 * 60);
/// After a hint that something changed, further changes are given this long to arrive.
const DEBOUNCE: Duration = Duration::from_secs(3);

/// The two clocks. Cheap to clone.
#[derive(Clone)]
pub struct Clocks {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    wake: Notify,
    stop: CancellationToken,
    started: Mutex<bool>,
    /// The operator wants rejected logins tried again.
    renewed: AtomicBool,
    /// Drift checks that only look, one at a time over each connection: a hundred of them that
    /// wait for one budget would hold what they have read.
    looks: Targets,
}

/// A distinct source and the syncs that read it.
type SourceKey = (String, SourceRef);

#[derive(Default)]
struct Group {
    syncs: Vec<SyncConfig>,
    due: Option<Instant>,
    /// When to look because the server said that something changed.
    hinted: Option<Instant>,
    etag: Option<String>,
    failures: u32,
    /// The account's connection, as it was when the group was made.
    print: String,
    /// Set while the source cannot be read.
    trouble: Option<Trouble>,
    polling: bool,
    /// What the poll under way waits for, since when, and whether that was told.
    held: Option<(Waiting, Time, bool)>,
}

/// Why a source cannot be read.
#[derive(Clone)]
struct Trouble {
    text: String,
    since: Time,
    /// When it is tried again; `None` when that is pointless until the account's connection
    /// changes or the operator asks.
    next: Option<Time>,
}

impl Group {
    /// True when polling is pointless for now.
    fn blocked(&self) -> bool {
        self.trouble.as_ref().is_some_and(|t| t.next.is_none())
    }
}

/// What an automatic run takes its source from.
enum Ask {
    /// A reading it shares with what begins at the same moment.
    Together(Moment),
    /// What the poll has read.
    Polled(Arc<SourceMap>),
}

/// Where the loop's helpers report to.
type Hearing = tokio::sync::mpsc::UnboundedSender<Heard>;

#[derive(Default)]
struct State {
    groups: HashMap<SourceKey, Group>,
    pending: HashMap<String, Pending>,
    /// Listeners to servers' event streams, by account.
    listeners: HashMap<String, Listener>,
    /// What was last recorded of each sync's waiting.
    waits: HashMap<String, Option<SyncWait>>,
    /// The syncs were looked at before.
    begun: bool,
}

/// What the loop hears of.
enum Heard {
    Polled(SourceKey, Result<(Polled, Option<String>), (ErrorKind, String)>),
    /// A poll waits, or goes on.
    Held(SourceKey, Option<Waiting>),
    /// A drift check that only reports has ended: of which sync, when it began, what it found.
    Checked(String, Instant, Option<String>),
    /// Something changed there, as an account is told.
    Hint(String, Vec<Change>),
}

impl Clocks {
    /// Clocks that stand still until [`Self::start`].
    pub fn new(engine: Engine) -> Self {
        Self {
            inner: Arc::new(Inner {
                engine,
                wake: Notify::new(),
                stop: CancellationToken::new(),
                started: Mutex::new(false),
                renewed: AtomicBool::new(false),
                looks: Targets::default(),
            }),
        }
    }

    /// Starts them, once.
    pub fn start(&self) {
        let mut started = self.inner.started.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut *started, true) {
            return;
        }
        // Before the clocks look: what was asked for by hand goes first.
        self.inner.engine.resume();
        let clocks = self.clone();
        tokio::spawn(async move { clocks.work().await });
    }

    /// Configuration changed: look again at what is due.
    pub fn wake(&self) {
        self.inner.wake.notify_one();
    }

    /// The operator asks for a new beginning: connections are opened anew, rejected logins are
    /// tried again.
    pub fn renew(&self) {
        self.inner.engine.pool().renew();
        self.inner.renewed.store(true, Ordering::Relaxed);
        self.wake();
    }

    /// Stops them for good.
    pub fn stop(&self) {
        self.inner.stop.cancel();
    }

    async fn work(&self) {
        let engine = &self.inner.engine;
        let (heard, mut hearing) = tokio::sync::mpsc::unbounded_channel();
        let mut endings = engine.endings();
        let mut state = State::default();
        self.regroup(&mut state);
        loop {
            let settings = engine.settings();
            self.listen(&mut state, &heard);
            let due = if settings.paused { None } else { self.begin_due(&mut state, &settings, &heard) };
            self.show(&mut state, &settings);
            let sleep = async {
                match due {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.inner.stop.cancelled() => return,
                () = self.inner.wake.notified() => self.regroup(&mut state),
                () = sleep => {}
                Some(word) = hearing.recv() => match word {
                    Heard::Polled(key, result) => self.polled(&mut state, &settings, key, result),
                    Heard::Held(key, waiting) => self.held(&mut state, &key, waiting),
                    Heard::Checked(sync, begun, found) => self.checked(&mut state, &sync, begun, found),
                    Heard::Hint(account, changes) => {
                        let meant = |(a, place): &SourceKey| *a == account && changes.iter().any(|c| c.concerns(place));
                        for (_, group) in state.groups.iter_mut().filter(|(key, _)| meant(key)) {
                            // A stream of hints must not put the look off for ever.
                            group.hinted.get_or_insert_with(|| Instant::now() + DEBOUNCE);
                        }
                    }
                },
                Ok(finished) = endings.recv() => self.finished(&mut state, &finished),
            }
        }
    }

    /// Brings groups in line with the stored syncs; what is known of a source is kept.
    fn regroup(&self, state: &mut State) {
        let engine = &self.inner.engine;
        let renewed = self.inner.renewed.swap(false, Ordering::Relaxed);
        let mut groups: HashMap<SourceKey, Group> = HashMap::new();
        let mut names = Vec::new();
        let begun = std::mem::replace(&mut state.begun, true);
        let interval = Duration::from_secs(engine.settings().poll_interval_secs);
        let latest = Instant::now() + interval.mul_f64(1.1);
        for config in engine.store().syncs().into_iter().filter_map(|l| l.result.ok()).filter(|c| c.is_enabled) {
            let Ok(account) = engine.pool().account(config.source_connection.as_deref()) else { continue };
            names.push((config.name.clone(), engine.pool().connection(&config.connection_id).map(|c| pool::fingerprint(&c)).unwrap_or_default()));
            let print = pool::fingerprint(&account);
            let group = groups.entry((account.id, pool::place(&config))).or_default();
            group.print = print;
            group.syncs.push(config);
        }
        for (key, group) in &mut groups {
            if let Some(old) = state.groups.remove(key) {
                // A new or edited sync needs the content, which an unchanged answer does not bring.
                let joined: Vec<_> = group.syncs.iter().filter(|s| !old.syncs.contains(s)).collect();
                let edited = joined.iter().any(|s| state.pending.contains_key(&s.name));
                let freed = old.trouble.is_some() && (renewed || old.print != group.print);
                group.due = match old.due {
                    _ if freed => Some(Instant::now()),
                    // A shorter interval counts from now on, not from the end of the old one.
                    Some(due) if old.failures == 0 && due > latest => Some(Instant::now() + jitter(interval)),
                    due => due,
                };
                // A poll under way does not answer for what has just changed.
                group.hinted = match (freed || edited, joined.is_empty()) {
                    (true, _) => Some(Instant::now()),
                    (false, false) => Some(Instant::now() + DEBOUNCE),
                    (false, true) => old.hinted,
                };
                group.etag = if joined.is_empty() { old.etag } else { None };
                group.failures = if freed { 0 } else { old.failures };
                group.trouble = old.trouble.filter(|_| !freed);
                group.polling = old.polling;
                group.held = old.held;
            } else {
                let cursor = engine.store().cursor(&cursor_key(key)).ok().flatten();
                // A tag is worth something only when every sync of the group has carried that content.
                let seen = engine.store().get(&seen_key(key));
                let seen = seen.as_ref().and_then(|s| s.as_str());
                let all = seen.is_some_and(|content| group.syncs.iter().all(|s| carried::is(engine.store(), s, content)));
                group.etag = cursor.filter(|_| all).and_then(|c| c.etag);
                // Whoever makes a sync may start its first run, too: that one goes first.
                group.due = Some(Instant::now() + if begun { DEBOUNCE } else { jitter(Duration::from_millis(500)) });
            }
        }
        state.groups = groups;
        // A listener that gave up may have been given better credentials.
        state.listeners.retain(|_, l| !l.over());
        state.pending.retain(|name, _| names.iter().any(|(n, _)| n == name));
        for (name, connection) in names {
            let known = |name: &String| Pending { drifted: drift::drifted(engine.store(), name), ..Pending::default() };
            let pending = state.pending.entry(name).or_insert_with_key(known);
            let mended = std::mem::replace(&mut pending.connection, connection.clone()) != connection;
            if renewed || mended {
                pending.wake();
            }
        }
    }

    /// Starts everything that is due, and says when to look again. What begins together reads the
    /// same sources once.
    fn begin_due(&self, state: &mut State, settings: &Settings, heard: &Hearing) -> Option<Instant> {
        let (now, asked) = (Instant::now(), self.inner.engine.readings().now());
        let mut next: Option<Instant> = None;
        let mut note = |at: Instant| next = Some(next.map_or(at, |n| n.min(at)));
        for (key, group) in &mut state.groups {
            let due = group.due.into_iter().chain(group.hinted).min();
            let Some(due) = due.filter(|_| !group.polling && !group.blocked()) else { continue };
            if due > now {
                note(due);
                continue;
            }
            group.polling = true;
            group.hinted = None;
            self.poll(key.clone(), group.syncs[0].clone(), group.etag.clone(), heard.clone());
        }
        let syncs: Vec<(SyncConfig, bool)> = state.groups.values().flat_map(|g| g.syncs.iter().map(|s| (s.clone(), g.blocked()))).collect();
        for (config, blocked) in syncs {
            let Some(pending) = state.pending.get_mut(&config.name) else { continue };
            if let Some(retry) = &pending.retry {
                if retry.at > now {
                    note(retry.at);
                } else if !self.inner.engine.is_busy(&config.name) {
                    let trigger = retry.trigger;
                    pending.retry = None;
                    self.submit(&config.name, trigger, Ask::Together(asked));
                }
            }
            let Some(period) = drift::period(settings) else { continue };
            if pending.drift.is_none_or(|d| d.period != period) {
                pending.drift = Some(drift::due(self.inner.engine.store(), &config.name, period, rand::random()));
            }
            let Some(due) = &mut pending.drift else { continue };
            if due.at > now {
                note(due.at);
            } else if !blocked && !self.inner.engine.is_busy(&config.name) {
                due.at = now + jitter(period);
                note(due.at);
                self.check(&config, settings, asked, heard);
            }
        }
        next
    }

    /// False when the run could not be queued.
    fn submit(&self, sync: &str, trigger: Trigger, ask: Ask) -> bool {
        let engine = &self.inner.engine;
        let request = RunRequest { verify: trigger == Trigger::Drift, ..RunRequest::new(sync, RunKind::Sync, trigger) };
        let queued = match ask {
            Ask::Together(asked) => engine.submit_with(&request, asked),
            Ask::Polled(map) => engine.submit(&request, Some(map)),
        };
        if let Err(error) = &queued {
            tracing::warn!(sync, "an automatic run was not started: {error}");
        }
        queued.is_ok()
    }

    fn finished(&self, state: &mut State, finished: &Finished) {
        let record = &finished.record;
        if record.kind != RunKind::Sync {
            // A change that arrived meanwhile was not carried by this run.
            if let Some(pending) = state.pending.get_mut(&record.sync)
                && pending.again.take().is_some()
            {
                pending.retry = Some(Retry::after(Duration::ZERO, Trigger::Auto));
            }
            return;
        }
        if record.status == RunStatus::Succeeded {
            // Its source could be read, so the login works again.
            for group in state.groups.values_mut().filter(|g| g.blocked() && g.syncs.iter().any(|s| s.name == record.sync)) {
                group.trouble = None;
                group.due = Some(Instant::now());
            }
        }
        let Some(pending) = state.pending.get_mut(&record.sync) else { return };
        // The run that has just ended may have carried it: runs read the source themselves.
        let config = state.groups.values().flat_map(|g| &g.syncs).find(|s| s.name == record.sync);
        let store = self.inner.engine.store();
        let carried = |content: &String| config.is_some_and(|c| carried::is(store, c, content));
        let again = pending.again.take().filter(|content| !carried(content));
        let end = End {
            status: record.status,
            retryable: finished.retryable,
            trigger: finished.began,
            at: record.finished_at.unwrap_or(record.started_at),
            again: again.as_deref(),
        };
        pending.ended(&end, rand::random());
        if record.status == RunStatus::Succeeded {
            self.mended(pending, &record.sync);
        }
        // A first run, say, that a poll did not start: the poll that follows brings no news.
        if finished.began != Trigger::Manual
            && pending.tried.is_none()
            && let (Some(config), Some(content)) = (config, &finished.content)
        {
            pending.tried = Some(carried::mark(config, content));
        }
        if finished.began == Trigger::Drift && pending.retry.is_none() {
            drift::done(store, &record.sync);
        }
    }
}

/// A moment from now on the wall clock, in whole seconds.
fn ahead(wait: Duration) -> Time {
    let now = crate::model::now();
    Time::from_second(now.as_second().saturating_add_unsigned(wait.as_secs())).unwrap_or(now)
}

/// Give or take a tenth, so that many sources do not march in step.
fn jitter(period: Duration) -> Duration {
    period.mul_f64(0.9 + rand::random::<f64>() * 0.2)
}
