//! Writing keys: create, update, bring back, delete; names that are taken; limits.

use std::time::Duration;

use kms_sync::destination::{Op, Target};
use kms_sync::http::ErrorKind;
use kms_sync::model::plan::Action;
use kms_sync::sandbox::host::{Effect, Fault};
use kms_sync::sandbox::oci::{self, Delays};

use super::{Bench, apply, bench, desired, itemised, row};

fn puts(bench: &Bench) -> usize {
    bench.host.log.count("PUT ")
}

#[tokio::test]
async fn created_settled_and_marked() {
    let bench = bench().await;
    bench.state.set_delay(Duration::from_millis(700));
    let value = "multi\nline ünï 🗝 \"x\"\n";
    let written = bench.create("DB_PASSWORD", value).await;
    let secret = bench.state.secret("DB_PASSWORD").expect("created");
    assert_eq!(secret.state, "ACTIVE", "an operation ends when the secret has settled");
    assert_eq!(bench.state.value("DB_PASSWORD").as_deref(), Some(value));
    assert_eq!(written.id.as_deref(), Some(secret.id.as_str()));
    assert!(written.stamp.is_some_and(|s| s.starts_with(&format!("1@{}#", secret.id))));
    assert_eq!(secret.freeform_tags, serde_json::json!({"managed-by": "kms-sync", "kms-sync": "sync-1"}));
    assert_eq!(secret.key, bench.state.key());
}

#[tokio::test]
async fn a_change_writes_one_version_and_equality_none() {
    let bench = bench().await;
    bench.create("A", "one").await;
    let entry = bench.entry("A").await;
    bench.host.log.clear();
    let same = bench.apply(Action::Update, "A", Some("one"), Some(&entry)).await.expect("compared");
    assert!(same.untouched && puts(&bench) == 0);
    let written = bench.apply(Action::Update, "A", Some("two"), Some(&entry)).await.expect("updated");
    assert!(!written.untouched && puts(&bench) == 1);
    assert_eq!(bench.state.secret("A").expect("there").versions.len(), 2);
    let id = entry.id.clone().expect("id");
    assert!(written.stamp.is_some_and(|s| s.starts_with(&format!("2@{id}#"))), "asked for by itself, the version is known");
    // When the runner has read it already, it is not read again.
    let read = kms_sync::destination::Entry { value: Some(kms_sync::model::SecretValue::new("two")), ..bench.entry("A").await };
    bench.host.log.clear();
    bench.apply(Action::Update, "A", Some("three"), Some(&read)).await.expect("updated");
    assert_eq!(bench.host.log.count("secretbundles"), 0);
    assert_eq!(bench.state.value("A").as_deref(), Some("three"));
}

#[tokio::test]
async fn a_moving_secret_is_waited_for() {
    let bench = bench().await;
    bench.state.set_delays(Delays { create: Duration::from_millis(1500), ..Delays::all(Duration::from_millis(50)) });
    let creating = tokio::spawn({
        let (session, cx, target) = (bench.session.clone(), bench.cx.clone(), bench.target(serde_json::json!({})));
        async move {
            let opened = session.open(&cx, &target).await.expect("opened");
            apply(&cx, &*opened, Action::Create, "A", Some("one"), None).await
        }
    });
    while bench.state.secret("A").is_none() {
        tokio::task::yield_now().await;
    }
    // Listed while it is being created; and, from an older listing, taken for active.
    let settling = bench.entry("A").await;
    assert_eq!(settling.state, kms_sync::destination::EntryState::Settling("CREATING".into()));
    let stale = kms_sync::destination::Entry {
        facts: serde_json::json!({"state": "ACTIVE"}),
        value: Some(kms_sync::model::SecretValue::new("x")),
        ..settling.clone()
    };
    let written = bench.apply(Action::Update, "A", Some("two"), Some(&stale)).await.expect("IncorrectState is waited out");
    assert!(!written.untouched);
    creating.await.expect("joined").expect("created");
    assert_eq!(bench.state.value("A").as_deref(), Some("two"));
    bench.state.edit("A", |s| s.state = "UPDATING".into());
    let settling = bench.entry("A").await;
    bench.state.edit("A", |s| s.next = Some((tokio::time::Instant::now() + Duration::from_millis(300), "ACTIVE")));
    let same = bench.apply(Action::Update, "A", Some("two"), Some(&settling)).await.expect("settled");
    assert!(same.untouched);
}

