//! The documentation's sample requests, letter by letter but for ids of this rig, sent to the
//! engine's socket.

use kms_sync::service::Service;
use serde_json::{Value, json};

use super::documented::Curl;
use super::yard::Yard;

const SAMPLES: [(&str, &str); 5] = [
    ("azure-devops", include_str!("samples/requests/azure-devops.json")),
    ("azure-key-vault", include_str!("samples/requests/azure-key-vault.json")),
    ("bitbucket", include_str!("samples/requests/bitbucket.json")),
    ("oci-vault", include_str!("samples/requests/oci-vault.json")),
    ("aws-secrets-manager", include_str!("samples/requests/aws-secrets-manager.json")),
];
/// The id that stands for every id in them.
const ID: &str = "3c90c3cc-0d44-4b50-8888-8dd25736052a";
/// The members of the documented answer.
const MEMBERS: &[&str] = &[
    "id",
    "name",
    "description",
    "isEnabled",
    "version",
    "folderId",
    "connectionId",
    "createdAt",
    "updatedAt",
    "syncStatus",
    "lastSyncJobId",
    "lastSyncMessage",
    "lastSyncedAt",
    "importStatus",
    "lastImportJobId",
    "lastImportMessage",
    "lastImportedAt",
    "removeStatus",
    "lastRemoveJobId",
    "lastRemoveMessage",
    "lastRemovedAt",
    "syncOptions",
    "projectId",
    "connection",
    "environment",
    "folder",
    "destination",
    "destinationConfig",
];

/// The sample with this rig's ids in it.
fn sample(yard: &Yard, kind: &str, text: &str, connection: &str) -> String {
    let member = |name: &str, id: &str| format!("\"{name}\": \"{id}\"");
    assert!(text.contains(&member("projectId", ID)) && text.contains(&member("connectionId", ID)), "{text}");
    let text = text.replace(&member("projectId", ID), &member("projectId", &yard.rig.project));
    let text = text.replace(&member("connectionId", ID), &member("connectionId", connection));
    // One of them leaves its ids out.
    let config = yard.places.iter().find(|p| p.kind() == kind).expect("a place").config();
    ["compartmentOcid", "vaultOcid", "keyOcid"]
        .iter()
        .fold(text, |text, name| text.replace(&member(name, "..."), &member(name, config[*name].as_str().unwrap_or_default())))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_sample_is_taken_as_it_stands() {
    let yard = Yard::new().await;
    let _engine = yard.engine(&[]).await;
    let curl = Curl::new(&yard);
    let local = kms_sync::service::local::Local::new(yard.store());
    let connections = local.connections().await.expect("connections");
    for (kind, text) in SAMPLES {
        let connection = connections.iter().find(|c| c.name == kind).expect("a connection");
        let sent = sample(&yard, kind, text, &connection.id);
        let asked: Value = serde_json::from_str(&sent).expect("JSON");
        // Only one of them is a place of this rig. The others' source is not there yet: their
        // runs end before they would ask a host by its name.
        let here = kind == "aws-secrets-manager";
        if here {
            yard.rig.kms.add_folder(&yard.rig.project, "dev", "/my-secrets");
            yard.rig.kms.set(&yard.rig.project, "dev", "/my-secrets", "KEY", "one");
        }
        let path = format!("/api/v1/secret-syncs/{kind}");
        let (status, answer) = curl.send("POST", &path, &sent, "application/json").await;
        assert_eq!(status, 200, "{kind}: {answer:#}");
        let sync = &answer["secretSync"];
        let missing: Vec<&&str> = MEMBERS.iter().filter(|m| sync.get(**m).is_none()).collect();
        assert!(missing.is_empty(), "{kind}: without {missing:?}: {sync:#}");
        for member in ["name", "projectId", "description", "connectionId", "isEnabled"] {
            assert_eq!(sync[member], asked[member], "{kind}: {member}: {sync:#}");
        }
        for (name, value) in asked["syncOptions"].as_object().expect("options") {
            assert_eq!(&sync["syncOptions"][name], value, "{kind}: {sync:#}");
        }
        for (name, value) in asked["destinationConfig"].as_object().expect("a destination") {
            assert_eq!(&sync["destinationConfig"][name], value, "{kind}: {sync:#}");
        }
        assert_eq!((&sync["destination"], &sync["version"]), (&json!(kind), &json!(1)), "{sync:#}");
        assert_eq!((&sync["environment"]["slug"], &sync["folder"]["path"]), (&asked["environment"], &asked["secretPath"]), "{sync:#}");
        assert_eq!((&sync["connection"]["name"], &sync["connection"]["id"]), (&json!(kind), &json!(connection.id)), "{sync:#}");
        let id = sync["id"].as_str().expect("an id");
        let done = curl.settled(&format!("{path}/{id}")).await;
        let expected = if here { "succeeded" } else { "failed" };
        assert_eq!(done["secretSync"]["syncStatus"], expected, "{kind}: {done:#}");
        if !here {
            assert!(done["secretSync"]["lastSyncMessage"].as_str().is_some_and(|m| m.contains("/my-secrets")), "{done:#}");
            let (status, _) = curl.send("PATCH", &format!("{path}/{id}"), "{\"isEnabled\":false}", "application/json").await;
            assert_eq!(status, 200);
        }
    }
    let aws = yard.places.iter().find(|p| p.kind() == "aws-secrets-manager").expect("a place");
    assert!(aws.host().log.lines().iter().any(|l| aws.is_write(l)), "the sample that can be carried out was");
}
