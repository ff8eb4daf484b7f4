//! One engine per state directory.

use std::path::Path;

use super::super::{EngineLock, LockError, StoreErrorKind};
use super::{Room, await_line, dirs_in, mode, spawn};

/// Holds the lock until its standard input closes or it is killed.
pub fn child_holds(root: &Path) {
    let _lock = EngineLock::acquire(&dirs_in(root), "run").unwrap();
    println!("held");
    let _ = std::io::stdin().read_line(&mut String::new());
}

#[test]
fn another_process_is_told_who_holds_it_and_gets_it_when_the_holder_dies() {
    let room = Room::new();
    let dirs = room.store.dirs();
    let mut child = spawn("hold-lock", room.dir.path(), &[]);
    await_line(&mut child, "held");

    let error = EngineLock::acquire(dirs, "sync").unwrap_err();
    let LockError::HeldBy { pid, what, since } = &error else { panic!("{error}") };
    assert_eq!((*pid, what.as_str()), (child.id(), "run"));
    assert!(*since <= crate::model::now());
    assert!(error.to_string().contains(&format!("pid {pid}")));
    let holder = EngineLock::holder(dirs).unwrap().unwrap();
    assert_eq!((holder.process.pid, holder.socket), (child.id(), dirs.socket()));

    room.store.sync_state("one").unwrap();
    assert_eq!(room.store.move_aside_database().unwrap_err().kind, StoreErrorKind::Busy);

    child.kill().unwrap();
    child.wait().unwrap();
    assert!(EngineLock::holder(dirs).unwrap().is_none());
    assert!(room.store.move_aside_database().unwrap().is_some());
    let _lock = EngineLock::acquire(dirs, "sync").unwrap();
    assert_eq!(EngineLock::holder(dirs).unwrap().unwrap().process.pid, std::process::id());
}

#[test]
fn it_is_exclusive_within_a_process_and_given_back() {
    let room = Room::new();
    let dirs = room.store.dirs();
    assert!(EngineLock::holder(dirs).unwrap().is_none());
    let lock = EngineLock::acquire(dirs, "the terminal app").unwrap();
    assert!(matches!(EngineLock::acquire(dirs, "sync"), Err(LockError::HeldBy { .. })));
    drop(lock);
    assert!(EngineLock::acquire(dirs, "sync").is_ok());
    assert_eq!(mode(&room.path("state/engine.lock")), 0o600);
}

#[test]
fn of_many_that_want_it_at_once_one_gets_it() {
    let room = Room::new();
    for _ in 0..20 {
        let barrier = std::sync::Barrier::new(4);
        let got = std::thread::scope(|scope| {
            let tries: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        barrier.wait();
                        let lock = EngineLock::acquire(room.store.dirs(), "test").ok();
                        barrier.wait();
                        lock.is_some()
                    })
                })
                .collect();
            tries.into_iter().map(|t| t.join().unwrap()).filter(|got| *got).count()
        });
        assert_eq!(got, 1);
    }
}

#[test]
fn garbage_in_the_lock_file_does_not_matter() {
    let room = Room::new();
    room.put("state/engine.lock", "\u{1b}[31m not json", 0o600);
    let _lock = EngineLock::acquire(room.store.dirs(), "test").unwrap();
    assert!(EngineLock::holder(room.store.dirs()).unwrap().is_some());
}
