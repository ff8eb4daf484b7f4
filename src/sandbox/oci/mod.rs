//! An embedded Oracle Cloud: identity, key management, secrets and secret values, as far as
//! secrets need them.
//!
//! It is written from Oracle's documentation and from what Oracle's SDKs send, not from our
//! client: it verifies every signature, keeps secrets between two states for a while, refuses
//! changes meanwhile, reserves names over all compartments of a vault, pages with tokens that
//! need encoding, and knows no mercy with deletion times.
//!
//! | file | subject |
//! | --- | --- |
//! | `auth` | request signatures, clocks, the per-user rate |
//! | `store` | what is kept, and how secrets move through their states |
//! | `identity` | users, tenancies, compartments, vaults, keys |
//! | `secrets`, `bundles` | secrets without and with their values |
//! | `reply` | errors, pages, headers |

mod auth;
mod bundles;
mod identity;
mod reply;
mod secrets;
mod store;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};

use super::host::lock;
use store::Inner;
pub use store::{Delays, Secret, Version};

/// The user whose API key the sandbox knows.
pub const USER: &str = "ocid1.user.oc1..aaaaaaaasandboxuser";
/// The sandbox's tenancy, which is its root compartment too.
pub const TENANCY: &str = "ocid1.tenancy.oc1..aaaaaaaasandboxtenancy";
pub const REGION: &str = "eu-frankfurt-1";
/// A published test key: it opens the sandbox and nothing else.
pub const TEST_KEY: &str = include_str!("test-key.pem");
pub const TEST_FINGERPRINT: &str = "7a:1f:44:fb:20:ff:d9:fc:86:31:c2:73:d9:74:bf:ac";

/// A handle on the sandbox's state, for seeding and for looking inside.
#[derive(Clone)]
pub struct State {
    inner: Arc<Mutex<Inner>>,
    compartment: String,
    vault: String,
    key: String,
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    /// One user, a small tree of compartments, a vault and an encryption key.
    pub fn new() -> Self {
        let mut inner = Inner::new();
        inner.add_user(USER, TENANCY, TEST_FINGERPRINT, &auth::public_half(TEST_KEY));
        inner.tenancies.insert(TENANCY.to_string(), "acme".to_string());
        let compartment = inner.add_compartment("production", TENANCY);
        inner.add_compartment("payments", &compartment);
        inner.add_compartment("staging", TENANCY);
        let vault = inner.add_vault("app-secrets", &compartment);
        let key = inner.add_key("app-secrets-key", &vault, &compartment);
        Self { inner: Arc::new(Mutex::new(inner)), compartment, vault, key }
    }

    fn with<R>(&self, f: impl FnOnce(&mut Inner) -> R) -> R {
        let mut inner = lock(&self.inner);
        inner.advance();
        f(&mut inner)
    }

    /// The seeded compartment.
    pub fn compartment(&self) -> &str {
        &self.compartment
    }

    /// The seeded vault.
    pub fn vault(&self) -> &str {
        &self.vault
    }

    /// The seeded encryption key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// A connection document that opens this sandbox at `url`.
    pub fn connection(&self, name: &str, url: &str) -> serde_json::Value {
        serde_json::json!({
            "name": name, "app": "oci", "method": "access-key",
            "credentials": {
                "userOcid": USER, "tenancyOcid": TENANCY, "region": REGION, "fingerprint": TEST_FINGERPRINT, "privateKey": TEST_KEY,
            },
            "endpoint": url,
        })
    }

    pub fn add_compartment(&self, name: &str, parent: &str) -> String {
        self.with(|i| i.add_compartment(name, parent))
    }

    pub fn add_vault(&self, name: &str, compartment: &str) -> String {
        self.with(|i| i.add_vault(name, compartment))
    }

    /// An enabled AES key.
    pub fn add_key(&self, name: &str, vault: &str, compartment: &str) -> String {
        self.with(|i| i.add_key(name, vault, compartment))
    }

    /// Sets a key's lifecycle state and algorithm.
    pub fn set_key(&self, key: &str, state: &str, algorithm: &str) {
        self.with(|i| {
            for k in i.keys.iter_mut().filter(|k| k.id == key) {
                (k.state, k.algorithm) = (state.to_string(), algorithm.to_string());
            }
        });
    }

    /// Where a vault says its keys are served.
    pub fn set_management_endpoint(&self, vault: &str, url: &str) {
        self.with(|i| {
            for v in i.vaults.iter_mut().filter(|v| v.id == vault) {
                v.management_endpoint = url.to_string();
            }
        });
    }

    /// The user may not see this compartment any more.
    pub fn hide_compartment(&self, compartment: &str) {
        self.with(|i| i.hidden.insert(compartment.to_string()));
    }

    /// Puts an active secret into the seeded vault and compartment, as a foreign hand would.
    pub fn put(&self, name: &str, value: &[u8]) -> String {
        let (c, v, k) = (self.compartment.clone(), self.vault.clone(), self.key.clone());
        self.put_in(&c, &v, &k, name, value)
    }

