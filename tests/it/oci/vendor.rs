//! Oracle's own SDKs: they drive the sandbox, and the Python one's signer agrees with ours.

use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::http::{HeaderMap, Method, Uri};
use base64::Engine as _;
use kms_sync::model::plan::Action;
use kms_sync::sandbox::host::Host;
use kms_sync::sandbox::oci;

use super::{Bench, apply, bench, connect, credentials, resolved};
use crate::support::{node, python};

fn facts(bench: &Bench) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("file");
    let json = serde_json::json!({
        "config": {"user": oci::USER, "tenancy": oci::TENANCY, "fingerprint": oci::TEST_FINGERPRINT, "region": oci::REGION, "key_content": oci::TEST_KEY},
        "compartment": bench.state.compartment(), "vault": bench.state.vault(), "key": bench.state.key(),
    });
    std::fs::write(file.path(), json.to_string()).expect("written");
    file
}

async fn drive(bench: &Bench, management: &str, what: &str, more: &str) -> Option<serde_json::Value> {
    let (url, management, facts, what, more) = (bench.host.url.clone(), management.to_string(), facts(bench), what.to_string(), more.to_string());
    let out = tokio::task::spawn_blocking(move || {
        let path = facts.path().to_string_lossy().into_owned();
        python::script("oci_drive.py", &[&url, &management, &path, &what, &more])
    });
    out.await.expect("ran").map(|text| serde_json::from_str(&text).expect("JSON"))
}

#[tokio::test]
async fn the_sdk_lives_a_whole_life_in_the_sandbox() {
    let bench = bench().await;
    // Vaults serve their keys at an address of their own; a second vault's key is not there.
    let other = bench.state.add_vault("other", &bench.state.add_compartment("elsewhere", oci::TENANCY));
    bench.state.add_key("other-key", &other, bench.state.compartment());
    let management = Host::start(oci::management_router(bench.state.clone(), bench.state.vault()), None).await.expect("a port");
    let Some(names) = drive(&bench, &management.url, "all", "").await else { return };
    assert_eq!(names, serde_json::json!(["sdk-0", "sdk-1", "sdk-2", "sdk-3", "sdk-4", "sdk-token"]));
}

#[tokio::test]
async fn the_sdk_reads_what_we_write_and_we_sync_over_what_it_wrote() {
    let bench = bench().await;
    let odd = "ünï\n  code 🗝 \"quoted\" $x\n";
    bench.create("OURS", odd).await;
    let write = serde_json::json!({"THEIRS": "old", "SAME": "equal"}).to_string();
    let Some(_) = drive(&bench, &bench.host.url, "write", &write).await else { return };
    let target = bench.open().await;
    let (theirs, same) = (bench.entry("THEIRS").await, bench.entry("SAME").await);
    let written = apply(&bench.cx, &*target, Action::Update, "THEIRS", Some("new"), Some(&theirs)).await.expect("updated");
    assert!(!written.untouched);
    let equal = apply(&bench.cx, &*target, Action::Update, "SAME", Some("equal"), Some(&same)).await.expect("compared");
    assert!(equal.untouched);
    let read = drive(&bench, &bench.host.url, "read", "").await.expect("read");
    assert_eq!(read, serde_json::json!({"OURS": odd, "THEIRS": "new", "SAME": "equal"}));
}

async fn drive_typescript(bench: &Bench, what: &str, more: &str) -> Option<serde_json::Value> {
    let (url, facts, what, more) = (bench.host.url.clone(), facts(bench), what.to_string(), more.to_string());
    let out = tokio::task::spawn_blocking(move || {
        let path = facts.path().to_string_lossy().into_owned();
        node::run("oci-ts", "drive.js", &[&url, &path, &what, &more])
    });
    out.await.expect("ran").map(|text| serde_json::from_str(&text).expect("JSON"))
}

#[tokio::test]
async fn the_typescript_sdk_lives_a_whole_life_in_the_sandbox() {
    // It signs `x-date` beside `date`, and header names in mixed case.
    let bench = bench().await;
    let Some(names) = drive_typescript(&bench, "all", "").await else { return };
    assert_eq!(names, serde_json::json!(["ts-0", "ts-1", "ts-2", "ts-3", "ts-4", "ts-token"]));
}

