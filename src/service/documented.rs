//! The documented `/api/v1/secret-syncs` over the engine's socket: the shapes a KMS server
//! answers, from the engine of this machine. One route is ours: `POST …/{id}/cancel`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequest, FromRequestParts, Path, RawQuery, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::asked::Asked;
use super::{Priority, RunRequest, Service, ServiceError, ServiceErrorKind, SyncInput};
use crate::destination::registry;
use crate::model::Problems;
use crate::model::json::{List, One};
use crate::model::run::{RunKind, RunStatus, Trigger};
use crate::model::sync::SyncDoc;

type App = State<Arc<dyn Service>>;
type Answer = Result<Response, Refusal>;

/// The documented routes.
pub fn router(service: Arc<dyn Service>) -> axum::Router {
    axum::Router::new()
        .route("/api/status", get(|| async { Json(json!({"message": "Ok", "date": crate::model::now().to_string()})) }))
        .route("/api/v1/secret-syncs", get(all))
        .route("/api/v1/secret-syncs/", get(all))
        .route("/api/v1/secret-syncs/options", get(options))
        .route("/api/v1/secret-syncs/{kind}", get(of_kind).post(create))
        .route("/api/v1/secret-syncs/{kind}/{id}", get(show).patch(update).delete(remove))
        .route("/api/v1/secret-syncs/{kind}/sync-name/{name}", get(named))
        .route("/api/v1/secret-syncs/{kind}/{id}/{action}", post(act))
        .route("/api/v1/app-connections", get(connections))
        .with_state(service)
}

/// An answer in the server's error shape.
pub(super) fn error(status: StatusCode, name: &str, message: Value) -> Response {
    (status, Json(json!({"statusCode": status.as_u16(), "message": message, "error": name}))).into_response()
}

/// An error in the server's shape.
struct Refusal(ServiceError);

impl<E: Into<ServiceError>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self(error.into())
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

fn refused(kind: ServiceErrorKind, text: impl Into<String>) -> Refusal {
    Refusal(ServiceError::new(kind, text))
}

async fn all(State(service): App, RawQuery(query): RawQuery) -> Answer {
    listed(&*service, None, query).await
}

async fn of_kind(State(service): App, Path(kind): Path<String>, RawQuery(query): RawQuery) -> Answer {
    known(&kind)?;
    listed(&*service, Some(&kind), query).await
}

async fn listed(service: &dyn Service, kind: Option<&str>, query: Option<String>) -> Answer {
    let asked = Asked::read(query.as_deref(), &["projectId"])?;
    let project = asked.filled("projectId")?;
    let fits = |s: &SyncDoc| kind.is_none_or(|k| s.destination == k) && project.is_none_or(|p| s.project_id == *p);
    let syncs: Vec<SyncDoc> = service.syncs().await?.into_iter().filter(fits).collect();
    // A file that cannot be used is no sync of any kind, and must not look like none.
    let board = service.watch().await?.board;
    let broken: Vec<Value> = board.cards.values().filter_map(|c| c.broken.as_ref().map(|why| json!({"name": c.name, "reason": why}))).collect();
    Ok(Json(List { member: "secretSyncs", all: &syncs, broken: &broken }).into_response())
}

async fn options(RawQuery(query): RawQuery) -> Answer {
    Asked::read(query.as_deref(), &[])?;
    let option =
        |s: &crate::destination::Spec| json!({"name": s.title, "connection": s.app.app, "destination": s.kind, "canImportSecrets": s.can_import()});
    let mut options: Vec<&crate::destination::Spec> = registry::ALL.iter().map(|p| p.spec()).collect();
    options.sort_by_key(|s| s.title);
    Ok(Json(json!({ "secretSyncOptions": options.into_iter().map(option).collect::<Vec<_>>() })).into_response())
}

