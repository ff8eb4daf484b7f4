//! How a command reaches the service: the engine of this process, or the one another process holds.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Args;
use super::output::note;
use crate::model::SecretValue;
use crate::service::attach::{Held, Silence, reach};
use crate::service::local::Local;
use crate::service::remote::Unreached;
use crate::service::{Service, ServiceError, ServiceErrorKind};
use crate::store::{Dirs, EngineLock, Holder, LockError, Next, Store};

/// A service, and the engine when it is this process.
pub struct Access {
    pub service: Arc<dyn Service>,
    /// Keeps lock and socket while the engine lives in this process.
    held: Option<Held>,
    /// How an engine was looked for, to look again.
    found: Option<Found>,
}

struct Found {
    store: Store,
    what: &'static str,
    wait: bool,
    /// That somebody is in the way was said.
    told: bool,
}

impl Access {
    /// True when another process's engine was asked.
    pub fn elsewhere(&self) -> bool {
        self.held.is_none()
    }

    /// The engine of this process, when it is here.
    pub fn local(&self) -> Option<Arc<Local>> {
        self.held.as_ref().map(|h| h.local.clone())
    }

    /// True when this command waits for what is in its way.
    pub fn waits(&self) -> bool {
        self.found.as_ref().is_some_and(|f| f.wait)
    }

    /// Looks for an engine again after a pause: the one that was asked has ended, or is about to.
    pub async fn renew(&mut self, pause: Duration) -> Result<(), ServiceError> {
        if let Some(found) = self.found.take() {
            tokio::time::sleep(pause).await;
            *self = find(found).await?;
        }
        Ok(())
    }

    /// Ends this command's part. What other processes asked of an engine that lives here is
    /// done first, unless a signal comes.
    pub async fn close(self) {
        let Some(held) = self.held else { return };
        let local = held.local.clone();
        if local.engine().busy() > 0 {
            note("waiting for runs that others have started here");
        }
        tokio::select! {
            () = held.finish() => {}
            () = super::signals::until_stopped() => local.close().await,
        }
    }
}

/// Pause between looks at an engine that is in the way.
const PAUSE: Duration = Duration::from_millis(200);

/// Opens the store of the arguments' directories.
pub fn store(args: &Args) -> Result<Store, ServiceError> {
    let dirs = Dirs::resolve(args.config_dir.clone(), args.state_dir.clone())?;
    Ok(Store::open(dirs)?)
}

/// The store with its credentials open: asks for the passphrase, once per start, where one is
/// needed, was not given by file, and somebody can be asked.
pub fn opened(args: &Args) -> Result<Store, ServiceError> {
    let store = store(args)?;
    if store.locked()? && std::io::stdin().is_terminal() {
        store.unlock(ask_passphrase("Passphrase of the stored credentials: ")?)?;
    }
    Ok(store)
}

/// Reads a passphrase from the terminal, without showing it.
pub fn ask_passphrase(prompt: &str) -> Result<SecretValue, ServiceError> {
    Ok(SecretValue::new(rpassword::prompt_password(prompt)?))
}

/// The service for reading: no engine is needed, and no settings; that they cannot be used is said.
pub fn reading(args: &Args) -> Result<Access, ServiceError> {
    let store = store(args)?;
    if let Err(broken) = store.settings() {
        note(&format!("warning: {}", crate::model::text::sanitise(&broken.to_string())));
    }
    Ok(Access { service: Local::new(store), held: None, found: None })
}

/// The service for looking at this machine itself: like [`looking`], and settings that cannot be
/// used are for it to find.
pub fn examining(args: &Args) -> Result<Access, ServiceError> {
    let store = store(args)?;
    let store = if store.settings().is_ok() { opened(args)? } else { store };
    Ok(Access { service: Local::new(store), held: None, found: None })
}

/// The service for looking at other machines: like [`reading`], with the credentials open.
pub fn looking(args: &Args) -> Result<Access, ServiceError> {
    Ok(Access { service: Local::new(opened(args)?), held: None, found: None })
}

/// The service for editing: through the running engine when there is one, so that it knows at once.
pub async fn editing(args: &Args) -> Result<Access, ServiceError> {
    let store = opened(args)?;
    let service = match asking(&store).await? {
        Some(remote) => remote,
        None => Local::new(store),
    };
    Ok(Access { service, held: None, found: None })
}

