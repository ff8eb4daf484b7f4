//! The one HTTP client. It owns timeouts, retries, pacing, request counting, body caps and
//! redaction; it knows no provider. Callers give it a closure that builds (and signs) the
//! request anew for each attempt, and get back the last answer, whatever its status.
//!
//! Redirects are never followed: a credential must not leave for another host.

mod cx;
mod disguise;
mod error;
mod pacer;
mod pages;
mod redact;
mod seat;

pub use cx::{Cx, Meter, WaitSink};
pub use error::{ApiError, ErrorKind};
pub use pacer::Pacer;
pub use pages::Pages;
pub use redact::Redactor;
pub use seat::{Busy, Seat};

use std::sync::OnceLock;
use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};
use zeroize::Zeroizing;

use crate::model::connection::{ResolvedConnection, is_loopback};

/// Largest response body that is read, in bytes.
pub const BODY_CAP: usize = 32 * 1024 * 1024;
/// A body's first buffer is no larger, in bytes, whatever length the server announces.
const FIRST_BUFFER: usize = 1024 * 1024;
/// The longest pause a server may ask for by Retry-After before we call it absurd and cap it.
pub const RETRY_AFTER_CAP: Duration = Duration::from_secs(600);

/// A client for one connection: its CA file and its proxies. Cheap to clone; TLS is set up at
/// the first request, so that commands without network never pay for it.
#[derive(Clone)]
pub struct Http {
    inner: std::sync::Arc<Inner>,
}

struct Inner {
    ca_file: Option<String>,
    http1_only: bool,
    timeout: Duration,
    proxied: OnceLock<Result<reqwest::Client, String>>,
    direct: OnceLock<Result<reqwest::Client, String>>,
}

/// How one call may be retried and paced.
#[derive(Clone, Copy)]
pub struct Policy<'p> {
    /// Attempts in all, the first included.
    pub attempts: u32,
    /// May the call be sent again when it is unknown whether the first one took effect
    /// (time-out, reset, 5xx)? Calls that never reached the server are always sent again.
    pub repeatable: bool,
    /// Waited for before every attempt, and told of throttling.
    pub pacer: Option<&'p Pacer>,
    /// Which answers are worth another attempt; the default is 408, 429, 500, 502, 503, 504.
    pub retry: fn(&Answer) -> bool,
}

impl Default for Policy<'_> {
    fn default() -> Self {
        Self { attempts: 5, repeatable: true, pacer: None, retry: retryable_status }
    }
}

/// The statuses that usually pass.
pub fn retryable_status(answer: &Answer) -> bool {
    matches!(answer.status, 408 | 429 | 500 | 502 | 503 | 504)
}

/// A whole answer. The body is wiped when it is dropped: it may hold secrets.
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Zeroizing<Vec<u8>>,
}

impl Answer {
    /// A header's text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }

