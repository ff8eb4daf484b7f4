//! One sandbox Secrets Manager per test.

use kms_sync::sandbox::aws::{self, ACCESS_KEY_ID, Content, SECRET_ACCESS_KEY, State};
use kms_sync::sandbox::host::Host;
use serde_json::{Value, json};

use super::direct::{Direct, connection};

pub const REGION: &str = "us-east-1";

pub struct Lab {
    pub host: Host,
    pub state: State,
}

impl Lab {
    pub async fn new() -> Self {
        let state = State::default();
        let host = Host::start(aws::router(state.clone()), None).await.expect("the sandbox starts");
        Self { host, state }
    }

    /// A sync in one-to-one mapping.
    pub fn sync(&self, options: Value) -> Direct {
        self.config(json!({"region": REGION, "mappingBehavior": "one-to-one"}), options)
    }

    /// A sync of all keys into one secret.
    pub fn object(&self, name: &str, options: Value) -> Direct {
        self.config(json!({"region": REGION, "mappingBehavior": "many-to-one", "secretName": name}), options)
    }

    pub fn config(&self, config: Value, options: Value) -> Direct {
        let credentials = json!({"accessKeyId": ACCESS_KEY_ID, "secretAccessKey": SECRET_ACCESS_KEY});
        Direct::new(connection("access-key", credentials, json!({"endpoint": self.host.url})), config, options)
    }

    pub fn seed(&self, name: &str, value: &str) {
        self.state.seed(REGION, name, Content::Text(value.to_string()));
    }

    pub fn value(&self, name: &str) -> Option<String> {
        self.state.value_of(REGION, name)
    }

    pub fn view(&self, name: &str) -> aws::View {
        self.state.view(REGION, name).unwrap_or_else(|| panic!("{name} is not there"))
    }
}

/// `K000`, `K001`, … all with the same value.
pub fn many(count: usize) -> Vec<(String, String)> {
    (0..count).map(|i| (format!("K{i:03}"), "v".to_string())).collect()
}
