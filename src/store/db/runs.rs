//! The history of runs.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{DbError, from_json, nanos, time, to_json};
use crate::model::run::{RunRecord, RunStatus};
use crate::store::process::Process;
use crate::store::{Store, StoreError};

/// How many runs of each sync are kept.
const KEPT_RUNS: usize = 200;

const COLUMNS: &str = "id, sync, kind, cause, status, message, started_at, finished_at, counts, secrets, requests, process";
/// Without the per-secret outcomes, for overviews.
const BRIEF: &str = "id, sync, kind, cause, status, message, started_at, finished_at, counts, '[]', requests, process";

fn read(row: &Row<'_>) -> Result<(RunRecord, Option<Process>), DbError> {
    let word = |index: usize| -> Result<String, DbError> { Ok(row.get(index)?) };
    let unknown = |what: &str| DbError::Content(format!("a run's {what}"));
    let finished: Option<i64> = row.get(7)?;
    let process: Option<String> = row.get(11)?;
    let record = RunRecord {
        id: row.get(0)?,
        sync: row.get(1)?,
        kind: word(2)?.parse().map_err(|_| unknown("kind"))?,
        trigger: word(3)?.parse().map_err(|_| unknown("trigger"))?,
        status: word(4)?.parse().map_err(|_| unknown("status"))?,
        message: row.get(5)?,
        started_at: time(row.get(6)?),
        finished_at: finished.map(time),
        counts: from_json("a run's counts", &word(8)?)?,
        secrets: from_json("a run's outcomes", &word(9)?)?,
        requests: from_json("a run's requests", &word(10)?)?,
    };
    Ok((record, process.map(|p| from_json("a run's process", &p)).transpose()?))
}

fn put(connection: &Connection, record: &RunRecord, process: Option<&Process>) -> Result<(), DbError> {
    connection
        .prepare_cached(
            "INSERT INTO runs (id, sync, kind, cause, status, message, started_at, finished_at, counts, secrets, requests, process)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
             ON CONFLICT (id) DO UPDATE SET sync = excluded.sync, status = excluded.status, message = excluded.message,
             finished_at = excluded.finished_at, counts = excluded.counts, secrets = excluded.secrets,
             requests = excluded.requests, process = excluded.process",
        )?
        .execute(params![
            record.id,
            record.sync,
            record.kind.to_string(),
            record.trigger.to_string(),
            record.status.to_string(),
            record.message,
            nanos(record.started_at),
            record.finished_at.map(nanos),
            to_json(&record.counts)?,
            to_json(&record.secrets)?,
            to_json(&record.requests)?,
            process.map(to_json).transpose()?
        ])?;
    Ok(())
}

/// What an unfinished run of a dead process is.
fn interrupted(mut record: RunRecord, process: &Process) -> RunRecord {
    record.status = RunStatus::Interrupted;
    record.finished_at = Some(crate::model::now());
    record.message = Some(format!(
        "The process that ran it (pid {}) ended before the run did. What was written is recorded; the next run goes on from there.",
        process.pid
    ));
    record
}

impl Store {
    /// Records that a run began in this process. Until [`Store::finish_run`] it is in no history.
    pub fn begin_run(&self, record: &RunRecord) -> Result<(), StoreError> {
        self.db().write(|t| put(t, record, Some(&Process::me())))
    }

    /// Records how a run ended, and drops the oldest runs of its sync beyond 200.
    pub fn finish_run(&self, record: &RunRecord) -> Result<(), StoreError> {
        self.db().write(|t| {
            put(t, record, None)?;
            t.prepare_cached(
                "DELETE FROM runs WHERE sync = ?1 AND process IS NULL
                 AND seq <= (SELECT seq FROM runs WHERE sync = ?1 ORDER BY seq DESC LIMIT 1 OFFSET ?2)",
            )?
            .execute(params![record.sync, KEPT_RUNS as i64])?;
            Ok(())
        })
    }

    /// Ended runs of a sync, newest first. Runs that a dead process left open are shown as
    /// interrupted; runs still going are left out (their place is the live board).
    pub fn runs(&self, name: &str, limit: usize) -> Result<Vec<RunRecord>, StoreError> {
        self.select(&format!("SELECT {COLUMNS} FROM runs WHERE sync = ?1 ORDER BY seq DESC"), name, limit)
    }

    /// The newest ended run of a sync, without its per-secret outcomes.
    pub fn last_run(&self, name: &str) -> Result<Option<RunRecord>, StoreError> {
        Ok(self.select(&format!("SELECT {BRIEF} FROM runs WHERE sync = ?1 ORDER BY seq DESC"), name, 1)?.pop())
    }

    /// One run by id, ended or not.
    pub fn run(&self, id: &str) -> Result<Option<RunRecord>, StoreError> {
        self.db().read(|c| {
            let mut statement = c.prepare_cached(&format!("SELECT {COLUMNS} FROM runs WHERE id = ?1"))?;
            Ok(statement.query_row([id], |row| Ok(read(row))).optional()?.transpose()?.map(|(record, _)| record))
        })
    }

    fn select(&self, sql: &str, name: &str, limit: usize) -> Result<Vec<RunRecord>, StoreError> {
        self.db().read(|c| {
            let mut statement = c.prepare_cached(sql)?;
            let mut rows = statement.query([name])?;
            let mut out = Vec::new();
            while out.len() < limit
                && let Some(row) = rows.next()?
            {
                match read(row)? {
                    (record, None) => out.push(record),
                    (_, Some(process)) if process.alive() => {}
                    (record, Some(process)) => out.push(interrupted(record, &process)),
                }
            }
            Ok(out)
        })
    }

    /// Closes the runs that dead processes left open, and returns them. Call it with the
    /// engine's lock held, at start.
    pub fn mark_interrupted(&self) -> Result<Vec<RunRecord>, StoreError> {
        let open = |c: &Connection| -> Result<Vec<RunRecord>, DbError> {
            let mut statement = c.prepare_cached(&format!("SELECT {COLUMNS} FROM runs WHERE process IS NOT NULL ORDER BY seq"))?;
            let mut rows = statement.query([])?;
            let mut out = Vec::new();
            while let Some(row) = rows.next()? {
                if let (record, Some(process)) = read(row)?
                    && !process.alive()
                {
                    out.push(interrupted(record, &process));
                }
            }
            Ok(out)
        };
        if self.db().read(open)?.is_empty() {
            return Ok(Vec::new());
        }
        self.db().write(|t| {
            let dead = open(t)?;
            for record in &dead {
                put(t, record, None)?;
            }
            Ok(dead)
        })
    }
}
