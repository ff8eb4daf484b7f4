//! OCI Vault.

use std::collections::BTreeMap;
use std::time::Duration;

use kms_sync::sandbox::host::{Effect, Fault, Host};
use kms_sync::sandbox::oci::{State, router};
use serde_json::{Value, json};

use crate::conformance::place::{Mends, Nature, Place, Refusal, answer};

pub struct Oci {
    state: State,
    host: Host,
    /// Vault and key of another target.
    other: (String, String),
}

pub async fn start() -> Box<dyn Place> {
    let state = State::new();
    state.set_delay(Duration::from_millis(15));
    on(state).await
}

/// A place on a sandbox that its caller keeps a handle of.
pub async fn on(state: State) -> Box<dyn Place> {
    let host = Host::start(router(state.clone()), None).await.expect("a port");
    let vault = state.add_vault("other", state.compartment());
    let key = state.add_key("other", &vault, state.compartment());
    Box::new(Oci { state, host, other: (vault, key) })
}

impl Oci {
    fn values_of(&self, vault: &str) -> BTreeMap<String, String> {
        let all = self.state.secrets().into_iter().filter(|s| s.vault == vault);
        let living = all.filter(|s| !matches!(s.state.as_str(), "PENDING_DELETION" | "SCHEDULING_DELETION" | "DELETING" | "DELETED"));
        let text = |s: &kms_sync::sandbox::oci::Secret| s.current().map(|v| String::from_utf8_lossy(&v.content).into_owned()).unwrap_or_default();
        let mut out = BTreeMap::new();
        for secret in living {
            assert_eq!(out.insert(secret.name.clone(), text(&secret)), None, "{} is there twice", secret.name);
        }
        out
    }
}

impl Place for Oci {
    fn kind(&self) -> &'static str {
        "oci-vault"
    }

    fn nature(&self) -> Nature {
        Nature {
            imports: true,
            readable: true,
            schema: true,
            document: false,
            empty: false,
            multiline: true,
            slashes: false,
            longest: Some(255),
            largest: Some(25_600),
            bad_names: &[("with space", "' ' is not allowed"), ("ümlaut", "'ü' is not allowed")],
            collapsing: None,
            unimportable: None,
            mends: Mends::NextRun,
            creation: "POST /20180608/secrets",
            listing: "GET /20180608/secrets?",
            // 16 writes, and beside them 16 looks at what settles.
            writers: 32,
            readers: 16,
        }
    }

    fn host(&self) -> &Host {
        &self.host
    }

    fn connection(&self) -> Value {
        self.state.connection("place", &self.host.url)
    }

    fn config(&self) -> Value {
        json!({"compartmentOcid": self.state.compartment(), "vaultOcid": self.state.vault(), "keyOcid": self.state.key()})
    }

    fn elsewhere(&self) -> Value {
        let (vault, key) = &self.other;
        json!({"compartmentOcid": self.state.compartment(), "vaultOcid": vault, "keyOcid": key})
    }

    fn values_elsewhere(&self) -> BTreeMap<String, String> {
        self.values_of(&self.other.0)
    }

    fn values(&self) -> BTreeMap<String, String> {
        self.values_of(self.state.vault())
    }

    fn put(&self, key: &str, value: &str) {
        if self.state.secret(key).is_some() {
            self.state.edit_value(key, value.as_bytes());
        } else {
            self.state.put(key, value.as_bytes());
        }
    }

    fn remove(&self, key: &str) {
        self.state.edit(key, |s| s.state = "DELETED".into());
    }

    fn refuse(&self, keys: &[String]) -> Option<Refusal> {
        let body = json!({"code": "InvalidParameter", "message": "The secret is not acceptable."});
        for n in 0..keys.len() {
            let refusal = answer(400, &[("opc-request-id", &format!("oci-{n}"))], &body);
            self.host.faults.add(Fault::next("POST /20180608/secrets", 1, refusal).after(n as u32));
        }
        Some(Refusal { code: "InvalidParameter", id: "opc-request-id" })
    }

    fn is_write(&self, line: &str) -> bool {
        !line.starts_with("GET ") && !line.contains("/secretbundles/")
    }

    /// Lists show no version: up to 200 values are read, more are trusted between drift checks.
    fn floor(&self, keys: usize) -> usize {
        keys.div_ceil(1000).max(1) + if keys <= 200 { keys } else { 0 }
    }

    fn throttling(&self) -> Effect {
        answer(429, &[], &json!({"code": "TooManyRequests", "message": "Tenancy request rate limit exceeded"}))
    }
}
