//! Credentials and clients of one connection in one region.
//!
//! Service clients are always built from plain credentials and our own settings, never from
//! the SDK's loaded configuration: neither environment nor profile files can redirect or
//! retune a connection that holds its own keys. The default chain is asked for credentials
//! only. Retries of the SDK are off: the loop in [`super::call`] owns them.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sdk_secretsmanager as sm;
use aws_sdk_sts as sts;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider as TlsProvider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use sm::config::{BehaviorVersion, Region, StalledStreamProtectionConfig};

use super::errors::causes;
use super::spec::{SERVICE, access_key_id, partition};
use crate::http::{ApiError, Cx, ErrorKind};
use crate::model::SecretValue;
use crate::model::connection::{ResolvedConnection, is_loopback};
use crate::model::text::brief;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// One attempt, from sending to the last byte.
const ATTEMPT_TIMEOUT: Duration = if cfg!(test) { Duration::from_secs(2) } else { Duration::from_secs(30) };
/// Temporary credentials are renewed this long before they end.
const RENEW_BEFORE: Duration = Duration::from_secs(120);

/// A connection and the transport that its regions share.
pub struct Link {
    pub connection: ResolvedConnection,
    http: OnceLock<Result<SharedHttpClient, String>>,
}

/// Clients ready to be called.
#[derive(Clone)]
pub struct Ready {
    pub sm: sm::Client,
    pub sts: sts::Client,
    /// When the credentials end.
    expires: Option<SystemTime>,
}

impl Ready {
    fn fresh(&self) -> bool {
        self.expires.is_none_or(|end| end > SystemTime::now() + RENEW_BEFORE)
    }
}

/// The clients of one region, renewed when their credentials end.
pub struct Clients {
    ready: Mutex<Option<Ready>>,
    renewing: tokio::sync::Mutex<()>,
}

impl Clients {
    pub fn new() -> Self {
        Self { ready: Mutex::new(None), renewing: tokio::sync::Mutex::new(()) }
    }

    /// Clients whose credentials are good for a while, if there are any.
    pub fn current(&self) -> Option<Ready> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).clone().filter(Ready::fresh)
    }

    /// Held while credentials are renewed, so that only one call asks for them.
    pub async fn renewal(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.renewing.lock().await
    }

    pub fn set(&self, ready: Option<Ready>) {
        *self.ready.lock().unwrap_or_else(PoisonError::into_inner) = ready;
    }
}

impl Link {
    /// Checks what can be checked without a call.
    pub fn new(connection: ResolvedConnection) -> Result<Self, ApiError> {
        if connection.method == "access-key" {
            let id = connection.text("accessKeyId").unwrap_or_default();
            access_key_id(id, connection.text("sessionToken").is_some()).map_err(|why| ApiError::new(ErrorKind::Invalid, SERVICE, why))?;
        }
        Ok(Self { connection, http: OnceLock::new() })
    }

    /// True when the credentials are typed in and cannot be renewed.
    pub fn is_static(&self) -> bool {
        self.connection.method == "access-key"
    }

    /// Where Secrets Manager answers, when not at AWS.
    pub fn endpoint(&self) -> Option<&str> {
        self.connection.setting("endpoint")
    }

    fn sts_endpoint(&self) -> Option<&str> {
        self.connection.setting("stsEndpoint").or_else(|| self.endpoint())
    }

    /// The public part of the credentials: who this connection is, as far as can be told
    /// without a call. [`super::account`] knows more.
    pub fn account_hint(&self) -> String {
        let text = |name| self.connection.text(name).unwrap_or_default().to_string();
        match self.connection.method.as_str() {
            "access-key" => text("accessKeyId"),
            "assume-role" => text("roleArn"),
            other => format!("{other}:{}", text("profile")),
        }
    }

    /// Refuses a role of another partition than the region's.
    pub fn check_region(&self, region: &str) -> Result<(), ApiError> {
        let role = self.connection.text("roleArn").filter(|_| self.endpoint().is_none());
        let Some(of_role) = role.and_then(|r| r.split(':').nth(1)) else { return Ok(()) };
        if of_role == partition(region) {
            return Ok(());
        }
        Err(ApiError::new(
            ErrorKind::Invalid,
            SERVICE,
            format!("the role belongs to partition {of_role}, the region {region} to {}", partition(region)),
        )
        .advice("Choose a region of the role's partition, or a connection of the region's."))
    }

    /// Tells the redactor what must never be shown.
    pub fn teach(&self, cx: &Cx) {
        for field in ["secretAccessKey", "sessionToken"] {
            if let Some(text) = self.connection.credentials.get(field) {
                cx.redactor().learn(text);
            }
        }
    }

    fn http(&self) -> Result<SharedHttpClient, ApiError> {
        self.http.get_or_init(|| self.build_http()).clone().map_err(|why| ApiError::new(ErrorKind::Invalid, SERVICE, why))
    }

