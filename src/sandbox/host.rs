//! Puts a service's router on a loopback port, with switchable faults and a request log.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use tokio_util::sync::CancellationToken;

/// A running service.
pub struct Host {
    /// `http://127.0.0.1:PORT`, without trailing slash.
    pub url: String,
    pub addr: SocketAddr,
    pub faults: Faults,
    pub log: RequestLog,
    stop: CancellationToken,
}

impl Host {
    /// Serves `router` on a free loopback port (or on `port`, when given).
    pub async fn start(router: axum::Router, port: Option<u16>) -> std::io::Result<Host> {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port.unwrap_or(0))).await?;
        let addr = listener.local_addr()?;
        let (faults, log, stop) = (Faults::default(), RequestLog::default(), CancellationToken::new());
        let app = wrap(router, &faults, &log);
        let ending = stop.clone();
        tokio::spawn(async move {
            let server = axum::serve(listener, app).with_graceful_shutdown(async move { ending.cancelled().await });
            if let Err(error) = server.await {
                tracing::warn!(%error, "a sandbox service ended");
            }
        });
        Ok(Host { url: format!("http://{addr}"), addr, faults, log, stop })
    }
}

/// Adds the fault and logging layers to a router (for services that bring their own listener).
pub fn wrap(router: axum::Router, faults: &Faults, log: &RequestLog) -> axum::Router {
    router.layer(axum::middleware::from_fn_with_state((faults.clone(), log.clone()), around))
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn around(State((faults, log)): State<(Faults, RequestLog)>, request: Request, next: Next) -> Response {
    let line = format!("{} {}", request.method(), request.uri().path_and_query().map_or("/", |p| p.as_str()));
    let call = request.headers().get("x-amz-target").and_then(|t| t.to_str().ok()).map_or(line.clone(), |t| format!("{line} {t}"));
    let _in_hand = log.begin(&call);
    let response = carried_out(&faults, &call, request, next).await;
    if response.status().is_client_error() || response.status().is_server_error() {
        lock(&log.0).refused.push(Refused { call, status: response.status().as_u16(), headers: response.headers().clone() });
    }
    response
}

async fn carried_out(faults: &Faults, call: &str, request: Request, next: Next) -> Response {
    let hits = faults.take(call);
    let mut after = None;
    for effect in hits {
        match effect {
            Effect::Delay(time) => tokio::time::sleep(time).await,
            Effect::Answer { status, headers, body } => return answer(status, &headers, body),
            Effect::Reset => return broken(StatusCode::OK, Vec::new()),
            other => after = Some(other),
        }
    }
    let response = next.run(request).await;
    match after {
        None => response,
        // The request was carried out; its answer is lost.
        Some(Effect::LostAnswer) => broken(StatusCode::OK, Vec::new()),
        Some(Effect::LateAnswer(time)) => {
            tokio::time::sleep(time).await;
            response
        }
        Some(Effect::Done { status, headers }) => answer(status, &headers, String::new()),
        Some(Effect::HalfBody) => {
            let status = response.status();
            let whole = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap_or_default();
            broken(status, whole[..whole.len() / 2].to_vec())
        }
        Some(_) => response,
    }
}

fn answer(status: u16, headers: &[(String, String)], body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// An answer whose body breaks off after `part`: the client sees the connection die.
fn broken(status: StatusCode, part: Vec<u8>) -> Response {
    let chunks = futures::stream::iter([Ok(bytes::Bytes::from(part)), Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset))]);
    let mut response = Response::new(Body::from_stream(chunks));
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
    response
}

/// What a fault does.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Answers late.
    Delay(Duration),
    /// Answers this instead; the service never sees the request.
    Answer { status: u16, headers: Vec<(String, String)>, body: String },
    /// The connection dies before the service sees the request.
    Reset,
    /// The service carries the request out, and the answer is lost.
    LostAnswer,
    /// The service carries the request out at once, and answers late.
    LateAnswer(Duration),
    /// Half of the answer's body arrives.
    HalfBody,
    /// The service carries the request out, and something in between answers this, without a body.
    Done { status: u16, headers: Vec<(String, String)> },
}

impl Effect {
    /// An answer without headers of its own.
    pub fn status(status: u16, body: impl Into<String>) -> Self {
        Self::Answer { status, headers: Vec::new(), body: body.into() }
    }

