//! Migrations, ledger, decisions, history, cursors, facts; several users at once.

use rusqlite::Connection;
use serde_json::json;

use super::super::{Cursor, Store, StoreErrorKind};
use super::Room;
use crate::model::ledger::{Intent, LedgerRow, PlaceSettings};
use crate::model::run::{Counts, Outcome, Requests, RunKind, RunRecord, RunStatus, SecretOutcome, Trigger};
use crate::model::sync::JobStatus;
use crate::model::{Memory, SecretValue};

pub fn row(fold: &str, hash: &str) -> LedgerRow {
    LedgerRow {
        fold: fold.into(),
        key: fold.to_uppercase(),
        source_key: format!("SRC_{fold}"),
        remote_id: Some(format!("arn:{fold}")),
        stamp: None,
        previous_stamp: Some("v0".into()),
        value_hash: Some(hash.into()),
        written_at: crate::model::now(),
        intent: None,
        detail: json!({"tags": ["a", "b"]}),
    }
}

pub fn intending(mut row: LedgerRow) -> LedgerRow {
    row.intent = Some(Intent { action: "create".into(), token: "tok".into(), value_hash: Some("next".into()), at: crate::model::now() });
    row
}

pub fn run(id: &str, sync: &str) -> RunRecord {
    RunRecord {
        id: id.into(),
        sync: sync.into(),
        kind: RunKind::Sync,
        trigger: Trigger::Manual,
        status: RunStatus::Interrupted,
        message: None,
        started_at: crate::model::now(),
        finished_at: None,
        counts: Counts::default(),
        secrets: Vec::new(),
        requests: Requests::default(),
    }
}

fn folds(words: &[&str]) -> Vec<String> {
    words.iter().map(|w| w.to_string()).collect()
}

fn state_of(room: &Room) -> Connection {
    Connection::open(room.path("state/kms-sync.db")).unwrap()
}

#[test]
fn a_new_database_is_made_on_first_use_only() {
    let room = Room::new();
    assert!(!room.path("state/kms-sync.db").exists());
    let state = room.store.sync_state("one").unwrap();
    assert_eq!((state.version, room.again().sync_state("one").unwrap()), (1, state));
    let raw = state_of(&room);
    assert_eq!(raw.query_row("PRAGMA journal_mode", [], |r| r.get::<_, String>(0)).unwrap(), "wal");
    assert_eq!(raw.query_row("PRAGMA user_version", [], |r| r.get::<_, i64>(0)).unwrap(), 4);
}

#[test]
fn a_database_of_the_first_version_is_brought_up_to_date() {
    let room = Room::new();
    let mut ended = run("r1", "one");
    ended.finished_at = Some(crate::model::now());
    room.store.finish_run(&ended).unwrap();
    state_of(&room).execute_batch("DROP TABLE run_keys; ALTER TABLE places DROP COLUMN settings; PRAGMA user_version=1").unwrap();
    let store = room.again();
    assert_eq!(store.runs("one", 5).unwrap(), [ended]);
    store.doubt("s1", "aws:x", &folds(&["a"])).unwrap();
    store.note_run("r2", 0, &[]).unwrap();
    store.forget_sync("one").unwrap();
}

#[test]
fn a_newer_database_is_refused_and_left_alone() {
    let room = Room::new();
    room.store.sync_state("one").unwrap();
    state_of(&room).pragma_update(None, "user_version", 999).unwrap();
    let error = room.again().sync_state("one").unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Database);
    assert!(error.text().contains("newer kms-sync") && error.fix.is_some(), "{error}");
    state_of(&room).pragma_update(None, "user_version", 4).unwrap();
    assert!(room.again().sync_state("one").is_ok());
}

