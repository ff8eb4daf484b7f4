//! The bare wire: the server's address, one request with its headers and pacing, and the
//! question which server this is. Knows nothing of tokens; used by `auth` and `client`.

use bytes::Bytes;
use reqwest::Method;
use serde_json::Value;
use tokio::sync::OnceCell;
use url::Url;

use super::DEFAULT_BASE_URL;
use super::errors::{Refusal, SERVICE, worth_retrying};
use super::pace::{Bucket, Pace};
use crate::http::{Answer, ApiError, Cx, ErrorKind, Http, Policy, join};
use crate::model::SecretValue;
use crate::model::connection::ResolvedConnection;

/// One request, without its credentials.
pub(super) struct Call<'a> {
    pub method: Method,
    /// Counted under this: method and route template.
    pub label: &'static str,
    pub segments: Vec<&'a str>,
    pub query: Vec<(&'static str, &'a str)>,
    pub body: Option<Bytes>,
    pub bucket: Bucket,
    pub repeatable: bool,
    pub etag: Option<&'a str>,
    pub attempts: u32,
}

impl<'a> Call<'a> {
    /// A question. `path` is the route below the base, split at `/`.
    pub fn get(label: &'static str, path: &'a str) -> Self {
        Self {
            method: Method::GET,
            label,
            segments: path.split('/').collect(),
            query: Vec::new(),
            body: None,
            bucket: Bucket::Read,
            repeatable: true,
            etag: None,
            attempts: 5,
        }
    }

    /// A call with a JSON body.
    pub fn with_body(method: Method, label: &'static str, path: &'a str, body: impl Into<Bytes>) -> Self {
        Self { method, body: Some(body.into()), bucket: Bucket::Write, ..Self::get(label, path) }
    }

    /// Adds a path segment that needs encoding (an id, a name).
    pub fn segment(mut self, segment: &'a str) -> Self {
        self.segments.push(segment);
        self
    }

    pub fn query(mut self, query: &[(&'static str, &'a str)]) -> Self {
        self.query.extend_from_slice(query);
        self
    }

    pub fn bucket(mut self, bucket: Bucket) -> Self {
        self.bucket = bucket;
        self
    }

    pub fn etag(mut self, etag: Option<&'a str>) -> Self {
        self.etag = etag;
        self
    }

    /// Not sent again when it may have taken effect.
    pub fn once_only(mut self) -> Self {
        self.repeatable = false;
        self
    }

    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }
}

/// Address, HTTP client and pacing of one account.
pub(super) struct Wire {
    pub base: Url,
    pub http: Http,
    pub pace: Pace,
    /// True when the address is the default one, which was never typed by the operator.
    default_base: bool,
    verdict: OnceCell<ApiError>,
}

impl Wire {
    pub fn new(connection: &ResolvedConnection) -> Result<Self, ApiError> {
        let given = connection.setting("baseUrl");
        let base = normalise(given.unwrap_or(DEFAULT_BASE_URL))?;
        Ok(Self { base, http: Http::new(connection), pace: Pace::new(), default_base: given.is_none(), verdict: OnceCell::new() })
    }

