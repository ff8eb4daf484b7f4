//! Tokens that the platform gives: managed identities of virtual machines, of App Service and
//! its relatives, and of Azure Arc servers. What the environment says decides which it is.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::{SERVICE, Token, parse};
use crate::http::{Answer, ApiError, Cx, ErrorKind, Http, Policy};
use crate::model::SecretValue;
use crate::model::text::brief;

/// The instance metadata service of every Azure machine. Link-local, plain http by design.
const IMDS: &str = "http://169.254.169.254";
/// A laptop has no metadata service: it should hear so soon.
const PROBE: Duration = Duration::from_secs(1);
/// The metadata service answers 410 while it restarts, for up to this long.
const RESTART: Duration = Duration::from_secs(70);
/// A larger Arc key file is none.
const KEY_FILE_CAP: u64 = 4096;

/// Where the platform gives tokens.
#[derive(Debug, Clone)]
pub struct Platform {
    /// `IDENTITY_ENDPOINT`.
    endpoint: Option<String>,
    /// `IDENTITY_HEADER`.
    header: Option<SecretValue>,
    /// `IMDS_ENDPOINT`: set on Arc servers.
    arc: bool,
    imds: String,
    /// Where Arc's key files must be.
    arc_keys: PathBuf,
}

impl Platform {
    /// What this process's environment says.
    pub fn from_environment() -> Self {
        let var = |name: &str| std::env::var(name).ok().filter(|v| !v.trim().is_empty());
        let arc_keys = match var("ProgramData") {
            Some(data) if cfg!(windows) => Path::new(&data).join("AzureConnectedMachineAgent").join("Tokens"),
            _ => PathBuf::from("/var/opt/azcmagent/tokens"),
        };
        Self {
            endpoint: var("IDENTITY_ENDPOINT"),
            header: var("IDENTITY_HEADER").map(SecretValue::new),
            arc: var("IMDS_ENDPOINT").is_some(),
            imds: IMDS.to_string(),
            arc_keys,
        }
    }

    #[cfg(test)]
    pub(super) fn for_tests(endpoint: Option<&str>, header: Option<&str>, arc_keys: Option<&Path>, imds: &str) -> Self {
        Self {
            endpoint: endpoint.map(str::to_owned),
            header: header.map(SecretValue::new),
            arc: arc_keys.is_some(),
            imds: imds.to_string(),
            arc_keys: arc_keys.map(Path::to_path_buf).unwrap_or_default(),
        }
    }

    /// Asks for a token of the system's identity, or of the user-assigned one with `client_id`.
    pub(super) async fn token(&self, cx: &Cx, http: &Http, resource: &str, client_id: Option<&str>) -> Result<Token, ApiError> {
        let ask = Ask { cx, http, resource, client_id };
        let asked = Instant::now();
        let answer = match (&self.endpoint, &self.header) {
            (Some(endpoint), Some(header)) => {
                cx.redactor().learn(header);
                ask.get(endpoint, "2019-08-01", &[("X-IDENTITY-HEADER", header.expose())]).await?
            }
            (Some(endpoint), None) if self.arc => self.arc(&ask, endpoint).await?,
            _ => {
                let url = format!("{}/metadata/identity/oauth2/token", self.imds);
                probe(&url).await?;
                let mut answer = ask.get(&url, "2018-02-01", &[("Metadata", "true")]).await?;
                if answer.status == 410 {
                    cx.wait("the machine's metadata service restarts", RESTART).await?;
                    answer = ask.get(&url, "2018-02-01", &[("Metadata", "true")]).await?;
                }
                answer
            }
        };
        if !answer.ok() {
            return Err(refused(cx, &answer));
        }
        parse(cx, &answer, asked)
    }

    /// Arc proves that the caller may read a file of the machine's administrators.
    async fn arc(&self, ask: &Ask<'_>, endpoint: &str) -> Result<Answer, ApiError> {
        let first = ask.get(endpoint, "2020-06-01", &[("Metadata", "true")]).await?;
        if first.status != 401 {
            return Ok(first);
        }
        let named = first.header("www-authenticate").and_then(|h| h.split_once("realm=")).map(|(_, p)| p.trim().trim_matches('"').to_string());
        let key = self.arc_key(named.as_deref().unwrap_or_default())?;
        ask.cx.redactor().learn(&key);
        let proof = zeroize::Zeroizing::new(format!("Basic {}", key.expose()));
        ask.get(endpoint, "2020-06-01", &[("Metadata", "true"), ("Authorization", &proof)]).await
    }

