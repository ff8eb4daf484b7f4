//! The state database: SQLite in WAL mode, opened on first use.
//!
//! Tables by subject: [`states`] (what the machine knows of a sync, cursors, small facts),
//! [`ledger`], [`places`] and [`runs`]. Losing the file costs history and speed, never correctness.

mod ledger;
mod places;
mod runs;
mod schema;
mod states;

use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};
use rustix::fs::OFlags;

use super::error::{StoreError, StoreErrorKind, denial, shown};
use super::files::{self, Access};
use crate::model::Time;

pub use runs::Noted;
pub use states::Cursor;

/// How long a statement waits for another process that writes.
const BUSY: Duration = Duration::from_secs(10);

/// The database of one state directory. All access goes through one connection.
#[derive(Debug)]
pub struct Database {
    path: PathBuf,
    connection: Mutex<Option<Connection>>,
}

impl Database {
    /// Nothing is opened or made before the first use.
    pub fn new(path: PathBuf) -> Self {
        Self { path, connection: Mutex::new(None) }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads outside a transaction.
    fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T, DbError>) -> Result<T, StoreError> {
        self.with(|connection| work(connection))
    }

    /// Writes in one transaction: all of it is durable when this returns, or none.
    fn write<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T, DbError>) -> Result<T, StoreError> {
        self.with(|connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let out = work(&transaction)?;
            transaction.commit()?;
            Ok(out)
        })
    }

    /// Writes in one transaction that need not survive a power cut: cursors and small facts,
    /// whose loss costs a request. Saves the wait for the disk.
    fn write_lightly<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T, DbError>) -> Result<T, StoreError> {
        self.with(|connection| {
            connection.execute_batch("PRAGMA synchronous=NORMAL")?;
            let done = (|| {
                let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                let out = work(&transaction)?;
                transaction.commit()?;
                Ok(out)
            })();
            connection.execute_batch("PRAGMA synchronous=FULL")?;
            done
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut Connection) -> Result<T, DbError>) -> Result<T, StoreError> {
        let mut slot = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let connection = match &mut *slot {
            Some(connection) => connection,
            empty => empty.insert(self.open()?),
        };
        work(connection).map_err(|e| self.explain(e))
    }

    fn open(&self) -> Result<Connection, StoreError> {
        match files::look(&self.path)? {
            Some(meta) => files::check_file(&self.path, &meta, Access::Private)?,
            // SQLite would make it with the umask's mode; its companions copy the mode of this one.
            None => {
                let flags = OFlags::NOFOLLOW.bits() as i32;
                match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).custom_flags(flags).open(&self.path) {
                    Ok(_) => files::sync_dir_of(&self.path)?,
                    Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                    Err(e) => return Err(StoreError::io("make the database", &self.path, &e)),
                }
            }
        }
        let open = || -> Result<Connection, DbError> {
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_EXRESCODE;
            let mut connection = Connection::open_with_flags(&self.path, flags)?;
            connection.busy_timeout(BUSY)?;
            connection.set_prepared_statement_cache_capacity(64);
            connection.execute_batch("PRAGMA synchronous=FULL; PRAGMA trusted_schema=OFF; PRAGMA temp_store=MEMORY;")?;
            let version = schema::version(&connection)?;
            if version > schema::CURRENT {
                return Err(DbError::Newer(version));
            }
            if version < schema::CURRENT {
                write_ahead(&connection)?;
                schema::migrate(&mut connection)?;
            }
            Ok(connection)
        };
        open().map_err(|e| self.explain(e))
    }

    /// `PRAGMA quick_check`: `None` when the database is sound (or was never made), else what is wrong.
    pub fn quick_check(&self) -> Result<Option<String>, StoreError> {
        if files::look(&self.path)?.is_none() {
            return Ok(None);
        }
        self.read(|c| {
            let said: String = c.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
            Ok((said != "ok").then_some(said))
        })
    }

    /// Renames the database and its companions so that a new one is made on the next use.
    /// Returns the new path, `None` when there was nothing to move.
    pub fn move_aside(&self) -> Result<Option<PathBuf>, StoreError> {
        let mut slot = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        drop(slot.take());
        if files::look(&self.path)?.is_none() {
            return Ok(None);
        }
        let stamp = crate::model::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let aside = PathBuf::from(format!("{}.broken-{stamp}", self.path.display()));
        // Companions first: a write-ahead log beside a new database would be applied to it.
        for companion in ["-wal", "-shm", ""] {
            let from = PathBuf::from(format!("{}{companion}", self.path.display()));
            let to = PathBuf::from(format!("{}{companion}", aside.display()));
            match std::fs::rename(&from, &to) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(StoreError::io("move it aside", &from, &e)),
            }
        }
        files::sync_dir_of(&self.path)?;
        Ok(Some(aside))
    }

    /// A damaged database, with the way out.
    pub fn damaged(&self, message: &str) -> StoreError {
        StoreError::new(StoreErrorKind::Database, message).at(&self.path).fix(format!(
            "Stop kms-sync and move it aside: mv {0} {0}.broken && rm -f {0}-wal {0}-shm. A new one is made; that costs history, and the next \
             run verifies everything, but no secret.",
            shown(&self.path)
        ))
    }

    fn explain(&self, error: DbError) -> StoreError {
        let new = |kind, message: String| StoreError::new(kind, message).at(&self.path);
        match error {
            DbError::Newer(version) => {
                new(StoreErrorKind::Database, format!("was written by a newer kms-sync (format {version}, this one knows {})", schema::CURRENT))
                    .fix("Use the newer kms-sync, or another --state-dir.")
            }
            DbError::Content(what) => self.damaged(&format!("holds a row that cannot be read: {what}")),
            DbError::Sql(error) => {
                let code = error.sqlite_error_code();
                let text = format!("the state database failed: {error}");
                match code {
                    Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => self.damaged("the state database is damaged"),
                    Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                        new(StoreErrorKind::Busy, "another process keeps the state database busy".to_string())
                            .fix("Try again; if it stays, look for a kms-sync that is stopped or hangs.")
                    }
                    Some(ErrorCode::DiskFull) => {
                        new(StoreErrorKind::Full, "the disk is full".to_string()).fix("Make room; what was recorded before is unharmed.")
                    }
                    Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
                        new(StoreErrorKind::Io, text).fix(denial(&self.path).unwrap_or_else(|| UNWRITABLE.to_string()))
                    }
                    _ => new(StoreErrorKind::Io, text),
                }
            }
        }
    }
}

