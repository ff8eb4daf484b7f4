//! One-to-one against the sandbox: what a run costs, what it touches, what it leaves alone.

use kms_sync::http::ErrorKind;
use kms_sync::sandbox::aws::{Content, KMS_ALIAS, KMS_KEY_ID};
use kms_sync::sandbox::host::{Effect, Fault};
use serde_json::json;

use super::direct::calls;
use super::lab::{Lab, REGION, many};

#[tokio::test]
async fn an_unchanged_run_costs_its_list_pages() {
    let lab = Lab::new().await;
    // The plain key, a configured alias that comes back as an ARN, and one that comes back as given.
    for (i, (key, as_arn)) in [(json!(null), true), (json!(KMS_ALIAS), true), (json!(KMS_ALIAS), false), (json!(KMS_KEY_ID), true)].iter().enumerate()
    {
        lab.state.show_keys_as_arn(*as_arn);
        let mut sync = lab.sync(json!({"keySchema": format!("app{i}/{{{{secretKey}}}}"), "keyId": key, "tags": [{"key": "a", "value": "b"}]}));
        let source = many(201);
        let report = sync.run_full(&source, &[]).await.clean();
        assert_eq!(report.calls(), calls(json!({"ListSecrets": 1, "CreateSecret": 201})));
        for _ in 0..2 {
            let report = sync.run_full(&source, &[]).await.clean();
            assert_eq!((report.unchanged, report.calls()), (201, calls(json!({"ListSecrets": 3}))), "{key} {as_arn}");
        }
        let mut changed = source.clone();
        changed[7].1 = "w".into();
        changed[107].1 = "w".into();
        let report = sync.run_full(&changed, &[]).await.clean();
        assert_eq!(report.calls(), calls(json!({"ListSecrets": 3, "PutSecretValue": 2})));
    }
}

#[tokio::test]
async fn empty_and_short_pages_are_followed() {
    let lab = Lab::new().await;
    let mut sync = lab.sync(json!({"keySchema": "app/{{secretKey}}"}));
    let source = many(30);
    sync.run_full(&source, &[]).await.clean();
    lab.state.set_empty_first_page(true);
    lab.state.set_page_cap(7);
    let report = sync.run_full(&source, &[]).await.clean();
    assert_eq!((report.unchanged, report.calls()), (30, calls(json!({"ListSecrets": 6}))));
}

#[tokio::test]
async fn a_list_whose_empty_pages_always_name_another_is_an_error() {
    let lab = Lab::new().await;
    for n in 0..200 {
        let body = json!({"SecretList": [], "NextToken": format!("t{n}")}).to_string();
        lab.host.faults.add(Fault::next("ListSecrets", 1, Effect::status(200, body)).after(n));
    }
    let error = lab.sync(json!({})).try_run(&many(1), &[]).await.expect_err("no end");
    assert!(error.kind == ErrorKind::NotTheService && error.text().contains("page 100 brought nothing new"), "{error}");
    assert_eq!(lab.host.log.count("ListSecrets"), 100);
}

#[tokio::test]
async fn a_first_run_reads_what_exists_twenty_at_a_time() {
    let lab = Lab::new().await;
    for (key, value) in many(21) {
        lab.seed(&key, &value);
    }
    let report = lab.sync(json!({})).run_full(&many(21), &[]).await.clean();
    assert_eq!((report.unchanged, report.calls()), (21, calls(json!({"ListSecrets": 1, "BatchGetSecretValue": 1, "GetSecretValue": 1}))));
    let mut sync = lab.sync(json!({}));
    sync.run_full(&many(21), &[]).await.clean();
    for (key, _) in many(21) {
        lab.state.edit(REGION, &key, "v");
    }
    let report = sync.run_full(&many(21), &[]).await.clean();
    assert_eq!((report.unchanged, report.count("update")), (21, 0), "an edit that changed nothing is adopted");
    let report = sync.run_full(&many(21), &[]).await.clean();
    assert_eq!(report.calls(), calls(json!({"ListSecrets": 1})));
}

