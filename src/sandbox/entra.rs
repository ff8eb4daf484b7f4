//! A Microsoft Entra token endpoint for the embedded Azure services: app registrations,
//! client secrets, and the refusals of the real one by their AADSTS numbers. The tenant `adfs`
//! is an AD FS as Azure Stack Hub has it: the same under paths of its own, without tenants.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::extract::{Form, OriginalUri, Path, State as Shared};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use base64::Engine as _;
use serde_json::{Value, json};

use super::host::lock;
use super::tls::OverTls;

/// Audiences of Key Vault tokens, one per cloud.
pub const KEY_VAULT: &str = "https://vault.azure.net";
/// The audience of Azure DevOps tokens.
pub const AZURE_DEVOPS: &str = "499b84ac-1321-427f-aa17-267ca6975798";

/// The tenant that is none: an AD FS.
const ADFS: &str = "adfs";

/// Scopes (without `/.default`) and the audience of their tokens.
static RESOURCES: &[(&str, &str)] = &[
    (KEY_VAULT, KEY_VAULT),
    ("https://vault.usgovcloudapi.net", "https://vault.usgovcloudapi.net"),
    ("https://vault.azure.cn", "https://vault.azure.cn"),
    (AZURE_DEVOPS, AZURE_DEVOPS),
    ("https://app.vssps.visualstudio.com", AZURE_DEVOPS),
];

/// The directory. Cloning shares it.
#[derive(Clone, Default)]
pub struct State(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    apps: Vec<App>,
    tokens: HashMap<String, Issued>,
    /// Resources of services outside Microsoft's clouds.
    resources: Vec<String>,
    /// Seconds a token lives; 0 means 3,599.
    life: i64,
    /// Refuse the next requests with this number.
    refuse: Option<u32>,
    requests: u64,
}

/// An app registration.
#[derive(Debug, Clone)]
struct App {
    tenant: String,
    client_id: String,
    secret: String,
    object_id: String,
    secret_expired: bool,
    disabled: bool,
}

/// What a token was issued for.
#[derive(Debug, Clone)]
pub struct Issued {
    pub tenant: String,
    pub client_id: String,
    pub object_id: String,
    pub audience: String,
    /// Unix seconds.
    pub expires: i64,
}

/// Why a service does not accept a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenFault {
    /// Not issued here, or revoked.
    Unknown,
    Expired,
    Audience,
    Tenant,
}

impl State {
    /// An empty directory.
    pub fn new() -> Self {
        Self::default()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        lock(&self.0)
    }

    /// Registers an app with one client secret.
    pub fn register(&self, tenant: &str, client_id: &str, secret: &str) {
        self.inner().apps.push(App {
            tenant: tenant.to_string(),
            client_id: client_id.to_string(),
            secret: secret.to_string(),
            object_id: uuid::Uuid::new_v4().to_string(),
            secret_expired: false,
            disabled: false,
        });
    }

    /// Makes a service known (its resource), besides those of Microsoft's clouds.
    pub fn add_resource(&self, resource: &str) {
        self.inner().resources.push(resource.to_string());
    }

    /// Lets an app's secret expire.
    pub fn expire_secret(&self, client_id: &str) {
        self.inner().apps.iter_mut().filter(|a| a.client_id == client_id).for_each(|a| a.secret_expired = true);
    }

    /// Disables an app.
    pub fn disable(&self, client_id: &str) {
        self.inner().apps.iter_mut().filter(|a| a.client_id == client_id).for_each(|a| a.disabled = true);
    }

    /// Life of the tokens issued from now on, in seconds.
    pub fn token_life(&self, seconds: i64) {
        self.inner().life = seconds;
    }

    /// Refuses every request with an AADSTS number, until `None`.
    pub fn refuse(&self, code: Option<u32>) {
        self.inner().refuse = code;
    }

    /// Makes every token issued so far worthless.
    pub fn revoke_all(&self) {
        self.inner().tokens.clear();
    }

    /// Token requests so far, refused ones included.
    pub fn requests(&self) -> u64 {
        self.inner().requests
    }

