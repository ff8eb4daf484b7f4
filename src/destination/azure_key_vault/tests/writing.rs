//! Writes: recovery, waiting, refusals, lost answers.

use super::*;
use crate::http::ErrorKind;
use crate::sandbox::azure_key_vault::Operation;
use crate::sandbox::host::{Effect, Fault};

#[tokio::test]
async fn a_deleted_name_is_recovered_awaited_and_set() {
    let world = World::new().await;
    let ms = Duration::from_millis;
    world.vault.set_delays(ms(1), ms(60), ms(60));
    world.vault.put_with("DB-PASS", "old", |s| {
        s.tags.insert("team".into(), "red".into());
    });
    world.vault.delete("DB-PASS");
    let target = world.target().await;
    let written = world.apply(&*target, Action::Create, "DB_PASS", Some("new"), None).await.expect("written");
    assert_eq!(written.instead, Some(Action::Restore));
    let seen = &world.vault.secrets()["db-pass"];
    assert_eq!((seen.value.as_str(), seen.versions, seen.tags["team"].as_str()), ("new", 2, Some("red")));
    let log = world.host.log.lines();
    let of = |what: &str| log.iter().filter(|l| l.starts_with(what)).count();
    assert_eq!(of("POST /deletedsecrets/DB-PASS/recover"), 1);
    assert!(of("GET /secrets/DB-PASS") >= 2, "404 until it is back");
    assert!(of("PUT /secrets/DB-PASS") >= 3, "409 while reads answer and writes do not yet");
    assert!(world.cx.meter().snapshot().waited_ms > 0);
    assert_eq!(world.vault.purges(), 0);
}

#[tokio::test]
async fn a_name_being_deleted_is_awaited_first() {
    let world = World::new().await;
    world.vault.put("A", "old");
    world.vault.begin_delete("A");
    let target = world.target().await;
    let written = world.apply(&*target, Action::Create, "A", Some("new"), None).await.expect("written");
    assert_eq!(written.instead, Some(Action::Restore));
    assert_eq!(world.vault.secrets()["a"].value, "new");
}

#[tokio::test]
async fn a_recovery_without_the_right_names_it_and_others_go_on() {
    let world = World::new().await;
    world.vault.put("A", "old");
    world.vault.delete("A");
    world.vault.forbid(Operation::Recover, None, "ForbiddenByPolicy");
    let target = world.target().await;
    let error = world.apply(&*target, Action::Create, "A", Some("new"), None).await.expect_err("no right");
    assert_eq!(error.kind, ErrorKind::Permission);
    assert!(error.text().contains("Recover") && error.text().contains("ForbiddenByPolicy"), "{error}");
    world.apply(&*target, Action::Create, "B", Some("v"), None).await.expect("the others go on");
}

#[tokio::test]
async fn a_purge_between_our_steps_makes_it_a_plain_creation() {
    let world = World::new().await;
    let target = world.target().await;
    let body = json!({"error": {"code": "Conflict", "message": "deleted", "innererror": {"code": "ObjectIsDeletedButRecoverable"}}}).to_string();
    world.host.faults.add(Fault::next("PUT", 1, Effect::status(409, body)));
    let written = world.apply(&*target, Action::Create, "A", Some("v"), None).await.expect("written");
    assert_eq!((written.instead, world.host.log.count("recover"), world.host.log.count("PUT")), (None, 1, 2));
    // A restore planned from the deleted list, and the secret was purged since.
    world.vault.put("B", "old");
    world.vault.delete("B");
    world.vault.purge("B");
    world.apply(&*target, Action::Restore, "B", Some("v"), None).await.expect("written");
    assert_eq!(world.vault.secrets()["b"].value, "v");
}

#[tokio::test]
async fn a_conflict_without_a_word_is_awaited_and_then_told() {
    let world = World::new().await;
    let mut session = world.session();
    session.patience = Patience { limit: Duration::from_millis(120), unit: Duration::from_millis(10) };
    let target = session.open(&world.cx, &super::target(world.config(), SyncOptions::default())).await.expect("target");
    let body = json!({"error": {"code": "Conflict", "message": "Something is going on."}}).to_string();
    world.host.faults.add(Fault::always("PUT", 1.0, Effect::status(409, body)));
    let error = world.apply(&*target, Action::Create, "A", Some("v"), None).await.expect_err("bounded");
    assert!(error.text().contains("Something is going on") && error.kind == ErrorKind::Unsettled, "{error}");
    assert!(world.host.log.count("PUT") > 2);
}