#[tokio::test]
async fn the_prefix_is_exact() {
    let lab = Lab::new().await;
    for name in ["App/A", "app2/A", "app/x/A", "app", "other"] {
        lab.seed(name, "foreign");
    }
    let mut sync = lab.sync(json!({"keySchema": "app/{{secretKey}}"}));
    sync.approve = true;
    sync.run(&[("A", "1"), ("B", "1")]).await.clean();
    let report = sync.run(&[("A", "1")]).await.clean();
    assert_eq!(report.count("delete"), 1);
    for name in ["App/A", "app2/A", "app/x/A", "app", "other"] {
        assert_eq!(lab.value(name).as_deref(), Some("foreign"), "{name}");
    }
}

#[tokio::test]
async fn a_lagging_list_causes_no_second_write_and_hides_no_edit() {
    let lab = Lab::new().await;
    let mut sync = lab.sync(json!({}));
    sync.run(&[("OLD", "1"), ("GO", "1")]).await.clean();
    lab.state.set_lagging(true);
    let source = [("OLD", "2"), ("NEW", "1")];
    let report = sync.run(&source).await.clean();
    assert_eq!((report.count("create"), report.count("update"), report.count("delete")), (1, 1, 1));
    // The list still shows the state before: each of the three is asked about, nothing is written.
    let report = sync.run(&source).await.clean();
    assert_eq!((report.unchanged, report.calls()), (2, calls(json!({"ListSecrets": 1, "DescribeSecret": 3}))));
    assert!(report.foreign.is_empty());
    assert_eq!((lab.view("OLD").versions, lab.view("NEW").versions), (2, 1));
    // An edit and a removal by another hand are seen through the lag.
    lab.state.edit(REGION, "OLD", "x");
    lab.state.vanish(REGION, "NEW");
    let report = sync.run(&source).await.clean();
    assert_eq!((report.count("create"), report.count("update")), (1, 1));
    assert_eq!((lab.value("OLD").as_deref(), lab.value("NEW").as_deref()), (Some("2"), Some("1")));
}

#[tokio::test]
async fn without_the_right_to_describe_the_ledger_is_believed() {
    let lab = Lab::new().await;
    let mut sync = lab.sync(json!({}));
    sync.run(&[("OLD", "1")]).await.clean();
    lab.state.set_lagging(true);
    lab.state.deny("DescribeSecret", "");
    sync.run(&[("OLD", "2"), ("NEW", "1")]).await.clean();
    let report = sync.run(&[("OLD", "2"), ("NEW", "1")]).await.clean();
    assert_eq!((report.unchanged, report.done.len()), (2, 0));
}

#[tokio::test]
async fn a_name_that_the_list_did_not_show_is_compared_not_overwritten() {
    let lab = Lab::new().await;
    lab.state.set_lagging(true);
    lab.seed("SAME", "1");
    lab.seed("OTHER", "foreign");
    let mut sync = lab.sync(json!({}));
    let report = sync.run(&[("SAME", "1"), ("OTHER", "1")]).await;
    assert_eq!(report.failed["OTHER"].kind, ErrorKind::Conflict);
    assert!(!report.failed.contains_key("SAME"));
    assert_eq!((lab.value("OTHER").as_deref(), lab.view("SAME").versions), (Some("foreign"), 1));
}

#[tokio::test]
async fn an_older_value_becomes_current_again() {
    let lab = Lab::new().await;
    let mut sync = lab.sync(json!({}));
    for value in ["1", "2", "1"] {
        sync.run(&[("A", value)]).await.clean();
        assert_eq!(lab.value("A").as_deref(), Some(value));
    }
    assert_eq!(lab.view("A").versions, 3);
}

