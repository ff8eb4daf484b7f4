//! Auto-sync: the source poll and the drift check.
//!
//! The poll asks each distinct source once per interval with a conditional request, however
//! many syncs share it; what has not changed costs nothing more. The drift check re-reads a
//! destination every few hours. Failed runs are tried again with growing pauses, five times;
//! then the sync rests until its source changes or somebody runs it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::pool;
use super::{Engine, Finished, carried};
use crate::http::{Cx, ErrorKind};
use crate::model::board::Next;
use crate::model::run::{RunKind, RunRequest, RunStatus, Trigger};
use crate::model::sync::SyncConfig;
use crate::model::{Memory, Time};
use crate::source::{Polled, SourceMap, SourceRef};
use crate::store::Settings;

/// Attempts of an automatic run before its sync rests.
const ATTEMPTS: u32 = 5;
/// Pause before the second attempt; doubled each time.
const RETRY_BASE: Duration = Duration::from_secs(3);
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
    /// Set when polling is pointless until the account's connection changes or the operator asks.
    blocked: Option<String>,
    polling: bool,
}

/// What one sync waits for.
#[derive(Default, Clone)]
struct Pending {
    attempts: u32,
    retry: Option<Instant>,
    drift: Option<Instant>,
    /// The content that arrived while a run was going.
    again: Option<String>,
}

#[derive(Default)]
struct State {
    groups: HashMap<SourceKey, Group>,
    pending: HashMap<String, Pending>,
    /// Listeners to servers' event streams, by account.
    listeners: HashMap<String, Listener>,
}

