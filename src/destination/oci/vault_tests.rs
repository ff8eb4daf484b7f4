//! Secrets that never settle, and the small pure parts of writing.

use std::time::Duration;

use super::super::{Desired, Itemised, Listing, Op, Target};
use super::apply::{deletion_time, with_content};
use super::session::OciSession;
use super::settle::Patience;
use super::vault::VaultTarget;
use crate::http::{Cx, ErrorKind};
use crate::model::SecretValue;
use crate::model::connection::ResolvedConnection;
use crate::model::ledger::Ledger;
use crate::model::plan::Action;
use crate::model::sync::SyncOptions;
use crate::sandbox::host::Host;
use crate::sandbox::oci::{Delays, REGION, State, TENANCY, TEST_FINGERPRINT, TEST_KEY, USER, router};

/// A target that gives a secret up after less than a second.
async fn hasty(state: &State) -> (Host, VaultTarget) {
    let host = Host::start(router(state.clone()), None).await.expect("a port");
    let credentials = [("userOcid", USER), ("tenancyOcid", TENANCY), ("region", REGION), ("fingerprint", TEST_FINGERPRINT), ("privateKey", TEST_KEY)];
    let connection = ResolvedConnection {
        id: "c".into(),
        name: "c".into(),
        app: "oci".into(),
        method: "access-key".into(),
        credentials: credentials.iter().map(|(k, v)| (k.to_string(), SecretValue::new(*v))).collect(),
        settings: serde_json::json!({ "endpoint": host.url }).as_object().cloned().expect("settings"),
        ca_file: None,
        allow_insecure_http: false,
    };
    let mut session = OciSession::new(&connection, std::sync::Arc::new(crate::model::Forgetful)).expect("session");
    session.patience = Patience { steps: vec![Duration::from_millis(50)], limit: Duration::from_millis(800) };
    let config = serde_json::json!({"compartmentOcid": state.compartment(), "vaultOcid": state.vault(), "keyOcid": state.key()});
    let target = Target {
        sync_id: "s".into(),
        sync_name: "s".into(),
        config: config.as_object().cloned().expect("config"),
        options: SyncOptions::default(),
        environment_slug: "dev".into(),
        environment_name: None,
    };
    let target = session.target(&target).expect("target");
    (host, target)
}

async fn write(
    cx: &Cx,
    target: &VaultTarget,
    action: Action,
    key: &str,
    entry: Option<&super::super::Entry>,
) -> Result<super::super::Written, crate::http::ApiError> {
    let want = Desired { source_key: key.into(), key: key.into(), fold: key.into(), value: SecretValue::new("new"), metadata: Vec::new() };
    let desired = (action != Action::Delete).then_some(&want);
    let token = uuid::Uuid::new_v4().to_string();
    let op = Op { action, key, entry, row: None, desired, value_differs: true, token: &token, approved: false };
    target.apply(cx, &op).await
}

#[tokio::test]
async fn a_secret_that_never_settles_fails_alone() {
    use super::super::Destination as _;
    let (state, cx) = (State::new(), Cx::quiet());
    state.set_delay(Duration::from_millis(20));
    for key in ["STUCK", "FINE", "OLD", "GOING"] {
        state.put(key, b"old");
    }
    for (key, word) in [("STUCK", "UPDATING"), ("GOING", "SCHEDULING_DELETION")] {
        state.edit(key, |s| s.state = word.into());
    }
    let (_host, target) = hasty(&state).await;
    let ledger = Ledger::default();
    let entries = target.list(&cx, &Listing { prefix: "", ledger: &ledger, wanted: 4, full: true }).await.expect("listed").entries;
    let of = |key: &str| entries.iter().find(|e| e.key == key).expect("listed");
    let (stuck, fine, old, going) = tokio::join!(
        write(&cx, &target, Action::Update, "STUCK", Some(of("STUCK"))),
        write(&cx, &target, Action::Update, "FINE", Some(of("FINE"))),
        write(&cx, &target, Action::Delete, "OLD", Some(of("OLD"))),
        write(&cx, &target, Action::Update, "GOING", Some(of("GOING"))),
    );
    for (result, word) in [(stuck, "UPDATING"), (going, "SCHEDULING_DELETION")] {
        let error = result.expect_err(word);
        assert_eq!(error.kind, ErrorKind::Unsettled);
        assert!(error.text().contains(word), "{error}");
    }
    fine.expect("the others go on");
    old.expect("deletions too");
    assert_eq!(state.value("FINE").as_deref(), Some("new"));
    assert_eq!(state.secret("OLD").expect("kept").state, "PENDING_DELETION");
    assert_eq!(state.value("STUCK").as_deref(), Some("old"));
}

