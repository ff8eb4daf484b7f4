//! Azure Key Vault.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use kms_sync::sandbox::azure_key_vault::{Operation, State, router};
use kms_sync::sandbox::entra;
use kms_sync::sandbox::host::{Effect, Host};
use serde_json::{Value, json};

use crate::conformance::place::{Mends, Nature, Place, Refusal, answer};

const TENANT: &str = "11111111-1111-4111-8111-111111111111";
const CLIENT: &str = "22222222-2222-4222-8222-222222222222";

/// The vault's clock begins an hour in the past and leaps ahead with every foreign write and
/// every run: its stamps have whole seconds, and no case may depend on what shares one.
pub struct KeyVault {
    state: State,
    host: Host,
    other: State,
    other_host: Host,
    authority: Host,
    clock: AtomicI64,
}

pub async fn start() -> Box<dyn Place> {
    let directory = entra::State::new();
    directory.register(TENANT, CLIENT, "conformance-client-secret");
    let authority = Host::start(entra::router(directory.clone()), None).await.expect("a port");
    let vault = || {
        let state = State::new(&directory, TENANT);
        state.set_authority(&authority.url);
        state.set_delays(Duration::from_millis(20), Duration::from_millis(20), Duration::ZERO);
        state
    };
    let (state, other) = (vault(), vault());
    let host = Host::start(router(state.clone()), None).await.expect("a port");
    let other_host = Host::start(router(other.clone()), None).await.expect("a port");
    let clock = AtomicI64::new(-3600);
    state.set_clock_ahead(clock.load(Ordering::Relaxed));
    Box::new(KeyVault { state, host, other, other_host, authority, clock })
}

impl KeyVault {
    fn tick(&self) {
        self.state.set_clock_ahead(self.clock.fetch_add(5, Ordering::Relaxed) + 5);
    }
}

impl Place for KeyVault {
    fn kind(&self) -> &'static str {
        "azure-key-vault"
    }

    fn nature(&self) -> Nature {
        Nature {
            imports: true,
            readable: true,
            schema: true,
            document: false,
            empty: true,
            multiline: true,
            slashes: false,
            longest: Some(127),
            largest: Some(25_600),
            bad_names: &[("WITH.DOT", "'.' is not allowed"), ("ÜMLAUT", "'Ü' is not allowed")],
            collapsing: Some(("ONE_NAME", "ONE-NAME")),
            unimportable: None,
            mends: Mends::NextRun,
            creation: "PUT /secrets/",
            listing: "GET /secrets?",
            writers: 12,
            readers: 12,
        }
    }

    fn host(&self) -> &Host {
        &self.host
    }

    fn connection(&self) -> Value {
        json!({"name": "place", "app": "azure-key-vault", "method": "client-secret", "authorityUrl": self.authority.url,
            "credentials": {"tenantId": TENANT, "clientId": CLIENT, "clientSecret": "conformance-client-secret"}})
    }

    fn config(&self) -> Value {
        json!({"vaultBaseUrl": self.host.url})
    }

    fn key(&self, text: &str) -> String {
        text.replace('_', "-")
    }

    fn elsewhere(&self) -> Value {
        json!({"vaultBaseUrl": self.other_host.url})
    }

    fn values_elsewhere(&self) -> BTreeMap<String, String> {
        self.other.secrets().into_values().map(|s| (s.name, s.value)).collect()
    }

    fn values(&self) -> BTreeMap<String, String> {
        self.state.secrets().into_values().map(|s| (s.name, s.value)).collect()
    }

    fn put(&self, key: &str, value: &str) {
        self.tick();
        self.state.put(key, value);
    }

    fn remove(&self, key: &str) {
        self.tick();
        self.state.delete(key);
        self.state.purge(key);
    }

    fn rest(&self) {
        self.tick();
    }

    fn refuse(&self, keys: &[String]) -> Option<Refusal> {
        for key in keys {
            self.state.forbid(Operation::Set, Some(key), "ForbiddenByRbac");
        }
        Some(Refusal { code: "ForbiddenByRbac", id: "x-ms-request-id" })
    }

    fn forgive(&self) {
        self.state.permit_all();
    }

    fn floor(&self, keys: usize) -> usize {
        keys.div_ceil(25).max(1)
    }

    fn throttling(&self) -> Effect {
        answer(
            429,
            &[("retry-after", "1")],
            &json!({"error": {"code": "Throttled", "message": "Request was not processed because too many requests were received."}}),
        )
    }
}
