//! The engine's socket: HTTP over a Unix socket that only its owner can use.
//!
//! Two sets of routes: the documented `/api/v1/secret-syncs` (so that `curl --unix-socket`
//! with a documented request works, see [`super::documented`]), and `/v1/…` for this
//! program's own faces: every service method by name, and the live events.

use std::convert::Infallible;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::sse::{KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures::{Stream, StreamExt};
use serde_json::Value;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::{Service, ServiceError, ServiceErrorKind, wire};
use crate::model::board::Event;
use crate::store::Dirs;

/// A listening socket; it goes when this is dropped.
pub struct Socket {
    path: std::path::PathBuf,
    stop: CancellationToken,
    server: Option<tokio::task::JoinHandle<()>>,
}

impl Socket {
    /// Listens. The caller holds the engine lock, so an old socket file is a dead one's.
    pub fn serve(dirs: &Dirs, service: Arc<dyn Service>) -> std::io::Result<Self> {
        dirs.prepare_runtime().map_err(std::io::Error::other)?;
        let path = dirs.socket();
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        // The directory is private already; this keeps it so when the directory is opened up.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        let stop = CancellationToken::new();
        let (ending, app) = (stop.clone(), router(service, stop.clone()));
        let server = tokio::spawn(async move {
            let server = axum::serve(Owners(listener), app).with_graceful_shutdown(async move { ending.cancelled().await });
            if let Err(error) = server.await {
                tracing::error!("the engine's socket ended: {error}");
            }
        });
        Ok(Self { path, stop, server: Some(server) })
    }

    /// Stops listening, after the answers under way have left.
    pub async fn close(mut self) {
        self.stop.cancel();
        if let Some(server) = self.server.take() {
            // Who does not take an answer in time goes without.
            let _ = tokio::time::timeout(Duration::from_secs(2), server).await;
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.stop.cancel();
        // Another engine may have replaced it already, or it is gone: both are fine.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Accepts connections of this user (and root) only.
struct Owners(UnixListener);

impl axum::serve::Listener for Owners {
    type Io = UnixStream;
    type Addr = tokio::net::unix::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            match self.0.accept().await {
                Ok((stream, address)) => {
                    let me = rustix::process::geteuid().as_raw();
                    if stream.peer_cred().is_ok_and(|c| c.uid() == me || c.uid() == 0) {
                        return (stream, address);
                    }
                    tracing::warn!("a connection of another user was refused");
                }
                Err(error) => {
                    tracing::warn!("a connection failed: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

#[derive(Clone)]
struct App {
    service: Arc<dyn Service>,
    stop: CancellationToken,
}

fn router(service: Arc<dyn Service>, stop: CancellationToken) -> axum::Router {
    let documented = super::documented::router(service.clone());
    axum::Router::new().route("/v1/service/{method}", post(call)).route("/v1/events", get(events)).with_state(App { service, stop }).merge(documented)
}

async fn call(State(app): State<App>, Path(method): Path<String>, arguments: Result<Json<Value>, JsonRejection>) -> Response {
    let Json(arguments) = match arguments {
        Ok(arguments) => arguments,
        Err(refused) => {
            let error = ServiceError::new(ServiceErrorKind::Invalid, "The call's arguments are one JSON array, sent as application/json.");
            return (refused.status(), Json(error)).into_response();
        }
    };
    match wire::dispatch(&*app.service, &method, arguments).await {
        Ok(value) => Json(value).into_response(),
        Err(error) => (StatusCode::UNPROCESSABLE_ENTITY, Json(error)).into_response(),
    }
}

/// The board first, then every change.
async fn events(State(app): State<App>) -> Response {
    let watch = match app.service.watch().await {
        Ok(watch) => watch,
        Err(error) => return (StatusCode::SERVICE_UNAVAILABLE, Json(error)).into_response(),
    };
    let board = sse("board", &watch.board);
    let changes = futures::stream::unfold(watch.events, |mut events| async move {
        match events.recv().await {
            Ok(event) => Some((sse("event", &event), events)),
            Err(RecvError::Lagged(_)) => Some((sse("event", &Event::Lagged), events)),
            Err(RecvError::Closed) => None,
        }
    });
    let stream = futures::stream::iter([board]).chain(changes).take_until(app.stop.cancelled_owned());
    response(stream)
}

fn response(stream: impl Stream<Item = Result<axum::response::sse::Event, Infallible>> + Send + 'static) -> Response {
    Sse::new(stream).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))).into_response()
}

fn sse(name: &str, data: &impl serde::Serialize) -> Result<axum::response::sse::Event, Infallible> {
    let event = axum::response::sse::Event::default().event(name);
    // Board and events serialise by construction: maps with text keys and plain values.
    Ok(event.json_data(data).unwrap_or_else(|_| axum::response::sse::Event::default().comment("unprintable")))
}

impl From<std::io::Error> for ServiceError {
    fn from(error: std::io::Error) -> Self {
        Self::new(ServiceErrorKind::Storage, error.to_string())
    }
}
