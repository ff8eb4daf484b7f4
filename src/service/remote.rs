//! The service of another process, over its socket.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::StatusCode;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::broadcast;

use super::*;

/// How long an engine may take to say that it is there.
const PRESENCE: Duration = Duration::from_secs(2);
/// Pause between looks at an engine whose answer is waited for, and how long each may take.
const LOOK: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(5));
/// Vain looks in a row after which it is given up.
const VAIN: u32 = 2;
/// Longest time to the first word of the event stream, and between two (it says something
/// every 15 s).
const FIRST: Duration = Duration::from_secs(10);
const NEXT: Duration = Duration::from_secs(45);

/// A client of the engine that another process holds.
pub struct Remote {
    client: reqwest::Client,
}

impl Remote {
    /// A client for a socket. Nothing is sent yet.
    pub fn new(socket: PathBuf) -> Result<Arc<Self>> {
        // A second install fails because the first one stands: both are ring.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().unix_socket(socket).no_proxy();
        // Before the engine closes a connection that idles: a call must not meet a closed one.
        let client = client.pool_idle_timeout(Duration::from_secs(15)).build();
        let client = client.map_err(|e| ServiceError::new(ServiceErrorKind::Storage, format!("the engine's socket cannot be used: {e}")))?;
        Ok(Arc::new(Self { client }))
    }

    /// Asks whether somebody is there, for two seconds at most.
    pub async fn presence(&self) -> std::result::Result<(), Unreached> {
        self.look(PRESENCE).await
    }

    async fn look(&self, within: Duration) -> std::result::Result<(), Unreached> {
        let asked = async {
            let response = self.client.get("http://engine/api/status").send().await.ok()?;
            Some((response.status(), response.bytes().await.ok()?))
        };
        match tokio::time::timeout(within, asked).await {
            Ok(Some((status, _))) if status.is_success() => Ok(()),
            Ok(Some((StatusCode::SERVICE_UNAVAILABLE, body))) => Err(Unreached::Full(full(&body).message)),
            _ => Err(Unreached::Silent),
        }
    }

    /// Returns when the engine, which was there, answers nobody any more: a stopped process
    /// takes calls without end.
    async fn silent(&self) {
        let mut vain = 0;
        while vain < VAIN {
            tokio::time::sleep(LOOK.0).await;
            // One that turns us away is there.
            vain = if matches!(self.look(LOOK.1).await, Err(Unreached::Silent)) { vain + 1 } else { 0 };
        }
    }

    async fn call<T: DeserializeOwned>(&self, method: &str, arguments: impl Serialize) -> Result<T> {
        let exchange = async {
            let response = self.client.post(format!("http://engine/v1/service/{method}")).json(&arguments).send().await.map_err(|_| gone())?;
            Ok::<_, ServiceError>((response.status(), response.bytes().await.map_err(|_| gone())?))
        };
        let (status, body) = tokio::select! {
            answer = exchange => answer?,
            () = self.silent() => return Err(gone()),
        };
        match status {
            status if status.is_success() => serde_json::from_slice(&body).map_err(|_| odd()),
            _ => Err(serde_json::from_slice(&body).unwrap_or_else(|_| if status == StatusCode::SERVICE_UNAVAILABLE { full(&body) } else { odd() })),
        }
    }
}

/// Why an engine was not reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreached {
    /// Nobody answers, or nothing that is understood.
    Silent,
    /// It is well and takes no more connections; a sentence.
    Full(String),
}

/// The words of an engine that takes no more connections.
fn full(body: &[u8]) -> ServiceError {
    let body: Option<Value> = serde_json::from_slice(body).ok();
    let text = body.as_ref().and_then(|b| b["message"].as_str()).unwrap_or("There are too many connections already: close some, or try again.");
    ServiceError::new(ServiceErrorKind::Busy, crate::model::text::brief(text, 200))
}

fn gone() -> ServiceError {
    ServiceError::new(ServiceErrorKind::Unreachable, "The engine does not answer: it has ended, or was stopped.")
}

fn odd() -> ServiceError {
    ServiceError::new(ServiceErrorKind::Remote, "The engine's answer is not understood: it is of another version. Restart it.")
}

/// Reads the event stream: the board, then changes.
struct Stream {
    response: reqwest::Response,
    pending: Vec<u8>,
}

impl Stream {
    /// The next frame's name and data; `None` when the engine went away.
    async fn next(&mut self) -> Option<(String, String)> {
        loop {
            if let Some(end) = self.pending.windows(2).position(|w| w == b"\n\n") {
                let frame: Vec<u8> = self.pending.drain(..end + 2).collect();
                let frame = String::from_utf8_lossy(&frame);
                let (mut name, mut data) = (String::new(), String::new());
                for line in frame.lines() {
                    if let Some(rest) = line.strip_prefix("event:") {
                        name = rest.trim().to_string();
                    } else if let Some(rest) = line.strip_prefix("data:") {
                        data.push_str(rest.strip_prefix(' ').unwrap_or(rest));
                    }
                }
                if name.is_empty() {
                    continue;
                }
                return Some((name, data));
            }
            let chunk = tokio::time::timeout(NEXT, self.response.chunk()).await.ok()?.ok().flatten()?;
            self.pending.extend_from_slice(&chunk);
        }
    }
}

