//! A third-party client (PyPI `atlassian-python-api`) against the stand-in, before and after us.

use serde_json::{Value, json};

use super::rig::{EMAIL, REPO, Rig};
use crate::support::python;

fn client(rig: &Rig, step: &str, more: &Value) -> Option<Value> {
    let token = rig.connection.credentials["apiToken"].expose().to_string();
    let ask = json!({"url": rig.host.url, "email": EMAIL, "token": token, "workspace": "acme", "repository": "api", "more": more});
    let out = python::script("bitbucket_client.py", &[step, &ask.to_string()])?;
    Some(serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}")))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_client_made_we_sync_over_and_what_we_made_it_sees() {
    let mut rig = Rig::new().await;
    let environment = rig.state.environment("acme", "api", "Production").expect("uuid");
    let seeded = tokio::task::block_in_place(|| client(&rig, "seed", &json!({"count": 23})));
    let Some(seeded) = seeded else { return };
    assert_eq!(rig.variables(REPO).len(), 23);
    assert_eq!(rig.variables(REPO.environment(&environment)).len(), 12);
    assert_eq!(seeded["repository"].as_array().map(Vec::len), Some(23), "listed by the client over three pages");

    // Over its variables: 20 stay (rewritten once, their values are unknown), 3 go, 2 come.
    let mut pairs: Vec<(String, String)> = (0..20).map(|i| (format!("CLIENT_{i:02}"), format!("ours {i}"))).collect();
    pairs.extend([("NEW_A".to_string(), "a".to_string()), ("NEW_B".to_string(), "b".to_string())]);
    let done = rig.sync(&super::rig::refs(&pairs)).await;
    assert_eq!((done.updated.len(), done.created.len(), done.deleted.len()), (20, 2, 3), "{:?}", done.failed);
    assert_eq!(rig.sync(&super::rig::refs(&pairs)).await.writes(), 0);

    let listed = tokio::task::block_in_place(|| client(&rig, "list", &json!({}))).expect("the client is here");
    let keys = |v: &Value| -> Vec<(String, String, bool)> {
        let text = |r: &Value, n: &str| r[n].as_str().unwrap_or_default().to_string();
        let mut out: Vec<_> = v.as_array().into_iter().flatten().map(|r| (text(r, "key"), text(r, "uuid"), r["secured"] == true)).collect();
        out.sort();
        out
    };
    let ours: Vec<_> = rig.variables(REPO).into_iter().map(|v| (v.key, v.uuid, v.secured)).collect();
    assert_eq!(keys(&listed["repository"]), ours);
    assert!(ours.iter().all(|(_, _, secured)| *secured));
    for (key, uuid, _) in keys(&seeded["repository"]).iter().filter(|(key, _, _)| key.as_str() < "CLIENT_20") {
        assert!(ours.iter().any(|(k, u, _)| k == key && u == uuid), "{key} keeps its uuid");
    }

    // A partial PUT by the client keeps key and secured; we cannot see the value it set.
    tokio::task::block_in_place(|| client(&rig, "edit", &json!({"key": "NEW_A", "value": "edited"}))).expect("edits");
    assert_eq!(rig.state.value(REPO, "NEW_A").as_deref(), Some("edited"));
    assert!(rig.variables(REPO).iter().any(|v| v.key == "NEW_A" && v.secured));
    // It deletes one: that is seen, and mended.
    tokio::task::block_in_place(|| client(&rig, "delete", &json!({"key": "NEW_B"}))).expect("deletes");
    let mended = rig.sync(&super::rig::refs(&pairs)).await;
    assert_eq!((mended.created.as_slice(), mended.updated.len()), (&["NEW_B".to_string()][..], 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn deployment_variables_with_and_without_next() {
    for next in [kms_sync::sandbox::bitbucket::Next::Honest, kms_sync::sandbox::bitbucket::Next::Absent] {
        let mut rig = Rig::new().await;
        rig.state.quirks(|q| q.next = next);
        let uuid = rig.environment("Production");
        let pairs = super::rig::many(23);
        rig.sync(&super::rig::refs(&pairs)).await;
        let Some(listed) = tokio::task::block_in_place(|| client(&rig, "list", &json!({}))) else { return };
        assert_eq!(listed["environments"]["Production"].as_array().map(Vec::len), Some(23));
        assert_eq!(listed["environments"]["Test"].as_array().map(Vec::len), Some(0));
        tokio::task::block_in_place(|| client(&rig, "edit-deployment", &json!({"key": "KEY_0003", "value": "theirs"}))).expect("edits");
        assert_eq!(rig.state.value(REPO.environment(&uuid), "KEY_0003").as_deref(), Some("theirs"));
        assert!(rig.variables(REPO.environment(&uuid)).iter().all(|v| v.secured));
    }
}