    /// A write is carried out, and its answer is a 503 that asks to wait so many seconds.
    pub fn done_but_busy(seconds: &str) -> Self {
        Self::Done { status: 503, headers: vec![("retry-after".into(), seconds.into())] }
    }
}

/// A fault and when it strikes.
#[derive(Debug, Clone)]
pub struct Fault {
    /// Strikes only requests whose `METHOD /path?query [x-amz-target]` contains this; empty: all.
    pub on: String,
    /// Requests it lets pass first.
    pub skip: u32,
    /// How many requests it strikes; `None`: all.
    pub times: Option<u32>,
    /// Chance to strike, 0 to 1.
    pub chance: f64,
    pub effect: Effect,
}

impl Fault {
    /// Strikes the next `times` requests that contain `on`.
    pub fn next(on: &str, times: u32, effect: Effect) -> Self {
        Self { on: on.to_string(), skip: 0, times: Some(times), chance: 1.0, effect }
    }

    /// Strikes every request that contains `on`, with a chance.
    pub fn always(on: &str, chance: f64, effect: Effect) -> Self {
        Self { on: on.to_string(), skip: 0, times: None, chance, effect }
    }

    /// Lets `n` matching requests pass first.
    pub fn after(mut self, n: u32) -> Self {
        self.skip = n;
        self
    }
}

/// The switchboard of faults.
#[derive(Clone, Default)]
pub struct Faults(Arc<Mutex<Vec<Fault>>>);

impl Faults {
    /// Switches a fault on.
    pub fn add(&self, fault: Fault) {
        lock(&self.0).push(fault);
    }

    /// Switches all faults off.
    pub fn clear(&self) {
        lock(&self.0).clear();
    }

    fn take(&self, call: &str) -> Vec<Effect> {
        let mut faults = lock(&self.0);
        let mut effects = Vec::new();
        for fault in faults.iter_mut() {
            if !call.contains(&fault.on) || fault.times == Some(0) {
                continue;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
                continue;
            }
            if fault.chance < 1.0 && rand::random::<f64>() >= fault.chance {
                continue;
            }
            if let Some(times) = &mut fault.times {
                *times -= 1;
            }
            effects.push(fault.effect.clone());
        }
        faults.retain(|f| f.times != Some(0));
        effects
    }
}

/// Every request a service received, faults included.
#[derive(Clone, Default)]
pub struct RequestLog(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    lines: Vec<String>,
    refused: Vec<Refused>,
    in_hand: usize,
    most: usize,
}

/// A request that was answered with an error.
#[derive(Debug, Clone)]
pub struct Refused {
    /// Its line of the log.
    pub call: String,
    pub status: u16,
    /// The answer's headers.
    pub headers: axum::http::HeaderMap,
}

/// A request in hand, until it is answered or its caller is gone.
struct InHand(RequestLog);

impl Drop for InHand {
    fn drop(&mut self) {
        lock(&self.0.0).in_hand -= 1;
    }
}

impl RequestLog {
    fn begin(&self, call: &str) -> InHand {
        let mut kept = lock(&self.0);
        kept.lines.push(call.to_string());
        kept.in_hand += 1;
        kept.most = kept.most.max(kept.in_hand);
        InHand(self.clone())
    }

    /// All lines since the last [`Self::clear`]: `METHOD /path?query [x-amz-target]`.
    pub fn lines(&self) -> Vec<String> {
        lock(&self.0).lines.clone()
    }

    /// How many lines contain `what`.
    pub fn count(&self, what: &str) -> usize {
        lock(&self.0).lines.iter().filter(|l| l.contains(what)).count()
    }

    /// Counts by method.
    pub fn by_method(&self) -> BTreeMap<String, usize> {
        let mut out = BTreeMap::new();
        for line in &lock(&self.0).lines {
            *out.entry(line.split(' ').next().unwrap_or_default().to_string()).or_default() += 1;
        }
        out
    }

    /// The requests answered with an error since the last [`Self::clear`].
    pub fn refused(&self) -> Vec<Refused> {
        lock(&self.0).refused.clone()
    }

    /// The most requests that were in hand at once since the last [`Self::clear`].
    pub fn most_at_once(&self) -> usize {
        lock(&self.0).most
    }

    /// Forgets everything.
    pub fn clear(&self) {
        let mut kept = lock(&self.0);
        *kept = Kept { in_hand: kept.in_hand, most: kept.in_hand, ..Kept::default() };
    }
}

/// Locks a mutex; a panic elsewhere does not stop the sandbox.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
