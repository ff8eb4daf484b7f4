//! Azure Key Vault in the demo: one vault, and the directory that hands out its tokens. Both
//! are behind TLS: Microsoft's clients insist on it.

use serde_json::{Value, json};

use super::super::{Ports, Request, Stall, foreign};
use super::Values;
use crate::sandbox::azure_key_vault::{State, router};
use crate::sandbox::entra;
use crate::sandbox::host::{Effect, Faults};
use crate::sandbox::tls::TlsHost;

const TENANT: &str = "7b1c2d3e-0000-4000-8000-00000000de30";
const CLIENT: &str = "5a6b7c8d-0000-4000-8000-00000000de30";
const SECRET: &str = "demo-entra-secret-not-real";
const CONNECTION: &str = "demo-key-vault";
const PREFIX: &str = "billing-prod-";

pub(super) struct KeyVault {
    state: State,
    host: TlsHost,
    entra: entra::State,
    authority: TlsHost,
    certificate: tempfile::NamedTempFile,
}

pub(super) async fn open(ports: &mut Ports, values: &mut Values) -> std::io::Result<KeyVault> {
    use std::io::Write as _;
    let entra = entra::State::new();
    entra.register(TENANT, CLIENT, SECRET);
    let authority = TlsHost::start(entra::router(entra.clone()), ports.next()).await?;
    let state = State::new(&entra, TENANT);
    state.set_authority(&authority.url);
    for name in ["terraform-state-key", "backup-encryption-key"] {
        state.put(name, &foreign(values));
    }
    state.put("retired-signing-key", &foreign(values));
    state.enable("retired-signing-key", false);
    let host = TlsHost::start(router(state.clone()), ports.next()).await?;
    let mut certificate = tempfile::Builder::new().prefix("kms-sync-demo-").suffix(".pem").tempfile()?;
    certificate.write_all(authority.certificate.as_bytes())?;
    certificate.write_all(host.certificate.as_bytes())?;
    certificate.flush()?;
    Ok(KeyVault { state, host, entra, authority, certificate })
}

impl Stall for KeyVault {
    fn service(&self) -> &'static str {
        "azure-key-vault"
    }

    fn title(&self) -> &'static str {
        "Azure Key Vault"
    }

    fn faults(&self) -> &Faults {
        &self.host.faults
    }

    fn connection(&self) -> Value {
        json!({"name": CONNECTION, "app": "azure-key-vault", "method": "client-secret",
            "credentials": {"tenantId": TENANT, "clientId": CLIENT, "clientSecret": SECRET},
            "authorityUrl": self.authority.url, "caFile": self.certificate.path()})
    }

    fn syncs(&self) -> Vec<Value> {
        let request = |name, description, environment, path, enabled, options| {
            let config = json!({"vaultBaseUrl": self.host.url});
            Request { name, description, connection: CONNECTION, environment, path, enabled, options, destination: "azure-key-vault", config }
                .document()
        };
        vec![
            request(
                "billing-to-key-vault",
                "Production's billing secrets",
                "prod",
                "/billing",
                true,
                json!({"keySchema": "billing-{{environment}}-{{secretKey}}"}),
            ),
            request("web-vault-takeover", "The vault belongs to others too: asks first", "dev", "/web", false, json!({})),
        ]
    }

    fn serve(&self) -> Value {
        json!({"vaultUrl": self.host.url, "certificate": format!("{}{}", self.authority.certificate, self.host.certificate), "certificateFile": self.certificate.path(),
            "authorityUrl": self.authority.url, "tenantId": TENANT, "clientId": CLIENT, "clientSecret": SECRET,
            "accessToken": self.entra.mint(TENANT, CLIENT, entra::KEY_VAULT)})
    }

    fn throttling(&self, wait: std::time::Duration) -> Effect {
        let body = json!({"error": {"code": "Throttled", "message": "Request was not processed because too many requests were received."}});
        super::busy(wait, &body)
    }

    fn meddle(&self, pick: &mut dyn FnMut(usize) -> usize) -> Option<String> {
        let ours: Vec<String> = self.state.secrets().into_values().map(|s| s.name).filter(|n| n.to_lowercase().starts_with(PREFIX)).collect();
        let name = ours.get(pick(ours.len()))?.clone();
        self.state.put(&name, "edited-by-a-foreign-hand");
        Some(name)
    }
}