#[tokio::test]
async fn waits_are_shown_with_the_state() {
    let bench = bench().await;
    bench.state.set_delay(Duration::from_millis(600));
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let keep = seen.clone();
    let cx = kms_sync::http::Cx::new(
        tokio_util::sync::CancellationToken::new(),
        std::sync::Arc::new(move |w| keep.lock().expect("lock").extend(w.map(|w: kms_sync::model::board::Waiting| w.reason))),
    );
    apply(&cx, &*bench.open().await, Action::Create, "A", Some("one"), None).await.expect("created");
    let seen = seen.lock().expect("lock").clone();
    assert!(seen.iter().any(|r| r.contains("A is CREATING")), "{seen:?}");
}

#[tokio::test]
async fn a_pending_key_that_returns_equal_is_not_written() {
    let bench = bench().await;
    let entry = bench.pending("A", "same").await;
    let written = bench.apply(Action::Restore, "A", Some("same"), Some(&entry)).await.expect("restored");
    assert_eq!((bench.host.log.count("cancelDeletion"), puts(&bench)), (1, 0));
    assert!(!written.untouched && written.instead.is_none());
    assert_eq!(bench.state.secret("A").expect("there").state, "ACTIVE");
    assert_eq!(bench.state.secret("A").expect("there").versions.len(), 1);
}

#[tokio::test]
async fn a_pending_key_that_returns_changed_is_written_once() {
    let bench = bench().await;
    let entry = bench.pending("A", "old").await;
    bench.state.set_delay(Duration::from_millis(800));
    bench.apply(Action::Restore, "A", Some("new"), Some(&entry)).await.expect("restored");
    assert_eq!((bench.host.log.count("cancelDeletion"), puts(&bench)), (1, 1));
    assert_eq!(bench.state.value("A").as_deref(), Some("new"));
}

#[tokio::test]
async fn somebody_else_called_the_deletion_off() {
    let bench = bench().await;
    let entry = bench.pending("A", "old").await;
    bench.state.edit("A", |s| (s.state, s.time_of_deletion) = ("ACTIVE".into(), None));
    let written = bench.apply(Action::Restore, "A", Some("new"), Some(&entry)).await.expect("written");
    assert_eq!(written.instead, Some(Action::Update));
    assert_eq!(bench.state.value("A").as_deref(), Some("new"));
}

#[tokio::test]
async fn the_deadline_passes_while_it_is_brought_back() {
    let bench = bench().await;
    let entry = bench.pending("A", "old").await;
    bench.state.set_delay(Duration::from_millis(300));
    bench.state.expire("A");
    let written = bench.apply(Action::Restore, "A", Some("new"), Some(&entry)).await.expect("created anew");
    assert_eq!(written.instead, Some(Action::Create));
    assert_ne!(written.id, entry.id);
    assert_eq!(bench.state.value("A").as_deref(), Some("new"));
}

#[tokio::test]
async fn a_name_reserved_in_another_compartment() {
    let bench = bench().await;
    let elsewhere = bench.state.add_compartment("elsewhere", oci::TENANCY);
    for (name, state, word) in [("PENDING", "PENDING_DELETION", "pending deletion"), ("LIVING", "ACTIVE", "ocid1.vaultsecret")] {
        bench.state.put_in(&elsewhere, bench.state.vault(), bench.state.key(), name, b"v");
        bench.state.edit(name, |s| (s.state, s.time_of_deletion) = (state.into(), Some(jiff::Timestamp::MAX)));
        let error = bench.apply(Action::Create, name, Some("v"), None).await.expect_err("taken");
        assert_eq!(error.kind, ErrorKind::Conflict);
        assert!(error.text().contains(word), "{error}");
    }
    assert_eq!(puts(&bench), 0);
}

