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

/// Where the server says that something changed; what it leaves out may be anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub project_id: String,
    pub environment: Option<String>,
    /// The folder.
    pub path: Option<String>,
}

impl Change {
    /// Somewhere in a project.
    fn within(project: &str) -> Self {
        Self { project_id: project.to_string(), environment: None, path: None }
    }

    /// True when it may have changed what is read at this place.
    pub fn concerns(&self, place: &SourceRef) -> bool {
        let folder = tidy(&place.path);
        let below = |path: &str| place.recursive && path.starts_with(&format!("{}/", folder.trim_end_matches('/')));
        self.project_id == place.project_id
            && self.environment.as_ref().is_none_or(|e| *e == place.environment)
            && self.path.as_ref().is_none_or(|p| tidy(p) == folder || below(tidy(p)))
    }

    /// What the data of an event tells. Builds of the server differ in it: what is not understood
    /// is anywhere in the project.
    fn read(project: &str, data: &str) -> Vec<Self> {
        let document: Value = serde_json::from_str(data).unwrap_or_default();
        let payload = &document["data"]["payload"];
        let entries = payload.as_array().map_or_else(|| std::slice::from_ref(payload), Vec::as_slice);
        let text = |entry: &Value, member: &str| entry[member].as_str().map(str::to_string);
        let change = |e: &Value| Self { environment: text(e, "environment"), path: text(e, "secretPath"), ..Self::within(project) };
        if entries.is_empty() { vec![Self::within(project)] } else { entries.iter().map(change).collect() }
    }
}

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
    project: String,
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
    /// Waits for a hint about one of the places. `None`: there will be none, poll only.
    pub async fn wait_for_hint(&self, cx: &Cx, places: &[SourceRef]) -> Result<Option<Vec<Change>>, ApiError> {
        let off = self.events.off.load(Ordering::Relaxed) || self.auth.is_service_token() || self.api() == Api::V3;
        if off || places.is_empty() {
            return Ok(None);
        }
        let wanted = subscriptions(places);
        let mut open = tokio::select! {
            () = cx.cancel_token().cancelled() => return Err(ApiError::cancelled(SERVICE)),
            open = self.events.open.lock() => open,
        };
        open.retain(|s| wanted.iter().any(|(_, body)| *body == s.body));
        loop {
            let mut reconnected = Vec::new();
            for (project, body) in &wanted {
                while !open.iter().any(|s| s.body == *body) {
                    match self.open_stream(cx, project, body).await? {
                        Opened::Open(subscription) => {
                            if self.events.failures.load(Ordering::Relaxed) > 0 {
                                reconnected.push(Change::within(project));
                            }
                            open.push(*subscription);
                        }
                        Opened::Never(error) => {
                            tracing::debug!(%error, "no event stream; polling only");
                            self.events.off.store(true, Ordering::Relaxed);
                            open.clear();
                            return Ok(None);
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
            if !reconnected.is_empty() {
                self.events.failures.store(0, Ordering::Relaxed);
                return Ok(Some(reconnected));
            }
            let heard = {
                let listening = open.iter_mut().map(|s| Box::pin(s.listen()));
                tokio::select! {
                    () = cx.cancel_token().cancelled() => return Err(ApiError::cancelled(SERVICE)),
                    (heard, index, _) = futures::future::select_all(listening) => (heard, index),
                }
            };
            match heard {
                (Heard::Changes(changes), _) => {
                    self.events.failures.store(0, Ordering::Relaxed);
                    return Ok(Some(changes));
                }
                (Heard::End, index) => {
                    open.remove(index);
                    let failures = self.events.failures.fetch_add(1, Ordering::Relaxed);
                    pause(cx, reconnect_after(failures)).await?;
                }
            }
        }
    }

    async fn open_stream(&self, cx: &Cx, project: &str, body: &str) -> Result<Opened, ApiError> {
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
                let (project, body) = (project.to_string(), body.to_string());
                let subscription = Subscription { project, body, response, frames: Frames::default(), heard_at: Instant::now() };
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

/// Each project with its request body: its places, or the whole project when they are too many.
fn subscriptions(places: &[SourceRef]) -> Vec<(String, String)> {
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
        (project.to_string(), json!({ "projectId": project, "register": register }).to_string())
    });
    bodies.collect()
}

enum Heard {
    Changes(Vec<Change>),
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
                        Said::Events(events) => return Heard::Changes(events.iter().flat_map(|e| Change::read(&self.project, e)).collect()),
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
    /// The data of each.
    Events(Vec<String>),
    End,
}

/// Puts lines and frames together.
#[derive(Default)]
struct Frames {
    line: Vec<u8>,
    name: String,
    data: Option<String>,
}

impl Frames {
    fn push(&mut self, bytes: &[u8]) -> Said {
        let mut said = Said::Nothing;
        for byte in bytes {
            match byte {
                b'\n' => {
                    let line = std::mem::take(&mut self.line);
                    said = match (said, self.end_of_line(&String::from_utf8_lossy(&line))) {
                        (Said::End, _) | (_, Said::End) => Said::End,
                        (Said::Events(before), Said::Events(now)) => Said::Events([before, now].concat()),
                        (said, Said::Nothing) | (Said::Nothing, said) => said,
                    };
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
                "" if data.is_none() => Said::Nothing,
                _ => Said::Events(vec![data.unwrap_or_default()]),
            };
        }
        if let Some(name) = line.strip_prefix("event:") {
            self.name = name.trim().to_string();
        } else if let Some(data) = line.strip_prefix("data:") {
            let kept = self.data.get_or_insert_default();
            // What is cut is no JSON, and then it may be anything that changed.
            if kept.len() < LONGEST_LINE {
                kept.push_str(data);
                kept.push('\n');
            }
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
        let event = |data: &str| Said::Events(vec![format!("{data}\n")]);
        assert_eq!(frames.push(b"ta: {\"x\":1}\n\n"), event(" {\"x\":1}"));
        assert_eq!(frames.push(b"11event: ping\ndata: 1\n\n"), Said::Nothing);
        assert_eq!(frames.push(b": comment\n\n1\n\n"), Said::Nothing);
        assert_eq!(frames.push(b"data: {}\r\n\r\n"), event(" {}"));
        assert_eq!(frames.push(b"event: error\ndata: {}\n\n"), Said::End);
        for _ in 0..1000 {
            frames.push(b"1");
        }
        assert!(frames.line.len() <= 65);
        assert_eq!(frames.push(b"event: secret:create\ndata: {}\n\n"), event(" {}"));
    }

    #[test]
    fn an_event_concerns_the_places_that_it_names() {
        let of = |data: &str, place: &SourceRef| Change::read("p", data).iter().any(|c| c.concerns(place));
        let event = r#" {"data":{"payload":[{"environment":"dev","secretPath":"/app/","secretKey":"A"},{"environment":"prod","secretPath":"/"}]}}"#;
        let one = r#"{"data":{"payload":{"environment":"dev","secretPath":"/app/deep"}}}"#;
        for (data, place, concerned) in [
            (event, place("dev", "/app", false), true),
            (event, place("dev", "/application", true), false),
            (event, place("dev", "/", false), false),
            (event, place("dev", "/", true), true),
            (event, place("prod", "/", false), true),
            (event, place("prod", "/app", false), false),
            (one, place("dev", "/app", false), false),
            (one, place("dev", "/app/", true), true),
            // What is not told may be anything.
            (r#"{"data":{"payload":[{"environment":"dev"}]}}"#, place("dev", "/x", false), true),
            (r#"{"data":{"payload":[{"environment":"dev"}]}}"#, place("prod", "/x", false), false),
            (r#"{"data":{"payload":[]}}"#, place("prod", "/x", false), true),
            ("no JSON", place("prod", "/x", false), true),
        ] {
            assert_eq!(of(data, &place), concerned, "{data} {place:?}");
        }
        let elsewhere = SourceRef { project_id: "q".into(), ..place("dev", "/app", false) };
        assert!(!of(event, &elsewhere) && !of("no JSON", &elsewhere));
    }

    #[test]
    fn conditions_always_name_the_environment() {
        let bodies = subscriptions(&[place("dev", "/app/", false), place("prod", "/", false)]);
        let body: Value = serde_json::from_str(&bodies[0].1).expect("json");
        assert_eq!(body["register"].as_array().map(Vec::len), Some(8));
        assert_eq!(body["register"][0]["conditions"], json!({"environmentSlug": "dev", "secretPath": "/app"}));
        let deep = subscriptions(&[place("dev", "/", true)]);
        assert!(deep[0].1.contains("\"/**\""), "{deep:?}");
        let many: Vec<_> = (0..3).map(|i| place("dev", &format!("/{i}"), false)).collect();
        let body: Value = serde_json::from_str(&subscriptions(&many)[0].1).expect("json");
        assert_eq!(body["register"].as_array().map(Vec::len), Some(4));
        assert!(body["register"][0].get("conditions").is_none());
    }

    #[test]
    fn reconnecting_slows_down() {
        assert!(reconnect_after(0) <= Duration::from_secs(2));
        assert!(reconnect_after(30) <= Duration::from_secs(60) && reconnect_after(30) >= Duration::from_secs(30));
    }
}