    /// Sends a call and returns its last answer, whatever the status.
    pub async fn send(&self, cx: &Cx, call: &Call<'_>, bearer: Option<&SecretValue>) -> Result<Answer, ApiError> {
        let mut url = join(&self.base, &call.segments);
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&call.query);
        }
        let policy = Policy { attempts: call.attempts, repeatable: call.repeatable, pacer: Some(self.pace.of(call.bucket)), retry: worth_retrying };
        let answer = self
            .http
            .send(cx, SERVICE, call.label, policy, || {
                let mut request = self.http.request(call.method.clone(), url.clone())?.header("accept", "application/json");
                if let Some(bearer) = bearer {
                    request = request.bearer_auth(bearer.expose());
                }
                if let Some(etag) = call.etag {
                    request = request.header("if-none-match", etag);
                }
                if let Some(body) = &call.body {
                    request = request.header("content-type", "application/json").body(body.clone());
                }
                Ok(request)
            })
            .await?;
        self.pace.learn(call.bucket, &answer);
        Ok(answer)
    }

    /// The host (and port) for headers and messages.
    pub fn host(&self) -> String {
        let host = self.base.host_str().unwrap_or_default();
        self.base.port().map_or_else(|| host.to_string(), |port| format!("{host}:{port}"))
    }

    /// Replaces "not the service" by what the address really is. Asked only after something
    /// answered wrongly; the verdict is kept.
    pub async fn explain(&self, cx: &Cx, refusal: Refusal) -> Refusal {
        if refusal.kind() != ErrorKind::NotTheService && !refusal.route_missing {
            return refusal;
        }
        match self.verdict.get_or_try_init(|| self.identify(cx)).await {
            Ok(verdict) => Refusal::from(verdict.clone().status(refusal.error.status.unwrap_or_default())),
            Err(()) => refusal,
        }
    }

    /// `Err` when it is a server of the supported family after all (or cannot be told now).
    async fn identify(&self, cx: &Cx) -> Result<ApiError, ()> {
        let host = self.host();
        if let Some(status) = self.probe(cx, "GET /api/status", "api/status").await?
            && status.get("message").and_then(Value::as_str) == Some("Ok")
        {
            return Err(());
        }
        for (label, path) in [("GET /v1/kms/health", "v1/kms/health"), ("GET /v1/kms/healthz", "v1/kms/healthz"), ("GET /healthz", "healthz")] {
            if let Some(health) = self.probe(cx, label, path).await?
                && health.get("service").and_then(Value::as_str) == Some("kms")
            {
                return Ok(ApiError::new(
                    ErrorKind::NotTheService,
                    SERVICE,
                    format!("{host} is a KMS of the native Go generation (/v1/kms), which offers no projects, folders or imports"),
                )
                .advice("kms-sync reads servers with the /api/v3 or /api/v4 secrets API: give the connection the address of one as baseUrl."));
            }
        }
        let advice = if self.default_base {
            "The connection names no baseUrl, so the cloud's default was used: give it your server's address (https://kms.hanzo.ai or a self-hosted one)."
        } else {
            "Check baseUrl: it is the address the dashboard is opened at, without a page behind it."
        };
        Ok(ApiError::new(ErrorKind::NotTheService, SERVICE, format!("{host} is not a Hanzo KMS or Infisical server")).advice(advice))
    }

    /// A JSON object at `path`, `None` when something else answers, `Err` when nothing does.
    async fn probe(&self, cx: &Cx, label: &'static str, path: &str) -> Result<Option<Value>, ()> {
        let answer = self.send(cx, &Call::get(label, path).attempts(1), None).await.map_err(|_| ())?;
        Ok(matches!(answer.status, 200 | 503).then(|| answer.json::<Value>(SERVICE).ok()).flatten().filter(Value::is_object))
    }
}

/// Accepts an address with or without trailing `/`, `/api` or `/api/vN`: people paste them all.
fn normalise(text: &str) -> Result<Url, ApiError> {
    let bad = || ApiError::new(ErrorKind::Invalid, SERVICE, "baseUrl must be an http or https URL such as https://kms.example.com");
    let mut url = Url::parse(text.trim()).map_err(|_| bad())?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(bad());
    }
    url.set_query(None);
    url.set_fragment(None);
    let mut path = url.path().trim_end_matches('/');
    if let Some((head, version)) = path.rsplit_once('/')
        && head.ends_with("/api")
        && version.strip_prefix('v').is_some_and(|n| n.parse::<u8>().is_ok())
    {
        path = head;
    }
    let path = path.strip_suffix("/api").unwrap_or(path).trim_end_matches('/').to_string();
    url.set_path(&path);
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_accepted_as_pasted() {
        for (given, wanted) in [
            ("https://kms.example.com", "https://kms.example.com/"),
            ("https://kms.example.com/", "https://kms.example.com/"),
            (" https://kms.example.com/api ", "https://kms.example.com/"),
            ("https://kms.example.com/api/", "https://kms.example.com/"),
            ("https://kms.example.com/api/v4/", "https://kms.example.com/"),
            ("http://127.0.0.1:7400/kms/api", "http://127.0.0.1:7400/kms"),
            ("https://kms.example.com/myapi", "https://kms.example.com/myapi"),
        ] {
            assert_eq!(normalise(given).expect("address").as_str(), wanted, "{given}");
        }
        assert!(normalise("kms.example.com").is_err());
        assert!(normalise("ftp://kms.example.com").is_err());
    }
}
