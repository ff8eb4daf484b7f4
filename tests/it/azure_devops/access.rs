//! Credentials, rights, and being asked to slow down.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use axum::response::IntoResponse as _;
use kms_sync::destination::{Provider as _, Session, azure_devops::AzureDevOps};
use kms_sync::http::{Cx, ErrorKind};
use kms_sync::model::Map;
use kms_sync::sandbox::azure_devops::{Identity, Role, Scopes, SignIn};
use kms_sync::sandbox::host::{Effect, Fault, Host};
use kms_sync::sandbox::tls::TlsHost;

use super::rig::{Rig, TOKEN, connection, methods, rig};

const TENANT: &str = "11111111-1111-1111-1111-111111111111";
const PAGE: &str = "<!DOCTYPE html><html><head><title>Azure DevOps Services | Sign In</title></head></html>";

fn answer(status: u16, kind: &str, body: &str) -> Effect {
    Effect::Answer { status, headers: vec![("content-type".into(), kind.into())], body: body.into() }
}

#[tokio::test]
async fn bad_tokens_have_one_clear_message_each() {
    let rig = rig().await;
    rig.state.identity("old", Identity { expired: true, ..Identity::administrator("operator") });
    let none = Scopes { read_groups: false, manage_groups: false, read_projects: true };
    rig.state.identity("pat-scopeless", Identity { scopes: none, ..Identity::administrator("operator") });
    rig.state.identity("pat-northwind", Identity { organisation: Some("northwind".into()), ..Identity::administrator("operator") });
    for (how, token) in [SignIn::Unauthorized, SignIn::Redirect, SignIn::Page203, SignIn::Page200]
        .into_iter()
        .flat_map(|h| ["pat-nobody-knows", "old", "pat-scopeless", "pat-northwind"].map(|t| (h, t)))
    {
        rig.state.sign_in(how, TENANT);
        let mut sync = rig.sync("a");
        sync.session = rig.session_as(token);
        let error = sync.try_run(&Cx::quiet(), &[("A", "1")]).await.expect_err("refused");
        assert_eq!(error.kind, ErrorKind::Auth, "{how:?} {token} {error}");
        let advice = error.advice.as_deref().unwrap_or_default();
        for word in ["personal access token", "of another organization than orgName says (contoso)"] {
            assert!(advice.contains(word), "{how:?} {token}: {error}");
        }
        assert!(!error.text().contains(token) || token == "old", "{error}");
        if token == "old" {
            assert!(error.text().contains("has expired"), "{error}");
        }
        assert_eq!(methods(&rig.requests()), "GET", "a refusal is not retried");
    }
}

#[tokio::test]
async fn whatever_is_no_data_is_never_taken_for_no_groups() {
    let rig = rig().await;
    let mut sync = rig.sync("a");
    sync.run(&[("A", "1")]).await;
    for effect in [
        answer(203, "text/html", PAGE),
        answer(203, "application/json", "{\"count\":0,\"value\":[]}"),
        answer(302, "text/html", ""),
        answer(200, "text/html", PAGE),
        answer(200, "application/json", PAGE),
        answer(200, "text/plain", "ok"),
        answer(200, "application/json", ""),
        answer(200, "application/json", "{\"count\":1,\"value\":[{\"id\":1,"),
        answer(200, "application/json; charset=utf-16", "\u{1}{\u{0}"),
        answer(200, "application/json", "{\"count\":0}"),
        answer(200, "application/json", "{\"count\":1,\"value\":[{}]}"),
        answer(200, "application/json", "null"),
        answer(200, "application/json", "[]"),
        answer(404, "text/html", "<html>"),
        answer(407, "text/html", "<html>proxy"),
    ] {
        rig.host.faults.add(Fault::next("GET", 1, effect.clone()));
        let error = sync.try_run(&Cx::quiet(), &[("A", "2"), ("B", "1")]).await.expect_err("no data");
        assert!(!error.kind.passing(), "{effect:?}: {error}");
        rig.host.faults.clear();
    }
    assert!(!methods(&rig.requests()).contains("PUT") && rig.state.groups().len() == 1);
    // A byte order mark is no harm.
    let body = format!("\u{feff}{}", serde_json::json!({"count": 0, "value": []}));
    rig.host.faults.add(Fault::next("GET", 1, answer(200, "application/json", &body)));
    let cx = Cx::quiet();
    let other = rig.sync("x");
    let destination = other.open(&cx).await;
    assert!(other.list(&cx, destination.as_ref()).await.expect("a list").entries.is_empty());
}

