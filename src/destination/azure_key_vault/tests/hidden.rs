//! Deleted secrets that hold the names of keys to be created.

use super::*;
use crate::http::ErrorKind;
use crate::sandbox::host::{Effect, Fault};

fn names(inventory: &Inventory) -> Vec<&str> {
    let mut names: Vec<&str> = inventory.entries.iter().filter(|e| matches!(e.state, EntryState::Deleted { .. })).map(|e| e.key.as_str()).collect();
    names.sort_unstable();
    names
}

fn denied() -> Effect {
    let body = json!({"error": {"code": "Forbidden", "message": "no", "innererror": {"code": "ForbiddenByPolicy"}}}).to_string();
    Effect::status(403, body)
}

#[tokio::test]
async fn a_deleted_secret_of_somebody_else_is_seen_before_anything_is_written() {
    let world = World::new().await;
    for name in ["DB-PASS", "OTHER"] {
        world.vault.put(name, "theirs");
        world.vault.delete(name);
    }
    let (target, mut ledger) = (world.target().await, Ledger::default());
    let source = [("DB_PASS", "ours"), ("NEW", "v")];
    let ran = run(&world, &*target, &mut ledger, &source).await;
    assert_eq!((ran.created, ran.left.len(), ran.failed.len()), (1, 1, 0), "{ran:?}");
    assert_eq!((world.host.log.count("recover"), world.host.log.count("GET /deletedsecrets?")), (0, 1));
    assert_eq!(world.vault.deleted(), ["db-pass", "other"]);

    let seen = world.hidden(&*target, &["db-pass"]).await.expect("hidden");
    assert_eq!(names(&seen), ["DB-PASS"], "only what is wanted");
    world.apply(&*target, Action::Restore, "DB_PASS", Some("ours"), Some(&seen.entries[0])).await.expect("the operator agreed");
    assert_eq!(world.vault.secrets()["db-pass"].value, "ours");
    remember(&mut ledger, &desired(&*target, "DB_PASS", "ours"), None, "ours");

    // Nothing to create: the list of deleted secrets costs nothing.
    world.host.log.clear();
    assert_eq!(run(&world, &*target, &mut ledger, &source).await.unchanged, 2);
    assert_eq!((world.host.log.count("GET /secrets?"), world.host.log.count("deletedsecrets")), (1, 0));
}

#[tokio::test]
async fn a_long_list_of_deleted_secrets_is_not_read_for_a_few_names() {
    let world = World::new().await;
    for i in 0..130 {
        world.vault.put(&format!("K{i:03}"), "theirs");
        world.vault.delete(&format!("K{i:03}"));
    }
    let target = world.target().await;
    for (missing, found, pages, singly) in [
        (&["k129", "new"][..], &["K129"][..], 2, 2),
        (&["k001", "k129"], &["K001", "K129"], 2, 1),
        (&["k001"], &["K001"], 1, 0),
        (&["a", "b", "c", "d", "e", "f", "g", "k129"], &["K129"], 6, 0),
    ] {
        world.host.log.clear();
        assert_eq!(names(&world.hidden(&*target, missing).await.expect("hidden")), found, "{missing:?}");
        let calls = (world.host.log.count("GET /deletedsecrets?"), world.host.log.count("GET /deletedsecrets/"));
        assert_eq!(calls, (pages, singly), "{missing:?}");
    }
    world.host.faults.add(Fault::next("GET /deletedsecrets/new", 1, Effect::status(500, "{}")));
    world.hidden(&*target, &["new"]).await.expect("trouble passes");
}

#[tokio::test]
async fn where_the_list_is_closed_the_write_finds_out_and_the_next_plan_asks() {
    let world = World::new().await;
    world.vault.put("DB-PASS", "theirs");
    world.vault.delete("DB-PASS");
    world.host.faults.add(Fault::always("GET /deletedsecrets", 1.0, denied()));
    let memory: Arc<dyn Memory> = Arc::new(Notebook::default());
    let open = || async {
        world.session_with(world.connection(), memory.clone()).open(&world.cx, &super::target(world.config(), SyncOptions::default())).await
    };
    let target = open().await.expect("target");
    let seen = world.hidden(&*target, &["db-pass", "new"]).await.expect("hidden");
    assert!(seen.entries.is_empty() && seen.warnings.len() == 1 && seen.warnings[0].contains("List"), "{seen:?}");

    // A blanket agreement does not cover what no plan has shown.
    let wish = desired(&*target, "DB_PASS", "ours");
    let op = Op {
        action: Action::Create,
        key: &wish.key,
        entry: None,
        row: None,
        desired: Some(&wish),
        value_differs: true,
        token: "6f1b1b1e-0000-4000-8000-000000000000",
        approved: true,
    };
    let error = itemised(&*target).apply(&world.cx, &op).await.expect_err("not unseen");
    assert!(error.kind == ErrorKind::Conflict && error.text().contains("DB-PASS") && error.text().contains("Run again"), "{error}");
    assert_eq!((world.host.log.count("recover"), world.vault.deleted()), (0, vec!["db-pass".to_string()]));

    // The next run, perhaps of another process, shows it.
    let target = open().await.expect("target");
    let seen = world.hidden(&*target, &["db-pass", "new"]).await.expect("hidden");
    assert_eq!(names(&seen), ["DB-PASS"], "as the write spelled it");
    world.apply(&*target, Action::Restore, "DB_PASS", Some("ours"), Some(&seen.entries[0])).await.expect("the operator agreed");
    assert_eq!(world.vault.secrets()["db-pass"].value, "ours");
    world.list(&*target, &Ledger::default(), 2).await.expect("list");
    assert!(world.hidden(&*open().await.expect("target"), &["db-pass"]).await.expect("hidden").entries.is_empty(), "it lives, and is forgotten");
}

#[tokio::test]
async fn a_place_without_soft_delete_has_nothing_hidden() {
    let world = World::new().await;
    let target = world.target().await;
    let html = vec![("content-type".to_string(), "text/html".to_string())];
    for effect in [
        Effect::status(400, r#"{"error":{"code":"NotSupported","message":"soft delete is not enabled"}}"#),
        Effect::status(404, r#"{"error":{"code":"NotFound","message":"no"}}"#),
        Effect::Answer { status: 404, headers: html.clone(), body: "<html>".into() },
        Effect::Answer { status: 405, headers: html, body: "<html>".into() },
    ] {
        world.host.faults.add(Fault::next("GET /deletedsecrets", 1, effect));
        let seen = world.hidden(&*target, &["a"]).await.expect("nothing");
        assert!(seen.entries.is_empty() && seen.warnings.is_empty(), "{seen:?}");
    }
    world.host.faults.add(Fault::next("GET /deletedsecrets", 1, Effect::status(401, "{}")).after(0));
    world.hidden(&*target, &["a"]).await.expect("a fresh token");
    world.host.faults.add(Fault::next("GET /deletedsecrets", 5, Effect::Reset));
    assert!(world.hidden(&*target, &["a"]).await.is_err(), "what could not be asked is not nothing");
}

#[tokio::test]
async fn a_deleted_certificates_secret_is_in_the_way() {
    let world = World::new().await;
    world.vault.put_with("CERT", "PRIVATE", |s| s.managed = true);
    world.vault.delete("CERT");
    let target = world.target().await;
    let seen = world.hidden(&*target, &["cert"]).await.expect("hidden");
    assert!(matches!(&seen.entries[0].state, EntryState::Blocked(why) if why.contains("certificate")), "{seen:?}");
}
