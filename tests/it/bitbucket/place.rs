//! Environments by uuid, name and slug; places that are gone, made anew or renamed; Pipelines off.

use std::time::Duration;

use kms_sync::destination::{Missing, registry};
use kms_sync::http::ErrorKind;
use kms_sync::sandbox::bitbucket::{Pipelines, Role};
use kms_sync::sandbox::host::{Effect, Fault};
use serde_json::json;

use super::rig::{EMAIL, REPO, Rig, many, refs};

fn in_environment(id: &str) -> serde_json::Value {
    json!({"workspaceSlug": "acme", "repositorySlug": "api", "environmentId": id})
}

#[tokio::test]
async fn environments_by_uuid_name_slug_and_any_case() {
    let mut rig = Rig::new().await;
    let uuid = rig.state.add_environment("acme", "api", "EU West", "Production");
    let bare = uuid.trim_matches(['{', '}']).to_string();
    let mut identities = Vec::new();
    for (id, extra) in [(uuid.as_str(), 0), (bare.as_str(), 0), ("eu west", 1), ("EU WEST", 0), ("eu-west", 1), (&format!("%7B{bare}%7D"), 0)] {
        rig.target(in_environment(id));
        rig.host.log.clear();
        let cx = rig.cx();
        identities.push(rig.open(&cx).await.expect("opens").identity());
        assert_eq!(rig.host.log.count("/environments?"), extra, "{id}: a name is resolved once and then remembered");
    }
    identities.dedup();
    assert_eq!(identities.len(), 1, "{identities:?}");
    rig.target(in_environment("eu west"));
    rig.reconnect();
    rig.host.log.clear();
    let done = rig.sync(&[("A", "1")]).await;
    assert_eq!(done.requests, 2, "known over restarts: {:?}", rig.host.log.lines());
    assert_eq!(rig.state.value(REPO.environment(&uuid), "A").as_deref(), Some("1"));
}

#[tokio::test]
async fn a_name_that_two_share_or_nobody_has() {
    let mut rig = Rig::new().await;
    rig.state.add_environment("acme", "api", "staging", "Staging");
    rig.target(in_environment("Staging"));
    let error = rig.refused(&[("A", "1")]).await;
    assert_eq!(error.kind, ErrorKind::Conflict, "{error}");
    rig.target(in_environment("qa"));
    let error = rig.refused(&[("A", "1")]).await;
    assert_eq!(error.kind, ErrorKind::NotFound);
    assert!(error.text().contains("Test, Staging, Production"), "{error}");
    assert_eq!(rig.sent("POST") + rig.sent("PUT"), 0);
}

#[tokio::test]
async fn an_environment_without_slug_is_found_by_name() {
    let mut rig = Rig::new().await;
    rig.state.quirks(|q| q.no_environment_slug = true);
    rig.target(in_environment("production"));
    assert_eq!(rig.sync(&[("A", "1")]).await.created, ["A"]);
}

#[tokio::test]
async fn an_environment_that_is_gone_is_named_and_nothing_is_made() {
    let mut rig = Rig::new().await;
    let uuid = rig.environment("Production");
    rig.sync(&[("A", "1")]).await;
    rig.state.remove_environment("acme", "api", &uuid);
    rig.host.log.clear();
    let error = rig.refused(&[("A", "2")]).await;
    assert_eq!(error.kind, ErrorKind::NotFound);
    assert!(error.text().contains("gone") && error.text().contains("Choose another environment"), "{error}");
    assert_eq!(rig.sent("GET"), rig.host.log.lines().len(), "only looked");
    assert_eq!(rig.host.log.lines().len(), 3, "the list, the repository, the environment: {:?}", rig.host.log.lines());
}

#[tokio::test]
async fn an_environment_goes_away_during_the_run() {
    let mut rig = Rig::new().await;
    let uuid = rig.environment("Production");
    let cx = rig.cx();
    let (destination, inventory, plan) = rig.plan(&cx, &refs(&many(12)), true).await.expect("plan");
    rig.state.remove_environment("acme", "api", &uuid);
    rig.host.log.clear();
    let kms_sync::destination::Shape::Itemised(target) = destination.shape() else { panic!() };
    for change in plan.allowed() {
        let op = kms_sync::destination::Op {
            action: change.action,
            key: &change.key,
            entry: change.entry.map(|i| &inventory.entries[i]),
            row: None,
            desired: change.desired.map(|i| &plan.desired[i]),
            value_differs: true,
            token: "t",
            approved: true,
        };
        let error = target.apply(&cx, &op).await.expect_err("gone");
        assert!(error.text().contains("gone"), "{error}");
    }
    assert_eq!(rig.sent("POST"), 1, "the first one tells, the others are not sent: {:?}", rig.host.log.lines());
}

