//! One-second stamps: what a second run costs, and what it must not miss.

use super::*;
use crate::destination::Confirmed;
use crate::sandbox::host::{Effect, Fault};

const T: i64 = 1_780_000_000;

fn counts(world: &World) -> (usize, usize, usize) {
    let lists = world.host.log.count("GET /secrets?");
    let gets = world.host.log.count("GET /secrets/");
    (lists, gets, world.host.log.count("PUT "))
}

#[tokio::test]
async fn a_written_key_is_looked_at_once_more_and_then_the_list_is_enough() {
    let world = World::new().await;
    let (target, mut ledger) = (world.target().await, Ledger::default());
    let source = [("DB_HOST", "db1"), ("DB_PASS", "p"), ("TOKEN", "t")];
    world.vault.freeze_clock(Some(T));
    let first = run(&world, &*target, &mut ledger, &source).await;
    assert_eq!((first.created, first.failed.len()), (3, 0));
    assert_eq!(counts(&world), (1, 0, 3), "first sync: the pages and a PUT each");
    for (later, gets, why) in [
        (0, 3, "in the second of the write nothing is proved"),
        (1, 3, "the second may not be over everywhere"),
        (2, 3, "these reads prove that the versions are ours"),
        (3, 0, "now the list is enough"),
        (60, 0, "and stays so"),
    ] {
        world.vault.freeze_clock(Some(T + later));
        world.host.log.clear();
        let again = run(&world, &*target, &mut ledger, &source).await;
        assert_eq!(again.unchanged, 3);
        assert_eq!(counts(&world), (1, gets, 0), "{why}");
    }
}

#[tokio::test]
async fn a_foreign_write_in_the_second_of_ours_is_found() {
    let world = World::new().await;
    let (target, mut ledger) = (world.target().await, Ledger::default());
    world.vault.freeze_clock(Some(T));
    run(&world, &*target, &mut ledger, &[("A", "ours")]).await;
    world.vault.put("A", "theirs");
    world.vault.freeze_clock(Some(T + 100));
    let again = run(&world, &*target, &mut ledger, &[("A", "ours")]).await;
    assert_eq!(again.updated, 1);
    assert_eq!(world.vault.secrets()["a"].value, "ours");
}

/// A write in second T, whatever `between` does, and the second look in second T + `later`.
async fn looked_at(later: i64, between: impl FnOnce(&World)) -> (World, Written, Result<Confirmed, ApiError>) {
    let world = World::new().await;
    let target = world.target().await;
    world.vault.freeze_clock(Some(T));
    let written = world.apply(&*target, Action::Create, "A", Some("ours"), None).await.expect("written");
    between(&world);
    world.vault.freeze_clock(Some(T + later));
    let confirmed = itemised(&*target).confirm(&world.cx, "A", written.stamp.as_ref().expect("stamp")).await;
    (world, written, confirmed)
}

#[tokio::test]
async fn a_second_look_proves_the_stamp_of_a_write() {
    let (world, written, confirmed) = looked_at(1, |_| {}).await;
    assert!(written.confirm_in.is_some_and(|after| after > Duration::from_secs(1) && after < Duration::from_secs(2)));
    let Confirmed::Ours(stamp) = confirmed.expect("looked") else { panic!("ours") };
    assert_eq!(Some(stamp.replace("/hard", "/soft")), written.stamp, "the same, believed");
    assert_eq!(counts(&world), (0, 1, 1));
    let (_, _, early) = looked_at(0, |_| {}).await;
    assert_eq!(early.expect("looked"), Confirmed::Unproved, "the second is not over");
}

#[tokio::test]
async fn a_second_look_sees_what_another_hand_did_since() {
    let (_, _, overtaken) = looked_at(1, |world| world.vault.put("A", "theirs")).await;
    assert_eq!(overtaken.expect("looked"), Confirmed::Overtaken);
    let (_, _, disabled) = looked_at(1, |world| world.vault.enable("A", false)).await;
    assert_eq!(disabled.expect("looked"), Confirmed::Unproved);
    let (_, _, deleted) = looked_at(1, |world| world.vault.delete("A")).await;
    assert_eq!(deleted.expect("looked"), Confirmed::Unproved);
    let (_, written, tagged) = looked_at(5, |world| {
        world.vault.freeze_clock(Some(T + 3));
        world.vault.tag("A", "team", "red");
    })
    .await;
    let Confirmed::Ours(stamp) = tagged.expect("looked") else { panic!("the version is ours") };
    assert!(stamp.starts_with(&format!("{}/", T + 3)) && Some(stamp) != written.stamp);
    let (_, _, just_tagged) = looked_at(3, |world| {
        world.vault.freeze_clock(Some(T + 3));
        world.vault.tag("A", "team", "red");
    })
    .await;
    assert_eq!(just_tagged.expect("looked"), Confirmed::Unproved, "its own second is not over");
}

