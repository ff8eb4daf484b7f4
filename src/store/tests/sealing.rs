//! Sealed credentials: round trips, keys, changes of the way.

use std::path::Path;

use serde_json::Value;

use super::super::files;
use super::super::seal::Keys;
use super::super::{PASSPHRASE_FILE_ENV, SealMode, Settings, Store, StoreError, StoreErrorKind};
use super::{Room, account, await_line, dirs_in, spawn};
use crate::model::SecretValue;
use crate::model::connection::Credential;

const SECRET: &str = "canary-5f1d-très-secret\nsecond line";

fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// The client secret of a stored account.
pub fn open_all(store: &Store, name: &str) -> Result<SecretValue, StoreError> {
    let connection = store.connection(name)?;
    Ok(block(store.resolve(&connection))?.credentials["clientSecret"].clone())
}

fn literal(name: &str) -> crate::model::connection::Connection {
    // The field is single-line for people; the seal must carry any text.
    let mut connection = account(name, "placeholder");
    connection.credentials.insert("clientSecret".into(), Credential::Literal(SecretValue::new(SECRET)));
    connection
}

#[test]
fn a_sealed_secret_comes_back_and_is_nowhere_on_disk() {
    let room = Room::new();
    let stored = room.store.save_connection(literal("main")).unwrap();
    assert!(matches!(stored.credentials["clientSecret"], Credential::Sealed(_)));
    for needle in ["canary-5f1d", "second line"] {
        assert!(!room.on_disk(needle));
    }
    assert!(room.on_disk("client-1"), "what is no secret stays readable");
    assert_eq!(open_all(&room.again(), "main").unwrap().expose(), SECRET);
}

#[test]
fn two_seals_of_one_text_differ() {
    let room = Room::new();
    let keys = Keys::new(&room.path("state"));
    let text = SecretValue::new("same");
    let (a, b) = (keys.seal(SealMode::KeyFile, &text).unwrap(), keys.seal(SealMode::KeyFile, &text).unwrap());
    assert_ne!(a, b);
    assert!(keys.unseal(&a).unwrap().same_as(&keys.unseal(&b).unwrap()));
}

#[test]
fn a_changed_or_cut_seal_is_reported_not_opened() {
    let room = Room::new();
    let keys = Keys::new(&room.path("state"));
    let sealed = keys.seal(SealMode::KeyFile, &SecretValue::new(SECRET)).unwrap();
    let mut flipped = sealed.clone().into_bytes();
    let at = flipped.len() - 20;
    flipped[at] = if flipped[at] == b'A' { b'B' } else { b'A' };
    let flipped = String::from_utf8(flipped).unwrap();
    for bad in [&sealed[..sealed.len() / 2], &sealed[..9], "", "nonsense", &flipped] {
        let error = keys.unseal(bad).unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Broken, "{bad}");
        assert!(error.fix.is_some());
    }
}

#[test]
fn without_its_key_the_error_says_so() {
    let room = Room::new();
    room.store.save_connection(literal("main")).unwrap();
    std::fs::remove_file(room.path("state/key.txt")).unwrap();
    let error = open_all(&room.again(), "main").unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Locked);
    assert!(error.text().contains("main") && error.text().contains("clientSecret") && error.text().contains("connection add"), "{error}");

    for garbage in ["", "AGE-SECRET-KEY-1NOPE", "\u{0}\u{0}"] {
        room.put("state/key.txt", garbage, 0o600);
        assert_eq!(open_all(&room.again(), "main").unwrap_err().kind, StoreErrorKind::Broken);
    }
}