#[tokio::test]
async fn a_secret_that_appeared_meanwhile_is_not_overwritten_unasked() {
    let bench = bench().await;
    bench.state.put("A", b"theirs");
    let error = bench.apply(Action::Create, "A", Some("ours"), None).await.expect_err("somebody else's");
    assert_eq!(error.kind, ErrorKind::Conflict);
    assert_eq!(bench.state.value("A").as_deref(), Some("theirs"));
    let same = bench.apply(Action::Create, "A", Some("theirs"), None).await.expect("equal is fine");
    assert!(same.untouched);
    // Made just now, perhaps by a call of ours whose answer was lost: it is waited for and compared.
    for (name, value) in [("EQUAL", "ours"), ("OTHER", "theirs")] {
        bench.state.put(name, value.as_bytes());
        let next = Some((tokio::time::Instant::now() + Duration::from_millis(300), "ACTIVE"));
        bench.state.edit(name, |s| (s.state, s.next) = ("CREATING".into(), next));
        let result = bench.apply(Action::Create, name, Some("ours"), None).await;
        assert_eq!(result.map_err(|e| e.kind).map(|w| w.untouched), if value == "ours" { Ok(true) } else { Err(ErrorKind::Conflict) }, "{name}");
        assert_eq!(bench.state.value(name).as_deref(), Some(value));
    }
    // Ours, from a run that was killed before it could take note: adopted and brought up to date.
    bench.create("B", "one").await;
    let adopted = bench.apply(Action::Create, "B", Some("two"), None).await.expect("adopted");
    assert_eq!(adopted.instead, Some(Action::Update));
    assert_eq!(bench.state.value("B").as_deref(), Some("two"));
    assert_eq!(bench.state.secrets().iter().filter(|s| s.name == "B").count(), 1);
}

#[tokio::test]
async fn a_row_of_another_secret_does_not_make_a_foreign_one_ours() {
    let bench = bench().await;
    let (want, target) = (desired("A", "ours"), bench.open().await);
    let apply = |written: kms_sync::destination::Written| {
        let (want, target, cx) = (&want, &target, &bench.cx);
        async move {
            let row = row("A", &written);
            let token = uuid::Uuid::new_v4().to_string();
            let op = Op {
                action: Action::Create,
                key: "A",
                entry: None,
                row: Some(&row),
                desired: Some(want),
                value_differs: true,
                token: &token,
                approved: false,
            };
            itemised(&**target).apply(cx, &op).await
        }
    };
    // What this sync wrote is gone, and somebody else took the name.
    let gone = bench.create("A", "one").await;
    bench.state.edit("A", |s| s.name = "GONE".into());
    bench.state.put("A", b"theirs");
    let error = apply(gone.clone()).await.expect_err("somebody else's");
    assert_eq!((error.kind, bench.state.value("A").as_deref()), (ErrorKind::Conflict, Some("theirs")));
    // The row names this very secret, whose tag others took away.
    let id = bench.state.secret("A").expect("there").id;
    let adopted = apply(kms_sync::destination::Written { id: Some(id), ..gone }).await.expect("ours");
    assert_eq!((adopted.instead, bench.state.value("A").as_deref()), (Some(Action::Update), Some("ours")));
}

#[tokio::test]
async fn an_accepted_create_with_an_unreadable_answer_is_no_failure_for_certain() {
    let bench = bench().await;
    let unreadable = || Effect::Answer { status: 200, headers: vec![("content-type".into(), "application/json".into())], body: "[1".into() };
    bench.host.faults.add(Fault::next("POST /20180608/secrets", 1, unreadable()));
    let error = bench.apply(Action::Create, "A", Some("v"), None).await.expect_err("nobody knows");
    assert!(error.ambiguous && error.kind == ErrorKind::NotTheService, "{error:?}");
    // It is looked for, and what carries this sync's mark is taken up.
    bench.create("B", "v").await;
    bench.host.faults.add(Fault::next("POST /20180608/secrets", 1, unreadable()));
    let written = bench.apply(Action::Create, "B", Some("v"), None).await.expect("found");
    assert_eq!(written.id, Some(bench.state.secret("B").expect("there").id));
    assert_eq!((written.untouched, bench.state.secret("B").expect("there").versions.len()), (false, 1));
}