#[async_trait]
impl Service for Remote {
    async fn watch(&self) -> Result<Watch> {
        let first = async {
            let response = self.client.get("http://engine/v1/events").send().await.map_err(|_| gone())?;
            if response.status() == StatusCode::SERVICE_UNAVAILABLE {
                return Err(full(&response.bytes().await.map_err(|_| gone())?));
            }
            let mut stream = Stream { response, pending: Vec::new() };
            let first = stream.next().await;
            Ok::<_, ServiceError>((stream, first))
        };
        let (mut stream, first) = tokio::time::timeout(FIRST, first).await.map_err(|_| gone())??;
        let mut board: Board = match first {
            Some((name, data)) if name == "board" => serde_json::from_str(&data).map_err(|_| odd())?,
            Some(_) => return Err(odd()),
            // It ended between accepting the call and answering it.
            None => return Err(gone()),
        };
        board.engine.attached = true;
        let (tx, events) = broadcast::channel(16_384);
        tokio::spawn(async move {
            while let Some((_, data)) = stream.next().await {
                let Ok(mut event) = serde_json::from_str::<Event>(&data) else { continue };
                if let Event::Engine { facts } = &mut event {
                    facts.attached = true;
                }
                if tx.send(event).is_err() {
                    return;
                }
            }
            // The channel closes with this task: watchers see that the engine went away.
        });
        Ok(Watch { board, events })
    }

    async fn syncs(&self) -> Result<Vec<SyncDoc>> {
        self.call("syncs", ()).await
    }

    async fn sync(&self, name: &str) -> Result<SyncDoc> {
        self.call("sync", (name,)).await
    }

    async fn check_sync(&self, input: SyncInput, replaces: Option<String>) -> Result<()> {
        self.call("check_sync", (input, replaces)).await
    }

    async fn create_sync(&self, input: SyncInput) -> Result<SyncDoc> {
        self.call("create_sync", (input,)).await
    }

    async fn update_sync(&self, name: &str, input: SyncInput) -> Result<SyncDoc> {
        self.call("update_sync", (name, input)).await
    }

    async fn delete_sync(&self, name: &str) -> Result<()> {
        self.call("delete_sync", (name,)).await
    }

    async fn set_enabled(&self, name: &str, enabled: bool) -> Result<SyncDoc> {
        self.call("set_enabled", (name, enabled)).await
    }

    async fn document(&self, name: &str) -> Result<Value> {
        self.call("document", (name,)).await
    }

    async fn plan(&self, target: PlanTarget, verify: bool) -> Result<PlanDoc> {
        self.call("plan", (target, verify)).await
    }

    async fn server_rivals(&self, target: PlanTarget) -> Result<Vec<ServerRival>> {
        self.call("server_rivals", (target,)).await
    }

    async fn switch_off_rival(&self, target: PlanTarget, id: &str) -> Result<ServerRival> {
        self.call("switch_off_rival", (target, id)).await
    }

    async fn start(&self, request: RunRequest) -> Result<String> {
        self.call("start", (request,)).await
    }

    async fn start_together(&self, requests: Vec<RunRequest>) -> Result<Vec<Result<String>>> {
        self.call("start_together", (requests,)).await
    }

    async fn finished(&self, run: &str) -> Result<RunRecord> {
        self.call("finished", (run,)).await
    }

    async fn cancel(&self, run: &str) -> Result<()> {
        self.call("cancel", (run,)).await
    }

    async fn approve(&self, approval: Approval) -> Result<()> {
        self.call("approve", (approval,)).await
    }

    async fn history(&self, name: &str, limit: usize) -> Result<Vec<RunRecord>> {
        self.call("history", (name, limit)).await
    }

    async fn connections(&self) -> Result<Vec<ConnectionView>> {
        self.call("connections", ()).await
    }

    async fn save_connection(&self, document: Value, replace: bool) -> Result<ConnectionView> {
        self.call("save_connection", (document, replace)).await
    }

    async fn remove_connection(&self, name: &str) -> Result<()> {
        self.call("remove_connection", (name,)).await
    }

    async fn test_connection(&self, name: &str) -> Result<TestReport> {
        self.call("test_connection", (name,)).await
    }

    async fn test_destination(&self, name: &str, config: Map) -> Result<TestReport> {
        self.call("test_destination", (name, config)).await
    }

    async fn try_connection(&self, document: Value) -> Result<TestReport> {
        self.call("try_connection", (document,)).await
    }

    async fn projects(&self, account: &str) -> Result<Vec<Project>> {
        self.call("projects", (account,)).await
    }

    async fn folders(&self, ask: FolderAsk) -> Result<Vec<Choice>> {
        self.call("folders", (ask,)).await
    }

    async fn choices(&self, ask: ChoicesAsk) -> Result<Vec<Choice>> {
        self.call("choices", (ask,)).await
    }

    async fn draft(&self) -> Result<Option<Draft>> {
        self.call("draft", ()).await
    }

    async fn keep_draft(&self, draft: Option<Draft>) -> Result<()> {
        self.call("keep_draft", (draft,)).await
    }

    async fn pause(&self, paused: bool) -> Result<()> {
        self.call("pause", (paused,)).await
    }

    async fn doctor(&self) -> Result<Vec<Finding>> {
        self.call("doctor", ()).await
    }

    async fn hand_over(&self) -> Result<()> {
        self.call("hand_over", ()).await
    }

    async fn close(&self) {}
}
