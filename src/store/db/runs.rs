//! The history of runs.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{DbError, from_json, nanos, time, to_json};
use crate::model::run::{Counts, Outcome, RunRecord, RunStatus, SecretOutcome};
use crate::store::process::Process;
use crate::store::{EngineLock, Store, StoreError};

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

/// What a run that is still going tells of one key.
#[derive(Debug, Clone, PartialEq)]
pub struct Noted {
    /// The run's id.
    pub run: String,
    pub key: String,
    /// `None`: there is nothing to tell of this key any more.
    pub outcome: Option<SecretOutcome>,
}

/// An import is told beside what becomes of the same key at the destination.
fn side(outcome: Outcome) -> &'static str {
    if outcome == Outcome::Imported { "source" } else { "destination" }
}

/// Keeps what runs tell of their keys; later words replace earlier ones.
pub(super) fn note(connection: &Connection, noted: &[Noted]) -> Result<(), DbError> {
    let mut put = connection.prepare_cached("INSERT OR REPLACE INTO run_keys (run, key, side, outcome, at) VALUES (?1, ?2, ?3, ?4, ?5)")?;
    let mut drop = connection.prepare_cached("DELETE FROM run_keys WHERE run = ?1 AND key = ?2 AND side = 'destination'")?;
    for Noted { run, key, outcome } in noted {
        match outcome {
            Some(o) => put.execute(params![run, key, side(o.outcome), to_json(o)?, nanos(crate::model::now())])?,
            None => drop.execute([run, key])?,
        };
    }
    Ok(())
}

/// The fact that says until when an engine was seen to carry out its runs.
const SEEN: &str = "engine-seen";

#[derive(serde::Serialize, serde::Deserialize)]
struct Seen {
    process: Process,
    at: crate::model::Time,
}

/// When this process was last seen to carry out runs.
fn last_seen(connection: &Connection, process: &Process) -> Result<Option<crate::model::Time>, DbError> {
    let mut statement = connection.prepare_cached("SELECT value FROM facts WHERE key = ?1")?;
    let text: Option<String> = statement.query_row([SEEN], |row| row.get(0)).optional()?;
    let seen = text.and_then(|t| serde_json::from_str::<Seen>(&t).ok());
    Ok(seen.filter(|s| s.process == *process).map(|s| s.at))
}

/// An unfinished run as it is after the death of its process: what it recorded, and when it
/// recorded the last of it. The same however often and by whomever it is asked for.
fn interrupted(connection: &Connection, mut record: RunRecord, process: &Process) -> Result<RunRecord, DbError> {
    let mut statement = connection.prepare_cached("SELECT outcome, at FROM run_keys WHERE run = ?1")?;
    let mut rows = statement.query([&record.id])?;
    // One that only waited has no key to tell how long it lasted.
    let mut last = last_seen(connection, process)?.map_or(record.started_at, |seen| seen.max(record.started_at));
    while let Some(row) = rows.next()? {
        record.secrets.push(from_json("a run's outcome", &row.get::<_, String>(0)?)?);
        last = last.max(time(row.get(1)?));
    }
    record.secrets.sort_by(|a, b| (a.outcome.rank(), &a.key).cmp(&(b.outcome.rank(), &b.key)));
    record.secrets.iter().for_each(|s| record.counts.add(s.outcome));
    let open = record.secrets.iter().filter(|s| s.outcome == Outcome::NotReached).count();
    record.status = RunStatus::Interrupted;
    record.finished_at = Some(last);
    record.message = Some(format!(
        "The process that ran it (pid {}) ended before the run did: {} recorded as written, {open} announced and not confirmed. The next run goes on from there.",
        process.pid,
        record.counts.writes(),
    ));
    Ok(record)
}

/// Who may be carrying out the runs that are open.
enum Engine {
    /// The process that holds the state directory's engine, or nobody.
    Held(Option<Process>),
    /// The lock cannot be looked at.
    Unknown,
}

impl Engine {
    fn of(store: &Store) -> Self {
        EngineLock::holder(store.dirs()).map_or(Self::Unknown, |holder| Self::Held(holder.map(|h| h.process)))
    }

    /// True while that process carries out its runs. Only the engine's holder does: a process
    /// number says less, for it may belong to a zombie, or to somebody else by now.
    fn runs(&self, process: &Process) -> bool {
        *process == Process::me()
            || match self {
                Self::Held(holder) => holder.as_ref() == Some(process),
                Self::Unknown => process.alive(),
            }
    }
}