#[tokio::test]
async fn deletion_has_a_window_and_a_returning_key_is_restored() {
    let lab = Lab::new().await;
    let mut sync = lab.sync(json!({"recoveryWindowDays": 7}));
    sync.run(&[("A", "1"), ("B", "1")]).await.clean();
    let report = sync.run(&[]).await.clean();
    assert_eq!(report.count("delete"), 2);
    assert_eq!(lab.view("A").window, Some(7));
    let arn = lab.view("A").arn;
    lab.state.set_restore_blocks(1);
    let report = sync.run(&[("A", "1"), ("B", "2")]).await.clean();
    assert_eq!(report.count("restore"), 2);
    assert_eq!((lab.value("A").as_deref(), lab.value("B").as_deref()), (Some("1"), Some("2")));
    assert_eq!((lab.view("A").arn, lab.view("A").versions, lab.view("B").versions), (arn, 1, 2));
    let report = sync.run(&[("A", "1"), ("B", "2")]).await.clean();
    assert_eq!(report.calls(), calls(json!({"ListSecrets": 1})));
}

#[tokio::test]
async fn a_strangers_scheduled_secret_is_not_restored_unasked() {
    // A blanket agreement does not cover what no plan has shown.
    for agreed in [false, true] {
        let lab = Lab::new().await;
        // The listing stops before the secret is made and removed: the creation runs into its name.
        lab.state.set_lagging(true);
        lab.seed("A", "foreign");
        lab.state.schedule(REGION, "A", 30);
        let mut sync = lab.sync(json!({}));
        sync.approve = agreed;
        let report = sync.run(&[("A", "1"), ("B", "1")]).await;
        assert_eq!(report.failed["A"].kind, ErrorKind::Conflict);
        assert!(report.failed["A"].text().contains("asks before it is restored"), "{}", report.failed["A"]);
        assert!(lab.view("A").deleted && lab.value("B").is_some());
        // What the creation met, the next plan shows, and asks.
        sync.approve = false;
        let report = sync.run(&[("A", "1"), ("B", "1")]).await.clean();
        assert_eq!((report.foreign, lab.view("A").deleted), (vec!["A".to_string()], true));
        sync.approve = true;
        let report = sync.run(&[("A", "1"), ("B", "1")]).await.clean();
        assert_eq!((report.count("restore"), lab.value("A").as_deref()), (1, Some("1")));
    }
}

#[tokio::test]
async fn a_strangers_secret_that_the_list_hides_is_shown_before_it_is_overwritten() {
    let lab = Lab::new().await;
    lab.state.set_lagging(true);
    lab.seed("A", "foreign");
    let mut sync = lab.sync(json!({}));
    sync.approve = true;
    let report = sync.run(&[("A", "1")]).await;
    assert_eq!((report.failed["A"].kind, lab.value("A").as_deref()), (ErrorKind::Conflict, Some("foreign")));
    let report = sync.run(&[("A", "1")]).await.clean();
    assert_eq!((report.count("update"), lab.value("A").as_deref()), (1, Some("1")), "the plan saw it, and the operator agreed");
    lab.state.set_lagging(false);
    assert_eq!(sync.run(&[("A", "1")]).await.clean().calls(), calls(json!({"ListSecrets": 1})));
}

#[tokio::test]
async fn a_name_stays_blocked_after_a_forced_deletion_and_is_waited_for() {
    let lab = Lab::new().await;
    lab.state.set_name_blocks(1);
    let mut sync = lab.sync(json!({"forceDelete": true}));
    sync.run(&[("A", "1")]).await.clean();
    sync.run(&[]).await.clean();
    assert!(lab.state.view(REGION, "A").is_none());
    let report = sync.run(&[("A", "2")]).await.clean();
    assert_eq!(report.calls(), calls(json!({"ListSecrets": 1, "CreateSecret": 2, "DescribeSecret": 1})));
    assert!(report.requests.waited_ms >= 2000);

    lab.state.set_name_blocks(100);
    sync.run(&[]).await.clean();
    let cx = kms_sync::http::Cx::quiet();
    let token = cx.cancel_token().clone();
    tokio::spawn(async move {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        token.cancel();
    });
    let report = sync.run_in(&cx, &[("A".into(), "3".into())], &[]).await.expect("a report");
    assert_eq!(report.failed["A"].kind, ErrorKind::Cancelled);
}

