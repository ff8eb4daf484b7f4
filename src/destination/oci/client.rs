//! Signed, paced calls to the five services, and paging.

use std::time::Duration;

use reqwest::Method;
use tokio::sync::Semaphore;
use url::Url;
use zeroize::Zeroizing;

use super::SERVICE;
use super::calls::{Call, Service};
use super::region::Endpoints;
use super::signer::{Signer, encode};
use crate::http::{Answer, ApiError, Cx, ErrorKind, Http, Pacer, Pages, Policy};
use crate::model::Time;

/// Attempts of one call, as Oracle's SDKs make.
const ATTEMPTS: u32 = 8;
/// Attempts of a call that only a screen asks for, while somebody looks at it.
const SCREEN_ATTEMPTS: u32 = 3;
/// The service limits a user's rate without saying for how long: everyone waits this long, then longer.
const PAUSE: Duration = Duration::from_secs(1);

/// One quota: how fast, and how many in flight.
struct Lane {
    pacer: Pacer,
    flight: Semaphore,
}

/// Calls for one connection.
pub(super) struct Client {
    http: Http,
    signer: Signer,
    pub endpoints: Endpoints,
    reads: Lane,
    writes: Lane,
}

/// One request, but for what [`Call`] says.
#[derive(Default)]
pub(super) struct Ask<'a> {
    /// Path segments behind the version.
    pub path: &'a [&'a str],
    pub query: &'a [(&'a str, &'a str)],
    /// JSON bytes; wiped when the last attempt is over.
    pub body: Option<Vec<u8>>,
    pub headers: &'a [(&'static str, &'a str)],
    /// Another host than the service's own (a vault's management endpoint).
    pub base: Option<&'a Url>,
}

/// True for a success of the service itself: 203 is the answer of something in between.
pub(super) fn genuine(answer: &Answer) -> bool {
    answer.ok() && answer.status != 203
}

impl Client {
    /// Oracle publishes no quota for secrets: start modestly (10 reads/s, 2 writes/s) and let
    /// clean answers raise it to 50 and 10; eight quick writes were seen to draw a 429. On the
    /// operator's own endpoints the ceilings are the start, and on loopback nothing is shared
    /// with anybody, so only 429 slows it.
    pub fn new(http: Http, signer: Signer, endpoints: Endpoints) -> Self {
        let ((reads, read_top, read_flight), (writes, write_top, write_flight)) = if endpoints.local() {
            ((500.0, 500.0, 16), (500.0, 500.0, 16))
        } else if endpoints.overridden {
            ((50.0, 50.0, 16), (10.0, 10.0, 4))
        } else {
            ((10.0, 50.0, 8), (2.0, 10.0, 2))
        };
        let lane = |name: &str, rate, top, flight: usize| Lane {
            pacer: Pacer::new(name, rate, top, flight as u32).holding(PAUSE),
            flight: Semaphore::new(flight),
        };
        let (reads, writes) = (lane("OCI reads", reads, read_top, read_flight), lane("OCI writes", writes, write_top, write_flight));
        Self { http, signer, endpoints, reads, writes }
    }

    /// The pace now, as text.
    pub fn pace(&self) -> String {
        format!("{:.0} reads/s, {:.0} writes/s", self.reads.pacer.rate(), self.writes.pacer.rate())
    }

    fn base(&self, service: Service) -> &Url {
        match service {
            Service::Identity => &self.endpoints.identity,
            Service::Kms => &self.endpoints.kms,
            Service::Vaults => &self.endpoints.vaults,
            Service::Secrets => &self.endpoints.secrets,
        }
    }