impl Store {
    /// Records that a run began in this process. Until [`Store::finish_run`] it is in no history.
    pub fn begin_run(&self, record: &RunRecord) -> Result<(), StoreError> {
        self.db().write(|t| put(t, record, Some(&Process::me())))
    }

    /// Notes that this process carries out its runs, in case that it dies before they end.
    pub fn note_seen(&self) {
        let seen = Seen { process: Process::me(), at: crate::model::now() };
        crate::model::Memory::put(self, SEEN, serde_json::to_value(&seen).unwrap_or_default());
    }

    /// Keeps what a run that is going has to tell so far: keys found unchanged, and outcomes.
    pub fn note_run(&self, id: &str, unchanged: u64, outcomes: &[SecretOutcome]) -> Result<(), StoreError> {
        let noted = |o: &SecretOutcome| Noted { run: id.to_string(), key: o.key.clone(), outcome: Some(o.clone()) };
        let noted: Vec<Noted> = outcomes.iter().map(noted).collect();
        let counts = Counts { unchanged, ..Counts::default() };
        self.db().write(|t| {
            t.prepare_cached("UPDATE runs SET counts = ?2 WHERE id = ?1")?.execute(params![id, to_json(&counts)?])?;
            note(t, &noted)
        })
    }

    /// Records how a run ended, and drops the oldest runs of its sync beyond 200.
    pub fn finish_run(&self, record: &RunRecord) -> Result<(), StoreError> {
        self.db().write(|t| {
            put(t, record, None)?;
            t.prepare_cached("DELETE FROM run_keys WHERE run = ?1")?.execute([&record.id])?;
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
        let last = self.select(&format!("SELECT {BRIEF} FROM runs WHERE sync = ?1 ORDER BY seq DESC"), name, 1)?.pop();
        Ok(last.map(|r| RunRecord { secrets: Vec::new(), ..r }))
    }

    /// One run by id: ended, interrupted, or (without an end) still going.
    pub fn run(&self, id: &str) -> Result<Option<RunRecord>, StoreError> {
        Ok(self.select(&format!("SELECT {COLUMNS} FROM runs WHERE id = ?1"), id, 1)?.pop().or(self.going(id)?))
    }

    fn going(&self, id: &str) -> Result<Option<RunRecord>, StoreError> {
        self.db().read(|c| {
            let mut statement = c.prepare_cached(&format!("SELECT {COLUMNS} FROM runs WHERE id = ?1"))?;
            Ok(statement.query_row([id], |row| Ok(read(row))).optional()?.transpose()?.map(|(record, _)| record))
        })
    }

    /// The first `limit` ended runs of a query with one parameter.
    fn select(&self, sql: &str, parameter: &str, limit: usize) -> Result<Vec<RunRecord>, StoreError> {
        let found = self.db().read(|c| {
            let mut statement = c.prepare_cached(sql)?;
            let mut rows = statement.query([parameter])?;
            let (mut out, mut ended) = (Vec::new(), 0);
            while ended < limit
                && let Some(row) = rows.next()?
            {
                let (record, process) = read(row)?;
                ended += usize::from(process.is_none());
                out.push((record, process));
            }
            Ok(out)
        })?;
        // Looked at outside the database: it may take a moment.
        let engine = found.iter().any(|(_, p)| p.is_some()).then(|| Engine::of(self));
        let going = |process: &Process| engine.as_ref().is_some_and(|e| e.runs(process));
        let mut out = Vec::new();
        for (record, process) in found {
            match process {
                None => out.push(record),
                Some(process) if going(&process) => {}
                Some(process) => out.push(self.db().read(|c| interrupted(c, record, &process))?),
            }
        }
        out.truncate(limit);
        Ok(out)
    }

    /// Closes the runs that dead processes left open, and returns them. Call it with the
    /// engine's lock held, at start.
    pub fn mark_interrupted(&self) -> Result<Vec<RunRecord>, StoreError> {
        let me = Process::me();
        let open = |c: &Connection| -> Result<Vec<RunRecord>, DbError> {
            let mut statement = c.prepare_cached(&format!("SELECT {COLUMNS} FROM runs WHERE process IS NOT NULL ORDER BY seq"))?;
            let mut rows = statement.query([])?;
            let mut out = Vec::new();
            while let Some(row) = rows.next()? {
                // Whoever began it gave the lock up, or it would not be ours.
                if let (record, Some(process)) = read(row)?
                    && process != me
                {
                    out.push(interrupted(c, record, &process)?);
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
                t.prepare_cached("DELETE FROM run_keys WHERE run = ?1")?.execute([&record.id])?;
            }
            Ok(dead)
        })
    }
}
