//! The documented `/api/v1/secret-syncs` over the engine's socket: the shapes a KMS server
//! answers, from the engine of this machine.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};

use super::{Priority, RunRequest, Service, ServiceError, ServiceErrorKind, SyncInput};
use crate::destination::registry;
use crate::model::run::{RunKind, RunStatus, Trigger};
use crate::model::sync::SyncDoc;

type App = State<Arc<dyn Service>>;
type Asked = Query<HashMap<String, String>>;
type Answer = Result<Json<Value>, Refusal>;

/// The documented routes.
pub fn router(service: Arc<dyn Service>) -> axum::Router {
    axum::Router::new()
        .route("/api/status", get(|| async { Json(json!({"message": "Ok", "date": crate::model::now().to_string()})) }))
        .route("/api/v1/secret-syncs", get(all))
        .route("/api/v1/secret-syncs/options", get(options))
        .route("/api/v1/secret-syncs/{kind}", get(of_kind).post(create))
        .route("/api/v1/secret-syncs/{kind}/{id}", get(show).patch(update).delete(remove))
        .route("/api/v1/secret-syncs/{kind}/sync-name/{name}", get(show))
        .route("/api/v1/secret-syncs/{kind}/{id}/{action}", post(act))
        .route("/api/v1/app-connections", get(connections))
        .fallback(async |method: Method, uri: Uri| {
            let text = format!("Route {method}:{} not found", crate::model::text::brief(uri.path(), 200));
            error(StatusCode::NOT_FOUND, "Not Found", text.into())
        })
        .method_not_allowed_fallback(async |method: Method, uri: Uri| {
            let text = format!("{method} is not allowed for {}", crate::model::text::brief(uri.path(), 200));
            error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed", text.into())
        })
        .with_state(service)
}

/// An answer in the server's error shape.
pub(super) fn error(status: StatusCode, name: &str, message: Value) -> Response {
    (status, Json(json!({"statusCode": status.as_u16(), "message": message, "error": name}))).into_response()
}

/// An error in the server's shape.
struct Refusal(ServiceError);

impl From<ServiceError> for Refusal {
    fn from(error: ServiceError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, name) = match self.0.kind {
            ServiceErrorKind::Invalid => (StatusCode::UNPROCESSABLE_ENTITY, "ValidationFailure"),
            ServiceErrorKind::NotFound => (StatusCode::NOT_FOUND, "NotFound"),
            ServiceErrorKind::Busy => (StatusCode::BAD_REQUEST, "BadRequest"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError"),
        };
        let message = if self.0.fields.is_empty() {
            Value::String(self.0.message)
        } else {
            let issues = self.0.fields.0.iter();
            issues
                .map(|p| json!({"code": p.rule, "path": p.field.split('.').filter(|s| !s.is_empty()).collect::<Vec<_>>(), "message": p.message}))
                .collect()
        };
        error(status, name, message)
    }
}

async fn all(State(service): App, Query(asked): Asked) -> Answer {
    listed(&*service, None, &asked).await
}

async fn of_kind(State(service): App, Path(kind): Path<String>, Query(asked): Asked) -> Answer {
    known(&kind)?;
    listed(&*service, Some(&kind), &asked).await
}

async fn listed(service: &dyn Service, kind: Option<&str>, asked: &HashMap<String, String>) -> Answer {
    let project = asked.get("projectId");
    let fits = |s: &SyncDoc| kind.is_none_or(|k| s.destination == k) && project.is_none_or(|p| s.project_id == *p);
    let syncs: Vec<SyncDoc> = service.syncs().await?.into_iter().filter(fits).collect();
    Ok(Json(json!({ "secretSyncs": syncs })))
}

async fn options() -> Json<Value> {
    let option =
        |s: &crate::destination::Spec| json!({"name": s.title, "connection": s.app.app, "destination": s.kind, "canImportSecrets": s.can_import});
    let mut options: Vec<&crate::destination::Spec> = registry::ALL.iter().map(|p| p.spec()).collect();
    options.sort_by_key(|s| s.title);
    Json(json!({ "secretSyncOptions": options.into_iter().map(option).collect::<Vec<_>>() }))
}

