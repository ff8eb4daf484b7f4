//! One call to Bitbucket: authenticated, counted against the hourly budget, repeated when
//! that is safe, and held back after a refusal. What the answers mean is not decided here.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use reqwest::Method;
use serde::Serialize;
use serde_json::{Value, json};

use super::auth::Auth;
use super::budget::{Budget, Patience};
use super::place::Endpoint;
use super::spec::SERVICE;
use super::tempo::Tempo;
use crate::http::{Answer, ApiError, Cx, ErrorKind, Http, Policy};
use crate::model::connection::ResolvedConnection;
use crate::model::{Memory, SecretValue};

/// What a variable is written with. `secured` is always true: nothing else leaves us.
#[derive(Serialize)]
struct Body<'a> {
    key: &'a str,
    value: &'a str,
    secured: bool,
}

/// A key and its value, to be sent.
#[derive(Clone, Copy)]
pub struct Secured<'a> {
    pub key: &'a str,
    pub value: &'a SecretValue,
}

/// One call.
#[derive(Clone)]
pub struct Call<'a> {
    pub method: Method,
    /// The route template it is counted under, after the method.
    pub route: &'a str,
    /// Path segments after `/2.0`, not yet encoded.
    pub path: Vec<&'a str>,
    /// Ends the path with a slash.
    pub slash: bool,
    pub query: Vec<(String, String)>,
    pub body: Option<Secured<'a>>,
    pub patience: Patience,
}

impl<'a> Call<'a> {
    /// A GET for a run.
    pub fn get(route: &'a str, path: Vec<&'a str>) -> Self {
        Self { method: Method::GET, route, path, slash: false, query: Vec::new(), body: None, patience: Patience::Run }
    }

    pub fn query(mut self, name: &str, value: &str) -> Self {
        self.query.push((name.into(), value.into()));
        self
    }

    pub fn patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }
}

/// The API of one connection.
pub struct Api {
    pub endpoint: Endpoint,
    pub auth: Auth,
    pub budget: Arc<Budget>,
    pub memory: Arc<dyn Memory>,
    pub tempo: Tempo,
    http: Http,
    /// This server wants list paths to end in a slash.
    slashed: AtomicBool,
    refuses_empty: AtomicBool,
    /// When the credential itself was refused, and what further calls are told.
    refused: Mutex<Option<(Instant, ApiError)>>,
    /// A call was answered, and the credential was not what it was refused for.
    proven: AtomicBool,
    first: tokio::sync::Mutex<()>,
}

impl Api {
    /// Puts an API together; no call is made.
    pub fn new(connection: &ResolvedConnection, endpoint: Endpoint, memory: Arc<dyn Memory>, tempo: Tempo) -> Result<Self, ApiError> {
        let auth = Auth::of(connection, &endpoint)?;
        let given = connection.settings.get("hourlyBudget").and_then(super::spec::budget_of);
        let budget = Budget::shared(format!("bitbucket/{}/{}/budget", endpoint.identity(), auth.payer()), &tempo, given, &memory);
        let facts = memory.get(&habits(&endpoint)).unwrap_or_default();
        let flag = |name: &str| AtomicBool::new(facts.get(name).and_then(Value::as_bool).unwrap_or(false));
        Ok(Self {
            slashed: flag("slash"),
            refuses_empty: flag("refusesEmpty"),
            refused: Mutex::default(),
            proven: AtomicBool::new(false),
            first: tokio::sync::Mutex::new(()),
            http: Http::new(connection),
            endpoint,
            auth,
            budget,
            memory,
            tempo,
        })
    }

    /// True when the credential was refused and no call has succeeded since.
    pub fn refused(&self) -> bool {
        self.refusal().is_some()
    }

    fn refusal(&self) -> MutexGuard<'_, Option<(Instant, ApiError)>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True when list paths must end in a slash on this server.
    pub fn slashed(&self) -> bool {
        self.slashed.load(Ordering::Relaxed)
    }

    /// Remembers, over restarts, which kind of list path the server answers.
    pub fn set_slashed(&self, slashed: bool) {
        self.slashed.store(slashed, Ordering::Relaxed);
        self.remember();
    }

    /// True once this server refused an empty value.
    pub fn refuses_empty(&self) -> bool {
        self.refuses_empty.load(Ordering::Relaxed)
    }

    pub fn set_refuses_empty(&self) {
        self.refuses_empty.store(true, Ordering::Relaxed);
        self.remember();
    }

    fn remember(&self) {
        self.memory.put(&habits(&self.endpoint), json!({ "slash": self.slashed(), "refusesEmpty": self.refuses_empty() }));
    }