#[test]
fn a_garbled_database_is_reported_and_moved_aside_on_request() {
    let room = Room::new();
    for garbage in [vec![b'x'; 5000], b"SQLite format 3\0 and then nothing".to_vec(), vec![0; 4096]] {
        room.put("state/kms-sync.db", &garbage, 0o600);
        let store = room.again();
        let error = store.sync_state("one").unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Database, "{error}");
        assert!(error.text().contains("mv "), "{error}");
        assert!(super::super::doctor(&store).iter().any(|f| !f.ok && f.what == "state database"));
        let aside = store.move_aside_database().unwrap().unwrap();
        assert_eq!(std::fs::read(&aside).unwrap(), garbage, "nothing is thrown away");
        assert_eq!(store.sync_state("one").unwrap().version, 1, "a new one takes its place");
        std::fs::remove_file(aside).unwrap();
        store.move_aside_database().unwrap();
    }
}

#[test]
fn a_row_that_cannot_be_read_is_an_error_without_its_content() {
    let room = Room::new();
    room.store.sync_state("one").unwrap();
    state_of(&room).execute("UPDATE syncs SET state = 'canary-77'", []).unwrap();
    let error = room.again().sync_state("one").unwrap_err();
    assert!(error.kind == StoreErrorKind::Database && !error.text().contains("canary"), "{error}");
}

#[test]
fn states_are_kept_renamed_and_forgotten() {
    let room = Room::new();
    let mut state = room.store.sync_state("old").unwrap();
    state.version = 7;
    state.sync.status = Some(JobStatus::Succeeded);
    state.sync.at = Some(crate::model::now());
    state.environment_name = Some("Production".into());
    room.store.save_sync_state("old", &state).unwrap();
    room.store.confirm(&state.id, "aws:x", &[row("A", "h")]).unwrap();
    room.store.finish_run(&run("r1", "old")).unwrap();
    room.store.sync_state("new").unwrap();

    room.store.rename_sync("old", "new").unwrap();
    assert_eq!(room.store.sync_state("new").unwrap(), state);
    assert_eq!(room.store.runs("new", 9).unwrap()[0].sync, "new");
    assert_eq!(room.store.known_syncs().unwrap(), ["new"]);
    assert_eq!(room.store.sync_name(&state.id).unwrap().as_deref(), Some("new"));
    assert_eq!(room.store.ledger(&state.id, "aws:x").unwrap().rows.len(), 1);

    room.store.forget_sync("new").unwrap();
    assert!(room.store.known_syncs().unwrap().is_empty() && room.store.runs("new", 9).unwrap().is_empty());
    assert!(room.store.ledger(&state.id, "aws:x").unwrap().rows.is_empty());
    let raw = state_of(&room);
    for table in ["syncs", "places", "ledger", "decisions", "runs"] {
        assert_eq!(raw.query_row(&format!("SELECT count(*) FROM {table}"), [], |r| r.get::<_, i64>(0)).unwrap(), 0, "{table}");
    }
}

#[test]
fn many_states_come_in_order_and_are_made_when_missing() {
    let room = Room::new();
    let b = room.store.sync_state("b").unwrap();
    let states = room.store.sync_states(&folds(&["c", "b", "a"])).unwrap();
    assert_eq!((states.len(), &states[1]), (3, &b));
    assert_eq!(room.store.sync_states(&folds(&["a", "c"])).unwrap(), [states[2].clone(), states[0].clone()]);
}

