//! The service for a face that stays: the engine of this process when nobody holds it, the
//! other process's engine otherwise. When that one ends, this process takes over; when one
//! that stays asks for it, this process hands over. Whoever watches is told and goes on.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::changes::{Watcher, watch_files};
use super::local::Local;
use super::remote::{Remote, Unreached};
use super::socket::Socket;
use super::*;
use crate::store::{Dirs, EngineLock, LockError, Next, Store};

/// Pause between looks at an engine that is starting or ending.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a holder of the lock may take before it answers on its socket.
const PATIENCE: Duration = Duration::from_secs(10);
/// Who was handed the engine takes it within this time, or it stays here.
const TURN: Duration = Duration::from_secs(5);

/// The engine of this process: lock, socket and file watcher belong together.
pub struct Held {
    pub local: Arc<Local>,
    // Dropped in this order: nobody reaches an engine whose lock is free.
    _socket: Option<Socket>,
    _files: Option<Watcher>,
    _lock: EngineLock,
}

impl Held {
    /// Becomes the engine of a state directory.
    pub fn take(store: &Store, what: &str) -> std::result::Result<Self, LockError> {
        store.settings().map_err(LockError::Store)?;
        let lock = EngineLock::acquire(store.dirs(), what)?;
        let interrupted = store.mark_interrupted().map_err(LockError::Store)?;
        for record in &interrupted {
            crate::engine::note_interrupted(store, record).map_err(LockError::Store)?;
        }
        let unbegun = crate::engine::note_unbegun(store).map_err(LockError::Store)?;
        let local = Local::new(store.clone());
        local.reload();
        for sync in unbegun {
            local.engine().hub().notice("warn", format!("a run of {sync} was queued when the engine died, and did not begin"), Some(&sync));
        }
        for record in interrupted {
            local.engine().hub().notice(
                "warn",
                format!("a run of {} was interrupted; the next run goes on from there", record.sync),
                Some(&record.sync),
            );
        }
        let socket = Socket::serve(store.dirs(), local.clone(), local.engine().hub().clone());
        let files = watch_files(store.dirs(), &local);
        Ok(Self { local, _socket: Some(socket), _files: files, _lock: lock })
    }
}

impl Held {
    /// Ends in good order: nothing new starts, runs that others asked for end, and everybody
    /// has their answer before the engine is free.
    pub async fn finish(mut self) {
        self.local.clocks().stop();
        self.local.engine().finish().await;
        self.local.finish_hooks().await;
        if let Some(socket) = self._socket.take() {
            socket.close().await;
        }
    }
}

/// Where the engine is now.
enum Now {
    Here(Held),
    There(Arc<Remote>),
    /// It was here, and is being handed over.
    Leaving(Arc<Local>),
}

/// A service that finds the engine, wherever it is.
pub struct Attach {
    store: Store,
    what: String,
    now: RwLock<Now>,
    /// What this face's watchers hear, over changes of the engine.
    events: broadcast::Sender<Event>,
}

impl Attach {
    /// Becomes the engine, with its auto-sync clocks, or attaches to the one that is.
    pub async fn open(store: Store, what: &str) -> Result<Arc<Self>> {
        let now = Self::find(&store, what).await?;
        let service = Arc::new(Self { store, what: what.to_string(), now: RwLock::new(now), events: broadcast::Sender::new(16_384) });
        // Watched before anybody can look: what happens after a snapshot must reach its taker.
        let first = service.now().watch().await.ok();
        tokio::spawn(follow(Arc::downgrade(&service), service.events.clone(), first));
        Ok(service)
    }

    /// The engine of this process, when it is here.
    pub fn local(&self) -> Option<Arc<Local>> {
        match &*self.now.read().unwrap_or_else(PoisonError::into_inner) {
            Now::Here(held) => Some(held.local.clone()),
            Now::There(_) | Now::Leaving(_) => None,
        }
    }