#[tokio::test]
async fn what_others_set_survives_an_update() {
    let world = World::new().await;
    world.vault.put_with("A", "old", |s| {
        s.content_type = Some("text/plain".into());
        s.exp = Some(1_999_999_999);
        (0..15).for_each(|i| {
            s.tags.insert(format!("t{i}"), "v".into());
        });
    });
    let target = world.target().await;
    let entries = world.list(&*target, &Ledger::default(), 1).await.expect("list").entries;
    let written = world.apply(&*target, Action::Update, "A", Some("new"), Some(&entries[0])).await.expect("written");
    let seen = &world.vault.secrets()["a"];
    assert_eq!((seen.value.as_str(), seen.tags.len(), seen.exp), ("new", 15, Some(1_999_999_999)));
    assert_eq!(written.note, None);
    assert_eq!(seen.content_type.as_deref(), Some("text/plain"));
    assert_eq!(world.host.log.count("GET /secrets/"), 0, "the list carried them");
    // A date that has passed is kept like any other, and told: readers may heed it.
    world.vault.put_with("B", "old", |s| (s.nbf, s.exp) = (Some(1_000_000_000), Some(1_100_000_000)));
    let entries = world.list(&*target, &Ledger::default(), 1).await.expect("list").entries;
    let entry = entries.iter().find(|e| e.key == "B").expect("listed");
    assert!(entry.note.as_deref().is_some_and(|n| n.contains("expired 2004-11-09")), "{entry:?}");
    let written = world.apply(&*target, Action::Update, "B", Some("new"), Some(entry)).await.expect("written");
    let seen = &world.vault.secrets()["b"];
    assert_eq!((seen.value.as_str(), seen.nbf, seen.exp), ("new", Some(1_000_000_000), Some(1_100_000_000)));
    assert!(written.note.as_deref().is_some_and(|n| n.contains("2004-11-09")), "{written:?}");
}

#[tokio::test]
async fn values_travel_byte_for_byte() {
    let world = World::new().await;
    let target = world.target().await;
    let at_the_edge = format!("{}ü", "x".repeat(24_998));
    let values = ["line\r\nnext\n", "tab\tand \"quotes\" \\ / \u{7}", "nul\u{0}inside", "emoji 🦀 ü", "", &"y".repeat(25_000), &at_the_edge];
    for (i, value) in values.iter().enumerate() {
        world.apply(&*target, Action::Create, &format!("K{i}"), Some(value), None).await.expect("written");
        assert_eq!(world.vault.secrets()[&format!("k{i}")].value, *value);
    }
    let entries = world.list(&*target, &Ledger::default(), 0).await.expect("list").entries;
    for (key, read) in target.read(&world.cx, &entries.iter().collect::<Vec<_>>()).await {
        let at: usize = key[1..].parse().expect("number");
        assert_eq!(read.expect("read").value.expect("value").expose(), values[at]);
    }
}

#[tokio::test]
async fn a_refused_empty_value_leaves_the_secret_and_the_others() {
    let world = World::new().await;
    world.vault.set_refuse_empty(true);
    world.vault.put("A", "kept");
    let target = world.target().await;
    let error = world.apply(&*target, Action::Update, "A", Some(""), None).await.expect_err("refused");
    assert!(error.kind == ErrorKind::Invalid && error.text().contains("does not take empty values"), "{error}");
    assert_eq!(world.vault.secrets()["a"].value, "kept");
    world.apply(&*target, Action::Create, "B", Some("v"), None).await.expect("the others go on");
}