#[test]
fn ledger_rows_read_back_as_written() {
    let room = Room::new();
    let (a, b) = (intending(row("a", "h1")), LedgerRow { remote_id: None, value_hash: None, previous_stamp: None, ..row("b", "") });
    room.store.intend("s1", "aws:x", &[a.clone(), b.clone()]).unwrap();
    let ledger = room.again().ledger("s1", "aws:x").unwrap();
    assert_eq!((&ledger.rows["a"], &ledger.rows["b"], ledger.rows.len()), (&a, &b, 2));
    assert!(!ledger.settled && ledger.others.is_empty());

    let confirmed = LedgerRow { intent: None, stamp: Some("v1".into()), ..a };
    room.store.confirm("s1", "aws:x", std::slice::from_ref(&confirmed)).unwrap();
    assert_eq!(room.store.ledger("s1", "aws:x").unwrap().rows["a"], confirmed);
    assert!(room.store.ledger("s1", "aws:y").unwrap().rows.is_empty(), "targets are apart");
    assert!(room.store.ledger("s2", "aws:x").unwrap().rows.is_empty(), "syncs are apart");

    room.store.forget_rows("s1", "aws:x", &folds(&["a", "nothing"])).unwrap();
    assert_eq!(room.store.ledger("s1", "aws:x").unwrap().rows.len(), 1);
    room.store.confirm("s1", "aws:y", &[row("z", "h")]).unwrap();
    let places = || room.store.places("s1").unwrap().into_iter().map(|p| (p.target, p.keys.len())).collect::<Vec<_>>();
    assert_eq!(places(), [("aws:y".to_string(), 1)], "a row that was never confirmed or announced stands for nothing");
    room.store.confirm("s1", "aws:x", &[row("a", "h")]).unwrap();
    assert_eq!(places(), [("aws:x".to_string(), 1), ("aws:y".to_string(), 1)]);
    room.store.forget_target("s1", "aws:x").unwrap();
    assert_eq!(places(), [("aws:y".to_string(), 1)]);
}

#[test]
fn a_place_knows_how_it_was_reached_and_asks_when_that_changes() {
    let room = Room::new();
    let config = |options: serde_json::Value| PlaceSettings {
        config: serde_json::from_value(
            serde_json::json!({"name": "s", "projectId": "p", "connectionId": "c", "environment": "dev", "secretPath": "/",
            "isEnabled": true, "syncOptions": options, "destination": "aws-secrets-manager", "destinationConfig": {}}),
        )
        .unwrap(),
        environment_name: Some("Development".into()),
    };
    let safe = config(serde_json::json!({"initialSyncBehavior": "overwrite-destination", "disableSecretDeletion": true}));
    let risky = config(serde_json::json!({"initialSyncBehavior": "overwrite-destination"}));
    room.store.note_place("s1", "aws:x", &safe).unwrap();
    room.store.settle("s1", "aws:x").unwrap();
    room.store.note_place("s1", "aws:x", &safe).unwrap();
    let settled = || room.store.ledger("s1", "aws:x").unwrap().settled;
    assert!(settled());
    assert_eq!(room.again().place_settings("s1", "aws:x").unwrap(), Some(safe.clone()));
    room.store.note_place("s1", "aws:x", &risky).unwrap();
    assert!(!settled(), "it may delete from now on");
    room.store.settle("s1", "aws:x").unwrap();
    room.store.note_place("s1", "aws:x", &safe).unwrap();
    assert!(settled(), "it deletes less than before");
    assert_eq!(room.store.place_settings("s1", "aws:y").unwrap(), None);
}

