//! Azure DevOps: one variable group, named like the environment.

use std::collections::BTreeMap;

use kms_sync::sandbox::azure_devops::{State, Variable, router};
use kms_sync::sandbox::host::{Effect, Host};
use serde_json::{Value, json};

use crate::conformance::bench::ENVIRONMENT_NAME;
use crate::conformance::place::{Mends, Nature, Place, Refusal, answer};

const TOKEN: &str = "conformance-access-token";

pub struct DevOps {
    state: State,
    host: Host,
    /// Where a connection reaches the host.
    endpoint: String,
    project: String,
    other: String,
}

pub async fn start() -> Box<dyn Place> {
    start_at(str::to_string).await
}

/// With something between the connection and the service, whose address `endpoint` makes.
pub async fn start_at(endpoint: impl FnOnce(&str) -> String) -> Box<dyn Place> {
    place(State::new("contoso"), endpoint).await
}

/// A place on the sandbox of an organisation `contoso` that its caller keeps a handle of.
pub async fn on(state: State) -> Box<dyn Place> {
    place(state, str::to_string).await
}

async fn place(state: State, endpoint: impl FnOnce(&str) -> String) -> Box<dyn Place> {
    state.token(TOKEN);
    let (project, other) = (state.project("Fabrikam"), state.project("Northwind"));
    let host = Host::start(router(state.clone()), None).await.expect("a port");
    let endpoint = endpoint(&host.url);
    Box::new(DevOps { state, host, endpoint, project, other })
}

impl DevOps {
    fn group(&self) -> Option<i64> {
        self.state.groups_of(&self.project).into_iter().next()
    }

    fn variables(&self, group: Option<i64>) -> BTreeMap<String, String> {
        let all = group.map(|g| self.state.variables(g)).unwrap_or_default();
        all.into_iter().map(|(name, variable)| (name, variable.value.unwrap_or_default())).collect()
    }
}

impl Place for DevOps {
    fn kind(&self) -> &'static str {
        "azure-devops"
    }

    fn nature(&self) -> Nature {
        Nature {
            imports: false,
            readable: false,
            schema: true,
            document: true,
            empty: false,
            multiline: true,
            slashes: true,
            longest: Some(400),
            largest: None,
            bad_names: &[],
            collapsing: Some(("ONE_NAME", "one_name")),
            unimportable: None,
            mends: Mends::Attended,
            creation: "/contoso/_apis/distributedtask/variablegroups",
            listing: "GET ",
            writers: 1,
            readers: 1,
        }
    }

    fn host(&self) -> &Host {
        &self.host
    }

    fn connection(&self) -> Value {
        json!({"name": "place", "app": "azure-devops", "method": "access-token", "endpoint": self.endpoint,
            "credentials": {"orgName": "contoso", "accessToken": TOKEN}})
    }

    fn config(&self) -> Value {
        json!({"devopsProjectId": self.project})
    }

    fn elsewhere(&self) -> Value {
        json!({"devopsProjectId": self.other})
    }

    fn values_elsewhere(&self) -> BTreeMap<String, String> {
        self.variables(self.state.groups_of(&self.other).into_iter().next())
    }

    fn values(&self) -> BTreeMap<String, String> {
        self.variables(self.group())
    }

    fn put(&self, key: &str, value: &str) {
        match self.group() {
            Some(group) => self.state.set(group, key, Variable::secret(value)),
            None => {
                self.state.group(&self.project, ENVIRONMENT_NAME, &[(key, Variable::secret(value))]);
            }
        }
    }

    fn remove(&self, key: &str) {
        let Some(group) = self.group() else { return };
        self.state.unset(group, key);
        if self.state.variables(group).is_empty() {
            self.state.delete(group);
        }
    }

    fn refuse(&self, keys: &[String]) -> Option<Refusal> {
        for key in keys {
            self.state.refuse_name(key);
        }
        Some(Refusal { code: "ArgumentException", id: "activityid" })
    }

    fn floor(&self, _keys: usize) -> usize {
        1
    }

    fn throttling(&self) -> Effect {
        answer(
            429,
            &[("retry-after", "1")],
            &json!({"message": "Request was blocked due to exceeding usage of resource.", "typeKey": "RequestBlockedException"}),
        )
    }
}
