//! Credentials of every kind, good and bad; pickers; endpoints that are something else.

use std::time::Duration;

use kms_sync::destination::bitbucket::Tempo;
use kms_sync::destination::registry;
use kms_sync::http::ErrorKind;
use kms_sync::model::connection::Connection;
use kms_sync::model::run::{Outcome, RunStatus};
use kms_sync::sandbox::bitbucket::{API_SCOPES, OAUTH_SCOPES};
use kms_sync::sandbox::host::{Effect, Fault};
use kms_sync::service::{Service as _, SyncInput};
use serde_json::{Value, json};

use super::rig::{EMAIL, REPO, Rig, quick};
use crate::conformance::bench::Bench;
use crate::conformance::places;

fn filled(workspace: &str) -> serde_json::Map<String, Value> {
    json!({"workspaceSlug": workspace, "repositorySlug": "api"}).as_object().cloned().expect("object")
}

#[tokio::test]
async fn an_api_token_is_proved_and_names_its_owner() {
    let rig = Rig::new().await;
    let report = rig.session.test(&rig.cx(), Some(&rig.config.destination_config)).await.expect("good");
    assert_eq!(report.identity, "Olive Operator");
    assert_eq!(report.notes[0], "The variables of acme/api can be listed.");
    assert_eq!(rig.sent("GET"), 3);
}

#[tokio::test]
async fn wrong_credentials_stop_at_once_with_fitting_advice() {
    let html = Effect::Answer { status: 401, headers: vec![("content-type".into(), "text/html".into())], body: "<h1>Unauthorized</h1>".into() };
    for (credentials, fault, says) in [
        (json!({"method": "api-token", "email": EMAIL, "apiToken": "wrong"}), None, "wrong, expired or revoked"),
        (json!({"method": "api-token", "email": EMAIL, "apiToken": "ATBBsomething"}), Some(html), "app passwords were switched off"),
        (json!({"method": "api-token", "email": "ops", "apiToken": "x"}), None, "user name is given"),
        (json!({"method": "access-token", "accessToken": "ATATT3xsomething"}), None, "choose method api-token"),
    ] {
        let mut rig = Rig::new().await;
        rig.credentials(credentials.clone());
        if let Some(effect) = fault {
            rig.host.faults.add(Fault::always("", 1.0, effect));
        }
        let error = rig.session.test(&rig.cx(), None).await.expect_err("refused");
        assert_eq!(error.kind, ErrorKind::Auth, "{credentials}");
        assert!(error.kind.whole_connection() && error.text().contains(says), "{error}");
        rig.host.log.clear();
        let error = rig.refused(&[("A", "1")]).await;
        assert_eq!(error.kind, ErrorKind::Auth);
        assert_eq!(rig.host.log.lines().len(), 1, "no retry");
    }
    let rig = Rig::new().await;
    rig.state.give_api_token(EMAIL, "scopeless", &[]);
    let mut rig = rig;
    rig.credentials(json!({"method": "api-token", "email": EMAIL, "apiToken": "scopeless"}));
    let error = rig.session.test(&rig.cx(), None).await.expect_err("refused");
    assert!(error.text().contains("without Bitbucket scopes"), "{error}");
}

fn refused() -> Effect {
    let body = json!({"type": "error", "error": {"message": "Token is invalid, expired, or not supported for this endpoint."}});
    Effect::Answer { status: 401, headers: vec![("content-type".into(), "application/json".into())], body: body.to_string() }
}

