//! Bitbucket in the demo: one repository with a deployment environment.

use serde_json::{Value, json};

use super::super::{Ports, Request, Stall, foreign};
use super::Values;
use crate::sandbox::bitbucket::{API_SCOPES, At, State, router};
use crate::sandbox::host::{Effect, Faults, Host};

const EMAIL: &str = "ci@demo.invalid";
const TOKEN: &str = "ATATT-demo-token-not-real";
const WORKSPACE: &str = "demo-shop";
const REPOSITORY: &str = "storefront";
const CONNECTION: &str = "demo-bitbucket";

pub(super) struct Bitbucket {
    state: State,
    host: Host,
    environment: String,
}

pub(super) async fn open(ports: &mut Ports, values: &mut Values) -> std::io::Result<Bitbucket> {
    let state = State::new();
    state.add_account(EMAIL, "ci", "Demo CI");
    state.give_api_token(EMAIL, TOKEN, API_SCOPES);
    state.add_workspace(WORKSPACE, Some("Demo Shop"));
    state.add_repository(WORKSPACE, REPOSITORY);
    state.add_repository(WORKSPACE, "infrastructure");
    let environment = state.add_environment(WORKSPACE, REPOSITORY, "Production", "Production");
    for key in ["DEPLOY_SSH_USER", "LEGACY_TOKEN"] {
        state.put(At::repository(WORKSPACE, REPOSITORY), key, &foreign(values), true);
    }
    let host = Host::start(router(state.clone()), ports.next()).await?;
    Ok(Bitbucket { state, host, environment })
}

impl Bitbucket {
    fn request(&self, name: &str, description: &str, environment: &str, enabled: bool, schema: bool, config: Value) -> Value {
        Request {
            name,
            description,
            connection: CONNECTION,
            environment,
            path: "/web",
            enabled,
            options: if schema { json!({ "keySchema": "WEB_{{secretKey}}" }) } else { json!({}) },
            destination: "bitbucket",
            config,
        }
        .document()
    }
}

impl Stall for Bitbucket {
    fn service(&self) -> &'static str {
        "bitbucket"
    }

    fn title(&self) -> &'static str {
        "Bitbucket"
    }

    fn faults(&self) -> &Faults {
        &self.host.faults
    }

    fn connection(&self) -> Value {
        json!({"name": CONNECTION, "app": "bitbucket", "method": "api-token",
            "credentials": {"email": EMAIL, "apiToken": TOKEN}, "endpoint": self.host.url})
    }

    fn syncs(&self) -> Vec<Value> {
        let place = |more: Value| {
            let mut config = json!({"workspaceSlug": WORKSPACE, "repositorySlug": REPOSITORY});
            if let (Some(all), Some(more)) = (config.as_object_mut(), more.as_object()) {
                all.extend(more.clone());
            }
            config
        };
        vec![
            self.request(
                "web-to-bitbucket",
                "Pipeline variables of the storefront's production deployments",
                "prod",
                true,
                true,
                place(json!({"environmentId": self.environment})),
            ),
            self.request("web-dev-takeover", "Takes over a repository that others write to: asks first", "dev", false, false, place(json!({}))),
        ]
    }

    fn serve(&self) -> Value {
        json!({"endpoint": self.host.url, "email": EMAIL, "apiToken": TOKEN, "workspaceSlug": WORKSPACE, "repositorySlug": REPOSITORY,
            "environmentId": self.environment})
    }

    fn throttling(&self, wait: std::time::Duration) -> Effect {
        let body = json!({"type": "error", "error": {"message": "Rate limit for this resource has been exceeded"}});
        super::busy(wait, &body)
    }

    fn meddle(&self, pick: &mut dyn FnMut(usize) -> usize) -> Option<String> {
        let at = At::repository(WORKSPACE, REPOSITORY).environment(&self.environment);
        let variables = self.state.variables(at);
        // Values are write-only there: what can be noticed is a variable that is gone.
        let key = variables.get(pick(variables.len()))?.key.clone();
        self.state.remove(at, &key);
        Some(key)
    }
}