#[tokio::test]
async fn a_lost_answer_makes_no_second_version() {
    let world = World::new().await;
    let target = world.target().await;
    world.host.faults.add(Fault::next("PUT", 1, Effect::LostAnswer));
    let written = world.apply(&*target, Action::Create, "A", Some("v"), None).await.expect("resolved");
    assert_eq!((world.vault.secrets()["a"].versions, world.host.log.count("PUT")), (1, 1));
    assert!(written.stamp.is_some());
    // It died before the vault saw it: written again.
    world.host.faults.add(Fault::next("PUT", 1, Effect::Reset));
    world.apply(&*target, Action::Create, "B", Some("v"), None).await.expect("resolved");
    assert_eq!((world.vault.secrets()["b"].versions, world.host.log.count("PUT /secrets/B")), (1, 2));
    world.host.faults.add(Fault::next("PUT", 3, Effect::status(503, "{}")));
    world.apply(&*target, Action::Create, "C", Some("v"), None).await.expect("the fourth");
    assert_eq!(world.vault.secrets()["c"].versions, 1);
    world.host.faults.add(Fault::next("DELETE", 1, Effect::LostAnswer));
    world.apply(&*target, Action::Delete, "A", None, None).await.expect("deleted");
    assert!(!world.vault.secrets().contains_key("a"));
}

#[tokio::test]
async fn a_write_that_was_done_and_answered_with_503_is_not_done_twice() {
    let world = World::new().await;
    let target = world.target().await;
    let busy = |on: &str| world.host.faults.add(Fault::next(on, 1, Effect::done_but_busy("1")));
    let mut expected = 0;
    for (action, value) in [(Action::Create, "one"), (Action::Update, "two")] {
        busy("PUT");
        expected += 1;
        let begun = std::time::Instant::now();
        let written = world.apply(&*target, action, "A", Some(value), None).await.expect("resolved");
        assert!(begun.elapsed() >= Duration::from_secs(1), "Retry-After is obeyed");
        assert!(written.stamp.is_some() && !written.untouched && written.instead.is_none(), "{written:?}");
        let stored = &world.vault.secrets()["a"];
        assert_eq!((stored.value.as_str(), stored.versions, world.host.log.count("PUT")), (value, expected, expected), "{action}");
        // What it was confirmed by is what the next listing shows.
        let row = row(&desired(&*target, "A", value), written.stamp.clone(), value);
        let ledger = Ledger { rows: [("a".to_string(), row.clone())].into(), ..Ledger::default() };
        let entries = world.list(&*target, &ledger, 1).await.expect("list").entries;
        assert_eq!(entries[0].stamp, row.stamp);
    }
    busy("DELETE");
    let gone = world.apply(&*target, Action::Delete, "A", None, None).await.expect("deleted");
    assert!(!gone.untouched && gone.note.as_deref().is_some_and(|n| !n.contains("already")), "it was this run that deleted it: {gone:?}");
    assert!(!world.vault.secrets().contains_key("a"));
    busy("recover");
    let back = world.apply(&*target, Action::Restore, "A", Some("two"), None).await.expect("restored");
    assert!(!back.untouched);
    assert_eq!((world.vault.secrets()["a"].value.as_str(), world.vault.secrets()["a"].versions), ("two", expected));
}

#[tokio::test]
async fn throttling_holds_all_workers() {
    let world = World::new().await;
    let target = world.target().await;
    let body = r#"{"error":{"code":"Throttled","message":"slower"}}"#;
    let wait = Effect::Answer { status: 429, headers: vec![("retry-after".into(), "1".into())], body: body.into() };
    world.host.faults.add(Fault::next("PUT", 1, wait));
    let begun = std::time::Instant::now();
    world.apply(&*target, Action::Create, "A", Some("v"), None).await.expect("after the wait");
    world.apply(&*target, Action::Create, "B", Some("v"), None).await.expect("written");
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_eq!(world.vault.secrets().len(), 2);
    // A date is as good as seconds, and nobody else is sent meanwhile.
    let date = |seconds: i64| crate::http::http_date(jiff::Timestamp::from_second(1_780_000_000 + seconds).expect("a time"));
    let headers = vec![("date".to_string(), date(0)), ("retry-after".to_string(), date(2))];
    world.host.faults.add(Fault::next("PUT /secrets/D", 1, Effect::Answer { status: 429, headers, body: body.into() }));
    let begun = std::time::Instant::now();
    let first = async {
        world.apply(&*target, Action::Create, "D", Some("v"), None).await.expect("after the wait");
        begun.elapsed()
    };
    let other = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        world.apply(&*target, Action::Create, "E", Some("v"), None).await.expect("written");
        begun.elapsed()
    };
    let (first, other) = tokio::join!(first, other);
    assert!(first >= Duration::from_secs(2) && other >= Duration::from_millis(1_900), "{first:?} {other:?}");
    // Without a Retry-After the attempts of one call may all be throttled, and it goes on.
    world.host.faults.add(Fault::next("PUT /secrets/C", 6, Effect::status(429, body)));
    world.apply(&*target, Action::Create, "C", Some("v"), None).await.expect("in the second round");
    assert_eq!(world.vault.secrets()["c"].versions, 1);
}