#[tokio::test]
async fn deletions_of_what_is_gone_scheduled_or_replicated() {
    let lab = Lab::new().await;
    let mut sync = lab.sync(json!({}));
    sync.run(&[("GONE", "1"), ("PLANNED", "1"), ("COPIED", "1")]).await.clean();
    lab.state.set_primary_region(REGION, "COPIED", REGION);
    let mut other = lab.sync(json!({"keySchema": "P{{secretKey}}"}));
    other.approve = true;
    lab.state.set_lagging(true);
    lab.state.vanish(REGION, "GONE");
    other.run(&[]).await.clean();
    let report = sync.run(&[]).await;
    assert_eq!(report.failed.keys().collect::<Vec<_>>(), ["COPIED"]);
    assert!(report.failed["COPIED"].to_string().contains("replica"), "{}", report.failed["COPIED"]);
    assert_eq!(report.notes.iter().filter(|n| n.contains("already")).count(), 2, "{:?}", report.notes);
}

#[tokio::test]
async fn what_others_own_is_left_alone() {
    let lab = Lab::new().await;
    for name in ["OWNED", "TYPED", "REPLICA", "ROTATED", "BINARY", "TAGGED"] {
        lab.seed(name, "theirs");
    }
    lab.state.set_owner(REGION, "OWNED", "rds");
    lab.state.set_tag(REGION, "TAGGED", "aws:secretsmanager:owningService", "redshift");
    lab.state.set_type(REGION, "TYPED", "Salesforce");
    lab.state.set_primary_region(REGION, "REPLICA", "eu-west-1");
    lab.state.set_rotated(REGION, "ROTATED");
    lab.state.seed(REGION, "BINARY", Content::Binary(vec![0, 255]));
    let mut sync = lab.sync(json!({"tags": [{"key": "a", "value": "b"}]}));
    sync.approve = true;
    let source = ["OWNED", "TYPED", "REPLICA", "ROTATED", "BINARY", "TAGGED"].map(|k| (k, "ours"));
    let report = sync.run(&source).await.clean();
    assert_eq!(report.skipped.keys().collect::<Vec<_>>(), ["OWNED", "REPLICA", "TAGGED", "TYPED"]);
    assert_eq!(report.conflicts.keys().collect::<Vec<_>>(), ["BINARY", "ROTATED"]);
    let report = sync.run(&[]).await.clean();
    assert_eq!(report.count("delete"), 1, "only the binary one may be deleted, with approval");
    assert_eq!(lab.host.log.count("PutSecretValue") + lab.host.log.count("TagResource"), 0);
}

#[tokio::test]
async fn a_secret_without_a_value_is_put_and_spoils_no_batch() {
    let lab = Lab::new().await;
    lab.state.seed(REGION, "EMPTY", Content::Nothing);
    lab.seed("A", "1");
    lab.seed("B", "1");
    let report = lab.sync(json!({})).run(&[("EMPTY", "1"), ("A", "1"), ("B", "2")]).await.clean();
    assert_eq!(report.calls(), calls(json!({"ListSecrets": 1, "BatchGetSecretValue": 1, "PutSecretValue": 2})));
    assert_eq!(lab.value("EMPTY").as_deref(), Some("1"));
}

