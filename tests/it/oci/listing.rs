//! What the inventory tells: paging, the nine states, duplicates, freshness, reading.

use kms_sync::destination::{EntryState, Freshness, Listing};
use kms_sync::http::ErrorKind;
use kms_sync::model::ledger::Ledger;
use kms_sync::model::plan::Action;
use kms_sync::sandbox::host::{Effect, Fault};

use super::{bench, list, row};

#[tokio::test]
async fn every_page_is_read() {
    let bench = bench().await;
    for n in 0..7 {
        bench.state.put(&format!("K{n}"), b"v");
    }
    for (size, pages) in [(1, 7), (3, 3), (7, 1), (1000, 1)] {
        bench.state.set_page_size(size);
        bench.host.log.clear();
        assert_eq!(bench.list().await.expect("listed").entries.len(), 7);
        assert_eq!(bench.host.log.count("GET /20180608/secrets?"), pages, "pages of {size}");
    }
}

fn page(body: serde_json::Value, next: Option<&str>) -> Effect {
    let headers = next.map(|n| ("opc-next-page".to_string(), n.to_string())).into_iter().collect();
    Effect::Answer { status: 200, headers, body: body.to_string() }
}

#[tokio::test]
async fn odd_pages() {
    let bench = bench().await;
    let secret = |id: &str, name: &str| serde_json::json!({"id": id, "secretName": name, "lifecycleState": "ACTIVE"});
    // An empty page in the middle, an id that comes twice.
    let pages = [
        page(serde_json::json!([secret("1", "A")]), Some("x+/=")),
        page(serde_json::json!([]), Some("y")),
        page(serde_json::json!([secret("1", "A"), secret("2", "B")]), None),
    ];
    for (n, effect) in pages.into_iter().enumerate() {
        bench.host.faults.add(Fault::next("GET /20180608/secrets?", 1, effect).after(n as u32));
    }
    let target = bench.open().await;
    let keys: Vec<String> = list(&bench.cx, &*target, &Ledger::default()).await.expect("listed").entries.into_iter().map(|e| e.key).collect();
    assert_eq!(keys, ["A", "B"]);
    assert!(bench.host.log.count("page=x%2B%2F%3D") == 1, "{:?}", bench.host.log.lines());
    // A token that repeats is an error, not an endless loop.
    bench.host.faults.add(Fault::always("GET /20180608/secrets?", 1.0, page(serde_json::json!([]), Some("again"))));
    let error = bench.list().await.expect_err("endless");
    assert!(error.text().contains("does not end"), "{error}");
    bench.host.faults.clear();
    // Nor are ever new tokens behind empty pages.
    for n in 0..200 {
        let next = format!("t{n}");
        bench.host.faults.add(Fault::next("GET /20180608/secrets?", 1, page(serde_json::json!([]), Some(&next))).after(n));
    }
    let error = bench.list().await.expect_err("endless");
    assert!(error.kind == ErrorKind::NotTheService && error.text().contains("page 100 brought nothing new"), "{error}");
    bench.host.faults.clear();
    // A failed page is a failed list.
    for n in 0..3 {
        bench.state.put(&format!("K{n}"), b"v");
    }
    bench.state.set_page_size(2);
    bench.host.faults.add(Fault::next("page=", 1, Effect::status(400, "{\"code\":\"InvalidParameter\",\"message\":\"no\"}")));
    assert_eq!(bench.list().await.expect_err("page 2").kind, ErrorKind::Invalid);
}

