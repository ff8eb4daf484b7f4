//! Command hooks: told of results, never of secrets.
//!
//! `onFailure` runs when a sync's run fails after it had been well, `onRecovery` when it
//! succeeds again, `onChange` after each run that wrote something. The command gets the run's
//! record as JSON on standard input, without a shell. It is a process group of its own, and the
//! group is ended when the hook takes longer than the settings allow and when the engine stops;
//! what it started in another group or session lives on. It has the engine's environment without
//! what is meant for the engine alone ([`kept_back`]). One sync's hooks go one after another; what
//! cannot wait any more is dropped, and told.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Engine, Finished};
use crate::model::connection::Credential;
use crate::model::run::{RunKind, RunRecord, RunStatus};
use crate::store::{Group, PASSPHRASE_FILE_ENV, Store, StoreError};

/// Hooks at once.
const AT_ONCE: usize = 4;
/// Hooks that wait for their turn; further ones are dropped.
const WAITING: usize = 100;
/// What the hooks of a stopping engine have left, in all.
const GRACE: Duration = Duration::from_secs(5);
/// Between the request to end and the end.
const MERCY: Duration = Duration::from_secs(1);
/// How many runs back a telling one is looked for.
const LOOK_BACK: usize = 20;

/// The hooks of an engine, from now on.
pub struct Hooks {
    /// No further results come: what waits is worked off.
    closing: CancellationToken,
    /// Nothing is waited for any more.
    ending: CancellationToken,
    work: tokio::task::JoinHandle<()>,
}

impl Hooks {
    /// Watches run ends and starts hooks.
    pub fn start(engine: Engine) -> Self {
        let (closing, ending) = (CancellationToken::new(), CancellationToken::new());
        let line = Line { endings: engine.endings(), engine, waiting: VecDeque::new(), busy: HashSet::new(), going: JoinSet::new(), dropped: 0 };
        let work = tokio::spawn(line.work(closing.clone(), ending.clone()));
        Self { closing, ending, work }
    }

    /// Lets the hooks of what has ended go to their end, for [`GRACE`]; the rest is ended and told.
    pub async fn finish(mut self) {
        self.closing.cancel();
        if tokio::time::timeout(GRACE, &mut self.work).await.is_err() {
            self.ending.cancel();
            let _ = (&mut self.work).await;
        }
    }
}

impl Drop for Hooks {
    fn drop(&mut self) {
        self.ending.cancel();
    }
}

/// One hook to call.
struct Call {
    event: &'static str,
    command: Vec<String>,
    finished: Arc<Finished>,
    limit: Duration,
    kept_back: Arc<BTreeSet<String>>,
}

/// The hooks that wait and that go.
struct Line {
    engine: Engine,
    endings: Receiver<Arc<Finished>>,
    waiting: VecDeque<Call>,
    /// Syncs of which a hook goes.
    busy: HashSet<String>,
    /// Each answers its sync's name.
    going: JoinSet<String>,
    /// Dropped since it was last told.
    dropped: u64,
}

impl Line {
    async fn work(mut self, closing: CancellationToken, ending: CancellationToken) {
        let mut open = true;
        loop {
            self.begin();
            if !open && self.going.is_empty() {
                return;
            }
            tokio::select! {
                () = ending.cancelled() => return self.end().await,
                Some(ended) = self.going.join_next(), if !self.going.is_empty() => match ended {
                    Ok(sync) => drop(self.busy.remove(&sync)),
                    // A defect in one must not hold the others' syncs for ever.
                    Err(_) => self.busy.clear(),
                },
                () = closing.cancelled(), if open => {
                    open = false;
                    loop {
                        match self.endings.try_recv() {
                            Ok(finished) => self.queue(finished).await,
                            Err(TryRecvError::Lagged(n)) => self.lost(n),
                            Err(_) => break,
                        }
                    }
                }
                ended = self.endings.recv(), if open => match ended {
                    Ok(finished) => self.queue(finished).await,
                    Err(RecvError::Lagged(n)) => self.lost(n),
                    Err(RecvError::Closed) => open = false,
                },
            }
        }
    }

    async fn queue(&mut self, finished: Arc<Finished>) {
        for call in calls(&self.engine, &finished).await {
            if self.waiting.len() < WAITING {
                self.waiting.push_back(call);
            } else {
                self.lost(1);
            }
        }
    }

    /// Told at once for the first one, and with their number when there is room again.
    fn lost(&mut self, n: u64) {
        if self.dropped == 0 {
            let text = format!("hooks are slower than the runs: {WAITING} wait already, further ones are dropped until there is room");
            self.engine.hub().notice("warn", text, None);
        }
        self.dropped += n;
    }

    /// Starts what may start.
    fn begin(&mut self) {
        while self.going.len() < AT_ONCE {
            let free = |c: &Call| !self.busy.contains(&c.finished.record.sync);
            let Some(call) = self.waiting.iter().position(free).and_then(|at| self.waiting.remove(at)) else { break };
            self.busy.insert(call.finished.record.sync.clone());
            let engine = self.engine.clone();
            self.going.spawn(async move {
                call.carry_out(&engine).await;
                call.finished.record.sync.clone()
            });
        }
        if self.dropped > 0 && self.waiting.len() < WAITING / 2 {
            self.engine.hub().notice("warn", dropped(std::mem::take(&mut self.dropped)), None);
        }
    }

