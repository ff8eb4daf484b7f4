//! One call: address, headers, credential, API version, pacing. It knows what an answer of
//! the service looks like ([`super::errors`]) and nothing of syncs.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use reqwest::Method;
use serde_json::Value;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::SERVICE;
use super::api::{self, Api, Resource, Version};
use super::errors::{self, Doing, Facts, Refusal};
use crate::destination::entra::{Grant, PUBLIC_AUTHORITY, Tokens};
use crate::http::{Answer, ApiError, Cx, ErrorKind, Http, Pacer, Policy, asked, join};
use crate::model::SecretValue;
use crate::model::connection::ResolvedConnection;

/// The resource of Azure DevOps in Entra (Microsoft: "Use service principals and managed identities").
const ENTRA_SCOPE: &str = "499b84ac-1321-427f-aa17-267ca6975798/.default";
const AUDIENCES: &[&str] = &["499b84ac-1321-427f-aa17-267ca6975798", "https://app.vssps.visualstudio.com"];
/// Requests of one connection in flight at once: these readings, and those of this many batches
/// that write. Each has places of its own, so that no write waits behind readings.
const READINGS: usize = 2;
const BATCHES: usize = 2;
/// The variable groups' location, the same in every version.
const GROUPS_LOCATION: &str = "f5b09dd5-9d54-45a1-8b5a-1c8287d634cc";

pub(super) struct Client {
    http: Http,
    base: url::Url,
    organisation: String,
    auth: Auth,
    pacer: Pacer,
    readings: Semaphore,
    batches: Semaphore,
    api: Mutex<Api>,
    /// One per session: the service echoes it and support can find the calls by it.
    session: String,
    budget: Mutex<Option<String>>,
    /// The version an answer names when it is not the one asked for.
    echoed: Mutex<Option<String>>,
}

/// The right to write, until it is dropped.
pub(super) struct Turn<'c> {
    /// A token had to be asked for: what was read before may be old.
    pub asked: bool,
    _place: Option<SemaphorePermit<'c>>,
}

enum Auth {
    Basic { token: SecretValue, header: SecretValue },
    Bearer(Box<Tokens>),
}

/// What became of one attempt.
enum Step {
    Answered(Answer),
    /// The token was refused, and another one can be had.
    Refused,
    /// Another API version was chosen.
    Version,
}

/// Under what a path stands.
#[derive(Debug, Clone, Copy)]
pub(super) enum Scope<'a> {
    Organisation,
    Project(&'a str),
    /// A write: at the organisation from API 5.2 on, in the project before.
    Write(&'a str),
}

pub(super) struct Call<'a> {
    pub method: Method,
    pub label: &'static str,
    pub doing: Doing,
    pub resource: Resource,
    pub scope: Scope<'a>,
    pub tail: &'a [&'a str],
    pub query: Vec<(&'static str, String)>,
    pub body: Option<Bytes>,
}

impl Client {
    pub fn new(connection: &ResolvedConnection) -> Result<Self, ApiError> {
        let need = |field: &str| {
            connection
                .text(field)
                .ok_or_else(|| ApiError::new(ErrorKind::Auth, SERVICE, format!("the connection {:?} has no {field}", connection.name)))
        };
        let http = Http::new(connection);
        let auth = match connection.method.as_str() {
            "access-token" => Auth::basic(need("accessToken")?)?,
            method => {
                let grant = match method {
                    "client-secret" => Grant::client_secret(need("tenantId")?, need("clientId")?, SecretValue::new(need("clientSecret")?)),
                    "bearer-token" => Grant::Token(SecretValue::new(need("accessToken")?)),
                    "az-cli" => Grant::az_cli(connection.text("tenantId"), None),
                    other => {
                        return Err(ApiError::new(ErrorKind::Auth, SERVICE, format!("the connection's method {other:?} is not known"))
                            .advice("Use access-token (a personal access token) or client-secret."));
                    }
                };
                let authority = connection.setting("authorityUrl").unwrap_or(PUBLIC_AUTHORITY);
                let authority = url::Url::parse(authority)
                    .map_err(|_| ApiError::new(ErrorKind::Invalid, SERVICE, "the connection's authorityUrl is not an address"))?;
                Auth::Bearer(Box::new(Tokens::new(http.clone(), authority, grant, ENTRA_SCOPE).audiences(AUDIENCES)))
            }
        };
        Ok(Self {
            http,
            base: api::base(connection.setting("endpoint"), need("orgName")?)?,
            organisation: need("orgName")?.to_string(),
            auth,
            pacer: Pacer::new("Azure DevOps", 20.0, 20.0, 10),
            readings: Semaphore::new(READINGS),
            batches: Semaphore::new(BATCHES),
            api: Mutex::new(Api::new(connection.setting("apiVersion"))?),
            session: uuid::Uuid::new_v4().to_string(),
            budget: Mutex::new(None),
            echoed: Mutex::new(None),
        })
    }