#[test]
fn changing_to_a_passphrase_and_back_keeps_every_secret() {
    let room = Room::new();
    for name in ["one", "two", "three"] {
        room.store.save_connection(literal(name)).unwrap();
    }
    room.store.change_seal(SealMode::Passphrase, Some(&SecretValue::new("correct horse"))).unwrap();
    assert!(!room.path("state/key.txt").exists());
    assert_eq!(room.store.settings().unwrap().seal, SealMode::Passphrase);
    assert!(!room.on_disk("correct horse") && !room.on_disk("canary-5f1d"));

    let later = room.again();
    assert!(later.locked().unwrap());
    let error = open_all(&later, "one").unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Locked);
    assert!(error.text().contains(PASSPHRASE_FILE_ENV));
    let wrong = later.unlock(SecretValue::new("wrong horse")).unwrap_err();
    assert_eq!(wrong.kind, StoreErrorKind::Locked);
    assert!(!wrong.text().contains("wrong horse"));
    later.unlock(SecretValue::new("correct horse")).unwrap();
    assert!(!later.locked().unwrap());
    for name in ["one", "two", "three"] {
        assert_eq!(open_all(&later, name).unwrap().expose(), SECRET);
    }

    later.change_seal(SealMode::Passphrase, Some(&SecretValue::new("battery staple"))).unwrap();
    let third = room.again();
    assert!(third.unlock(SecretValue::new("correct horse")).is_err());
    third.unlock(SecretValue::new("battery staple")).unwrap();
    third.save_settings(&Settings::default()).unwrap();
    assert!(!room.path("state/key.passphrase.txt").exists());
    assert_eq!(open_all(&room.again(), "two").unwrap().expose(), SECRET);
}

#[test]
fn a_process_that_runs_on_follows_a_change_made_by_another() {
    let room = Room::new();
    room.store.save_connection(literal("old")).unwrap();
    assert_eq!(open_all(&room.store, "old").unwrap().expose(), SECRET);
    let other = room.again();
    other.change_seal(SealMode::Passphrase, Some(&SecretValue::new("correct horse"))).unwrap();
    other.change_seal(SealMode::KeyFile, None).unwrap();
    assert_eq!(open_all(&room.store, "old").unwrap().expose(), SECRET);
    room.store.save_connection(literal("new")).unwrap();
    assert_eq!(open_all(&room.again(), "new").unwrap().expose(), SECRET, "not sealed to the key that is gone");
}

#[test]
fn storing_needs_no_passphrase_once_the_key_exists() {
    let room = Room::new();
    room.store.change_seal(SealMode::Passphrase, Some(&SecretValue::new("correct horse"))).unwrap();
    let later = room.again();
    later.save_connection(literal("main")).unwrap();
    later.unlock(SecretValue::new("correct horse")).unwrap();
    assert_eq!(open_all(&later, "main").unwrap().expose(), SECRET);
}

#[test]
fn without_a_passphrase_the_way_is_not_changed() {
    let room = Room::new();
    room.store.save_connection(literal("main")).unwrap();
    assert_eq!(room.store.change_seal(SealMode::Passphrase, None).unwrap_err().kind, StoreErrorKind::Locked);
    assert_eq!(room.store.change_seal(SealMode::Passphrase, Some(&SecretValue::new(""))).unwrap_err().kind, StoreErrorKind::Invalid);
    assert_eq!(room.store.settings().unwrap().seal, SealMode::KeyFile);
    assert_eq!(open_all(&room.again(), "main").unwrap().expose(), SECRET);
}

#[test]
fn a_change_cut_short_leaves_both_halves_readable() {
    let room = Room::new();
    for name in ["one", "two"] {
        room.store.save_connection(literal(name)).unwrap();
    }
    // As after a crash between two renames: the new key and one new file are there.
    let passphrase = SecretValue::new("correct horse");
    let keys = Keys::new(&room.path("state"));
    keys.set_passphrase(&passphrase).unwrap();
    let path = room.path("config/connections/one.json");
    let mut document: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    document["credentials"]["clientSecret"]["sealed"] = keys.seal(SealMode::Passphrase, &SecretValue::new(SECRET)).unwrap().into();
    files::write(&path, document.to_string().as_bytes()).unwrap();

    let later = room.again();
    assert!(super::super::doctor(&later).iter().any(|f| !f.ok && f.detail.contains("one")));
    later.unlock(passphrase.clone()).unwrap();
    for name in ["one", "two"] {
        assert_eq!(open_all(&later, name).unwrap().expose(), SECRET);
    }
    room.again().change_seal(SealMode::Passphrase, Some(&passphrase)).unwrap();
    let last = room.again();
    last.unlock(passphrase).unwrap();
    for name in ["one", "two"] {
        assert_eq!(open_all(&last, name).unwrap().expose(), SECRET);
    }
}