#[tokio::test]
async fn an_environment_made_anew_under_its_name_asks_again() {
    let mut rig = Rig::new().await;
    rig.target(in_environment("production"));
    rig.sync(&[("A", "1")]).await;
    let cx = rig.cx();
    let before = rig.open(&cx).await.expect("opens").identity();
    let uuid = rig.state.environment("acme", "api", "Production").expect("uuid");
    rig.state.remove_environment("acme", "api", &uuid);
    rig.state.add_environment("acme", "api", "Production", "Production");
    let error = rig.refused(&[("A", "1")]).await;
    assert!(error.text().contains("run the sync again"), "{error}");
    let after = rig.open(&cx).await.expect("opens").identity();
    assert_ne!(before, after, "another ledger: a first run's questions");
}

#[tokio::test]
async fn pipelines_off_is_explained_and_asked_once() {
    for (pipelines, says) in [(Pipelines::Never, "switched off"), (Pipelines::Off, "switched off")] {
        let mut rig = Rig::new().await;
        rig.state.set_pipelines("acme", "api", pipelines);
        let error = rig.refused(&[("A", "1")]).await;
        assert!(error.text().contains(says) && error.text().contains("acme/api"), "{error}");
        assert_eq!(rig.host.log.lines().iter().filter(|l| l.ends_with("/pipelines_config")).count(), 1);
        assert_eq!(rig.sent("GET"), rig.host.log.lines().len(), "Pipelines is never switched on by us");
    }
}

