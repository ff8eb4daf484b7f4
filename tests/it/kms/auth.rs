//! Logins and tokens: how many there are, and what ends them.

use std::time::Duration;

use kms_sync::http::{Cx, ErrorKind};
use kms_sync::sandbox::host::{Effect, Fault};
use kms_sync::sandbox::kms::{Generation, Right};
use kms_sync::source::connect;

use super::{Bed, SECRET};

#[tokio::test]
async fn many_readers_share_one_login() {
    let bed = Bed::start().await;
    bed.set("dev", "/app", "A", "1");
    let source = bed.source();
    let cx = Cx::quiet();
    let reads = (0..12).map(|_| {
        let (source, cx, at) = (source.clone(), cx.clone(), bed.at("dev", "/app"));
        async move { source.read(&cx, &at).await }
    });
    for result in futures::future::join_all(reads).await {
        assert_eq!(result.expect("read").secrets.len(), 1);
    }
    assert_eq!(bed.logins(), 1);
}

#[tokio::test]
async fn a_dead_token_is_replaced_once_and_the_call_repeated_once() {
    for generation in [Generation::Now, Generation::Y2024] {
        for kill in ["expire", "revoke"] {
            let bed = Bed::start().await;
            bed.state.switch(|s| s.generation = generation);
            bed.set("dev", "/app", "A", "1");
            let (source, cx) = (bed.source(), Cx::quiet());
            source.read(&cx, &bed.at("dev", "/app")).await.expect("first read");
            match kill {
                "expire" => bed.state.expire_tokens(),
                _ => bed.state.revoke_tokens(),
            }
            bed.host.log.clear();
            let map = source.read(&cx, &bed.at("dev", "/app")).await.expect("second read");
            assert_eq!((map.secrets.len(), bed.logins()), (1, 1), "{generation:?} {kill}");
        }
    }
}

#[tokio::test]
async fn an_old_servers_500_for_a_bad_token_is_no_server_trouble() {
    let bed = Bed::start().await;
    bed.set("dev", "/app", "A", "1");
    bed.state.switch(|s| s.generation = Generation::Y2024);
    let source = bed.token_source("not-a-jwt");
    let error = source.read(&Cx::quiet(), &bed.at("dev", "/app")).await.expect_err("refused");
    assert_eq!(error.kind, ErrorKind::Auth, "{error}");
    // v4 is asked before v3; neither is repeated.
    assert_eq!(bed.requests().len(), 2, "{:?}", bed.requests());
}

#[tokio::test]
async fn a_token_with_a_uses_limit_is_renewed_by_login() {
    let bed = Bed::start().await;
    bed.state.tune_identity(&bed.client_id, 2_592_000, 2_592_000, Some(4), None);
    bed.set("dev", "/app", "A", "1");
    let (source, cx) = (bed.source(), Cx::quiet());
    for _ in 0..4 {
        assert_eq!(source.read(&cx, &bed.at("dev", "/app")).await.expect("read").secrets.len(), 1);
    }
    // 4 + 2 + 2 + 2 calls on tokens of 4 uses, the refused ones counted apart.
    assert!((2..=4).contains(&bed.logins()), "{} logins", bed.logins());
}

#[tokio::test]
async fn expires_in_zero_never_expires_and_short_lives_are_renewed_early() {
    let bed = Bed::start().await;
    bed.set("dev", "/app", "A", "1");
    bed.state.tune_identity(&bed.client_id, 0, 0, None, None);
    let (source, cx) = (bed.source(), Cx::quiet());
    for _ in 0..3 {
        source.read(&cx, &bed.at("dev", "/app")).await.expect("read");
    }
    assert_eq!(bed.logins(), 1);

    bed.state.tune_identity(&bed.client_id, 1, 1, None, None);
    bed.host.log.clear();
    let source = bed.source();
    source.read(&cx, &bed.at("dev", "/app")).await.expect("read");
    // Past 80 % of one second the next call brings its own token instead of being refused.
    tokio::time::sleep(Duration::from_millis(850)).await;
    source.read(&cx, &bed.at("dev", "/app")).await.expect("read");
    assert_eq!(bed.logins(), 2);
}

#[tokio::test]
async fn a_rejected_login_is_not_tried_again_until_the_operator_tests() {
    let bed = Bed::start().await;
    bed.set("dev", "/app", "A", "1");
    let (source, cx) = (bed.source_with("wrong"), Cx::quiet());
    for _ in 0..5 {
        let error = source.read(&cx, &bed.at("dev", "/app")).await.expect_err("refused");
        assert_eq!(error.kind, ErrorKind::Auth);
        assert!(error.text().contains("Invalid credentials") && error.text().contains("clientSecret"), "{error}");
    }
    assert_eq!(bed.logins(), 1);
    assert!(source.test(&cx).await.is_err());
    assert_eq!(bed.logins(), 2);
    // The third wrong secret locks the identity, and the fourth attempt is told so.
    assert!(source.test(&cx).await.is_err());
    let error = source.test(&cx).await.expect_err("locked");
    assert!(error.text().contains("temporarily locked") && error.text().contains("wait until the lock ends"), "{error}");
    bed.state.unlock(&bed.client_id);
    let report = bed.source().test(&cx).await.expect("right secret");
    assert!(report.identity.contains(&bed.client_id) && report.identity.contains("Demo Organization"), "{report:?}");
    assert!(report.notes.iter().any(|n| n.contains("1 project")), "{report:?}");
}