#[test]
fn one_unreadable_connection_stops_a_change_before_it_begins() {
    let room = Room::new();
    room.store.save_connection(literal("good")).unwrap();
    let before = std::fs::read(room.path("config/connections/good.json")).unwrap();
    room.put("config/connections/bad.json", "{", 0o600);
    assert!(room.store.change_seal(SealMode::Passphrase, Some(&SecretValue::new("pass phrase"))).is_err());
    assert_eq!(std::fs::read(room.path("config/connections/good.json")).unwrap(), before);
    assert!(room.path("state/key.txt").exists());
}

/// Opens the account `main` with whatever passphrase its environment names.
pub fn child_unseals(root: &Path) {
    let store = Store::open(dirs_in(root)).unwrap();
    match open_all(&store, "main") {
        Ok(value) if value.expose() == SECRET => println!("result opened"),
        Ok(_) => println!("result other"),
        Err(error) => println!("result {}", error.kind),
    }
}

#[test]
fn a_service_reads_the_passphrase_from_a_file_or_a_systemd_credential() {
    let room = Room::new();
    room.store.change_seal(SealMode::Passphrase, Some(&SecretValue::new("correct horse"))).unwrap();
    room.store.save_connection(literal("main")).unwrap();
    let good = room.put("kms-sync-passphrase", "correct horse\n", 0o600);
    let wide = room.put("wide", "correct horse", 0o644);
    let wrong = room.put("wrong", "wrong horse", 0o600);
    let cases = [
        (vec![(PASSPHRASE_FILE_ENV, good.to_str().unwrap())], "opened"),
        (vec![("CREDENTIALS_DIRECTORY", room.dir.path().to_str().unwrap())], "opened"),
        (vec![(PASSPHRASE_FILE_ENV, wide.to_str().unwrap())], "refused"),
        (vec![(PASSPHRASE_FILE_ENV, wrong.to_str().unwrap())], "locked"),
        (vec![], "locked"),
    ];
    for (env, expected) in cases {
        let mut child = spawn("unseal", room.dir.path(), &env);
        assert_eq!(await_line(&mut child, "result "), expected, "{env:?}");
        child.wait().unwrap();
    }
}

#[test]
fn keys_and_secrets_do_not_show_in_debug() {
    let room = Room::new();
    room.store.save_connection(literal("main")).unwrap();
    open_all(&room.store, "main").unwrap();
    room.store.hasher().unwrap();
    let shown = format!("{:?}", room.store);
    assert!(!shown.contains("AGE-SECRET") && !shown.contains("canary"), "{shown}");
}

/// Changes the way to seal again and again until it is killed.
pub fn child_reseals(root: &Path) {
    let store = Store::open(dirs_in(root)).unwrap();
    let passphrase = SecretValue::new("correct horse");
    for n in 0.. {
        store.change_seal(SealMode::Passphrase, Some(&passphrase)).unwrap();
        store.change_seal(SealMode::KeyFile, None).unwrap();
        println!("round {n}");
    }
}

#[test]
fn killed_while_sealing_anew_every_secret_is_still_there() {
    let room = Room::new();
    let names = ["one", "two", "three", "four"];
    for name in names {
        room.store.save_connection(literal(name)).unwrap();
    }
    for round in 0..12u64 {
        let mut child = spawn("reseal", room.dir.path(), &[]);
        await_line(&mut child, "round 0");
        // Any moment will do; these differ from round to round.
        std::thread::sleep(std::time::Duration::from_micros(1900 * round + 410));
        child.kill().unwrap();
        child.wait().unwrap();
        let store = room.again();
        store.unlock(SecretValue::new("correct horse")).unwrap();
        for name in names {
            assert_eq!(open_all(&store, name).unwrap().expose(), SECRET, "round {round}");
        }
    }
}