    /// A token without asking for it (`az account get-access-token` in a test).
    pub fn mint(&self, tenant: &str, client_id: &str, audience: &str) -> String {
        let mut inner = self.inner();
        let object_id = inner.apps.iter().find(|a| a.client_id == client_id).map(|a| a.object_id.clone());
        inner.issue(tenant, client_id, &object_id.unwrap_or_else(|| uuid::Uuid::new_v4().to_string()), audience).0
    }

    /// What a service does with a token: looks whether it was issued here, for this audience,
    /// by the tenant the service trusts, and still lives.
    pub fn check(&self, token: &str, audience: &str, tenant: &str) -> Result<Issued, TokenFault> {
        let inner = self.inner();
        let issued = inner.tokens.get(token).ok_or(TokenFault::Unknown)?;
        if issued.expires <= jiff::Timestamp::now().as_second() {
            return Err(TokenFault::Expired);
        }
        if issued.audience != audience {
            return Err(TokenFault::Audience);
        }
        if issued.tenant != tenant {
            return Err(TokenFault::Tenant);
        }
        Ok(issued.clone())
    }
}

impl Inner {
    fn issue(&mut self, tenant: &str, client_id: &str, object_id: &str, audience: &str) -> (String, i64) {
        let life = if self.life == 0 { 3599 } else { self.life };
        let now = jiff::Timestamp::now().as_second();
        let claims = json!({
            "aud": audience, "iss": format!("https://sts.windows.net/{tenant}/"), "iat": now, "nbf": now, "exp": now + life,
            "appid": client_id, "oid": object_id, "tid": tenant, "ver": "1.0",
        });
        let b64 = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
        let token = format!("{}.{}.{}", b64(r#"{"typ":"JWT","alg":"none"}"#), b64(&claims.to_string()), b64(&uuid::Uuid::new_v4().to_string()));
        let issued = Issued {
            tenant: tenant.to_string(),
            client_id: client_id.to_string(),
            object_id: object_id.to_string(),
            audience: audience.to_string(),
            expires: now + life,
        };
        self.tokens.insert(token.clone(), issued);
        (token, life)
    }
}

/// The router of the authority's host.
pub fn router(state: State) -> axum::Router {
    use axum::routing::{get, post};
    axum::Router::new()
        .route("/adfs/oauth2/token", post(|shared, form| token(shared, Path(ADFS.to_string()), form)))
        .route("/{tenant}/oauth2/v2.0/token", post(token))
        .route("/{tenant}/v2.0/.well-known/openid-configuration", get(discovery))
        .fallback(not_found)
        .with_state(state)
}

/// Where a tenant's endpoints are (OpenID Connect Discovery 1.0): Microsoft's clients ask
/// before their first token request.
async fn discovery(
    Shared(state): Shared<State>,
    Path(tenant): Path<String>,
    OriginalUri(whole): OriginalUri,
    tls: Option<Extension<OverTls>>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    if !state.inner().apps.iter().any(|a| a.tenant.eq_ignore_ascii_case(&tenant)) {
        return Refusal::of(90002).about(&tenant).response();
    }
    let scheme = if tls.is_some() { "https" } else { "http" };
    let host = headers.get("host").and_then(|h| h.to_str().ok()).unwrap_or("localhost");
    let under = whole.path().strip_suffix(uri.path()).unwrap_or_default();
    let base = format!("{scheme}://{host}{under}/{tenant}");
    Json(json!({
        "issuer": format!("{base}/v2.0"), "token_endpoint": format!("{base}/oauth2/v2.0/token"),
        "authorization_endpoint": format!("{base}/oauth2/v2.0/authorize"), "jwks_uri": format!("{base}/discovery/v2.0/keys"),
        "token_endpoint_auth_methods_supported": ["client_secret_post"], "response_types_supported": ["code"],
        "subject_types_supported": ["pairwise"], "id_token_signing_alg_values_supported": ["RS256"],
    }))
    .into_response()
}

async fn not_found() -> Response {
    (StatusCode::NOT_FOUND, "").into_response()
}

async fn token(Shared(state): Shared<State>, Path(tenant): Path<String>, Form(form): Form<HashMap<String, String>>) -> Response {
    let mut inner = state.inner();
    inner.requests += 1;
    match grant(&mut inner, &tenant, &form) {
        Ok(answer) => Json(answer).into_response(),
        Err(refusal) => refusal.response(),
    }
}

fn grant(inner: &mut Inner, tenant: &str, form: &HashMap<String, String>) -> Result<Value, Refusal> {
    let field = |name: &str| form.get(name).map(String::as_str).filter(|v| !v.is_empty());
    if let Some(code) = inner.refuse {
        return Err(Refusal::of(code));
    }
    if field("grant_type") != Some("client_credentials") {
        return Err(Refusal::of(70003));
    }
    if !inner.apps.iter().any(|a| a.tenant.eq_ignore_ascii_case(tenant)) {
        return Err(Refusal::of(90002).about(tenant));
    }
    let client = field("client_id").ok_or_else(|| Refusal::of(900144).about("client_id"))?;
    let scope = field("scope").ok_or_else(|| Refusal::of(900144).about("scope"))?;
    let app = inner.apps.iter().find(|a| a.client_id.eq_ignore_ascii_case(client) && a.tenant.eq_ignore_ascii_case(tenant)).cloned();
    let app = app.ok_or_else(|| Refusal::of(700016).about(client))?;
    if app.disabled {
        return Err(Refusal::of(7000112).about(client));
    }
    let secret = field("client_secret").ok_or_else(|| Refusal::of(7000218))?;
    if secret != app.secret {
        return Err(Refusal::of(7000215).about(client));
    }
    if app.secret_expired {
        return Err(Refusal::of(7000222).about(client));
    }
    let resource = scope.strip_suffix("/.default").ok_or_else(|| Refusal::of(1002012).about(scope))?;
    let own = inner.resources.iter().find(|r| *r == resource).cloned();
    let known = || RESOURCES.iter().find(|(r, _)| *r == resource).map(|(_, audience)| (*audience).to_string());
    let audience = own.or_else(known).ok_or_else(|| Refusal::of(500011).about(resource))?;
    let (token, life) = inner.issue(&app.tenant, &app.client_id, &app.object_id, &audience);
    Ok(json!({"token_type": "Bearer", "expires_in": life, "ext_expires_in": life, "access_token": token}))
}

/// A refusal as the real endpoint words it.
struct Refusal {
    code: u32,
    about: String,
}

impl Refusal {
    fn of(code: u32) -> Self {
        Self { code, about: String::new() }
    }

    fn about(mut self, what: &str) -> Self {
        self.about = what.to_string();
        self
    }

    fn response(self) -> Response {
        let Self { code, about } = self;
        let (status, error, text) = match code {
            7000215 => (
                401,
                "invalid_client",
                format!(
                    "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '{about}'."
                ),
            ),
            7000222 => (401, "invalid_client", format!("The provided client secret keys for app '{about}' are expired.")),
            7000218 => {
                (401, "invalid_client", "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.".into())
            }
            700016 => (400, "unauthorized_client", format!("Application with identifier '{about}' was not found in the directory.")),
            7000112 => (401, "unauthorized_client", format!("Application '{about}' is disabled.")),
            90002 => (
                400,
                "invalid_request",
                format!("Tenant '{about}' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud."),
            ),
            900144 => (400, "invalid_request", format!("The request body must contain the following parameter: '{about}'.")),
            70003 => (400, "unsupported_grant_type", "The app requested an unsupported grant type.".into()),
            1002012 => (
                400,
                "invalid_scope",
                format!(
                    "The provided value for scope {about} is not valid. Client credential flows must have a scope value with /.default suffixed to the resource identifier."
                ),
            ),
            500011 => (400, "invalid_resource", format!("The resource principal named {about} was not found in the tenant.")),
            90033 | 90012 | 90006 | 90024 => (503, "temporarily_unavailable", "A transient error has occurred. Please try again.".into()),
            _ => (400, "invalid_request", "The request was refused.".into()),
        };
        let (trace, correlation) = (uuid::Uuid::new_v4().to_string(), uuid::Uuid::new_v4().to_string());
        let now = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M:%SZ").to_string();
        let body = json!({
            "error": error,
            "error_description": format!("AADSTS{code}: {text}\r\nTrace ID: {trace}\r\nCorrelation ID: {correlation}\r\nTimestamp: {now}"),
            "error_codes": [code], "timestamp": now, "trace_id": trace, "correlation_id": correlation,
            "error_uri": format!("https://login.microsoftonline.com/error?code={code}"),
        });
        (StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST), Json(body)).into_response()
    }
}
