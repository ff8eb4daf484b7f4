//! Pages, links, and what stands in a list.

use super::*;
use crate::http::ErrorKind;
use crate::sandbox::host::{Effect, Fault};

#[tokio::test]
async fn a_page_holds_25_and_an_empty_one_does_not_end_the_list() {
    for (n, calls) in [(0, 1), (1, 1), (25, 1), (26, 2), (51, 3)] {
        let world = World::new().await;
        (0..n).for_each(|i| world.vault.put(&format!("K{i}"), "v"));
        let target = world.target().await;
        let inventory = world.list(&*target, &Ledger::default(), 0).await.expect("list");
        assert_eq!((inventory.entries.len(), world.host.log.count("GET /secrets?")), (n, calls));
        assert_eq!(world.host.log.lines().len(), calls, "nothing else is asked");
    }
    let world = World::new().await;
    world.vault.set_empty_pages(true);
    (0..51).for_each(|i| world.vault.put(&format!("K{i}"), "v"));
    let target = world.target().await;
    assert_eq!(world.list(&*target, &Ledger::default(), 0).await.expect("list").entries.len(), 51);
    assert_eq!(world.host.log.lines().len(), 5);
}

#[tokio::test]
async fn links_to_other_places_are_refused_and_circles_end() {
    let world = World::new().await;
    let thief = Host::start(router(world.vault.clone()), None).await.expect("a port");
    let target = world.target().await;
    let own = world.host.url.trim_start_matches("http://").to_string();
    for link in [
        format!("{}/secrets?x", thief.url),
        format!("https://{own}/secrets"),
        format!("http://user@{own}/secrets"),
        "https://evil.example/secrets".to_string(),
        "//evil.example/secrets".to_string(),
    ] {
        let body = json!({"value": [], "nextLink": link}).to_string();
        world.host.faults.add(Fault::next("GET /secrets", 1, Effect::status(200, body)));
        let error = world.list(&*target, &Ledger::default(), 0).await.expect_err("refused");
        assert!(error.text().contains("not followed"), "{link}: {error}");
    }
    assert_eq!(thief.log.lines().len(), 0);
    let circle = json!({"value": [], "nextLink": format!("{}/secrets?again", world.host.url)}).to_string();
    world.host.faults.add(Fault::next("GET /secrets", 3, Effect::status(200, circle)));
    assert!(world.list(&*target, &Ledger::default(), 0).await.expect_err("circle").text().contains("circle"));
}

#[tokio::test]
async fn a_list_whose_empty_pages_always_name_another_is_an_error() {
    let world = World::new().await;
    let target = world.target().await;
    let ledger = Ledger::default();
    for (path, calls) in [("GET /secrets?", 100), ("GET /deletedsecrets?", 3)] {
        for n in 0..200 {
            let place = path.trim_start_matches("GET ").trim_end_matches('?');
            let body = json!({"value": [], "nextLink": format!("{}{place}?again={n}", world.host.url)}).to_string();
            world.host.faults.add(Fault::next(path, 1, Effect::status(200, body)).after(n));
        }
        if calls == 100 {
            let error = world.list(&*target, &ledger, 0).await.expect_err("no end");
            assert!(error.kind == ErrorKind::NotTheService && error.text().contains("page 100 brought nothing new"), "{error}");
        } else {
            // Names that are asked for by themselves need no end of the list.
            assert!(target.hidden(&world.cx, &["A", "B", "C"]).await.expect("asked singly").entries.is_empty());
        }
        assert_eq!(world.host.log.count(path), calls, "{path}");
        world.host.faults.clear();
    }
}

#[test]
fn a_link_may_name_the_port_that_is_understood() {
    let connection = World::bare();
    let vault = KeyVaultSession::new(connection, Arc::new(Forgetful)).expect("session").vault("kv-one").expect("vault");
    let hidden = super::super::hidden::Hidden::new(Arc::new(Forgetful), "s", "v");
    let target = super::super::target::KeyVaultTarget::new(vault, hidden, &super::target(Map::new(), SyncOptions::default()));
    let from = "https://kv-one.vault.azure.net/secrets".parse().expect("url");
    let link = "https://kv-one.vault.azure.net:443/secrets?api-version=7.4&$skiptoken=x";
    assert_eq!(target.follow(&from, link).expect("the same place").query(), Some("api-version=7.4&$skiptoken=x"));
    for other in ["http://kv-one.vault.azure.net:443/secrets", "https://kv-two.vault.azure.net:443/secrets", "https://kv-one.vault.azure.net:8443/"] {
        assert!(target.follow(&from, other).is_err(), "{other}");
    }
}

