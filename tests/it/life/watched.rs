//! The rig's KMS on another port, where every reading of secrets is kept with its headers.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use kms_sync::sandbox::host::Host;
use kms_sync::sandbox::kms;
use serde_json::json;

use super::yard::Yard;

/// One reading of secrets as it went over the wire.
#[derive(Debug, Clone)]
pub struct Reading {
    /// When it arrived.
    pub at: Instant,
    /// The folder it is of.
    pub folder: String,
    pub if_none_match: Option<String>,
    pub status: u16,
    pub etag: Option<String>,
}

/// What was read.
#[derive(Clone, Default)]
pub struct Readings(Arc<Mutex<Vec<Reading>>>);

impl Readings {
    /// All so far, in the order of their answers.
    pub fn all(&self) -> Vec<Reading> {
        self.0.lock().expect("readings").clone()
    }

    /// Those of a folder.
    pub fn of(&self, folder: &str) -> Vec<Reading> {
        self.0.lock().expect("readings").iter().filter(|r| r.folder == folder).cloned().collect()
    }

    pub fn clear(&self) {
        self.0.lock().expect("readings").clear();
    }
}

/// The KMS there, with the rig's account pointed at it.
pub async fn watched(yard: &Yard) -> (Host, Readings) {
    let kept = Readings::default();
    let router = kms::router(yard.rig.kms.clone()).layer(axum::middleware::from_fn_with_state(kept.clone(), keep));
    let host = Host::start(router, None).await.expect("a port");
    let account = json!({"name": "kms", "app": "hanzo-kms", "method": "universal-auth", "baseUrl": host.url,
        "credentials": {"clientId": yard.rig.client_id, "clientSecret": crate::support::rig::CLIENT_SECRET}});
    yard.rig.run_with(&["connection", "add", "--replace", "-f", "-"], &account).await.expect(0);
    (host, kept)
}

async fn keep(State(kept): State<Readings>, request: Request, next: Next) -> Response {
    let reading = request.method() == "GET" && request.uri().path() == "/api/v4/secrets";
    let text = |headers: &axum::http::HeaderMap, name: &str| headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let query = request.uri().query().unwrap_or_default().to_string();
    let folder = url::form_urlencoded::parse(query.as_bytes()).find(|(n, _)| n == "secretPath").map(|(_, v)| v.into_owned()).unwrap_or_default();
    let (at, if_none_match) = (Instant::now(), text(request.headers(), "if-none-match"));
    let response = next.run(request).await;
    if reading {
        let (status, etag) = (response.status().as_u16(), text(response.headers(), "etag"));
        kept.0.lock().expect("readings").push(Reading { at, folder, if_none_match, status, etag });
    }
    response
}
