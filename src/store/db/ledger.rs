//! The ledger's rows: what each sync wrote where, intents before and confirmations after.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, params};

use super::runs::{Noted, note};
use super::{DbError, from_json, nanos, time, to_json};
use crate::model::ledger::{Ledger, LedgerRow, Other};
use crate::store::{Store, StoreError};

pub(super) fn place(connection: &Connection, sync_id: &str, target: &str) -> Result<Option<(i64, bool)>, DbError> {
    let mut statement = connection.prepare_cached("SELECT id, settled FROM places WHERE sync_id = ?1 AND target = ?2")?;
    Ok(statement.query_row([sync_id, target], |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
}

pub(super) fn make_place(connection: &Connection, sync_id: &str, target: &str) -> Result<i64, DbError> {
    if let Some((id, _)) = place(connection, sync_id, target)? {
        return Ok(id);
    }
    connection.execute("INSERT INTO places (sync_id, target) VALUES (?1, ?2)", [sync_id, target])?;
    Ok(connection.last_insert_rowid())
}

fn read_rows(connection: &Connection, place: i64) -> Result<HashMap<String, LedgerRow>, DbError> {
    let mut statement = connection.prepare_cached(
        "SELECT fold, key, source_key, remote_id, stamp, previous_stamp, value_hash, written_at, intent, detail FROM ledger WHERE place = ?1",
    )?;
    let mut rows = statement.query([place])?;
    let mut out = HashMap::new();
    while let Some(row) = rows.next()? {
        let fold: String = row.get(0)?;
        let intent: Option<String> = row.get(8)?;
        let detail: String = row.get(9)?;
        let row = LedgerRow {
            key: row.get(1)?,
            source_key: row.get(2)?,
            remote_id: row.get(3)?,
            stamp: row.get(4)?,
            previous_stamp: row.get(5)?,
            value_hash: row.get(6)?,
            written_at: time(row.get(7)?),
            intent: intent.map(|i| from_json("a ledger row's intent", &i)).transpose()?,
            detail: from_json("a ledger row's detail", &detail)?,
            fold: fold.clone(),
        };
        out.insert(fold, row);
    }
    Ok(out)
}

/// Every key that other syncs stand for at a target. Where several do, one that wrote it goes
/// before those that found it as they want it, and the later write before the earlier.
fn others(connection: &Connection, sync_id: &str, target: &str) -> Result<HashMap<String, Other>, DbError> {
    let places: Vec<(i64, String)> = connection
        .prepare_cached(
            "SELECT places.id, syncs.name FROM places JOIN syncs ON syncs.id = places.sync_id WHERE places.target = ?1 AND places.sync_id <> ?2",
        )?
        .query_map([target, sync_id], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    let mut out: HashMap<String, Other> = HashMap::new();
    let weight = |other: &Other| (!other.row.stands_beside(), other.row.written_at);
    for (place, sync) in places {
        for (fold, row) in read_rows(connection, place)?.into_iter().filter(|(_, r)| r.stands()) {
            let other = Other { sync: sync.clone(), row };
            if out.get(&fold).is_none_or(|known| weight(known) < weight(&other)) {
                out.insert(fold, other);
            }
        }
    }
    Ok(out)
}

fn pairs(connection: &Connection, sql: &str, params: impl rusqlite::Params) -> Result<Vec<(String, String)>, DbError> {
    let mut statement = connection.prepare_cached(sql)?;
    let found = statement.query_map(params, |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<Vec<_>, _>>()?;
    Ok(found)
}

fn upsert(connection: &Connection, place: i64, rows: &[LedgerRow]) -> Result<(), DbError> {
    let mut statement = connection.prepare_cached(
        "INSERT OR REPLACE INTO ledger
         (place, fold, key, source_key, remote_id, stamp, previous_stamp, value_hash, written_at, intent, detail)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?;
    for row in rows {
        let intent = row.intent.as_ref().map(to_json).transpose()?;
        statement.execute(params![
            place,
            row.fold,
            row.key,
            row.source_key,
            row.remote_id,
            row.stamp,
            row.previous_stamp,
            row.value_hash,
            nanos(row.written_at),
            intent,
            to_json(&row.detail)?
        ])?;
    }
    Ok(())
}

impl Store {
    /// Everything known of the past of one sync at one target.
    pub fn ledger(&self, sync_id: &str, target: &str) -> Result<Ledger, StoreError> {
        self.db().read(|c| {
            let mut ledger = Ledger::default();
            if let Some((place, settled)) = place(c, sync_id, target)? {
                ledger.settled = settled;
                ledger.rows = read_rows(c, place)?;
                for (fold, decision) in pairs(c, "SELECT fold, decision FROM decisions WHERE place = ?1", [place])? {
                    let set = match decision.as_str() {
                        "approved" => &mut ledger.approved,
                        "kept" => &mut ledger.kept,
                        _ => &mut ledger.unproven,
                    };
                    set.insert(fold);
                }
            }
            ledger.others = others(c, sync_id, target)?;
            ledger.other_objects = pairs(
                c,
                "SELECT DISTINCT ledger.remote_id, syncs.name FROM places
                 JOIN syncs ON syncs.id = places.sync_id
                 JOIN ledger ON ledger.place = places.id
                 WHERE places.target <> ?1 AND places.sync_id <> ?2
                 AND ledger.remote_id IS NOT NULL AND ledger.value_hash IS NOT NULL",
                [target, sync_id],
            )?
            .into_iter()
            .collect();
            Ok(ledger)
        })
    }

    /// Announces writes before they are sent: rows with `intent` set, durable together.
    pub fn intend(&self, sync_id: &str, target: &str, rows: &[LedgerRow]) -> Result<(), StoreError> {
        self.put_rows(sync_id, target, rows, &[])
    }

    /// Records rows after their writes (`intent` cleared by the caller), durable together.
    pub fn confirm(&self, sync_id: &str, target: &str, rows: &[LedgerRow]) -> Result<(), StoreError> {
        self.put_rows(sync_id, target, rows, &[])
    }

    /// Writes rows together with what the run they belong to has to tell of their keys, so that
    /// the history of a run that is cut off says neither more nor less than the ledger.
    pub fn put_rows(&self, sync_id: &str, target: &str, rows: &[LedgerRow], noted: &[Noted]) -> Result<(), StoreError> {
        if rows.is_empty() && noted.is_empty() {
            return Ok(());
        }
        self.db().write(|t| {
            if !rows.is_empty() {
                let place = make_place(t, sync_id, target)?;
                upsert(t, place, rows)?;
            }
            note(t, noted)
        })
    }

    /// Forgets rows of keys that are gone from the target, with the decisions about them.
    pub fn forget_rows(&self, sync_id: &str, target: &str, folds: &[String]) -> Result<(), StoreError> {
        if folds.is_empty() {
            return Ok(());
        }
        self.db().write(|t| {
            let Some((place, _)) = place(t, sync_id, target)? else {
                return Ok(());
            };
            let mut row = t.prepare_cached("DELETE FROM ledger WHERE place = ?1 AND fold = ?2")?;
            let mut approval = t.prepare_cached("DELETE FROM decisions WHERE place = ?1 AND fold = ?2 AND decision <> 'kept'")?;
            for fold in folds {
                row.execute(params![place, fold])?;
                approval.execute(params![place, fold])?;
            }
            Ok(())
        })
    }

    /// The operator agreed that these keys are deleted or overwritten.
    pub fn approve(&self, sync_id: &str, target: &str, folds: &[String]) -> Result<(), StoreError> {
        self.decide(sync_id, target, folds, "approved")
    }

    /// The operator keeps these foreign keys, always. Where an import left a key in doubt, what
    /// stands there is no longer what this sync wrote: its row goes.
    pub fn keep(&self, sync_id: &str, target: &str, folds: &[String]) -> Result<(), StoreError> {
        let unproven = self.ledger(sync_id, target)?.unproven;
        let foreign: Vec<String> = folds.iter().filter(|f| unproven.contains(*f)).cloned().collect();
        self.forget_rows(sync_id, target, &foreign)?;
        self.decide(sync_id, target, folds, "kept")
    }

    /// An import is about to carry the values of these keys into the source, or could not: until
    /// it is proved that they arrived whole, nothing overwrites them unasked. Durable before the
    /// first request, so that a run that dies half-way leaves no key behind that the next one
    /// would overwrite with half a value.
    pub fn doubt(&self, sync_id: &str, target: &str, folds: &[String]) -> Result<(), StoreError> {
        self.decide_with("INSERT OR IGNORE", sync_id, target, folds, "unproven")
    }

    /// Both sides hold the same value of these keys, or the operator decided about them.
    pub fn trust(&self, sync_id: &str, target: &str, folds: &[String]) -> Result<(), StoreError> {
        if folds.is_empty() {
            return Ok(());
        }
        self.db().write(|t| {
            let Some((place, _)) = place(t, sync_id, target)? else {
                return Ok(());
            };
            let mut statement = t.prepare_cached("DELETE FROM decisions WHERE place = ?1 AND fold = ?2 AND decision = 'unproven'")?;
            for fold in folds {
                statement.execute(params![place, fold])?;
            }
            Ok(())
        })
    }

    fn decide(&self, sync_id: &str, target: &str, folds: &[String], decision: &str) -> Result<(), StoreError> {
        self.decide_with("INSERT OR REPLACE", sync_id, target, folds, decision)
    }

    fn decide_with(&self, how: &str, sync_id: &str, target: &str, folds: &[String], decision: &str) -> Result<(), StoreError> {
        if folds.is_empty() {
            return Ok(());
        }
        self.db().write(|t| {
            let place = make_place(t, sync_id, target)?;
            let mut statement = t.prepare_cached(&format!("{how} INTO decisions (place, fold, decision) VALUES (?1, ?2, ?3)"))?;
            for fold in folds {
                statement.execute(params![place, fold, decision])?;
            }
            Ok(())
        })
    }

    /// Forgets approvals: they were used, or the operator took them back. Kept keys stay kept.
    pub fn clear_approved(&self, sync_id: &str, target: &str) -> Result<(), StoreError> {
        self.db().write(|t| {
            t.execute(
                "DELETE FROM decisions WHERE decision = 'approved'
                 AND place = (SELECT id FROM places WHERE sync_id = ?1 AND target = ?2)",
                [sync_id, target],
            )?;
            Ok(())
        })
    }
}
