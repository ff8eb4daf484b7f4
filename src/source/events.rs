//! The server's event stream: a hint that polling now is worth while, never the truth.
//!
//! The stream is kept open between two questions, so that nothing is missed while the engine
//! polls. Servers without it (or plans, or rights) are remembered for the session. Its
//! keep-alive is a bare `1` without a line end, which glues itself to the next line.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::SourceRef;
use super::client::{Api, Kms};
use super::errors::{Refusal, SERVICE};
use super::shapes::tidy;
use crate::http::{Answer, ApiError, Cx, ErrorKind, join};

const LABEL: &str = "POST /api/v1/events/subscribe/project-events";
const EVENTS: [&str; 4] = ["secret:create", "secret:update", "secret:delete", "secret:import-mutation"];
/// Entries one subscription may register.
const MOST_ENTRIES: usize = 10;
/// Without a byte for this long (the keep-alive comes every 15 s) the stream is dead.
const SILENCE: Duration = Duration::from_secs(90);
/// How long one stream is held at most, so that the HTTP client's own time limit never cuts it.
const LIFE: Duration = Duration::from_secs(24 * 3600);
/// A line longer than this is no event.
const LONGEST_LINE: usize = 1 << 20;
/// How much of a refusal is read.
const LONGEST_REFUSAL: usize = 64 * 1024;

/// The session's streams.
#[derive(Default)]
pub(super) struct Events {
    /// The server (its plan, our rights) offers none.
    off: AtomicBool,
    /// Connections lost or refused in a row.
    failures: AtomicU32,
    open: tokio::sync::Mutex<Vec<Subscription>>,
}

struct Subscription {
    /// The request body: equal bodies are one subscription.
    body: String,
    response: reqwest::Response,
    frames: Frames,
    heard_at: Instant,
}

/// What opening a stream came to.
enum Opened {
    Open(Box<Subscription>),
    /// Not offered, for good.
    Never(ApiError),
    /// Perhaps later.
    Later(ApiError),
}

impl Kms {
    /// Waits for a hint about one of the places. `false`: there will be none, poll only.
    pub async fn wait_for_hint(&self, cx: &Cx, places: &[SourceRef]) -> Result<bool, ApiError> {
        let off = self.events.off.load(Ordering::Relaxed) || self.auth.is_service_token() || self.api() == Api::V3;
        if off || places.is_empty() {
            return Ok(false);
        }
        let wanted = subscriptions(places);
        let mut open = tokio::select! {
            () = cx.cancel_token().cancelled() => return Err(ApiError::cancelled(SERVICE)),
            open = self.events.open.lock() => open,
        };
        open.retain(|s| wanted.contains(&s.body));
        loop {
            let mut reconnected = false;
            for body in &wanted {
                while !open.iter().any(|s| s.body == *body) {
                    match self.open_stream(cx, body).await? {
                        Opened::Open(subscription) => {
                            reconnected |= self.events.failures.load(Ordering::Relaxed) > 0;
                            open.push(*subscription);
                        }
                        Opened::Never(error) => {
                            tracing::debug!(%error, "no event stream; polling only");
                            self.events.off.store(true, Ordering::Relaxed);
                            open.clear();
                            return Ok(false);
                        }
                        Opened::Later(error) => {
                            let failures = self.events.failures.fetch_add(1, Ordering::Relaxed);
                            tracing::debug!(%error, failures, "the event stream could not be opened");
                            pause(cx, error.retry_after.unwrap_or_else(|| reconnect_after(failures))).await?;
                        }
                    }
                }
            }
            // What happened while the stream was down was told to nobody.
            if reconnected {
                self.events.failures.store(0, Ordering::Relaxed);
                return Ok(true);
            }
            let heard = {
                let listening = open.iter_mut().map(|s| Box::pin(s.listen()));
                tokio::select! {
                    () = cx.cancel_token().cancelled() => return Err(ApiError::cancelled(SERVICE)),
                    (heard, index, _) = futures::future::select_all(listening) => (heard, index),
                }
            };
            match heard {
                (Heard::Event, _) => {
                    self.events.failures.store(0, Ordering::Relaxed);
                    return Ok(true);
                }
                (Heard::End, index) => {
                    open.remove(index);
                    let failures = self.events.failures.fetch_add(1, Ordering::Relaxed);
                    pause(cx, reconnect_after(failures)).await?;
                }
            }
        }
    }

