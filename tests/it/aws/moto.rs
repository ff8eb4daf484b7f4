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

#[tokio::test]
async fn a_thousand_secrets_at_the_request_floor() {
    let Some(place) = Place::new("us-east-2") else { return };
    let mut source: Vec<(String, String)> = (0..1000).map(|i| (format!("K{i:04}"), format!("value {i}"))).collect();
    let mut sync = place.sync(json!({"keySchema": "app/{{secretKey}}", "recoveryWindowDays": 14}));
    let report = sync.run_full(&source, &[]).await.clean();
    // moto drops a connection now and then under this load: a repeated call is no additional secret.
    let creates = report.calls()["CreateSecret"] - report.requests.retries;
    assert_eq!((report.calls()["ListSecrets"], creates), (1, 1000));
    let report = sync.run_full(&source, &[]).await.clean();
    assert_eq!((report.unchanged, report.calls()), (1000, calls(json!({"ListSecrets": 10}))));
    source[500].1 = "changed".into();
    let report = sync.run_full(&source, &[]).await.clean();
    assert_eq!(report.calls(), calls(json!({"ListSecrets": 10, "PutSecretValue": 1})));
    let gone = source.pop().expect("a secret");
    let report = sync.run_full(&source, &[]).await.clean();
    assert_eq!(report.calls(), calls(json!({"ListSecrets": 10, "DeleteSecret": 1})));
    let described = place.boto("describe_secret", json!({"SecretId": "app/K0999"}));
    assert!(described["DeletedDate"].is_string(), "{described}");
    source.push(gone);
    let report = sync.run_full(&source, &[]).await.clean();
    assert_eq!(report.count("restore"), 1);
    assert_eq!(place.boto("get_secret_value", json!({"SecretId": "app/K0999"}))["SecretString"], "value 999");
    assert_eq!(place.boto("get_secret_value", json!({"SecretId": "app/K0500"}))["SecretString"], "changed");
}

#[tokio::test]
async fn many_to_one_is_one_secret() {
    let Some(place) = Place::new("eu-west-1") else { return };
    let config = json!({"region": place.region, "mappingBehavior": "many-to-one", "secretName": "prod"});
    let mut sync = place.config(config, json!({"keySchema": "{{environment}}/{{secretKey}}"}));
    let report = sync.run(&[("B", "2"), ("A", "")]).await.clean();
    assert_eq!(report.calls(), calls(json!({"DescribeSecret": 1, "CreateSecret": 1})));
    assert_eq!(place.dump()["dev/prod"]["value"], r#"{"A":"","B":"2"}"#);
    assert_eq!(sync.run(&[("B", "2"), ("A", "")]).await.clean().calls(), calls(json!({"DescribeSecret": 1})));
    place.boto("put_secret_value", json!({"SecretId": "dev/prod", "SecretString": r#"{"B":"x","A":"","F":"f"}"#}));
    let report = sync.run(&[("B", "3"), ("A", "")]).await.clean();
    assert_eq!((report.count("update"), report.foreign.len()), (1, 1));
    let there = place.dump();
    assert_eq!(there["dev/prod"]["value"], r#"{"A":"","B":"3","F":"f"}"#);
    assert_eq!(there.as_object().map(|m| m.len()), Some(1));
}

#[tokio::test]
async fn what_boto3_left_there_is_read_compared_and_repaired() {
    let Some(place) = Place::new("eu-west-2") else { return };
    place.boto("create_secret", json!({"Name": "SAME", "SecretString": "1"}));
    place.boto("create_secret", json!({"Name": "OTHER", "SecretString": "x", "Tags": [{"Key": "theirs", "Value": "t"}]}));
    place.boto("create_secret", json!({"Name": "EMPTY"}));
    place.boto("create_secret", json!({"Name": "BINARY", "SecretBinary": "bytes"}));
    place.boto("create_secret", json!({"Name": "FOREIGN", "SecretString": "f"}));
    place.boto("create_secret", json!({"Name": "PLANNED", "SecretString": "old"}));
    place.boto("delete_secret", json!({"SecretId": "PLANNED"}));
    let mut sync = place.sync(json!({"tags": [{"key": "ours", "value": "o"}]}));
    sync.restorable.insert("PLANNED".into());
    let source = [("SAME", "1"), ("OTHER", "1"), ("EMPTY", "1"), ("BINARY", "1"), ("PLANNED", "1"), ("NEW", "1")];
    let report = sync.run(&source).await.clean();
    assert_eq!(report.conflicts.keys().collect::<Vec<_>>(), ["BINARY"]);
    assert_eq!(report.foreign, ["FOREIGN"]);
    let there = place.dump();
    for name in ["SAME", "OTHER", "EMPTY", "PLANNED", "NEW"] {
        assert_eq!((&there[name]["value"], &there[name]["tags"]["ours"]), (&json!("1"), &json!("o")), "{name}");
    }
    assert_eq!((&there["OTHER"]["tags"]["theirs"], &there["SAME"]["versions"]), (&json!("t"), &json!(1)));
    assert_eq!((&there["BINARY"]["value"], &there["FOREIGN"]["value"]), (&json!("<binary>"), &json!("f")));
    let report = sync.run(&source[..3]).await.clean();
    assert_eq!(report.count("delete"), 2, "ours only");
    place.boto("put_secret_value", json!({"SecretId": "SAME", "SecretString": "drift"}));
    place.boto("delete_secret", json!({"SecretId": "OTHER", "ForceDeleteWithoutRecovery": true}));
    let report = sync.run(&source[..3]).await.clean();
    assert_eq!((report.count("update"), report.count("create")), (1, 1));
    assert_eq!(place.dump()["OTHER"]["value"], "1");
}

#[tokio::test]
async fn roles_and_the_test_against_moto() {
    let Some(place) = Place::new("ca-central-1") else { return };
    let sync = place.sync(json!({}));
    let report = sync.session.test(&kms_sync::http::Cx::quiet(), Some(&sync.target.config)).await.expect("moto takes any key");
    assert!(report.identity.starts_with("account 123456789012, as arn:aws:"), "{}", report.identity);
}
