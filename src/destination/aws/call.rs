//! One call to AWS, until it is answered for good: pacing, retries, counting, clock skew,
//! renewal of credentials. Every call of this destination goes through [`Api::call`].
//!
//! All our calls may be repeated after a lost answer: reads by nature, writes because they
//! carry a token of ours or bring about a state that a second call finds already there.

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::{AfterDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextRef};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use super::client::{Clients, Link, Ready, learn};
use super::errors::{clock_skew, wrap};
use super::lanes::{Lane, Lanes};
use super::spec::SERVICE;
use crate::http::{ApiError, Cx, ErrorKind, asked, backoff};

/// Attempts of a call that meets server trouble.
const ATTEMPTS: u32 = 5;
/// Attempts of a call that is throttled: it surely had no effect, and the pace has dropped.
const THROTTLED_ATTEMPTS: u32 = 10;
/// Only a clock further off than this explains a refused signature (AWS allows five minutes).
const SKEW_SECONDS: i64 = 240;

/// One API operation: its name, as it is counted, and its quota group.
#[derive(Debug, Clone, Copy)]
pub struct Operation {
    pub name: &'static str,
    pub lane: Lane,
    /// Server trouble and throttling are not waited out.
    once: bool,
    /// Goes out at once: its caller took the turn ([`Api::turn`]) before what it is built on was read.
    prompt: bool,
    /// Its caller sent it before; it counts as a retry.
    again: bool,
}

/// How a write goes out.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    /// In its turn, and again after trouble.
    Patient,
    /// At once and only once: the caller waits, reads again and builds it anew.
    Prompt { again: bool },
}

impl Operation {
    /// The same operation, not sent again in trouble.
    pub const fn once(self) -> Self {
        Self { once: true, ..self }
    }

    /// The same operation at this pace.
    pub const fn paced(self, pace: Pace) -> Self {
        match pace {
            Pace::Patient => self,
            Pace::Prompt { again } => Self { once: true, prompt: true, again, ..self },
        }
    }
}

/// How often a call is sent in all that ends in such an error.
pub fn most_attempts(kind: ErrorKind) -> u32 {
    if kind == ErrorKind::Throttled { THROTTLED_ATTEMPTS } else { ATTEMPTS }
}

/// An operation's constant.
pub const fn operation(name: &'static str, lane: Lane) -> Operation {
    Operation { name, lane, once: false, prompt: false, again: false }
}

const ASSUME_ROLE: Operation = operation("AssumeRole", Lane::Sts);

/// One connection in one region.
pub struct Api {
    pub link: Arc<Link>,
    pub region: String,
    clients: Clients,
    /// Its own until the account is known, then the account's.
    lanes: Mutex<Arc<Lanes>>,
    /// Seconds this machine's clock is ahead, once that made a call fail.
    skew: AtomicI64,
}

impl Api {
    pub fn new(link: Arc<Link>, region: &str) -> Self {
        let lanes = Mutex::new(Arc::new(Lanes::new(link.endpoint().is_some())));
        Self { link, region: region.to_string(), clients: Clients::new(), lanes, skew: AtomicI64::new(0) }
    }

    /// How fast calls go out.
    pub fn lanes(&self) -> Arc<Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on calls go out at the pace of this account and region.
    pub fn pace_as(&self, place: &str) {
        *self.lanes.lock().unwrap_or_else(PoisonError::into_inner) = Lanes::shared(place, self.link.endpoint().is_some());
    }

    /// A sentence once the clock proved wrong.
    pub fn clock_warning(&self) -> Option<String> {
        let skew = self.skew.load(Ordering::Relaxed);
        (skew != 0).then(|| {
            let (minutes, way) = ((skew.abs() + 30) / 60, if skew > 0 { "ahead of" } else { "behind" });
            format!("this machine's clock is {minutes} min {way} AWS's: set it, or signatures will be refused")
        })
    }

    /// Sends one call. `about` names the operation's object for error texts; `make` builds the
    /// call anew for each attempt and must attach the probe.
    pub async fn call<O, E, F, Fut>(&self, cx: &Cx, op: Operation, about: &str, make: F) -> Result<O, ApiError>
    where
        F: Fn(Ready, Probe) -> Fut + Send + Sync,
        Fut: Future<Output = Result<O, SdkError<E, HttpResponse>>> + Send,
        E: ProvideErrorMetadata + Send,
        O: Send,
    {
        let mut renewed = false;
        loop {
            let ready = self.ready(cx).await?;
            let result = self.attempts(cx, op, about, |probe| make(ready.clone(), probe)).await;
            match result {
                // A role's or the chain's session ended early: once more with a new one.
                Err(e) if is_expired(&e) && !self.link.is_static() && !renewed => {
                    renewed = true;
                    self.clients.set(None);
                }
                other => return other,
            }
        }
    }