    /// Puts an active secret anywhere.
    pub fn put_in(&self, compartment: &str, vault: &str, key: &str, name: &str, value: &[u8]) -> String {
        self.with(|i| i.put(compartment, vault, key, name, value))
    }

    /// Adds a version to a secret at once, as a foreign hand would.
    pub fn edit_value(&self, name: &str, value: &[u8]) {
        self.edit(name, |s| s.new_version(value));
    }

    /// Changes a secret (of any vault) by name; the living one, when there are several.
    pub fn edit(&self, name: &str, change: impl FnOnce(&mut Secret)) {
        self.with(|i| {
            if let Some(secret) = i.secrets.iter_mut().rev().find(|s| s.name == name) {
                change(secret);
                secret.touch();
            }
        });
    }

    /// A copy of a secret, the newest of that name.
    pub fn secret(&self, name: &str) -> Option<Secret> {
        self.with(|i| i.secrets.iter().rev().find(|s| s.name == name).cloned())
    }

    /// Copies of all secrets.
    pub fn secrets(&self) -> Vec<Secret> {
        self.with(|i| i.secrets.clone())
    }

    /// The current text of a secret.
    pub fn value(&self, name: &str) -> Option<String> {
        self.secret(name).and_then(|s| s.current().map(|v| String::from_utf8_lossy(&v.content).into_owned()))
    }

    /// How long secrets stay between two states.
    pub fn set_delays(&self, delays: Delays) {
        self.with(|i| i.delays = delays);
    }

    /// All changes take this long.
    pub fn set_delay(&self, delay: Duration) {
        self.set_delays(Delays::all(delay));
    }

    /// The most entries a page holds.
    pub fn set_page_size(&self, size: usize) {
        self.with(|i| i.page_size = size.max(1));
    }

    /// Seconds by which the sandbox's clock is ahead.
    pub fn set_clock(&self, seconds: i64) {
        self.with(|i| i.clock = seconds);
    }

    /// Takes a permission away (`SECRET_BUNDLE_READ`), or gives it back.
    pub fn allow(&self, right: &str, allowed: bool) {
        self.with(|i| if allowed { i.denied.remove(right) } else { i.denied.insert(right.to_string()) });
    }

    /// Requests per second one user may make; `None`: any number.
    pub fn set_rate(&self, rate: Option<usize>) {
        self.with(|i| i.rate = rate);
    }

    /// A creation that is sent again meets the name that its first attempt took.
    pub fn forget_tokens(&self, forget: bool) {
        self.with(|i| i.forgets_tokens = forget);
    }

    /// How many secrets the tenancy may hold, those pending deletion included.
    pub fn set_limit(&self, limit: usize) {
        self.with(|i| i.limit = limit);
    }

    /// The time of a pending deletion has come.
    pub fn expire(&self, name: &str) {
        self.edit(name, |s| s.time_of_deletion = Some(jiff::Timestamp::UNIX_EPOCH));
    }
}

/// All services at one address: their paths do not overlap. Keys are those of every vault.
pub fn router(state: State) -> Router {
    let router = Router::new()
        .route("/20160918/users/{id}", get(identity::user))
        .route("/20160918/tenancies/{id}", get(identity::tenancy))
        .route("/20160918/compartments", get(identity::compartments))
        .route("/20160918/compartments/{id}", get(identity::compartment))
        .route("/20180608/vaults", get(identity::vaults))
        .route("/20180608/vaults/{id}", get(identity::vault))
        .route("/20180608/keys", get(identity::keys))
        .route("/20180608/keys/{id}", get(identity::key))
        .route("/20180608/secrets", get(secrets::list).post(secrets::create))
        .route("/20180608/secrets/{id}", get(secrets::get).put(secrets::update))
        .route("/20180608/secrets/{id}/actions/scheduleDeletion", post(secrets::schedule))
        .route("/20180608/secrets/{id}/actions/cancelDeletion", post(secrets::cancel))
        .route("/20180608/secrets/{id}/versions", get(secrets::versions))
        .route("/20180608/secrets/{id}/version/{number}", get(secrets::version))
        .route("/20180608/secrets/{id}/version/{number}/actions/scheduleDeletion", post(secrets::schedule_version))
        .route("/20180608/secrets/{id}/version/{number}/actions/cancelDeletion", post(secrets::cancel_version))
        .route("/20190301/secretbundles/{id}", get(bundles::get))
        .route("/20190301/secretbundles/{id}/versions", get(bundles::versions))
        .route("/20190301/secretbundles/actions/getByName", post(bundles::by_name));
    finish(router, state)
}

/// One vault's management endpoint, at an address of its own: only its keys.
pub fn management_router(state: State, vault: &str) -> Router {
    let router = Router::new()
        .route("/20180608/keys", get(identity::keys))
        .route("/20180608/keys/{id}", get(identity::key))
        .layer(axum::Extension(identity::Only(vault.to_string())));
    finish(router, state)
}

fn finish(router: Router<State>, state: State) -> Router {
    router
        .fallback(|| async { reply::Refusal::new(404, "NotFound", "No such resource path.") })
        .layer(axum::middleware::from_fn_with_state(state.clone(), auth::around))
        .with_state(state)
}
