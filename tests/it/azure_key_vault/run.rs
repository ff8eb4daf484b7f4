//! The whole program against the embedded vault: what a script sees.

use std::time::Duration;

use kms_sync::sandbox::azure_key_vault::{State, router};
use kms_sync::sandbox::entra;
use kms_sync::sandbox::host::{Effect, Fault, Host};
use serde_json::{Value, json};

use super::{CLIENT, TENANT};
use crate::support::rig::Rig;

/// Seconds by which the vault's clock is behind when a lab begins.
const BEHIND: i64 = 86_400;
const T: i64 = 1_780_000_000;

struct Lab {
    rig: Rig,
    vault: State,
    host: Host,
    _authority: Host,
}

impl Lab {
    async fn new() -> Self {
        Self::before(|_, router| router).await
    }

    /// A lab whose vault has something before it.
    async fn before(wrap: impl FnOnce(&State, axum::Router) -> axum::Router) -> Self {
        let entra = entra::State::new();
        entra.register(TENANT, CLIENT, "s3cret-value");
        let authority = Host::start(entra::router(entra.clone()), None).await.expect("a port");
        let vault = State::new(&entra, TENANT);
        vault.set_delays(Duration::from_millis(50), Duration::from_millis(50), Duration::ZERO);
        vault.set_clock_ahead(-BEHIND);
        let host = Host::start(wrap(&vault, router(vault.clone())), None).await.expect("a port");
        let rig = Rig::new().await;
        let connection = json!({
            "name": "azure", "app": "azure", "method": "client-secret", "authorityUrl": authority.url,
            "credentials": {"tenantId": TENANT, "clientId": CLIENT, "clientSecret": "s3cret-value"},
        });
        rig.run_with(&["connection", "add", "-f", "-"], &connection).await.expect(0);
        Self { rig, vault, host, _authority: authority }
    }

    async fn create(&self, options: Value) {
        let document = json!({
            "name": "kv", "projectId": self.rig.project, "connectionId": "azure", "environment": "dev", "secretPath": "/app", "isEnabled": true,
            "syncOptions": options, "destinationConfig": {"vaultBaseUrl": self.host.url},
        });
        self.rig.run_with(&["create", "-f", "-", "--destination", "azure-key-vault", "--no-run"], &document).await.expect(0);
    }

    /// One run, some seconds later on the vault's clock.
    async fn sync(&self, later: i64, code: i32) -> Value {
        self.vault.set_clock_ahead(later - BEHIND);
        self.rig.run(&["sync", "kv", "--json"]).await.expect(code)["runs"][0].clone()
    }
}