    /// Sends a call, signed anew for each attempt; answers any status.
    pub async fn send(&self, cx: &Cx, call: &Call, ask: Ask<'_>) -> Result<Answer, ApiError> {
        let lane = if call.write { &self.writes } else { &self.reads };
        let turn = tokio::select! {
            turn = lane.flight.acquire() => turn,
            () = cx.cancel_token().cancelled() => return Err(ApiError::cancelled(SERVICE)),
        };
        // The semaphore is never closed; a closed one would only mean no bound.
        let _turn = turn.ok();
        let mut segments = vec![call.service.version()];
        segments.extend_from_slice(ask.path);
        let mut url = crate::http::join(ask.base.unwrap_or(self.base(call.service)), &segments);
        if !ask.query.is_empty() {
            let query: Vec<String> = ask.query.iter().map(|(k, v)| format!("{k}={}", encode(v))).collect();
            url.set_query(Some(&query.join("&")));
        }
        let method = call.label.split(' ').next().and_then(|m| Method::from_bytes(m.as_bytes()).ok()).unwrap_or(Method::GET);
        let body = ask.body.map(|b| bytes::Bytes::from_owner(Zeroizing::new(b)));
        // One id over all attempts of a call: what timed out can still be found in Oracle's logs.
        let request_id = uuid::Uuid::new_v4().simple().to_string().to_ascii_uppercase();
        let make = || {
            let mut builder =
                self.http.request(method.clone(), url.clone())?.header("accept", "application/json").header("opc-request-id", &request_id);
            for (name, value) in ask.headers {
                builder = builder.header(*name, *value);
            }
            if let Some(body) = &body {
                builder = builder.body(body.clone());
            }
            let (client, request) = builder.build_split();
            let mut request = request.map_err(|_| ApiError::new(ErrorKind::Invalid, SERVICE, "the request could not be built"))?;
            self.signer.sign(&mut request, Time::now())?;
            Ok(reqwest::RequestBuilder::from_parts(client, request))
        };
        let attempts = if matches!(call.service, Service::Identity | Service::Kms) { SCREEN_ATTEMPTS } else { ATTEMPTS };
        let policy = Policy { attempts, repeatable: call.repeatable, pacer: Some(&lane.pacer), ..Policy::default() };
        self.http.send(cx, SERVICE, call.label, policy, make).await
    }

    /// Sends a call; anything but 2xx is an error, and so is a page that something in between
    /// served as 200: nobody knows whether the service saw the call.
    pub async fn call(&self, cx: &Cx, call: &Call, ask: Ask<'_>) -> Result<Answer, ApiError> {
        let answer = self.send(cx, call, ask).await?;
        if !genuine(&answer) {
            return Err(super::fault::error(cx, call, &answer));
        }
        if !answer.body.is_empty() {
            answer.json::<serde::de::IgnoredAny>(SERVICE).map_err(|e| e.ambiguous(call.write))?;
        }
        Ok(answer)
    }

    /// Sends a call and parses its answer.
    pub async fn get<T: serde::de::DeserializeOwned>(&self, cx: &Cx, call: &Call, ask: Ask<'_>) -> Result<T, ApiError> {
        let answer = self.call(cx, call, ask).await?;
        answer.json(SERVICE).map_err(|e| e.request_id(answer.header("opc-request-id")).masked(cx))
    }

    /// All pages of a list. A page may be short or empty; only a missing `opc-next-page` ends it.
    pub async fn list<T: serde::de::DeserializeOwned>(
        &self,
        cx: &Cx,
        call: &Call,
        base: Option<&Url>,
        path: &[&str],
        query: &[(&str, &str)],
        limit: Option<&str>,
    ) -> Result<Vec<T>, ApiError> {
        let mut all = Vec::new();
        let mut limit = limit;
        let mut page: Option<String> = None;
        let mut pages = Pages::of(SERVICE, format!("{}: the list", call.label));
        loop {
            let mut query = query.to_vec();
            query.extend(limit.map(|l| ("limit", l)));
            query.extend(page.as_deref().map(|p| ("page", p)));
            let answer = self.send(cx, call, Ask { path, query: &query, base, ..Ask::default() }).await?;
            // The largest page size is not documented: where ours is refused, the service's own is taken.
            if answer.status == 400 && limit.is_some() && page.is_none() && String::from_utf8_lossy(&answer.body).contains("limit") {
                limit = None;
                continue;
            }
            if !genuine(&answer) {
                return Err(super::fault::error(cx, call, &answer));
            }
            all.extend(answer.json::<Vec<T>>(SERVICE)?);
            let Some(next) = answer.header("opc-next-page").filter(|n| !n.is_empty()) else { return Ok(all) };
            let entries: Vec<serde_json::Value> = answer.json(SERVICE)?;
            pages.turn(next, entries.iter().map(serde_json::Value::to_string))?;
            page = Some(next.to_string());
        }
    }
}
