//! Microsoft's clients (PyPI `azure-devops`, npm `azure-devops-node-api`) against the embedded
//! service, before and after the provider wrote there.

use kms_sync::sandbox::azure_devops::{Server, Variable};

use super::rig::{Rig, TOKEN, rig};
use crate::support::node;
use crate::support::python::script;

/// A sync over the group that the client has made.
async fn writes_into_their_group(rig: &Rig) {
    let mut own = rig.sync("b");
    own.environment = Some("Made by the SDK".into());
    own.run(&[("OURS", "1")]).await;
    let id = rig.state.find(&rig.project, "Made by the SDK").expect("the group");
    assert_eq!(rig.state.variables(id)["FIRST"], Variable::secret("1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_vendors_client_reads_and_changes_what_we_wrote() {
    for server in [Server::Services, Server::Server2022, Server::Server2020, Server::Server2019] {
        let rig = rig().await;
        rig.state.server(server);
        let mut sync = rig.sync("a");
        sync.run(&[("DB_PASSWORD", "one"), ("API_KEY", "line\ntwo")]).await;
        let base = format!("{}/contoso", rig.host.url);
        let cache = tempfile::tempdir().expect("a directory");
        let cache = cache.path().display().to_string();
        let step = |name: &str| {
            let (base, project, cache, name) = (base.clone(), rig.project.clone(), cache.clone(), name.to_string());
            async move {
                tokio::task::spawn_blocking(move || script("azure_devops.py", &[&name, &base, TOKEN, &project, &cache]).is_some())
                    .await
                    .expect("a thread")
            }
        };
        // Lists, reads, and carries our secrets through an update of its own.
        if !step("over-ours").await {
            return;
        }
        let stored = rig.state.variables(rig.group());
        assert_eq!(stored["DB_PASSWORD"], Variable::secret("one"), "{server:?}");
        assert_eq!(stored["THEIRS"], Variable::plain("from the sdk"));
        assert_eq!(stored["THEIR_SECRET"], Variable::secret("hidden"));
        let ran = sync.run(&[("DB_PASSWORD", "two"), ("API_KEY", "line\ntwo")]).await;
        assert_eq!(ran.updated, ["DB_PASSWORD"]);
        let stored = rig.state.variables(rig.group());
        assert_eq!(stored["THEIR_SECRET"], Variable::secret("hidden"));
        // A group the client makes is written over, page by page found, and deleted.
        assert!(step("own-group").await);
        writes_into_their_group(&rig).await;
        assert!(step("errors").await);
        assert!(step("delete").await);
        assert!(rig.state.find(&rig.project, "Made by the SDK").is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_vendors_javascript_client_too() {
    for server in [Server::Services, Server::Server2022] {
        let rig = rig().await;
        rig.state.server(server);
        let mut sync = rig.sync("a");
        sync.run(&[("DB_PASSWORD", "one"), ("API_KEY", "line\ntwo")]).await;
        let step = |name: &str| {
            let (base, project, name) = (format!("{}/contoso", rig.host.url), rig.project.clone(), name.to_string());
            async move {
                let run = move || node::run("devops-ts", "drive.js", &[&name, &base, TOKEN, &project]).is_some();
                tokio::task::spawn_blocking(run).await.expect("a thread")
            }
        };
        if !step("over-ours").await {
            return;
        }
        let stored = rig.state.variables(rig.group());
        assert_eq!(stored["DB_PASSWORD"], Variable::secret("one"), "a null keeps the value: {server:?}");
        assert_eq!((&stored["THEIRS"], &stored["THEIR_SECRET"]), (&Variable::plain("from the sdk"), &Variable::secret("hidden")));
        assert_eq!(sync.run(&[("DB_PASSWORD", "two"), ("API_KEY", "line\ntwo")]).await.updated, ["DB_PASSWORD"]);
        assert_eq!(rig.state.variables(rig.group())["THEIR_SECRET"], Variable::secret("hidden"));
        assert!(step("own-group").await);
        writes_into_their_group(&rig).await;
        assert!(step("errors").await);
        assert!(step("delete").await);
    }
}

#[tokio::test]
async fn the_command_lines_older_writes_work_on_the_cloud_service_too() {
    let rig = rig().await;
    // A second install fails because the first one stands: both are ring.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::new();
    let url = |tail: &str| format!("{}/contoso/{}/_apis/distributedtask/variablegroups{tail}", rig.host.url, rig.project);
    let body = serde_json::json!({"name": "cli", "type": "Vsts", "variables": {"A": {"value": "1"}}});
    let send = |request: reqwest::RequestBuilder| async {
        let answer =
            request.basic_auth("", Some(TOKEN)).header("accept", "application/json;api-version=5.0-preview.1").send().await.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("text"))
    };
    let (status, text) = send(client.post(url("")).json(&body)).await;
    assert_eq!(status, 200, "{text}");
    assert!(!text.contains("variableGroupProjectReferences"), "not before 5.2: {text}");
    let id = rig.state.find(&rig.project, "cli").expect("the group");
    assert_eq!(send(client.put(url(&format!("/{id}"))).json(&body)).await.0, 200);
    assert_eq!(send(client.delete(url(&format!("/{id}")))).await.0, 204);
}
