//! What this machine keeps: config files, sealed credentials, the state database, locks.
//!
//! | place | content | others may |
//! | --- | --- | --- |
//! | config `syncs/NAME.json` | one sync: the documented request | read |
//! | config `connections/NAME.json` | one connection; secrets sealed or by reference | nothing |
//! | config `settings.json` | [`Settings`] | read |
//! | state `kms-sync.db` (`-wal`, `-shm`) | runs, ledger, cursors, small facts | nothing |
//! | state `key.txt` or `key.passphrase.txt` | the key that seals credentials | nothing |
//! | state `ledger.key` | the key of the ledger's value hashes | nothing |
//! | state `engine.lock`, `config.lock` | advisory locks | nothing |
//! | runtime `engine.sock` | the engine's socket | nothing |
//!
//! Everything is made 0700 or 0600 and refused when it is wider than this table says.
//! Configuration is for people and version control, state is for the machine; neither ever
//! holds a secret in the clear. Calls block: from async code use `spawn_blocking`, except
//! [`Store::resolve`], which is async itself. Nothing here talks to a network.
//!
//! The engine and the service call it; it knows neither.

mod config;
mod db;
mod dirs;
mod doctor;
mod error;
mod files;
mod lock;
mod process;
mod resolve;
mod seal;
mod settings;

#[cfg(test)]
mod tests;

use std::fs::TryLockError;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rand::TryRngCore;

pub use db::{Cursor, Noted};
pub use dirs::Dirs;
pub use doctor::doctor;
pub use error::{Broken, Loaded, StoreError, StoreErrorKind};
pub use lock::{EngineLock, Holder, LockError, Next};
pub use process::{Group, Process};
pub use seal::{PASSPHRASE_CREDENTIAL, PASSPHRASE_FILE_ENV, SealMode};
pub use settings::{DriftAction, Settings};

use crate::model::SecretValue;
use crate::model::ledger::Hasher;

/// Everything one pair of directories holds. Cheap to open and to clone; shared by threads.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dirs: Dirs,
    keys: seal::Keys,
    db: db::Database,
    hasher: OnceLock<Hasher>,
}

impl Store {
    /// Makes the directories (0700) or checks those that are there. Keys and database are
    /// opened on first use.
    pub fn open(dirs: Dirs) -> Result<Self, StoreError> {
        files::ensure_dir(&dirs.config, false)?;
        files::ensure_dir(&dirs.state, false)?;
        let keys = seal::Keys::new(&dirs.state);
        let db = db::Database::new(dirs.database());
        Ok(Self(Arc::new(Inner { dirs, keys, db, hasher: OnceLock::new() })))
    }

    /// Where everything is.
    pub fn dirs(&self) -> &Dirs {
        &self.0.dirs
    }

    fn keys(&self) -> &seal::Keys {
        &self.0.keys
    }

    fn db(&self) -> &db::Database {
        &self.0.db
    }

    /// Keeps other processes from changing the configuration at the same time: a credential
    /// must not be sealed to a key that another process is about to remove, and of two edits of
    /// one sync neither may be lost.
    pub fn config_guard(&self) -> Result<std::fs::File, StoreError> {
        let path = self.dirs().state.join("config.lock");
        let file = lock::open(&path)?;
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(Duration::from_millis(5)),
                Err(TryLockError::WouldBlock) => {
                    return Err(StoreError::new(StoreErrorKind::Busy, "another kms-sync is changing the configuration").at(&path).fix("Try again."));
                }
                Err(TryLockError::Error(e)) => return Err(StoreError::io("lock it", &path, &e)),
            }
        }
    }

    /// True when stored credentials need a passphrase that nobody gave yet.
    pub fn locked(&self) -> Result<bool, StoreError> {
        Ok(self.keys().locked(self.settings()?.seal))
    }

    /// Gives the passphrase that opens the stored credentials. A wrong one is an error.
    pub fn unlock(&self, passphrase: SecretValue) -> Result<(), StoreError> {
        self.keys().unlock(passphrase)
    }

    /// Moves the state database aside, so that a new one is made on the next use. Only with
    /// the operator's consent: history goes, and the next runs verify everything. Returns
    /// where it was put. Refused while another process is the engine: it would go on writing
    /// to the one that was moved.
    pub fn move_aside_database(&self) -> Result<Option<PathBuf>, StoreError> {
        if let Some(holder) = EngineLock::holder(self.dirs())?.filter(|h| h.process.pid != std::process::id()) {
            return Err(StoreError::new(
                StoreErrorKind::Busy,
                format!("the state database is in use by pid {} ({})", holder.process.pid, holder.what),
            )
            .at(self.db().path())
            .fix("Stop that kms-sync first."));
        }
        self.db().move_aside()
    }

    /// Computes the ledger's keyed hashes. The key is random, local, and made on first use;
    /// when it is lost every value counts as changed once.
    pub fn hasher(&self) -> Result<Hasher, StoreError> {
        if let Some(hasher) = self.0.hasher.get() {
            return Ok(hasher.clone());
        }
        let path = self.hash_key_path();
        let key = match read_hash_key(&path)? {
            Some(key) => key,
            None => {
                let mut key = zeroize::Zeroizing::new([0u8; 32]);
                rand::rngs::OsRng
                    .try_fill_bytes(&mut *key)
                    .map_err(|e| StoreError::new(StoreErrorKind::Io, format!("the system gives no random bytes: {e}")))?;
                let text = zeroize::Zeroizing::new(format!("{}\n", blake3::Hash::from_bytes(*key).to_hex()));
                // Another process may be first: then its key counts.
                files::stage(&path, text.as_bytes())?.commit_new()?;
                read_hash_key(&path)?.ok_or_else(|| StoreError::new(StoreErrorKind::Io, "vanished while it was made").at(&path))?
            }
        };
        Ok(self.0.hasher.get_or_init(|| Hasher::new(key)).clone())
    }

    fn hash_key_path(&self) -> PathBuf {
        self.dirs().state.join("ledger.key")
    }
}

fn read_hash_key(path: &std::path::Path) -> Result<Option<[u8; 32]>, StoreError> {
    let Some(text) = files::read(path, files::Access::Private)? else {
        return Ok(None);
    };
    let key = blake3::Hash::from_hex(text.trim()).map_err(|_| {
        StoreError::new(StoreErrorKind::Broken, "is not a key of 64 hexadecimal digits (truncated or garbled)")
            .at(path)
            .fix(format!("Remove it: rm {}. A new one is made, and the next runs verify every value once.", error::shown(path)))
    })?;
    Ok(Some(*key.as_bytes()))
}

/// Runs a blocking piece of work off the async threads.
pub async fn run_blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, StoreError> + Send + 'static) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(StoreError::new(StoreErrorKind::Io, if error.is_panic() { "an internal step failed" } else { "the program is ending" })),
    }
}