#[tokio::test]
async fn a_compressed_answer_is_told_as_such() {
    let world = World::new().await;
    let target = world.target().await;
    let headers = vec![("content-type".to_string(), "application/json".to_string()), ("content-encoding".into(), "gzip".into())];
    world.host.faults.add(Fault::next("GET", 1, Effect::Answer { status: 200, headers, body: "\u{1f}not json".into() }));
    let error = world.list(&*target, &Ledger::default(), 0).await.expect_err("compressed");
    assert!(error.kind == ErrorKind::NotTheService && error.text().contains("compressed (gzip)"), "{error}");
}

#[tokio::test]
async fn redirects_and_pages_of_a_proxy_are_errors() {
    let world = World::new().await;
    let target = world.target().await;
    let moved = |status| Effect::Answer { status, headers: vec![("location".into(), "https://evil.example/".into())], body: String::new() };
    world.host.faults.add(Fault::next("GET", 1, moved(302)));
    let error = world.list(&*target, &Ledger::default(), 0).await.expect_err("redirect");
    assert!(error.kind == ErrorKind::NotTheService && error.text().contains("evil.example"), "{error}");
    world.host.faults.add(Fault::next("PUT", 1, moved(307)));
    assert!(world.apply(&*target, Action::Create, "A", Some("v"), None).await.is_err());
    world.vault.put("B", "v");
    world.vault.put("C", "v");
    world.vault.delete("C");
    let entries = world.list(&*target, &Ledger::default(), 0).await.expect("list").entries;
    world.host.faults.add(Fault::next("GET /secrets/B", 1, moved(301)));
    assert!(target.read(&world.cx, &[&entries[0]]).await.remove(0).1.is_err());
    world.host.faults.add(Fault::next("DELETE", 1, moved(308)));
    assert!(world.apply(&*target, Action::Delete, "B", None, None).await.is_err());
    world.host.faults.add(Fault::next("POST", 1, moved(302)));
    assert!(world.apply(&*target, Action::Restore, "C", Some("w"), None).await.is_err());
    assert_eq!(world.vault.secrets().into_keys().collect::<Vec<_>>(), ["b"], "nothing was carried out elsewhere or here");
    let html = Effect::Answer { status: 200, headers: vec![("content-type".into(), "text/html".into())], body: "<html>".into() };
    world.host.faults.add(Fault::next("GET", 1, html));
    assert_eq!(world.list(&*target, &Ledger::default(), 0).await.expect_err("html").kind, ErrorKind::NotTheService);
    world.host.faults.add(Fault::next("GET", 5, Effect::HalfBody));
    assert!(world.list(&*target, &Ledger::default(), 0).await.is_err(), "half a list is no list");
}

#[tokio::test]
async fn dated_secrets_are_ordinary_disabled_and_certificates_are_not() {
    let world = World::new().await;
    let now = jiff::Timestamp::now().as_second();
    world.vault.put_with("OLD", "1", |s| s.exp = Some(now - 100));
    world.vault.put_with("FUTURE", "2", |s| s.nbf = Some(now + 100));
    world.vault.put_with("OFF", "3", |s| s.disabled = true);
    world.vault.put_with("CERT", "4", |s| s.managed = true);
    world.vault.put_with("PFX", "5", |s| s.content_type = Some("application/x-pkcs12".into()));
    let target = world.target().await;
    let entries = world.list(&*target, &Ledger::default(), 0).await.expect("list").entries;
    let state = |key: &str| entries.iter().find(|e| e.key == key).expect("listed").state.clone();
    assert_eq!((state("OLD"), state("FUTURE")), (EntryState::Active, EntryState::Active));
    assert!(matches!(state("OFF"), EntryState::Protected(why) if why.contains("disabled")));
    assert!(matches!(state("PFX"), EntryState::Protected(_)));
    assert!(matches!(state("CERT"), EntryState::Blocked(why) if why.contains("certificate")));
    let dated: Vec<&Entry> = entries.iter().filter(|e| e.state == EntryState::Active).collect();
    let mut read: Vec<_> = target.read(&world.cx, &dated).await.into_iter().map(|(k, r)| (k, r.expect("read").value.expect("value"))).collect();
    read.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!((read[0].1.expose(), read[1].1.expose()), ("2", "1"));

    let mut options = SyncOptions::default();
    options.extra.insert("disableCertificateImport".into(), false.into());
    let open = world.session().open(&world.cx, &super::target(world.config(), options)).await.expect("target");
    let entries = world.list(&*open, &Ledger::default(), 0).await.expect("list").entries;
    let state = |key: &str| entries.iter().find(|e| e.key == key).expect("listed").state.clone();
    assert_eq!(state("PFX"), EntryState::Active, "a content type set by hand, and the operator says so");
    assert!(matches!(state("CERT"), EntryState::Blocked(_)), "never");
}