#[test]
fn others_are_the_keys_of_other_syncs_at_the_same_target() {
    let room = Room::new();
    let ids: Vec<String> = ["one", "two", "three"].iter().map(|n| room.store.sync_state(n).unwrap().id).collect();
    room.store.confirm(&ids[0], "aws:x", &[row("mine", "h")]).unwrap();
    room.store.confirm(&ids[1], "aws:x", &[row("theirs", "h")]).unwrap();
    room.store.intend(&ids[1], "aws:x", &[intending(row("coming", "h"))]).unwrap();
    room.store.confirm(&ids[2], "aws:elsewhere", &[row("far", "h")]).unwrap();

    let ledger = room.store.ledger(&ids[0], "aws:x").unwrap();
    assert_eq!(ledger.rows.keys().collect::<Vec<_>>(), ["mine"]);
    let mut others: Vec<_> = ledger.others.iter().map(|(k, v)| (k.as_str(), v.sync.as_str())).collect();
    others.sort();
    assert_eq!(others, [("coming", "two"), ("theirs", "two")]);

    // Of two that stand for one key, the one that wrote it speaks, however late the other found it.
    let mut found = LedgerRow { written_at: crate::model::now(), ..row("theirs", "h") };
    found.stand_beside(true);
    room.store.confirm(&ids[2], "aws:x", &[found]).unwrap();
    assert_eq!(room.store.ledger(&ids[0], "aws:x").unwrap().others["theirs"].sync, "two");
    assert_eq!(room.store.ledger(&ids[1], "aws:x").unwrap().others["theirs"].sync, "three");

    room.store.rename_sync("two", "deux").unwrap();
    assert_eq!(room.store.ledger(&ids[0], "aws:x").unwrap().others["theirs"].sync, "deux");
    room.store.forget_sync("deux").unwrap();
    room.store.forget_sync("three").unwrap();
    assert!(room.store.ledger(&ids[0], "aws:x").unwrap().others.is_empty());
}

#[test]
fn decisions_and_settling() {
    let room = Room::new();
    let store = &room.store;
    store.approve("s1", "aws:x", &folds(&["a", "b"])).unwrap();
    store.keep("s1", "aws:x", &folds(&["b", "c"])).unwrap();
    let ledger = store.ledger("s1", "aws:x").unwrap();
    assert!(ledger.approved.len() == 1 && ledger.approved.contains("a"));
    assert!(ledger.kept.len() == 2 && ledger.kept.contains("b"), "the later word counts");
    store.clear_approved("s1", "aws:x").unwrap();
    let ledger = store.ledger("s1", "aws:x").unwrap();
    assert!(ledger.approved.is_empty() && ledger.kept.len() == 2);

    // What an import left in doubt stays so until both sides agree or the operator decides.
    store.confirm("s1", "aws:x", &[row("d", "h"), row("e", "h")]).unwrap();
    store.doubt("s1", "aws:x", &folds(&["b", "d", "e", "f", "g"])).unwrap();
    assert_eq!(room.again().ledger("s1", "aws:x").unwrap().unproven.len(), 4, "a kept key stays kept");
    store.trust("s1", "aws:x", &folds(&["b", "g"])).unwrap();
    store.approve("s1", "aws:x", &folds(&["f"])).unwrap();
    store.clear_approved("s1", "aws:x").unwrap();
    store.keep("s1", "aws:x", &folds(&["d"])).unwrap();
    let ledger = store.ledger("s1", "aws:x").unwrap();
    assert_eq!(ledger.unproven.into_iter().collect::<Vec<_>>(), ["e"]);
    assert_eq!(ledger.rows.into_keys().collect::<Vec<_>>(), ["e"], "what is kept out of doubt is not ours");
    store.forget_target("s1", "aws:x").unwrap();
    store.keep("s1", "aws:x", &folds(&["b", "c"])).unwrap();

    store.settle("s1", "aws:x").unwrap();
    store.settle("s1", "aws:y").unwrap();
    assert!(store.ledger("s1", "aws:x").unwrap().settled && !store.ledger("s2", "aws:x").unwrap().settled);
    store.unsettle("s1").unwrap();
    assert!(!store.ledger("s1", "aws:x").unwrap().settled && !store.ledger("s1", "aws:y").unwrap().settled);
    assert_eq!(store.ledger("s1", "aws:x").unwrap().kept.len(), 2);
}

