//! The event stream: what changed, to whom it is told, and its odd keep-alive.

use std::collections::HashMap;
use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderValue;
use axum::response::Response;
use serde_json::{Value, json};
use tokio::sync::broadcast;

use super::db::tidy;
use super::route::{Call, Refused, Why};
use super::{Right, State};

/// Streams one identity may hold in one project.
const MOST_STREAMS: usize = 5;

/// What happened to a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Created,
    Updated,
    Deleted,
    /// Something that the folder imports changed.
    Imports,
    /// Ends all streams.
    End,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Created => "secret:create",
            Self::Updated => "secret:update",
            Self::Deleted => "secret:delete",
            Self::Imports => "secret:import-mutation",
            Self::End => "error",
        }
    }
}

/// One happening.
#[derive(Debug, Clone)]
pub(super) struct Happening {
    pub kind: Kind,
    pub project: String,
    pub environment: String,
    pub path: String,
    pub key: String,
}

impl Happening {
    pub fn new(kind: Kind, project: &str, environment: &str, path: &str, key: &str) -> Self {
        Self { kind, project: project.into(), environment: environment.into(), path: tidy(path), key: key.into() }
    }

    pub fn end() -> Self {
        Self::new(Kind::End, "", "", "/", "")
    }
}

/// What one stream wants to hear.
struct Wanted {
    event: String,
    /// Environment (empty when it was left out, which matches nothing) and path pattern.
    place: Option<(String, String)>,
}

impl Wanted {
    fn fits(&self, happening: &Happening) -> bool {
        let place = self.place.as_ref().is_none_or(|(environment, pattern)| {
            let below = pattern.strip_suffix("/**").unwrap_or("\u{0}");
            *environment == happening.environment
                && (tidy(pattern) == happening.path || happening.path.starts_with(&format!("{}/", below)) || happening.path == below)
        });
        self.event == happening.kind.word() && place
    }
}

/// Counts an open stream while it lives.
struct Slot {
    state: State,
    name: (String, String),
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(count) = self.state.db().streams.get_mut(&self.name) {
            *count = count.saturating_sub(1);
        }
    }
}

impl State {
    pub(super) fn subscribe(&self, call: &Call) -> Result<Response, Refused> {
        let identity = self.identity(call)?;
        let project = call.text("projectId")?.to_string();
        let entries = call.body.get("register").and_then(Value::as_array).filter(|r| (1..=10).contains(&r.len()));
        let entries = entries.ok_or_else(|| Refused::invalid(&[("register", "Array must contain 1 to 10 elements")]))?;
        let wanted: Vec<Wanted> = entries
            .iter()
            .map(|entry| {
                let place = entry.get("conditions").filter(|c| c.is_object()).map(|c| {
                    let text = |name: &str| c.get(name).and_then(Value::as_str).unwrap_or_default().to_string();
                    (text("environmentSlug"), if c.get("secretPath").is_some() { text("secretPath") } else { "/".to_string() })
                });
                Wanted { event: entry.get("event").and_then(Value::as_str).unwrap_or_default().to_string(), place }
            })
            .collect();
        if let Some(i) =
            wanted.iter().position(|w| !matches!(w.event.as_str(), "secret:create" | "secret:update" | "secret:delete" | "secret:import-mutation"))
        {
            return Err(Refused::invalid(&[(&format!("register.{i}.event"), "Invalid enum value")]));
        }
        if !self.db().switches.events {
            return Err(Refused::new(
                Why::BadRequest,
                "Failed to subscribe: event subscriptions are not available on your current plan. Upgrade your plan.",
            ));
        }
        self.allow(Right::Subscribe, "subscribe", "secrets")?;
        let name = (project.clone(), identity);
        let keep_alive = {
            let mut db = self.db();
            let open = db.streams.entry(name.clone()).or_default();
            if *open >= MOST_STREAMS {
                return Err(Refused::new(Why::RateLimit(30), "Too many active connections for this project"));
            }
            *open += 1;
            db.switches.keep_alive
        };
        let slot = Slot { state: self.clone(), name };
        Ok(stream(self.0.events.subscribe(), project, wanted, keep_alive, slot))
    }
}

struct Stream {
    heard: broadcast::Receiver<Happening>,
    project: String,
    wanted: Vec<Wanted>,
    keep_alive: Duration,
    ended: bool,
    _slot: Slot,
}

fn stream(heard: broadcast::Receiver<Happening>, project: String, wanted: Vec<Wanted>, keep_alive: Duration, slot: Slot) -> Response {
    let stream = Stream { heard, project, wanted, keep_alive, ended: false, _slot: slot };
    let body = futures::stream::unfold(stream, |mut s| async move {
        if s.ended {
            return None;
        }
        loop {
            let heard = match tokio::time::timeout(s.keep_alive, s.heard.recv()).await {
                // The bare byte, without any line end.
                Err(_) => return Some((Ok::<_, std::io::Error>(bytes::Bytes::from_static(b"1")), s)),
                Ok(Err(broadcast::error::RecvError::Lagged(_))) => continue,
                Ok(Err(broadcast::error::RecvError::Closed)) => return None,
                Ok(Ok(heard)) => heard,
            };
            if heard.kind == Kind::End {
                s.ended = true;
                return Some((Ok(bytes::Bytes::from_static(b"event: error\ndata: {\"message\":\"permission lost\"}\n\n")), s));
            }
            if heard.project == s.project && s.wanted.iter().any(|w| w.fits(&heard)) {
                return Some((Ok(frame(&heard)), s));
            }
        }
    });
    let mut response = Response::new(Body::from_stream(body));
    let headers: HashMap<&'static str, &'static str> =
        HashMap::from([("content-type", "text/event-stream"), ("cache-control", "no-cache"), ("x-accel-buffering", "no")]);
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn frame(heard: &Happening) -> bytes::Bytes {
    let word = heard.kind.word();
    let data = json!({"projectType": "secret-manager",
        "data": {"eventType": word, "payload": [{"environment": heard.environment, "secretPath": heard.path, "secretKey": heard.key}]}});
    format!("id: {}\nevent: {word}\ndata: {data}\n\n", jiff::Timestamp::now()).into()
}
