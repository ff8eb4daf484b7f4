//! AWS Secrets Manager in the demo: one account, two regions in use.

use serde_json::{Value, json};

use super::super::{Ports, Request, Stall, foreign};
use super::Values;
use crate::sandbox::aws::{ACCESS_KEY_ID, Content, SECRET_ACCESS_KEY, State, router};
use crate::sandbox::host::{Effect, Faults, Host};

const REGION: &str = "us-east-1";
/// Where others keep secrets too.
const CROWDED: &str = "eu-central-1";
const CONNECTION: &str = "demo-aws";
const PREFIX: &str = "/payments/prod/";

pub(super) struct Aws {
    state: State,
    host: Host,
}

pub(super) async fn open(ports: &mut Ports, values: &mut Values) -> std::io::Result<Aws> {
    let state = State::default();
    for (region, name) in
        [(REGION, "/platform/terraform-state"), (CROWDED, "legacy/report-db"), (CROWDED, "legacy/smtp-relay"), (CROWDED, "team-data/warehouse")]
    {
        state.seed(region, name, Content::Text(foreign(values)));
    }
    let host = Host::start(router(state.clone()), ports.next()).await?;
    Ok(Aws { state, host })
}

impl Stall for Aws {
    fn service(&self) -> &'static str {
        "aws"
    }

    fn title(&self) -> &'static str {
        "AWS Secrets Manager"
    }

    fn faults(&self) -> &Faults {
        &self.host.faults
    }

    fn connection(&self) -> Value {
        json!({"name": CONNECTION, "app": "aws", "method": "access-key",
            "credentials": {"accessKeyId": ACCESS_KEY_ID, "secretAccessKey": SECRET_ACCESS_KEY}, "endpoint": self.host.url})
    }

    fn syncs(&self) -> Vec<Value> {
        let request = |name, description, environment, path, enabled, options, config| {
            Request { name, description, connection: CONNECTION, environment, path, enabled, options, destination: "aws-secrets-manager", config }
                .document()
        };
        vec![
            request(
                "payments-to-aws",
                "Production's payment secrets, one AWS secret each",
                "prod",
                "/payments",
                true,
                json!({"keySchema": "/payments/{{environment}}/{{secretKey}}", "tags": [{"key": "managed-by", "value": "kms-sync"}],
                    "syncSecretMetadataAsTags": true}),
                json!({"region": REGION, "mappingBehavior": "one-to-one"}),
            ),
            request(
                "web-region-takeover",
                "The region holds other teams' secrets too: asks first",
                "dev",
                "/web",
                false,
                json!({}),
                json!({"region": CROWDED, "mappingBehavior": "one-to-one"}),
            ),
        ]
    }

    fn serve(&self) -> Value {
        json!({"endpoint": self.host.url, "region": REGION, "accessKeyId": ACCESS_KEY_ID, "secretAccessKey": SECRET_ACCESS_KEY})
    }

    fn throttling(&self, _wait: std::time::Duration) -> Effect {
        let body = json!({"__type": "ThrottlingException", "message": "Rate exceeded"});
        Effect::Answer { status: 400, headers: vec![("content-type".into(), "application/x-amz-json-1.1".into())], body: body.to_string() }
    }

    fn meddle(&self, pick: &mut dyn FnMut(usize) -> usize) -> Option<String> {
        let ours: Vec<String> = self.state.names(REGION).into_iter().filter(|n| n.starts_with(PREFIX)).collect();
        let name = ours.get(pick(ours.len()))?.clone();
        self.state.edit(REGION, &name, "edited-by-a-foreign-hand");
        Some(name)
    }
}