#[tokio::test]
async fn what_is_no_list_is_refused() {
    let bench = bench().await;
    let secret = |more: serde_json::Value| {
        let mut secret = serde_json::json!({"id": "1", "secretName": "A", "lifecycleState": "ACTIVE"});
        more.as_object().expect("members").iter().for_each(|(k, v)| secret[k] = v.clone());
        serde_json::json!([secret])
    };
    let answer = |status, body: &str| Effect::Answer { status, headers: vec![("content-type".into(), "application/json".into())], body: body.into() };
    for effect in [
        answer(200, "{}"),
        answer(200, "null"),
        answer(200, r#"{"items":[]}"#),
        answer(200, "[null]"),
        answer(200, r#"[{"id":"1","lifecycleState":"ACTIVE"}]"#),
        answer(200, &secret(serde_json::json!({"id": null})).to_string()),
        answer(200, &secret(serde_json::json!({"secretName": 7})).to_string()),
        answer(200, r#"[{"id":"1","#),
        answer(200, ""),
        answer(203, "[]"),
        answer(302, "[]"),
    ] {
        bench.host.faults.add(Fault::always("GET /20180608/secrets?", 1.0, effect.clone()));
        let error = bench.list().await.expect_err("no list");
        assert_eq!(error.kind, ErrorKind::NotTheService, "{effect:?}: {error}");
        bench.host.faults.clear();
    }
    // A secret without a state is blocked by itself.
    bench.host.faults.add(Fault::next("GET /20180608/secrets?", 1, page(secret(serde_json::json!({"lifecycleState": null})), None)));
    assert!(bench.list().await.is_err(), "a state of null is no state");
    bench.host.faults.add(Fault::next("GET /20180608/secrets?", 1, page(serde_json::json!([{"id": "1", "secretName": "A"}]), None)));
    let entries = bench.list().await.expect("listed").entries;
    assert!(matches!(&entries[0].state, EntryState::Blocked(why) if why.contains("no state")), "{entries:?}");
    // A server that does not filter shows what is none of this sync's business.
    let mixed = serde_json::json!([
        {"id": "1", "secretName": "OURS", "lifecycleState": "ACTIVE", "vaultId": bench.state.vault(), "compartmentId": bench.state.compartment()},
        {"id": "2", "secretName": "OTHER_VAULT", "lifecycleState": "ACTIVE", "vaultId": "ocid1.vault.oc1.x.y.z", "compartmentId": bench.state.compartment()},
        {"id": "3", "secretName": "ELSEWHERE", "lifecycleState": "ACTIVE", "vaultId": bench.state.vault(), "compartmentId": "ocid1.compartment.oc1..z"},
    ]);
    bench.host.faults.add(Fault::next("GET /20180608/secrets?", 1, page(mixed, None)));
    let keys: Vec<String> = bench.list().await.expect("listed").entries.into_iter().map(|e| e.key).collect();
    assert_eq!(keys, ["OURS"]);
}

#[tokio::test]
async fn an_answer_about_another_secret_proves_nothing() {
    let bench = bench().await;
    bench.create("A", "one").await;
    let entry = bench.entry("A").await;
    let other = serde_json::json!({"secretId": "ocid1.vaultsecret.oc1.x.y", "versionNumber": 1, "stages": ["CURRENT"],
        "secretBundleContent": {"contentType": "BASE64", "content": "dHdv"}});
    bench.host.faults.add(Fault::always("/secretbundles/", 1.0, page(other, None)));
    let target = bench.open().await;
    let error = target.read(&bench.cx, &[&entry]).await.remove(0).1.expect_err("another secret");
    assert_eq!(error.kind, ErrorKind::NotTheService, "{error}");
    let error = bench.apply(Action::Update, "A", Some("two"), Some(&entry)).await.expect_err("another secret");
    assert!(error.text().contains("another secret"), "{error}");
    assert_eq!((bench.state.value("A").as_deref(), bench.host.log.count("PUT ")), (Some("one"), 0));
}

#[tokio::test]
async fn a_refused_page_size_is_dropped() {
    let bench = bench().await;
    bench.state.put("A", b"v");
    let refusal = Effect::status(400, "{\"code\":\"InvalidParameter\",\"message\":\"limit must be at most 100\"}");
    bench.host.faults.add(Fault::next("limit=1000", 1, refusal));
    assert_eq!(bench.list().await.expect("listed").entries.len(), 1);
}

#[tokio::test]
async fn nine_states_and_what_they_mean() {
    let bench = bench().await;
    for state in [
        "ACTIVE",
        "CREATING",
        "UPDATING",
        "DELETING",
        "SCHEDULING_DELETION",
        "CANCELLING_DELETION",
        "PENDING_DELETION",
        "DELETED",
        "FAILED",
        "NEW_WORD",
    ] {
        bench.state.put(state, b"v");
        bench.state.edit(state, |s| {
            s.state = state.into();
            s.details = Some("because".into());
            s.time_of_deletion = Some(jiff::Timestamp::MAX);
        });
    }
    let entries = bench.list().await.expect("listed").entries;
    let of = |key: &str| entries.iter().find(|e| e.key == key).map(|e| e.state.clone());
    assert_eq!(of("ACTIVE"), Some(EntryState::Active));
    for moving in ["CREATING", "UPDATING", "DELETING", "SCHEDULING_DELETION", "CANCELLING_DELETION"] {
        assert_eq!(of(moving), Some(EntryState::Settling(moving.into())));
    }
    assert!(matches!(of("PENDING_DELETION"), Some(EntryState::Deleted { until: Some(_) })));
    assert_eq!(of("DELETED"), None);
    for bad in ["FAILED", "NEW_WORD"] {
        assert!(matches!(of(bad), Some(EntryState::Blocked(why)) if why.contains(bad) && why.contains("because")), "{:?}", of(bad));
    }
}

#[tokio::test]
async fn of_two_with_one_name_the_living_one_counts() {
    let bench = bench().await;
    for states in [["DELETED", "ACTIVE"], ["CREATING", "PENDING_DELETION"], ["FAILED", "UPDATING"]] {
        for state in states {
            bench.state.put("TWICE", b"v");
            bench.state.edit("TWICE", |s| {
                s.state = state.into();
                s.time_of_deletion = Some(jiff::Timestamp::MAX);
            });
        }
    }
    let entries = bench.list().await.expect("listed").entries;
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].state, EntryState::Active);
    // Of two living ones neither is touched.
    let twins = serde_json::json!([
        {"id": "ocid1.vaultsecret.oc1.x.one", "secretName": "TWINS", "lifecycleState": "ACTIVE"},
        {"id": "ocid1.vaultsecret.oc1.x.two", "secretName": "TWINS", "lifecycleState": "ACTIVE"},
    ]);
    bench.host.faults.add(Fault::next("GET /20180608/secrets?", 1, page(twins, None)));
    let entries = bench.list().await.expect("listed").entries;
    assert!(matches!(&entries[..], [one] if matches!(&one.state, EntryState::Blocked(why) if why.contains(".x.two"))), "{entries:?}");
}

#[tokio::test]
async fn what_a_list_reveals_of_a_change_is_noticed() {
    let bench = bench().await;
    let written = bench.create("A", "one").await;
    let ledger = Ledger { rows: [("A".to_string(), row("A", &written))].into(), ..Ledger::default() };
    let target = bench.open().await;
    let id = written.id.as_deref().expect("an id");
    let listed = |more: serde_json::Value| {
        let (bench, target, ledger) = (&bench, &target, &ledger);
        let mut secret = serde_json::json!({"id": id, "secretName": "A", "lifecycleState": "ACTIVE"});
        more.as_object().expect("members").iter().for_each(|(k, v)| secret[k] = v.clone());
        async move {
            bench.host.faults.add(Fault::next("GET /20180608/secrets?", 1, page(serde_json::json!([secret]), None)));
            let inventory = target.list(&bench.cx, &Listing { prefix: "", ledger, wanted: 300, full: false }).await.expect("listed");
            target.freshness(&inventory.entries[0], &ledger.rows["A"])
        }
    };
    // A service whose list tells the version leaves no doubt, of however many secrets.
    assert_eq!(listed(serde_json::json!({"currentVersionNumber": 1})).await, Freshness::Same);
    assert_eq!(target.warnings(), Vec::<String>::new(), "nothing is taken for granted");
    let changed = listed(serde_json::json!({"currentVersionNumber": 2})).await;
    assert!(matches!(&changed, Freshness::Changed(why) if why.contains("version 2 where 1")), "{changed:?}");
}

#[tokio::test]
async fn what_oci_or_others_manage_is_left_alone() {
    let bench = bench().await;
    let facts = [
        ("REPLICA", "isReplica", serde_json::json!(true)),
        ("ROTATING", "rotationStatus", serde_json::json!("IN_PROGRESS")),
        ("GENERATED", "isAutoGenerationEnabled", serde_json::json!(true)),
        ("ROTATED", "rotationConfig", serde_json::json!({"isScheduledRotationEnabled": true})),
        ("CALM", "rotationConfig", serde_json::json!({"isScheduledRotationEnabled": false})),
    ];
    for (name, field, value) in facts {
        bench.state.put(name, b"v");
        bench.state.edit(name, |s| {
            s.extra.insert(field.into(), value);
        });
    }
    let entries = bench.list().await.expect("listed").entries;
    let of = |key: &str| entries.iter().find(|e| e.key == key).expect("listed").state.clone();
    assert!(matches!(of("REPLICA"), EntryState::Protected(_)));
    assert!(matches!(of("ROTATING"), EntryState::Protected(_)));
    assert!(matches!(of("GENERATED"), EntryState::Blocked(_)));
    assert!(matches!(of("ROTATED"), EntryState::Blocked(_)));
    assert_eq!(of("CALM"), EntryState::Active);
    // What we wrote stays ours to write.
    let written = bench.create("OURS", "v").await;
    bench.state.edit("OURS", |s| {
        s.extra.insert("isAutoGenerationEnabled".into(), true.into());
    });
    let ledger = Ledger { rows: [("OURS".to_string(), row("OURS", &written))].into(), ..Ledger::default() };
    let entries = list(&bench.cx, &*bench.open().await, &ledger).await.expect("listed").entries;
    assert_eq!(entries.iter().find(|e| e.key == "OURS").expect("listed").state, EntryState::Active);
}

#[tokio::test]
async fn a_small_sync_reads_all_and_a_large_one_what_may_have_changed() {
    let bench = bench().await;
    let written = bench.create("A", "one").await;
    let ledger = Ledger { rows: [("A".to_string(), row("A", &written))].into(), ..Ledger::default() };
    let target = bench.open().await;
    let ask = |wanted, full| {
        let (target, ledger, cx) = (&target, &ledger, &bench.cx);
        async move {
            let inventory = target.list(cx, &Listing { prefix: "", ledger, wanted, full }).await.expect("listed");
            target.freshness(&inventory.entries[0], &ledger.rows["A"])
        }
    };
    assert_eq!(ask(200, false).await, Freshness::Unknown);
    assert_eq!(ask(201, false).await, Freshness::Unseen);
    assert_eq!(ask(201, true).await, Freshness::Unknown);
    // A key that was taken over by reading it is trusted from then on.
    let mut adopted = row("A", &written);
    let entries = target.list(&bench.cx, &Listing { prefix: "", ledger: &ledger, wanted: 201, full: false }).await.expect("listed").entries;
    adopted.stamp = target.read(&bench.cx, &[&entries[0]]).await.remove(0).1.expect("readable").stamp;
    assert_eq!(target.freshness(&entries[0], &adopted), Freshness::Unseen);
    // Tags changed outside: the value may have too.
    bench.state.edit("A", |s| s.freeform_tags = serde_json::json!({"other": "tag"}));
    assert_eq!(ask(201, false).await, Freshness::Unknown);
    // Deleted and created again outside: another id.
    bench.state.edit("A", |s| s.state = "DELETED".into());
    bench.state.put("A", b"one");
    assert_eq!(ask(201, false).await, Freshness::Unknown);
    // A write whose stamp is pending is read once.
    let mut pending = row("A", &written);
    pending.stamp = None;
    let inventory = target.list(&bench.cx, &Listing { prefix: "", ledger: &ledger, wanted: 201, full: false }).await.expect("listed");
    assert_eq!(target.freshness(&inventory.entries[0], &pending), Freshness::Unknown);
}

#[tokio::test]
async fn reading_gives_value_and_exact_stamp() {
    let bench = bench().await;
    let created = bench.create("A", "one").await;
    for n in 0..40 {
        bench.state.put(&format!("N{n}"), format!("value {n}").as_bytes());
    }
    bench.state.put("BINARY", &[0xff, 0, 1]);
    bench.state.put("NUL", b"a\0b");
    bench.state.put("ODDTYPE", b"x");
    bench.state.edit("ODDTYPE", |s| {
        s.extra.insert("sandboxContentType".into(), "PKCS12".into());
    });
    let entries = bench.list().await.expect("listed").entries;
    let target = bench.open().await;
    bench.host.log.clear();
    let read = target.read(&bench.cx, &entries.iter().collect::<Vec<_>>()).await;
    assert_eq!((read.len(), bench.host.log.lines().len()), (44, 44));
    let of = |key: &str| read.iter().find(|(k, _)| k == key).expect("read").1.clone().expect("readable");
    assert!(of("N39").value.is_some_and(|v| v.expose() == "value 39"));
    assert!(of("NUL").value.is_some_and(|v| v.expose() == "a\0b"));
    assert!(of("BINARY").problem.is_some_and(|p| p.contains("binary")) && of("BINARY").value.is_none());
    assert!(of("ODDTYPE").problem.is_some_and(|p| p.contains("PKCS12")));
    assert_eq!(of("A").stamp, created.stamp);
    // An outside edit moves the stamp; going back to the old value does too.
    bench.state.edit_value("A", b"two");
    bench.state.edit_value("A", b"one");
    let again = target.read(&bench.cx, &[&bench.entry("A").await]).await.remove(0).1.expect("readable");
    assert!(again.value.is_some_and(|v| v.expose() == "one"));
    assert_ne!(again.stamp, created.stamp);
}

#[tokio::test]
async fn what_cannot_be_read_says_why() {
    let bench = bench().await;
    for name in ["GONE", "MOVED", "FINE"] {
        bench.state.put(name, b"v");
    }
    let entries = bench.list().await.expect("listed").entries;
    let target = bench.open().await;
    bench.state.edit("GONE", |s| s.state = "DELETED".into());
    bench.state.edit("MOVED", |s| {
        s.state = "PENDING_DELETION".into();
        s.time_of_deletion = Some(jiff::Timestamp::MAX);
    });
    let read = target.read(&bench.cx, &entries.iter().collect::<Vec<_>>()).await;
    let of = |key: &str| read.iter().find(|(k, _)| k == key).expect("read").1.clone();
    assert_eq!(of("MOVED").expect_err("pending").kind, ErrorKind::Unsettled);
    assert!(of("GONE").is_err() && of("FINE").is_ok());
    bench.state.allow("SECRET_BUNDLE_READ", false);
    let fine = bench.entry("FINE").await;
    let error = target.read(&bench.cx, &[&fine]).await.remove(0).1.expect_err("no right");
    assert_eq!(error.kind, ErrorKind::Permission);
    assert!(error.text().contains("SECRET_BUNDLE_READ"), "{error}");
    bench.state.allow("SECRET_INSPECT", false);
    let error = bench.list().await.expect_err("no right");
    assert!(error.text().contains("SECRET_INSPECT"), "{error}");
}

#[tokio::test]
async fn another_key_in_the_configuration_is_told() {
    let bench = bench().await;
    let written = bench.create("A", "v").await;
    let ledger = Ledger { rows: [("A".to_string(), row("A", &written))].into(), ..Ledger::default() };
    let mut target = bench.target(serde_json::json!({}));
    target.config.insert("keyOcid".into(), bench.state.add_key("new", bench.state.vault(), bench.state.compartment()).into());
    let opened = bench.session.open(&bench.cx, &target).await.expect("opened");
    let inventory = list(&bench.cx, &*opened, &ledger).await.expect("listed");
    assert!(inventory.warnings.iter().any(|w| w.contains("encryption key")), "{:?}", inventory.warnings);
    assert!(bench.list().await.expect("listed").warnings.is_empty());
}