    async fn attempts<O, E, F, Fut>(&self, cx: &Cx, op: Operation, about: &str, make: F) -> Result<O, ApiError>
    where
        F: Fn(Probe) -> Fut + Send + Sync,
        Fut: Future<Output = Result<O, SdkError<E, HttpResponse>>> + Send,
        E: ProvideErrorMetadata + Send,
        O: Send,
    {
        // Unsure: an earlier attempt may have taken effect, whatever became of the later ones.
        let (mut attempt, mut skewed, mut unsure) = (1, false, false);
        let lanes = self.lanes();
        loop {
            if !op.prompt {
                lanes.ready(cx, op.lane).await.map_err(|e| e.ambiguous(unsure))?;
            }
            let probe = Probe { cx: cx.clone(), name: op.name, retry: op.again || attempt > 1 };
            let sent = {
                let _busy = cx.enter(SERVICE).await.map_err(|e| e.ambiguous(unsure))?;
                make(probe).await
            };
            let raw = match sent {
                Ok(output) => {
                    lanes.calm(op.lane);
                    return Ok(output);
                }
                Err(raw) => raw,
            };
            let about = if about.is_empty() { op.name.to_string() } else { format!("{} {about}", op.name) };
            let mut error = wrap(cx, &about, &raw);
            if is_signature(&error)
                && let Some(off) = clock_skew(&raw).filter(|s| s.abs() > SKEW_SECONDS)
            {
                self.skew.store(off, Ordering::Relaxed);
                // The client has learned the server's time from this very answer.
                if !skewed {
                    skewed = true;
                    attempt += 1;
                    continue;
                }
                error = error.advice(self.clock_warning().unwrap_or_default());
            }
            drop(raw);
            unsure |= error.ambiguous;
            let throttled = error.kind == ErrorKind::Throttled;
            if throttled {
                lanes.throttled(op.lane, error.retry_after);
            }
            if op.once || !error.kind.passing() || attempt >= most_attempts(error.kind) || !cx.spend_retry() {
                return Err(error.ambiguous(unsure));
            }
            let reason = if throttled { format!("{SERVICE}: {} was throttled", op.name) } else { format!("{SERVICE}: {}", error.message) };
            let wait = match error.retry_after {
                // The lane holds everybody back for the asked time already.
                Some(_) if throttled => Duration::ZERO,
                Some(wait) => wait,
                None => backoff(attempt),
            };
            cx.wait(&asked(&reason, error.retry_after), wait).await.map_err(|e| e.ambiguous(unsure))?;
            attempt += 1;
        }
    }

    /// Waits for a group's turn, with good credentials: before what a prompt write is built on is read.
    pub async fn turn(&self, cx: &Cx, lane: Lane) -> Result<(), ApiError> {
        self.ready(cx).await?;
        self.lanes().ready(cx, lane).await
    }

    /// Clients with good credentials.
    pub async fn ready(&self, cx: &Cx) -> Result<Ready, ApiError> {
        if let Some(ready) = self.clients.current() {
            return Ok(ready);
        }
        let _one = self.clients.renewal().await;
        if let Some(ready) = self.clients.current() {
            return Ok(ready);
        }
        let base = self.link.base_credentials(cx, &self.region).await?;
        let credentials = match self.link.connection.text("roleArn").filter(|_| self.link.connection.method == "assume-role") {
            Some(role) => self.assume(cx, &base, role).await?,
            None => base,
        };
        let ready = self.link.ready(&credentials, &self.region)?;
        self.clients.set(Some(ready.clone()));
        Ok(ready)
    }