    fn build_http(&self) -> Result<SharedHttpClient, String> {
        let urls: Vec<url::Url> = [self.endpoint(), self.sts_endpoint()].into_iter().flatten().filter_map(|u| u.parse().ok()).collect();
        // The chain may call other hosts (SSO, STS) even when the endpoint is plain http.
        let plain = self.is_static() && !urls.is_empty() && urls.iter().all(|u| u.scheme() == "http");
        let local = !urls.is_empty() && urls.iter().all(is_loopback);
        let proxy = if local && self.is_static() { ProxyConfig::disabled() } else { ProxyConfig::from_env() };
        if plain && local {
            return Ok(Builder::new().pool_idle_timeout(Duration::from_secs(30)).build_http());
        }
        let context = self.tls_context()?;
        Ok(Builder::new().build_with_connector_fn(move |settings, components| {
            let mut builder = Connector::builder().pool_idle_timeout(Duration::from_secs(30)).proxy_config(proxy.clone());
            if let Some(settings) = settings {
                builder = builder.connector_settings(settings.clone());
            }
            if let Some(sleep) = components.and_then(|c| c.sleep_impl()) {
                builder = builder.sleep_impl(sleep);
            }
            builder.tls_provider(TlsProvider::Rustls(CryptoMode::Ring)).tls_context(context.clone()).build()
        }))
    }

    /// The system's roots and the connection's CA file, which is checked here because the
    /// connector would panic over a bad one.
    fn tls_context(&self) -> Result<TlsContext, String> {
        use rustls::pki_types::CertificateDer;
        use rustls::pki_types::pem::PemObject;
        let mut store = TrustStore::default();
        if let Some(path) = &self.connection.ca_file {
            let pem = std::fs::read(path).map_err(|e| format!("caFile {path}: {e}"))?;
            let mut roots = rustls::RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                let certificate = certificate.map_err(|_| format!("caFile {path}: not a PEM certificate bundle"))?;
                roots.add(certificate).map_err(|_| format!("caFile {path}: holds a certificate that cannot be read"))?;
            }
            if roots.is_empty() {
                return Err(format!("caFile {path}: holds no certificate"));
            }
            store = store.with_pem_certificate(pem);
        }
        TlsContext::builder().with_trust_store(store).build().map_err(|_| "TLS could not be set up".to_string())
    }

    /// The base credentials: the connection's own, or the chain's.
    pub async fn base_credentials(&self, cx: &Cx, region: &str) -> Result<Credentials, ApiError> {
        self.teach(cx);
        let text = |name| self.connection.text(name).map(str::to_string);
        if self.is_static() {
            let (Some(id), Some(secret)) = (text("accessKeyId"), text("secretAccessKey")) else {
                return Err(ApiError::new(ErrorKind::Invalid, SERVICE, "the connection lacks its access key"));
            };
            return Ok(Credentials::new(id, secret, text("sessionToken"), None, "kms-sync"));
        }
        // An explicit retry setting keeps the loader from reading (and panicking over) a
        // malformed AWS_MAX_ATTEMPTS or AWS_RETRY_MODE.
        let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .http_client(self.http()?)
            .region(Region::new(region.to_string()))
            .retry_config(RetryConfig::standard().with_max_attempts(3))
            .timeout_config(timeouts());
        if let Some(profile) = text("profile") {
            loader = loader.profile_name(profile);
        }
        let loaded = loader.load().await;
        let Some(provider) = loaded.credentials_provider() else {
            return Err(no_credentials(cx, "no provider is configured"));
        };
        let whose = text("profile").map(|p| format!("profile {p}: ")).unwrap_or_default();
        let found = tokio::select! {
            found = provider.provide_credentials() => found,
            () = cx.cancel_token().cancelled() => return Err(ApiError::cancelled(SERVICE)),
        };
        let credentials = found.map_err(|e| no_credentials(cx, &format!("{whose}{}", causes(&e).join(": "))))?;
        learn(cx, &credentials);
        Ok(credentials)
    }

    /// Clients that sign with `credentials`.
    pub fn ready(&self, credentials: &Credentials, region: &str) -> Result<Ready, ApiError> {
        let shared = aws_types::SdkConfig::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new(region.to_string()))
            .credentials_provider(SharedCredentialsProvider::new(credentials.clone()))
            .http_client(self.http()?)
            .retry_config(RetryConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .timeout_config(timeouts())
            .build();
        let mut sm_config = sm::config::Builder::from(&shared);
        sm_config.set_endpoint_url(self.endpoint().map(str::to_string));
        let mut sts_config = sts::config::Builder::from(&shared);
        sts_config.set_endpoint_url(self.sts_endpoint().map(str::to_string));
        Ok(Ready { sm: sm::Client::from_conf(sm_config.build()), sts: sts::Client::from_conf(sts_config.build()), expires: credentials.expiry() })
    }
}

fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).operation_attempt_timeout(ATTEMPT_TIMEOUT).build()
}

/// Tells the redactor the secret parts of credentials.
pub fn learn(cx: &Cx, credentials: &Credentials) {
    cx.redactor().learn(&SecretValue::new(credentials.secret_access_key()));
    if let Some(token) = credentials.session_token() {
        cx.redactor().learn(&SecretValue::new(token));
    }
}

fn no_credentials(cx: &Cx, why: &str) -> ApiError {
    ApiError::new(ErrorKind::Auth, SERVICE, format!("no credentials were found: {}", cx.redact(&brief(why, 500))))
        .advice("Sign in (aws sso login, aws configure) or name a profile on the connection; on EC2, attach a role.")
}