/// What helps where the database cannot be written: also to be read it must be.
const UNWRITABLE: &str = "The state directory must be writable for this user, also to look (is its file system mounted read-only?); or choose \
                          another with --state-dir.";

/// Switches to write-ahead logging. Where the file system cannot share memory SQLite stays
/// with a rollback journal, which is as safe and only slower.
fn write_ahead(connection: &Connection) -> Result<(), DbError> {
    let until = Instant::now() + BUSY;
    loop {
        let result = connection.query_row("PRAGMA journal_mode=WAL", [], |row| row.get::<_, String>(0));
        match result {
            // Two first starts at once: this one statement does not honour the busy timeout.
            Err(e) if matches!(e.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)) && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(5));
            }
            result => return result.map(|_| ()).map_err(DbError::from),
        }
    }
}

/// What can go wrong inside the database module.
#[derive(Debug)]
pub(super) enum DbError {
    Sql(rusqlite::Error),
    /// The database's version is beyond ours.
    Newer(i64),
    /// A row does not hold what we wrote there.
    Content(String),
}

impl From<rusqlite::Error> for DbError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

/// Nanoseconds since 1970; a moment beyond the year 2262 becomes that year.
fn nanos(time: Time) -> i64 {
    i64::try_from(time.as_nanosecond()).unwrap_or(if time.as_nanosecond() < 0 { i64::MIN } else { i64::MAX })
}

fn time(nanos: i64) -> Time {
    // Every i64 of nanoseconds lies within the range of a timestamp.
    Time::from_nanosecond(i128::from(nanos)).unwrap_or(Time::UNIX_EPOCH)
}

fn to_json(value: &impl serde::Serialize) -> Result<String, DbError> {
    serde_json::to_string(value).map_err(|e| DbError::Content(e.to_string()))
}

fn from_json<T: serde::de::DeserializeOwned>(what: &str, text: &str) -> Result<T, DbError> {
    // The position alone: the text is not ours to repeat.
    serde_json::from_str(text).map_err(|e| DbError::Content(format!("{what}, column {}", e.column())))
}
