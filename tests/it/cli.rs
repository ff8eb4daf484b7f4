//! The command line against a KMS and moto: the outside contract, end to end.

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
