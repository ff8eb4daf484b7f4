//! The program itself: `demo --headless` syncs to every destination, and then rests.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use kms_sync::destination::registry;
use serde_json::{Value, json};

use crate::support::KMS_SYNC;

#[test]
fn headless_succeeds_everywhere_and_then_writes_nothing() {
    let home = tempfile::tempdir().expect("a directory");
    let output = Command::new(KMS_SYNC)
        .args(["demo", "--headless", "--json"])
        .env("HOME", home.path())
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .stdin(Stdio::null())
        .output()
        .expect("the program starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let document: Value = serde_json::from_str(&text).expect("one JSON document");
    let mut rounds: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for run in document["runs"].as_array().expect("runs") {
        assert_eq!(run["status"], "succeeded", "{run:#}");
        let services = run["requests"]["byCall"].as_object().expect("counted requests");
        let kinds = registry::ALL.iter().filter(|p| services.contains_key(p.spec().service));
        for provider in kinds {
            rounds.entry(provider.spec().kind).or_default().push(run);
        }
    }
    let mut expected = registry::kinds();
    expected.sort_unstable();
    assert_eq!(rounds.keys().copied().collect::<Vec<_>>(), expected, "every destination took part");
    for (kind, runs) in rounds {
        let writes =
            |run: &Value| ["created", "updated", "restored", "deleted", "imported"].iter().filter_map(|c| run["counts"][c].as_u64()).sum::<u64>();
        let [first, second] = runs.as_slice() else { panic!("{kind} ran {} times", runs.len()) };
        assert!(writes(first) > 0, "{kind}: {first:#}");
        assert_eq!(writes(second), 0, "{kind}: {second:#}");
        let unchanged = second["counts"]["unchanged"].as_u64().expect("a count");
        assert!(unchanged >= 20, "{kind}: {second:#}");
        let service = registry::find(kind).expect("a destination").spec().service;
        assert_eq!(second["requests"]["byCall"][service], floor(kind, unchanged), "{kind}: these calls, and no others");
    }
    assert_eq!(std::fs::read_dir(home.path()).expect("the home").count(), 0, "it leaves nothing behind");
}

/// The calls that prove so many keys of the demo unchanged.
fn floor(kind: &str, unchanged: u64) -> Value {
    match kind {
        "aws-secrets-manager" => json!({"ListSecrets": 1}),
        // A page has 25; three secrets of others stand in the demo's vault.
        "azure-key-vault" => json!({"GET /secrets": (unchanged + 3).div_ceil(25)}),
        "azure-devops" => json!({"GET /{project}/_apis/distributedtask/variablegroups": 1}),
        "bitbucket" => json!({"GET /repositories/{workspace}/{repository}/deployments_config/environments/{environment}/variables": 1}),
        // A list tells no version: the values are read.
        "oci-vault" => json!({"GET /secrets": 1, "GET /secretbundles/{secretId}": unchanged}),
        other => panic!("no floor is named for {other}"),
    }
}