    async fn open_stream(&self, cx: &Cx, body: &str) -> Result<Opened, ApiError> {
        let mut repeated = false;
        loop {
            let ticket = match self.auth.ticket(cx, &self.wire).await {
                Ok(ticket) => ticket,
                Err(refusal) if refusal.kind().passing() => return Ok(Opened::Later(refusal.into())),
                Err(refusal) => return Err(refusal.into()),
            };
            let url = join(&self.wire.base, &["api", "v1", "events", "subscribe", "project-events"]);
            cx.meter().request(SERVICE, LABEL, body.len() as u64, repeated);
            let sent = self
                .wire
                .http
                .request(reqwest::Method::POST, url)?
                .bearer_auth(ticket.bearer.expose())
                .header("accept", "text/event-stream")
                .header("content-type", "application/json")
                .timeout(LIFE)
                .body(body.to_string())
                .send();
            let sent = tokio::select! {
                () = cx.cancel_token().cancelled() => return Err(ApiError::cancelled(SERVICE)),
                sent = tokio::time::timeout(SILENCE, sent) => sent,
            };
            let Ok(Ok(response)) = sent else {
                return Ok(Opened::Later(ApiError::new(ErrorKind::Transient, SERVICE, "the event stream could not be reached")));
            };
            let typed = response.headers().get("content-type").and_then(|t| t.to_str().ok()).unwrap_or_default().to_ascii_lowercase();
            if response.status().is_success() && typed.starts_with("text/event-stream") {
                self.auth.proven(ticket.number).await;
                let subscription = Subscription { body: body.to_string(), response, frames: Frames::default(), heard_at: Instant::now() };
                return Ok(Opened::Open(Box::new(subscription)));
            }
            let refusal = Refusal::read(cx, &whole(response).await);
            if refusal.dead_token() && !repeated && self.auth.dead(ticket.number).await {
                repeated = true;
                continue;
            }
            let error = refusal.error;
            return Ok(if error.kind.passing() { Opened::Later(error) } else { Opened::Never(error) });
        }
    }
}

/// Waits without a word: nobody waits for a hint.
async fn pause(cx: &Cx, time: Duration) -> Result<(), ApiError> {
    tokio::select! {
        () = cx.cancel_token().cancelled() => Err(ApiError::cancelled(SERVICE)),
        () = tokio::time::sleep(time) => Ok(()),
    }
}

/// 2 s, doubled up to 60 s, with jitter.
fn reconnect_after(failures: u32) -> Duration {
    let ceiling = (2.0 * f64::from(2u32.saturating_pow(failures.min(8)))).min(60.0);
    Duration::from_secs_f64(ceiling * (0.5 + rand::random::<f64>() / 2.0))
}

async fn whole(mut response: reqwest::Response) -> Answer {
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let mut body = Vec::new();
    while let Ok(Ok(Some(chunk))) = tokio::time::timeout(Duration::from_secs(10), response.chunk()).await {
        body.extend_from_slice(&chunk);
        if body.len() > LONGEST_REFUSAL {
            break;
        }
    }
    Answer { status, headers, body: Zeroizing::new(body) }
}

/// One request body per project: its places, or the whole project when they are too many.
fn subscriptions(places: &[SourceRef]) -> Vec<String> {
    let mut projects: Vec<&str> = places.iter().map(|p| p.project_id.as_str()).collect();
    projects.sort_unstable();
    projects.dedup();
    let bodies = projects.into_iter().map(|project| {
        let mut conditions: Vec<Value> = places
            .iter()
            .filter(|p| p.project_id == project)
            .flat_map(|p| {
                let path = tidy(&p.path);
                let below = p.recursive.then(|| format!("{}/**", path.trim_end_matches('/')));
                std::iter::once(path.to_string()).chain(below).map(|path| json!({ "environmentSlug": p.environment, "secretPath": path }))
            })
            .collect();
        conditions.dedup();
        let mut register: Vec<Value> = conditions.iter().flat_map(|c| EVENTS.iter().map(move |e| json!({ "event": e, "conditions": c }))).collect();
        if register.len() > MOST_ENTRIES {
            register = EVENTS.iter().map(|e| json!({ "event": e })).collect();
        }
        json!({ "projectId": project, "register": register }).to_string()
    });
    bodies.collect()
}

enum Heard {
    Event,
    End,
}