#[tokio::test]
async fn a_second_look_waits_for_nothing() {
    for (status, effect) in [(429, "throttled"), (503, "unavailable"), (403, "forbidden")] {
        let (world, _, failed) = looked_at(1, |world| world.host.faults.add(Fault::next("GET /secrets/A", 1, Effect::status(status, "{}")))).await;
        assert_eq!(failed.expect_err(effect).status, Some(status));
        assert_eq!(world.host.log.count("GET /secrets/A"), 1, "{effect}: not tried again");
    }
}

#[tokio::test]
async fn a_foreign_tag_costs_one_read_and_no_write() {
    let world = World::new().await;
    let (target, mut ledger) = (world.target().await, Ledger::default());
    world.vault.freeze_clock(Some(T));
    run(&world, &*target, &mut ledger, &[("A", "v")]).await;
    world.vault.freeze_clock(Some(T + 10));
    run(&world, &*target, &mut ledger, &[("A", "v")]).await;
    world.vault.tag("A", "team", "red");
    for (later, gets) in [(20, 1), (30, 0)] {
        world.vault.freeze_clock(Some(T + later));
        world.host.log.clear();
        assert_eq!(run(&world, &*target, &mut ledger, &[("A", "v")]).await.unchanged, 1);
        assert_eq!(counts(&world), (1, gets, 0));
    }
    assert_eq!(world.vault.secrets()["a"].versions, 1);
}

#[tokio::test]
async fn a_foreign_disable_is_left_alone_and_told() {
    let world = World::new().await;
    let (target, mut ledger) = (world.target().await, Ledger::default());
    run(&world, &*target, &mut ledger, &[("A", "v"), ("B", "v")]).await;
    world.vault.enable("A", false);
    let again = run(&world, &*target, &mut ledger, &[("A", "new"), ("B", "v")]).await;
    assert_eq!((again.left.len(), again.updated, again.unchanged), (1, 0, 1), "{again:?}");
    assert!(again.left[0].contains("disabled"));
    assert_eq!(world.vault.secrets()["a"].value, "v");
}

#[tokio::test]
async fn native_hyphens_and_cases_do_not_flip() {
    let world = World::new().await;
    world.vault.put("native-KEY", "n");
    let (target, mut ledger) = (world.target().await, Ledger::default());
    let source = [("native-key", "n"), ("A_B", "1"), ("a--b", "2"), ("-a", "3")];
    let first = run(&world, &*target, &mut ledger, &source).await;
    assert_eq!((first.created, first.unchanged), (3, 1));
    for _ in 0..2 {
        let again = run(&world, &*target, &mut ledger, &source).await;
        assert_eq!((again.unchanged, again.created, again.updated), (4, 0, 0));
    }
    assert_eq!(world.vault.secrets().keys().map(String::as_str).collect::<Vec<_>>(), ["-a", "a--b", "a-b", "native-key"]);
    let changed = run(&world, &*target, &mut ledger, &[("native-key", "new")]).await;
    assert_eq!(changed.updated, 1);
    assert_eq!(world.vault.secrets()["native-key"].versions, 2, "another spelling is the same secret");
    assert!(world.host.log.count("PUT /secrets/native-KEY?") == 1, "and is written as the vault spells it");
}

#[tokio::test]
async fn a_deleted_key_of_ours_is_planned_as_a_restore_for_one_request() {
    let world = World::new().await;
    let (target, mut ledger) = (world.target().await, Ledger::default());
    run(&world, &*target, &mut ledger, &[("A", "v"), ("B", "v")]).await;
    world.vault.put("FOREIGN", "x");
    world.vault.delete("FOREIGN");
    world.vault.delete("A");
    world.host.log.clear();
    let again = run(&world, &*target, &mut ledger, &[("A", "v"), ("B", "v")]).await;
    assert_eq!((again.restored, again.failed.len()), (1, 0), "{again:?}");
    assert_eq!(world.host.log.count("GET /deletedsecrets?"), 1);
    assert_eq!(world.host.log.count("PUT "), 0, "it came back with the right value: no new version");
    world.host.log.clear();
    run(&world, &*target, &mut ledger, &[("A", "v"), ("B", "v")]).await;
    assert_eq!(world.host.log.count("deletedsecrets"), 0, "a quiet vault is not asked for its deleted secrets");
    world.vault.delete("A");
    world.host.log.clear();
    run(&world, &*target, &mut ledger, &[("B", "v")]).await;
    assert_eq!(world.host.log.count("deletedsecrets"), 0, "nor for what the source no longer wants");
}
