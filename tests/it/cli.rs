//! The command line against a KMS and moto: the outside contract, end to end.

use kms_sync::sandbox::aws::{ACCESS_KEY_ID, SECRET_ACCESS_KEY, State, router};
use kms_sync::sandbox::host::Host;
use serde_json::{Value, json};

use crate::support::moto::moto;
use crate::support::rig::Rig;

/// A sync of `dev:/app` to moto.
pub fn aws_sync(rig: &Rig, name: &str, region: &str) -> Value {
    json!({
        "name": name, "projectId": rig.project, "connectionId": "moto", "environment": "dev", "secretPath": "/app", "isEnabled": true,
        "syncOptions": {"initialSyncBehavior": "overwrite-destination"},
        "destinationConfig": {"region": region, "mappingBehavior": "one-to-one"}
    })
}

/// Stores a connection to an AWS endpoint under the name `moto`.
pub async fn connect(rig: &Rig, endpoint: &str) {
    let connection = json!({
        "name": "moto", "app": "aws", "method": "access-key", "endpoint": endpoint,
        "credentials": {"accessKeyId": "AKIAIOSFODNN7EXAMPLE", "secretAccessKey": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"}
    });
    rig.run_with(&["connection", "add", "-f", "-"], &connection).await.expect(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_from_creation_to_removal() {
    let Some(moto) = moto() else { return };
    let rig = Rig::new().await;
    connect(&rig, &moto.url).await;
    for i in 0..25 {
        rig.set(&format!("KEY_{i:02}"), &format!("value {i}"));
    }
    rig.run_with(&["create", "-f", "-", "--destination", "aws-secrets-manager", "--no-run"], &aws_sync(&rig, "web", "eu-west-3")).await.expect(0);
    let plan = rig.run(&["plan", "web", "--json"]).await.expect(10);
    assert_eq!(plan["changes"].as_array().map(Vec::len), Some(25));
    let first = rig.run(&["sync", "web", "--json"]).await.expect(0);
    assert_eq!(first["runs"][0]["counts"]["created"], 25);
    let second = rig.run(&["sync", "web", "--json"]).await.expect(0);
    assert_eq!(second["runs"][0]["counts"]["unchanged"], 25);
    assert_eq!(second["runs"][0]["requests"]["byCall"]["aws"], json!({"ListSecrets": 1}));
    rig.run(&["plan", "web", "--json"]).await.expect(0);
    rig.set("KEY_03", "changed");
    rig.unset("KEY_04");
    let third = rig.run(&["sync", "web", "--json"]).await.expect(0);
    assert_eq!((&third["runs"][0]["counts"]["updated"], &third["runs"][0]["counts"]["deleted"]), (&json!(1), &json!(1)));
    rig.set("KEY_04", "back");
    let fourth = rig.run(&["sync", "web", "--json"]).await.expect(0);
    assert_eq!(fourth["runs"][0]["counts"]["restored"], 1, "{fourth:#}");
    let removed = rig.run(&["remove-secrets", "web", "--yes", "--json"]).await.expect(0);
    assert_eq!(removed["runs"][0]["counts"]["deleted"], 25);
    let history = rig.run(&["history", "web", "--json"]).await.expect(0);
    assert_eq!(history["runs"].as_array().map(Vec::len), Some(5));
    assert_eq!(history["runs"][0]["kind"], "remove");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_says_what_it_leaves_behind_and_how_to_be_rid_of_it() {
    let host = Host::start(router(State::default()), None).await.expect("a port");
    let rig = Rig::new().await;
    let connection = json!({
        "name": "moto", "app": "aws", "method": "access-key", "endpoint": host.url,
        "credentials": {"accessKeyId": ACCESS_KEY_ID, "secretAccessKey": SECRET_ACCESS_KEY}
    });
    rig.run_with(&["connection", "add", "-f", "-"], &connection).await.expect(0);
    rig.set("LEFT_A", "1");
    rig.set("LEFT_B", "2");
    rig.run_with(&["create", "-f", "-", "--destination", "aws-secrets-manager", "--no-run"], &aws_sync(&rig, "web", "ap-south-1")).await.expect(0);
    rig.run(&["sync", "web", "--json"]).await.expect(0);
    let change = json!({"destinationConfig": {"region": "ap-south-2", "mappingBehavior": "one-to-one"}});
    let updated = rig.run_with(&["update", "web", "-f", "-", "--json"], &change).await;
    assert!(updated.stderr.contains("2 keys") && updated.stderr.contains("kms-sync remove-secrets web --left-behind"), "{}", updated.stderr);
    let answer = updated.expect(0);
    assert_eq!(answer["secretSync"]["leftBehind"], 2, "{answer:#}");
    // What an update prints can be given back.
    rig.run_with(&["update", "web", "-f", "-", "--json"], &answer).await.expect(0);

    let plan = rig.run(&["plan", "web", "--json"]).await.expect(10);
    let warned = |plan: &Value| plan["warnings"].to_string().contains("--left-behind");
    assert!(warned(&plan), "{plan:#}");
    rig.run(&["sync", "web", "--json"]).await.expect(0);
    assert!(warned(&rig.run(&["plan", "web", "--json"]).await.expect(0)));
    assert_eq!(rig.run(&["remove-secrets", "web", "--left-behind"]).await.code, 2, "nobody can be asked here");
    let removed = rig.run(&["remove-secrets", "web", "--left-behind", "--yes", "--json"]).await.expect(0);
    assert_eq!((&removed["runs"][0]["kind"], &removed["runs"][0]["counts"]["deleted"]), (&json!("remove"), &json!(2)), "{removed:#}");
    let plan = rig.run(&["plan", "web", "--json"]).await.expect(0);
    assert!(!warned(&plan) && plan["unchanged"] == 2, "{plan:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn short_commands_print_json_when_asked() {
    let rig = Rig::new().await;
    connect(&rig, "http://127.0.0.1:9").await;
    rig.run_with(&["create", "-f", "-", "--destination", "aws-secrets-manager", "--no-run"], &aws_sync(&rig, "web", "eu-west-3")).await.expect(0);
    let rival = rig
        .run_with(&["create", "-f", "-", "--destination", "aws-secrets-manager", "--no-run", "--json"], &aws_sync(&rig, "rival", "eu-west-3"))
        .await;
    assert!(rival.stderr.contains("warning: web also writes there") && rival.stderr.contains("overlap"), "{}", rival.stderr);
    let rival = rival.expect(0);
    assert!(rival["secretSync"]["warnings"][0].as_str().is_some_and(|w| w.contains("web")), "{rival:#}");
    rig.run_with(&["update", "rival", "-f", "-", "--json"], &rival["secretSync"]).await.expect(0);
    rig.run(&["delete", "rival", "--yes"]).await.expect(0);
    let off = rig.run(&["disable", "web", "--json"]).await.expect(0);
    assert_eq!((&off["secretSync"]["name"], &off["secretSync"]["isEnabled"]), (&json!("web"), &json!(false)));
    let on = rig.run(&["enable", "web", "--json"]).await.expect(0);
    assert_eq!(on["secretSync"]["isEnabled"], true);
    let busy = rig.run(&["connection", "remove", "moto", "--json"]).await.expect(1);
    assert_eq!(busy["error"]["kind"], "busy", "{busy}");
    rig.run(&["delete", "web", "--yes"]).await.expect(0);
    let removed = rig.run(&["connection", "remove", "moto", "--json"]).await.expect(0);
    assert_eq!(removed, json!({"connection": "moto", "removed": true}));
    let missing = rig.run(&["enable", "web", "--json"]).await.expect(2);
    assert_eq!(missing["error"]["kind"], "not-found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_given_twice_is_refused_by_name() {
    let rig = Rig::new().await;
    connect(&rig, "http://127.0.0.1:9").await;
    let document = aws_sync(&rig, "web", "eu-west-3").to_string();
    let twice = document.replacen("\"syncOptions\":{", "\"syncOptions\":{\"disableSecretDeletion\":true,\"disableSecretDeletion\":false,", 1);
    let file = rig.config_dir().join("twice.txt");
    std::fs::write(&file, twice).expect("a file");
    let path = file.to_string_lossy();
    let refused = rig.run(&["create", "-f", &path, "--destination", "aws-secrets-manager", "--json"]).await.expect(2);
    assert_eq!(refused["error"]["fields"][0]["field"], "syncOptions.disableSecretDeletion", "{refused}");
    assert_eq!(rig.run(&["list", "--json"]).await.expect(0), json!({"secretSyncs": []}), "nothing was stored");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_s_id_is_its_own_and_what_is_stored_can_be_kept() {
    let rig = Rig::new().await;
    connect(&rig, "http://127.0.0.1:9").await;
    let listed = rig.run(&["connection", "list", "--json"]).await.expect(0);
    let first = listed["connections"].as_array().expect("a list").iter().find(|c| c["name"] == "moto").expect("it is there").clone();
    let credentials = json!({"accessKeyId": "AKIAIOSFODNN7EXAMPLE", "secretAccessKey": {"stored": true}});
    let other = json!({"name": "other", "id": first["id"], "app": "aws", "method": "access-key", "credentials": credentials});
    let refused = rig.run_with(&["connection", "add", "-f", "-", "--json"], &other).await.expect(2);
    assert_eq!(refused["error"]["fields"][0]["field"], "credentials.secretAccessKey", "nothing is stored under that name: {refused}");
    let mut own = other.clone();
    own["credentials"]["secretAccessKey"] = json!("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
    let refused = rig.run_with(&["connection", "add", "-f", "-", "--json"], &own).await.expect(2);
    assert_eq!(refused["error"]["fields"][0]["field"], "id", "{refused}");
    let mut edit = first.clone();
    edit["endpoint"] = json!("http://127.0.0.1:10");
    edit["credentials"]["secretAccessKey"] = json!({"stored": true});
    let kept = rig.run_with(&["connection", "add", "-f", "-", "--replace", "--json"], &edit).await.expect(0);
    assert_eq!((&kept["connection"]["endpoint"], &kept["connection"]["id"]), (&json!("http://127.0.0.1:10"), &first["id"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_that_changes_nothing_is_none_and_parallel_ones_are_all_kept() {
    let rig = Rig::new().await;
    connect(&rig, "http://127.0.0.1:9").await;
    rig.run_with(&["create", "-f", "-", "--destination", "aws-secrets-manager", "--no-run"], &aws_sync(&rig, "web", "eu-west-3")).await.expect(0);
    let before = rig.run(&["show", "web", "--json"]).await.expect(0);
    let again = rig.run_with(&["update", "web", "-f", "-", "--json"], &before).await.expect(0);
    assert_eq!(again["secretSync"]["version"], before["secretSync"]["version"]);
    assert_eq!(again["secretSync"]["updatedAt"], before["secretSync"]["updatedAt"]);

    for round in 0..5 {
        let description = format!("round {round}");
        let region = format!("eu-west-{}", 1 + round % 3);
        let (enabled, command) = if round % 2 == 0 { (false, "disable") } else { (true, "enable") };
        let (one, other) = (json!({"description": description}), json!({"destinationConfig": {"region": region, "mappingBehavior": "one-to-one"}}));
        let (update, switch) = (["update", "web", "-f", "-"], [command, "web"]);
        let (a, b, c) = tokio::join!(rig.run_with(&update, &one), rig.run_with(&update, &other), rig.run(&switch));
        for answer in [a, b, c] {
            answer.expect(0);
        }
        let after = rig.run(&["show", "web", "--json"]).await.expect(0)["secretSync"].clone();
        let seen = (&after["description"], &after["destinationConfig"]["region"], &after["isEnabled"]);
        assert_eq!(seen, (&json!(description), &json!(region), &json!(enabled)), "round {round}");
    }
}