#[tokio::test]
async fn one_unreadable_secret_does_not_stop_the_others() {
    let lab = Lab::new().await;
    for name in ["A", "B", "LOCKED", "SEALED"] {
        lab.seed(name, "1");
    }
    // SEALED is moved under a key that is then switched off.
    let mut sealer = lab.sync(json!({"keyId": KMS_ALIAS, "keySchema": "SEA{{secretKey}}"}));
    sealer.run(&[("LED", "1")]).await.clean();
    lab.state.set_kms_enabled(KMS_KEY_ID, false);
    lab.state.deny("GetSecretValue", "LOCKED");
    let report = lab.sync(json!({})).run(&[("A", "2"), ("B", "1"), ("LOCKED", "1"), ("SEALED", "1")]).await;
    assert_eq!(report.failed.keys().collect::<Vec<_>>(), ["LOCKED", "SEALED"]);
    assert_eq!(report.failed["LOCKED"].kind, ErrorKind::Permission);
    assert_eq!(report.failed["SEALED"].code.as_deref(), Some("DecryptionFailure"));
    assert_eq!((report.count("update"), report.unchanged), (1, 1));
}

#[tokio::test]
async fn a_denied_batch_falls_back_to_single_reads() {
    let lab = Lab::new().await;
    for (key, value) in many(45) {
        lab.seed(&key, &value);
    }
    lab.state.deny("BatchGetSecretValue", "");
    let report = lab.sync(json!({})).run_full(&many(45), &[]).await.clean();
    assert_eq!(report.unchanged, 45);
    assert_eq!(report.calls()["GetSecretValue"], 45);
    assert!(report.calls()["BatchGetSecretValue"] <= 3);
}

#[tokio::test]
async fn values_at_their_limits() {
    let lab = Lab::new().await;
    let (fits, over, wide) = ("a".repeat(65_536), "a".repeat(65_537), "é".repeat(32_768));
    lab.seed("EMPTY", "kept");
    let mut sync = lab.sync(json!({}));
    let report =
        sync.run(&[("FITS", &fits), ("OVER", &over), ("WIDE", &wide), ("EMPTY", ""), ("bad name", "1"), ("LINES", "a\r\nb\n\0")]).await.clean();
    assert_eq!(report.skipped.keys().collect::<Vec<_>>(), ["EMPTY", "OVER", "bad name"]);
    assert_eq!(lab.value("FITS"), Some(fits));
    assert_eq!(lab.value("WIDE"), Some(wide));
    assert_eq!(lab.value("LINES").as_deref(), Some("a\r\nb\n\0"));
    assert_eq!(lab.value("EMPTY").as_deref(), Some("kept"));
    assert!(report.foreign.is_empty(), "a key that was skipped is not foreign");
}

#[tokio::test]
async fn a_key_change_makes_no_version() {
    let lab = Lab::new().await;
    let mut sync = lab.sync(json!({}));
    sync.run(&[("A", "1")]).await.clean();
    sync.option("keyId", json!(KMS_ALIAS));
    let report = sync.run(&[("A", "1")]).await.clean();
    assert_eq!(report.calls(), calls(json!({"ListSecrets": 1, "UpdateSecret": 1})));
    assert!(lab.view("A").key.is_some_and(|k| k.contains(KMS_KEY_ID)));
    assert_eq!(lab.view("A").versions, 1);
    assert_eq!(sync.run(&[("A", "1")]).await.clean().calls(), calls(json!({"ListSecrets": 1})));
    // Value and key together: one call.
    sync.option("keyId", json!("alias/aws/secretsmanager"));
    let report = sync.run(&[("A", "2")]).await.clean();
    assert_eq!(report.calls(), calls(json!({"ListSecrets": 1, "UpdateSecret": 1})));
    assert_eq!((lab.view("A").key, lab.view("A").versions), (None, 2));
    // No key configured: the key of a secret stays what it is.
    let mut plain = lab.sync(json!({}));
    sync.option("keyId", json!(KMS_KEY_ID));
    sync.run(&[("A", "2")]).await.clean();
    plain.run(&[("A", "3")]).await.clean();
    assert!(lab.view("A").key.is_some_and(|k| k.contains(KMS_KEY_ID)));
}