#[tokio::test]
async fn a_refused_credential_is_not_asked_with_again() {
    let mut rig = Rig::new().await;
    rig.pace(Tempo { forgive: Duration::from_millis(400), ..quick() });
    rig.host.faults.add(Fault::always("", 1.0, refused()));
    let first = rig.refused(&[("A", "1")]).await;
    assert!(first.kind == ErrorKind::Auth && first.text().contains("expired or revoked"), "{first}");
    rig.host.log.clear();
    // Another sync of the connection, with another target.
    rig.state.add_repository("acme", "web");
    rig.target(json!({"workspaceSlug": "acme", "repositorySlug": "web"}));
    let again = rig.refused(&[("A", "1")]).await;
    assert_eq!((again.kind, again.status), (ErrorKind::Auth, Some(401)));
    for word in ["was refused at ", "nothing more is asked with it", "expired or revoked", "run by hand"] {
        assert!(again.text().contains(word), "{word}: {again}");
    }
    assert_eq!(rig.host.log.lines(), Vec::<String>::new());
    // A question is always asked: that is how one finds out. And time forgives.
    rig.session.test(&rig.cx(), None).await.expect_err("still refused");
    assert_eq!(rig.host.log.lines().len(), 1);
    tokio::time::sleep(Duration::from_millis(450)).await;
    rig.host.log.clear();
    rig.refused(&[("A", "1")]).await;
    assert_eq!(rig.host.log.lines().len(), 1);
    // A success, of whomever, ends it.
    rig.host.faults.clear();
    rig.session.test(&rig.cx(), None).await.expect("good again");
    assert_eq!(rig.sync(&[("A", "1")]).await.created, ["A"]);
    // An OAuth consumer is refused where it asks for its token.
    let mut other = Rig::new().await;
    other.credentials(json!({"method": "oauth-client-credentials", "clientId": "none", "clientSecret": "wrong-secret"}));
    for (calls, word) in [(1, "key or secret is wrong"), (0, "was refused at ")] {
        other.host.log.clear();
        let error = other.refused(&[("A", "1")]).await;
        assert!(error.kind == ErrorKind::Auth && error.text().contains(word), "{error}");
        assert_eq!(other.host.log.lines().len(), calls, "{error}");
    }
    // What refuses a right or a way of signing in says nothing of the credential.
    let scope = json!({"type": "error", "error": {"message": "lacking", "detail": {"required": ["admin:pipeline:bitbucket"], "granted": []}}});
    let way = json!({"type": "error", "error": {"message": "This API is not accessible by this authentication mechanism"}});
    for body in [scope, way] {
        rig.host.faults.add(Fault::next("POST", 1, Effect::status(401, body.to_string())));
        let done = rig.sync(&[("A", "1"), ("B", "1")]).await;
        assert_eq!(done.error("B").kind, ErrorKind::Permission);
        assert!(rig.sync(&[("A", "1")]).await.failed.is_empty());
    }
}

/// The whole engine: many syncs of one connection whose token was revoked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_refusal_stops_all_syncs_of_the_connection() {
    let b = Bench::new(places::bitbucket::start().await).await;
    b.set("A", "1");
    for n in 0..12 {
        let mut document = b.document(&format!("sync-{n}"), "/app", &json!({}));
        document["destinationConfig"]["repositorySlug"] = format!("repository-{n}").into();
        b.local().create_sync(SyncInput { document, destination: None }).await.expect("a good sync");
    }
    let all = || async {
        b.mark();
        let mut runs = Vec::new();
        for n in 0..12 {
            runs.push(b.local().start(Bench::request(&format!("sync-{n}"))).await.expect("a run starts"));
        }
        let mut records = Vec::new();
        for id in runs {
            records.push(b.local().finished(&id).await.expect("a run ends"));
        }
        (records, b.place.host().log.lines())
    };
    b.place.host().faults.add(Fault::always("", 1.0, refused()));
    let (records, lines) = all().await;
    assert_eq!(lines.len(), 1, "{lines:?}");
    for record in &records {
        let message = record.message.as_deref().unwrap_or_default();
        assert!(record.status == RunStatus::Failed && message.contains("401") && message.contains("expired or revoked"), "{record:#?}");
    }
    // The operator asks again: it is asked once more, and no oftener.
    let (_, lines) = all().await;
    assert_eq!(lines.len(), 1, "{lines:?}");
    // Another token, at once. (The repositories are not there: that is another matter.)
    b.place.host().faults.clear();
    let mut connection = b.place.connection();
    connection["credentials"]["apiToken"] = "ATATT-another".into();
    b.local().save_connection(connection, true).await.expect("stored");
    let (records, lines) = all().await;
    assert!(!lines.is_empty(), "asked with the new one");
    assert!(records.iter().all(|r| r.status == RunStatus::Failed), "{records:#?}");
    b.local().save_connection(b.place.connection(), true).await.expect("stored");
    let (records, lines) = all().await;
    assert!(lines.len() >= 12 && records.iter().all(|r| r.message.as_deref().is_some_and(|m| m.contains("404"))), "{records:#?}");
}