#[tokio::test]
async fn deletion_times_keep_their_distance_from_the_edges() {
    for (days, clock) in [(1, 240), (1, -240), (7, 240), (30, 240), (30, -240)] {
        let bench = bench().await;
        bench.state.set_clock(clock);
        bench.state.put("A", b"v");
        let entry = bench.entry("A").await;
        let target = bench.open_with(serde_json::json!({ "deletionDays": days })).await;
        let written = apply(&bench.cx, &*target, Action::Delete, "A", None, Some(&entry)).await.expect("scheduled");
        let secret = bench.state.secret("A").expect("kept");
        assert_eq!(secret.state, "PENDING_DELETION");
        let hours = (secret.time_of_deletion.expect("a time").as_second() - jiff::Timestamp::now().as_second()) / 3600;
        assert!((24 * days - 2..=24 * days + 1).contains(&hours), "{days} days: {hours} h");
        assert!(written.note.is_some_and(|n| n.contains("brought back")), "the outcome tells until when");
    }
}

#[tokio::test]
async fn a_week_by_default() {
    let bench = bench().await;
    bench.state.put("A", b"v");
    let entry = bench.entry("A").await;
    bench.apply(Action::Delete, "A", None, Some(&entry)).await.expect("scheduled");
    let at = bench.state.secret("A").expect("kept").time_of_deletion.expect("a time").as_second();
    assert!((at - jiff::Timestamp::now().as_second() - 7 * 86_400).abs() < 60);
    // Once more from the same listing: done already, nothing sent.
    bench.host.log.clear();
    let again = bench.apply(Action::Delete, "A", None, Some(&bench.entry("A").await)).await.expect("done");
    assert!(again.untouched);
    assert_eq!(bench.host.log.count("scheduleDeletion"), 0);
    // And from the older one, by way of a refusal.
    let again = bench.apply(Action::Delete, "A", None, Some(&entry)).await.expect("done");
    assert!(again.untouched);
}

#[tokio::test]
async fn sizes_up_to_the_limit_arrive() {
    let bench = bench().await;
    for n in [1, 18_750, 18_751, 25_600] {
        let value = "v".repeat(n);
        bench.create(&format!("S{n}"), &value).await;
        assert_eq!(bench.state.value(&format!("S{n}")), Some(value));
    }
    let error = bench.apply(Action::Create, "BIG", Some(&"v".repeat(25_601)), None).await.expect_err("too large");
    assert_eq!(error.kind, ErrorKind::Invalid);
}

#[tokio::test]
async fn binary_content_is_overwritten_after_consent_only() {
    let bench = bench().await;
    bench.state.put("A", &[0xff, 0xfe]);
    let entry = bench.entry("A").await;
    let error = bench.apply(Action::Update, "A", Some("text"), Some(&entry)).await.expect_err("not ours");
    assert_eq!(error.kind, ErrorKind::Conflict);
    assert_eq!(puts(&bench), 0);
    let (target, want) = (bench.open().await, desired("A", "text"));
    let token = uuid::Uuid::new_v4().to_string();
    let op = Op {
        action: Action::Update,
        key: "A",
        entry: Some(&entry),
        row: None,
        desired: Some(&want),
        value_differs: true,
        token: &token,
        approved: true,
    };
    itemised(&*target).apply(&bench.cx, &op).await.expect("agreed");
    assert_eq!(bench.state.value("A").as_deref(), Some("text"));
}

