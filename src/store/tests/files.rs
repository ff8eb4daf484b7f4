//! Modes, symlinks, odd files.

use std::os::unix::fs::symlink;

use super::super::files::{self, Access};
use super::super::{Store, StoreErrorKind};
use super::{Room, chmod, dirs_in, mode};

#[test]
fn directories_and_files_are_made_for_their_owner_only() {
    let room = Room::new();
    room.store.save_connection(super::account("main", "s3cret")).unwrap();
    room.store.save_settings(&Default::default()).unwrap();
    room.store.sync_state("one").unwrap();
    room.store.hasher().unwrap();
    for dir in ["config", "config/connections", "state"] {
        assert_eq!(mode(&room.path(dir)), 0o700, "{dir}");
    }
    let files =
        ["config/connections/main.json", "config/settings.json", "state/kms-sync.db", "state/kms-sync.db-wal", "state/key.txt", "state/ledger.key"];
    for file in files {
        assert_eq!(mode(&room.path(file)), 0o600, "{file}");
    }
}

#[test]
fn a_directory_others_can_write_into_is_refused_with_the_command_that_mends_it() {
    for which in ["config", "state"] {
        let root = tempfile::tempdir().unwrap();
        for dir in ["config", "state"] {
            std::fs::create_dir(root.path().join(dir)).unwrap();
            chmod(&root.path().join(dir), 0o755);
        }
        assert!(Store::open(dirs_in(root.path())).is_ok(), "readable by others is told by doctor, not refused");
        chmod(&root.path().join(which), 0o775);
        let error = Store::open(dirs_in(root.path())).unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Refused);
        assert!(error.text().contains(&format!("chmod 700 {}", root.path().join(which).display())), "{error}");
    }
}

#[test]
fn a_file_in_place_of_a_directory_is_refused() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("config"), "").unwrap();
    assert_eq!(Store::open(dirs_in(root.path())).unwrap_err().kind, StoreErrorKind::Refused);
}

#[test]
fn wider_modes_are_refused_where_secrets_are_kept() {
    let room = Room::new();
    room.store.save_connection(super::account("main", "s3cret")).unwrap();
    for (file, bad) in [("config/connections/main.json", 0o644), ("config/connections/main.json", 0o620), ("config/connections/main.json", 0o640)] {
        chmod(&room.path(file), bad);
        let error = room.store.connection("main").unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Refused);
        assert!(error.text().contains("chmod 600"), "{error}");
        assert!(room.store.connections()[0].result.as_ref().unwrap_err().fix.contains("chmod 600"));
    }
    chmod(&room.path("config/connections/main.json"), 0o600);
    assert!(room.store.connection("main").is_ok());

    chmod(&room.path("state/key.txt"), 0o640);
    let store = room.again();
    let error = super::sealing::open_all(&store, "main").unwrap_err();
    assert!(error.text().contains("chmod 600") && error.text().contains("key.txt"), "{error}");
}

#[test]
fn sync_and_settings_files_may_be_readable_and_not_writable_by_others() {
    let room = Room::new();
    room.put("config/syncs/one.json", "{}", 0o644);
    room.put("config/settings.json", "{}", 0o644);
    assert_eq!(room.store.sync("one").unwrap_err().kind, StoreErrorKind::Broken, "read, and found wanting");
    assert!(room.store.settings().is_ok());
    for mode in [0o664, 0o646, 0o666] {
        chmod(&room.path("config/syncs/one.json"), mode);
        chmod(&room.path("config/settings.json"), mode);
        for error in [room.store.sync("one").unwrap_err(), room.store.settings().unwrap_err()] {
            assert_eq!(error.kind, StoreErrorKind::Refused);
            assert!(error.text().contains("chmod 644"), "{error}");
        }
    }
}

#[test]
fn a_database_or_key_that_others_can_read_is_refused() {
    let room = Room::new();
    room.store.sync_state("one").unwrap();
    room.store.hasher().unwrap();
    for (file, fails) in [("state/kms-sync.db", true), ("state/ledger.key", false)] {
        chmod(&room.path(file), 0o644);
        let store = room.again();
        let error = if fails { store.sync_state("one").unwrap_err() } else { store.hasher().unwrap_err() };
        assert_eq!(error.kind, StoreErrorKind::Refused, "{file}");
        assert!(error.text().contains("chmod 600"), "{error}");
        chmod(&room.path(file), 0o600);
    }
}

#[test]
fn symlinks_in_place_of_our_files_are_refused() {
    let room = Room::new();
    room.store.save_connection(super::account("main", "s3cret")).unwrap();
    room.store.sync_state("one").unwrap();
    room.store.hasher().unwrap();
    let elsewhere = room.put("elsewhere.json", "{}", 0o600);
    for file in
        ["config/connections/main.json", "config/settings.json", "state/kms-sync.db", "state/ledger.key", "state/engine.lock", "state/key.txt"]
    {
        let path = room.path(file);
        let _ = std::fs::remove_file(&path);
        symlink(&elsewhere, &path).unwrap();
    }
    let store = room.again();
    let refusals = [
        store.connection("main").unwrap_err(),
        store.save_connection(super::account("main", "x")).unwrap_err(),
        store.settings().unwrap_err(),
        store.write_settings(&Default::default()).unwrap_err(),
        store.sync_state("one").unwrap_err(),
        store.hasher().unwrap_err(),
    ];
    for error in refusals {
        assert_eq!(error.kind, StoreErrorKind::Refused, "{error}");
        assert!(error.text().contains("symbolic link"), "{error}");
    }
    assert!(super::super::EngineLock::acquire(store.dirs(), "test").is_err());
    assert_eq!(std::fs::read_to_string(&elsewhere).unwrap(), "{}", "the link's target is untouched");
}

#[test]
fn a_symlink_in_place_of_our_directory_is_refused() {
    let room = Room::new();
    std::fs::create_dir(room.path("elsewhere")).unwrap();
    symlink(room.path("elsewhere"), room.path("config/connections")).unwrap();
    assert!(room.store.save_connection(super::account("main", "x")).is_err());
    assert!(room.store.connections()[0].result.is_err());
    assert_eq!(std::fs::read_dir(room.path("elsewhere")).unwrap().count(), 0);
}

#[test]
fn a_named_pipe_does_not_make_us_wait() {
    let room = Room::new();
    let path = room.path("config/settings.json");
    assert!(std::process::Command::new("mkfifo").args(["-m", "600"]).arg(&path).status().unwrap().success());
    assert_eq!(room.store.settings().unwrap_err().kind, StoreErrorKind::Refused);
}

#[test]
fn huge_and_binary_files_are_reported() {
    let room = Room::new();
    let big = room.put("big", vec![b' '; files::MAX_FILE as usize + 1], 0o600);
    assert_eq!(files::read(&big, Access::Private).unwrap_err().kind, StoreErrorKind::Broken);
    let binary = room.put("binary", [b'{', 0xff, 0xfe], 0o600);
    assert!(files::read(&binary, Access::Private).unwrap_err().text().contains("byte 1"));
    assert!(files::read(&room.path("none"), Access::Private).unwrap().is_none());
}

#[test]
fn a_write_over_a_wide_file_makes_it_narrow() {
    let room = Room::new();
    let path = room.put("config/settings.json", "{}", 0o666);
    room.store.write_settings(&Default::default()).unwrap();
    assert_eq!(mode(&path), 0o600);
}
