//! What doctor finds.

use super::super::doctor;
use super::super::files::TEMP_PREFIX;
use super::{Room, account, chmod, connection};
use crate::model::Finding;
use serde_json::json;

fn ill(room: &Room) -> Vec<Finding> {
    doctor(&room.again()).into_iter().filter(|f| !f.ok).collect()
}

#[test]
fn all_is_well_in_a_new_place_and_nothing_is_made_by_looking() {
    let room = Room::new();
    assert_eq!(ill(&room), []);
    assert_eq!(std::fs::read_dir(room.path("state")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(room.path("config")).unwrap().count(), 0);
}

#[test]
fn it_says_what_the_seal_protects_and_what_not() {
    let room = Room::new();
    room.store.save_connection(account("main", "s3cret")).unwrap();
    room.store.sync_state("x").unwrap();
    let found = doctor(&room.store);
    let seal = found.iter().find(|f| f.what == "sealed credentials").unwrap();
    assert!(seal.detail.contains("backups") && seal.detail.contains("does not protect"), "{seal:?}");
    assert!(found.iter().any(|f| f.ok && f.what == "connection main" && f.detail.contains("sealed")));
    assert!(found.iter().any(|f| f.ok && f.what == "state database" && f.detail.contains("sound")));
}

#[test]
fn every_ill_has_a_fix_and_names_its_place() {
    let room = Room::new();
    let store = &room.store;
    store.save_connection(account("sealed", "s3cret")).unwrap();
    let reference = |name: &str, value: serde_json::Value| {
        connection(json!({"name": name, "app": "hanzo-kms", "method": "token", "credentials": {"token": value}}))
    };
    store.save_connection(reference("env", json!({"env": "KMS_SYNC_SURELY_NOT_SET"}))).unwrap();
    store.save_connection(reference("command", json!({"command": ["kms-sync-no-such-program"]}))).unwrap();
    store.save_connection(reference("file", json!({"file": room.put("wide-token", "canary-42", 0o644)}))).unwrap();
    store.sync_state("orphan").unwrap();
    let clear = r#"{"name":"clear","app":"hanzo-kms","method":"token","credentials":{"token":"canary-42"}}"#;
    room.put("config/connections/clear.json", clear, 0o600);
    room.put("config/connections/broken.json", "{", 0o600);
    room.put("config/syncs/bad.json", "[]", 0o600);
    room.put("config/settings.json", r#"{"pausd": true}"#, 0o600);
    room.put(&format!("state/{TEMP_PREFIX}x.tmp"), "", 0o600);
    chmod(&room.path("config/syncs"), 0o777);
    std::fs::remove_file(room.path("state/key.txt")).unwrap();

    let found = ill(&room);
    for finding in &found {
        assert!(finding.fix.as_ref().is_some_and(|f| !f.is_empty()), "{finding:?}");
        assert!(!finding.detail.contains("canary-42"));
    }
    let has = |what: &str, word: &str| {
        assert!(found.iter().any(|f| f.what == what && f.detail.contains(word)), "{what}: {word} in {found:#?}");
    };
    has("syncs directory", "0777");
    has("connection env, token", "KMS_SYNC_SURELY_NOT_SET");
    has("connection command, token", "kms-sync-no-such-program");
    has("connection file, token", "0644");
    has("connection clear, token", "in the clear");
    has("connection broken", "truncated");
    has("connection sealed, clientSecret", "not here");
    has("settings", "Did you mean paused?");
    has("unfinished writes", "1 temporary file");
    has("sync orphan", "its file is gone");
}

#[test]
fn a_command_is_looked_for_and_never_run() {
    let room = Room::new();
    let touch = json!({"name": "c", "app": "hanzo-kms", "method": "token", "credentials": {"token": {"command": ["touch", room.path("ran")]}}});
    room.store.save_connection(connection(touch)).unwrap();
    assert_eq!(ill(&room), []);
    assert!(!room.path("ran").exists());
}

#[test]
fn a_readable_directory_is_a_hint_and_no_ill() {
    let room = Room::new();
    chmod(&room.path("config"), 0o755);
    let found = doctor(&room.again());
    let dir = found.iter().find(|f| f.what == "config directory").unwrap();
    assert!(dir.ok && dir.fix.as_ref().unwrap().contains("chmod 700"), "{dir:?}");
}
