//! Bitbucket: the variables of a repository. (Those of a deployment environment lag in lists,
//! so that what is missing there is believed for a minute: see the tests of that module.)

use std::collections::BTreeMap;

use kms_sync::sandbox::bitbucket::{API_SCOPES, At, State, router};
use kms_sync::sandbox::host::{Effect, Fault, Host};
use serde_json::{Value, json};

use crate::conformance::place::{Mends, Nature, Place, Refusal, answer};

const EMAIL: &str = "ops@example.com";
const TOKEN: &str = "ATATT-conformance";
const WORKSPACE: &str = "acme";
const REPOSITORY: &str = "shop";
const OTHER_REPOSITORY: &str = "office";

pub struct Bitbucket {
    state: State,
    host: Host,
}

pub async fn start() -> Box<dyn Place> {
    let state = State::new();
    state.add_account(EMAIL, "ops", "Operations");
    state.give_api_token(EMAIL, TOKEN, API_SCOPES);
    state.add_workspace(WORKSPACE, Some("Acme"));
    state.add_repository(WORKSPACE, REPOSITORY);
    state.add_repository(WORKSPACE, OTHER_REPOSITORY);
    let host = Host::start(router(state.clone()), None).await.expect("a port");
    Box::new(Bitbucket { state, host })
}

fn at() -> At<'static> {
    At::repository(WORKSPACE, REPOSITORY)
}

impl Place for Bitbucket {
    fn kind(&self) -> &'static str {
        "bitbucket"
    }

    fn nature(&self) -> Nature {
        Nature {
            imports: false,
            readable: false,
            schema: true,
            document: false,
            empty: true,
            multiline: false,
            slashes: false,
            longest: None,
            largest: None,
            bad_names: &[("WITH-HYPHEN", "\"-\" is not allowed"), ("1ST", "must not start with a digit")],
            collapsing: None,
            unimportable: None,
            mends: Mends::Never,
            creation: "POST ",
            listing: "GET ",
            writers: 4,
            readers: 1,
        }
    }

    fn host(&self) -> &Host {
        &self.host
    }

    /// The hourly budget is Bitbucket's own for large workspaces, so that cases do not wait for it.
    fn connection(&self) -> Value {
        json!({"name": "place", "app": "bitbucket", "method": "api-token", "endpoint": self.host.url, "hourlyBudget": "10000",
            "credentials": {"email": EMAIL, "apiToken": TOKEN}})
    }

    fn config(&self) -> Value {
        json!({"workspaceSlug": WORKSPACE, "repositorySlug": REPOSITORY})
    }

    fn elsewhere(&self) -> Value {
        json!({"workspaceSlug": WORKSPACE, "repositorySlug": OTHER_REPOSITORY})
    }

    fn values_elsewhere(&self) -> BTreeMap<String, String> {
        self.state.variables(At::repository(WORKSPACE, OTHER_REPOSITORY)).into_iter().map(|v| (v.key, v.value)).collect()
    }

    fn values(&self) -> BTreeMap<String, String> {
        let all = self.state.variables(at());
        let count = all.len();
        let map: BTreeMap<String, String> = all.into_iter().map(|v| (v.key, v.value)).collect();
        assert_eq!(map.len(), count, "a variable is there twice");
        map
    }

    fn put(&self, key: &str, value: &str) {
        if self.state.value(at(), key).is_some() {
            self.state.edit(at(), key, |v| v.value = value.to_string());
        } else {
            self.state.put(at(), key, value, true);
        }
    }

    fn remove(&self, key: &str) {
        self.state.remove(at(), key);
    }

    /// The service has no code beside the status.
    fn refuse(&self, keys: &[String]) -> Option<Refusal> {
        let body = json!({"type": "error", "error": {"message": "Bad request", "detail": "The variable is not acceptable."}});
        for n in 0..keys.len() {
            let refusal = answer(400, &[("x-request-id", &format!("bitbucket-{n}"))], &body);
            self.host.faults.add(Fault::next("POST ", 1, refusal).after(n as u32));
        }
        Some(Refusal { code: "400", id: "x-request-id" })
    }

    fn floor(&self, keys: usize) -> usize {
        keys.div_ceil(100).max(1)
    }

    fn throttling(&self) -> Effect {
        answer(429, &[("retry-after", "1")], &json!({"type": "error", "error": {"message": "Rate limit for this resource has been exceeded"}}))
    }
}