/// The whole engine: keys behind a write that was refused for all of them have not failed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_were_never_sent_are_told_as_not_reached() {
    let b = Bench::new(places::bitbucket::start().await).await;
    for key in ["A_B", "GOOD", "LAST"] {
        b.set(key, "1");
    }
    b.create(json!({})).await;
    let forbidden = Effect::status(403, r#"{"type":"error","error":{"message":"Forbidden"}}"#);
    b.place.host().faults.add(Fault::always("POST", 1.0, forbidden));
    let record = b.sync().await;
    assert_eq!((record.status, record.counts.failed, record.counts.not_reached), (RunStatus::Failed, 1, 2), "{record:#?}");
    for secret in &record.secrets {
        let reason = secret.reason.as_deref().unwrap_or_default();
        match secret.outcome {
            Outcome::Failed => assert!(reason.contains(&format!("cannot create {}: Forbidden", secret.key)), "{reason}"),
            Outcome::NotReached => assert!(reason.contains("not sent, because another write"), "{reason}"),
            other => panic!("{other}: {reason}"),
        }
    }
    let message = record.message.unwrap_or_default();
    assert!(message.starts_with("1 key failed: ") && message.contains("must be administrator"), "{message}");
}

#[tokio::test]
async fn a_picker_that_fails_says_why_and_what_to_do() {
    let rig = Rig::new().await;
    let html = |status| Effect::Answer { status, headers: vec![("content-type".into(), "text/html".into())], body: "<h1>Sign in</h1>".into() };
    for (picker, path) in [("workspaceSlug", "/user/workspaces"), ("repositorySlug", "/2.0/repositories/acme?"), ("environmentId", "/environments")] {
        for (effect, kind) in [
            (html(200), ErrorKind::NotTheService),
            (html(203), ErrorKind::NotTheService),
            (html(302), ErrorKind::NotTheService),
            (Effect::status(200, ""), ErrorKind::NotTheService),
            (Effect::status(200, "{}"), ErrorKind::NotTheService),
            (Effect::status(200, r#"{"values":null}"#), ErrorKind::NotTheService),
            (Effect::status(403, r#"{"type":"error","error":{"message":"Forbidden"}}"#), ErrorKind::Permission),
            (refused(), ErrorKind::Auth),
        ] {
            rig.host.faults.add(Fault::always(path, 1.0, effect.clone()));
            let error = rig.session.choices(&rig.cx(), picker, &filled("acme")).await.expect_err("no list");
            assert_eq!(error.kind, kind, "{picker} {effect:?}: {error}");
            assert!(error.advice.as_ref().is_some_and(|a| a.len() > 20) && !error.text().contains('<'), "{picker} {effect:?}: {error}");
            rig.host.faults.clear();
        }
    }
}

#[tokio::test]
async fn a_missing_scope_is_named_whatever_the_status() {
    for as_400 in [false, true] {
        let mut rig = Rig::new().await;
        rig.state.quirks(|q| q.scope_errors_as_400 = as_400);
        let token = rig.state.add_api_token(EMAIL, &["read:user:bitbucket", "read:repository:bitbucket"]);
        rig.credentials(json!({"method": "api-token", "email": EMAIL, "apiToken": token}));
        let error = rig.refused(&[("A", "1")]).await;
        assert_eq!(error.kind, ErrorKind::Permission);
        assert!(error.text().contains("Missing: read:pipeline:bitbucket") && error.text().contains("create a new API token"), "{error}");
    }
}

#[tokio::test]
async fn a_token_that_may_not_read_its_owner_is_good_all_the_same() {
    let mut rig = Rig::new().await;
    let token = rig.state.add_api_token(EMAIL, &["read:pipeline:bitbucket", "admin:pipeline:bitbucket"]);
    rig.credentials(json!({"method": "api-token", "email": EMAIL, "apiToken": token}));
    let report = rig.session.test(&rig.cx(), Some(&rig.config.destination_config)).await.expect("good");
    assert!(report.notes.iter().any(|n| n.contains("read:user")), "{report:?}");
    assert_eq!(rig.sync(&[("A", "1")]).await.created, ["A"], "two scopes are enough for the work itself");
}

#[tokio::test]
async fn access_tokens_work_and_list_no_workspaces() {
    for as_401 in [false, true] {
        let mut rig = Rig::new().await;
        rig.state.quirks(|q| q.mechanism_as_401 = as_401);
        let token = rig.state.add_access_token("acme", Some("api"), OAUTH_SCOPES);
        rig.credentials(json!({"method": "access-token", "accessToken": token}));
        let report = rig.session.test(&rig.cx(), Some(&rig.config.destination_config)).await.expect("good");
        assert_eq!(report.identity, "access token");
        assert_eq!(report.notes[0], "The variables of acme/api can be listed.");
        let error = rig.session.choices(&rig.cx(), "workspaceSlug", &Default::default()).await.expect_err("not listable");
        assert_eq!(error.kind, ErrorKind::Permission);
        assert!(error.text().contains("Enter the workspace"), "{error}");
        assert_eq!(rig.sync(&[("A", "1")]).await.created, ["A"]);
    }
    let mut rig = Rig::new().await;
    let token = rig.state.add_access_token("acme", None, &["repository", "pipeline"]);
    rig.credentials(json!({"method": "access-token", "accessToken": token}));
    let report = rig.session.test(&rig.cx(), Some(&rig.config.destination_config)).await.expect("good");
    assert!(report.notes[0].contains("writes will be refused"), "{:?}", report.notes);
}

#[tokio::test]
async fn oauth_consumers_fetch_share_and_renew_their_token() {
    let mut rig = Rig::new().await;
    let (id, secret) = rig.state.add_consumer("acme", OAUTH_SCOPES, true);
    rig.credentials(json!({"method": "oauth-client-credentials", "clientId": id, "clientSecret": secret}));
    assert_eq!(rig.sync(&super::rig::refs(&super::rig::many(12))).await.created.len(), 12);
    assert_eq!(rig.host.log.count("/site/oauth2/access_token"), 1, "one token for all");
    rig.state.revoke_consumer_tokens();
    let done = rig.sync(&[("KEY_0000", "other")]).await;
    assert!(done.failed.is_empty(), "{:?}", done.failed);
    assert_eq!(rig.host.log.count("/site/oauth2/access_token"), 2, "renewed once");
    let (id, secret) = rig.state.add_consumer("acme", OAUTH_SCOPES, false);
    rig.credentials(json!({"method": "oauth-client-credentials", "clientId": id, "clientSecret": secret}));
    let error = rig.refused(&[]).await;
    assert!(error.kind == ErrorKind::Auth && error.text().contains("private consumer"), "{error}");
    rig.credentials(json!({"method": "oauth-client-credentials", "clientId": "none", "clientSecret": "wrong-secret"}));
    let error = rig.refused(&[]).await;
    assert!(error.text().contains("key or secret is wrong") && !error.text().contains("wrong-secret"), "{error}");
}

#[tokio::test]
async fn workspaces_new_old_wrapped_bare_and_nameless() {
    let rig = Rig::new().await;
    rig.state.add_workspace("nameless", None);
    for (old, bare, calls) in [(false, false, 1), (false, true, 1), (true, false, 2)] {
        rig.state.quirks(|q| (q.old_workspaces, q.bare_workspaces) = (old, bare));
        rig.host.log.clear();
        let choices = rig.session.choices(&rig.cx(), "workspaceSlug", &Default::default()).await.expect("workspaces");
        let seen: Vec<_> = choices.iter().map(|c| (c.value.as_str(), c.label.as_str())).collect();
        assert_eq!(seen, [("acme", "Acme"), ("nameless", "nameless")]);
        assert_eq!(rig.host.log.lines().len(), calls);
    }
    // Two may have the same name: the slug tells them apart, also for their administrator.
    rig.state.quirks(|q| (q.old_workspaces, q.bare_workspaces) = (false, false));
    rig.state.add_workspace("acme-test", Some("Acme"));
    let choices = rig.session.choices(&rig.cx(), "workspaceSlug", &Default::default()).await.expect("workspaces");
    let seen: Vec<_> = choices.iter().map(|c| (c.label.as_str(), c.detail.as_deref())).collect();
    assert_eq!(seen, [("Acme", Some("acme")), ("Acme", Some("acme-test")), ("nameless", None)]);
    // Neither of the two lists is there any more.
    rig.state.quirks(|q| (q.old_workspaces, q.bare_workspaces) = (false, false));
    rig.host.faults.add(Fault::always("/user/workspaces", 1.0, Effect::status(404, "{}")));
    let error = rig.session.choices(&rig.cx(), "workspaceSlug", &Default::default()).await.expect_err("removed");
    assert_eq!(error.status, Some(410));
    assert!(error.text().contains("Enter the workspace"), "{error}");
}

#[tokio::test]
async fn a_picker_that_may_not_list_names_the_scope_and_the_way_round() {
    let mut rig = Rig::new().await;
    let token = rig.state.add_api_token(EMAIL, &["admin:pipeline:bitbucket"]);
    rig.credentials(json!({"method": "api-token", "email": EMAIL, "apiToken": token}));
    for (picker, says) in [
        ("workspaceSlug", "Missing: read:workspace:bitbucket. Enter the workspace by hand"),
        ("repositorySlug", "Missing: read:repository:bitbucket"),
        ("environmentId", "Missing: read:pipeline:bitbucket"),
    ] {
        let error = rig.session.choices(&rig.cx(), picker, &filled("acme")).await.expect_err("not listable");
        assert!(error.kind == ErrorKind::Permission && error.text().contains(says), "{picker}: {error}");
    }
}

#[tokio::test]
async fn pickers_page_and_prefer_what_can_be_written() {
    let rig = Rig::new().await;
    for n in 0..250 {
        rig.state.add_repository("acme", &format!("service-{n:03}"));
    }
    rig.state.set_role(EMAIL, "acme", "api", kms_sync::sandbox::bitbucket::Role::Write);
    let choices = rig.session.choices(&rig.cx(), "repositorySlug", &filled("acme")).await.expect("repositories");
    assert_eq!(choices.len(), 250);
    assert!(!choices.iter().any(|c| c.value == "api"), "it cannot be written with this account");
    assert_eq!(rig.host.log.count("role=admin"), 3);
    let environments = rig.session.choices(&rig.cx(), "environmentId", &filled("acme")).await.expect("environments");
    let seen: Vec<_> = environments.iter().map(|c| (c.label.as_str(), c.detail.as_deref())).collect();
    assert_eq!(seen, [("Test", Some("type Test")), ("Staging", Some("type Staging")), ("Production", Some("type Production"))]);
    assert!(environments[0].value.starts_with('{'));
    let error = rig.session.choices(&rig.cx(), "repositorySlug", &filled("nowhere")).await.expect_err("hidden");
    assert_eq!(error.kind, ErrorKind::NotFound);
    rig.state.add_workspace("empty", None);
    assert!(rig.session.choices(&rig.cx(), "repositorySlug", &filled("empty")).await.expect("truthful").is_empty());
}

#[tokio::test]
async fn five_hundred_of_everything_can_be_picked_from() {
    let rig = Rig::new().await;
    let names: Vec<String> = (0..500).map(|n| format!("n-{n:03}")).collect();
    for name in &names {
        rig.state.add_workspace(name, None);
        rig.state.add_repository("acme", name);
        rig.state.add_environment("acme", "api", name, "Test");
    }
    // Beside these: the workspace, the repository, and the three environments that all begin with.
    for (picker, others, pages) in [("workspaceSlug", 1, 6), ("repositorySlug", 1, 6), ("environmentId", 3, 6)] {
        rig.host.log.clear();
        let choices = rig.session.choices(&rig.cx(), picker, &filled("acme")).await.expect(picker);
        let mut seen: Vec<&str> = choices.iter().map(|c| c.label.as_str()).filter(|l| l.starts_with("n-")).collect();
        seen.sort_unstable();
        assert_eq!((seen, choices.len()), (names.iter().map(String::as_str).collect(), 500 + others), "{picker}: each of them once");
        assert_eq!(rig.host.log.lines().len(), pages, "{picker}: {:?}", rig.host.log.lines());
    }
}

#[tokio::test]
async fn where_there_is_nothing_to_pick_the_list_is_empty() {
    let rig = Rig::new().await;
    for environment in rig.session.choices(&rig.cx(), "environmentId", &filled("acme")).await.expect("environments") {
        rig.state.remove_environment("acme", "api", &environment.value);
    }
    assert_eq!(rig.session.choices(&rig.cx(), "environmentId", &filled("acme")).await.expect("truthful"), []);
    // An account without any workspace.
    let state = kms_sync::sandbox::bitbucket::State::new();
    state.add_account(EMAIL, "ops", "Olive");
    let token = state.add_api_token(EMAIL, API_SCOPES);
    let rig = Rig::with(state, json!({"method": "api-token", "email": EMAIL, "apiToken": token})).await;
    assert_eq!(rig.session.choices(&rig.cx(), "workspaceSlug", &Default::default()).await.expect("truthful"), []);
}

#[tokio::test]
async fn data_center_is_recognised() {
    let rig = Rig::new().await;
    rig.state.quirks(|q| q.data_center = true);
    let error = rig.session.test(&rig.cx(), None).await.expect_err("another product");
    assert_eq!(error.kind, ErrorKind::NotTheService);
    assert!(error.text().contains("Data Center"), "{error}");
    let plain = Rig::new().await;
    plain.host.faults.add(Fault::always("", 1.0, Effect::status(404, "<html>nothing</html>")));
    let error = plain.session.test(&plain.cx(), None).await.expect_err("nothing there");
    assert!(error.kind == ErrorKind::NotTheService && !error.text().contains("Data Center"), "{error}");
}

#[tokio::test]
async fn an_endpoint_with_a_path_is_kept() {
    let state = kms_sync::sandbox::bitbucket::State::new();
    state.add_account(EMAIL, "ops", "Olive");
    let token = state.add_api_token(EMAIL, API_SCOPES);
    state.add_workspace("acme", None);
    state.add_repository("acme", "api");
    let mut rig = Rig::with(state.clone(), json!({"method": "api-token", "email": EMAIL, "apiToken": token})).await;
    let nested = axum::Router::new().nest("/bitbucket", kms_sync::sandbox::bitbucket::router(state));
    let host = kms_sync::sandbox::host::Host::start(nested, None).await.expect("starts");
    for suffix in ["", "/", "/2.0", "/2.0/"] {
        rig.connection.settings.insert("endpoint".into(), format!("{}/bitbucket{suffix}", host.url).into());
        rig.reconnect();
        rig.sync(&[("A", suffix)]).await;
        assert_eq!(rig.state.value(REPO, "A").as_deref(), Some(suffix));
    }
    assert!(host.log.lines().iter().all(|l| l.contains(" /bitbucket/2.0/repositories/")), "{:?}", host.log.lines());
}

#[test]
fn connection_documents() {
    let parse = |credentials: Value, extra: Value| {
        let mut document = json!({"name": "bb", "app": "bitbucket", "method": "api-token", "credentials": credentials});
        document.as_object_mut().expect("object").extend(extra.as_object().cloned().expect("object"));
        Connection::parse(&document, registry::app, &["bitbucket"])
    };
    let good = parse(json!({"email": "ops@example.com", "apiToken": "ATATT"}), json!({"endpoint": "https://bitbucket.org"})).expect("good");
    let shown = good.public(registry::app("bitbucket").expect("app")).to_string();
    assert!(shown.contains("ops@example.com") && !shown.contains("ATATT"), "{shown}");
    let problems = parse(json!({"email": "ops", "apiToken": "x"}), json!({})).expect_err("a user name");
    assert!(problems.of("credentials.email").is_some(), "{problems}");
    let problems = parse(json!({"email": "a@b.c", "apiToken": "x"}), json!({"hourlyBudget": "many"})).expect_err("no number");
    assert!(problems.of("hourlyBudget").is_some(), "{problems}");
    assert!(parse(json!({"email": "a@b.c", "apiToken": "x"}), json!({"hourlyBudget": "2500"})).is_ok());
}