    /// Ends what goes, and says what was left.
    async fn end(mut self) {
        let (going, left) = (self.going.len() as u64, self.waiting.len() as u64 + self.dropped);
        self.going.shutdown().await;
        if going > 0 {
            self.engine.hub().notice("warn", format!("the engine stops: {} still going, ended", counted(going)), None);
        }
        if left > 0 {
            self.engine.hub().notice("warn", dropped(left), None);
        }
    }
}

fn counted(n: u64) -> String {
    crate::plan::count(usize::try_from(n).unwrap_or(usize::MAX), "hook call")
}

/// The words for results that no hook was told of.
pub(super) fn dropped(n: u64) -> String {
    format!("{} dropped: nobody is told of what had ended then", counted(n))
}

/// Calls the hooks of one result, one after another, and waits for them.
pub(super) async fn told(engine: &Engine, finished: Arc<Finished>) {
    for call in calls(engine, &finished).await {
        call.carry_out(engine).await;
    }
}

/// The hooks that a result calls for.
async fn calls(engine: &Engine, finished: &Arc<Finished>) -> Vec<Call> {
    let settings = engine.settings();
    let record = &finished.record;
    if matches!(record.status, RunStatus::Cancelled | RunStatus::Interrupted) || record.kind != RunKind::Sync {
        return Vec::new();
    }
    let failed = record.status != RunStatus::Succeeded;
    // The run before this one decides whether a state began or ended; what was cancelled or
    // cut off says nothing about the sync's health.
    let (store, name) = (engine.store().clone(), record.sync.clone());
    let known = super::blocking(move || Ok::<_, StoreError>((store.runs(&name, LOOK_BACK).unwrap_or_default(), Arc::new(kept_back(&store)))));
    let Ok((runs, kept_back)) = known.await else { return Vec::new() };
    let telling = |r: &&RunRecord| r.kind == RunKind::Sync && !matches!(r.status, RunStatus::Cancelled | RunStatus::Interrupted);
    let before = runs.iter().skip_while(|r| r.id != record.id).skip(1).find(telling);
    let was_failing = before.is_some_and(|r| r.status != RunStatus::Succeeded);
    let due = [
        ("onFailure", failed && !was_failing, settings.on_failure),
        ("onRecovery", !failed && was_failing, settings.on_recovery),
        ("onChange", record.counts.writes() > 0, settings.on_change),
    ];
    let limit = Duration::from_secs(settings.hook_timeout_secs);
    let due = due.into_iter().filter(|(_, due, _)| *due);
    let call = |(event, _, command): (_, _, Option<Vec<String>>)| {
        let command = command.filter(|c| !c.is_empty())?;
        Some(Call { event, command, finished: finished.clone(), limit, kept_back: kept_back.clone() })
    };
    due.filter_map(call).collect()
}

/// The variables that no hook gets: those that hold connections' credentials, and what a service
/// manager gives to the service (its socket, the places of its credentials; sd_notify(3),
/// systemd.exec(5)).
fn kept_back(store: &Store) -> BTreeSet<String> {
    let own = ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "CREDENTIALS_DIRECTORY", PASSPHRASE_FILE_ENV].map(String::from);
    let connections = store.connections().into_iter().filter_map(|c| c.result.ok());
    let names = connections.flat_map(|c| c.credentials.into_values()).filter_map(|c| match c {
        Credential::Env(name) => Some(name),
        _ => None,
    });
    names.chain(own).collect()
}

impl Call {
    async fn carry_out(&self, engine: &Engine) {
        let record = &self.finished.record;
        let body = serde_json::json!({ "event": self.event, "run": record }).to_string();
        if let Err(error) = run(&self.command, &self.kept_back, body, self.limit).await {
            engine.hub().notice("warn", format!("the {} hook {}: {error}", self.event, self.command[0]), Some(&record.sync));
        }
    }
}

async fn run(command: &[String], kept_back: &BTreeSet<String>, body: String, limit: Duration) -> Result<(), String> {
    let mut hook = tokio::process::Command::new(&command[0]);
    for name in kept_back {
        hook.env_remove(name);
    }
    let mut child = hook
        .args(&command[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| format!("did not start: {e}"))?;
    let mut group = Group::of(&child);
    let stdin = child.stdin.take();
    let fed = async {
        if let Some(mut stdin) = stdin {
            // A hook that does not read its input is no failure.
            let _ = stdin.write_all(body.as_bytes()).await;
        }
        std::future::pending::<()>().await;
    };
    let ended = async {
        tokio::select! {
            status = child.wait() => status,
            () = fed => Err(std::io::ErrorKind::Other.into()),
        }
    };
    match tokio::time::timeout(limit, ended).await {
        Ok(ended) => {
            group.release();
            match ended {
                Ok(status) if status.success() => Ok(()),
                Ok(status) => Err(format!("ended with {status}")),
                Err(error) => Err(error.to_string()),
            }
        }
        Err(_) => {
            // Not waited for before the group's end: until then its number is nobody else's.
            group.ask_to_end();
            tokio::time::sleep(MERCY).await;
            drop(group);
            let _ = child.wait().await;
            Err(format!("did not end within {} s and was ended, with its process group", limit.as_secs()))
        }
    }
}
