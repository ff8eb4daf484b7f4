//! What the machine knows of each sync beside its configuration; poll cursors; small facts.

use rusqlite::{Connection, OptionalExtension, params};
use serde_json::Value;

use super::{DbError, from_json, nanos, time, to_json};
use crate::model::sync::SyncState;
use crate::model::{Memory, Time};
use crate::store::{Store, StoreError};

/// Where the polling of one source stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// The tag of the last answer, to be given with the next request.
    pub etag: Option<String>,
    pub checked_at: Time,
    /// When the source was last seen to differ.
    pub changed_at: Option<Time>,
}

fn find(connection: &Connection, name: &str) -> Result<Option<SyncState>, DbError> {
    let text: Option<String> =
        connection.prepare_cached("SELECT state FROM syncs WHERE name = ?1")?.query_row([name], |row| row.get(0)).optional()?;
    text.map(|t| from_json(&format!("the state of sync {name}"), &t)).transpose()
}

fn put(connection: &Connection, name: &str, state: &SyncState) -> Result<(), DbError> {
    connection
        .prepare_cached(
            "INSERT INTO syncs (name, id, state) VALUES (?1, ?2, ?3)
             ON CONFLICT (name) DO UPDATE SET id = excluded.id, state = excluded.state",
        )?
        .execute(params![name, state.id, to_json(state)?])?;
    Ok(())
}

fn forget(connection: &Connection, name: &str) -> Result<(), DbError> {
    const OF_SYNC: &str = "IN (SELECT places.id FROM places JOIN syncs ON syncs.id = places.sync_id WHERE syncs.name = ?1)";
    connection.execute(&format!("DELETE FROM ledger WHERE place {OF_SYNC}"), [name])?;
    connection.execute(&format!("DELETE FROM decisions WHERE place {OF_SYNC}"), [name])?;
    connection.execute("DELETE FROM places WHERE sync_id = (SELECT id FROM syncs WHERE name = ?1)", [name])?;
    connection.execute("DELETE FROM run_keys WHERE run IN (SELECT id FROM runs WHERE sync = ?1)", [name])?;
    connection.execute("DELETE FROM runs WHERE sync = ?1", [name])?;
    connection.execute("DELETE FROM syncs WHERE name = ?1", [name])?;
    Ok(())
}

impl Store {
    /// The state of a sync; made (new id, version 1) when there is none yet.
    pub fn sync_state(&self, name: &str) -> Result<SyncState, StoreError> {
        if let Some(state) = self.db().read(|c| find(c, name))? {
            return Ok(state);
        }
        self.db().write(|t| {
            // Another process may have made it in between.
            if let Some(state) = find(t, name)? {
                return Ok(state);
            }
            let state = SyncState::fresh();
            put(t, name, &state)?;
            Ok(state)
        })
    }

    /// The states of several syncs in their order, in one go.
    pub fn sync_states(&self, names: &[String]) -> Result<Vec<SyncState>, StoreError> {
        let found = self.db().read(|c| names.iter().map(|n| find(c, n)).collect::<Result<Vec<_>, _>>())?;
        if found.iter().all(Option::is_some) {
            return Ok(found.into_iter().flatten().collect());
        }
        self.db().write(|t| {
            let mut out = Vec::with_capacity(names.len());
            for name in names {
                let state = match find(t, name)? {
                    Some(state) => state,
                    None => {
                        let state = SyncState::fresh();
                        put(t, name, &state)?;
                        state
                    }
                };
                out.push(state);
            }
            Ok(out)
        })
    }

    /// Stores the state of a sync.
    pub fn save_sync_state(&self, name: &str, state: &SyncState) -> Result<(), StoreError> {
        self.db().write(|t| put(t, name, state))
    }

    /// The name of the sync with this id.
    pub fn sync_name(&self, id: &str) -> Result<Option<String>, StoreError> {
        self.db().read(|c| Ok(c.query_row("SELECT name FROM syncs WHERE id = ?1", [id], |row| row.get(0)).optional()?))
    }

    /// Names of all syncs with a state, whether their file still exists or not.
    pub fn known_syncs(&self) -> Result<Vec<String>, StoreError> {
        self.db().read(|c| {
            let mut statement = c.prepare_cached("SELECT name FROM syncs ORDER BY name")?;
            let names = statement.query_map([], |row| row.get(0))?.collect::<Result<Vec<_>, _>>()?;
            Ok(names)
        })
    }

    /// Gives the state, ledger and history of a sync another name. A state left over under the
    /// new name is forgotten. The files are the caller's business.
    pub fn rename_sync(&self, old: &str, new: &str) -> Result<(), StoreError> {
        if old == new {
            return Ok(());
        }
        self.db().write(|t| {
            forget(t, new)?;
            t.execute("UPDATE syncs SET name = ?2 WHERE name = ?1", [old, new])?;
            t.execute("UPDATE runs SET sync = ?2 WHERE sync = ?1", [old, new])?;
            Ok(())
        })
    }

    /// Forgets state, ledger, decisions and history of a sync.
    pub fn forget_sync(&self, name: &str) -> Result<(), StoreError> {
        self.db().write(|t| forget(t, name))
    }

    /// Where the polling of a source stands.
    pub fn cursor(&self, source: &str) -> Result<Option<Cursor>, StoreError> {
        self.db().read(|c| {
            let mut statement = c.prepare_cached("SELECT etag, checked_at, changed_at FROM cursors WHERE source = ?1")?;
            let cursor = statement.query_row([source], |row| {
                let changed: Option<i64> = row.get(2)?;
                Ok(Cursor { etag: row.get(0)?, checked_at: time(row.get(1)?), changed_at: changed.map(time) })
            });
            Ok(cursor.optional()?)
        })
    }

    /// Records where the polling of a source stands.
    pub fn set_cursor(&self, source: &str, cursor: &Cursor) -> Result<(), StoreError> {
        self.db().write_lightly(|t| {
            t.prepare_cached("INSERT OR REPLACE INTO cursors (source, etag, checked_at, changed_at) VALUES (?1, ?2, ?3, ?4)")?.execute(params![
                source,
                cursor.etag,
                nanos(cursor.checked_at),
                cursor.changed_at.map(nanos)
            ])?;
            Ok(())
        })
    }
}

/// Facts are a convenience: a failure to keep one is logged and costs speed only.
impl Memory for Store {
    fn get(&self, key: &str) -> Option<Value> {
        let read = self.db().read(|c| {
            let mut statement = c.prepare_cached("SELECT value FROM facts WHERE key = ?1")?;
            let text: Option<String> = statement.query_row([key], |row| row.get(0)).optional()?;
            text.map(|t| from_json("a fact", &t)).transpose()
        });
        read.unwrap_or_else(|error| {
            tracing::warn!(%error, "a remembered fact could not be read");
            None
        })
    }

    fn put(&self, key: &str, value: Value) {
        if self.get(key).as_ref() == Some(&value) {
            return;
        }
        let written = self.db().write_lightly(|t| {
            t.prepare_cached("INSERT OR REPLACE INTO facts (key, value) VALUES (?1, ?2)")?.execute(params![key, to_json(&value)?])?;
            Ok(())
        });
        if let Err(error) = written {
            tracing::warn!(%error, "a fact could not be remembered");
        }
    }
}
