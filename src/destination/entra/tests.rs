//! The token cache against a small token endpoint.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::Json;
use axum::extract::{Path, State};
use axum::response::IntoResponse;

use super::*;
use crate::sandbox::host::{Effect, Fault, Host};

#[derive(Clone)]
struct Endpoint {
    asked: Arc<AtomicU32>,
    life: serde_json::Value,
}

async fn endpoint(life: serde_json::Value) -> Host {
    let state = Endpoint { asked: Arc::default(), life };
    let router = axum::Router::new().route("/{tenant}/oauth2/v2.0/token", axum::routing::post(answer)).with_state(state);
    Host::start(router, None).await.expect("a port")
}

async fn answer(State(state): State<Endpoint>, Path(_tenant): Path<String>, body: String) -> axum::response::Response {
    let n = state.asked.fetch_add(1, Ordering::SeqCst) + 1;
    assert!(body.contains("client_secret=s%7E%2B%2F%3D%26"), "every value is form-encoded: {body}");
    // A token endpoint takes its time: workers that come meanwhile must share the answer.
    tokio::time::sleep(Duration::from_millis(30)).await;
    Json(serde_json::json!({"token_type": "Bearer", "expires_in": state.life, "access_token": format!("token-{n}")})).into_response()
}

fn tokens(host: &Host) -> Arc<Tokens> {
    let grant = Grant::client_secret("t", "c", SecretValue::new("s~+/=&"));
    Arc::new(Tokens::new(Http::with(None, false), host.url.parse().expect("url"), grant, "https://vault.azure.net/.default"))
}

#[tokio::test]
async fn many_workers_ask_once_and_a_refused_token_is_replaced_once() {
    let host = endpoint(3599.into()).await;
    let (tokens, cx) = (tokens(&host), Cx::quiet());
    let all = futures::future::join_all((0..10).map(|_| tokens.token(&cx))).await;
    let first = all[0].clone().expect("token");
    assert!(all.iter().all(|t| t.as_ref().expect("token").same_as(&first)));
    assert_eq!(host.log.count("POST /t/oauth2"), 1);
    assert_eq!(cx.redact("sent token-1 there"), "sent *** there");
    let again = futures::future::join_all((0..10).map(|_| async {
        assert!(tokens.refused(&first));
        tokens.token(&cx).await.expect("token")
    }))
    .await;
    assert!(again.iter().all(|t| t.expose() == "token-2"));
    assert_eq!(host.log.count("POST"), 2);
}

#[tokio::test]
async fn a_short_lived_token_makes_no_loop() {
    let host = endpoint("120".into()).await;
    let (tokens, cx) = (tokens(&host), Cx::quiet());
    for _ in 0..5 {
        tokens.token(&cx).await.expect("token");
    }
    assert_eq!(host.log.count("POST"), 1, "expires_in may be a text, and two minutes are enough to keep it");
}

#[tokio::test]
async fn an_early_renewal_that_fails_leaves_the_old_token() {
    let host = endpoint(3599.into()).await;
    let (tokens, cx) = (tokens(&host), Cx::quiet());
    tokens.token(&cx).await.expect("token");
    tokens.kept().token.as_mut().expect("kept").renew_at = Instant::now();
    let body = r#"{"error":"invalid_client","error_description":"AADSTS7000222: expired","error_codes":[7000222]}"#;
    host.faults.add(Fault::next("POST", 1, Effect::status(401, body)));
    assert_eq!(tokens.token(&cx).await.expect("the old one").expose(), "token-1");
    assert_eq!(tokens.token(&cx).await.expect("the old one").expose(), "token-1");
    assert_eq!(host.log.count("POST"), 2, "the next early renewal waits");
}

#[tokio::test]
async fn refusals_carry_number_advice_and_trace_and_never_the_secret() {
    let host = endpoint(3599.into()).await;
    let (tokens, cx) = (tokens(&host), Cx::quiet());
    let body = serde_json::json!({"error": "invalid_client", "error_codes": [7000215], "trace_id": "trace-1",
        "error_description": "AADSTS7000215: Invalid client secret s~+/=& provided.\r\nTrace ID: trace-1\r\nTimestamp: now"});
    host.faults.add(Fault::next("POST", 1, Effect::status(401, body.to_string())));
    let all = futures::future::join_all((0..6).map(|_| tokens.token(&cx))).await;
    assert_eq!(host.log.count("POST"), 1, "a refusal is not retried, and those who waited share it");
    let error = all[0].clone().expect_err("refused");
    let text = error.text();
    assert_eq!(error.kind, ErrorKind::Auth);
    assert!(text.contains("AADSTS7000215") && text.contains("trace-1") && text.contains("not its id"), "{text}");
    assert!(!text.contains("s~+/=&") && !text.contains("Timestamp"), "{text}");
    // Wherever the answer repeats it.
    for (status, body) in [
        (401, serde_json::json!({"error": "s~+/=&", "error_description": "no", "trace_id": "s~+/=&"})),
        (200, serde_json::json!({"access_token": "t", "expires_in": 3599, "token_type": "s~+/=&"})),
    ] {
        let host = endpoint(3599.into()).await;
        host.faults.add(Fault::next("POST", 1, Effect::status(status, body.to_string())));
        let error = self::tokens(&host).token(&Cx::quiet()).await.expect_err("refused");
        assert!(!error.text().contains("s~+/=&"), "{}", error.text());
    }
}