#[test]
fn history_reads_back_newest_first_and_is_pruned() {
    let room = Room::new();
    let mut record = run("r0", "one");
    record.status = RunStatus::Failed;
    record.message = Some("1 of 2 secrets failed".into());
    record.finished_at = Some(crate::model::now());
    record.counts.created = 3;
    let reason = Some("refused".to_string());
    record.secrets = vec![SecretOutcome { key: "K".into(), source_key: Some("S".into()), outcome: Outcome::NotReached, reason }];
    record.requests.by_call.entry("aws".into()).or_default().insert("ListSecrets".into(), 2);
    room.store.begin_run(&RunRecord { finished_at: None, ..record.clone() }).unwrap();
    room.store.finish_run(&record).unwrap();
    assert_eq!(room.store.runs("one", 5).unwrap(), [record.clone()]);
    assert_eq!(room.store.run("r0").unwrap(), Some(record.clone()));
    assert_eq!(room.store.last_run("one").unwrap(), Some(RunRecord { secrets: vec![], ..record.clone() }));
    assert_eq!(room.store.last_run("none").unwrap(), None);

    room.store.finish_run(&run("other", "two")).unwrap();
    for n in 1..=230 {
        room.store.finish_run(&run(&format!("r{n}"), "one")).unwrap();
    }
    let all = room.store.runs("one", 1000).unwrap();
    assert_eq!((all.len(), all[0].id.as_str(), all[199].id.as_str()), (200, "r230", "r31"));
    assert_eq!(room.store.runs("one", 2).unwrap().len(), 2);
    assert_eq!(room.store.runs("two", 2).unwrap().len(), 1, "other syncs keep theirs");
}

#[test]
fn cursors_and_facts() {
    let room = Room::new();
    assert_eq!(room.store.cursor("p:prod:/").unwrap(), None);
    for etag in [Some("\"abc\"".to_string()), None] {
        let cursor = Cursor { etag, checked_at: crate::model::now(), changed_at: None };
        room.store.set_cursor("p:prod:/", &cursor).unwrap();
        assert_eq!(room.again().cursor("p:prod:/").unwrap(), Some(cursor));
    }
    assert_eq!(room.store.get("window"), None);
    room.store.put("window", json!({"left": 3}));
    room.store.put("window", json!({"left": 2}));
    assert_eq!(room.again().get("window"), Some(json!({"left": 2})));
}

#[test]
fn the_hash_is_keyed_by_this_directory() {
    let (room, elsewhere) = (Room::new(), Room::new());
    let value = SecretValue::new("hunter2");
    let hash = room.store.hasher().unwrap().hash(&value);
    assert_eq!(room.again().hasher().unwrap().hash(&value), hash);
    assert_ne!(elsewhere.store.hasher().unwrap().hash(&value), hash);
    assert_ne!(blake3::hash(b"hunter2").to_hex().to_string(), hash);
    std::fs::write(room.path("state/ledger.key"), "abc").unwrap();
    let error = room.again().hasher().unwrap_err();
    assert!(error.kind == StoreErrorKind::Broken && error.text().contains("rm "), "{error}");
}

#[test]
fn several_handles_make_keys_and_write_at_once() {
    let room = Room::new();
    let stores: Vec<Store> = (0..4).map(|_| room.again()).collect();
    let hashes: Vec<String> = std::thread::scope(|scope| {
        let work: Vec<_> = stores
            .iter()
            .enumerate()
            .map(|(n, store)| {
                scope.spawn(move || {
                    for i in 0..25 {
                        store.confirm(&format!("s{n}"), "aws:x", &[row(&format!("K{i}"), "h")]).unwrap();
                        store.sync_state("shared").unwrap();
                    }
                    store.save_connection(super::account(&format!("c{n}"), "secret")).unwrap();
                    store.hasher().unwrap().hash(&SecretValue::new("v"))
                })
            })
            .collect();
        work.into_iter().map(|w| w.join().unwrap()).collect()
    });
    assert!(hashes.windows(2).all(|w| w[0] == w[1]), "one key for all");
    for n in 0..4 {
        assert_eq!(room.store.ledger(&format!("s{n}"), "aws:x").unwrap().rows.len(), 25);
        assert_eq!(super::sealing::open_all(&room.store, &format!("c{n}")).unwrap().expose(), "secret");
    }
}