    pub fn base(&self) -> &url::Url {
        &self.base
    }

    pub fn version(&self) -> Version {
        lock(&self.api).version
    }

    pub fn budget(&self) -> Option<String> {
        lock(&self.budget).clone()
    }

    /// A sentence when the service answers in another version than the one asked for.
    pub fn version_warning(&self) -> Option<String> {
        let echoed = lock(&self.echoed).clone()?;
        Some(format!("Azure DevOps answers in API version {echoed} although {} was asked for.", self.version()))
    }

    /// Sends a reading. The result is an answer of the API (200 with JSON); everything else is
    /// an error with advice. Readings are repeated here.
    pub async fn send(&self, cx: &Cx, call: &Call<'_>) -> Result<Answer, ApiError> {
        let _place = place(&self.readings, cx).await?;
        let mut renewed = false;
        // Each turn but the last changes the version or the token, so there are few.
        for _ in 0..6 {
            let token = self.auth.header(cx).await?;
            match self.step(cx, call, &token, renewed).await? {
                Step::Answered(answer) => return Ok(answer),
                Step::Refused => renewed = true,
                Step::Version => {}
            }
        }
        Err(ApiError::new(ErrorKind::Invalid, SERVICE, "no API version could be agreed on with this server")
            .advice("Set the connection's apiVersion to one the server offers."))
    }

    /// Sends a write once, at once. Like [`Self::send`] (a deletion's answer may be empty), but
    /// whatever makes it necessary to send again is an error of the kind `Unsettled`: what the
    /// write is built on may have changed meanwhile. `renewed`: a refused token was replaced for
    /// this write before; the next refusal is believed.
    pub async fn write(&self, cx: &Cx, call: &Call<'_>, renewed: &mut bool) -> Result<Answer, ApiError> {
        let outdated = || {
            ApiError::new(
                ErrorKind::Unsettled,
                SERVICE,
                "the access token or the API version changed while the group was written; nothing was written",
            )
            .advice("Run the sync again.")
        };
        let Some(token) = self.auth.at_hand(cx) else {
            self.auth.header(cx).await?;
            return Err(outdated());
        };
        match self.step(cx, call, &token, *renewed).await? {
            Step::Answered(answer) => Ok(answer),
            Step::Version => Err(outdated()),
            Step::Refused => {
                *renewed = true;
                self.auth.header(cx).await?;
                Err(outdated())
            }
        }
    }

    async fn step(&self, cx: &Cx, call: &Call<'_>, token: &SecretValue, renewed: bool) -> Result<Step, ApiError> {
        let api = lock(&self.api).clone();
        let answer = self.once(cx, call, &api, token).await?;
        self.observe(&api, call.resource, &answer);
        if self.renegotiate(cx, call, &api, &answer, token).await? {
            return Ok(Step::Version);
        }
        if answer.status == 401
            && !renewed
            && let Auth::Bearer(tokens) = &self.auth
            && tokens.refused(token)
        {
            return Ok(Step::Refused);
        }
        let facts =
            Facts { organisation: &self.organisation, bearer: matches!(self.auth, Auth::Bearer(_)), tenant: self.auth.tenant(), worked: api.settled };
        let answer = errors::judge(cx, call.doing, facts, answer)?;
        lock(&self.api).settled = true;
        Ok(Step::Answered(answer))
    }