#[tokio::test]
async fn the_typescript_sdk_reads_what_we_write_and_we_sync_over_what_it_wrote() {
    let bench = bench().await;
    let odd = "ünï\n  code 🗝 \"quoted\" $x\n";
    bench.create("OURS", odd).await;
    let write = serde_json::json!({"THEIRS": "old", "SAME": odd}).to_string();
    let Some(_) = drive_typescript(&bench, "write", &write).await else { return };
    let target = bench.open().await;
    let (theirs, same) = (bench.entry("THEIRS").await, bench.entry("SAME").await);
    let written = apply(&bench.cx, &*target, Action::Update, "THEIRS", Some("new"), Some(&theirs)).await.expect("updated");
    assert!(!written.untouched);
    let equal = apply(&bench.cx, &*target, Action::Update, "SAME", Some(odd), Some(&same)).await.expect("compared");
    assert!(equal.untouched);
    let read = drive_typescript(&bench, "read", "").await.expect("read");
    assert_eq!(read, serde_json::json!({"OURS": odd, "THEIRS": "new", "SAME": odd}));
}

type Request = (Method, Uri, HeaderMap, Bytes);

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<Request>>>);

/// Answers like a vault whose only secret is active and equal to nothing.
async fn capture(captured: Captured, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> axum::Json<serde_json::Value> {
    captured.0.lock().expect("lock").push((method, uri.clone(), headers, body));
    let secret = serde_json::json!({"id": "ocid1.vaultsecret.oc1.iad.a", "secretName": "A", "lifecycleState": "ACTIVE", "currentVersionNumber": 1});
    axum::Json(match uri.path() {
        path if path.ends_with("/20180608/secrets") && uri.query().is_some() => serde_json::json!([secret]),
        path if path.contains("secretbundles") => {
            serde_json::json!({"secretId": secret["id"], "versionNumber": 1, "secretBundleContent": {"contentType": "BASE64", "content": "eA=="}})
        }
        _ => secret,
    })
}

#[tokio::test]
async fn our_signatures_are_those_of_the_sdk() {
    let captured = Captured::default();
    let keep = captured.clone();
    let router = axum::Router::new().fallback(move |m: Method, u: Uri, h: HeaderMap, b: Bytes| capture(keep.clone(), m, u, h, b));
    let host = Host::start(router, None).await.expect("a port");
    let bench = bench().await;
    let session =
        connect(resolved("access-key", &credentials(), serde_json::json!({ "endpoint": format!("{}/a path", host.url) }))).expect("session");
    let target = session.open(&bench.cx, &bench.target(serde_json::json!({}))).await.expect("opened");
    let inventory = super::list(&bench.cx, &*target, &Default::default()).await.expect("listed");
    let entry = &inventory.entries[0];
    apply(&bench.cx, &*target, Action::Create, "NEW", Some("välue"), None).await.expect("created");
    apply(&bench.cx, &*target, Action::Update, "A", Some("new"), Some(entry)).await.expect("updated");
    session.test(&bench.cx, None).await.expect("tested");
    let pending = kms_sync::destination::Entry { facts: serde_json::json!({"state": "PENDING_DELETION"}), ..entry.clone() };
    apply(&bench.cx, &*target, Action::Restore, "A", Some("newer"), Some(&pending)).await.expect("restored");

    let requests = captured.0.lock().expect("lock").clone();
    let text = |h: &HeaderMap, name: &str| h.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_string();
    let calls: Vec<String> = requests.iter().map(|(m, u, ..)| format!("{m} {}", u.path())).collect();
    for part in [
        "GET /a%20path/20180608/secrets",
        "POST /a%20path/20180608/secrets",
        "/actions/cancelDeletion",
        "PUT ",
        "/20160918/users/",
        "/20190301/secretbundles/",
    ] {
        assert!(calls.iter().any(|c| c.contains(part)), "{part}: {calls:?}");
    }
    let job = serde_json::json!({
        "tenancy": oci::TENANCY, "user": oci::USER, "fingerprint": oci::TEST_FINGERPRINT, "key": oci::TEST_KEY,
        "requests": requests.iter().map(|(method, uri, headers, body)| serde_json::json!({
            "method": method.as_str(), "url": format!("{}{uri}", host.url),
            "headers": {"date": text(headers, "date"), "host": text(headers, "host")},
            "body": base64::engine::general_purpose::STANDARD.encode(body),
        })).collect::<Vec<_>>(),
    });
    let file = tempfile::NamedTempFile::new().expect("file");
    std::fs::write(file.path(), job.to_string()).expect("written");
    let out = tokio::task::spawn_blocking(move || python::script("oci_sign.py", &[&file.path().to_string_lossy()])).await.expect("ran");
    let Some(out) = out else { return };
    let theirs: Vec<String> = serde_json::from_str(&out).expect("JSON");
    assert_eq!(theirs.len(), requests.len());
    for ((method, uri, headers, _), theirs) in requests.iter().zip(&theirs) {
        let ours = text(headers, "authorization");
        assert!(ours.ends_with(&format!("signature=\"{theirs}\"")), "{method} {uri}\nours   {ours}\ntheirs {theirs}");
    }
}