#[tokio::test]
async fn pipelines_on_behind_a_refused_list_points_at_the_role() {
    let mut rig = Rig::new().await;
    rig.host.faults.add(Fault::always(
        "/pipelines_config/variables",
        1.0,
        Effect::status(404, r#"{"type":"error","error":{"message":"Not found"}}"#),
    ));
    let error = rig.refused(&[("A", "1")]).await;
    assert!(error.text().contains("Pipelines is on") && error.text().contains("administrator of acme/api"), "{error}");
    assert_eq!(rig.host.log.lines().iter().filter(|l| l.ends_with("/pipelines_config")).count(), 1);
    // The list works and a creation does not: asked once, the others are not sent.
    let mut rig = Rig::new().await;
    rig.host.faults.add(Fault::always("POST", 1.0, Effect::status(404, r#"{"type":"error","error":{"message":"Not found"}}"#)));
    let done = rig.sync(&refs(&many(9))).await;
    assert_eq!((done.failed.len(), rig.sent("POST")), (9, 1));
    assert!(done.error("KEY_0000").text().contains("can be listed, but not written"), "{}", done.error("KEY_0000"));
}

#[tokio::test]
async fn a_good_run_never_asks_about_pipelines_or_the_repository() {
    let mut rig = Rig::new().await;
    rig.sync(&[("A", "1")]).await;
    rig.sync(&[("A", "2")]).await;
    let lines = rig.host.log.lines();
    assert!(lines.iter().all(|l| l.contains("/pipelines_config/variables")), "{lines:?}");
}

#[tokio::test]
async fn a_repository_made_anew_asks_like_a_first_run() {
    let mut rig = Rig::new().await;
    rig.sync(&[("A", "1"), ("B", "2")]).await;
    rig.state.remove_repository("acme", "api");
    rig.state.add_repository("acme", "api");
    rig.state.put(REPO, "A", "theirs", true);
    let cx = rig.cx();
    let (_, _, plan) = rig.plan(&cx, &[("A", "1"), ("B", "2")], false).await.expect("plan");
    let asks: Vec<_> = plan.asks().map(|c| c.key.as_str()).collect();
    assert_eq!(asks, ["A"], "what is not ours is asked about");
    assert!(plan.warnings.iter().any(|w| w.contains("made anew")), "{:?}", plan.warnings);
    assert_eq!(rig.state.value(REPO, "A").as_deref(), Some("theirs"));
}

#[tokio::test]
async fn a_renamed_repository_goes_on_by_its_uuid() {
    for redirects in [false, true] {
        let mut rig = Rig::new().await;
        rig.state.quirks(|q| q.redirects_renamed = redirects);
        // The picker, or a test, has seen the repository's uuid.
        let cx = rig.cx();
        rig.session.test(&cx, Some(&rig.config.destination_config)).await.expect("test");
        rig.sync(&[("A", "1")]).await;
        rig.state.rename_repository("acme", "api", "platform-api");
        let done = rig.sync(&[("A", "2")]).await;
        assert_eq!(done.updated, ["A"]);
        assert!(done.warnings.iter().any(|w| w.contains("renamed")), "{:?}", done.warnings);
        let at = kms_sync::sandbox::bitbucket::At::repository("acme", "platform-api");
        assert_eq!(rig.state.value(at, "A").as_deref(), Some("2"));
    }
}

#[tokio::test]
async fn a_fresh_deployment_variable_may_be_missing_from_lists() {
    let mut rig = Rig::new().await;
    let uuid = rig.environment("Production");
    let mut tempo = super::rig::quick();
    tempo.grace = Duration::from_secs(30);
    rig.pace(tempo);
    rig.state.quirks(|q| q.lag = Duration::from_secs(3600));
    rig.sync(&[("A", "1")]).await;
    let again = rig.sync(&[("A", "1")]).await;
    assert_eq!(again.writes(), 0, "believed, not made again");
    let changed = rig.sync(&[("A", "2")]).await;
    assert_eq!(changed.updated, ["A"], "by the uuid the ledger knows");
    assert_eq!(rig.state.value(REPO.environment(&uuid), "A").as_deref(), Some("2"));
    // Deleted, and still listed for a while: not taken for somebody else's.
    rig.state.quirks(|q| q.lag = Duration::ZERO);
    rig.state.quirks(|q| q.lag = Duration::from_secs(3600));
    let cx = rig.cx();
    let destination = rig.open(&cx).await.expect("opens");
    let mut old = rig.ledger.rows["A"].clone();
    assert_eq!(destination.missing(&old), Missing::Lagging);
    old.written_at = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(31);
    assert_eq!(destination.missing(&old), Missing::Gone);
}

#[tokio::test]
async fn a_deleted_deployment_variable_may_still_be_listed() {
    let mut rig = Rig::new().await;
    rig.environment("Production");
    let mut tempo = super::rig::quick();
    tempo.grace = Duration::from_secs(30);
    rig.pace(tempo);
    rig.sync(&[("A", "1"), ("B", "2")]).await;
    rig.state.quirks(|q| q.lag = Duration::from_millis(400));
    tokio::time::sleep(Duration::from_millis(450)).await;
    let done = rig.sync(&[("A", "1")]).await;
    assert_eq!(done.deleted, ["B"]);
    let cx = rig.cx();
    let (_, inventory, plan) = rig.plan(&cx, &[("A", "1")], false).await.expect("plan");
    assert_eq!((inventory.entries.len(), plan.changes.len()), (1, 0), "the dead one is not asked about");
}

#[tokio::test]
async fn no_access_no_role_and_a_token_for_another_workspace() {
    let mut rig = Rig::new().await;
    rig.state.set_role(EMAIL, "acme", "api", Role::None);
    let error = rig.refused(&[("A", "1")]).await;
    assert_eq!(error.kind, ErrorKind::NotFound);
    assert!(error.text().contains("no access"), "{error}");
    rig.state.set_role(EMAIL, "acme", "api", Role::Write);
    let error = rig.refused(&[("A", "1")]).await;
    assert_eq!(error.kind, ErrorKind::Permission);
    assert!(error.text().contains("administrator of acme/api") && error.text().contains("allowlist"), "{error}");
    rig.state.set_role(EMAIL, "acme", "api", Role::Admin);
    rig.state.add_workspace("other", None);
    rig.state.narrow(EMAIL, "other");
    let error = rig.refused(&[("A", "1")]).await;
    assert!(error.text().contains("another workspace"), "{error}");
    assert_eq!(rig.sent("POST"), 0);
}

#[test]
fn configurations_are_checked_and_labelled() {
    let provider = registry::find("bitbucket").expect("registered");
    let good = super::rig::config(&json!({"workspaceSlug": "my-bitbucket-workspace", "repositorySlug": "my-bitbucket-repository"}));
    assert_eq!(provider.label(&good.destination_config), "Bitbucket my-bitbucket-workspace/my-bitbucket-repository");
    let named = super::rig::config(&in_environment("Production"));
    assert_eq!(provider.label(&named.destination_config), "Bitbucket acme/api/Production");
    assert!(!provider.overlaps(&good.destination_config, &named.destination_config));
    let same =
        super::rig::config(&json!({"workspaceSlug": "ACME", "repositorySlug": "https://bitbucket.org/acme/api/", "environmentId": "PRODUCTION"}));
    assert!(provider.overlaps(&same.destination_config, &named.destination_config));
    let empty = super::rig::config(&json!({"workspaceSlug": "acme", "repositorySlug": "api", "environmentId": ""}));
    let absent = super::rig::config(&json!({"workspaceSlug": "acme", "repositorySlug": "api"}));
    assert!(provider.overlaps(&empty.destination_config, &absent.destination_config));
    let mut problems = kms_sync::model::Problems::default();
    let bad = json!({"workspaceSlug": "a b", "environmentId": 7});
    provider.check(bad.as_object().expect("object"), &Default::default(), &mut problems);
    for field in ["destinationConfig.workspaceSlug", "destinationConfig.repositorySlug", "destinationConfig.environmentId"] {
        assert!(problems.of(field).is_some(), "{field}: {problems}");
    }
    // Which of the two workspaces is meant, nobody knows.
    let mut problems = kms_sync::model::Problems::default();
    let two = json!({"workspaceSlug": "acme", "repositorySlug": "https://bitbucket.org/other/api"});
    provider.check(two.as_object().expect("object"), &Default::default(), &mut problems);
    assert!(problems.to_string().contains("workspace other"), "{problems}");
}

#[tokio::test]
async fn a_deployment_variable_that_hides_the_repositorys_is_warned_of_without_a_call() {
    let mut rig = Rig::new().await;
    let warned = |warnings: &[String]| warnings.iter().find(|w| w.contains("do not see")).cloned();
    let uuid = rig.state.environment("acme", "api", "Production").expect("uuid");
    rig.state.put(REPO.environment(&uuid), "DB_URL", "theirs", true);
    let source = [("DB_URL", "1"), ("API_KEY", "2"), ("db_url", "3")];
    // Nothing is known of the environment, and nothing is asked.
    rig.sync(&[("OTHER", "1")]).await;
    let (_, _, plan) = rig.plan(&rig.cx(), &source, true).await.expect("plan");
    assert_eq!(warned(&plan.warnings), None);
    // A sync to the environment reads it, adds a key and takes one away; its own plan is not warned.
    let repository = rig.config.clone();
    rig.environment("Production");
    rig.ledger = Default::default();
    let done = rig.sync(&[("DB_URL", "mine"), ("API_KEY", "mine"), ("GONE", "x")]).await;
    assert_eq!(warned(&done.warnings), None);
    rig.sync(&[("DB_URL", "mine"), ("API_KEY", "mine")]).await;
    rig.config = repository;
    rig.ledger = Default::default();
    // Known over a restart.
    rig.reconnect();
    rig.host.log.clear();
    let (_, _, plan) = rig.plan(&rig.cx(), &source, true).await.expect("plan");
    let warning = warned(&plan.warnings).expect("a warning");
    assert!(warning.starts_with(&format!("Deployments to {uuid} do not see API_KEY, DB_URL: the environment has variables")), "{warning}");
    assert_eq!(rig.host.log.lines().len(), 1, "no call is spent on it: {:?}", rig.host.log.lines());
    // The picker tells the name, and what is gone is forgotten.
    let filled = rig.config.destination_config.clone();
    rig.session.choices(&rig.cx(), "environmentId", &filled).await.expect("environments");
    let (_, _, plan) = rig.plan(&rig.cx(), &[("DB_URL", "1"), ("GONE", "1")], true).await.expect("plan");
    let warning = warned(&plan.warnings).expect("a warning");
    assert!(
        warning.starts_with("Deployments to Production do not see DB_URL: the environment has a variable of the same name, which wins"),
        "{warning}"
    );
    rig.state.remove_environment("acme", "api", &uuid);
    rig.session.choices(&rig.cx(), "environmentId", &filled).await.expect("environments");
    let (_, _, plan) = rig.plan(&rig.cx(), &source, true).await.expect("plan");
    assert_eq!(warned(&plan.warnings), None);
    assert!(!rig.memory.text().contains("mine"), "names are kept, values never");
}
