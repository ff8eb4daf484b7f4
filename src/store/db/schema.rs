//! Tables, and the steps from each version of them to the next.

use rusqlite::{Connection, TransactionBehavior};

use super::DbError;

/// One step per version; step *n* brings a database of version *n* to *n + 1*. Steps that
/// were released are never edited.
const STEPS: &[&str] = &[
    // 0 → 1
    "CREATE TABLE syncs (
        name  TEXT PRIMARY KEY NOT NULL,
        id    TEXT NOT NULL UNIQUE,
        state TEXT NOT NULL
    ) WITHOUT ROWID;

    CREATE TABLE places (
        id      INTEGER PRIMARY KEY,
        sync_id TEXT NOT NULL,
        target  TEXT NOT NULL,
        settled INTEGER NOT NULL DEFAULT 0,
        UNIQUE (sync_id, target)
    );
    CREATE INDEX places_by_target ON places (target);

    CREATE TABLE ledger (
        place          INTEGER NOT NULL,
        fold           TEXT NOT NULL,
        key            TEXT NOT NULL,
        source_key     TEXT NOT NULL,
        remote_id      TEXT,
        stamp          TEXT,
        previous_stamp TEXT,
        value_hash     TEXT,
        written_at     INTEGER NOT NULL,
        intent         TEXT,
        detail         TEXT NOT NULL,
        PRIMARY KEY (place, fold)
    ) WITHOUT ROWID;

    CREATE TABLE decisions (
        place    INTEGER NOT NULL,
        fold     TEXT NOT NULL,
        decision TEXT NOT NULL CHECK (decision IN ('approved', 'kept')),
        PRIMARY KEY (place, fold)
    ) WITHOUT ROWID;

    CREATE TABLE runs (
        seq         INTEGER PRIMARY KEY AUTOINCREMENT,
        id          TEXT NOT NULL UNIQUE,
        sync        TEXT NOT NULL,
        kind        TEXT NOT NULL,
        cause       TEXT NOT NULL,
        status      TEXT NOT NULL,
        message     TEXT,
        started_at  INTEGER NOT NULL,
        finished_at INTEGER,
        counts      TEXT NOT NULL,
        secrets     TEXT NOT NULL,
        requests    TEXT NOT NULL,
        process     TEXT
    );
    CREATE INDEX runs_by_sync ON runs (sync, seq);
    CREATE INDEX runs_open ON runs (process) WHERE process IS NOT NULL;

    CREATE TABLE cursors (
        source     TEXT PRIMARY KEY NOT NULL,
        etag       TEXT,
        checked_at INTEGER NOT NULL,
        changed_at INTEGER
    ) WITHOUT ROWID;

    CREATE TABLE facts (
        key   TEXT PRIMARY KEY NOT NULL,
        value TEXT NOT NULL
    ) WITHOUT ROWID;",
    // 1 → 2: what an unfinished run has recorded so far, for the case that its process dies.
    "CREATE TABLE run_keys (
        run     TEXT NOT NULL,
        key     TEXT NOT NULL,
        side    TEXT NOT NULL CHECK (side IN ('source', 'destination')),
        outcome TEXT NOT NULL,
        at      INTEGER NOT NULL,
        PRIMARY KEY (run, key, side)
    ) WITHOUT ROWID;",
    // 2 → 3: how a place was reached, so that what an edit leaves there can be taken away.
    "ALTER TABLE places ADD COLUMN settings TEXT;",
    // 3 → 4: keys whose value an import has not provably carried over.
    "CREATE TABLE decisions_4 (
        place    INTEGER NOT NULL,
        fold     TEXT NOT NULL,
        decision TEXT NOT NULL CHECK (decision IN ('approved', 'kept', 'unproven')),
        PRIMARY KEY (place, fold)
    ) WITHOUT ROWID;
    INSERT INTO decisions_4 SELECT place, fold, decision FROM decisions;
    DROP TABLE decisions;
    ALTER TABLE decisions_4 RENAME TO decisions;",
];

/// The version this program writes.
pub(super) const CURRENT: i64 = STEPS.len() as i64;

/// The version of an open database; 0 for a new one.
pub(super) fn version(connection: &Connection) -> Result<i64, DbError> {
    Ok(connection.query_row("PRAGMA user_version", [], |row| row.get(0))?)
}

/// Brings the database to [`CURRENT`], all steps in one transaction.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), DbError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have done it while this one waited.
    let from = version(&transaction)?;
    if from > CURRENT {
        return Err(DbError::Newer(from));
    }
    let done = usize::try_from(from).map_err(|_| DbError::Content(format!("version {from}")))?;
    for step in &STEPS[done..] {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", CURRENT)?;
    transaction.commit()?;
    Ok(())
}
