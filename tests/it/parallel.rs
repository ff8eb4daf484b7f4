//! Commands at the same time on one set of directories, each a process of its own; and what
//! scripts are told by counts and exit codes.

use std::time::Duration;

use kms_sync::sandbox::aws::{ACCESS_KEY_ID, SECRET_ACCESS_KEY, State, router};
use kms_sync::sandbox::host::{Effect, Fault, Host};
use serde_json::{Value, json};

use crate::support::rig::Rig;

const REGION: &str = "eu-west-1";

struct Shop {
    rig: Rig,
    host: Host,
}

impl Shop {
    async fn new() -> Self {
        let host = Host::start(router(State::default()), None).await.expect("a port");
        let rig = Rig::new().await;
        let connection = json!({"name": "aws", "app": "aws", "method": "access-key", "endpoint": host.url,
            "credentials": {"accessKeyId": ACCESS_KEY_ID, "secretAccessKey": SECRET_ACCESS_KEY}});
        rig.run_with(&["connection", "add", "-f", "-"], &connection).await.expect(0);
        Self { rig, host }
    }

    fn document(&self, name: &str, schema: &str) -> Value {
        json!({"name": name, "projectId": self.rig.project, "connectionId": "aws", "environment": "dev", "secretPath": "/app", "isEnabled": true,
            "syncOptions": {"initialSyncBehavior": "overwrite-destination", "keySchema": schema}, "destination": "aws-secrets-manager",
            "destinationConfig": {"region": REGION, "mappingBehavior": "one-to-one"}})
    }

    async fn stored(&self, name: &str, schema: &str) {
        self.rig.run_with(&["create", "-f", "-", "--no-run"], &self.document(name, schema)).await.expect(0);
    }

    /// The first creation at the destination takes this long.
    fn slow(&self, time: Duration) {
        self.host.faults.add(Fault::next("CreateSecret", 1, Effect::Delay(time)));
    }

