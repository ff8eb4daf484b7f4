//! OCI Vault in the demo: one compartment with a vault.

use serde_json::{Value, json};

use super::super::{Ports, Request, Stall, foreign};
use super::Values;
use crate::sandbox::host::{Effect, Faults, Host};
use crate::sandbox::oci::{REGION, State, TENANCY, TEST_FINGERPRINT, TEST_KEY, USER, router};

const CONNECTION: &str = "demo-oci";
const PREFIX: &str = "payments-";

pub(super) struct Oci {
    state: State,
    host: Host,
}

pub(super) async fn open(ports: &mut Ports, values: &mut Values) -> std::io::Result<Oci> {
    let state = State::new();
    for name in ["terraform-state-key", "dba-break-glass"] {
        state.put(name, foreign(values).as_bytes());
    }
    let host = Host::start(router(state.clone()), ports.next()).await?;
    Ok(Oci { state, host })
}

impl Oci {
    fn config(&self) -> Value {
        json!({"compartmentOcid": self.state.compartment(), "vaultOcid": self.state.vault(), "keyOcid": self.state.key()})
    }
}

impl Stall for Oci {
    fn service(&self) -> &'static str {
        "oci"
    }

    fn title(&self) -> &'static str {
        "OCI Vault"
    }

    fn faults(&self) -> &Faults {
        &self.host.faults
    }

    fn connection(&self) -> Value {
        self.state.connection(CONNECTION, &self.host.url)
    }

    fn syncs(&self) -> Vec<Value> {
        let request = |name, description, path, enabled, options| {
            let (connection, environment, destination) = (CONNECTION, "staging", "oci-vault");
            Request { name, description, connection, environment, path, enabled, options, destination, config: self.config() }.document()
        };
        vec![
            request("payments-to-oci", "Staging's payment secrets", "/payments", true, json!({"keySchema": format!("{PREFIX}{{{{secretKey}}}}")})),
            request("smtp-takeover", "The vault belongs to others too: asks first", "/shared/smtp", false, json!({})),
        ]
    }

    fn serve(&self) -> Value {
        json!({"endpoint": self.host.url, "region": REGION, "userOcid": USER, "tenancyOcid": TENANCY, "fingerprint": TEST_FINGERPRINT,
            "privateKey": TEST_KEY, "compartmentOcid": self.state.compartment(), "vaultOcid": self.state.vault(), "keyOcid": self.state.key()})
    }

    fn throttling(&self, _wait: std::time::Duration) -> Effect {
        let body = json!({"code": "TooManyRequests", "message": "Tenancy request rate limit exceeded"});
        Effect::Answer { status: 429, headers: vec![("content-type".into(), "application/json".into())], body: body.to_string() }
    }

    fn meddle(&self, pick: &mut dyn FnMut(usize) -> usize) -> Option<String> {
        let ours: Vec<String> = self.state.secrets().into_iter().map(|s| s.name).filter(|n| n.starts_with(PREFIX)).collect();
        let name = ours.get(pick(ours.len()))?.clone();
        self.state.edit_value(&name, b"edited-by-a-foreign-hand");
        Some(name)
    }
}