#[tokio::test]
async fn an_ad_fs_is_asked_without_a_tenant() {
    for (authority, tenant, path) in [
        ("", "adfs", "/adfs/oauth2/token"),
        ("/adfs", "adfs", "/adfs/oauth2/token"),
        ("/adfs/", "anything", "/adfs/oauth2/token"),
        ("/below", "ADFS", "/below/adfs/oauth2/token"),
        ("/below", "t-1", "/below/t-1/oauth2/v2.0/token"),
    ] {
        let answer = |body: String| async move {
            assert!(!body.contains("tenant") && body.contains("scope=https%3A%2F%2Fvault.stack.test%2F.default"), "{body}");
            Json(serde_json::json!({"access_token": "token", "expires_in": "3600"}))
        };
        let host = Host::start(axum::Router::new().fallback(answer), None).await.expect("a port");
        let grant = Grant::client_secret(tenant, "c", SecretValue::new("s"));
        let authority = format!("{}{authority}", host.url).parse().expect("url");
        let tokens = Tokens::new(Http::with(None, false), authority, grant, "https://vault.stack.test/.default");
        tokens.token(&Cx::quiet()).await.expect("token");
        assert_eq!(host.log.lines(), [format!("POST {path}")]);
    }
}

#[tokio::test]
async fn html_is_not_entra_and_passing_numbers_are_retried() {
    let host = endpoint(3599.into()).await;
    let (tokens, cx) = (tokens(&host), Cx::quiet());
    let html = Effect::Answer { status: 200, headers: vec![("content-type".into(), "text/html".into())], body: "<html>Sign in".into() };
    host.faults.add(Fault::next("POST", 1, html));
    assert_eq!(tokens.token(&cx).await.expect_err("html").kind, ErrorKind::NotTheService);
    let moved = Effect::Answer { status: 301, headers: vec![("location".into(), "https://moved.example/t".into())], body: String::new() };
    host.faults.add(Fault::next("POST", 1, moved));
    let error = tokens.token(&cx).await.expect_err("moved");
    assert!(error.kind == ErrorKind::NotTheService && error.text().contains("a redirect to moved.example"), "{error}");
    let body = r#"{"error":"temporarily_unavailable","error_description":"AADSTS90033: A transient error","error_codes":[90033]}"#;
    host.faults.add(Fault::next("POST", 1, Effect::status(400, body)));
    tokens.token(&cx).await.expect("the second attempt");
}