#[tokio::test]
async fn an_alias_pointed_elsewhere_is_noticed_from_what_was_learned() {
    let lab = Lab::new().await;
    let other = "9999abcd-12ab-34cd-56ef-1234567890ab";
    lab.state.add_kms_key(other, None);
    let mut sync = lab.sync(json!({"keyId": KMS_ALIAS}));
    sync.run(&[("A", "1"), ("B", "1")]).await.clean();
    sync.run(&[("A", "1"), ("B", "1")]).await.clean();
    let mut stranger = lab.sync(json!({"keyId": other, "keySchema": "{{secretKey}}"}));
    stranger.run(&[("A", "1"), ("B", "1")]).await.clean();
    let report = sync.run(&[("A", "1"), ("B", "1")]).await.clean();
    assert_eq!(report.calls(), calls(json!({"ListSecrets": 1, "UpdateSecret": 2})));
    assert!(lab.view("A").key.is_some_and(|k| k.contains(KMS_KEY_ID)));
}

#[tokio::test]
async fn a_broken_key_is_not_tried_again_and_again() {
    let lab = Lab::new().await;
    lab.state.set_kms_enabled(KMS_KEY_ID, false);
    let mut sync = lab.sync(json!({"keyId": KMS_ALIAS}));
    let report = sync.run_full(&many(100), &[]).await;
    assert_eq!(report.failed.len(), 100);
    assert!(report.calls()["CreateSecret"] <= 16, "only what was in flight: {:?}", report.calls());
    assert_eq!(report.failed["K050"].code.as_deref(), Some("EncryptionFailure"));
}

#[tokio::test]
async fn denied_writes_stop_after_three() {
    let lab = Lab::new().await;
    lab.state.deny("CreateSecret", "");
    let report = lab.sync(json!({})).run_full(&many(100), &[]).await;
    assert_eq!(report.failed.len(), 100);
    assert!(report.calls()["CreateSecret"] <= 19, "{:?}", report.calls());
    assert!(report.failed.values().all(|e| e.kind == ErrorKind::Permission));
}

#[tokio::test]
async fn tags_are_ours_only_where_we_set_them() {
    let lab = Lab::new().await;
    let metadata = [("owner".to_string(), "x".to_string()), ("team".into(), "meta".into()), ("bad?".into(), "1".into())];
    let mut sync = lab.sync(json!({"tags": [{"key": "team", "value": "a"}], "syncSecretMetadataAsTags": true}));
    let source = [("A".to_string(), "1".to_string())];
    let report = sync.run_full(&source, &metadata).await.clean();
    assert!(report.notes.iter().any(|n| n.contains("bad?")), "{:?}", report.notes);
    lab.state.set_tag(REGION, "A", "foreign", "f");
    lab.state.set_tag(REGION, "A", "aws:reserved", "r");
    let report = sync.run_full(&source, &metadata).await.clean();
    assert_eq!(report.calls(), calls(json!({"ListSecrets": 1})), "foreign tags are no difference");
    // A tag-only change, with an equal value: one Tag, one Untag, no version.
    sync.option("tags", json!([{"key": "team", "value": "b"}]));
    sync.option("syncSecretMetadataAsTags", json!(false));
    let report = sync.run_full(&source, &metadata).await.clean();
    assert_eq!(report.calls(), calls(json!({"ListSecrets": 1, "TagResource": 1, "UntagResource": 1})));
    let view = lab.view("A");
    let tags: Vec<_> = view.tags.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!((tags.join(" "), view.versions), ("aws:reserved=r foreign=f team=b".into(), 1));
    // Switched off altogether, the last one of ours goes too.
    sync.option("tags", json!([]));
    sync.run_full(&source, &metadata).await.clean();
    assert_eq!(lab.view("A").tags.keys().collect::<Vec<_>>(), ["aws:reserved", "foreign"]);
}