#[tokio::test]
async fn deletions_are_soft_repeatable_and_never_purges() {
    let world = World::new().await;
    world.vault.put("A", "v");
    let target = world.target().await;
    let first = world.apply(&*target, Action::Delete, "A", None, None).await.expect("deleted");
    assert!(first.note.expect("note").contains("can be recovered until"));
    world.apply(&*target, Action::Delete, "A", None, None).await.expect("being deleted");
    world.apply(&*target, Action::Delete, "NEVER", None, None).await.expect("gone already");
    assert_eq!((world.vault.deleted(), world.vault.purges()), (vec!["a".to_string()], 0));
    world.vault.put("B", "v");
    world.vault.forbid(Operation::Delete, None, "ForbiddenByRbac");
    let error = world.apply(&*target, Action::Delete, "B", None, None).await.expect_err("no right");
    assert!(error.text().contains("vaults/secrets/delete"), "{error}");
}

#[tokio::test]
async fn what_comes_back_disabled_is_left_alone() {
    let world = World::new().await;
    world.vault.put_with("A", "old", |s| s.disabled = true);
    world.vault.delete("A");
    let target = world.target().await;
    let error = world.apply(&*target, Action::Create, "A", Some("new"), None).await.expect_err("left");
    assert!(error.text().contains("disabled"), "{error}");
    assert_eq!(world.vault.secrets()["a"].value, "old");
}

#[tokio::test]
async fn a_cancelled_run_stops_waiting() {
    let world = World::new().await;
    world.vault.set_delays(Duration::ZERO, Duration::from_secs(600), Duration::ZERO);
    world.vault.put("A", "old");
    world.vault.delete("A");
    let target = world.target().await;
    let cancel = world.cx.cancel_token().clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(80)).await;
        cancel.cancel();
    });
    let error = world.apply(&*target, Action::Create, "A", Some("new"), None).await.expect_err("cancelled");
    assert_eq!(error.kind, ErrorKind::Cancelled);
}

#[tokio::test]
async fn a_vault_that_contradicts_itself_is_not_asked_for_ever() {
    let world = World::new().await;
    let mut session = world.session();
    session.patience = Patience { limit: Duration::from_millis(150), unit: Duration::from_millis(10) };
    let target = session.open(&world.cx, &super::target(world.config(), SyncOptions::default())).await.expect("target");
    let body = json!({"error": {"code": "Conflict", "message": "m", "innererror": {"code": "ObjectIsDeletedButRecoverable"}}}).to_string();
    world.host.faults.add(Fault::always("PUT", 1.0, Effect::status(409, body)));
    let error = world.apply(&*target, Action::Create, "A", Some("v"), None).await.expect_err("bounded");
    assert!(error.kind == ErrorKind::Unsettled && error.text().contains("ObjectIsDeletedButRecoverable"), "{error}");
}

#[tokio::test]
async fn the_quota_of_creations_is_waited_out() {
    let world = World::new().await;
    world.vault.set_creation_quota(Some((30, Duration::from_millis(600))));
    let mut session = world.session();
    session.patience.unit = Duration::from_millis(100);
    let target = session.open(&world.cx, &super::target(world.config(), SyncOptions::default())).await.expect("target");
    let keys: Vec<String> = (0..40).map(|i| format!("K{i}")).collect();
    let all = futures::future::join_all(keys.iter().map(|k| world.apply(&*target, Action::Create, k, Some("v"), None))).await;
    assert!(all.iter().all(Result::is_ok));
    assert!(world.vault.secrets().values().all(|s| s.versions == 1) && world.vault.secrets().len() == 40);
}