#[tokio::test]
async fn an_answer_without_a_sound_token_is_none() {
    let host = endpoint(3599.into()).await;
    let cx = Cx::quiet();
    for body in [
        "",
        "{}",
        "[]",
        "null",
        r#"{"access_token":null,"expires_in":3599}"#,
        r#"{"access_token":7,"expires_in":3599}"#,
        r#"{"access_token":"","expires_in":3599}"#,
        r#"{"access_token":"  ","expires_in":3599}"#,
        r#"{"access_token":"a b\r\nx: y","expires_in":3599}"#,
        r#"{"access_token":"t","expires_in":{}}"#,
        r#"{"access_token":"t","expires_in":3599,"token_type":"pop"}"#,
        r#"{"token":"t","expires_in":3599}"#,
    ] {
        host.faults.add(Fault::next("POST", 1, Effect::status(200, body)));
        let error = tokens(&host).token(&cx).await.expect_err(body);
        assert_eq!(error.kind, ErrorKind::NotTheService, "{body}: {error}");
    }
    host.faults.add(Fault::next("POST", 1, Effect::status(200, r#"{"access_token":"t","token_type":"bearer"}"#)));
    assert_eq!(tokens(&host).token(&cx).await.expect("a token without a stated life").expose(), "t");
    assert_eq!(host.log.count("POST"), 13, "none of them is asked for again");
}

#[cfg(unix)]
#[tokio::test]
async fn a_command_line_that_prints_no_token_gives_none() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().expect("a directory");
    for (n, printed) in ["", "{}", "[]", r#"{"accessToken":""}"#, r#"{"accessToken":null}"#, "Opening a browser..."].iter().enumerate() {
        let az = dir.path().join(format!("az{n}"));
        std::fs::write(&az, format!("#!/bin/sh\necho '{printed}'\n")).expect("script");
        std::fs::set_permissions(&az, std::fs::Permissions::from_mode(0o755)).expect("mode");
        let grant = Grant::AzCli { program: az.display().to_string(), tenant: None, subscription: None };
        let tokens = Tokens::new(Http::with(None, false), PUBLIC_AUTHORITY.parse().expect("url"), grant, "https://vault.azure.net/.default");
        let error = tokens.token(&Cx::quiet()).await.expect_err(printed);
        assert!(error.kind == ErrorKind::Auth && error.text().contains("token document"), "{printed}: {error}");
    }
}

fn jwt(claims: serde_json::Value) -> SecretValue {
    use base64::Engine as _;
    let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(claims.to_string());
    SecretValue::new(format!("e30.{payload}.c2ln"))
}

#[tokio::test]
async fn a_ready_token_is_looked_at_before_it_is_sent() {
    let cx = Cx::quiet();
    let now = jiff::Timestamp::now().as_second();
    let with = |claims| {
        Tokens::new(Http::with(None, false), PUBLIC_AUTHORITY.parse().expect("url"), Grant::Token(jwt(claims)), "https://vault.azure.net/.default")
            .audiences(&["https://vault.azure.net"])
    };
    let ended = with(serde_json::json!({"aud": "https://vault.azure.net", "exp": now - 60})).token(&cx).await.expect_err("ended");
    assert!(ended.text().contains("ended at"), "{ended}");
    let other = with(serde_json::json!({"aud": "https://graph.microsoft.com", "exp": now + 600})).token(&cx).await.expect_err("audience");
    assert!(other.text().contains("graph.microsoft.com"), "{other}");
    with(serde_json::json!({"aud": "https://vault.azure.net/", "exp": now + 600})).token(&cx).await.expect("good");
}

#[cfg(unix)]
#[tokio::test]
async fn the_azure_cli_is_asked_without_a_shell() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().expect("a directory");
    let az = dir.path().join("az");
    let script = format!(
        "#!/bin/sh\necho \"$*\" > {}/args\necho '{{\"accessToken\":\"cli-token\",\"expires_on\":{},\"tokenType\":\"Bearer\"}}'\n",
        dir.path().display(),
        jiff::Timestamp::now().as_second() + 3600
    );
    std::fs::write(&az, script).expect("script");
    std::fs::set_permissions(&az, std::fs::Permissions::from_mode(0o755)).expect("mode");
    let grant = Grant::AzCli { program: az.display().to_string(), tenant: Some("contoso; rm -rf".into()), subscription: None };
    let tokens = Tokens::new(Http::with(None, false), PUBLIC_AUTHORITY.parse().expect("url"), grant, "499b84ac/.default");
    assert_eq!(tokens.token(&Cx::quiet()).await.expect("token").expose(), "cli-token");
    let args = std::fs::read_to_string(dir.path().join("args")).expect("args");
    assert_eq!(args.trim(), "account get-access-token --output json --resource 499b84ac --tenant contoso; rm -rf");
}

/// A metadata service, an App Service endpoint and an Arc agent in one.
async fn platform(key: std::path::PathBuf) -> Host {
    use axum::http::{HeaderMap, StatusCode};
    type Asked = axum::extract::Query<std::collections::HashMap<String, String>>;
    let text = |life: &str| Json(serde_json::json!({"access_token": "platform-token", "expires_in": life, "token_type": "Bearer"}));
    let imds = move |Asked { 0: query }: Asked, headers: HeaderMap| async move {
        let good = headers.get("metadata").is_some_and(|h| h == "true") && query["api-version"] == "2018-02-01";
        assert!(good && query["resource"] == "https://vault.azure.net");
        match query.get("client_id").map(String::as_str) {
            Some("unknown") => {
                let body = serde_json::json!({"error": "invalid_request", "error_description": "Identity not found"});
                (StatusCode::BAD_REQUEST, Json(body)).into_response()
            }
            _ => text("86399").into_response(),
        }
    };
    let app = |headers: HeaderMap| async move {
        assert_eq!(headers["x-identity-header"], "header-secret");
        Json(serde_json::json!({"access_token": "app-token", "expires_on": "12/31/2099 23:59:59 +00:00"})).into_response()
    };
    let arc = move |headers: HeaderMap| async move {
        match headers.get("authorization") {
            Some(proof) if proof == "Basic the-key" => Json(serde_json::json!({"access_token": "arc-token", "expires_in": 3600})).into_response(),
            _ => {
                let challenge = [("www-authenticate", format!("Basic realm={}", key.display()))];
                (StatusCode::UNAUTHORIZED, challenge, "").into_response()
            }
        }
    };
    let router = axum::Router::new()
        .route("/metadata/identity/oauth2/token", axum::routing::get(imds))
        .route("/app", axum::routing::get(app))
        .route("/arc", axum::routing::get(arc));
    Host::start(router, None).await.expect("a port")
}

fn managed(platform: Platform, client_id: Option<&str>) -> Tokens {
    let grant = Grant::ManagedIdentity { client_id: client_id.map(str::to_owned), platform };
    Tokens::new(Http::with(None, false), PUBLIC_AUTHORITY.parse().expect("url"), grant, "https://vault.azure.net/.default")
}

#[tokio::test]
async fn managed_identities_of_machines_apps_and_arc_servers() {
    let dir = tempfile::tempdir().expect("a directory");
    let key = dir.path().join("agent.key");
    std::fs::write(&key, "the-key").expect("key");
    let host = platform(key.clone()).await;
    let cx = Cx::quiet();
    let machine = managed(Platform::for_tests(None, None, None, &host.url), None);
    assert_eq!(machine.token(&cx).await.expect("token").expose(), "platform-token");
    let unknown = managed(Platform::for_tests(None, None, None, &host.url), Some("unknown")).token(&cx).await.expect_err("no such identity");
    assert!(unknown.kind == ErrorKind::Auth && unknown.text().contains("assigned"), "{unknown}");
    let app = Platform::for_tests(Some(&format!("{}/app", host.url)), Some("header-secret"), None, "http://127.0.0.1:9");
    let app = managed(app, None);
    assert_eq!(app.token(&cx).await.expect("token").expose(), "app-token");
    app.token(&cx).await.expect("kept, because it ends in 2099");
    assert_eq!(host.log.count("/app"), 1);
    let arc = Platform::for_tests(Some(&format!("{}/arc", host.url)), None, Some(dir.path()), "http://127.0.0.1:9");
    assert_eq!(managed(arc, None).token(&cx).await.expect("token").expose(), "arc-token");
    let elsewhere = tempfile::tempdir().expect("a directory");
    let arc = Platform::for_tests(Some(&format!("{}/arc", host.url)), None, Some(elsewhere.path()), "http://127.0.0.1:9");
    let error = managed(arc, None).token(&cx).await.expect_err("another directory");
    assert!(error.text().contains("not read") && !error.text().contains("the-key"), "{error}");
}

#[tokio::test]
async fn a_machine_without_a_metadata_service_says_so_soon() {
    let begun = Instant::now();
    let error = managed(Platform::for_tests(None, None, None, "http://127.0.0.1:9"), None).token(&Cx::quiet()).await.expect_err("absent");
    assert!(error.text().contains("Azure machines"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_federated_token_file_is_read_for_every_request() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("token");
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let sink = seen.clone();
    let endpoint = move |axum::Form(form): axum::Form<std::collections::HashMap<String, String>>| async move {
        assert!(form["client_assertion_type"].ends_with("jwt-bearer") && !form.contains_key("client_secret"));
        sink.lock().expect("list").push(form["client_assertion"].clone());
        let refusal = |code: u32| {
            let body = serde_json::json!({"error": "invalid_client", "error_codes": [code], "error_description": format!("AADSTS{code}: no")});
            (axum::http::StatusCode::UNAUTHORIZED, Json(body)).into_response()
        };
        match form["client_assertion"].as_str() {
            "good" => Json(serde_json::json!({"access_token": "federated", "expires_in": 3600})).into_response(),
            _ => refusal(700213),
        }
    };
    let host = Host::start(axum::Router::new().route("/{tenant}/oauth2/v2.0/token", axum::routing::post(endpoint)), None).await.expect("a port");
    let tokens = || {
        let workload = Workload { tenant: "t".into(), client_id: "c".into(), token_file: file.clone() };
        Tokens::new(Http::with(None, false), host.url.parse().expect("url"), Grant::WorkloadIdentity(workload), "https://vault.azure.net/.default")
    };
    let cx = Cx::quiet();
    assert!(tokens().token(&cx).await.expect_err("no file").text().contains("token file"));
    let foreign =
        jwt(serde_json::json!({"iss": "https://issuer.example", "sub": "system:serviceaccount:ns:sa", "aud": ["api://AzureADTokenExchange"]}));
    std::fs::write(&file, foreign.expose()).expect("token");
    let error = tokens().token(&cx).await.expect_err("no match");
    for part in ["AADSTS700213", "https://issuer.example", "system:serviceaccount:ns:sa", "api://AzureADTokenExchange"] {
        assert!(error.text().contains(part), "{part}: {error}");
    }
    std::fs::write(&file, "good\n").expect("token");
    assert_eq!(tokens().token(&cx).await.expect("token").expose(), "federated");
    assert_eq!(seen.lock().expect("list").len(), 2);
}
