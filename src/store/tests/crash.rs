//! What a crash leaves: the old file or the new one, and every row that was confirmed.

use std::io::Write;
use std::path::Path;

use super::super::files::{self, Access};
use super::super::process::Process;
use super::super::{Settings, Store, StoreErrorKind};
use super::{Room, await_line, database::row, dirs_in, spawn, spawn_limited};
use crate::model::run::{Outcome, RunStatus, SecretOutcome};
use crate::store::Noted;

#[test]
fn a_write_that_does_not_end_leaves_the_old_file_alone() {
    let room = Room::new();
    let path = room.put("config/settings.json", "old", 0o600);
    let staged = files::stage(&path, b"new").unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
    drop(staged);
    assert_eq!(std::fs::read_dir(room.path("config")).unwrap().count(), 1, "nothing is left beside it");
    files::write(&path, b"new").unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
}

#[test]
fn the_first_of_two_writers_makes_a_new_file() {
    let room = Room::new();
    let path = room.path("config/key");
    assert!(files::stage(&path, b"a").unwrap().commit_new().unwrap());
    assert!(!files::stage(&path, b"b").unwrap().commit_new().unwrap());
    assert_eq!(&*files::read(&path, Access::Private).unwrap().unwrap(), "a");
}

/// Writes settings of ever greater intervals until it is killed.
pub fn child_writes_files(root: &Path) {
    let store = Store::open(dirs_in(root)).unwrap();
    for n in 0u64.. {
        let hook = Some(vec!["x".repeat(20_000)]);
        store.write_settings(&Settings { poll_interval_secs: 10 + n % 80_000, on_change: hook, ..Settings::default() }).unwrap();
        if n == 3 {
            println!("going");
        }
    }
}

#[test]
fn killed_at_any_moment_the_settings_are_whole() {
    let room = Room::new();
    for round in 0..6u64 {
        let mut child = spawn("write-files", room.dir.path(), &[]);
        await_line(&mut child, "going");
        // Any moment will do; these differ from round to round.
        std::thread::sleep(std::time::Duration::from_micros(700 * round + 130));
        child.kill().unwrap();
        child.wait().unwrap();
        let settings = room.store.settings().unwrap();
        assert_eq!(settings.on_change.unwrap()[0].len(), 20_000);
    }
}

/// Begins a run, then confirms rows one by one and says each number once it is durable.
pub fn child_writes_ledger(root: &Path) {
    let store = Store::open(dirs_in(root)).unwrap();
    store.begin_run(&super::database::run("run-1", "one")).unwrap();
    for n in 0.. {
        let mut row = row(&format!("K{n}"), "hash");
        store.intend("sync-1", "aws:x", &[super::database::intending(row.clone())]).unwrap();
        row.stamp = Some(format!("v{n}"));
        let outcome =
            |what, reason: Option<&str>| SecretOutcome { key: row.key.clone(), source_key: None, outcome: what, reason: reason.map(Into::into) };
        let noted = |o| Noted { run: "run-1".into(), key: format!("K{n}"), outcome: Some(o) };
        store.put_rows("sync-1", "aws:x", &[], &[noted(outcome(Outcome::NotReached, Some("announced")))]).unwrap();
        let done = noted(outcome(Outcome::Created, None));
        store.put_rows("sync-1", "aws:x", &[row], &[done]).unwrap();
        println!("done {n}");
        let _ = std::io::stdout().flush();
    }
}

#[test]
fn killed_at_any_moment_every_confirmed_row_is_there() {
    let room = Room::new();
    let mut child = spawn("write-ledger", room.dir.path(), &[]);
    let mut last = 0;
    while last < 25 {
        last = await_line(&mut child, "done ").parse().unwrap();
    }
    child.kill().unwrap();
    child.wait().unwrap();

    let ledger = room.store.ledger("sync-1", "aws:x").unwrap();
    for n in 0..=last {
        let row = &ledger.rows[&format!("K{n}")];
        assert_eq!((row.stamp.as_deref(), row.intent.is_none()), (Some(&*format!("v{n}")), true));
    }
    assert!(ledger.rows.values().filter(|r| r.intent.is_some()).count() <= 1);

    let history = room.store.runs("one", 10).unwrap();
    assert_eq!(history[0].status, RunStatus::Interrupted, "told even before an engine starts again");
    // The record says what the ledger says, and the same however often it is asked for.
    let confirmed = ledger.rows.values().filter(|r| r.intent.is_none()).count();
    let told = |o: Outcome| history[0].secrets.iter().filter(|s| s.outcome == o).count();
    assert_eq!((history[0].counts.created as usize, told(Outcome::Created)), (confirmed, confirmed));
    assert!(told(Outcome::NotReached) <= 1);
    let until = history[0].finished_at.unwrap();
    assert!(until > history[0].started_at && until <= crate::model::now());
    assert_eq!(room.again().runs("one", 10).unwrap(), history);
    assert_eq!(room.store.run("run-1").unwrap().as_ref(), history.first());
    let marked = room.store.mark_interrupted().unwrap();
    assert_eq!((marked.len(), marked[0].id.as_str(), marked[0].status), (1, "run-1", RunStatus::Interrupted));
    assert!(marked[0].message.as_ref().unwrap().contains(&child.id().to_string()));
    assert!(room.store.mark_interrupted().unwrap().is_empty());
    assert_eq!(room.store.runs("one", 10).unwrap(), marked);
    assert_eq!(marked, history, "written down as it was told");
}