    async fn once(&self, cx: &Cx, call: &Call<'_>, api: &Api, token: &SecretValue) -> Result<Answer, ApiError> {
        let url = self.url(api, call);
        let writes = matches!(call.method, Method::POST | Method::PUT | Method::DELETE);
        // A write follows at once the reading that it is built on: whatever has to be waited
        // for comes before that reading, and a refused write is built anew by its caller.
        let policy = Policy {
            pacer: (!writes).then_some(&self.pacer),
            repeatable: !writes,
            attempts: if writes { 1 } else { Policy::default().attempts },
            retry: errors::passing,
        };
        let answer = self
            .http
            .send(cx, SERVICE, call.label, policy, || {
                let request = self.headers(self.http.request(call.method.clone(), url.clone())?, token);
                Ok(match &call.body {
                    Some(body) => request.header("content-type", "application/json; charset=utf-8").body(body.clone()),
                    None => request,
                })
            })
            .await?;
        if writes && answer.throttled() {
            self.pacer.throttled(answer.retry_after());
        }
        Ok(answer)
    }

    /// Waits for this connection's turn to write and for its token: before a reading and the
    /// write that follows it.
    pub async fn turn(&self, cx: &Cx) -> Result<Turn<'_>, ApiError> {
        let place = match self.batches.try_acquire() {
            Ok(place) => Some(place),
            Err(_) => {
                let _shown = cx.waiting("Azure DevOps: other runs of this connection are writing", None);
                place(&self.batches, cx).await?
            }
        };
        let asks = self.auth.at_hand(cx).is_none();
        if asks {
            self.auth.header(cx).await?;
        }
        self.pacer.ready(cx).await?;
        Ok(Turn { asked: asks, _place: place })
    }

    fn headers(&self, request: reqwest::RequestBuilder, token: &SecretValue) -> reqwest::RequestBuilder {
        let scheme = if matches!(self.auth, Auth::Basic { .. }) { "Basic" } else { "Bearer" };
        let text = zeroize::Zeroizing::new(format!("{scheme} {}", token.expose()));
        let request = match reqwest::header::HeaderValue::from_str(&text) {
            Ok(mut value) => {
                value.set_sensitive(true);
                request.header("authorization", value)
            }
            // `Auth::basic` and Entra allow no such token; without a header the service says 401.
            Err(_) => request,
        };
        request
            .header("accept", "application/json")
            .header("x-tfs-fedauthredirect", "Suppress")
            .header("x-vss-forcemsapassthrough", "true")
            .header("x-tfs-session", &self.session)
    }

    fn url(&self, api: &Api, call: &Call<'_>) -> url::Url {
        let mut segments = Vec::with_capacity(6);
        match call.scope {
            Scope::Project(project) => segments.push(project),
            Scope::Write(project) if !api.version.writes_at_organisation() => segments.push(project),
            Scope::Organisation | Scope::Write(_) => {}
        }
        segments.push("_apis");
        match call.resource {
            Resource::Groups => segments.extend(["distributedtask", "variablegroups"]),
            Resource::Projects => segments.push("projects"),
        }
        segments.extend(call.tail);
        let mut url = join(&self.base, &segments);
        let mut query = String::new();
        for (name, value) in &call.query {
            query.push_str(&format!("{name}={}&", percent_encoding::utf8_percent_encode(value, QUERY)));
        }
        query.push_str("api-version=");
        query.push_str(api.sent(call.resource));
        url.set_query(Some(&query));
        url
    }

    /// Every answer may ask to slow down, good ones included. Microsoft: "Rate and usage limits".
    fn observe(&self, api: &Api, resource: Resource, answer: &Answer) {
        if answer.ok()
            && let Some(wait) = answer.retry_after()
        {
            self.pacer.hold(wait, &asked("Azure DevOps asked to wait", Some(wait)));
        }
        let number = |name: &str| answer.header(name).and_then(|v| v.trim().parse::<f64>().ok()).filter(|n| n.is_finite());
        if let (Some(limit), Some(left)) = (number("x-ratelimit-limit"), number("x-ratelimit-remaining")) {
            *lock(&self.budget) = Some(format!("{left:.0} of {limit:.0} left"));
            if left < limit / 10.0
                && let Some(reset) = number("x-ratelimit-reset")
            {
                let now = answer.header("date").and_then(crate::http::parse_http_date).unwrap_or_else(jiff::Timestamp::now);
                let until = (reset - now.as_second() as f64).clamp(0.0, 300.0);
                self.pacer.hold(Duration::from_secs_f64(until / left.max(1.0)), "Azure DevOps: little of the rate budget is left");
            }
        }
        if resource == Resource::Groups && answer.ok() {
            let echoed = answer.header("content-type").and_then(|t| t.split("api-version=").nth(1)).and_then(Version::parse);
            *lock(&self.echoed) = echoed.filter(|v| *v != api.version).map(|v| v.to_string());
        }
    }

    /// True when another version was chosen and the call is worth sending again.
    async fn renegotiate(&self, cx: &Cx, call: &Call<'_>, api: &Api, answer: &Answer, token: &SecretValue) -> Result<bool, ApiError> {
        if !matches!(answer.status, 400 | 404) {
            return Ok(false);
        }
        let refusal = Refusal::read(answer);
        if refusal.type_key.starts_with("VssInvalidPreviewVersion") {
            let Some(text) = api::preview_offered(&refusal.message) else { return Ok(false) };
            let new = api.sent(call.resource) != text;
            lock(&self.api).use_text(call.resource, text);
            return Ok(new);
        }
        if api.pinned {
            return Ok(false);
        }
        if refusal.type_key.starts_with("VssVersionOutOfRange") {
            let Some(ceiling) = api::version_offered(&refusal.message) else { return Ok(false) };
            return self.lower(api, ceiling);
        }
        // Azure DevOps Server 2019 answers a bare 404 to a version it does not know.
        if answer.status == 404 && refusal.type_key.is_empty() && !api.settled && !api::is_services(&self.base) {
            return match self.ceiling(cx, token).await {
                Some(ceiling) => self.lower(api, ceiling),
                None => Ok(false),
            };
        }
        Ok(false)
    }

    fn lower(&self, from: &Api, ceiling: Version) -> Result<bool, ApiError> {
        if ceiling >= from.version {
            return Ok(false);
        }
        lock(&self.api).lower_to(ceiling)?;
        Ok(true)
    }

    /// The newest version of variable groups, from the locations every server lists without a version.
    async fn ceiling(&self, cx: &Cx, token: &SecretValue) -> Option<Version> {
        let url = join(&self.base, &["_apis"]);
        let policy = Policy { pacer: Some(&self.pacer), ..Policy::default() };
        let answer = self
            .http
            .send(cx, SERVICE, "OPTIONS /_apis", policy, || Ok(self.headers(self.http.request(Method::OPTIONS, url.clone())?, token)))
            .await
            .ok()?;
        let list: Value = answer.ok().then(|| answer.json(SERVICE).ok())??;
        let location = list
            .get("value")?
            .as_array()?
            .iter()
            .find(|l| l.get("id").and_then(Value::as_str).is_some_and(|id| id.eq_ignore_ascii_case(GROUPS_LOCATION)))?;
        Version::parse(location.get("maxVersion")?.as_str()?)
    }
}