/// Listens to one server's event stream. It ends when it is dropped.
struct Listener {
    places: Vec<SourceRef>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// What the loop hears of.
enum Heard {
    Polled(SourceKey, Result<(Polled, Option<String>), (ErrorKind, String)>),
    /// Something changed at one of this account's places.
    Hint(String),
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
            }),
        }
    }

    /// Starts them, once.
    pub fn start(&self) {
        let mut started = self.inner.started.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut *started, true) {
            return;
        }
        let clocks = self.clone();
        tokio::spawn(async move { clocks.work().await });
        tokio::spawn(super::hooks::watch(self.inner.engine.clone()));
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
            self.show(&state, &settings);
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
                    Heard::Hint(account) => {
                        for (_, group) in state.groups.iter_mut().filter(|((a, _), _)| *a == account) {
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
        for config in engine.store().syncs().into_iter().filter_map(|l| l.result.ok()).filter(|c| c.is_enabled) {
            let Ok(account) = engine.pool().account(config.source_connection.as_deref()) else { continue };
            names.push(config.name.clone());
            let print = pool::fingerprint(&account);
            let group = groups.entry((account.id, pool::place(&config))).or_default();
            group.print = print;
            group.syncs.push(config);
        }
        for (key, group) in &mut groups {
            if let Some(old) = state.groups.remove(key) {
                // A new or edited sync needs the content, which an unchanged answer does not bring.
                let joined = group.syncs.iter().any(|s| !old.syncs.contains(s));
                let blocked = old.blocked.filter(|_| !renewed && old.print == group.print);
                let freed = old.failures > 0 && (renewed || old.print != group.print);
                group.due = if blocked.is_none() && freed { Some(Instant::now()) } else { old.due };
                group.etag = if joined { None } else { old.etag };
                group.failures = if freed { 0 } else { old.failures };
                group.blocked = blocked;
                // A poll under way does not answer for what has just changed.
                group.hinted = if joined || freed { Some(Instant::now()) } else { old.hinted };
                group.polling = old.polling;
            } else {
                let cursor = engine.store().cursor(&cursor_key(key)).ok().flatten();
                // A tag is worth something only when every sync of the group has carried that content.
                let seen = engine.store().get(&seen_key(key));
                let seen = seen.as_ref().and_then(|s| s.as_str());
                let all = seen.is_some_and(|content| group.syncs.iter().all(|s| carried::is(engine.store(), s, content)));
                group.etag = cursor.filter(|_| all).and_then(|c| c.etag);
                group.due = Some(Instant::now() + jitter(Duration::from_millis(500)));
            }
        }
        state.groups = groups;
        // A listener that gave up may have been given better credentials.
        state.listeners.retain(|_, l| !l.task.is_finished());
        state.pending.retain(|name, _| names.contains(name));
        for name in names {
            state.pending.entry(name).or_default();
        }
    }

    /// Keeps one listener per account, on the places its syncs read from.
    fn listen(&self, state: &mut State, heard: &tokio::sync::mpsc::UnboundedSender<Heard>) {
        let mut wanted: HashMap<String, (Vec<SourceRef>, Option<String>)> = HashMap::new();
        for ((account, place), group) in &state.groups {
            let slot = wanted.entry(account.clone()).or_default();
            slot.0.push(place.clone());
            slot.1 = group.syncs.first().and_then(|s| s.source_connection.clone());
        }
        state.listeners.retain(|account, _| wanted.contains_key(account));
        for (account, (mut places, named)) in wanted {
            places.sort_by(|a, b| (&a.project_id, &a.environment, &a.path).cmp(&(&b.project_id, &b.environment, &b.path)));
            if state.listeners.get(&account).is_some_and(|l| l.places == places) {
                continue;
            }
            let stop = self.inner.stop.child_token();
            let work = listening(self.inner.engine.clone(), account.clone(), named, places.clone(), stop.clone(), heard.clone());
            let task = tokio::spawn(work);
            state.listeners.insert(account, Listener { places, stop, task });
        }
    }

    /// Starts everything that is due, and says when to look again.
    fn begin_due(&self, state: &mut State, settings: &Settings, heard: &tokio::sync::mpsc::UnboundedSender<Heard>) -> Option<Instant> {
        let now = Instant::now();
        let mut next: Option<Instant> = None;
        let mut note = |at: Instant| next = Some(next.map_or(at, |n| n.min(at)));
        for (key, group) in &mut state.groups {
            let due = group.due.into_iter().chain(group.hinted).min();
            let Some(due) = due.filter(|_| !group.polling && group.blocked.is_none()) else { continue };
            if due > now {
                note(due);
                continue;
            }
            group.polling = true;
            group.hinted = None;
            self.poll(key.clone(), group.syncs[0].clone(), group.etag.clone(), heard.clone());
        }
        let syncs: Vec<SyncConfig> = state.groups.values().flat_map(|g| g.syncs.iter().cloned()).collect();
        for config in syncs {
            let Some(pending) = state.pending.get_mut(&config.name) else { continue };
            if let Some(at) = pending.retry {
                if at > now {
                    note(at);
                } else if !self.inner.engine.is_busy(&config.name) {
                    pending.retry = None;
                    self.submit(&config.name, Trigger::Auto, None);
                }
            }
            let Some(period) = drift_period(settings) else { continue };
            let at = *pending.drift.get_or_insert_with(|| now + jitter(period));
            if at > now {
                note(at);
            } else if !self.inner.engine.is_busy(&config.name) {
                pending.drift = Some(now + jitter(period));
                note(now + period / 2);
                self.drift(&config, settings);
            }
        }
        next
    }

    fn poll(&self, key: SourceKey, config: SyncConfig, etag: Option<String>, heard: tokio::sync::mpsc::UnboundedSender<Heard>) {
        let (engine, stop) = (self.inner.engine.clone(), self.inner.stop.clone());
        tokio::spawn(async move {
            let cx = Cx::new(stop.child_token(), Arc::new(|_| {}));
            let result = async {
                let (_, source) = engine.pool().source(config.source_connection.as_deref()).await?;
                source.poll(&cx, &key.1, etag.as_deref()).await
            }
            .await;
            let result = match result {
                Ok(polled) => {
                    let print = match &polled {
                        Polled::Changed { map, .. } => engine.store().hasher().ok().map(|h| super::steps::content(map, &h)),
                        Polled::Unchanged => None,
                    };
                    Ok((polled, print))
                }
                Err(error) => {
                    if error.kind == ErrorKind::Auth {
                        engine.pool().note_refused(config.source_connection.as_deref());
                    }
                    Err((error.kind, cx.redact(&error.text())))
                }
            };
            // The loop may have ended.
            let _ = heard.send(Heard::Polled(key, result));
        });
    }

    fn polled(&self, state: &mut State, settings: &Settings, key: SourceKey, result: Result<(Polled, Option<String>), (ErrorKind, String)>) {
        let engine = &self.inner.engine;
        let interval = Duration::from_secs(settings.poll_interval_secs);
        let Some(group) = state.groups.get_mut(&key) else { return };
        group.polling = false;
        group.due = Some(Instant::now() + jitter(interval));
        match result {
            Err((ErrorKind::Cancelled, _)) => {}
            Err((kind, text)) => {
                group.failures += 1;
                if group.failures == 1 {
                    engine.hub().notice("error", format!("{}:{} could not be read: {text}", key.1.environment, key.1.path), None);
                }
                if matches!(kind, ErrorKind::Auth | ErrorKind::NotTheService) {
                    // A rejected login is not tried again on a timer: it would lock the identity.
                    group.blocked = Some(text);
                    group.due = None;
                } else {
                    let wait = interval.saturating_mul(2u32.saturating_pow(group.failures.min(10))).min(POLL_CEILING);
                    group.due = Some(Instant::now() + jitter(wait));
                }
            }
            Ok((polled, print)) => {
                if group.failures > 0 {
                    group.failures = 0;
                    engine.hub().notice("info", format!("{}:{} can be read again", key.1.environment, key.1.path), None);
                }
                let Polled::Changed { map, etag } = polled else { return };
                if settings.paused {
                    // Paused while this poll was under way: the old tag finds the change again later.
                    return;
                }
                group.etag = etag.clone();
                let cursor = crate::store::Cursor { etag, checked_at: crate::model::now(), changed_at: Some(crate::model::now()) };
                if let Err(error) = engine.store().set_cursor(&cursor_key(&key), &cursor) {
                    tracing::warn!("the source's tag could not be saved: {error}");
                }
                if let Some(print) = &print {
                    engine.store().put(&seen_key(&key), print.clone().into());
                }
                let map: Arc<SourceMap> = Arc::from(map);
                for config in &group.syncs {
                    if print.as_ref().is_some_and(|content| carried::is(engine.store(), config, content)) {
                        continue;
                    }
                    if let Some(pending) = state.pending.get_mut(&config.name) {
                        pending.attempts = 0;
                        pending.retry = None;
                        if engine.is_busy(&config.name) {
                            pending.again = Some(print.clone().unwrap_or_default());
                            continue;
                        }
                    }
                    self.submit(&config.name, Trigger::Auto, Some(map.clone()));
                }
            }
        }
    }

    fn drift(&self, config: &SyncConfig, settings: &Settings) {
        if settings.drift_action == crate::store::DriftAction::Repair {
            self.submit(&config.name, Trigger::Drift, None);
            return;
        }
        let (engine, config) = (self.inner.engine.clone(), config.clone());
        tokio::spawn(async move {
            let Ok(state) = engine.store().sync_state(&config.name) else { return };
            let name = config.name.clone();
            let spec = super::runner::RunSpec {
                config,
                state,
                kind: RunKind::Sync,
                trigger: Trigger::Drift,
                verify: true,
                allow_delete: false,
                withhold: false,
                prioritize: None,
                source: None,
            };
            match engine.runner().plan(&spec, &Cx::quiet()).await {
                Ok(plan) if plan.is_noop() => {}
                Ok(plan) => engine.hub().notice(
                    "warn",
                    format!("{name} has drifted: {} would change", crate::plan::count(plan.changes.len(), "key")),
                    Some(&name),
                ),
                Err(error) => engine.hub().notice("warn", format!("{name} could not be checked for drift: {}", error.text()), Some(&name)),
            }
        });
    }

    fn submit(&self, sync: &str, trigger: Trigger, source: Option<Arc<SourceMap>>) {
        let request = RunRequest {
            sync: sync.to_string(),
            kind: RunKind::Sync,
            trigger,
            verify: trigger == Trigger::Drift,
            allow_delete: false,
            withhold: false,
            prioritize: None,
        };
        if let Err(error) = self.inner.engine.submit(&request, source) {
            tracing::warn!(sync, "an automatic run was not started: {error}");
        }
    }

    fn finished(&self, state: &mut State, finished: &Finished) {
        let record = &finished.record;
        if record.kind != RunKind::Sync {
            // A change that arrived meanwhile was not carried by this run.
            if let Some(pending) = state.pending.get_mut(&record.sync)
                && pending.again.take().is_some()
            {
                pending.retry = Some(Instant::now());
            }
            return;
        }
        if record.status == RunStatus::Succeeded {
            // Its source could be read, so the login works again.
            for group in state.groups.values_mut().filter(|g| g.blocked.is_some() && g.syncs.iter().any(|s| s.name == record.sync)) {
                group.blocked = None;
                group.due = Some(Instant::now());
            }
        }
        let Some(pending) = state.pending.get_mut(&record.sync) else { return };
        // The run that has just ended may have carried it: runs read the source themselves.
        let config = state.groups.values().flat_map(|g| &g.syncs).find(|s| s.name == record.sync);
        let store = self.inner.engine.store();
        let carried = |content: &String| config.is_some_and(|c| carried::is(store, c, content));
        let again = pending.again.take().is_some_and(|content| !carried(&content));
        match record.status {
            RunStatus::Failed if finished.retryable && record.trigger != Trigger::Manual && pending.attempts + 1 < ATTEMPTS => {
                let wait = RETRY_BASE.saturating_mul(2u32.pow(pending.attempts));
                pending.attempts += 1;
                pending.retry = Some(Instant::now() + jitter(wait));
            }
            RunStatus::Succeeded => {
                pending.attempts = 0;
                pending.retry = again.then(Instant::now);
            }
            _ => pending.retry = again.then(Instant::now),
        }
    }

    /// Publishes when each sync will be looked at next, and why then.
    fn show(&self, state: &State, settings: &Settings) {
        let now = Instant::now();
        let time = |at: Instant| {
            let ahead = at.saturating_duration_since(now);
            // Rounded to seconds, so that a look that changes nothing publishes nothing.
            Time::from_second((crate::model::now().as_second()).saturating_add(ahead.as_secs() as i64)).unwrap_or_else(|_| crate::model::now())
        };
        for (key, group) in &state.groups {
            for config in &group.syncs {
                let pending = state.pending.get(&config.name).cloned().unwrap_or_default();
                let next = if settings.paused {
                    None
                } else if let Some(at) = pending.retry {
                    Some(Next { at: time(at), why: format!("attempt {} of {ATTEMPTS}", pending.attempts + 1) })
                } else if let Some(text) = &group.blocked {
                    let why = format!("{}:{} cannot be read: {text}", key.1.environment, key.1.path);
                    Some(Next { at: crate::model::now(), why })
                } else {
                    group.due.into_iter().chain(group.hinted).min().map(|at| Next { at: time(at), why: "poll".into() })
                };
                self.inner.engine.hub().next(&config.name, next);
            }
        }
        let budgets: std::collections::BTreeMap<String, String> = self.inner.engine.pool().budgets().into_iter().collect();
        self.inner.engine.hub().facts(|f| f.budgets = budgets);
    }

    /// Runs every enabled sync once and waits for the end, hooks included: for cron. The
    /// number counts the syncs that could not even start.
    pub async fn once(&self) -> (Vec<crate::model::run::RunRecord>, usize) {
        let engine = &self.inner.engine;
        let mut endings = engine.endings();
        let mut records = Vec::new();
        let mut ids = Vec::new();
        let mut refused = 0;
        for loaded in engine.store().syncs() {
            let config = match loaded.result {
                Ok(config) if config.is_enabled => config,
                Ok(_) => continue,
                Err(broken) => {
                    refused += 1;
                    engine.hub().notice("error", format!("{}: {broken}", loaded.name), Some(&loaded.name));
                    continue;
                }
            };
            let request = RunRequest {
                sync: config.name.clone(),
                kind: RunKind::Sync,
                trigger: Trigger::Auto,
                verify: false,
                allow_delete: false,
                withhold: false,
                prioritize: None,
            };
            match engine.submit(&request, None) {
                Ok(id) => ids.push(id),
                Err(error) => {
                    refused += 1;
                    engine.hub().notice("error", format!("{}: {error}", config.name), Some(&config.name));
                }
            }
        }
        for id in ids {
            records.extend(engine.finished(&id).await);
        }
        while let Ok(finished) = endings.try_recv() {
            super::hooks::told(engine, finished).await;
        }
        (records, refused)
    }
}