    /// Sends a call until it is answered for good: whatever the status but 429, which is waited
    /// out (a run) or becomes an error (a question). A POST is never sent twice unless it
    /// was refused or never arrived. Once the credential was refused, a run's calls are not sent:
    /// every one of them, of every sync, would be refused likewise.
    pub async fn send(&self, cx: &Cx, call: &Call<'_>) -> Result<Answer, ApiError> {
        let label = format!("{} {}", call.method, call.route);
        let counted = call.path.first() == Some(&"repositories");
        let write = call.method != Method::GET;
        let mut renewed = false;
        let mut again = false;
        let run = call.patience == Patience::Run;
        let mut alone = if run { self.alone(cx).await? } else { None };
        loop {
            let refusal = self.refusal().clone().filter(|(at, _)| run && at.elapsed() < self.tempo.forgive);
            if let Some((_, error)) = refusal {
                return Err(error);
            }
            let header = match self.auth.header(cx, &self.http).await {
                Err(error) if run && error.kind == ErrorKind::Auth => return Err(self.turn_away(error)),
                header => header?,
            };
            let turn = if counted { Some(self.budget.turn(cx, write, call.patience).await?) } else { None };
            let first = AtomicBool::new(true);
            let make = || {
                if !first.swap(false, Ordering::Relaxed) && counted {
                    self.budget.sent_again();
                }
                self.build(call, &header)
            };
            let policy = if call.method == Method::POST {
                Policy { attempts: 4, repeatable: false, pacer: None, retry: |_| false }
            } else {
                Policy { attempts: 4, repeatable: true, pacer: None, retry: passes }
            };
            let sent = if again {
                self.http.send_again(cx, SERVICE, &label, policy, make).await
            } else {
                self.http.send(cx, SERVICE, &label, policy, make).await
            };
            let answer = sent?;
            again = true;
            if turn.is_some_and(|turn| turn.answered(&answer)) {
                // Whose calls are counted is known: the others may wait for their own turn.
                self.proven.store(true, Ordering::Relaxed);
                alone = None;
                continue;
            }
            if answer.status == 429 {
                // A user-wide call: another quota, no log of ours. One answer is enough to know.
                return Ok(answer);
            }
            if answer.status == 401 && !renewed && self.auth.renew(&header).await {
                renewed = true;
                continue;
            }
            self.learn_from(cx, call, &answer);
            drop(alone);
            return Ok(answer);
        }
    }

    /// Until the credential has proved good, a run's calls go one at a time: when the first one
    /// is refused, the others need not be sent.
    async fn alone(&self, cx: &Cx) -> Result<Option<tokio::sync::MutexGuard<'_, ()>>, ApiError> {
        if self.proven.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let guard = match self.first.try_lock() {
            Ok(guard) => guard,
            Err(_) => {
                let paused = self.budget.resumes().map(|at| format!(", and calls are paused until {at}")).unwrap_or_default();
                let _shown = cx.waiting(&format!("Bitbucket: the first call of this connection goes alone{paused}"), None);
                tokio::select! {
                    guard = self.first.lock() => guard,
                    () = cx.cancel_token().cancelled() => return Err(ApiError::cancelled(SERVICE)),
                }
            }
        };
        Ok((!self.proven.load(Ordering::Relaxed)).then_some(guard))
    }

    fn learn_from(&self, cx: &Cx, call: &Call<'_>, answer: &Answer) {
        if answer.ok() {
            *self.refusal() = None;
        } else if call.patience == Patience::Run
            && let Some(error) = super::errors::turned_away(cx, &self.auth, answer)
        {
            self.turn_away(error);
            return;
        }
        if answer.status < 500 {
            self.proven.store(true, Ordering::Relaxed);
        }
    }

    /// Remembers that the credential was refused; answers what is told from now on.
    fn turn_away(&self, error: ApiError) -> ApiError {
        self.proven.store(false, Ordering::Relaxed);
        let now = jiff::Timestamp::now().as_millisecond();
        let again = super::budget::clock(now + i64::try_from(self.tempo.forgive.as_millis()).unwrap_or(0));
        let mut told = error.clone();
        told.message = format!("the credential was refused at {}, so nothing more is asked with it: {}", super::budget::clock(now), error.message);
        let advice = error.advice.clone().unwrap_or_default();
        let told = told.advice(format!("{advice} It is tried again when the connection changes, when a sync is run by hand, or after {again}."));
        *self.refusal() = Some((Instant::now(), told));
        error
    }

    /// Where a call goes, without its query.
    pub fn address(&self, call: &Call<'_>) -> url::Url {
        let mut url = crate::http::join(&self.endpoint.api, &call.path);
        if call.slash
            && let Ok(mut path) = url.path_segments_mut()
        {
            path.push("");
        }
        url
    }

    fn build(&self, call: &Call<'_>, header: &reqwest::header::HeaderValue) -> Result<reqwest::RequestBuilder, ApiError> {
        let mut url = self.address(call);
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&call.query);
        }
        let mut request = self.http.request(call.method.clone(), url)?.header("authorization", header.clone()).header("accept", "application/json");
        if let Some(body) = &call.body {
            request = request.json(&Body { key: body.key, value: body.value.expose(), secured: true });
        }
        Ok(request)
    }

    /// `GET /rest/api/1.0/application-properties`: true when Bitbucket Data Center answers it.
    pub async fn is_data_center(&self, cx: &Cx) -> bool {
        if self.endpoint.cloud {
            return false;
        }
        let url = crate::http::join(&self.endpoint.root, &["rest", "api", "1.0", "application-properties"]);
        // Without the credential: that server is not the one it is meant for.
        let policy = Policy { attempts: 1, ..Policy::default() };
        let sent = self
            .http
            .send(cx, SERVICE, "GET /rest/api/1.0/application-properties", policy, || {
                Ok(self.http.request(Method::GET, url.clone())?.header("accept", "application/json"))
            })
            .await;
        let Ok(answer) = sent else { return false };
        let told: Option<Value> = if answer.ok() && answer.is_json() { serde_json::from_slice(&answer.body).ok() } else { None };
        told.is_some_and(|t| t.get("displayName").and_then(Value::as_str) == Some("Bitbucket") && t.get("version").is_some())
    }
}

/// Where the habits of a server are remembered.
fn habits(endpoint: &Endpoint) -> String {
    format!("bitbucket/{}/habits", endpoint.identity())
}

fn passes(answer: &Answer) -> bool {
    matches!(answer.status, 408 | 500 | 502 | 503 | 504 | 555)
}