fn calls(run: &Value) -> Value {
    run["requests"]["byCall"]["azure-key-vault"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vault_from_the_first_sync_to_removal() {
    let lab = Lab::new().await;
    for i in 0..30 {
        lab.rig.set(&format!("KEY_{i:02}"), &format!("value {i}"));
    }
    lab.create(json!({"initialSyncBehavior": "overwrite-destination", "keySchema": "APP_{{secretKey}}"})).await;
    lab.vault.put("FOREIGN", "stays");
    let plan = lab.rig.run(&["plan", "kv", "--json"]).await.expect(10);
    assert_eq!(plan["changes"].as_array().map(Vec::len), Some(30));
    let first = lab.sync(0, 0).await;
    assert_eq!(first["counts"]["created"], 30);
    let expected = json!({"GET /secrets": 1, "GET /deletedsecrets": 1, "PUT /secrets/{name}": 30, "GET /secrets/{name}": 30});
    assert_eq!(calls(&first), expected, "new names are looked for among the deleted ones, and each write is looked at once more");
    assert!(first["requests"]["waitedMs"].as_u64().is_some_and(|ms| ms < 2_000), "one wait for all: {first:#}");
    assert_eq!(first["requests"]["byCall"]["entra"], json!({"POST /{tenant}/oauth2/v2.0/token": 1}));
    let second = lab.sync(0, 0).await;
    assert_eq!((&second["counts"]["unchanged"], calls(&second)), (&json!(30), json!({"GET /secrets": 2})), "then the pages are enough, at once");
    let third = lab.sync(20, 0).await;
    assert_eq!((&third["counts"]["unchanged"], calls(&third)), (&json!(30), json!({"GET /secrets": 2})));

    lab.rig.set("KEY_03", "changed");
    lab.rig.unset("KEY_04");
    lab.vault.put("APP-KEY-05", "edited outside");
    let fourth = lab.sync(30, 0).await;
    assert_eq!((&fourth["counts"]["updated"], &fourth["counts"]["deleted"]), (&json!(2), &json!(1)));
    let expected = json!({"GET /secrets": 2, "GET /secrets/{name}": 1 + 2, "PUT /secrets/{name}": 2, "DELETE /secrets/{name}": 1});
    assert_eq!(calls(&fourth), expected, "one read for the edit, and a second look for each write");
    lab.rig.set("KEY_04", "back");
    tokio::time::sleep(Duration::from_millis(60)).await;
    let fifth = lab.sync(40, 0).await;
    assert_eq!(fifth["counts"]["restored"], 1, "{fifth:#}");
    let seen = lab.vault.secrets();
    assert_eq!((seen["app-key-04"].value.as_str(), seen["app-key-05"].value.as_str(), seen["foreign"].value.as_str()), ("back", "value 5", "stays"));

    lab.vault.delete("APP-KEY-07");
    let plan = lab.rig.run(&["plan", "kv", "--json"]).await.expect(10);
    assert_eq!(plan["changes"][0]["action"], "restore", "{plan:#}");
    assert_eq!(lab.sync(50, 0).await["counts"]["restored"], 1);
    let removed = lab.rig.run(&["remove-secrets", "kv", "--yes", "--json"]).await.expect(0);
    assert_eq!(removed["runs"][0]["counts"]["deleted"], 30, "{removed:#}");
    assert_eq!(lab.vault.secrets().keys().collect::<Vec<_>>(), ["foreign"]);
    assert_eq!(lab.vault.purges(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_deleted_secret_is_asked_about_before_it_comes_back() {
    let lab = Lab::new().await;
    lab.rig.set("OTHER", "v");
    lab.create(json!({"initialSyncBehavior": "overwrite-destination"})).await;
    lab.sync(0, 0).await;
    lab.rig.set("DB_PASS", "ours");
    lab.rig.set("NEW", "v");
    lab.vault.put("DB-PASS", "theirs");
    lab.vault.delete("DB-PASS");
    let plan = lab.rig.run(&["plan", "kv", "--json"]).await.expect(10);
    let question = &plan["needsApproval"][0];
    assert_eq!((plan["needsApproval"].as_array().map(Vec::len), &question["key"]), (Some(1), &json!("DB-PASS")), "{plan:#}");
    assert!(question["reason"].as_str().is_some_and(|r| r.contains("deleted") && r.contains("not written by this sync")), "{plan:#}");
    // Without an answer the rest is done, and it stays where it is.
    let run = lab.sync(10, 1).await;
    assert_eq!((&run["counts"]["created"], &run["counts"]["restored"], &run["counts"]["withheld"]), (&json!(1), &json!(0), &json!(1)), "{run:#}");
    assert_eq!(lab.vault.deleted(), ["db-pass"]);
    assert_eq!(lab.host.log.count("recover"), 0);
    lab.vault.set_clock_ahead(20 - BEHIND);
    let agreed = lab.rig.run(&["sync", "kv", "--json", "--allow-delete"]).await.expect(0);
    assert_eq!(agreed["runs"][0]["counts"]["restored"], 1, "{agreed:#}");
    assert_eq!(lab.vault.secrets()["db-pass"].value, "ours");
    let quiet = lab.sync(60, 0).await;
    assert_eq!((&quiet["counts"]["unchanged"], calls(&quiet)), (&json!(3), json!({"GET /secrets": 1})), "{quiet:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agreement_covers_no_deleted_secret_that_no_plan_could_show() {
    let lab = Lab::new().await;
    lab.rig.set("DB_PASS", "ours");
    lab.rig.set("NEW", "v");
    lab.vault.put("DB-PASS", "theirs");
    lab.vault.delete("DB-PASS");
    let body = json!({"error": {"code": "Forbidden", "message": "no", "innererror": {"code": "ForbiddenByRbac"}}}).to_string();
    lab.host.faults.add(Fault::always("GET /deletedsecrets", 1.0, Effect::status(403, body)));
    lab.create(json!({"initialSyncBehavior": "overwrite-destination"})).await;
    let plan = lab.rig.run(&["plan", "kv", "--json"]).await.expect(10);
    assert!(plan["warnings"].to_string().contains("Deleted secrets cannot be looked for"), "{plan:#}");
    let run = lab.rig.run(&["sync", "kv", "--json", "--allow-delete"]).await.expect(1)["runs"][0].clone();
    assert_eq!((&run["counts"]["created"], &run["counts"]["restored"], &run["counts"]["failed"]), (&json!(1), &json!(0), &json!(1)), "{run:#}");
    let told = run["secrets"].as_array().and_then(|s| s.iter().find(|s| s["key"] == "DB-PASS")).cloned().unwrap_or_default();
    assert!(told["reason"].as_str().is_some_and(|r| r.contains("did not write") && r.contains("Run again")), "{run:#}");
    assert_eq!(lab.vault.deleted(), ["db-pass"]);
    // What the write met, the next plan shows.
    let plan = lab.rig.run(&["plan", "kv", "--json"]).await.expect(10);
    assert!(plan["needsApproval"].to_string().to_lowercase().contains("db-pass"), "{plan:#}");
    lab.vault.set_clock_ahead(10 - BEHIND);
    lab.rig.run(&["sync", "kv", "--json", "--allow-delete"]).await.expect(0);
    assert_eq!(lab.vault.secrets()["db-pass"].value, "ours");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_without_a_list_is_no_empty_vault() {
    let lab = Lab::new().await;
    for i in 0..3 {
        lab.rig.set(&format!("K{i}"), "v");
    }
    lab.create(json!({"initialSyncBehavior": "overwrite-destination"})).await;
    lab.sync(0, 0).await;
    for body in ["{}", r#"{"value":null}"#, r#"{"value":{}}"#, r#"{"value":[{"attributes":{}}]}"#, r#"{"value":[],"nextLink":1}"#] {
        lab.host.log.clear();
        lab.host.faults.add(Fault::next("GET /secrets?", 2, Effect::status(200, body)));
        let run = lab.sync(10, 1).await;
        assert!(run["message"].as_str().is_some_and(|m| m.contains("not an answer of Key Vault")), "{body}: {run:#}");
        let plan = lab.rig.run(&["plan", "kv", "--json"]).await.expect(1);
        assert!(plan["error"]["message"].as_str().is_some_and(|m| m.contains("not an answer of Key Vault")), "{body}: {plan:#}");
        assert_eq!((lab.host.log.count("PUT"), lab.host.log.count("DELETE")), (0, 0), "{body}");
    }
    assert!(lab.vault.secrets().values().all(|s| s.versions == 1));
    assert_eq!(lab.sync(20, 0).await["counts"]["unchanged"], 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vaults_quota_of_creations_is_kept_wherever_it_answers() {
    let lab = Lab::new().await;
    for i in 0..320 {
        lab.rig.set(&format!("KEY_{i:03}"), "v");
    }
    lab.create(json!({"initialSyncBehavior": "overwrite-destination"})).await;
    let begun = std::time::Instant::now();
    let run = lab.sync(0, 0).await;
    assert!(begun.elapsed() > Duration::from_secs(9), "more than a span's quota takes more than a span: {:?}", begun.elapsed());
    assert_eq!((&run["counts"]["created"], &run["requests"]["retries"]), (&json!(320), &json!(0)), "nothing is refused: {}", run["requests"]);
    let most = lab.vault.most_creations_in(Duration::from_secs(10));
    assert!(most <= 300, "{most} in ten seconds");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_are_tagged_as_the_syncs_own_where_it_asks_for_that() {
    let lab = Lab::new().await;
    for (key, value) in [("A", "1"), ("B", "2"), ("FULL", "3")] {
        lab.rig.set(key, value);
    }
    lab.vault.put_with("B", "2", |s| drop(s.tags.insert("team".into(), "red".into())));
    lab.vault.put_with("FULL", "3", |s| (0..15).for_each(|i| drop(s.tags.insert(format!("t{i}"), "v".into()))));
    lab.create(json!({"initialSyncBehavior": "overwrite-destination", "ownershipTag": true})).await;
    lab.vault.set_clock_ahead(10 - BEHIND);
    let first = lab.rig.run(&["sync", "kv", "--json", "--allow-delete"]).await.expect(0)["runs"][0].clone();
    assert_eq!(
        (&first["counts"]["created"], &first["counts"]["updated"], &first["counts"]["unchanged"]),
        (&json!(1), &json!(1), &json!(1)),
        "{first:#}"
    );
    assert_eq!((&calls(&first)["PUT /secrets/{name}"], &calls(&first)["PATCH /secrets/{name}"]), (&json!(1), &json!(1)), "{first:#}");
    let seen = lab.vault.secrets();
    assert!(seen["a"].tags.contains_key("kms-sync") && seen["b"].tags.len() == 2 && seen["full"].tags.len() == 15);
    assert!(seen.values().all(|s| s.versions == 1));
    let second = lab.sync(60, 0).await;
    assert_eq!((&second["counts"]["unchanged"], calls(&second)), (&json!(3), json!({"GET /secrets": 1})), "{second:#}");
    let shown = lab.rig.run(&["show", "kv", "--json"]).await.expect(0);
    assert_eq!(shown["secretSync"]["syncOptions"]["ownershipTag"], true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn collisions_disabled_and_certificates_are_told_and_the_rest_is_done() {
    let lab = Lab::new().await;
    for (key, value) in [("A_B", "1"), ("a-b", "2"), ("GOOD", "g"), ("OFF", "new"), ("CERT", "new"), ("bad.name", "x"), ("BIG", &"x".repeat(25_601))]
    {
        lab.rig.set(key, value);
    }
    lab.vault.put_with("Off", "old", |s| s.disabled = true);
    lab.vault.put_with("cert", "PRIVATE", |s| s.managed = true);
    lab.create(json!({"initialSyncBehavior": "overwrite-destination"})).await;
    let plan = lab.rig.run(&["plan", "kv", "--json"]).await.expect(10);
    let conflicts = plan["conflicts"].to_string();
    for word in ["A_B", "a-b", "certificate", "'.'", "25601"] {
        assert!(conflicts.contains(word), "{word}: {conflicts}");
    }
    assert!(plan["skipped"].to_string().contains("disabled"), "{plan:#}");
    let run = lab.sync(0, 1).await;
    assert_eq!(run["counts"]["created"], 1, "{run:#}");
    let seen = lab.vault.secrets();
    assert_eq!((seen["good"].value.as_str(), seen["off"].value.as_str(), seen["cert"].value.as_str()), ("g", "old", "PRIVATE"));
    assert_eq!(seen.len(), 3);
}

/// Number 8 for what must go: ours until another hand took it over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_disabled_or_became_a_certificate_is_never_deleted() {
    let lab = Lab::new().await;
    for key in ["CERT", "GOING", "OFF", "STAYS"] {
        lab.rig.set(key, "ours");
    }
    lab.create(json!({"initialSyncBehavior": "overwrite-destination"})).await;
    lab.sync(0, 0).await;
    lab.vault.set_clock_ahead(10 - BEHIND);
    lab.vault.enable("OFF", false);
    lab.vault.put_with("CERT", "PRIVATE", |s| s.managed = true);
    for key in ["CERT", "GOING", "OFF"] {
        lab.rig.unset(key);
    }
    let told = |run: &Value, key: &str, word: &str| {
        let found = run["secrets"].as_array().and_then(|all| all.iter().find(|s| s["key"] == key)).cloned().unwrap_or_default();
        let reason = found["reason"].as_str().unwrap_or_default();
        assert!(found["outcome"] == "skipped" && reason.contains(word), "{key}: {run:#}");
    };
    lab.host.log.clear();
    lab.vault.set_clock_ahead(20 - BEHIND);
    let run = lab.rig.run(&["sync", "kv", "--allow-delete", "--json"]).await.expect(0)["runs"][0].clone();
    assert_eq!((&run["counts"]["deleted"], lab.host.log.count("DELETE ")), (&json!(1), 1), "{run:#}");
    told(&run, "OFF", "disabled");
    told(&run, "CERT", "certificate");
    // The same when everything of the sync is taken away, from a source that has the keys and from
    // one that has not.
    for back in [false, true] {
        if back {
            ["CERT", "OFF"].iter().for_each(|key| lab.rig.set(key, "ours"));
        }
        lab.host.log.clear();
        lab.vault.set_clock_ahead(30 + 10 * i64::from(back) - BEHIND);
        let run = lab.rig.run(&["remove-secrets", "kv", "--yes", "--json"]).await.expect(0)["runs"][0].clone();
        let gone = usize::from(!back);
        assert_eq!((&run["counts"]["deleted"], lab.host.log.count("DELETE ")), (&json!(gone), gone), "{run:#}");
        told(&run, "OFF", "disabled");
        told(&run, "CERT", "certificate");
    }
    let seen = lab.vault.secrets();
    let values: Vec<_> = seen.iter().map(|(name, s)| (name.as_str(), s.value.as_str())).collect();
    assert_eq!(values, [("cert", "PRIVATE"), ("off", "ours")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_keeps_hyphens_and_knows_its_own_keys() {
    let lab = Lab::new().await;
    lab.rig.set("DB_HOST", "source");
    for (name, value) in [("db-host", "vault"), ("Native-Key", "n"), ("a--b", "d")] {
        lab.vault.put(name, value);
    }
    lab.vault.put_with("PFX", "blob", |s| s.content_type = Some("application/x-pkcs12".into()));
    lab.create(json!({"initialSyncBehavior": "import-prioritize-destination"})).await;
    let run = lab.sync(0, 0).await;
    assert_eq!(run["counts"]["imported"], 3, "{run:#}");
    let value = |key: &str| lab.rig.kms.value(&lab.rig.project, "dev", "/app", key);
    assert_eq!((value("DB_HOST").as_deref(), value("Native-Key").as_deref(), value("a--b").as_deref()), (Some("vault"), Some("n"), Some("d")));
    assert_eq!((value("PFX"), value("db-host")), (None, None));
    for later in [10, 20, 30] {
        let again = lab.sync(later, 0).await;
        assert_eq!((&again["counts"]["unchanged"], &again["counts"]["updated"], &again["counts"]["deleted"]), (&json!(3), &json!(0), &json!(0)));
    }
    assert!(lab.vault.secrets().values().all(|s| s.versions == 1), "import then sync changes nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stamp_that_could_not_be_proved_is_proved_by_the_next_run() {
    let lab = Lab::new().await;
    for i in 0..3 {
        lab.rig.set(&format!("K{i}"), "v");
    }
    lab.create(json!({"initialSyncBehavior": "overwrite-destination"})).await;
    // The vault's clock stands: the second of the writes never ends.
    lab.vault.freeze_clock(Some(T));
    let first = lab.rig.run(&["sync", "kv", "--json"]).await.expect(0)["runs"][0].clone();
    assert_eq!((&first["status"], &calls(&first)["GET /secrets/{name}"]), (&json!("succeeded"), &json!(3)));
    lab.vault.put("K1", "edited in the second of our write");
    lab.vault.freeze_clock(Some(T + 60));
    let second = lab.rig.run(&["sync", "kv", "--json"]).await.expect(0)["runs"][0].clone();
    assert_eq!((&second["counts"]["unchanged"], &second["counts"]["updated"]), (&json!(2), &json!(1)), "{second:#}");
    assert_eq!(lab.vault.secrets()["k1"].value, "v");
    // A look that is refused fails nothing.
    lab.rig.set("K3", "v");
    lab.vault.forbid(kms_sync::sandbox::azure_key_vault::Operation::Get, Some("K3"), "ForbiddenByPolicy");
    lab.vault.freeze_clock(None);
    let third = lab.sync(20, 0).await;
    assert_eq!((&third["status"], &third["counts"]["created"]), (&json!("succeeded"), &json!(1)), "{third:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_write_between_ours_and_the_second_look_is_told_and_mended() {
    use axum::extract::Request;
    use axum::middleware::{Next, from_fn};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    let meddled = Arc::new(AtomicBool::new(false));
    let lab = Lab::before(|vault, router| {
        let (vault, meddled) = (vault.clone(), meddled.clone());
        // Before the second look another hand writes, in the second of our write; then it ends.
        router.layer(from_fn(move |request: Request, next: Next| {
            let (vault, meddled) = (vault.clone(), meddled.clone());
            async move {
                if request.method() == "GET" && request.uri().path() == "/secrets/DB-PASS" && !meddled.swap(true, Ordering::SeqCst) {
                    vault.put("DB-PASS", "theirs");
                    vault.freeze_clock(Some(T + 1));
                }
                next.run(request).await
            }
        }))
    })
    .await;
    lab.rig.set("DB_PASS", "ours");
    lab.create(json!({"initialSyncBehavior": "overwrite-destination"})).await;
    lab.vault.freeze_clock(Some(T));
    let first = lab.rig.run(&["sync", "kv", "--json"]).await.expect(0)["runs"][0].clone();
    assert_eq!(first["counts"]["created"], 1);
    assert!(first["secrets"][0]["reason"].as_str().is_some_and(|r| r.contains("somebody else wrote it")), "{first:#}");
    assert_eq!(lab.vault.secrets()["db-pass"].value, "theirs");
    lab.vault.freeze_clock(Some(T + 60));
    let second = lab.rig.run(&["sync", "kv", "--json"]).await.expect(0)["runs"][0].clone();
    assert_eq!((&second["counts"]["updated"], lab.vault.secrets()["db-pass"].value.as_str()), (&json!(1), "ours"), "{second:#}");
}