    /// 2xx.
    pub fn ok(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// What is to be said of a 3xx answer: that it is a redirect, to which host, and that it is not
    /// followed. `None` for other answers. The address itself is not shown: it may hold a ticket.
    pub fn redirect(&self) -> Option<String> {
        redirect(self.status, self.header("location"))
    }

    /// True when the service asks to go slower: 429, or 503 with a Retry-After.
    pub fn throttled(&self) -> bool {
        self.status == 429 || (self.status == 503 && self.retry_after().is_some())
    }

    /// True when the body claims, and looks, to be JSON (an HTML page served as 200 does not).
    pub fn is_json(&self) -> bool {
        let typed = self.header("content-type").is_none_or(|t| t.to_ascii_lowercase().contains("json")) && self.compression().is_none();
        let first = self.body.iter().copied().find(|b| !b.is_ascii_whitespace() && !matches!(b, 0xef | 0xbb | 0xbf));
        typed && first != Some(b'<')
    }

    /// The body's compression, where there is one: no request asks for any, because a
    /// decompressor would leave copies of secrets behind.
    fn compression(&self) -> Option<String> {
        let word = self.header("content-encoding").map(str::trim).unwrap_or_default();
        (!matches!(word.to_ascii_lowercase().as_str(), "" | "identity")).then(|| crate::model::text::brief(word, 40))
    }

    /// Parses the body; a parse error never quotes the body.
    pub fn json<T: serde::de::DeserializeOwned>(&self, service: &str) -> Result<T, ApiError> {
        if let Some(word) = self.compression() {
            return Err(ApiError::new(ErrorKind::NotTheService, service, format!("the answer is compressed ({word}), which was not asked for"))
                .status(self.status)
                .advice("Something between here and the service changes its answers: check the proxy settings of the connection."));
        }
        if !self.is_json() {
            return Err(ApiError::new(
                ErrorKind::NotTheService,
                service,
                "the answer is not JSON: this address is not the service's API, or a proxy or sign-in page answered instead",
            )
            .status(self.status)
            .advice("Check the endpoint and the proxy settings of the connection."));
        }
        let bytes = self.body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&self.body);
        serde_json::from_slice(bytes).map_err(|e| {
            ApiError::new(
                ErrorKind::NotTheService,
                service,
                format!("the answer is not the JSON that the API documents (line {} column {})", e.line(), e.column()),
            )
            .status(self.status)
            .advice("Check the endpoint and the proxy settings of the connection.")
        })
    }

    /// The body as text for error messages only: first line, without tags, at most 200 characters.
    pub fn excerpt(&self) -> String {
        if let Some(word) = self.compression() {
            return format!("a body compressed with {word}");
        }
        let text = String::from_utf8_lossy(&self.body);
        let mut out = String::new();
        let mut tag = false;
        for c in text.chars().take(4000) {
            match c {
                '<' => tag = true,
                '>' => {
                    tag = false;
                    out.push(' ');
                }
                c if !tag => out.push(c),
                _ => {}
            }
        }
        crate::model::text::brief(&out.split_whitespace().collect::<Vec<_>>().join(" "), 200)
    }

    /// Retry-After in seconds or as an HTTP date (against the answer's own `Date`), capped.
    pub fn retry_after(&self) -> Option<Duration> {
        let text = self.headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
        let wait = match text.parse::<f64>() {
            Ok(seconds) if seconds.is_finite() && seconds >= 0.0 => Duration::from_secs_f64(seconds.min(86_400.0)),
            _ => {
                let until = parse_http_date(text)?;
                let now = self.header("date").and_then(parse_http_date).unwrap_or_else(jiff::Timestamp::now);
                Duration::from_secs(until.as_second().saturating_sub(now.as_second()).max(0) as u64)
            }
        };
        Some(wait.min(RETRY_AFTER_CAP))
    }

    /// Seconds by which this machine's clock is ahead (+) of the server's, from `Date`.
    pub fn clock_skew(&self) -> Option<i64> {
        let server = parse_http_date(self.header("date")?)?;
        Some(jiff::Timestamp::now().as_second() - server.as_second())
    }
}

/// [`Answer::redirect`], for an answer that another library holds.
pub fn redirect(status: u16, location: Option<&str>) -> Option<String> {
    (300..400).contains(&status).then(|| {
        let host = location.and_then(|l| url::Url::parse(l.trim()).ok()).and_then(|u| u.host_str().map(str::to_owned));
        let place = host.map_or_else(|| "another address".to_string(), |h| crate::model::text::brief(&h, 100));
        format!("the answer is a redirect to {place}, which is not followed with a credential")
    })
}

/// Parses an RFC 9110 date.
pub fn parse_http_date(text: &str) -> Option<jiff::Timestamp> {
    jiff::fmt::rfc2822::parse(text).ok().map(|z| z.timestamp())
}