/// Everything but letters, digits and `-_.~`.
const QUERY: &percent_encoding::AsciiSet = &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

impl Auth {
    fn basic(token: &str) -> Result<Self, ApiError> {
        if token.chars().any(char::is_control) {
            return Err(ApiError::new(ErrorKind::Auth, SERVICE, "the access token holds a line break or another control character")
                .advice("Store the token again, without line breaks."));
        }
        let pair = zeroize::Zeroizing::new(format!(":{token}"));
        let header = base64::engine::general_purpose::STANDARD.encode(pair.as_bytes());
        Ok(Self::Basic { token: SecretValue::new(token), header: SecretValue::new(header) })
    }

    /// The part behind the scheme.
    async fn header(&self, cx: &Cx) -> Result<SecretValue, ApiError> {
        match self {
            Self::Basic { token, header } => {
                cx.redactor().learn(token);
                cx.redactor().learn(header);
                Ok(header.clone())
            }
            Self::Bearer(tokens) => tokens.token(cx).await,
        }
    }

    /// [`Self::header`] without asking anybody; `None` when a token would have to be asked for.
    fn at_hand(&self, cx: &Cx) -> Option<SecretValue> {
        match self {
            Self::Basic { header, .. } => Some(header.clone()),
            Self::Bearer(tokens) => tokens.at_hand(cx),
        }
    }

    fn tenant(&self) -> Option<&str> {
        match self {
            Self::Basic { .. } => None,
            Self::Bearer(tokens) => tokens.grant().tenant(),
        }
    }
}

/// A free place; the semaphores are never closed, and a closed one would only mean no bound.
async fn place<'s>(places: &'s Semaphore, cx: &Cx) -> Result<Option<SemaphorePermit<'s>>, ApiError> {
    tokio::select! {
        place = places.acquire() => Ok(place.ok()),
        () = cx.cancel_token().cancelled() => Err(ApiError::cancelled(SERVICE)),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