#[tokio::test]
async fn fifty_tags_can_be_swapped() {
    let lab = Lab::new().await;
    let tags = |letter: char| json!((0..50).map(|i| json!({"key": format!("{letter}{i}"), "value": ""})).collect::<Vec<_>>());
    let mut sync = lab.sync(json!({"tags": tags('a')}));
    sync.run(&[("A", "1")]).await.clean();
    sync.option("tags", tags('b'));
    sync.run(&[("A", "1")]).await.clean();
    assert!(lab.view("A").tags.len() == 50 && lab.view("A").tags.keys().all(|k| k.starts_with('b')));
}

#[tokio::test]
async fn a_denied_tag_leaves_the_value_written_and_is_reported() {
    let lab = Lab::new().await;
    let mut sync = lab.sync(json!({"tags": [{"key": "old", "value": "1"}]}));
    sync.run(&[("A", "1")]).await.clean();
    lab.state.deny("UntagResource", "");
    sync.option("tags", json!([]));
    let report = sync.run(&[("A", "2")]).await.clean();
    assert!(report.notes.iter().any(|n| n.contains("UntagResource")), "{:?}", report.notes);
    assert_eq!(lab.value("A").as_deref(), Some("2"));
    let report = sync.run(&[("A", "2")]).await;
    assert_eq!(report.failed["A"].kind, ErrorKind::Permission);
    assert_eq!(lab.view("A").versions, 2, "the value was not written again");
    lab.state.allow_all();
    sync.run(&[("A", "2")]).await.clean();
    assert!(lab.view("A").tags.is_empty());
}

#[tokio::test]
async fn a_secret_made_anew_by_another_hand_is_asked_about() {
    let lab = Lab::new().await;
    let mut sync = lab.sync(json!({}));
    sync.run(&[("A", "1"), ("B", "1")]).await.clean();
    for name in ["A", "B"] {
        lab.state.vanish(REGION, name);
        lab.seed(name, if name == "A" { "theirs" } else { "1" });
    }
    let report = sync.run(&[("A", "1"), ("B", "1")]).await;
    assert_eq!(report.failed.keys().collect::<Vec<_>>(), ["A"], "an equal value is simply adopted");
    assert_eq!(report.failed["A"].kind, ErrorKind::Conflict);
    assert_eq!(lab.value("A").as_deref(), Some("theirs"));
    sync.approve = true;
    sync.run(&[("A", "1"), ("B", "1")]).await.clean();
    assert_eq!(lab.value("A").as_deref(), Some("1"));
}

#[tokio::test]
async fn foreign_edits_are_read_in_batches_and_repaired() {
    let lab = Lab::new().await;
    let mut sync = lab.sync(json!({}));
    let source = many(60);
    sync.run_full(&source, &[]).await.clean();
    for (key, _) in &source[..25] {
        lab.state.edit(REGION, key, "drift");
    }
    let report = sync.run_full(&source, &[]).await.clean();
    assert_eq!(report.calls(), calls(json!({"ListSecrets": 1, "BatchGetSecretValue": 2, "PutSecretValue": 25})));
    sync.verify = true;
    let report = sync.run_full(&source, &[]).await.clean();
    assert_eq!((report.unchanged, report.calls()), (60, calls(json!({"ListSecrets": 1, "BatchGetSecretValue": 3}))));
}

#[tokio::test]
async fn the_bytes_of_answers_are_counted() {
    let lab = Lab::new().await;
    let value = "x".repeat(20_000);
    lab.seed("A", &value);
    let report = lab.sync(json!({})).run(&[("A", &value)]).await.clean();
    let received = report.requests.bytes_received;
    assert!((20_000..30_000).contains(&received), "a list, an identity and one value: {received}");
    // Refusals have bodies too.
    lab.state.deny("ListSecrets", "");
    let cx = kms_sync::http::Cx::quiet();
    lab.sync(json!({})).run_in(&cx, &[], &[]).await.expect_err("denied");
    assert!(cx.meter().snapshot().bytes_received > 300, "{:?}", cx.meter().snapshot());
}