/// The body as JSON. `curl -d` calls it a form by itself, and some clients call it nothing;
/// what is called something else is refused, as the server does.
fn parsed(headers: &HeaderMap, body: &[u8]) -> Result<Value, Response> {
    let kind = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if !matches!(&*essence, "" | "application/json" | "application/x-www-form-urlencoded") {
        let text = format!("Unsupported Media Type: {}", crate::model::text::brief(&essence, 80));
        return Err(error(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Unsupported Media Type", text.into()));
    }
    serde_json::from_slice(body).map_err(|e| {
        let mut problems = crate::model::Problems::default();
        problems.add("", "json", format!("The body is not valid JSON (line {} column {}).", e.line(), e.column()));
        Refusal(problems.into()).into_response()
    })
}

async fn create(State(service): App, Path(kind): Path<String>, headers: HeaderMap, body: bytes::Bytes) -> Result<Answer, Response> {
    let document = parsed(&headers, &body)?;
    Ok(created(&*service, kind, document).await)
}

async fn created(service: &dyn Service, kind: String, document: Value) -> Answer {
    known(&kind)?;
    let doc = service.create_sync(SyncInput { document, destination: Some(kind) }).await?;
    // As on the server: a sync with auto-sync on runs at once. Its end is asked for by GET.
    if doc.is_enabled {
        service.start(RunRequest::new(&doc.name, RunKind::Sync, Trigger::Created)).await?;
    }
    one(service.sync(&doc.name).await?)
}

async fn show(State(service): App, Path((kind, id)): Path<(String, String)>) -> Answer {
    one(found(&*service, &kind, &id).await?)
}

async fn update(State(service): App, Path((kind, id)): Path<(String, String)>, headers: HeaderMap, body: bytes::Bytes) -> Result<Answer, Response> {
    let document = parsed(&headers, &body)?;
    Ok(updated(&*service, kind, &id, document).await)
}

async fn updated(service: &dyn Service, kind: String, id: &str, document: Value) -> Answer {
    let doc = found(service, &kind, id).await?;
    one(service.update_sync(&doc.name, SyncInput { document, destination: Some(kind) }).await?)
}

async fn remove(State(service): App, Path((kind, id)): Path<(String, String)>, Query(asked): Asked) -> Answer {
    let doc = found(&*service, &kind, &id).await?;
    let removals = [doc.left_behind.map(|_| true), Some(false)].into_iter().flatten();
    for left_behind in removals.filter(|_| asked.get("removeSecrets").is_some_and(|v| v == "true")) {
        let run = service.start(RunRequest { left_behind, ..RunRequest::new(&doc.name, RunKind::Remove, Trigger::Manual) }).await?;
        let record = service.finished(&run).await?;
        if record.status != RunStatus::Succeeded {
            let text = record.message.unwrap_or_else(|| "The secrets could not be removed.".into());
            return Err(ServiceError::new(ServiceErrorKind::Busy, text).into());
        }
    }
    service.delete_sync(&doc.name).await?;
    one(doc)
}

async fn act(State(service): App, Path((kind, id, action)): Path<(String, String, String)>, Query(asked): Asked) -> Answer {
    let doc = found(&*service, &kind, &id).await?;
    let kind = match action.as_str() {
        "sync-secrets" => RunKind::Sync,
        "import-secrets" => RunKind::Import,
        "remove-secrets" => RunKind::Remove,
        _ => return Err(ServiceError::new(ServiceErrorKind::NotFound, "There is no such action.").into()),
    };
    let importable = registry::find(&doc.destination).is_some_and(|p| p.spec().can_import);
    if kind == RunKind::Import && !importable {
        return Err(ServiceError::new(ServiceErrorKind::Busy, "This destination does not support importing secrets.").into());
    }
    let prioritize = match asked.get("importBehavior").map(String::as_str) {
        None => None,
        Some("prioritize-source") => Some(Priority::Source),
        Some("prioritize-destination") => Some(Priority::Destination),
        Some(_) => {
            let mut problems = crate::model::Problems::default();
            problems.add("importBehavior", "choice", "importBehavior is prioritize-source or prioritize-destination.");
            return Err(ServiceError::from(problems).into());
        }
    };
    service.start(RunRequest { prioritize, ..RunRequest::new(&doc.name, kind, Trigger::Manual) }).await?;
    one(service.sync(&doc.name).await?)
}

async fn connections(State(service): App) -> Answer {
    let public: Vec<Value> = service.connections().await?.into_iter().map(|c| c.public).collect();
    Ok(Json(json!({ "appConnections": public })))
}

fn one(doc: SyncDoc) -> Answer {
    Ok(Json(json!({ "secretSync": doc })))
}

fn known(kind: &str) -> Result<(), Refusal> {
    match registry::find(kind) {
        Some(_) => Ok(()),
        None => Err(ServiceError::new(ServiceErrorKind::NotFound, "There is no such destination.").into()),
    }
}

async fn found(service: &dyn Service, kind: &str, id: &str) -> Result<SyncDoc, Refusal> {
    known(kind)?;
    let doc = service.sync(id).await?;
    if doc.destination != kind {
        let text = format!("{} is not configured for {kind}.", doc.name);
        return Err(ServiceError::new(ServiceErrorKind::Busy, text).into());
    }
    Ok(doc)
}