    async fn busy(&self) {
        let begun = std::time::Instant::now();
        while self.host.log.count("CreateSecret") == 0 {
            assert!(begun.elapsed() < Duration::from_secs(20), "the run does not begin");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_creations_at_once_each_name_is_taken_once() {
    let shop = Shop::new().await;
    shop.rig.set("KEY", "v");
    let args = ["create", "-f", "-", "--json"];
    let same = shop.document("same", "SAME_{{secretKey}}");
    let other = shop.document("other", "OTHER_{{secretKey}}");
    let (a, b, c) = tokio::join!(shop.rig.run_with(&args, &same), shop.rig.run_with(&args, &same), shop.rig.run_with(&args, &other));
    c.expect(0);
    let mut codes = [a.code, b.code];
    codes.sort_unstable();
    assert_eq!(codes, [0, 2], "{}{}\n{}{}", a.stdout, a.stderr, b.stdout, b.stderr);
    let refused = if a.code == 2 { a.json() } else { b.json() };
    assert_eq!((&refused["error"]["fields"][0]["field"], &refused["error"]["fields"][0]["rule"]), (&json!("name"), &json!("unique")), "{refused}");
    let listed = shop.rig.run(&["list", "--json"]).await.expect(0);
    assert_eq!(listed["secretSyncs"].as_array().map(Vec::len), Some(2), "{listed:#}");
    for sync in listed["secretSyncs"].as_array().expect("syncs") {
        assert_eq!(sync["syncStatus"], "succeeded", "{sync:#}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_sync_that_runs_is_neither_changed_nor_deleted() {
    let shop = Shop::new().await;
    for i in 0..4 {
        shop.rig.set(&format!("KEY_{i}"), "v");
    }
    shop.stored("web", "WEB_{{secretKey}}").await;
    shop.slow(Duration::from_secs(3));
    let run = shop.rig.run(&["sync", "web", "--json"]);
    let meanwhile = async {
        shop.busy().await;
        let changed = shop.rig.run_with(&["update", "web", "-f", "-", "--json"], &json!({"description": "x"})).await.expect(1);
        assert_eq!(changed["error"]["kind"], "busy", "{changed}");
        let deleted = shop.rig.run(&["delete", "web", "--yes", "--json"]).await.expect(1);
        assert_eq!(deleted["error"]["kind"], "busy", "{deleted}");
        // Looking is always possible.
        shop.rig.run(&["show", "web", "--json"]).await.expect(0);
    };
    let (ran, ()) = tokio::join!(run, meanwhile);
    assert_eq!(ran.expect(0)["runs"][0]["counts"]["created"], 4);
    let shown = shop.rig.run(&["show", "web", "--json"]).await.expect(0);
    assert_eq!((&shown["secretSync"]["description"], &shown["secretSync"]["version"]), (&json!(null), &json!(1)));
    shop.rig.run_with(&["update", "web", "-f", "-", "--json"], &json!({"description": "x"})).await.expect(0);
    shop.rig.run(&["delete", "web", "--remove-secrets", "--yes", "--json"]).await.expect(0);
    assert_eq!(shop.rig.run(&["list", "--json"]).await.expect(0), json!({"secretSyncs": []}));
}

/// Whichever of two commands is first, the next run brings the destination to what is stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_update_beside_a_run_is_done_or_refused_and_never_half() {
    let shop = Shop::new().await;
    shop.rig.set("KEY", "v");
    shop.stored("web", "A_{{secretKey}}").await;
    for round in 0..4 {
        let schema = format!("R{round}_{{{{secretKey}}}}");
        let change = json!({"syncOptions": {"initialSyncBehavior": "overwrite-destination", "keySchema": schema}});
        let update = ["update", "web", "-f", "-", "--json"];
        let sync = ["sync", "web", "--json"];
        let (updated, ran) = tokio::join!(shop.rig.run_with(&update, &change), shop.rig.run(&sync));
        ran.expect(0);
        let kept = shop.rig.run(&["show", "web", "--json"]).await.expect(0)["secretSync"]["syncOptions"]["keySchema"].clone();
        match updated.code {
            0 => assert_eq!(kept, json!(schema), "round {round}"),
            1 => assert_ne!(kept, json!(schema), "round {round}"),
            code => panic!("{code}: {}", updated.stdout),
        }
        shop.rig.run(&["sync", "web", "--json"]).await.expect(0);
        shop.rig.run(&["remove-secrets", "web", "--left-behind", "--yes", "--json"]).await.expect(0);
        let plan = shop.rig.run(&["plan", "web", "--json"]).await.expect(0);
        assert_eq!((&plan["unchanged"], &plan["warnings"]), (&json!(1), &json!([])), "{plan:#}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_answers_10_when_there_are_changes_and_says_what_is_in_the_way() {
    let shop = Shop::new().await;
    shop.rig.set("GOOD", "v");
    shop.stored("web", "WEB_{{secretKey}}").await;
    shop.rig.run(&["plan", "web", "--json"]).await.expect(10);
    shop.rig.run(&["sync", "web", "--json"]).await.expect(0);
    shop.rig.run(&["plan", "web", "--json"]).await.expect(0);
    // A key that cannot be written: there is nothing to change, and something to see to.
    shop.rig.set("NOT A NAME", "v");
    let answer = shop.rig.run(&["plan", "web", "--json"]).await;
    assert!(answer.stderr.contains("1 key cannot be written"), "{}", answer.stderr);
    let plan = answer.expect(0);
    assert_eq!((plan["changes"].as_array().map(Vec::len), plan["conflicts"].as_array().map(Vec::len)), (Some(0), Some(1)), "{plan:#}");
    shop.rig.run(&["sync", "web", "--json"]).await.expect(1);
}

/// With a sync goes the knowledge of what it wrote under earlier settings: so that goes first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_takes_along_what_earlier_settings_left() {
    let shop = Shop::new().await;
    shop.rig.set("KEY", "v");
    shop.stored("web", "OLD_{{secretKey}}").await;
    shop.rig.run(&["sync", "web", "--json"]).await.expect(0);
    let change = json!({"destinationConfig": {"region": "eu-west-2", "mappingBehavior": "one-to-one"}});
    shop.rig.run_with(&["update", "web", "-f", "-"], &change).await.expect(0);
    shop.rig.run(&["sync", "web", "--json"]).await.expect(0);
    shop.host.log.clear();
    shop.rig.run(&["delete", "web", "--remove-secrets", "--yes", "--json"]).await.expect(0);
    assert_eq!(shop.host.log.count("DeleteSecret"), 2, "{:#?}", shop.host.log.lines());
}

/// What our own patterns leave out is the documented document's concern as well: shown, kept by
/// an update that does not name it, taken back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patterns_of_keys_go_there_and_back() {
    let shop = Shop::new().await;
    for key in ["DB_HOST", "DB_TEST", "API_KEY"] {
        shop.rig.set(key, "v");
    }
    let mut document = shop.document("db", "S_{{secretKey}}");
    document["syncOptions"]["includeKeys"] = json!(["DB_*"]);
    document["syncOptions"]["excludeKeys"] = json!(["*_TEST"]);
    let created = shop.rig.run_with(&["create", "-f", "-", "--json"], &document).await.expect(0);
    assert_eq!(created["run"]["counts"]["created"], 1, "{created:#}");
    let shown = shop.rig.run(&["show", "db", "--json"]).await.expect(0);
    assert_eq!(shown["secretSync"]["syncOptions"]["includeKeys"], json!(["DB_*"]), "{shown:#}");
    let again = shop.rig.run_with(&["update", "db", "-f", "-", "--json"], &shown).await.expect(0);
    assert_eq!(again["secretSync"]["version"], shown["secretSync"]["version"]);
    shop.rig.run_with(&["update", "db", "-f", "-"], &json!({"description": "x"})).await.expect(0);
    let text = shop.rig.run(&["show", "db"]).await;
    assert!(text.stdout.contains("DB_*") && text.stdout.contains("*_TEST"), "{}", text.stdout);
    let plan = shop.rig.run(&["plan", "db", "--json"]).await.expect(0);
    assert_eq!((&plan["source"]["secrets"], &plan["unchanged"]), (&json!(1), &json!(1)), "{plan:#}");
}

/// A CA file counts also where every endpoint is plain http.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ca_file_that_went_away_is_told() {
    let shop = Shop::new().await;
    let ca = shop.rig.config_dir().join("ca.txt");
    let pem = rcgen::generate_simple_self_signed(vec!["aws.lan".into()]).expect("a certificate").cert.pem();
    std::fs::write(&ca, pem).expect("a file");
    let connection = json!({"name": "with-ca", "app": "aws", "method": "access-key", "endpoint": shop.host.url, "caFile": ca,
        "credentials": {"accessKeyId": ACCESS_KEY_ID, "secretAccessKey": SECRET_ACCESS_KEY}});
    shop.rig.run_with(&["connection", "add", "-f", "-"], &connection).await.expect(0);
    shop.rig.run(&["connection", "test", "with-ca", "--json"]).await.expect(0);
    std::fs::write(&ca, "no certificate").expect("a file");
    let told = shop.rig.run(&["connection", "test", "with-ca", "--json"]).await.expect(1);
    assert!(told["error"]["message"].as_str().is_some_and(|m| m.contains("caFile")), "{told}");
    let doctor = shop.rig.run(&["doctor", "--json"]).await.expect(1);
    let findings = doctor["findings"].as_array().expect("findings");
    assert!(findings.iter().any(|f| f["level"] == "error" && f["what"].as_str().is_some_and(|w| w.contains("caFile"))), "{doctor:#}");
    assert!(findings.iter().any(|f| f["what"] == "clock" && f["level"] == "ok"), "{doctor:#}");
}