#[tokio::test]
async fn a_spent_client_secret_leaves_the_living_token_in_use() {
    let bed = Bed::start().await;
    bed.set("dev", "/app", "A", "1");
    bed.state.tune_identity(&bed.client_id, 60, 60, None, Some(1));
    let (source, cx) = (bed.source(), Cx::quiet());
    source.read(&cx, &bed.at("dev", "/app")).await.expect("first");
    bed.state.revoke_tokens();
    let error = source.read(&cx, &bed.at("dev", "/app")).await.expect_err("no uses left");
    assert!(error.text().contains("usage limit") && error.text().contains("create one without a limit"), "{error}");
}

#[tokio::test]
async fn a_missing_right_never_logs_in_again() {
    for generation in [Generation::Now, Generation::Y2024] {
        let bed = Bed::start().await;
        bed.state.switch(|s| {
            s.generation = generation;
            s.denied.insert(Right::ReadSecrets);
        });
        bed.set("dev", "/app", "A", "1");
        let (source, cx) = (bed.source(), Cx::quiet());
        for _ in 0..3 {
            let error = source.read(&cx, &bed.at("dev", "/app")).await.expect_err("denied");
            assert_eq!(error.kind, ErrorKind::Permission, "{generation:?}: {error}");
            let text = error.text();
            assert!(text.contains("read on secrets") && text.contains("environment dev") && text.contains("/app") && text.contains("req-"), "{text}");
        }
        assert_eq!(bed.logins(), 1);
    }
}

#[tokio::test]
async fn a_page_instead_of_the_api_names_the_address() {
    let bed = Bed::start().await;
    let page = Effect::Answer { status: 200, headers: vec![("content-type".into(), "text/html".into())], body: "<html>Dashboard</html>".into() };
    bed.host.faults.add(Fault::always("", 1.0, page));
    let error = bed.source().test(&Cx::quiet()).await.expect_err("no server");
    assert_eq!(error.kind, ErrorKind::NotTheService);
    assert!(error.text().contains("is not a Hanzo KMS or Infisical server") && error.text().contains("baseUrl"), "{error}");

    bed.host.faults.clear();
    bed.host.faults.add(Fault::always("/login", 1.0, Effect::status(404, r#"{"message":"not found"}"#)));
    bed.host.faults.add(Fault::always("/api/status", 1.0, Effect::status(404, "{}")));
    let health =
        Effect::Answer { status: 503, headers: vec![("content-type".into(), "application/json".into())], body: r#"{"service":"kms"}"#.into() };
    bed.host.faults.add(Fault::always("/v1/kms/health", 1.0, health));
    let error = bed.source().test(&Cx::quiet()).await.expect_err("another generation");
    assert!(error.text().contains("native Go generation"), "{error}");
}

#[tokio::test]
async fn the_address_may_be_pasted_with_its_api_path() {
    let bed = Bed::start().await;
    bed.set("dev", "/app", "A", "1");
    for tail in ["/", "/api", "/api/"] {
        let mut connection = bed.connection("universal-auth", &[("clientId", &bed.client_id), ("clientSecret", &format!(" {SECRET}\n"))]);
        connection.settings.insert("baseUrl".into(), format!("{}{tail}", bed.host.url).into());
        let map = connect(connection).expect("connection").read(&Cx::quiet(), &bed.at("dev", "/app")).await.expect("read");
        assert_eq!(map.secrets.len(), 1, "{tail}");
    }
}

#[tokio::test]
async fn service_tokens_read_their_own_place_only() {
    let bed = Bed::start().await;
    bed.set("dev", "/app", "A", "1");
    bed.set("prod", "/app", "A", "2");
    let cx = Cx::quiet();
    let source = bed.token_source(&bed.state.add_service_token(&bed.project, &[("dev", "/app")]));
    assert_eq!(source.read(&cx, &bed.at("dev", "/app")).await.expect("its place").secrets.len(), 1);
    let error = source.read(&cx, &bed.at("prod", "/app")).await.expect_err("another place");
    assert!(error.text().contains("dev:/app"), "{error}");
    assert_eq!(error.kind, ErrorKind::Permission);
    let projects = source.projects(&cx).await.expect("its project");
    assert_eq!(projects.len(), 1);
    assert!(source.test(&cx).await.expect("test").notes[0].contains("dev:/app"));
}

#[tokio::test]
async fn projects_are_found_on_every_generation() {
    let cx = Cx::quiet();
    let bed = Bed::start().await;
    let projects = bed.source().projects(&cx).await.expect("projects");
    assert_eq!(projects[0].environments.len(), 3);
    // On an old server the organisation's id in the token's claims leads to the list.
    bed.state.switch(|s| s.generation = Generation::Y2024);
    assert_eq!(bed.source().projects(&cx).await.expect("projects")[0].name, "App");
    bed.state.switch(|s| {
        s.denied.insert(Right::ListProjects);
    });
    let error = bed.source().projects(&cx).await.expect_err("denied");
    assert_eq!(error.kind, ErrorKind::Permission);
    assert!(error.text().contains("Type the project's id"), "{error}");
}

#[tokio::test]
async fn the_token_is_given_back() {
    let bed = Bed::start().await;
    let (source, cx) = (bed.source(), Cx::quiet());
    source.projects(&cx).await.expect("projects");
    source.close(&cx).await;
    source.close(&cx).await;
    assert_eq!(bed.host.log.count("token/revoke"), 1);
}

#[tokio::test]
async fn no_error_shows_a_credential() {
    let bed = Bed::start().await;
    let echo = format!(r#"{{"message":"no: {SECRET}","error":"UnauthorizedError"}}"#);
    bed.host.faults.add(Fault::always("/login", 1.0, Effect::status(401, echo)));
    let error = bed.source().test(&Cx::quiet()).await.expect_err("refused");
    assert!(!error.text().contains(SECRET) && error.text().contains("***"), "{error}");
}
