//! Azure DevOps in the demo: one organisation with a project and other people's groups.

use serde_json::{Value, json};

use super::super::{Ports, Request, Stall, foreign};
use super::Values;
use crate::sandbox::azure_devops::{State, Variable, router};
use crate::sandbox::host::{Effect, Faults, Host};

const ORGANISATION: &str = "demo-shop";
const TOKEN: &str = "demo-personal-access-token-not-real";
const CONNECTION: &str = "demo-devops";
const PREFIX: &str = "WEB_";

pub(super) struct AzureDevOps {
    state: State,
    host: Host,
    project: String,
}

pub(super) async fn open(ports: &mut Ports, values: &mut Values) -> std::io::Result<AzureDevOps> {
    let state = State::new(ORGANISATION);
    state.token(TOKEN);
    let project = state.project("Storefront");
    state.project("Data Platform");
    let theirs = foreign(values);
    let group =
        state.group(&project, "Production", &[("RELEASE_CHANNEL", Variable::plain("stable")), ("SIGNING_PASSWORD", Variable::secret(&theirs))]);
    state.describe(group, Some("Kept by the release team"));
    let host = Host::start(router(state.clone()), ports.next()).await?;
    Ok(AzureDevOps { state, host, project })
}

impl Stall for AzureDevOps {
    fn service(&self) -> &'static str {
        "azure-devops"
    }

    fn title(&self) -> &'static str {
        "Azure DevOps"
    }

    fn faults(&self) -> &Faults {
        &self.host.faults
    }

    fn connection(&self) -> Value {
        json!({"name": CONNECTION, "app": "azure-devops", "method": "access-token",
            "credentials": {"orgName": ORGANISATION, "accessToken": TOKEN}, "endpoint": self.host.url})
    }

    fn syncs(&self) -> Vec<Value> {
        let request = |name, description, environment, enabled, options| {
            let config = json!({"devopsProjectId": self.project, "devopsProjectName": "Storefront"});
            let (connection, path, destination) = (CONNECTION, "/web", "azure-devops");
            Request { name, description, connection, environment, path, enabled, options, destination, config }.document()
        };
        vec![
            request(
                "web-to-devops",
                "The storefront's secrets for release pipelines",
                "staging",
                true,
                json!({"keySchema": format!("{PREFIX}{{{{secretKey}}}}")}),
            ),
            request("web-prod-takeover", "The release team keeps variables in that group: asks first", "prod", false, json!({})),
        ]
    }

    fn serve(&self) -> Value {
        json!({"endpoint": self.host.url, "orgName": ORGANISATION, "organizationUrl": format!("{}/{ORGANISATION}", self.host.url),
            "accessToken": TOKEN, "devopsProjectId": self.project, "devopsProjectName": "Storefront"})
    }

    fn throttling(&self, wait: std::time::Duration) -> Effect {
        let body = json!({"$id": "1", "message": "Request was blocked due to exceeding usage of resource 'Concurrency'.", "typeKey": "RequestBlockedException"});
        super::busy(wait, &body)
    }

    fn meddle(&self, pick: &mut dyn FnMut(usize) -> usize) -> Option<String> {
        let group = self.state.find(&self.project, "Staging")?;
        let ours: Vec<String> = self.state.variables(group).into_keys().filter(|n| n.starts_with(PREFIX)).collect();
        let name = ours.get(pick(ours.len()))?.clone();
        self.state.set(group, &name, Variable::secret("edited-by-a-foreign-hand"));
        Some(name)
    }
}
