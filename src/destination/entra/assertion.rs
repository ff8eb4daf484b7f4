//! Workload identity federation: the token of another issuer (a Kubernetes service account, a
//! CI job) stands in for a client secret.

use std::path::{Path, PathBuf};

use super::{Claims, SERVICE};
use crate::http::{ApiError, ErrorKind};
use crate::model::SecretValue;
use crate::model::text::brief;

/// No token file is larger.
const FILE_CAP: u64 = 64 * 1024;
/// What the token file's audience should be.
pub(super) const AUDIENCE: &str = "api://AzureADTokenExchange";

/// A federated identity, complete.
#[derive(Debug, Clone)]
pub struct Workload {
    pub tenant: String,
    pub client_id: String,
    pub token_file: PathBuf,
}

impl Workload {
    /// What the connection says, and the environment for what it leaves out.
    pub fn new(tenant: Option<&str>, client_id: Option<&str>, token_file: Option<&str>) -> Result<Self, ApiError> {
        let need = |given: Option<&str>, field: &str, variable: &str| {
            let found = given.map(str::to_owned).or_else(|| std::env::var(variable).ok().filter(|v| !v.trim().is_empty()));
            found.ok_or_else(|| {
                ApiError::new(ErrorKind::Auth, SERVICE, format!("workload identity: neither {field} nor the variable {variable} is set"))
                    .advice("Complete the connection, or run where the federated identity is projected.")
            })
        };
        Ok(Self {
            tenant: need(tenant, "tenantId", "AZURE_TENANT_ID")?,
            client_id: need(client_id, "clientId", "AZURE_CLIENT_ID")?,
            token_file: need(token_file, "tokenFile", "AZURE_FEDERATED_TOKEN_FILE")?.into(),
        })
    }

    /// The file's token. It rotates, so it is read again for every request.
    pub(super) fn assertion(&self) -> Result<SecretValue, ApiError> {
        read(&self.token_file).map_err(|why| {
            ApiError::new(ErrorKind::Auth, SERVICE, format!("the token file {}: {why}", brief(&self.token_file.display().to_string(), 200)))
                .advice("It must hold the federated token, readable for this program.")
        })
    }

    /// Adds what the app's federated credential must say, when Entra found none that matches.
    pub(super) fn explain(&self, error: ApiError, assertion: &SecretValue) -> ApiError {
        let unmatched = error.code.as_deref().is_some_and(|c| matches!(c, "AADSTS70021" | "AADSTS700211" | "AADSTS700212" | "AADSTS700213"));
        let Some(claims) = Claims::peek(assertion).filter(|_| unmatched) else { return error };
        let show = |text: Option<&String>| brief(text.map_or("(none)", String::as_str), 160);
        error.advice(format!(
            "The app's federated credential must name exactly: issuer {}, subject {}, audience {} (usually {AUDIENCE}).",
            show(claims.iss.as_ref()),
            show(claims.sub.as_ref()),
            show(claims.aud.first()),
        ))
    }
}

fn read(path: &Path) -> Result<SecretValue, String> {
    let about = std::fs::metadata(path).map_err(|e| e.to_string())?;
    if !about.is_file() || about.len() > FILE_CAP {
        return Err("not a token file".into());
    }
    let text = zeroize::Zeroizing::new(std::fs::read_to_string(path).map_err(|e| e.to_string())?);
    match text.trim() {
        "" => Err("it is empty".into()),
        token => Ok(SecretValue::new(token)),
    }
}
