//! Answers of something that is no vault, however well they parse. Taken for an empty vault or
//! an empty secret they would have everything written anew.

use super::*;
use crate::http::ErrorKind;
use crate::sandbox::host::{Effect, Fault};

fn refused(error: &ApiError, about: &str) {
    assert_eq!(error.kind, ErrorKind::NotTheService, "{about}: {error}");
    assert!(error.text().contains("not an answer of Key Vault") && error.text().contains("endpoint"), "{about}: {error}");
}

#[tokio::test]
async fn a_list_is_a_list_of_secrets_with_ids() {
    let world = World::new().await;
    let target = world.target().await;
    for body in [
        json!({}),
        json!({"value": null}),
        json!({"value": {}}),
        json!({"value": "x"}),
        json!({"value": 0}),
        json!({"nextLink": null}),
        json!({"value": [{}]}),
        json!({"value": [null]}),
        json!({"value": [{"id": null}]}),
        json!({"value": [{"id": 7}]}),
        json!({"value": [{"id": "A"}]}),
        json!({"value": [{"id": "https://kv.vault.azure.net/keys/A"}]}),
        json!({"value": [], "nextLink": 7}),
        json!({"value": [], "nextLink": {}}),
        json!({"value": [], "nextLink": true}),
        json!({"value": [], "error": {"code": "Forbidden"}}),
        json!({"status": "ok"}),
        json!([]),
        json!([[]]),
        json!(null),
        json!("value"),
    ] {
        let about = body.to_string();
        world.host.faults.add(Fault::next("GET /secrets?", 1, Effect::status(200, about.clone())));
        refused(&world.list(&*target, &Ledger::default(), 0).await.expect_err(&about), &about);
        world.host.faults.add(Fault::next("GET /deletedsecrets?", 1, Effect::status(200, about.clone())));
        refused(&world.hidden(&*target, &["a"]).await.expect_err(&about), &about);
        world.host.faults.add(Fault::next("GET /secrets?", 1, Effect::status(200, about.clone())));
        let tested = world.session().test(&world.cx, Some(&world.config())).await;
        // The test of a connection asks for one item and looks at none.
        match body.get("value").is_some_and(|v| v.as_array().is_some_and(|items| items.iter().any(Value::is_object))) {
            true => drop(tested),
            false => refused(&tested.expect_err(&about), &about),
        }
    }
    // The second page is read as strictly as the first.
    (0..26).for_each(|i| world.vault.put(&format!("K{i}"), "v"));
    world.host.faults.add(Fault::next("GET /secrets?", 1, Effect::status(200, "{}")).after(1));
    refused(&world.list(&*target, &Ledger::default(), 0).await.expect_err("page two"), "page two");
    assert_eq!(world.host.log.count("PUT"), 0);
}

#[tokio::test]
async fn a_secret_is_read_under_its_own_name_and_with_a_value() {
    let world = World::new().await;
    world.vault.put("A", "v");
    let target = world.target().await;
    let entries = world.list(&*target, &Ledger::default(), 0).await.expect("list").entries;
    let id = |name: &str| format!("{}/secrets/{name}/0123", world.host.url);
    for body in [
        json!({}),
        json!({"value": "v"}),
        json!({"id": id("A")}),
        json!({"id": id("A"), "value": null, "attributes": {"enabled": true}}),
        json!({"id": id("A"), "value": 7, "attributes": {"enabled": true}}),
        json!({"id": id("B"), "value": "v", "attributes": {"enabled": true}}),
        json!({"id": id("A"), "value": "v", "error": {"code": "Forbidden"}}),
        json!([]),
        json!(null),
    ] {
        let about = body.to_string();
        world.host.faults.add(Fault::next("GET /secrets/A", 1, Effect::status(200, about.clone())));
        refused(&target.read(&world.cx, &[&entries[0]]).await.remove(0).1.expect_err(&about), &about);
    }
    let off = json!({"id": id("a"), "attributes": {"enabled": false}}).to_string();
    world.host.faults.add(Fault::next("GET /secrets/A", 1, Effect::status(200, off)));
    let read = target.read(&world.cx, &[&entries[0]]).await.remove(0).1.expect("told");
    assert!(read.value.is_none() && read.problem.is_some_and(|p| p.contains("disabled")));
    let certificate = json!({"id": id("A"), "value": "PRIVATE", "kid": "https://kv.vault.azure.net/keys/A/1", "attributes": {}}).to_string();
    world.host.faults.add(Fault::next("GET /secrets/A", 1, Effect::status(200, certificate)));
    let read = target.read(&world.cx, &[&entries[0]]).await.remove(0).1.expect("told");
    assert!(read.value.is_none() && read.problem.is_some_and(|p| p.contains("certificate")), "a key id says so, too");
}

#[tokio::test]
async fn success_in_other_words_than_a_vaults_is_looked_into() {
    let world = World::new().await;
    world.vault.put("A", "old");
    let target = world.target().await;
    let html = Effect::Answer { status: 200, headers: vec![("content-type".into(), "text/html".into())], body: "<html>hello</html>".into() };
    for effect in [Effect::status(200, "{}"), Effect::status(201, "[]"), Effect::status(204, ""), html] {
        world.host.faults.add(Fault::next("PUT", 1, effect));
        let error = world.apply(&*target, Action::Update, "A", Some("new"), None).await.expect_err("not written");
        refused(&error, "put");
        assert_eq!(world.vault.secrets()["a"].value, "old");
    }
    // It was carried out, and something on the way ate the answer.
    world.vault.put("A", "new");
    world.host.faults.add(Fault::next("PUT", 1, Effect::status(200, "{}")));
    world.apply(&*target, Action::Update, "A", Some("new"), None).await.expect("it stands there");
    for body in ["{}", "[]", "null"] {
        world.host.faults.add(Fault::next("DELETE", 1, Effect::status(200, body)));
        refused(&world.apply(&*target, Action::Delete, "A", None, None).await.expect_err(body), body);
    }
    assert_eq!(world.vault.secrets()["a"].value, "new");
}