    async fn assume(&self, cx: &Cx, base: &Credentials, role: &str) -> Result<Credentials, ApiError> {
        let sts = self.link.ready(base, &self.region)?.sts;
        let text = |name| self.link.connection.text(name).map(str::to_string);
        let session = text("sessionName").unwrap_or_else(|| "kms-sync".into());
        let duration = text("durationSeconds").and_then(|d| d.parse::<i32>().ok());
        let answer = self
            .attempts(cx, ASSUME_ROLE, role, |probe| {
                sts.assume_role()
                    .role_arn(role)
                    .role_session_name(session.clone())
                    .set_external_id(text("externalId"))
                    .set_duration_seconds(duration)
                    .customize()
                    .interceptor(probe)
                    .send()
            })
            .await
            .map_err(|e| match e.kind {
                ErrorKind::Permission => e.advice(
                    "Check the role's trust policy (does it name this identity and this external id?). A role made seconds ago may need a minute.",
                ),
                _ => e,
            })?;
        let Some(given) = answer.credentials() else {
            return Err(ApiError::new(ErrorKind::NotTheService, SERVICE, format!("AssumeRole {role}: the answer holds no credentials")));
        };
        if [given.access_key_id(), given.secret_access_key(), given.session_token()].iter().any(|part| part.is_empty()) {
            return Err(ApiError::new(ErrorKind::NotTheService, SERVICE, format!("AssumeRole {role}: the answer lacks a part of the credentials")));
        }
        let expires = SystemTime::try_from(*given.expiration()).ok();
        let credentials =
            Credentials::new(given.access_key_id(), given.secret_access_key(), Some(given.session_token().to_string()), expires, "kms-sync-role");
        learn(cx, &credentials);
        Ok(credentials)
    }
}

fn is_expired(error: &ApiError) -> bool {
    matches!(error.code.as_deref(), Some("ExpiredToken" | "ExpiredTokenException"))
}

fn is_signature(error: &ApiError) -> bool {
    matches!(
        error.code.as_deref(),
        Some("InvalidSignatureException" | "SignatureDoesNotMatch" | "AuthFailure" | "RequestTimeTooSkewed" | "RequestExpired")
    )
}

/// Counts one attempt where it is really sent, with the sizes of its bodies.
pub struct Probe {
    cx: Cx,
    name: &'static str,
    retry: bool,
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Probe({})", self.name)
    }
}

impl Intercept for Probe {
    fn name(&self) -> &'static str {
        "kms-sync-meter"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _cfg: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let bytes = context.request().body().bytes().map_or(0, <[u8]>::len) as u64;
        self.cx.meter().request(SERVICE, self.name, bytes, self.retry);
        Ok(())
    }

    // Before it is read, a body is a stream of unknown length.
    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _cfg: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.cx.meter().received(context.response().body().bytes().map_or(0, <[u8]>::len) as u64);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::destination::aws::tags::Tags;
    use crate::model::SecretValue;
    use crate::model::connection::ResolvedConnection;
    use crate::sandbox::aws::{ACCESS_KEY_ID, SECRET_ACCESS_KEY, State, router};
    use crate::sandbox::host::{Effect, Fault, Host};

    fn connection(endpoint: &str) -> ResolvedConnection {
        let credentials = [("accessKeyId", ACCESS_KEY_ID), ("secretAccessKey", SECRET_ACCESS_KEY)];
        ResolvedConnection {
            id: "c".into(),
            name: "aws".into(),
            app: "aws".into(),
            method: "access-key".into(),
            credentials: credentials.into_iter().map(|(k, v)| (k.to_string(), SecretValue::new(v))).collect(),
            settings: json!({ "endpoint": endpoint }).as_object().cloned().unwrap_or_default(),
            ca_file: None,
            allow_insecure_http: false,
        }
    }

    #[tokio::test]
    async fn a_call_that_hangs_is_given_up_and_repeated_with_its_token() {
        let state = State::default();
        let host = Host::start(router(state.clone()), None).await.expect("a port");
        let api = Api::new(Arc::new(Link::new(connection(&host.url)).expect("a connection")), "us-east-1");
        let cx = Cx::quiet();
        host.faults.add(Fault::next("CreateSecret", 1, Effect::Delay(ATTEMPT_LONGER)));
        let token = "6f1b1b1e-0000-4000-8000-000000000001";
        let (_, version) = api.create(&cx, "A", token, &SecretValue::new("v"), None, &Tags::new()).await.expect("the second time");
        assert_eq!((version.as_str(), host.log.count("CreateSecret")), (token, 2));
        let view = state.view("us-east-1", "A").expect("made");
        assert_eq!((view.versions, cx.meter().snapshot().retries), (1, 1));
    }

    /// Longer than an attempt may take.
    const ATTEMPT_LONGER: Duration = Duration::from_secs(8);
}