#[tokio::test]
async fn a_full_tenancy_stops_creates_and_nothing_else() {
    let bench = bench().await;
    bench.create("A", "one").await;
    bench.state.set_limit(2);
    let target = bench.open().await;
    apply(&bench.cx, &*target, Action::Create, "B", Some("v"), None).await.expect("the last one");
    bench.host.log.clear();
    for key in ["C", "D", "E"] {
        let error = apply(&bench.cx, &*target, Action::Create, key, Some("v"), None).await.expect_err("full");
        assert_eq!(error.kind, ErrorKind::Quota, "{error}");
    }
    assert_eq!(bench.host.log.count("POST /20180608/secrets"), 1, "after the first refusal none is tried");
    let entry = bench.entry("A").await;
    apply(&bench.cx, &*target, Action::Update, "A", Some("two"), Some(&entry)).await.expect("updates go on");
}

#[tokio::test]
async fn missing_rights_are_named() {
    let bench = bench().await;
    bench.state.put("A", b"v");
    let entry = bench.entry("A").await;
    for (right, action) in [("SECRET_DELETE", Action::Delete), ("SECRET_UPDATE", Action::Update), ("KEY_ENCRYPT", Action::Create)] {
        bench.state.allow(right, false);
        let (key, entry) = if action == Action::Create { ("NEW", None) } else { ("A", Some(&entry)) };
        let value = (action != Action::Delete).then_some("new");
        let error = bench.apply(action, key, value, entry).await.expect_err(right);
        assert!(error.text().contains(right), "{error}");
        bench.state.allow(right, true);
    }
    let pending = bench.pending("P", "v").await;
    bench.state.allow("SECRET_DELETE", false);
    let error = bench.apply(Action::Restore, "P", Some("v"), Some(&pending)).await.expect_err("no right");
    assert!(error.text().contains("SECRET_DELETE"), "{error}");
    // Without the right to read, values can still be written.
    bench.state.allow("SECRET_BUNDLE_READ", false);
    bench.apply(Action::Update, "A", Some("blind"), Some(&entry)).await.expect("written");
    assert_eq!(bench.state.value("A").as_deref(), Some("blind"));
    // A wrong or disabled key is one of the body's OCIDs.
    bench.state.set_key(bench.state.key(), "DISABLED", "AES");
    let error = bench.apply(Action::Create, "NEW", Some("v"), None).await.expect_err("disabled");
    assert!(error.text().contains("encryption key"), "{error}");
}

#[tokio::test]
async fn deleted_by_another_tool_meanwhile() {
    let bench = bench().await;
    bench.state.put("A", b"v");
    let entry = bench.entry("A").await;
    bench.state.edit("A", |s| (s.state, s.compartment) = ("DELETED".into(), "moved away".into()));
    let written = bench.apply(Action::Delete, "A", None, Some(&entry)).await.expect("gone is gone");
    assert!(written.untouched);
    let written = bench.apply(Action::Update, "A", Some("new"), Some(&entry)).await;
    assert!(written.is_err() || written.is_ok_and(|w| w.instead == Some(Action::Create)));
}

#[tokio::test]
async fn an_auto_generated_secret_of_ours_is_written_as_text() {
    let bench = bench().await;
    let written = bench.create("A", "one").await;
    bench.state.edit("A", |s| {
        s.extra.insert("isAutoGenerationEnabled".into(), true.into());
    });
    let (target, want, row) = (bench.open().await, desired("A", "two"), row("A", &written));
    let entry = bench.entry("A").await;
    let token = uuid::Uuid::new_v4().to_string();
    let op = Op {
        action: Action::Update,
        key: "A",
        entry: Some(&entry),
        row: Some(&row),
        desired: Some(&want),
        value_differs: true,
        token: &token,
        approved: false,
    };
    itemised(&*target).apply(&bench.cx, &op).await.expect("written");
    assert_eq!(bench.state.secret("A").expect("there").extra["isAutoGenerationEnabled"], false);
}

#[tokio::test]
async fn identities_are_exact() {
    let bench = bench().await;
    let one = bench.open().await.identity();
    let other = Target {
        config: {
            let mut c = bench.config();
            c.insert("compartmentOcid".into(), "x".into());
            c
        },
        ..bench.target(serde_json::json!({}))
    };
    assert_ne!(one, bench.session.open(&bench.cx, &other).await.expect("opened").identity());
    assert_eq!(one, bench.open().await.identity());
}