/// Turns a server's events into hints. Ends when the server offers none.
async fn listening(
    engine: Engine,
    account: String,
    named: Option<String>,
    places: Vec<SourceRef>,
    stop: CancellationToken,
    heard: tokio::sync::mpsc::UnboundedSender<Heard>,
) {
    let cx = Cx::new(stop.clone(), Arc::new(|_| {}));
    let mut failures = 0u32;
    while !stop.is_cancelled() {
        let result = match engine.pool().source(named.as_deref()).await {
            Ok((_, source)) => source.hint(&cx, &places).await,
            Err(error) => Err(error),
        };
        match result {
            Ok(false) => return,
            Ok(true) => {
                failures = 0;
                if heard.send(Heard::Hint(account.clone())).is_err() {
                    return;
                }
            }
            Err(error) if matches!(error.kind, ErrorKind::Auth | ErrorKind::Permission | ErrorKind::Invalid | ErrorKind::NotTheService) => {
                tracing::debug!("no hints from the KMS: {}", error.text());
                return;
            }
            Err(_) => {
                failures += 1;
                let wait = Duration::from_secs(2u64.saturating_pow(failures.min(6))).min(Duration::from_secs(60));
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(jitter(wait)) => {}
                }
            }
        }
    }
}

fn drift_period(settings: &Settings) -> Option<Duration> {
    settings.drift_hours.filter(|h| *h > 0).map(|h| Duration::from_secs(h * 3600))
}

/// Give or take a tenth, so that many sources do not march in step.
fn jitter(period: Duration) -> Duration {
    period.mul_f64(0.9 + rand::random::<f64>() * 0.2)
}

fn cursor_key((account, place): &SourceKey) -> String {
    format!("{account}|{}|{}|{}|{}", place.project_id, place.environment, place.path, place.recursive)
}

/// Where the fingerprint of the content is kept that the cursor's tag stands for.
fn seen_key(key: &SourceKey) -> String {
    format!("seen:{}", cursor_key(key))
}