#[tokio::test]
async fn a_sign_in_page_in_answer_to_a_write_is_no_success() {
    let rig = rig().await;
    let mut sync = rig.sync("a");
    sync.run(&[("A", "1")]).await;
    for effect in [answer(203, "text/html", PAGE), answer(302, "text/html", ""), answer(401, "text/html", PAGE)] {
        rig.host.faults.add(Fault::next("PUT", 1, effect));
        sync.try_run(&Cx::quiet(), &[("A", "2")]).await.expect_err("refused");
        assert_eq!(rig.value("A").as_deref(), Some("1"));
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let elsewhere = rig().await;
    let rig = rig().await;
    let location = format!("{}/contoso/_apis/projects", elsewhere.host.url);
    // The sign-in is a 302; any other says nothing about the credential.
    for (status, kind) in [(302, ErrorKind::Auth), (301, ErrorKind::NotTheService), (307, ErrorKind::NotTheService), (308, ErrorKind::NotTheService)]
    {
        let effect = Effect::Answer { status, headers: vec![("location".into(), location.clone())], body: String::new() };
        rig.host.faults.add(Fault::next("GET", 1, effect));
        let error = rig.session().test(&Cx::quiet(), None).await.expect_err("a redirect");
        assert_eq!(error.kind, kind, "{status}: {error}");
        assert!(error.text().contains("a redirect to 127.0.0.1, which is not followed"), "{error}");
    }
    assert!(elsewhere.requests().is_empty(), "the credential must not leave");
}

#[tokio::test]
async fn missing_rights_are_named() {
    let rig = rig().await;
    rig.sync("a").run(&[("A", "1")]).await;
    rig.state.identity("reader", Identity::administrator("reader").role(Role::Reader));
    let mut sync = rig.sync("b");
    sync.session = rig.session_as("reader");
    let cx = Cx::quiet();
    let destination = sync.open(&cx).await;
    assert_eq!(sync.list(&cx, destination.as_ref()).await.expect("reading is allowed").entries.len(), 1);
    let error = sync.try_run(&cx, &[("A", "2")]).await.expect_err("refused");
    assert_eq!(error.kind, ErrorKind::Permission);
    assert!(error.text().contains("Administrator of this variable group"), "{error}");
    sync.environment = Some("Another".into());
    let error = sync.try_run(&cx, &[("A", "2")]).await.expect_err("refused");
    assert!(error.text().contains("Creator"), "{error}");
    // A token that only reads.
    let reads = Scopes { read_groups: true, manage_groups: false, read_projects: true };
    rig.state.identity("reads", Identity { scopes: reads, ..Identity::administrator("operator") });
    let mut sync = rig.sync("c");
    sync.session = rig.session_as("reads");
    let error = sync.try_run(&cx, &[("A", "2")]).await.expect_err("refused");
    assert_eq!(error.kind, ErrorKind::Permission, "a GET had just succeeded: {error}");
    assert!(error.text().contains("Read, create, & manage"), "{error}");
    // Revoked in the middle of a run.
    let mut sync = rig.sync("d");
    rig.state.identity("fading", Identity::administrator("fading"));
    sync.session = rig.session_as("fading");
    rig.state.before_next_write(|_| {});
    rig.state.after_next_read(|s| s.identity("fading", Identity::administrator("fading").role(Role::Reader)));
    assert_eq!(sync.try_run(&cx, &[("A", "3")]).await.expect_err("refused").kind, ErrorKind::Permission);
    assert_eq!(rig.value("A").as_deref(), Some("1"));
    // Projects that may not be listed: an error, so that the form offers free text.
    let blind = Scopes { read_groups: true, manage_groups: true, read_projects: false };
    rig.state.identity("blind", Identity { scopes: blind, ..Identity::administrator("operator") });
    assert!(rig.session_as("blind").choices(&cx, "devopsProjectId", &Map::new()).await.is_err());
    let mut sync = rig.sync("e");
    sync.session = rig.session_as("blind");
    sync.environment = Some("Blind".into());
    assert_eq!(sync.run(&[("A", "1")]).await.writes(), 1, "a typed project id needs no project call");
}

/// A token endpoint that hands out `entra-N`.
async fn authority(rig: &Rig) -> (Host, Arc<AtomicU32>) {
    authority_of(rig, 3599, |_| {}).await
}

/// The same with tokens of so many seconds; `given` is told of each token before it is handed out.
pub async fn authority_of(rig: &Rig, life: u32, given: impl Fn(u32) + Clone + Send + Sync + 'static) -> (Host, Arc<AtomicU32>) {
    let count = Arc::new(AtomicU32::new(0));
    let counted = count.clone();
    let endpoint = move |body: String| {
        let (counted, given) = (counted.clone(), given.clone());
        async move {
            assert!(body.contains("scope=499b84ac-1321-427f-aa17-267ca6975798%2F.default"), "{body}");
            if !body.contains("client_secret=good-canary") {
                let refusal = serde_json::json!({"error": "invalid_client", "error_codes": [7000215], "trace_id": "t",
                    "error_description": "AADSTS7000215: Invalid client secret provided."});
                return (axum::http::StatusCode::UNAUTHORIZED, axum::Json(refusal)).into_response();
            }
            let n = counted.fetch_add(1, Ordering::SeqCst) + 1;
            given(n);
            axum::Json(serde_json::json!({"token_type": "Bearer", "expires_in": life, "access_token": format!("entra-{n}")})).into_response()
        }
    };
    let router = axum::Router::new().route("/{tenant}/oauth2/v2.0/token", axum::routing::post(endpoint));
    rig.state.bearers(|token| token.starts_with("entra-"));
    (Host::start(router, None).await.expect("a port"), count)
}

/// A service principal's session.
pub fn entra_session(rig: &Rig, authority: &Host, secret: &str) -> Arc<dyn Session> {
    let credentials = [("orgName", "contoso"), ("tenantId", TENANT), ("clientId", "c"), ("clientSecret", secret)];
    let connection = connection("client-secret", &rig.host.url, &credentials, &[("authorityUrl", &authority.url)]);
    AzureDevOps.connect(connection, rig.memory.clone()).expect("a session")
}

#[tokio::test]
async fn a_service_principal_signs_in_once_and_again_when_refused() {
    let rig = rig().await;
    let (host, count) = authority(&rig).await;
    let entra = |secret: &str| entra_session(&rig, &host, secret);
    let mut sync = rig.sync("a");
    sync.session = entra("good-canary");
    sync.run(&[("A", "1")]).await;
    sync.run(&[("A", "2")]).await;
    assert_eq!(count.load(Ordering::SeqCst), 1);
    // The first token ends in the middle of everything.
    rig.state.bearers(|token| token == "entra-2");
    rig.state.sign_in(SignIn::Unauthorized, TENANT);
    rig.host.faults.add(Fault::next("GET", 1, Effect::status(401, "")));
    assert_eq!(sync.run(&[("A", "3")]).await.updated, ["A"]);
    assert_eq!(count.load(Ordering::SeqCst), 2);
    // A refusal that stays is believed after one renewal.
    rig.host.faults.add(Fault::always("GET", 1.0, Effect::status(401, "")));
    rig.requests();
    let error = sync.try_run(&Cx::quiet(), &[("A", "4")]).await.expect_err("refused");
    assert_eq!(error.kind, ErrorKind::Auth);
    assert_eq!(rig.requests().len(), 2);
    rig.host.faults.clear();

    let mut wrong = rig.sync("b");
    wrong.session = entra("bad-canary");
    let error = wrong.try_run(&Cx::quiet(), &[("A", "1")]).await.expect_err("refused");
    assert!(error.text().contains("AADSTS7000215") && !error.text().contains("bad-canary"), "{error}");
    assert!(rig.requests().is_empty());

    // An organisation of another tenant, and one without any.
    for (tenant, words) in
        [("00000000-0000-0000-0000-000000000000", "use a personal access token"), ("22222222-2222-2222-2222-222222222222", "tenantId")]
    {
        rig.state.sign_in(SignIn::Redirect, tenant);
        rig.state.bearers(|_| false);
        let error = sync.try_run(&Cx::quiet(), &[("A", "1")]).await.expect_err("refused");
        assert!(error.text().contains(words), "{error}");
    }
}

#[tokio::test]
async fn a_ready_token_works_and_an_unknown_method_is_refused() {
    let rig = rig().await;
    rig.state.bearers(|token| token == "ready-token");
    let session = |method: &str| {
        AzureDevOps.connect(connection(method, &rig.host.url, &[("orgName", "contoso"), ("accessToken", "ready-token")], &[]), rig.memory.clone())
    };
    session("bearer-token").expect("a session").test(&Cx::quiet(), None).await.expect("good");
    assert!(session("oauth").err().expect("refused").text().contains("client-secret"));
}

#[tokio::test]
async fn a_token_with_a_line_break_is_refused_before_it_is_sent() {
    let rig = rig().await;
    for (token, good) in [(format!(" {TOKEN}\n"), true), ("pa\nt".to_string(), false)] {
        let made = AzureDevOps
            .connect(connection("access-token", &rig.host.url, &[("orgName", "contoso"), ("accessToken", &token)], &[]), rig.memory.clone());
        match made {
            Ok(session) => {
                session.test(&Cx::quiet(), None).await.expect("surrounding white space is trimmed");
                assert!(good);
            }
            Err(error) => assert!(!good && error.text().contains("line break"), "{error}"),
        }
    }
}

#[tokio::test]
async fn retry_after_on_a_good_answer_holds_the_next_request() {
    let rig = rig().await;
    rig.state.ask_to_wait(1, 1);
    let waited = Arc::new(AtomicBool::new(false));
    let sink = waited.clone();
    let cx = Cx::new(
        tokio_util::sync::CancellationToken::new(),
        Arc::new(move |w| {
            if w.is_some_and(|w| w.reason.contains("asked to wait")) {
                sink.store(true, Ordering::SeqCst);
            }
        }),
    );
    let begun = Instant::now();
    let mut sync = rig.sync("a");
    sync.try_run(&cx, &[("A", "1")]).await.expect("a run");
    assert!(begun.elapsed() >= Duration::from_millis(900));
    assert!(waited.load(Ordering::SeqCst), "the wait is shown");
}

/// Number 37: what no client can wait for is cut, and that is said.
#[tokio::test(start_paused = true)]
async fn an_absurd_retry_after_is_cut_and_shown() {
    let json = ("content-type".to_string(), "application/json".to_string());
    let absurd = ("retry-after".to_string(), "99999999".to_string());
    for (method, status) in [("GET", 429), ("GET", 200), ("PUT", 429), ("DELETE", 429)] {
        let rig = rig().await;
        let mut sync = rig.sync("a");
        if method != "GET" {
            sync.run(&[("A", "1")]).await;
        }
        let body = if status == 200 { r#"{"count":0,"value":[]}"# } else { r#"{"message":"TF400733: blocked","typeKey":"RequestBlockedException"}"# };
        let headers = vec![json.clone(), absurd.clone()];
        rig.host.faults.add(Fault::next(method, 1, Effect::Answer { status, headers, body: body.into() }));
        let seen: Arc<std::sync::Mutex<Vec<kms_sync::model::board::Waiting>>> = Arc::default();
        let (sink, cancel) = (seen.clone(), tokio_util::sync::CancellationToken::new());
        let stop = cancel.clone();
        let cx = Cx::new(
            cancel,
            Arc::new(move |w| {
                sink.lock().expect("lock").extend(w);
                // The operator looks at it, and does not want to wait.
                stop.cancel();
            }),
        );
        rig.requests();
        let before = kms_sync::model::now();
        let error = match method {
            "DELETE" => {
                let destination = sync.session.open_for_removal(&cx, &sync.target()).await.expect("a target");
                let inventory = sync.list(&cx, destination.as_ref()).await.expect("a list");
                sync.apply(&cx, destination.as_ref(), &inventory, &[]).await
            }
            _ => sync.try_run(&cx, &[("A", "2")]).await,
        }
        .expect_err("cancelled");
        assert_eq!(error.kind, ErrorKind::Cancelled, "{method} {status}: {error}");
        let waits = seen.lock().expect("lock").clone();
        let [wait] = &waits[..] else { panic!("{method} {status}: {waits:?}") };
        let until = wait.until.expect("an end").as_second() - before.as_second();
        assert!((599..=602).contains(&until), "{method} {status}: the cap is ten minutes, not {until} s");
        assert!(wait.reason.contains("it asked for 10 min or more, and no wait is longer"), "{method} {status}: {wait:?}");
        let asked = if method == "GET" { "GET".to_string() } else { format!("GET {method}") };
        assert_eq!(methods(&rig.requests()), asked, "nothing more is sent");
    }
}

#[tokio::test]
async fn throttling_is_waited_for_in_every_form() {
    let body = serde_json::json!({"$id": "1", "message": "TF400733: The request has been canceled: Request was blocked due to exceeding usage of resource Concurrency.", "typeKey": "RequestBlockedException"}).to_string();
    let json = ("content-type".to_string(), "application/json".to_string());
    for (status, retry_after) in [(429, Some("1")), (429, None), (503, Some("1")), (400, None)] {
        let rig = rig().await;
        let mut headers = vec![json.clone()];
        headers.extend(retry_after.map(|r| ("retry-after".to_string(), r.to_string())));
        rig.host.faults.add(Fault::next("GET", 2, Effect::Answer { status, headers, body: body.clone() }));
        let cx = Cx::quiet();
        let begun = Instant::now();
        rig.sync("a").try_run(&cx, &[("A", "1")]).await.expect("a run");
        assert_eq!(cx.meter().snapshot().retries, 2, "{status}");
        if retry_after.is_some() {
            assert!(begun.elapsed() >= Duration::from_millis(1900), "{status}");
        }
    }
    // A throttled write had no effect; it is built anew on what is there after the wait.
    let rig = rig().await;
    rig.host.faults.add(Fault::next("POST", 1, Effect::Answer { status: 429, headers: vec![json, ("retry-after".into(), "0".into())], body }));
    rig.sync("a").run(&[("A", "1")]).await;
    assert_eq!(methods(&rig.requests()), "GET POST GET POST");
}

#[tokio::test]
async fn a_server_that_holds_a_request_back_for_half_a_minute_is_waited_for() {
    let rig = rig().await;
    let mut sync = rig.sync("a");
    // On the way to a connection the clock runs; from here on it jumps to the next deadline.
    sync.run(&[("A", "1")]).await;
    rig.requests();
    tokio::time::pause();
    for method in ["GET", "PUT"] {
        rig.host.faults.add(Fault::next(method, 1, Effect::Delay(Duration::from_secs(30))));
    }
    let (cx, begun) = (Cx::quiet(), tokio::time::Instant::now());
    let ran = sync.try_run(&cx, &[("A", "2")]).await.expect("a run");
    assert_eq!(ran.updated, ["A"], "{ran:?}");
    assert!(begun.elapsed() >= Duration::from_secs(60), "{:?}", begun.elapsed());
    assert_eq!((methods(&rig.requests()).as_str(), cx.meter().snapshot().retries), ("GET PUT", 0));
}

#[tokio::test]
async fn a_small_budget_spaces_the_requests_and_is_shown() {
    let rig = rig().await;
    rig.state.budget(Some((200, 4, 2)));
    let mut sync = rig.sync("a");
    let begun = Instant::now();
    sync.run(&[("A", "1")]).await;
    sync.run(&[("A", "1")]).await;
    assert!(begun.elapsed() >= Duration::from_millis(600), "two gaps of a quarter of what is left: {:?}", begun.elapsed());
    assert_eq!(sync.session.budget().as_deref(), Some("4 of 200 left"));
}

#[tokio::test]
async fn a_token_endpoint_that_is_down_is_named_and_nothing_is_sent() {
    let rig = rig().await;
    let (host, count) = authority(&rig).await;
    let entra = |authority: &str| {
        let credentials = [("orgName", "contoso"), ("tenantId", TENANT), ("clientId", "c"), ("clientSecret", "good-canary")];
        AzureDevOps
            .connect(connection("client-secret", &rig.host.url, &credentials, &[("authorityUrl", authority)]), rig.memory.clone())
            .expect("a session")
    };
    let mut sync = rig.sync("a");
    sync.session = entra(&host.url);
    // Trouble that passes is waited for.
    host.faults.add(Fault::next("POST", 2, Effect::status(503, "try later")));
    sync.run(&[("A", "1")]).await;
    assert_eq!(count.load(Ordering::SeqCst), 1);
    // Trouble that stays, a page that is no answer, and nobody at the address at all.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
    let html = answer(200, "text/html", "<html>Service unavailable</html>");
    for (effect, authority) in
        [(Some(Effect::status(503, "try later")), host.url.clone()), (Some(html), host.url.clone()), (None, format!("http://{closed}"))]
    {
        host.faults.clear();
        if let Some(effect) = effect {
            host.faults.add(Fault::always("POST", 1.0, effect));
        }
        let mut sync = rig.sync("b");
        sync.session = entra(&authority);
        rig.requests();
        let error = sync.try_run(&Cx::quiet(), &[("A", "2")]).await.expect_err("no token");
        assert!(error.kind.passing() || error.kind == ErrorKind::NotTheService, "not the credential's fault: {error:?}");
        assert!(error.text().to_lowercase().contains("entra") && !error.text().contains("good-canary"), "{error}");
        assert!(rig.requests().is_empty(), "no call without a token");
    }
    assert_eq!(rig.value("A").as_deref(), Some("1"));
    // A token that is still good is used while the endpoint is down.
    host.faults.add(Fault::always("POST", 1.0, Effect::status(503, "try later")));
    assert_eq!(sync.run(&[("A", "3")]).await.updated, ["A"]);
}

#[tokio::test]
async fn a_server_with_a_certificate_of_its_own_is_trusted_by_ca_file_only() {
    let rig = rig().await;
    let tls = TlsHost::start(kms_sync::sandbox::azure_devops::router(rig.state.clone()), None).await.expect("a port");
    let mut ca = tempfile::NamedTempFile::new().expect("a file");
    std::io::Write::write_all(&mut ca, tls.certificate.as_bytes()).expect("written");
    let session = |ca_file: Option<&std::path::Path>| {
        let mut made = connection("access-token", &tls.url, &[("orgName", "contoso"), ("accessToken", TOKEN)], &[]);
        made.ca_file = ca_file.map(|p| p.to_string_lossy().into_owned());
        AzureDevOps.connect(made, rig.memory.clone()).expect("a session")
    };
    let mut sync = rig.sync("a");
    sync.session = session(Some(ca.path()));
    assert_eq!(sync.run(&[("A", "1")]).await.created, ["A"]);
    sync.session = session(None);
    let error = sync.try_run(&Cx::quiet(), &[("A", "2")]).await.expect_err("an unknown authority");
    assert!(error.text().contains("caFile"), "{error}");
    assert_eq!(rig.value("A").as_deref(), Some("1"));
}