/// The engine that another process holds; `None` when nobody does. One that does not answer
/// is an error: behind the back of an engine that is busy with a sync nothing of it is changed.
pub async fn asking(store: &Store) -> Result<Option<Arc<dyn Service>>, ServiceError> {
    let mut silence = Silence::default();
    loop {
        let why = match reach(store.dirs()).await {
            Ok(remote) => return Ok(Some(remote)),
            Err(why) => why,
        };
        let Some(holder) = EngineLock::holder(store.dirs())? else { return Ok(None) };
        let Holder { process, what, since, .. } = holder;
        silence.goes_on(store.dirs(), &LockError::HeldBy { pid: process.pid, what, since }, &why)?;
        tokio::time::sleep(PAUSE).await;
    }
}

/// The service for runs: this process becomes the engine, or asks the one that is. A holder
/// that does not answer is waited for, for some seconds, unless `wait` is false.
pub async fn running(args: &Args, what: &'static str, wait: bool) -> Result<Access, ServiceError> {
    find(Found { store: opened(args)?, what, wait, told: false }).await
}

async fn find(mut found: Found) -> Result<Access, ServiceError> {
    let mut silence = Silence::default();
    loop {
        let busy = match Held::take(&found.store, found.what) {
            Ok(held) => return Ok(Access { service: held.local.clone(), held: Some(held), found: Some(found) }),
            Err(LockError::Store(error)) => return Err(error.into()),
            Err(busy) => busy,
        };
        let why = match reach(found.store.dirs()).await {
            Ok(remote) => return Ok(Access { service: remote, held: None, found: Some(found) }),
            Err(why) => why,
        };
        if !found.wait {
            return Err(ServiceError::new(ServiceErrorKind::Busy, busy.to_string()));
        }
        silence.goes_on(found.store.dirs(), &busy, &why)?;
        if !std::mem::replace(&mut found.told, true) {
            note(&format!("waiting: {busy}"));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The engine itself, never another process's. A command that holds it for a moment is waited
/// for; an open terminal app is asked to hand it over.
pub async fn engine(args: &Args, what: &str) -> Result<Held, ServiceError> {
    let store = opened(args)?;
    let mut told = false;
    // Who agreed to hand over, and when.
    let mut agreed: Option<(u32, Instant)> = None;
    // Other open apps leave the engine to us from the first question on.
    let mut next = None;
    let mut silence = Silence::default();
    loop {
        let busy = match Held::take(&store, what) {
            Ok(held) => return Ok(held),
            Err(LockError::Store(error)) => return Err(error.into()),
            Err(busy) => busy,
        };
        let (pid, passing) = match &busy {
            LockError::HeldBy { pid, what, .. } => (*pid, PASSING.contains(&what.as_str())),
            LockError::Store(_) => (0, false),
        };
        let same = agreed.filter(|(who, _)| *who == pid);
        let leaves = match same {
            Some((_, since)) => since.elapsed() < HANDOVER,
            None if passing => false,
            None => {
                next = next.or_else(|| Next::claim(store.dirs()));
                hands_over(&store).await
            }
        };
        if leaves && same.is_none() {
            agreed = Some((pid, Instant::now()));
        }
        if !passing && !leaves {
            return Err(ServiceError::new(ServiceErrorKind::Busy, format!("{busy}. One engine per state directory: stop that one first.")));
        }
        // While it answers it is at work, however long that takes.
        match reach(store.dirs()).await {
            Ok(_) | Err(Unreached::Full(_)) => silence = Silence::default(),
            Err(silent) => silence.goes_on(store.dirs(), &busy, &silent)?,
        }
        if !std::mem::replace(&mut told, true) {
            note(&format!("waiting: {busy}"));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Asks who holds the engine to hand it over; true when it does. One that can open its
/// credentials makes no room for one that cannot.
async fn hands_over(store: &Store) -> bool {
    if !matches!(store.locked(), Ok(false)) {
        return false;
    }
    match reach(store.dirs()).await {
        Ok(holder) => holder.hand_over().await.is_ok(),
        Err(_) => false,
    }
}

/// How long a terminal app may take to hand over: it lets runs end for ten seconds, and hooks for five.
const HANDOVER: Duration = Duration::from_secs(60);

/// Holders that end by themselves.
const PASSING: &[&str] = &[
    "kms-sync run --once",
    "kms-sync sync",
    "kms-sync import",
    "kms-sync create",
    "kms-sync delete",
    "kms-sync remove-secrets",
    "kms-sync connection seal",
];