impl Subscription {
    /// Reads until something is said. Safe to drop between chunks.
    async fn listen(&mut self) -> Heard {
        loop {
            match tokio::time::timeout_at(self.heard_at + SILENCE, self.response.chunk()).await {
                Ok(Ok(Some(chunk))) => {
                    self.heard_at = Instant::now();
                    match self.frames.push(&chunk) {
                        Said::Nothing => {}
                        Said::Event => return Heard::Event,
                        Said::End => return Heard::End,
                    }
                }
                Ok(Ok(None) | Err(_)) | Err(_) => return Heard::End,
            }
        }
    }
}

/// What bytes of the stream came to.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Nothing,
    Event,
    End,
}

/// Puts lines and frames together.
#[derive(Default)]
struct Frames {
    line: Vec<u8>,
    name: String,
    data: bool,
}

impl Frames {
    fn push(&mut self, bytes: &[u8]) -> Said {
        let mut said = Said::Nothing;
        for byte in bytes {
            match byte {
                b'\n' => {
                    let line = std::mem::take(&mut self.line);
                    match self.end_of_line(&String::from_utf8_lossy(&line)) {
                        Said::Nothing => {}
                        Said::Event if said == Said::Nothing => said = Said::Event,
                        Said::Event => {}
                        Said::End => said = Said::End,
                    }
                }
                b'\r' => {}
                _ if self.line.len() >= LONGEST_LINE => return Said::End,
                byte => self.line.push(*byte),
            }
        }
        // Keep-alive bytes without an event behind them would pile up for days.
        if self.line.len() > 64 && self.line.iter().all(|b| *b == b'1') {
            self.line.truncate(1);
        }
        said
    }

    fn end_of_line(&mut self, line: &str) -> Said {
        let unglued = line.trim_start_matches('1');
        let line = if ["id:", "event:", "data:", ":"].iter().any(|field| unglued.starts_with(field)) || unglued.is_empty() { unglued } else { line };
        if line.is_empty() {
            let (name, data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
            return match name.as_str() {
                "ping" => Said::Nothing,
                "error" => Said::End,
                "" if !data => Said::Nothing,
                _ => Said::Event,
            };
        }
        if let Some(name) = line.strip_prefix("event:") {
            self.name = name.trim().to_string();
        } else if line.starts_with("data:") {
            self.data = true;
        }
        Said::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(environment: &str, path: &str, recursive: bool) -> SourceRef {
        SourceRef { project_id: "p".into(), environment: environment.into(), path: path.into(), recursive }
    }

    #[test]
    fn glued_keep_alives_are_taken_off() {
        let mut frames = Frames::default();
        assert_eq!(frames.push(b"1"), Said::Nothing);
        assert_eq!(frames.push(b"1id: 2026\nevent: secret:update\nda"), Said::Nothing);
        assert_eq!(frames.push(b"ta: {\"x\":1}\n\n"), Said::Event);
        assert_eq!(frames.push(b"11event: ping\ndata: 1\n\n"), Said::Nothing);
        assert_eq!(frames.push(b": comment\n\n1\n\n"), Said::Nothing);
        assert_eq!(frames.push(b"data: {}\r\n\r\n"), Said::Event);
        assert_eq!(frames.push(b"event: error\ndata: {}\n\n"), Said::End);
        for _ in 0..1000 {
            frames.push(b"1");
        }
        assert!(frames.line.len() <= 65);
        assert_eq!(frames.push(b"event: secret:create\ndata: {}\n\n"), Said::Event);
    }

    #[test]
    fn conditions_always_name_the_environment() {
        let bodies = subscriptions(&[place("dev", "/app/", false), place("prod", "/", false)]);
        let body: Value = serde_json::from_str(&bodies[0]).expect("json");
        assert_eq!(body["register"].as_array().map(Vec::len), Some(8));
        assert_eq!(body["register"][0]["conditions"], json!({"environmentSlug": "dev", "secretPath": "/app"}));
        let deep = subscriptions(&[place("dev", "/", true)]);
        assert!(deep[0].contains("\"/**\""), "{deep:?}");
        let many: Vec<_> = (0..3).map(|i| place("dev", &format!("/{i}"), false)).collect();
        let body: Value = serde_json::from_str(&subscriptions(&many)[0]).expect("json");
        assert_eq!(body["register"].as_array().map(Vec::len), Some(4));
        assert!(body["register"][0].get("conditions").is_none());
    }

    #[test]
    fn reconnecting_slows_down() {
        assert!(reconnect_after(0) <= Duration::from_secs(2));
        assert!(reconnect_after(30) <= Duration::from_secs(60) && reconnect_after(30) >= Duration::from_secs(30));
    }
}