#[tokio::test]
async fn a_state_without_a_name_is_told_in_a_whole_sentence() {
    use super::super::Destination as _;
    let (state, cx) = (State::new(), Cx::quiet());
    state.put("ODD", b"old");
    state.edit("ODD", |s| s.state = String::new());
    let (_host, target) = hasty(&state).await;
    let ledger = Ledger::default();
    let entries = target.list(&cx, &Listing { prefix: "", ledger: &ledger, wanted: 1, full: true }).await.expect("listed").entries;
    let crate::destination::EntryState::Blocked(reason) = &entries[0].state else { panic!("{entries:?}") };
    assert_eq!(reason, "it is in no state that the answer names at OCI Vault");
    let error = write(&cx, &target, Action::Update, "ODD", Some(&entries[0])).await.expect_err("blocked");
    assert!(error.text().contains("ODD is in no state that the answer names"), "{error}");
}

#[tokio::test]
async fn what_we_wrote_and_does_not_settle_is_no_success() {
    let (state, cx) = (State::new(), Cx::quiet());
    state.set_delays(Delays { create: Duration::from_secs(3600), ..Delays::all(Duration::from_millis(20)) });
    let (_host, target) = hasty(&state).await;
    let error = write(&cx, &target, Action::Create, "A", None).await.expect_err("still creating");
    assert_eq!(error.kind, ErrorKind::Unsettled);
    assert!(error.ambiguous, "the secret was made: the intent must stay in the ledger");
    // The service may also end a creation in FAILED, with a reason.
    let failing = tokio::spawn({
        let state = state.clone();
        async move {
            while state.secret("B").is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            state.edit("B", |s| (s.state, s.next, s.details) = ("FAILED".into(), None, Some("the key was disabled".into())));
        }
    });
    let error = write(&cx, &target, Action::Create, "B", None).await.expect_err("failed");
    assert!(error.text().contains("the key was disabled"), "{error}");
    failing.await.expect("joined");
}

#[tokio::test]
async fn without_the_right_to_read_secrets_the_list_answers() {
    let (state, cx) = (State::new(), Cx::quiet());
    state.set_delay(Duration::from_millis(120));
    state.allow("SECRET_READ", false);
    let (_host, target) = hasty(&state).await;
    write(&cx, &target, Action::Create, "A", None).await.expect("created");
    assert_eq!(state.secret("A").expect("there").state, "ACTIVE");
}

#[test]
fn erasure_is_asked_for_inside_the_bounds() {
    let now = "2024-05-01T10:00:00.5Z".parse().expect("a time");
    for (days, expected) in [
        (1, "2024-05-02T11:00:00.500Z"),
        (7, "2024-05-08T10:00:00.500Z"),
        (30, "2024-05-31T09:00:00.500Z"),
        (0, "2024-05-02T11:00:00.500Z"),
        (99, "2024-05-31T09:00:00.500Z"),
    ] {
        assert_eq!(deletion_time(now, days), expected, "{days}");
    }
}

#[test]
fn bodies_are_valid_json() {
    let value = SecretValue::new("a\"b\n");
    for head in [serde_json::json!({"a": {"b": {}}}), serde_json::json!({"a": 1})] {
        let body: serde_json::Value = serde_json::from_slice(&with_content(&head, &value)).expect("JSON");
        assert_eq!(body["a"], head["a"]);
        assert_eq!(body["secretContent"], serde_json::json!({"contentType": "BASE64", "content": "YSJiCg=="}));
    }
}
