//! Many-to-one against the sandbox: one secret, one JSON object.

use kms_sync::http::ErrorKind;
use kms_sync::sandbox::aws::{Content, KMS_ALIAS};
use serde_json::json;

use super::direct::calls;
use super::lab::{Lab, REGION};

#[tokio::test]
async fn one_description_when_nothing_changed_and_one_write_when_something_did() {
    let lab = Lab::new().await;
    let mut sync = lab.object("prod", json!({"keySchema": "app/{{secretKey}}/{{environment}}", "tags": [{"key": "a", "value": "b"}]}));
    let report = sync.run(&[("B", "2"), ("A", "1\n"), ("any key ü", "")]).await.clean();
    assert_eq!(report.calls(), calls(json!({"DescribeSecret": 1, "CreateSecret": 1})));
    assert_eq!(lab.value("app/prod/dev").as_deref(), Some(r#"{"A":"1\n","B":"2","any key ü":""}"#));
    let report = sync.run(&[("B", "2"), ("A", "1\n"), ("any key ü", "")]).await.clean();
    assert_eq!((report.unchanged, report.calls()), (3, calls(json!({"DescribeSecret": 1}))));
    let report = sync.run(&[("B", "3"), ("A", "1\n"), ("C", "")]).await.clean();
    assert_eq!(report.calls(), calls(json!({"DescribeSecret": 1, "PutSecretValue": 1})));
    assert_eq!(lab.value("app/prod/dev").as_deref(), Some(r#"{"A":"1\n","B":"3","C":""}"#));
    let report = sync.run(&[("B", "3"), ("A", "1\n"), ("C", "")]).await.clean();
    assert_eq!((report.unchanged, report.calls()), (3, calls(json!({"DescribeSecret": 1}))));
}

#[tokio::test]
async fn another_engines_text_is_taken_over_without_a_write() {
    let lab = Lab::new().await;
    lab.seed("prod", "{ \"Z\": \"caf\\u00e9\", \"A\":\"1\" }");
    let mut sync = lab.object("prod", json!({}));
    let report = sync.run(&[("A", "1"), ("Z", "café")]).await.clean();
    assert_eq!((report.unchanged, report.calls()), (2, calls(json!({"DescribeSecret": 1, "GetSecretValue": 1}))));
    assert_eq!(lab.view("prod").versions, 1);
    assert_eq!(sync.run(&[("A", "1"), ("Z", "café")]).await.clean().calls(), calls(json!({"DescribeSecret": 1})));
}

#[tokio::test]
async fn foreign_members_stay_until_they_may_go() {
    let lab = Lab::new().await;
    lab.seed("prod", r#"{"FOREIGN":"f","NUMBER":1.50,"A":"0"}"#);
    let mut keep = lab.object("prod", json!({"disableSecretDeletion": true}));
    keep.run(&[("A", "1")]).await.clean();
    assert_eq!(lab.value("prod").as_deref(), Some(r#"{"A":"1","FOREIGN":"f","NUMBER":1.50}"#));
    keep.run(&[("A", "2"), ("B", "1")]).await.clean();
    assert_eq!(lab.value("prod").as_deref(), Some(r#"{"A":"2","B":"1","FOREIGN":"f","NUMBER":1.50}"#));
    let mut sync = lab.object("prod", json!({}));
    let report = sync.run(&[("A", "3"), ("B", "1")]).await.clean();
    assert_eq!(report.foreign, ["FOREIGN"]);
    assert_eq!(lab.value("prod").as_deref(), Some(r#"{"A":"3","B":"1","FOREIGN":"f","NUMBER":1.50}"#));
    let report = sync.run(&[("A", "3"), ("B", "1")]).await.clean();
    assert_eq!((report.foreign.len(), report.calls()), (1, calls(json!({"DescribeSecret": 1}))), "it is still known, without reading");
    sync.approve = true;
    sync.run(&[("A", "3")]).await.clean();
    assert_eq!(lab.value("prod").as_deref(), Some(r#"{"A":"3","NUMBER":1.50}"#), "a member that is no text is left alone");
    let report = sync.run(&[("A", "3"), ("NUMBER", "2")]).await.clean();
    assert!(report.conflicts.contains_key("NUMBER"));
}

#[tokio::test]
async fn other_contents_are_a_conflict() {
    let lab = Lab::new().await;
    for content in ["[1]", "hunter2hunter2", "{\"A\":\"1\"", "{\"A\":\"1\",\"A\":\"2\"}", "\"text\""] {
        lab.seed("prod", content);
        let error = lab.object("prod", json!({})).try_run(&[("A".into(), "1".into())], &[]).await.expect_err(content);
        assert_eq!(error.kind, ErrorKind::Conflict);
        assert!(!format!("{error:?}").contains("hunter2"));
        assert_eq!(lab.value("prod").as_deref(), Some(content));
    }
    lab.state.seed(REGION, "prod", Content::Binary(vec![1]));
    assert!(lab.object("prod", json!({})).try_run(&[("A".into(), "1".into())], &[]).await.is_err());
    lab.state.set_rotated(REGION, "prod");
    assert!(lab.object("prod", json!({})).try_run(&[("A".into(), "1".into())], &[]).await.is_err());
    assert_eq!(lab.host.log.count("PutSecretValue"), 0);
}

#[tokio::test]
async fn an_overflow_writes_nothing() {
    let lab = Lab::new().await;
    let mut sync = lab.object("prod", json!({}));
    sync.run(&[("A", "1")]).await.clean();
    let (big, bigger) = ("a".repeat(30_000), "b".repeat(40_000));
    let error = sync.try_run(&[("A".into(), "1".into()), ("BIG".into(), big), ("BIGGER".into(), bigger)], &[]).await.expect_err("too large");
    assert!(error.message.contains("BIGGER (40000), BIG (30000)"), "{error}");
    assert_eq!(lab.value("prod").as_deref(), Some(r#"{"A":"1"}"#));
}

#[tokio::test]
async fn the_last_key_takes_our_secret_along_and_it_comes_back() {
    let lab = Lab::new().await;
    let mut sync = lab.object("prod", json!({"recoveryWindowDays": 9}));
    sync.run(&[("A", "1")]).await.clean();
    let report = sync.run(&[]).await.clean();
    assert_eq!(report.calls(), calls(json!({"DescribeSecret": 1, "GetSecretValue": 1, "DeleteSecret": 1})));
    assert_eq!(lab.view("prod").window, Some(9));
    sync.run(&[("A", "2"), ("B", "1")]).await.clean();
    assert_eq!(lab.value("prod").as_deref(), Some(r#"{"A":"2","B":"1"}"#));
    // A secret that others made is emptied, never deleted.
    lab.seed("theirs", r#"{"A":"1"}"#);
    let mut guest = lab.object("theirs", json!({}));
    guest.run(&[("A", "1")]).await.clean();
    guest.run(&[]).await.clean();
    assert_eq!(lab.value("theirs").as_deref(), Some("{}"));
}

#[tokio::test]
async fn key_and_tags_of_the_secret() {
    let lab = Lab::new().await;
    let mut sync = lab.object("prod", json!({}));
    sync.run(&[("A", "1"), ("B", "1")]).await.clean();
    sync.option("keyId", json!(KMS_ALIAS));
    let report = sync.run(&[("A", "1"), ("B", "1")]).await.clean();
    assert_eq!((report.count("update"), report.calls()["UpdateSecret"], lab.view("prod").versions), (1, 1, 1));
    assert_eq!(sync.run(&[("A", "1"), ("B", "1")]).await.clean().calls(), calls(json!({"DescribeSecret": 1})));
    sync.option("tags", json!([{"key": "t", "value": "1"}]));
    sync.run(&[("A", "1"), ("B", "1")]).await.clean();
    assert_eq!(lab.view("prod").tags["t"], "1");
    sync.option("tags", json!([]));
    lab.state.set_tag(REGION, "prod", "foreign", "f");
    sync.run(&[("A", "1"), ("B", "1")]).await.clean();
    assert_eq!(lab.view("prod").tags.keys().collect::<Vec<_>>(), ["foreign"]);
    assert_eq!(lab.view("prod").versions, 1);
}

#[tokio::test]
async fn an_edit_by_another_hand_is_seen_and_repaired() {
    let lab = Lab::new().await;
    let mut sync = lab.object("prod", json!({}));
    sync.run(&[("A", "1"), ("B", "1")]).await.clean();
    lab.state.edit(REGION, "prod", r#"{"A":"drift","B":"1","NEW":"n"}"#);
    let report = sync.run(&[("A", "1"), ("B", "1")]).await.clean();
    assert_eq!((report.count("update"), report.foreign.as_slice()), (1, &["NEW".to_string()][..]));
    assert_eq!(lab.value("prod").as_deref(), Some(r#"{"A":"1","B":"1","NEW":"n"}"#));
}

#[tokio::test]
async fn keys_deleted_by_this_sync_cost_no_reading_and_are_not_believed_to_be_there() {
    let lab = Lab::new().await;
    let mut sync = lab.object("prod", json!({}));
    sync.run(&[("A", "1"), ("B", "2")]).await.clean();
    let mut buried = sync.ledger.rows["B"].clone();
    sync.run(&[("A", "1")]).await.clean();
    // The engine keeps the row of what it deleted.
    buried.bury();
    sync.ledger.rows.insert("B".into(), buried);
    let again = sync.run(&[("A", "1")]).await.clean();
    assert_eq!((again.calls(), again.unchanged), (calls(json!({"DescribeSecret": 1})), 1));
    // Without the memory of the object's keys, the ledger names them.
    sync.session = lab.object("prod", json!({})).session;
    let again = sync.run(&[("A", "1")]).await.clean();
    assert_eq!((again.calls(), again.unchanged, again.done.len()), (calls(json!({"DescribeSecret": 1})), 1, 0), "{:?}", again.done);
}

#[tokio::test]
async fn a_strangers_object_that_is_scheduled_for_deletion_is_asked_about() {
    let lab = Lab::new().await;
    lab.seed("prod", r#"{"F":"f"}"#);
    lab.state.schedule(REGION, "prod", 30);
    let mut sync = lab.object("prod", json!({}));
    let report = sync.run(&[("A", "1"), ("B", "2")]).await.clean();
    assert_eq!((report.foreign.clone(), report.calls()), (vec!["A".to_string(), "B".to_string()], calls(json!({"DescribeSecret": 1}))));
    assert!(lab.view("prod").deleted);
    sync.approve = true;
    let report = sync.run(&[("A", "1"), ("B", "2")]).await.clean();
    assert_eq!(report.count("restore"), 2);
    assert_eq!(lab.value("prod").as_deref(), Some(r#"{"A":"1","B":"2","F":"f"}"#));
}