    /// Reads the key file the challenge names: only a small `.key` file directly in Arc's own
    /// directory, so that no answer can make us send another file's content.
    fn arc_key(&self, named: &str) -> Result<SecretValue, ApiError> {
        let refuse = |why: &str| {
            ApiError::new(ErrorKind::Auth, SERVICE, format!("the Arc agent names a key file that is not read: {why}"))
                .advice("This program must run as a member of the group himds (Linux) or as an administrator.")
        };
        let path = Path::new(named);
        if path.extension().is_none_or(|e| e != "key") || path.parent() != Some(self.arc_keys.as_path()) {
            return Err(refuse("it is not a .key file of the agent's directory"));
        }
        let about = std::fs::symlink_metadata(path).map_err(|e| refuse(&e.to_string()))?;
        if !about.is_file() || about.len() > KEY_FILE_CAP {
            return Err(refuse("it is not a small file"));
        }
        let text = std::fs::read_to_string(path).map_err(|e| refuse(&e.to_string()))?;
        Ok(SecretValue::new(text))
    }
}

struct Ask<'a> {
    cx: &'a Cx,
    http: &'a Http,
    resource: &'a str,
    client_id: Option<&'a str>,
}

impl Ask<'_> {
    async fn get(&self, url: &str, version: &str, headers: &[(&str, &str)]) -> Result<Answer, ApiError> {
        let mut url = url::Url::parse(url).map_err(|_| ApiError::new(ErrorKind::Invalid, SERVICE, "IDENTITY_ENDPOINT is not a URL"))?;
        url.query_pairs_mut().append_pair("api-version", version).append_pair("resource", self.resource);
        if let Some(id) = self.client_id {
            url.query_pairs_mut().append_pair("client_id", id);
        }
        let policy = Policy { retry: passing, ..Policy::default() };
        self.http
            .send(self.cx, SERVICE, "GET managed identity token", policy, || {
                let request = self.http.request(reqwest::Method::GET, url.clone())?;
                Ok(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)))
            })
            .await
            .map_err(|e| if e.kind == ErrorKind::Unreachable { absent() } else { e })
    }
}

/// The metadata service is young or restarting when it answers so.
fn passing(answer: &Answer) -> bool {
    matches!(answer.status, 404 | 410 | 429) || answer.status >= 500
}

async fn probe(url: &str) -> Result<(), ApiError> {
    let Some(addresses) = url::Url::parse(url).ok().and_then(|u| u.socket_addrs(|| None).ok()) else { return Err(absent()) };
    match tokio::time::timeout(PROBE, tokio::net::TcpStream::connect(&addresses[..])).await {
        Ok(Ok(_)) => Ok(()),
        _ => Err(absent()),
    }
}

fn absent() -> ApiError {
    ApiError::new(ErrorKind::Auth, SERVICE, "no managed identity endpoint answers on this machine")
        .advice("Managed identities exist on Azure machines and services only: choose another method elsewhere.")
}

fn refused(cx: &Cx, answer: &Answer) -> ApiError {
    #[derive(serde::Deserialize, Default)]
    #[serde(default)]
    struct Body {
        error: String,
        error_description: String,
    }
    let body: Body = if answer.is_json() { serde_json::from_slice(&answer.body).unwrap_or_default() } else { Body::default() };
    let told = [&body.error_description, &body.error].into_iter().find(|t| !t.trim().is_empty());
    let text = told.map_or_else(|| format!("it answered {}", answer.status), String::clone);
    let kind = if passing(answer) { ErrorKind::Transient } else { ErrorKind::Auth };
    let error = ApiError::new(kind, SERVICE, format!("the managed identity endpoint gave no token: {}", cx.redact(&brief(&text, 300))))
        .status(answer.status)
        .code(&body.error)
        .masked(cx);
    let unassigned = answer.status == 400 && (body.error == "identity_not_found" || text.to_ascii_lowercase().contains("identity not found"));
    if unassigned {
        return error.advice("No such identity is assigned to this machine: assign one, or correct the connection's clientId.");
    }
    error
}