/// The body as JSON. Some clients name no type at all; what is called something else than
/// JSON is refused, as the server does (curl's `--data` alone calls it a form).
fn parsed(headers: &HeaderMap, body: &[u8]) -> Result<Value, Response> {
    if let Some(kind) = headers.get(CONTENT_TYPE) {
        let essence = kind.to_str().unwrap_or("?").split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if essence != "application/json" {
            let text = format!("Unsupported Media Type: {}. Send application/json.", crate::model::text::brief(&essence, 80));
            return Err(error(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Unsupported Media Type", text.into()));
        }
    }
    serde_json::from_slice(body).map_err(|e| {
        let text = format!("The body is not valid JSON (line {} column {}).", e.line(), e.column());
        Refusal::from(Problems::one("", "json", text)).into_response()
    })
}

/// A call that takes no body: one that says something must not be carried out without it.
fn bodyless(headers: &HeaderMap, body: &[u8]) -> Result<(), Response> {
    if body.is_empty() {
        return Ok(());
    }
    let given = parsed(headers, body)?;
    match given.as_object() {
        Some(members) if members.is_empty() => Ok(()),
        Some(members) => {
            let mut problems = Problems::default();
            for name in members.keys() {
                problems.add(crate::model::text::brief(name, 120), "unknown-field", "This call takes no body.");
            }
            Err(Refusal::from(problems).into_response())
        }
        None => Err(Refusal::from(Problems::one("", "empty", "This call takes no body.")).into_response()),
    }
}

/// What a call came with that may have a body.
struct Sent<P> {
    service: Arc<dyn Service>,
    /// What stands in its path.
    path: P,
    query: Option<String>,
    headers: HeaderMap,
    body: bytes::Bytes,
}

impl<P: DeserializeOwned + Send> FromRequest<Arc<dyn Service>> for Sent<P> {
    type Rejection = Response;

    async fn from_request(request: Request, service: &Arc<dyn Service>) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let Path(path) = Path::from_request_parts(&mut parts, service).await.map_err(IntoResponse::into_response)?;
        let (query, headers) = (parts.uri.query().map(str::to_string), parts.headers.clone());
        let whole = bytes::Bytes::from_request(Request::from_parts(parts, body), service).await;
        Ok(Self { service: service.clone(), path, query, headers, body: whole.map_err(IntoResponse::into_response)? })
    }
}

async fn create(Sent { service, path: kind, query, headers, body }: Sent<String>) -> Result<Answer, Response> {
    let document = parsed(&headers, &body)?;
    Ok(created(&*service, kind, query, document).await)
}

async fn created(service: &dyn Service, kind: String, query: Option<String>, document: Value) -> Answer {
    known(&kind)?;
    Asked::read(query.as_deref(), &[])?;
    let doc = service.create_sync(SyncInput { document, destination: Some(kind) }).await?;
    // As on the server: a sync with auto-sync on runs at once. Its end is asked for by GET.
    if doc.is_enabled {
        service.start(RunRequest::new(&doc.name, RunKind::Sync, Trigger::Created)).await?;
    }
    one(SyncDoc { warnings: doc.warnings, ..service.sync(&doc.name).await? })
}

async fn show(State(service): App, Path((kind, id)): Path<(String, String)>, RawQuery(query): RawQuery) -> Answer {
    Asked::read(query.as_deref(), &[])?;
    one(found(&*service, &kind, &id).await?)
}

async fn named(State(service): App, Path((kind, name)): Path<(String, String)>, RawQuery(query): RawQuery) -> Answer {
    let asked = Asked::read(query.as_deref(), &["projectId"])?;
    let project = asked.filled("projectId")?;
    known(&kind)?;
    let doc = service.sync(&name).await?;
    if doc.name != name || project.is_some_and(|p| p != doc.project_id) {
        return Err(no_such(&name));
    }
    one(of(doc, &kind)?)
}

async fn update(Sent { service, path: (kind, id), query, headers, body }: Sent<(String, String)>) -> Result<Answer, Response> {
    let document = parsed(&headers, &body)?;
    Ok(updated(&*service, kind, &id, query, document).await)
}

async fn updated(service: &dyn Service, kind: String, id: &str, query: Option<String>, document: Value) -> Answer {
    Asked::read(query.as_deref(), &[])?;
    let doc = found(service, &kind, id).await?;
    one(service.update_sync(&doc.name, SyncInput { document, destination: Some(kind) }).await?)
}

async fn remove(Sent { service, path: (kind, id), query, headers, body }: Sent<(String, String)>) -> Result<Answer, Response> {
    bodyless(&headers, &body)?;
    Ok(removed(&*service, &kind, &id, query).await)
}

async fn removed(service: &dyn Service, kind: &str, id: &str, query: Option<String>) -> Answer {
    let asked = Asked::read(query.as_deref(), &["removeSecrets"])?;
    let with_secrets = asked.flag("removeSecrets")?;
    let doc = found(service, kind, id).await?;
    for left_behind in doc.removals().filter(|_| with_secrets) {
        let run = service.start(RunRequest { left_behind, ..RunRequest::new(&doc.name, RunKind::Remove, Trigger::Manual) }).await?;
        let record = service.finished(&run).await?;
        if record.status != RunStatus::Succeeded {
            let text = record.message.unwrap_or_else(|| "The secrets could not be removed.".into());
            return Err(refused(ServiceErrorKind::Busy, text));
        }
    }
    service.delete_sync(&doc.name).await?;
    one(doc)
}

async fn act(Sent { service, path: (kind, id, action), query, headers, body }: Sent<(String, String, String)>) -> Result<Answer, Response> {
    bodyless(&headers, &body)?;
    Ok(acted(&*service, &kind, &id, &action, query).await)
}

/// What can be done with a sync, and the query it takes.
const ACTIONS: &[(&str, Option<RunKind>, &[&str])] = &[
    ("sync-secrets", Some(RunKind::Sync), &[]),
    ("import-secrets", Some(RunKind::Import), &["importBehavior"]),
    ("remove-secrets", Some(RunKind::Remove), &[]),
    ("cancel", None, &[]),
];

async fn acted(service: &dyn Service, kind: &str, id: &str, action: &str, query: Option<String>) -> Answer {
    let Some((_, run, names)) = ACTIONS.iter().find(|(name, ..)| *name == action) else {
        return Err(refused(ServiceErrorKind::NotFound, "There is no such action."));
    };
    let asked = Asked::read(query.as_deref(), names)?;
    let prioritize = asked.choice("importBehavior", &["prioritize-source", "prioritize-destination"])?;
    let doc = found(service, kind, id).await?;
    let Some(run) = *run else {
        let Some(going) = super::going(service, &doc.name).await? else {
            return Err(refused(ServiceErrorKind::Busy, format!("No run of {} is queued or going.", doc.name)));
        };
        service.cancel(&going).await?;
        return one(service.sync(&doc.name).await?);
    };
    let refusal = registry::find(&doc.destination).and_then(|p| p.spec().import_note);
    if let Some(refusal) = refusal.filter(|_| run == RunKind::Import) {
        return Err(refused(ServiceErrorKind::Busy, refusal));
    }
    let prioritize = prioritize.map(|at| if at == 0 { Priority::Source } else { Priority::Destination });
    service.start(RunRequest { prioritize, ..RunRequest::new(&doc.name, run, Trigger::Manual) }).await?;
    one(service.sync(&doc.name).await?)
}

async fn connections(State(service): App, RawQuery(query): RawQuery) -> Answer {
    Asked::read(query.as_deref(), &[])?;
    let public: Vec<Value> = service.connections().await?.into_iter().map(|c| c.public).collect();
    Ok(Json(json!({ "appConnections": public })).into_response())
}

fn one(doc: SyncDoc) -> Answer {
    Ok(Json(One("secretSync", &doc)).into_response())
}

fn known(kind: &str) -> Result<(), Refusal> {
    match registry::find(kind) {
        Some(_) => Ok(()),
        None => Err(refused(ServiceErrorKind::NotFound, "There is no such destination.")),
    }
}

fn no_such(id: &str) -> Refusal {
    refused(ServiceErrorKind::NotFound, format!("There is no sync {:?}.", crate::model::text::brief(id, 80)))
}

/// The sync of an id, or of a name, written exactly so. An id goes before another sync's name.
async fn found(service: &dyn Service, kind: &str, id: &str) -> Result<SyncDoc, Refusal> {
    known(kind)?;
    let mut doc = service.sync(id).await?;
    if doc.id != id {
        if let Some(other) = service.syncs().await?.into_iter().find(|s| s.id == id) {
            doc = service.sync(&other.name).await?;
        } else if doc.name != id {
            return Err(no_such(id));
        }
    }
    of(doc, kind)
}

fn of(doc: SyncDoc, kind: &str) -> Result<SyncDoc, Refusal> {
    if doc.destination == kind {
        return Ok(doc);
    }
    Err(refused(ServiceErrorKind::Busy, format!("{} is not configured for {kind}.", doc.name)))
}
