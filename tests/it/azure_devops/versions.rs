//! API versions and the shapes of installations.

use kms_sync::destination::Provider as _;
use kms_sync::destination::azure_devops::AzureDevOps;
use kms_sync::http::{Cx, ErrorKind};
use kms_sync::sandbox::azure_devops::{Server, Variable};
use kms_sync::sandbox::host::{Effect, Fault};

use super::rig::{TOKEN, connection, methods, rig};

#[tokio::test]
async fn every_server_is_met_in_its_own_version() {
    for (server, first, then, sent) in [
        (Server::Services, "GET POST", "GET PUT", "api-version=7.1"),
        (Server::Server2022, "GET GET POST", "GET PUT", "api-version=7.0"),
        (Server::Server2020, "GET GET POST", "GET PUT", "api-version=6.0-preview.2"),
        (Server::Server2019, "GET OPTIONS GET POST", "GET PUT", "api-version=5.1-preview.1"),
    ] {
        let rig = rig().await;
        rig.state.server(server);
        rig.state.group(&rig.project, "Other", &[("X", Variable::plain("x"))]);
        let mut sync = rig.sync("a");
        sync.run(&[("A", "1")]).await;
        assert_eq!(methods(&rig.requests()), first, "{server:?}");
        rig.state.set(rig.group(), "THEIRS", Variable::secret("x"));
        sync.run(&[("A", "2")]).await;
        let lines = rig.requests();
        assert_eq!(methods(&lines), then, "the version is settled once per connection: {server:?}");
        assert!(lines.iter().all(|l| l.contains(sent)), "{lines:?}");
        let body = rig.state.last_body().expect("a body");
        let in_project = lines[1].starts_with(&format!("PUT /contoso/{}/_apis", rig.project));
        assert_eq!(in_project, server == Server::Server2019, "{lines:?}");
        assert_eq!(body.get("variableGroupProjectReferences").is_none(), server == Server::Server2019);
        assert_eq!(rig.state.variables(rig.group())["THEIRS"], Variable::secret("x"));
        sync.remove().await.expect("removed");
        rig.state.unset(rig.group(), "THEIRS");
        rig.state.delete(rig.group());
        sync.run(&[("A", "1")]).await;
        sync.remove().await.expect("removed");
        assert_eq!(rig.state.groups().len(), 1);
        let session = rig.session();
        session.test(&Cx::quiet(), None).await.expect("projects are found in every version");
    }
}

#[tokio::test]
async fn a_pinned_version_is_sent_and_its_refusal_explained() {
    let rig = rig().await;
    let session = |pin: &str| {
        let made = connection("access-token", &rig.host.url, &[("orgName", "contoso"), ("accessToken", TOKEN)], &[("apiVersion", pin)]);
        AzureDevOps.connect(made, rig.memory.clone())
    };
    let mut sync = rig.sync("a");
    sync.session = session("6.0-preview.2").expect("a session");
    sync.run(&[("A", "1")]).await;
    assert!(rig.requests().iter().all(|l| l.contains("api-version=6.0-preview.2")));
    sync.session = session("7.2").expect("a session");
    sync.run(&[("A", "1")]).await;
    assert!(rig.requests()[1].contains("api-version=7.2-preview.2"), "the preview the server names");
    rig.state.server(Server::Server2022);
    sync.session = session("7.1").expect("a session");
    let error = sync.try_run(&Cx::quiet(), &[("A", "2")]).await.expect_err("refused");
    assert_eq!(error.kind, ErrorKind::Invalid);
    assert!(error.text().contains("apiVersion") && error.text().contains("7.0"), "{error}");
    assert!(session("3.0").is_err());
}

#[tokio::test]
async fn an_answer_in_another_version_is_told() {
    let rig = rig().await;
    let headers = vec![("content-type".to_string(), "application/json; charset=utf-8; api-version=5.0".to_string())];
    rig.host.faults.add(Fault::next("GET", 1, Effect::Answer { status: 200, headers, body: "{\"count\":0,\"value\":[]}".into() }));
    let cx = Cx::quiet();
    let sync = rig.sync("a");
    let destination = sync.open(&cx).await;
    let inventory = sync.list(&cx, destination.as_ref()).await.expect("a list");
    assert!(inventory.warnings.iter().any(|w| w.contains("API version 5.0")), "{:?}", inventory.warnings);
}

#[tokio::test]
async fn a_classic_server_has_a_path_before_the_collection() {
    let rig = rig().await;
    rig.state.server(Server::Server2020);
    rig.state.prefix("tfs");
    let mut sync = rig.sync("a");
    let made = connection("access-token", &format!("{}/tfs/", rig.host.url), &[("orgName", "contoso"), ("accessToken", TOKEN)], &[]);
    sync.session = AzureDevOps.connect(made, rig.memory.clone()).expect("a session");
    sync.run(&[("A", "1")]).await;
    assert!(rig.requests().iter().all(|l| l.contains(" /tfs/contoso/")));
}

#[tokio::test]
async fn a_group_without_references_gets_one() {
    let rig = rig().await;
    let id = rig.state.group(&rig.project, "Production Environment", &[("X", Variable::plain("x"))]);
    let stamp = rig.state.facts(id).expect("facts").1;
    let bare = serde_json::json!({"count": 1, "value": [{"id": id, "type": "Vsts", "name": "Production Environment", "modifiedOn": stamp,
        "variables": {"X": {"value": "x"}}}]});
    let headers = vec![("content-type".to_string(), "application/json".to_string())];
    rig.host.faults.add(Fault::next("GET", 1, Effect::Answer { status: 200, headers, body: bare.to_string() }));
    rig.sync("a").run(&[("A", "1")]).await;
    let references = rig.state.last_body().expect("a body")["variableGroupProjectReferences"].clone();
    assert_eq!(references[0]["projectReference"]["id"], rig.project.as_str());
    assert_eq!(references[0]["name"], "Production Environment");
}
