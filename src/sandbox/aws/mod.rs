//! A strict AWS Secrets Manager, with the part of STS that goes with it, written from AWS's
//! documentation: the JSON 1.1 protocol, signatures, limits, version labels, idempotency
//! tokens, recovery windows, tags, KMS keys, page tokens.
//!
//! State is kept per region (taken from the signature's scope), as AWS keeps it. What the
//! documentation leaves open is decided for the stricter side.
//!
//! | module | what lives there |
//! | --- | --- |
//! | `world` | the state: secrets, versions, keys, credentials |
//! | `auth` | Signature Version 4, temporary credentials, clock |
//! | `input` | reading and limiting request members, refusals |
//! | `read`, `list`, `write`, `labels` | the operations |
//! | `sts` | GetCallerIdentity and AssumeRole, in XML |

mod auth;
mod input;
mod labels;
mod list;
mod read;
mod sts;
mod world;
mod write;

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{OriginalUri, State as Shared};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};

use super::host::lock;
use input::{Refusal, refuse};
use world::World;

pub use world::Content;

/// The account every sandbox key belongs to.
pub const ACCOUNT: &str = "123456789012";
/// The access key a fresh sandbox knows.
pub const ACCESS_KEY_ID: &str = "AKIASANDBOX0EXAMPLE1";
/// Its secret.
pub const SECRET_ACCESS_KEY: &str = "sandboxsandboxsandboxsandboxsandbox+/123";
/// The alias of a customer managed KMS key a fresh sandbox knows (it also knows its id).
pub const KMS_ALIAS: &str = "alias/sandbox";
/// The id of that key.
pub const KMS_KEY_ID: &str = "1234abcd-12ab-34cd-56ef-1234567890ab";
/// A role that the sandbox's key may assume.
pub const ROLE_ARN: &str = "arn:aws:iam::123456789012:role/sandbox";

/// Handle on the service: seeds it, looks into it, makes it misbehave.
#[derive(Clone)]
pub struct State(Arc<Mutex<World>>);

impl Default for State {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(World::new())))
    }
}

/// What an operator would see of one secret.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    pub arn: String,
    /// `None` for binary secrets and secrets without a value.
    pub value: Option<String>,
    pub version: Option<String>,
    /// All versions, unlabelled ones included.
    pub versions: usize,
    pub deleted: bool,
    /// The recovery window of its deletion in days.
    pub window: Option<i64>,
    pub key: Option<String>,
    pub tags: std::collections::BTreeMap<String, String>,
}

impl State {
    fn with<R>(&self, f: impl FnOnce(&mut World) -> R) -> R {
        f(&mut lock(&self.0))
    }

    /// Adds an access key.
    pub fn add_key(&self, id: &str, secret: &str) {
        self.with(|w| w.add_key(id, secret, None, None));
    }

    /// Adds a temporary key (`ASIA…`) that ends after `seconds` (already ended when negative).
    pub fn add_session(&self, id: &str, secret: &str, token: &str, seconds: i64) {
        self.with(|w| w.add_key(id, secret, Some(token.to_string()), Some(w.now() + seconds)));
    }

    /// Ends every temporary key at once.
    pub fn expire_sessions(&self) {
        self.with(World::expire_sessions);
    }

    /// Adds a role that may be assumed, optionally only with an external id.
    pub fn add_role(&self, arn: &str, external_id: Option<&str>) {
        self.with(|w| w.roles.insert(arn.to_string(), external_id.map(str::to_string)));
    }

    /// Adds a KMS key with an alias (`alias/NAME`).
    pub fn add_kms_key(&self, id: &str, alias: Option<&str>) {
        self.with(|w| w.add_kms_key(id, alias));
    }

    /// Switches a KMS key on or off: off, everything under it fails.
    pub fn set_kms_enabled(&self, id: &str, enabled: bool) {
        self.with(|w| w.set_kms_enabled(id, enabled));
    }

    /// Puts a secret there as another hand would.
    pub fn seed(&self, region: &str, name: &str, value: Content) {
        self.with(|w| w.seed(region, name, value));
    }

    /// Changes a secret behind everybody's back: a new current version.
    pub fn edit(&self, region: &str, name: &str, value: &str) {
        self.with(|w| w.edit(region, name, Content::Text(value.to_string())));
    }

    /// Schedules a secret's deletion as another hand would.
    pub fn schedule(&self, region: &str, name: &str, days: i64) {
        self.with(|w| {
            let now = w.now_ms();
            w.secret(region, name).deleted = Some((now, days));
        });
    }

    /// Removes a secret without a trace, at once.
    pub fn vanish(&self, region: &str, name: &str) {
        self.with(|w| w.region(region).secrets.remove(name));
    }

    /// Marks a secret as another AWS service's.
    pub fn set_owner(&self, region: &str, name: &str, service: &str) {
        self.with(|w| w.secret(region, name).owner = Some(service.to_string()));
    }

    /// Switches rotation on.
    pub fn set_rotated(&self, region: &str, name: &str) {
        self.with(|w| w.secret(region, name).rotated = true);
    }

    /// Makes a secret a replica of one in another region, or (same region) the primary of replicas.
    pub fn set_primary_region(&self, region: &str, name: &str, primary: &str) {
        self.with(|w| w.secret(region, name).primary_region = Some(primary.to_string()));
    }

    /// Marks a secret as a managed external secret.
    pub fn set_type(&self, region: &str, name: &str, kind: &str) {
        self.with(|w| w.secret(region, name).kind = Some(kind.to_string()));
    }

    /// Sets a tag as another hand would (reserved ones too).
    pub fn set_tag(&self, region: &str, name: &str, key: &str, value: &str) {
        self.with(|w| w.secret(region, name).tags.insert(key.to_string(), value.to_string()));
    }

