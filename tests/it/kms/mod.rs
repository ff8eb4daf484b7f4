//! The KMS client against the sandbox KMS, over real HTTP.

mod auth;
mod events;
mod read;
mod write;

use std::collections::BTreeMap;
use std::sync::Arc;

use kms_sync::http::Cx;
use kms_sync::model::SecretValue;
use kms_sync::model::connection::ResolvedConnection;
use kms_sync::sandbox::host::Host;
use kms_sync::sandbox::kms::{State, router};
use kms_sync::source::{Source, SourceMap, SourceRef, connect};

/// The client secret of every test's identity.
const SECRET: &str = "sandbox-client-secret-0001";

/// One server with a project `app` of environments dev, staging, prod and shared, and one identity.
struct Bed {
    state: State,
    host: Host,
    project: String,
    client_id: String,
}

impl Bed {
    async fn start() -> Self {
        let state = State::new();
        let project = state.add_project("App", "app");
        for (slug, name) in [("dev", "Development"), ("prod", "Production Environment"), ("shared", "Shared")] {
            state.add_environment(&project, slug, name);
        }
        let client_id = state.add_identity("ci", SECRET);
        let host = Host::start(router(state.clone()), None).await.expect("a loopback port");
        Self { state, host, project, client_id }
    }

    fn connection(&self, method: &str, credentials: &[(&str, &str)]) -> ResolvedConnection {
        ResolvedConnection {
            id: "c".into(),
            name: "kms".into(),
            app: "hanzo-kms".into(),
            method: method.into(),
            credentials: credentials.iter().map(|(k, v)| ((*k).to_string(), SecretValue::new(*v))).collect::<BTreeMap<_, _>>(),
            settings: serde_json::json!({ "baseUrl": self.host.url }).as_object().cloned().unwrap_or_default(),
            ca_file: None,
            allow_insecure_http: false,
        }
    }

    fn source(&self) -> Arc<dyn Source> {
        self.source_with(SECRET)
    }

    fn source_with(&self, secret: &str) -> Arc<dyn Source> {
        connect(self.connection("universal-auth", &[("clientId", &self.client_id), ("clientSecret", secret)])).expect("connection")
    }

    fn token_source(&self, token: &str) -> Arc<dyn Source> {
        connect(self.connection("token", &[("token", token)])).expect("connection")
    }

    fn at(&self, environment: &str, path: &str) -> SourceRef {
        SourceRef { project_id: self.project.clone(), environment: environment.into(), path: path.into(), recursive: false }
    }

    fn set(&self, environment: &str, path: &str, key: &str, value: &str) {
        self.state.set(&self.project, environment, path, key, value);
    }

    async fn read(&self, environment: &str, path: &str) -> SourceMap {
        self.source().read(&Cx::quiet(), &self.at(environment, path)).await.expect("readable")
    }

    /// Requests since the log was cleared, without logins, as `METHOD /path`.
    fn requests(&self) -> Vec<String> {
        let path = |line: &String| line.split('?').next().unwrap_or_default().to_string();
        self.host.log.lines().iter().map(path).filter(|l| !l.ends_with("/login")).collect()
    }

    fn logins(&self) -> usize {
        self.host.log.count("universal-auth/login")
    }
}

/// `KEY=value` of every secret.
fn pairs(map: &SourceMap) -> Vec<String> {
    map.secrets.iter().map(|s| format!("{}={}", s.key, s.value.expose())).collect()
}
