//! What the engine's socket answers: the documented routes ([`super::documented`]), and `/v1/…`
//! for this program's own faces: every service method by name, and the live events.
//!
//! Whatever goes wrong is told as JSON: in the server's error shape, under `/v1/` in ours.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, Request, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::{Next, from_fn};
use axum::response::sse::{KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::BytesMut;
use futures::{Stream, StreamExt};
use serde_json::Value;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::{Service, ServiceError, ServiceErrorKind, documented, wire};
use crate::model::board::Event;
use crate::model::text::brief;

/// The largest body that is read, in bytes.
const MAX_BODY: usize = 2 << 20;
/// How long a request's body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(30);
/// Pause between signs of life on a silent event stream.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

#[derive(Clone)]
struct App {
    service: Arc<dyn Service>,
    stop: CancellationToken,
}

/// Every route. Event streams end when `stop` is set.
pub fn router(service: Arc<dyn Service>, stop: CancellationToken) -> axum::Router {
    let documented = documented::router(service.clone());
    axum::Router::new()
        .route("/v1/service/{method}", post(call))
        .route("/v1/events", get(events))
        .with_state(App { service, stop })
        .merge(documented)
        .fallback(async |method: Method, uri: Uri| {
            let text = format!("Route {method}:{} not found", brief(uri.path(), 200));
            documented::error(StatusCode::NOT_FOUND, "Not Found", text.into())
        })
        .method_not_allowed_fallback(async |method: Method, uri: Uri| {
            let text = format!("{method} is not allowed for {}", brief(uri.path(), 200));
            documented::error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed", text.into())
        })
        .layer(from_fn(whole))
}

/// Reads the request's body before anything is done, and sees to it that a refusal is JSON.
async fn whole(request: Request, next: Next) -> Response {
    let own = request.uri().path().starts_with("/v1/");
    let (parts, body) = request.into_parts();
    let announced = parts.headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok());
    let body = match announced {
        Some(length) if length > MAX_BODY as u64 => Err(StatusCode::PAYLOAD_TOO_LARGE),
        _ => tokio::time::timeout(BODY_TIME, read(body)).await.unwrap_or(Err(StatusCode::REQUEST_TIMEOUT)),
    };
    let body = match body {
        Ok(body) => body,
        Err(status) => {
            let text = match status {
                StatusCode::PAYLOAD_TOO_LARGE => format!("The body is larger than {MAX_BODY} bytes."),
                StatusCode::REQUEST_TIMEOUT => format!("The body did not arrive within {} s.", BODY_TIME.as_secs()),
                _ => "The body could not be read.".to_string(),
            };
            return refusal(own, status, &text);
        }
    };
    told(own, next.run(Request::from_parts(parts, Body::from(body))).await).await
}

async fn read(body: Body) -> Result<bytes::Bytes, StatusCode> {
    let mut whole = BytesMut::new();
    let mut stream = body.into_data_stream();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|_| StatusCode::BAD_REQUEST)?;
        if whole.len() + chunk.len() > MAX_BODY {
            return Err(StatusCode::PAYLOAD_TOO_LARGE);
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole.freeze())
}

/// Refusals of the web framework are plain text: they become JSON, their headers stay.
async fn told(own: bool, response: Response) -> Response {
    let status = response.status();
    let json = response.headers().get(CONTENT_TYPE).is_some_and(|v| v.as_bytes().starts_with(b"application/json"));
    if json || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let text = axum::body::to_bytes(body, 64 * 1024).await.unwrap_or_default();
    let text = brief(&String::from_utf8_lossy(&text), 300);
    let mut response = refusal(own, status, if text.is_empty() { status.canonical_reason().unwrap_or("refused") } else { &text });
    for (name, value) in parts.headers.iter().filter(|(n, _)| **n != CONTENT_TYPE && **n != CONTENT_LENGTH) {
        response.headers_mut().insert(name.clone(), value.clone());
    }
    response
}

fn refusal(own: bool, status: StatusCode, text: &str) -> Response {
    if !own {
        return documented::error(status, status.canonical_reason().unwrap_or("Error"), text.into());
    }
    let kind = if status.is_server_error() { ServiceErrorKind::Storage } else { ServiceErrorKind::Invalid };
    (status, Json(ServiceError::new(kind, text))).into_response()
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

/// The board first, then every change. Who reads too slowly is told that it fell behind, and
/// the engine keeps no more for it than for everybody.
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
    Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

fn sse(name: &str, data: &impl serde::Serialize) -> Result<axum::response::sse::Event, Infallible> {
    let event = axum::response::sse::Event::default().event(name);
    // Board and events serialise by construction: maps with text keys and plain values.
    Ok(event.json_data(data).unwrap_or_else(|_| axum::response::sse::Event::default().comment("unprintable")))
}
