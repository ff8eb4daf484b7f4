//! Against moto, with boto3 as the witness.

use serde_json::{Value, json};

use super::direct::{Direct, calls, connection};
use crate::support::{moto, python};

const KEY: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

/// One region of moto.
struct Place {
    url: String,
    region: &'static str,
}

impl Place {
    /// `None` where moto cannot be had.
    fn new(region: &'static str) -> Option<Self> {
        Some(Self { url: moto::moto()?.url.clone(), region })
    }

    fn sync(&self, options: Value) -> Direct {
        self.config(json!({"region": self.region, "mappingBehavior": "one-to-one"}), options)
    }

    fn config(&self, config: Value, options: Value) -> Direct {
        let credentials = json!({"accessKeyId": KEY, "secretAccessKey": SECRET});
        Direct::new(connection("access-key", credentials, json!({"endpoint": self.url})), config, options)
    }

    fn boto(&self, command: &str, arguments: Value) -> Value {
        let text = python::script("aws.py", &[&self.url, self.region, KEY, SECRET, command, &arguments.to_string()]).expect("boto3");
        serde_json::from_str(&text).expect("JSON")
    }

    fn dump(&self) -> Value {
        self.boto("dump", json!({}))
    }
}

#[tokio::test]
async fn the_life_of_a_secret() {
    let Some(place) = Place::new("us-east-1") else { return };
    let mut sync = place.sync(json!({"keySchema": "app/{{secretKey}}", "tags": [{"key": "team", "value": "a"}]}));
    place.boto("create_secret", json!({"Name": "other/X", "SecretString": "foreign"}));
    let report = sync.run(&[("A", "1"), ("B", "line\nbreak \"é\" 🔑\n")]).await.clean();
    assert_eq!(report.calls(), calls(json!({"ListSecrets": 1, "CreateSecret": 2})));
    let there = place.dump();
    assert_eq!(there["app/A"]["value"], "1");
    assert_eq!(there["app/A"]["tags"], json!({"team": "a"}));
    assert_eq!(there["app/B"]["value"], "line\nbreak \"é\" 🔑\n");

    let report = sync.run(&[("A", "1"), ("B", "line\nbreak \"é\" 🔑\n")]).await.clean();
    assert_eq!((report.unchanged, report.calls()), (2, calls(json!({"ListSecrets": 1}))));

    let report = sync.run(&[("A", "2"), ("B", "line\nbreak \"é\" 🔑\n")]).await.clean();
    assert_eq!(report.calls(), calls(json!({"ListSecrets": 1, "PutSecretValue": 1})));
    assert_eq!(place.dump()["app/A"]["value"], "2");

    let report = sync.run(&[("A", "2")]).await.clean();
    assert_eq!(report.calls(), calls(json!({"ListSecrets": 1, "DeleteSecret": 1})));
    let there = place.dump();
    assert_eq!(there["app/B"]["deleted"], true);
    assert_eq!(there["other/X"]["value"], "foreign");
}