/// Formats an RFC 9110 date.
pub fn http_date(at: jiff::Timestamp) -> String {
    at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

impl Http {
    /// A client for a connection.
    pub fn new(connection: &ResolvedConnection) -> Self {
        Self::with(connection.ca_file.clone(), false)
    }

    /// A client with an optional extra CA file, optionally limited to HTTP/1.1.
    pub fn with(ca_file: Option<String>, http1_only: bool) -> Self {
        Self {
            inner: std::sync::Arc::new(Inner {
                ca_file,
                http1_only,
                timeout: Duration::from_secs(60),
                proxied: OnceLock::new(),
                direct: OnceLock::new(),
            }),
        }
    }

    fn client(&self, url: &url::Url) -> Result<&reqwest::Client, ApiError> {
        // A proxy cannot reach this machine's own services, the metadata service included.
        let direct = is_loopback(url) || matches!(url.host(), Some(url::Host::Ipv4(ip)) if ip.is_link_local());
        let slot = if direct { &self.inner.direct } else { &self.inner.proxied };
        slot.get_or_init(|| self.inner.build(direct)).as_ref().map_err(|e| ApiError::new(ErrorKind::Invalid, "http", e.clone()))
    }

    /// Starts building a request; nothing is sent.
    pub fn request(&self, method: reqwest::Method, url: url::Url) -> Result<reqwest::RequestBuilder, ApiError> {
        Ok(self.client(&url)?.request(method, url))
    }

    /// Sends a call until it is answered for good. `make` builds (and signs) the request of
    /// each attempt. `service` and `call` are the words under which the request is counted.
    ///
    /// Returns the last answer whatever its status: the caller knows what a 404 means. An
    /// error means: no answer (unreachable, timed out, cut off), cancelled, or `make` failed.
    pub async fn send<M>(&self, cx: &Cx, service: &str, call: &str, policy: Policy<'_>, make: M) -> Result<Answer, ApiError>
    where
        M: Fn() -> Result<reqwest::RequestBuilder, ApiError>,
    {
        self.attempts(cx, service, call, policy, make, false).await
    }

    /// [`Self::send`] for a call that was sent before and refused (a rate limit its caller
    /// waited out, a token it renewed): its first attempt counts as a retry.
    pub async fn send_again<M>(&self, cx: &Cx, service: &str, call: &str, policy: Policy<'_>, make: M) -> Result<Answer, ApiError>
    where
        M: Fn() -> Result<reqwest::RequestBuilder, ApiError>,
    {
        self.attempts(cx, service, call, policy, make, true).await
    }

    async fn attempts<M>(&self, cx: &Cx, service: &str, call: &str, policy: Policy<'_>, make: M, again: bool) -> Result<Answer, ApiError>
    where
        M: Fn() -> Result<reqwest::RequestBuilder, ApiError>,
    {
        // Unsure: an earlier attempt may have taken effect, whatever became of the later ones.
        let (mut attempt, mut unsure) = (1, false);
        loop {
            cx.check(service).map_err(|e| e.ambiguous(unsure))?;
            if let Some(pacer) = policy.pacer {
                pacer.ready(cx).await.map_err(|e| e.ambiguous(unsure))?;
            }
            let mut request = make()?.build().map_err(|e| {
                ApiError::new(ErrorKind::Invalid, service, format!("the request could not be built: {}", cx.redact(&e.without_url().to_string())))
            })?;
            // RFC 9110, 8.6: methods that may carry content say that there is none; front ends of
            // Microsoft answer 411 otherwise.
            let bare = request.body().is_none_or(|b| b.as_bytes().is_some_and(<[u8]>::is_empty));
            if bare && matches!(*request.method(), reqwest::Method::POST | reqwest::Method::PUT | reqwest::Method::PATCH) {
                request.headers_mut().insert(reqwest::header::CONTENT_LENGTH, reqwest::header::HeaderValue::from_static("0"));
            }
            let result = self.once(cx, service, call, request, again || attempt > 1).await;
            let last = attempt >= policy.attempts.max(1);
            match result {
                Ok(answer) if (policy.retry)(&answer) => {
                    let throttled = answer.throttled();
                    if let Some(pacer) = policy.pacer.filter(|_| throttled) {
                        pacer.throttled(answer.retry_after());
                    }
                    // Only a 429 says that nothing was done: a 503 may follow a write that was.
                    let may_repeat = policy.repeatable || answer.status == 429;
                    if last || !may_repeat || !cx.spend_retry() {
                        return Ok(answer);
                    }
                    let what = if throttled { "throttled" } else { "server trouble" };
                    let reason = format!("{service} answered {} ({what})", answer.status);
                    cx.wait_to_retry(&reason, answer.retry_after(), attempt).await.map_err(|e| e.ambiguous(unsure))?;
                }
                Ok(answer) => {
                    if let Some(pacer) = policy.pacer {
                        pacer.calm();
                    }
                    return Ok(answer);
                }
                Err(error) => {
                    unsure |= error.ambiguous;
                    let may_repeat = policy.repeatable || !error.ambiguous;
                    if error.kind == ErrorKind::Cancelled || !error.kind.passing() || last || !may_repeat || !cx.spend_retry() {
                        return Err(error.ambiguous(unsure));
                    }
                    cx.wait_to_retry(&format!("{service}: {}", error.message), None, attempt).await.map_err(|e| e.ambiguous(unsure))?;
                }
            }
            attempt += 1;
        }
    }

    async fn once(&self, cx: &Cx, service: &str, call: &str, request: reqwest::Request, retry: bool) -> Result<Answer, ApiError> {
        let sent = request.body().and_then(|b| b.as_bytes()).map_or(0, <[u8]>::len) as u64;
        let client = self.client(request.url())?.clone();
        let _busy = cx.enter(service).await?;
        cx.meter().request(service, call, sent, retry);
        let host = request.url().host_str().unwrap_or("the server").to_string();
        let work = async {
            let mut response = client.execute(request).await.map_err(|e| self.transport(cx, service, &host, &e))?;
            let status = response.status().as_u16();
            let headers = response.headers().clone();
            let announced = response.content_length().and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
            let mut body = Zeroizing::new(Vec::with_capacity(announced.min(FIRST_BUFFER)));
            while let Some(chunk) = response.chunk().await.map_err(|e| self.transport(cx, service, &host, &e))? {
                if body.len() + chunk.len() > BODY_CAP {
                    return Err(
                        ApiError::new(ErrorKind::NotTheService, service, format!("the answer is larger than {} MiB", BODY_CAP >> 20)).status(status)
                    );
                }
                append(&mut body, &chunk);
            }
            cx.meter().received(body.len() as u64);
            let answer = Answer { status, headers, body };
            if let Some(skew) = answer.clock_skew() {
                cx.meter().clock(skew);
            }
            Ok(answer)
        };
        // A call in flight is allowed to finish when the run is cancelled: its effect at the
        // destination must be known. Only waits are cut short.
        work.await
    }

    fn transport(&self, cx: &Cx, service: &str, host: &str, error: &reqwest::Error) -> ApiError {
        let mut deepest = String::new();
        let mut source = std::error::Error::source(error);
        while let Some(inner) = source {
            deepest = inner.to_string();
            source = inner.source();
        }
        let detail = cx.redact(&crate::model::text::brief(&without_links(&deepest), 200));
        if error.is_timeout() {
            let (text, ambiguous) = if error.is_connect() { ("no connection within 10 s", false) } else { ("no complete answer within 60 s", true) };
            return ApiError::new(ErrorKind::Transient, service, format!("{host}: {text}")).ambiguous(ambiguous);
        }
        if error.is_connect() {
            let dns = detail.contains("dns") || detail.contains("lookup") || detail.contains("resolve") || detail.contains("not known");
            let tls = detail.to_lowercase().contains("certificate") || detail.to_lowercase().contains("tls");
            let (kind, advice) = if dns {
                (ErrorKind::Unreachable, "The host name does not resolve: check the address for a typing error, or the machine's DNS.")
            } else if tls {
                (ErrorKind::Invalid, "The server's certificate is not trusted: give the connection a caFile with the authority's certificate.")
            } else {
                (ErrorKind::Unreachable, "Nothing answers there: check the address, the port, the network and the proxy settings.")
            };
            return ApiError::new(kind, service, format!("cannot connect to {host}: {detail}")).advice(advice);
        }
        ApiError::new(ErrorKind::Transient, service, format!("{host}: the connection broke before the answer was complete ({detail})"))
            .ambiguous(true)
    }
}

/// A library's words without the addresses of its manual.
fn without_links(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().filter(|word| !word.contains("://")).collect();
    words.join(" ").trim_end_matches([':', ' ']).to_string()
}

impl Inner {
    fn build(&self, direct: bool) -> Result<reqwest::Client, String> {
        // A second install fails because the first one stands: both are ring.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("kms-sync/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(10))
            .timeout(self.timeout)
            .pool_idle_timeout(Duration::from_secs(30));
        if direct {
            builder = builder.no_proxy();
        }
        if self.http1_only {
            builder = builder.http1_only();
        }
        if let Some(path) = &self.ca_file {
            builder = builder.tls_certs_merge(authorities(path)?);
        }
        builder.build().map_err(|e| format!("TLS could not be set up: {e}"))
    }
}

/// The certificates of a connection's `caFile`, which is PEM text; an error says what is wrong with it.
pub fn authorities(path: &str) -> Result<Vec<reqwest::Certificate>, String> {
    let pem = std::fs::read(path).map_err(|e| format!("caFile {path}: {e}"))?;
    match reqwest::Certificate::from_pem_bundle(&pem) {
        Ok(certificates) if certificates.is_empty() => Err(format!("caFile {path}: holds no certificate")),
        Ok(certificates) => Ok(certificates),
        Err(_) => Err(format!("caFile {path}: not a PEM certificate bundle")),
    }
}

/// Appends to a buffer that may hold secrets. A vector that grows by itself leaves its old
/// memory behind as it is; this one wipes it.
fn append(body: &mut Zeroizing<Vec<u8>>, chunk: &[u8]) {
    let needed = body.len() + chunk.len();
    if needed > body.capacity() {
        let mut larger = Zeroizing::new(Vec::with_capacity(needed.max(body.capacity() * 2)));
        larger.extend_from_slice(body);
        *body = larger;
    }
    body.extend_from_slice(chunk);
}

/// A wait's reason as it is shown, for a wait that a server asked for: it says when the wait is as
/// long as waits may be ([`RETRY_AFTER_CAP`]), so that the server may have asked for more.
pub fn asked(reason: &str, wait: Option<Duration>) -> String {
    match wait {
        Some(wait) if wait >= RETRY_AFTER_CAP => {
            format!("{reason}; it asked for {} min or more, and no wait is longer", RETRY_AFTER_CAP.as_secs() / 60)
        }
        _ => reason.to_string(),
    }
}

/// Exponential backoff with full jitter: base 0.5 s, cap 30 s.
pub fn backoff(attempt: u32) -> Duration {
    let ceiling = (0.5 * f64::from(2u32.saturating_pow(attempt.saturating_sub(1).min(16)))).min(30.0);
    Duration::from_secs_f64(rand::random::<f64>() * ceiling)
}

/// True when `link` may be followed with `base`'s credentials: same scheme, host and port.
pub fn same_origin(base: &url::Url, link: &url::Url) -> bool {
    base.scheme() == link.scheme()
        && base.host_str().map(str::to_ascii_lowercase) == link.host_str().map(str::to_ascii_lowercase)
        && base.port_or_known_default() == link.port_or_known_default()
        && link.username().is_empty()
        && link.password().is_none()
}

/// Appends percent-encoded path segments to a base URL that may have a path of its own.
pub fn join(base: &url::Url, segments: &[&str]) -> url::Url {
    let mut url = base.clone();
    url.set_query(None);
    url.set_fragment(None);
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(segments);
    }
    url
}

#[cfg(test)]
mod tests;
