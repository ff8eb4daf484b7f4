//! The ownership tag, where a sync asks for it.

use super::*;

async fn signing(world: &World) -> Arc<dyn Destination> {
    let mut options = SyncOptions::default();
    options.extra.insert("ownershipTag".into(), true.into());
    world.session().open(&world.cx, &super::target(world.config(), options)).await.expect("target")
}

async fn entry(world: &World, target: &dyn Destination, key: &str) -> Entry {
    let entries = world.list(target, &Ledger::default(), 1).await.expect("list").entries;
    entries.into_iter().find(|e| e.key == key).expect("listed")
}

#[tokio::test]
async fn a_written_secret_carries_it_beside_the_tags_of_others() {
    let world = World::new().await;
    let target = signing(&world).await;
    world.apply(&*target, Action::Create, "A", Some("v"), None).await.expect("written");
    assert_eq!(world.vault.secrets()["a"].tags["kms-sync"], "s");
    world.vault.put_with("B", "old", |s| drop(s.tags.insert("team".into(), "red".into())));
    let old = entry(&world, &*target, "B").await;
    world.apply(&*target, Action::Update, "B", Some("new"), Some(&old)).await.expect("written");
    let tags = &world.vault.secrets()["b"].tags;
    assert_eq!((&tags["kms-sync"], &tags["team"]), (&json!("s"), &json!("red")));
    let signed = entry(&world, &*target, "B").await;
    assert_eq!(target.differs(&signed, &desired(&*target, "B", "new"), None), None);
    assert!(signed.note.as_deref().is_some_and(|n| n.contains("written by the sync s")), "{signed:?}");
    // Off by default, and then it is a foreign tag like any other.
    let plain = world.target().await;
    world.apply(&*plain, Action::Create, "C", Some("v"), None).await.expect("written");
    assert!(world.vault.secrets()["c"].tags.is_empty());
    world.apply(&*plain, Action::Update, "B", Some("newer"), Some(&signed)).await.expect("written");
    assert_eq!(world.vault.secrets()["b"].tags.len(), 2);
}

#[tokio::test]
async fn it_is_added_without_a_new_version_where_the_value_is_right() {
    let world = World::new().await;
    world.vault.put_with("A", "v", |s| {
        s.content_type = Some("text/plain".into());
        s.tags.insert("team".into(), "red".into());
        s.tags.insert("kms-sync".into(), "another-sync".into());
    });
    let target = signing(&world).await;
    let unsigned = entry(&world, &*target, "A").await;
    let wish = desired(&*target, "A", "v");
    assert_eq!(target.differs(&unsigned, &wish, None), None, "what another sync signed is not signed in turns");
    let why = target.differs(&unsigned, &wish, Some(&row(&wish, None, "v")));
    assert!(why.is_some_and(|w| w.contains("ownership tag")));
    let written = world.carry_out(&*target, Action::Update, "A", Some("v"), Some(&unsigned), false).await.expect("tagged");
    let seen = &world.vault.secrets()["a"];
    assert_eq!((seen.versions, &seen.tags["kms-sync"], &seen.tags["team"]), (1, &json!("s"), &json!("red")));
    assert_eq!((seen.content_type.as_deref(), world.host.log.count("PUT"), world.host.log.count("PATCH")), (Some("text/plain"), 0, 1));
    assert!(written.stamp.is_some() && written.confirm_in.is_some(), "its stamp has moved: {written:?}");
    assert_eq!(target.differs(&entry(&world, &*target, "A").await, &desired(&*target, "A", "v"), None), None);
    // The right to set is the one it needs.
    world.vault.put("B", "v");
    world.vault.forbid(crate::sandbox::azure_key_vault::Operation::Set, None, "ForbiddenByPolicy");
    let unsigned = entry(&world, &*target, "B").await;
    let error = world.carry_out(&*target, Action::Update, "B", Some("v"), Some(&unsigned), false).await.expect_err("no right");
    assert!(error.text().contains("permission Set"), "{error}");
}

#[tokio::test]
async fn fifteen_tags_leave_no_room_and_fail_nothing() {
    let world = World::new().await;
    let full = |s: &mut crate::sandbox::azure_key_vault::Seed| (0..15).for_each(|i| drop(s.tags.insert(format!("t{i}"), "v".into())));
    world.vault.put_with("A", "old", full);
    let target = signing(&world).await;
    let crowded = entry(&world, &*target, "A").await;
    assert_eq!(target.differs(&crowded, &desired(&*target, "A", "old"), None), None, "nothing that a run could mend");
    let written = world.apply(&*target, Action::Update, "A", Some("new"), Some(&crowded)).await.expect("written");
    let seen = &world.vault.secrets()["a"];
    assert_eq!((seen.value.as_str(), seen.tags.len(), seen.tags.contains_key("kms-sync")), ("new", 15, false));
    assert!(written.note.as_deref().is_some_and(|n| n.contains("15 tags")), "{written:?}");
}