    /// Gives the engine of this process up, as a service does that is stopped, and waits for
    /// whoever asked to take it. What happens meanwhile is passed on.
    async fn leave(&self, watch: &mut Option<Watch>) {
        let held = {
            let mut now = self.now.write().unwrap_or_else(PoisonError::into_inner);
            let Now::Here(held) = &*now else { return };
            let leaving = Now::Leaving(held.local.clone());
            let Now::Here(held) = std::mem::replace(&mut *now, leaving) else { return };
            held
        };
        let text = "Another kms-sync takes the engine over; runs under way end first, or go on there.";
        let _ = self.events.send(Event::Notice { level: "info".into(), text: text.into(), sync: None });
        let local = held.local.clone();
        let ended = async {
            local.close().await;
            held.finish().await;
        };
        let heard = async {
            if let Some(watch) = watch {
                while self.pass_on(watch.events.recv().await) {}
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            () = heard => {}
            () = ended => {}
        }
        let since = Instant::now();
        while since.elapsed() < TURN && EngineLock::holder(self.store.dirs()).is_ok_and(|h| h.is_none()) {
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Passes an event of the engine on; false when there are no more.
    fn pass_on(&self, heard: std::result::Result<Event, RecvError>) -> bool {
        let event = match heard {
            Ok(event) => event,
            Err(RecvError::Lagged(_)) => Event::Lagged,
            Err(RecvError::Closed) => return false,
        };
        // Nobody may be watching.
        let _ = self.events.send(event);
        true
    }

    async fn find(store: &Store, what: &str) -> Result<Now> {
        let mut silence = Silence::default();
        // Since when nobody holds the engine that a service waits for.
        let mut free: Option<Instant> = None;
        loop {
            if Next::claimed(store.dirs()) && EngineLock::holder(store.dirs()).is_ok_and(|h| h.is_none()) {
                // One that was stopped while it waited must not keep everybody from going on.
                if free.get_or_insert_with(Instant::now).elapsed() < TURN {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            } else {
                free = None;
            }
            let busy = match Held::take(store, what) {
                Ok(held) => {
                    held.local.makes_room();
                    held.local.start_auto();
                    return Ok(Now::Here(held));
                }
                Err(LockError::Store(error)) => return Err(error.into()),
                Err(busy) => busy,
            };
            match reach(store.dirs()).await {
                Ok(remote) => return Ok(Now::There(remote)),
                Err(why) => silence.goes_on(store.dirs(), &busy, &why)?,
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn now(&self) -> Arc<dyn Service> {
        match &*self.now.read().unwrap_or_else(PoisonError::into_inner) {
            Now::Here(held) => held.local.clone(),
            Now::There(remote) => remote.clone(),
            Now::Leaving(local) => local.clone(),
        }
    }
}

/// The engine that another process holds, when it answers.
pub async fn reach(dirs: &Dirs) -> std::result::Result<Arc<Remote>, Unreached> {
    let holder = EngineLock::holder(dirs).ok().flatten().ok_or(Unreached::Silent)?;
    // Documents with credentials go through it: where others could have put one of theirs,
    // after a cleaner took ours away, nobody is asked.
    Dirs::vouch(&holder.socket).map_err(|_| Unreached::Silent)?;
    let remote = Remote::new(holder.socket).map_err(|_| Unreached::Silent)?;
    remote.presence().await?;
    Ok(remote)
}

/// An engine that is held and does not answer, or not us: given time to start or to end, and no more.
#[derive(Default)]
pub struct Silence {
    /// Who is silent, and since when.
    of: Option<(u32, Instant)>,
}

impl Silence {
    /// Called after each vain look: an error, with what helps, when it has lasted too long.
    pub fn goes_on(&mut self, dirs: &Dirs, busy: &LockError, why: &Unreached) -> Result<()> {
        let holder = EngineLock::holder(dirs).ok().flatten();
        let pid = holder.as_ref().map_or(0, |h| h.process.pid);
        let since = match self.of {
            Some((same, since)) if same == pid => since,
            _ => self.of.insert((pid, Instant::now())).1,
        };
        if since.elapsed() < PATIENCE {
            return Ok(());
        }
        if let Unreached::Full(text) = why {
            // It is at work: nothing of it is to be ended.
            return Err(ServiceError::new(ServiceErrorKind::Busy, format!("{busy}, and takes no more connections. {text}")));
        }
        let mut text = format!("{busy}, and has not answered for {} s", PATIENCE.as_secs());
        if let Some(holder) = holder {
            let why = Dirs::vouch(&holder.socket).err().map(|e| format!(": {e}")).unwrap_or_default();
            text.push_str(&format!(" on its socket {}{why}", crate::model::text::sanitise(&holder.socket.display().to_string())));
            text.push_str(&if holder.process.stopped() {
                format!(". It is stopped (SIGSTOP, Ctrl-Z): kill -CONT {pid} lets it go on, kill -9 {pid} ends it")
            } else {
                format!(". kill {pid} ends it, kill -9 {pid} when that does not help")
            });
            text.push_str("; what it had begun, the next engine goes on with");
        }
        Err(ServiceError::new(ServiceErrorKind::Busy, format!("{text}.")))
    }
}

/// Passes the engine's events on; when the engine goes away, finds or becomes the next one.
async fn follow(service: std::sync::Weak<Attach>, events: broadcast::Sender<Event>, first: Option<Watch>) {
    let mut watch = first;
    let mut changed = false;
    let mut told = None;
    loop {
        // Nobody asks an engine of another process through this one.
        let leaving = service.upgrade().and_then(|a| a.local()).map(|l| l.makes_room()).unwrap_or_default();
        if let Some(watch) = &mut watch {
            // Only now: a snapshot that is taken because of this must not miss what follows it.
            if changed {
                let _ = events.send(Event::Lagged);
            }
            loop {
                let heard = tokio::select! {
                    heard = watch.events.recv() => heard,
                    () = leaving.cancelled() => break,
                };
                let Some(attach) = service.upgrade() else { return };
                if !attach.pass_on(heard) {
                    break;
                }
            }
        }
        let Some(attach) = service.upgrade() else { return };
        let left = leaving.is_cancelled();
        if left {
            attach.leave(&mut watch).await;
        } else if attach.local().is_some() {
            return;
        }
        let text = match Attach::find(&attach.store, &attach.what).await {
            Ok(now) => {
                let text = match (&now, left) {
                    (Now::There(_), _) => "Attached to the engine that took over.",
                    (_, true) => "Nobody took the engine over; it is this terminal again.",
                    (_, false) => "The engine ended; this terminal has taken over.",
                };
                *attach.now.write().unwrap_or_else(PoisonError::into_inner) = now;
                text.to_string()
            }
            Err(error) => format!("The engine ended and cannot be replaced: {error}"),
        };
        if told.as_ref() != Some(&text) {
            let _ = events.send(Event::Notice { level: "warn".into(), text: text.clone(), sync: None });
        }
        told = Some(text);
        changed = true;
        let now = attach.now();
        drop(attach);
        watch = now.watch().await.ok();
        if watch.is_none() {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

#[async_trait]
impl Service for Attach {
    async fn watch(&self) -> Result<Watch> {
        // Subscribed first: what happens while the snapshot is taken is seen twice, not never.
        let events = self.events.subscribe();
        let board = self.now().watch().await?.board;
        Ok(Watch { board, events })
    }

    async fn syncs(&self) -> Result<Vec<SyncDoc>> {
        self.now().syncs().await
    }

    async fn sync(&self, name: &str) -> Result<SyncDoc> {
        self.now().sync(name).await
    }

    async fn check_sync(&self, input: SyncInput, replaces: Option<String>) -> Result<()> {
        self.now().check_sync(input, replaces).await
    }

    async fn create_sync(&self, input: SyncInput) -> Result<SyncDoc> {
        self.now().create_sync(input).await
    }

    async fn update_sync(&self, name: &str, input: SyncInput) -> Result<SyncDoc> {
        self.now().update_sync(name, input).await
    }

    async fn delete_sync(&self, name: &str) -> Result<()> {
        self.now().delete_sync(name).await
    }

    async fn set_enabled(&self, name: &str, enabled: bool) -> Result<SyncDoc> {
        self.now().set_enabled(name, enabled).await
    }

    async fn document(&self, name: &str) -> Result<Value> {
        self.now().document(name).await
    }

    async fn plan(&self, target: PlanTarget, verify: bool) -> Result<PlanDoc> {
        self.now().plan(target, verify).await
    }

    async fn server_rivals(&self, target: PlanTarget) -> Result<Vec<ServerRival>> {
        self.now().server_rivals(target).await
    }

    async fn switch_off_rival(&self, target: PlanTarget, id: &str) -> Result<ServerRival> {
        self.now().switch_off_rival(target, id).await
    }

    async fn start(&self, request: RunRequest) -> Result<String> {
        self.now().start(request).await
    }

    async fn start_together(&self, requests: Vec<RunRequest>) -> Result<Vec<Result<String>>> {
        self.now().start_together(requests).await
    }

    async fn finished(&self, run: &str) -> Result<RunRecord> {
        self.now().finished(run).await
    }

    async fn cancel(&self, run: &str) -> Result<()> {
        self.now().cancel(run).await
    }

    async fn approve(&self, approval: Approval) -> Result<()> {
        self.now().approve(approval).await
    }

    async fn history(&self, name: &str, limit: usize) -> Result<Vec<RunRecord>> {
        self.now().history(name, limit).await
    }

    async fn connections(&self) -> Result<Vec<ConnectionView>> {
        self.now().connections().await
    }

    async fn save_connection(&self, document: Value, replace: bool) -> Result<ConnectionView> {
        self.now().save_connection(document, replace).await
    }

    async fn remove_connection(&self, name: &str) -> Result<()> {
        self.now().remove_connection(name).await
    }

    async fn test_connection(&self, name: &str) -> Result<TestReport> {
        self.now().test_connection(name).await
    }

    async fn test_destination(&self, name: &str, config: Map) -> Result<TestReport> {
        self.now().test_destination(name, config).await
    }

    async fn try_connection(&self, document: Value) -> Result<TestReport> {
        self.now().try_connection(document).await
    }

    async fn projects(&self, account: &str) -> Result<Vec<Project>> {
        self.now().projects(account).await
    }

    async fn folders(&self, ask: FolderAsk) -> Result<Vec<Choice>> {
        self.now().folders(ask).await
    }

    async fn choices(&self, ask: ChoicesAsk) -> Result<Vec<Choice>> {
        self.now().choices(ask).await
    }

    async fn draft(&self) -> Result<Option<Draft>> {
        self.now().draft().await
    }

    async fn keep_draft(&self, draft: Option<Draft>) -> Result<()> {
        self.now().keep_draft(draft).await
    }

    async fn pause(&self, paused: bool) -> Result<()> {
        self.now().pause(paused).await
    }

    async fn doctor(&self) -> Result<Vec<Finding>> {
        self.now().doctor().await
    }

    async fn close(&self) {
        self.now().close().await;
    }
}