#[tokio::test]
async fn a_collision_with_a_certificate_is_no_write_and_no_read() {
    let world = World::new().await;
    world.vault.put_with("Tls-Cert", "PRIVATE", |s| s.managed = true);
    let (target, mut ledger) = (world.target().await, Ledger::default());
    let ran = run(&world, &*target, &mut ledger, &[("TLS_CERT", "x"), ("OTHER", "y")]).await;
    assert_eq!((ran.left.len(), ran.created), (1, 1));
    assert_eq!(world.host.log.count("GET /secrets/"), 0);
    assert_eq!(world.vault.secrets()["tls-cert"].value, "PRIVATE");
}

#[tokio::test]
async fn a_vault_without_soft_delete_says_that_deletion_is_final() {
    let world = World::new().await;
    world.vault.set_soft_delete(false);
    world.vault.put("A", "v");
    let target = world.target().await;
    let inventory = world.list(&*target, &Ledger::default(), 0).await.expect("list");
    assert!(inventory.warnings.iter().any(|w| w.contains("gone for good")), "{:?}", inventory.warnings);
    let written = world.apply(&*target, Action::Delete, "A", None, None).await.expect("deleted");
    assert!(written.note.expect("note").contains("gone for good"));
    assert!(world.vault.secrets().is_empty() && world.vault.deleted().is_empty());
}

#[tokio::test]
async fn duplicates_over_pages_and_impossible_names() {
    let world = World::new().await;
    let target = world.target().await;
    let item = |name: &str, updated: i64| json!({"id": format!("{}/secrets/{name}", world.host.url), "attributes": {"enabled": true, "updated": updated, "created": 1}});
    let body = json!({"value": [item("A", 1), item("B", 1), item("a", 2), item("..%2Fevil", 1)]}).to_string();
    world.host.faults.add(Fault::next("GET /secrets", 1, Effect::status(200, body)));
    let inventory = world.list(&*target, &Ledger::default(), 0).await.expect("list");
    assert_eq!(inventory.entries.len(), 2);
    assert!(inventory.entries[0].stamp.as_deref().is_some_and(|s| s.starts_with("2/")), "the later item is the newer");
    assert_eq!(inventory.warnings.len(), 1);
}

#[tokio::test]
async fn a_vault_below_a_path_is_walked_too() {
    let world = World::new().await;
    (0..60).for_each(|i| world.vault.put(&format!("K{i}"), "v"));
    let host = Host::start(axum::Router::new().nest("/secrets/kv", router(world.vault.clone())), None).await.expect("a port");
    let config = map(json!({"vaultBaseUrl": format!("{}/secrets/kv/", host.url)}));
    let target = world.session().open(&world.cx, &super::target(config, SyncOptions::default())).await.expect("target");
    let entries = world.list(&*target, &Ledger::default(), 0).await.expect("list").entries;
    assert_eq!((entries.len(), host.log.count("GET /secrets/kv/secrets?")), (60, 3));
    world.apply(&*target, Action::Update, "K1", Some("w"), None).await.expect("written");
    assert_eq!(world.vault.secrets()["k1"].value, "w");
}

#[tokio::test]
async fn a_list_that_is_forbidden_names_the_right_and_deleted_ones_may_be() {
    let world = World::new().await;
    let (target, mut ledger) = (world.target().await, Ledger::default());
    run(&world, &*target, &mut ledger, &[("A", "v")]).await;
    world.vault.delete("A");
    let body = json!({"error": {"code": "Forbidden", "message": "no", "innererror": {"code": "ForbiddenByPolicy"}}}).to_string();
    world.host.faults.add(Fault::next("GET /deletedsecrets", 1, Effect::status(403, body.clone())));
    assert_eq!(run(&world, &*target, &mut ledger, &[("A", "v")]).await.restored, 1, "the write finds out");
    world.host.faults.add(Fault::next("GET /secrets", 1, Effect::status(403, body)));
    let error = world.list(&*target, &Ledger::default(), 0).await.expect_err("forbidden");
    assert!(error.kind == ErrorKind::Permission && error.text().contains("permission List"), "{error}");
}
