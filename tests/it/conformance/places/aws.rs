//! AWS Secrets Manager, every key a secret of its own.

use std::collections::BTreeMap;

use kms_sync::sandbox::aws::{ACCESS_KEY_ID, SECRET_ACCESS_KEY, State, router};
use kms_sync::sandbox::host::{Effect, Host};
use serde_json::{Value, json};

use crate::conformance::place::{Mends, Nature, Place, Refusal, answer};

const REGION: &str = "us-east-1";
const OTHER_REGION: &str = "eu-central-1";

pub struct Aws {
    state: State,
    host: Host,
}

pub async fn start() -> Box<dyn Place> {
    let state = State::default();
    let host = Host::start(router(state.clone()), None).await.expect("a port");
    Box::new(Aws { state, host })
}

impl Aws {
    fn values_of(&self, region: &str) -> BTreeMap<String, String> {
        let names = self.state.names(region).into_iter();
        names.map(|n| (n.clone(), self.state.value_of(region, &n).unwrap_or_default())).collect()
    }
}

impl Place for Aws {
    fn kind(&self) -> &'static str {
        "aws-secrets-manager"
    }

    fn nature(&self) -> Nature {
        Nature {
            imports: true,
            readable: true,
            schema: true,
            document: false,
            empty: false,
            multiline: true,
            slashes: true,
            longest: Some(512),
            largest: Some(65_536),
            bad_names: &[("with space", "holds ' '"), ("ümlaut", "holds 'ü'")],
            collapsing: None,
            unimportable: Some("team/token"),
            mends: Mends::NextRun,
            creation: "secretsmanager.CreateSecret",
            listing: "secretsmanager.ListSecrets",
            writers: 16,
            readers: 8,
        }
    }

    fn host(&self) -> &Host {
        &self.host
    }

    fn connection(&self) -> Value {
        json!({"name": "place", "app": "aws", "method": "access-key", "endpoint": self.host.url,
            "credentials": {"accessKeyId": ACCESS_KEY_ID, "secretAccessKey": SECRET_ACCESS_KEY}})
    }

    fn config(&self) -> Value {
        json!({"region": REGION, "mappingBehavior": "one-to-one"})
    }

    fn elsewhere(&self) -> Value {
        json!({"region": OTHER_REGION, "mappingBehavior": "one-to-one"})
    }

    fn values_elsewhere(&self) -> BTreeMap<String, String> {
        self.values_of(OTHER_REGION)
    }

    fn values(&self) -> BTreeMap<String, String> {
        self.values_of(REGION)
    }

    fn put(&self, key: &str, value: &str) {
        self.state.edit(REGION, key, value);
    }

    fn remove(&self, key: &str) {
        self.state.vanish(REGION, key);
    }

    fn refuse(&self, keys: &[String]) -> Option<Refusal> {
        for key in keys {
            self.state.deny("CreateSecret", key);
        }
        Some(Refusal { code: "AccessDeniedException", id: "x-amzn-requestid" })
    }

    fn forgive(&self) {
        self.state.allow_all();
    }

    fn is_write(&self, line: &str) -> bool {
        ["Create", "Put", "Update", "Delete", "Restore", "Tag", "Untag"].iter().any(|w| line.contains(&format!("secretsmanager.{w}")))
    }

    fn floor(&self, keys: usize) -> usize {
        keys.div_ceil(100).max(1)
    }

    fn throttling(&self) -> Effect {
        answer(400, &[("content-type", "application/x-amz-json-1.1")], &json!({"__type": "ThrottlingException", "message": "Rate exceeded"}))
    }
}
