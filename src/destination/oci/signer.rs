//! Request signatures, version 1: RSA PKCS#1 v1.5 with SHA-256 over chosen headers
//! (Oracle's "Request Signatures" page, after draft-cavage-http-signatures-08).
//!
//! The finished request is signed, never a text of our own: what the URL parser made of path
//! and query is what the server verifies.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, DATE, HOST, HeaderName, HeaderValue};
use ring::{digest, rand, signature};

use super::key::PrivateKey;
use crate::http::{ApiError, ErrorKind};
use crate::model::Time;

/// Signs the requests of one connection. The key was parsed once and stays in memory.
pub(super) struct Signer {
    /// `tenancy/user/fingerprint`.
    pub key_id: String,
    pub key: PrivateKey,
    random: rand::SystemRandom,
}

const X_CONTENT_SHA256: HeaderName = HeaderName::from_static("x-content-sha256");

/// Signed headers of requests without a body.
const PLAIN: &[&str] = &["date", "(request-target)", "host"];
/// Signed headers of POST, PUT and PATCH; an empty body is signed too.
const WITH_BODY: &[&str] = &["date", "(request-target)", "host", "content-length", "content-type", "x-content-sha256"];

/// The names of the signed headers, in order.
pub(super) fn signed_headers(method: &reqwest::Method) -> &'static [&'static str] {
    if matches!(*method, reqwest::Method::POST | reqwest::Method::PUT | reqwest::Method::PATCH) { WITH_BODY } else { PLAIN }
}

/// Standard base64 of the SHA-256 of a body.
pub(super) fn body_hash(body: &[u8]) -> String {
    STANDARD.encode(digest::digest(&digest::SHA256, body))
}

/// The text that is signed: one `name: value` per header, joined by single line feeds.
pub(super) fn signing_string(request: &reqwest::Request) -> String {
    let url = request.url();
    let target = match url.query() {
        Some(query) => format!("{} {}?{query}", request.method().as_str().to_ascii_lowercase(), url.path()),
        None => format!("{} {}", request.method().as_str().to_ascii_lowercase(), url.path()),
    };
    let line = |name: &&str| {
        let value = match *name {
            "(request-target)" => target.clone(),
            name => request.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_string(),
        };
        format!("{name}: {value}")
    };
    signed_headers(request.method()).iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Host as it is sent: with the port when it is not the scheme's own.
fn host(url: &url::Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_string(), |port| format!("{host}:{port}"))
}

/// Puts the headers on a request that the signature covers.
pub(super) fn prepare(request: &mut reqwest::Request, date: &str) -> Result<(), ApiError> {
    let bad = |_| ApiError::new(ErrorKind::Invalid, super::SERVICE, "the request cannot be signed: its host or date is no header text");
    let host = HeaderValue::from_str(&host(request.url())).map_err(bad)?;
    request.headers_mut().insert(HOST, host);
    request.headers_mut().insert(DATE, HeaderValue::from_str(date).map_err(bad)?);
    if signed_headers(request.method()) == WITH_BODY {
        let (length, hash) = match request.body().and_then(|b| b.as_bytes()) {
            Some(body) => (body.len(), body_hash(body)),
            None => (0, body_hash(b"")),
        };
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        headers.insert(X_CONTENT_SHA256, HeaderValue::from_str(&hash).map_err(bad)?);
    }
    Ok(())
}

impl Signer {
    pub fn new(tenancy: &str, user: &str, fingerprint: &str, key: PrivateKey) -> Self {
        Self { key_id: format!("{tenancy}/{user}/{fingerprint}"), key, random: rand::SystemRandom::new() }
    }

    /// Signs a finished request as of `now`. Sign again for every attempt: a signature is good
    /// for five minutes around its date.
    pub fn sign(&self, request: &mut reqwest::Request, now: Time) -> Result<(), ApiError> {
        prepare(request, &crate::http::http_date(now))?;
        let text = signing_string(request);
        let failed = || ApiError::new(ErrorKind::Invalid, super::SERVICE, "the request could not be signed with this private key");
        let mut signature = vec![0; self.key.pair.public().modulus_len()];
        self.key.pair.sign(&signature::RSA_PKCS1_SHA256, &self.random, text.as_bytes(), &mut signature).map_err(|_| failed())?;
        let value = format!(
            "Signature version=\"1\",keyId=\"{}\",algorithm=\"rsa-sha256\",headers=\"{}\",signature=\"{}\"",
            self.key_id,
            signed_headers(request.method()).join(" "),
            STANDARD.encode(&signature)
        );
        request.headers_mut().insert(AUTHORIZATION, HeaderValue::from_str(&value).map_err(|_| failed())?);
        Ok(())
    }
}

/// Percent-encodes by RFC 3986 everything but unreserved characters, for query values: paging
/// tokens hold `+`, `/` and `=`, and the server verifies the text as it is sent.
pub(super) fn encode(text: &str) -> String {
    const RESERVED: &percent_encoding::AsciiSet = &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    percent_encoding::utf8_percent_encode(text, RESERVED).to_string()
}
