//! AWS Secrets Manager, all keys in one secret: a JSON object.

use std::collections::BTreeMap;

use kms_sync::sandbox::aws::{ACCESS_KEY_ID, SECRET_ACCESS_KEY, State, router};
use kms_sync::sandbox::host::{Effect, Host};
use serde_json::{Value, json};

use crate::conformance::place::{Mends, Nature, Place, Refusal, answer};

const REGION: &str = "eu-west-1";
const SECRET: &str = "conformance/all";
const OTHER_SECRET: &str = "conformance/other";

pub struct Object {
    state: State,
    host: Host,
}

pub async fn start() -> Box<dyn Place> {
    let state = State::default();
    let host = Host::start(router(state.clone()), None).await.expect("a port");
    Box::new(Object { state, host })
}

impl Object {
    fn members(&self, secret: &str) -> BTreeMap<String, String> {
        self.state.value_of(REGION, secret).map(|text| serde_json::from_str(&text).expect("an object of texts")).unwrap_or_default()
    }

    fn store(&self, members: &BTreeMap<String, String>) {
        self.state.edit(REGION, SECRET, &json!(members).to_string());
    }
}

impl Place for Object {
    fn kind(&self) -> &'static str {
        "aws-secrets-manager"
    }

    fn nature(&self) -> Nature {
        Nature {
            imports: true,
            readable: true,
            schema: false,
            document: true,
            empty: true,
            multiline: true,
            slashes: true,
            longest: None,
            largest: None,
            bad_names: &[],
            collapsing: None,
            unimportable: Some("team/token"),
            mends: Mends::NextRun,
            creation: "secretsmanager.CreateSecret",
            listing: "secretsmanager.DescribeSecret",
            writers: 1,
            readers: 1,
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
        json!({"region": REGION, "mappingBehavior": "many-to-one", "secretName": SECRET})
    }

    fn elsewhere(&self) -> Value {
        json!({"region": REGION, "mappingBehavior": "many-to-one", "secretName": OTHER_SECRET})
    }

    fn values_elsewhere(&self) -> BTreeMap<String, String> {
        self.members(OTHER_SECRET)
    }

    fn values(&self) -> BTreeMap<String, String> {
        let names = self.state.names(REGION);
        assert!(names.iter().all(|n| n == SECRET || n == OTHER_SECRET), "other secrets are nobody's business: {names:?}");
        self.members(SECRET)
    }

    fn put(&self, key: &str, value: &str) {
        let mut members = self.values();
        members.insert(key.to_string(), value.to_string());
        self.store(&members);
    }

    fn remove(&self, key: &str) {
        let mut members = self.values();
        members.remove(key);
        self.store(&members);
    }

    fn refuse(&self, _keys: &[String]) -> Option<Refusal> {
        None
    }

    fn is_write(&self, line: &str) -> bool {
        ["Create", "Put", "Update", "Delete", "Restore", "Tag", "Untag"].iter().any(|w| line.contains(&format!("secretsmanager.{w}")))
    }

    fn floor(&self, _keys: usize) -> usize {
        1
    }

    fn throttling(&self) -> Effect {
        answer(400, &[("content-type", "application/x-amz-json-1.1")], &json!({"__type": "ThrottlingException", "message": "Rate exceeded"}))
    }
}