    /// Denies an operation (on names that contain `name`; empty: on all).
    pub fn deny(&self, operation: &str, name: &str) {
        self.with(|w| w.denied.push((operation.to_string(), name.to_string())));
    }

    /// Allows everything again.
    pub fn allow_all(&self) {
        self.with(|w| w.denied.clear());
    }

    /// From now on ListSecrets shows the present state, whatever happens; `false` ends that.
    pub fn set_lagging(&self, lagging: bool) {
        self.with(|w| w.set_lagging(lagging));
    }

    /// How many further creations a name refuses after a deletion without recovery.
    pub fn set_name_blocks(&self, times: u32) {
        self.with(|w| w.name_blocks = times);
    }

    /// How many further calls a secret refuses after it was restored.
    pub fn set_restore_blocks(&self, times: u32) {
        self.with(|w| w.restore_blocks = times);
    }

    /// Largest list page, whatever is asked for; the service may always give less than asked.
    pub fn set_page_cap(&self, cap: usize) {
        self.with(|w| w.page_cap = cap);
    }

    /// Answers the first page of each listing empty, with a token.
    pub fn set_empty_first_page(&self, on: bool) {
        self.with(|w| w.empty_first_page = on);
    }

    /// Shifts the service's clock against this machine's, in seconds.
    pub fn set_clock(&self, seconds: i64) {
        self.with(|w| w.clock_shift = seconds);
    }

    /// Whether answers show a KMS key as its ARN (as the list documentation says) or as given.
    pub fn show_keys_as_arn(&self, on: bool) {
        self.with(|w| w.keys_as_arn = on);
    }

    /// One secret, scheduled ones included.
    pub fn view(&self, region: &str, name: &str) -> Option<View> {
        self.with(|w| w.view(region, name))
    }

    /// The text of a secret's current version.
    pub fn value_of(&self, region: &str, name: &str) -> Option<String> {
        self.view(region, name).filter(|v| !v.deleted)?.value
    }

    /// Names in a region, scheduled ones excluded.
    pub fn names(&self, region: &str) -> Vec<String> {
        self.with(|w| w.region(region).secrets.values().filter(|s| s.deleted.is_none()).map(|s| s.name.clone()).collect())
    }
}

/// The service. It answers at every path, so that it can be mounted anywhere.
pub fn router(state: State) -> Router {
    Router::new().fallback(handle).with_state(state)
}

/// What a request turned into.
enum Reply {
    Json(Value),
    Xml(String),
}

async fn handle(Shared(state): Shared<State>, method: Method, OriginalUri(uri): OriginalUri, headers: HeaderMap, body: Bytes) -> Response {
    let id = uuid::Uuid::new_v4().to_string();
    let (result, date) = state.with(|world| {
        let request = auth::Signed { method: method.as_str(), uri: &uri, headers: &headers, body: &body };
        (answer(world, &request, &id), world.date())
    });
    let target = headers.contains_key("x-amz-target");
    let mut response = match result {
        Ok(Reply::Json(value)) => respond(StatusCode::OK, "application/x-amz-json-1.1", value.to_string()),
        Ok(Reply::Xml(text)) => respond(StatusCode::OK, "text/xml", text),
        Err(refusal) if target => {
            let body = json!({ "__type": refusal.code, "Message": refusal.message });
            respond(refusal.json_status(), "application/x-amz-json-1.1", body.to_string())
        }
        Err(refusal) => respond(refusal.xml_status(), "text/xml", sts::error(&refusal, &id)),
    };
    for (name, value) in [("x-amzn-requestid", id), ("date", date)] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    response
}

fn respond(status: StatusCode, kind: &'static str, body: String) -> Response {
    let mut response = Response::new(axum::body::Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", HeaderValue::from_static(kind));
    response
}

fn answer(world: &mut World, request: &auth::Signed<'_>, id: &str) -> Result<Reply, Refusal> {
    let target = request.headers.get("x-amz-target").and_then(|t| t.to_str().ok());
    let Some(target) = target else {
        let caller = auth::check(world, request, "sts")?;
        return sts::answer(world, &caller, request.body, id).map(Reply::Xml);
    };
    let caller = auth::check(world, request, "secretsmanager")?;
    let Some(operation) = target.strip_prefix("secretsmanager.") else {
        return Err(refuse("UnknownOperationException", "The requested operation does not exist."));
    };
    let input: Value = serde_json::from_slice(request.body).map_err(|_| refuse("SerializationException", "The request is not valid JSON."))?;
    let Value::Object(input) = input else {
        return Err(refuse("SerializationException", "The request is not a JSON object."));
    };
    let Some((_, run)) = OPERATIONS.iter().find(|(name, _)| *name == operation) else {
        return Err(refuse("UnknownOperationException", "The requested operation does not exist."));
    };
    let call = input::Call { operation, region: &caller.region, caller: &caller.arn, input: &input };
    run(world, &call).map(Reply::Json)
}

type Handler = fn(&mut World, &input::Call<'_>) -> Result<Value, Refusal>;

const OPERATIONS: &[(&str, Handler)] = &[
    ("ListSecrets", list::list_secrets),
    ("BatchGetSecretValue", list::batch_get),
    ("GetSecretValue", read::get),
    ("DescribeSecret", read::describe),
    ("ListSecretVersionIds", read::versions),
    ("CreateSecret", write::create),
    ("PutSecretValue", write::put),
    ("UpdateSecret", write::update),
    ("DeleteSecret", write::delete),
    ("RestoreSecret", write::restore),
    ("TagResource", labels::tag),
    ("UntagResource", labels::untag),
    ("UpdateSecretVersionStage", labels::move_stage),
];
