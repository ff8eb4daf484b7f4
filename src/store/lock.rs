//! One engine per state directory: an advisory lock that dies with its holder.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::Dirs;
use super::error::StoreError;
use super::files::{self, Access};
use super::process::Process;
use crate::model::Time;

/// How often and how long a lock without living holder is looked at again.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(10);
/// The file of [`Next`].
const NEXT: &str = "engine.next";

/// Facts about the process that holds a state directory's engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Holder {
    #[serde(flatten)]
    pub process: Process,
    /// What it is doing: `run`, `the terminal app`, `sync`.
    pub what: String,
    pub since: Time,
    /// Where its socket is, when it listens.
    pub socket: PathBuf,
}

/// Why the lock was not given.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("another kms-sync (pid {pid}, {what}) holds the engine of this state directory since {since}")]
    HeldBy { pid: u32, what: String, since: Time },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The right to run syncs of one state directory. Given back when dropped; the operating
/// system takes it from a process that dies.
#[derive(Debug)]
pub struct EngineLock {
    file: File,
}

impl EngineLock {
    /// Takes the lock, or says at once who holds it. `what` names the caller for others.
    pub fn acquire(dirs: &Dirs, what: &str) -> Result<Self, LockError> {
        files::ensure_dir(&dirs.state, false)?;
        let path = path_of(dirs);
        let io = |doing: &str, e: &std::io::Error| StoreError::io(doing, &path, e);
        let mut file = open(&path)?;
        for attempt in 0..=ATTEMPTS {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(e)) => return Err(io("lock it", &e).into()),
                Err(TryLockError::WouldBlock) => {
                    let holder = read_facts(dirs);
                    // Nobody alive in the facts: the holder is about to write them, or somebody
                    // only looked (see `holder`).
                    if attempt == ATTEMPTS || holder.as_ref().is_some_and(|h| h.process.alive()) {
                        let (pid, what, since) =
                            holder.map_or((0, "starting".to_string(), crate::model::now()), |h| (h.process.pid, h.what, h.since));
                        return Err(LockError::HeldBy { pid, what, since });
                    }
                    std::thread::sleep(PAUSE);
                }
            }
        }
        let holder = Holder { process: Process::me(), what: what.to_string(), since: crate::model::now(), socket: dirs.socket() };
        let facts = serde_json::to_vec(&holder).map_err(|e| io("describe the holder", &e.into()))?;
        // Shortened last: a reader in between sees the new facts with an old tail, which is
        // no JSON, and looks again.
        file.seek(SeekFrom::Start(0))
            .and_then(|_| file.write_all(&facts))
            .and_then(|()| file.set_len(facts.len() as u64))
            .map_err(|e| io("write the holder's facts", &e))?;
        Ok(Self { file })
    }

    /// Who holds the engine now; `None` when nobody does.
    pub fn holder(dirs: &Dirs) -> Result<Option<Holder>, StoreError> {
        let path = path_of(dirs);
        for _ in 0..=ATTEMPTS {
            let Some(file) = files::open(&path, Access::Private)? else {
                return Ok(None);
            };
            match file.try_lock_shared() {
                Ok(()) => return Ok(None),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(e)) => return Err(StoreError::io("look at the lock", &path, &e)),
            }
            if let Some(holder) = read_facts(dirs).filter(|h| h.process.alive()) {
                return Ok(Some(holder));
            }
            std::thread::sleep(PAUSE);
        }
        // Held, by a process that cannot be seen from here (another container).
        Ok(read_facts(dirs))
    }
}

impl Drop for EngineLock {
    fn drop(&mut self) {
        // Empty means: nobody. The file stays; removing it would let two processes lock two files.
        let _ = self.file.set_len(0);
    }
}

/// The place behind the holder: a service that waits for a terminal app to hand the engine over
/// has it, so that no other terminal takes the engine in between. Goes with its process.
#[derive(Debug)]
pub struct Next {
    _file: File,
}

impl Next {
    /// Takes the place; `None` when somebody has it already.
    pub fn claim(dirs: &Dirs) -> Option<Self> {
        let file = open(&dirs.state.join(NEXT)).ok()?;
        file.try_lock().ok()?;
        Some(Self { _file: file })
    }

    /// True while somebody has it.
    pub fn claimed(dirs: &Dirs) -> bool {
        let file = files::open(&dirs.state.join(NEXT), Access::Private).ok().flatten();
        file.is_some_and(|f| matches!(f.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }
}

fn path_of(dirs: &Dirs) -> PathBuf {
    dirs.state.join("engine.lock")
}

/// Opens a lock's file, made 0600 when it is missing.
pub(super) fn open(path: &Path) -> Result<File, StoreError> {
    if let Some(meta) = files::look(path)? {
        files::check_file(path, &meta, Access::Private)?;
    }
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(flags)
        .open(path)
        .map_err(|e| StoreError::io("open the lock", path, &e))
}

/// The facts in the lock's file. The holder writes them just after it got the lock, so they
/// may be missing or a dead one's for a moment.
fn read_facts(dirs: &Dirs) -> Option<Holder> {
    let mut text = String::new();
    files::open(&path_of(dirs), Access::Private).ok()??.take(16 * 1024).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}