#[test]
fn a_run_of_this_process_is_not_interrupted() {
    let room = Room::new();
    room.store.begin_run(&super::database::run("run-1", "one")).unwrap();
    assert!(room.store.mark_interrupted().unwrap().is_empty());
    assert!(room.store.runs("one", 10).unwrap().is_empty(), "it is not history yet");
    assert!(room.store.run("run-1").unwrap().is_some());
    assert!(Process::me().alive());
}

/// Writes until the limit on file sizes stops it, and says what happened.
pub fn child_meets_a_full_disk(root: &Path) {
    let store = Store::open(dirs_in(root)).unwrap();
    let big = Settings { on_change: Some(vec!["x".repeat(900_000)]), ..Settings::default() };
    let error = store.write_settings(&big).unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Full, "{error}");
    assert_eq!(store.settings().unwrap().max_runs, 7, "the old file is unharmed");

    let mut confirmed = 0;
    let error = loop {
        match store.confirm("sync-1", "aws:x", &[row(&format!("K{confirmed}"), &"h".repeat(4000))]) {
            Ok(()) => confirmed += 1,
            Err(error) => break error,
        }
    };
    assert!(error.path.is_some(), "{error}");
    println!("confirmed {confirmed}");
}

#[test]
fn a_full_disk_harms_nothing_that_was_there() {
    let room = Room::new();
    room.store.write_settings(&Settings { max_runs: 7, ..Settings::default() }).unwrap();
    let mut child = spawn_limited("full", room.dir.path(), 600);
    let confirmed: usize = await_line(&mut child, "confirmed ").parse().unwrap();
    assert!(child.wait().unwrap().success() && confirmed > 10);
    assert_eq!(room.store.settings().unwrap().max_runs, 7);
    assert_eq!(std::fs::read_dir(room.path("config")).unwrap().count(), 1, "no half file is left");
    let ledger = room.store.ledger("sync-1", "aws:x").unwrap();
    assert!((0..confirmed).all(|n| ledger.rows.contains_key(&format!("K{n}"))));
    room.store.confirm("sync-1", "aws:x", &[row("later", "h")]).unwrap();
    assert!(super::super::doctor(&room.again()).iter().all(|f| f.ok));
}

#[test]
fn a_process_that_lives_without_the_engine_runs_nothing() {
    let room = Room::new();
    room.store.begin_run(&super::database::run("run-1", "one")).unwrap();
    // Somebody who lives, and says nothing of when he began: a zombie, or a number used again.
    let other = format!("{{\"pid\":{}}}", std::os::unix::process::parent_id());
    assert!(serde_json::from_str::<Process>(&other).unwrap().alive());
    let raw = rusqlite::Connection::open(room.path("state/kms-sync.db")).unwrap();
    raw.execute("UPDATE runs SET process = ?1", [&other]).unwrap();
    assert_eq!(room.store.runs("one", 5).unwrap()[0].status, RunStatus::Interrupted);
    assert_eq!(room.store.last_run("one").unwrap().unwrap().status, RunStatus::Interrupted);

    // The engine is held, by another process than the one that began it.
    let _lock = super::super::EngineLock::acquire(room.store.dirs(), "test").unwrap();
    assert_eq!(room.store.runs("one", 5).unwrap()[0].status, RunStatus::Interrupted);
    // By that very one: it goes on.
    let holder = std::fs::read_to_string(room.path("state/engine.lock")).unwrap();
    let mut holder: serde_json::Value = serde_json::from_str(&holder).unwrap();
    holder["pid"] = std::os::unix::process::parent_id().into();
    holder["mark"] = "".into();
    std::fs::write(room.path("state/engine.lock"), holder.to_string()).unwrap();
    assert!(room.store.runs("one", 5).unwrap().is_empty());
    assert!(room.store.run("run-1").unwrap().is_some_and(|r| r.finished_at.is_none()));
}
