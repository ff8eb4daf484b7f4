//! The KMS server's own secret syncs, as far as a sync here must know of them: which there are
//! in a project, and switching one's auto-sync off. Routes and members are those of the
//! documented `/api/v1/secret-syncs`; servers without them have no such syncs.

use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::ServerSync;
use super::client::Kms;
use super::errors::{Refusal, SERVICE};
use super::shapes::tidy;
use super::wire::Call;
use crate::http::{ApiError, Cx, ErrorKind};
use crate::model::Map;
use crate::model::text::brief;

/// More syncs of one project than anybody has; what comes after them is not looked at.
const MOST: usize = 2_000;
/// The longest text of an answer that is kept, in characters: names and paths have 256.
const LONGEST: usize = 256;
/// The name that auto-sync has at present servers, and the one of the first release.
const SWITCHES: [&str; 2] = ["isAutoSyncEnabled", "isEnabled"];

/// The answer of the list; each row is read by itself, so that one odd row hides no other.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    secret_syncs: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct One {
    secret_sync: Value,
}

/// One sync as far as it is read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    id: String,
    name: String,
    destination: String,
    #[serde(default)]
    destination_config: Map,
    #[serde(default)]
    sync_options: Map,
    project_id: Option<String>,
    environment: Option<Environment>,
    folder: Option<Folder>,
    connection: Option<Connection>,
    sync_status: Option<String>,
}

#[derive(Deserialize)]
struct Environment {
    slug: String,
}

#[derive(Deserialize)]
struct Folder {
    path: String,
}

#[derive(Deserialize)]
struct Connection {
    name: String,
}

/// A row of the project, when it can be understood and its id can stand in an address.
fn read(row: Value, project: &str) -> Option<ServerSync> {
    let (switch, auto_sync) = SWITCHES.iter().find_map(|name| Some((*name, row.get(*name)?.as_bool()?)))?;
    let row: Row = serde_json::from_value(row).ok()?;
    let plain = !row.id.is_empty() && row.id.len() <= 64 && row.id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    if !plain || row.project_id.is_some_and(|p| p != project) {
        return None;
    }
    let text = |text: &str| brief(text, LONGEST);
    Some(ServerSync {
        id: row.id,
        name: text(&row.name),
        destination: text(&row.destination),
        destination_config: row.destination_config,
        auto_sync,
        switch: switch.to_string(),
        key_schema: row.sync_options.get("keySchema").and_then(Value::as_str).map(|s| s.trim().to_string()).filter(|s| !s.is_empty()),
        environment: row.environment.map(|e| text(&e.slug)),
        secret_path: row.folder.map(|f| text(tidy(&f.path))),
        connection: row.connection.map(|c| text(&c.name)),
        running: matches!(row.sync_status.as_deref(), Some("pending" | "running")),
    })
}

impl Kms {
    /// The syncs of a project that this identity may see; none where the server has no such routes.
    pub async fn list_server_syncs(&self, cx: &Cx, project: &str) -> Result<Vec<ServerSync>, ApiError> {
        if self.auth.is_service_token() {
            return Err(ApiError::new(ErrorKind::Permission, SERVICE, "a service token cannot see the server's own secret syncs")
                .advice("Use a machine identity, or look at the project's secret syncs in the dashboard."));
        }
        let call = Call::get("GET /api/v1/secret-syncs", "api/v1/secret-syncs").query(&[("projectId", project)]).attempts(2);
        let answer = match self.call(cx, &call).await {
            Ok(answer) => answer,
            Err(refusal) if refusal.route_missing => return Ok(Vec::new()),
            Err(refusal) => return Err(refusal.into()),
        };
        let listed: Listed = answer.json(SERVICE)?;
        Ok(listed.secret_syncs.into_iter().take(MOST).filter_map(|row| read(row, project)).collect())
    }

    /// Switches auto-sync of one off, by the name the server shows it under, and sees that the
    /// server took it: a name that it does not know is ignored there in silence.
    pub async fn switch_server_sync_off(&self, cx: &Cx, sync: &ServerSync) -> Result<(), ApiError> {
        let switch = SWITCHES.iter().find(|s| **s == sync.switch).unwrap_or(&SWITCHES[0]);
        let body = json!({ *switch: false }).to_string();
        let call = Call::with_body(Method::PATCH, "PATCH /api/v1/secret-syncs/{destination}/{id}", "api/v1/secret-syncs", body)
            .segment(&sync.destination)
            .segment(&sync.id);
        let by_hand = || format!("Switch auto-sync of {} off in the dashboard, under the project's secret syncs.", sync.name);
        let answer = self.call(cx, &call).await.map_err(|refusal: Refusal| match refusal.kind() {
            ErrorKind::Permission => {
                let advice = format!("Give the machine identity the right to edit secret syncs in the project's access control. Or: {}", by_hand());
                refusal.error.advice(advice)
            }
            _ => refusal.error,
        })?;
        let shown = answer.json::<One>(SERVICE)?.secret_sync;
        match SWITCHES.iter().find_map(|name| shown.get(*name)?.as_bool()) {
            Some(false) => Ok(()),
            _ => Err(ApiError::new(ErrorKind::Invalid, SERVICE, format!("the server took the change of {} and still shows auto-sync on", sync.name))
                .status(answer.status)
                .advice(by_hand())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Value {
        json!({"id": "3c90c3cc-0d44-4b50-8888-8dd25736052a", "name": "legacy", "isAutoSyncEnabled": true, "projectId": "p",
            "syncStatus": "running", "syncOptions": {"initialSyncBehavior": "overwrite-destination", "keySchema": " APP_{{secretKey}} "},
            "connection": {"app": "aws", "name": "prod", "id": "c"}, "environment": {"slug": "dev", "name": "Development", "id": "e"},
            "folder": {"id": "f", "path": "/app/"}, "destination": "aws-secrets-manager", "destinationConfig": {"region": "us-east-1"}})
    }

    #[test]
    fn both_names_of_the_switch_are_read_and_kept() {
        let sync = read(row(), "p").expect("a row");
        assert_eq!((sync.switch.as_str(), sync.auto_sync, sync.running), ("isAutoSyncEnabled", true, true));
        assert_eq!((sync.key_schema.as_deref(), sync.secret_path.as_deref()), (Some("APP_{{secretKey}}"), Some("/app")));
        let mut first = row();
        first.as_object_mut().expect("an object").remove("isAutoSyncEnabled");
        first["isEnabled"] = false.into();
        let sync = read(first, "p").expect("a row of the first release");
        assert_eq!((sync.switch.as_str(), sync.auto_sync), ("isEnabled", false));
    }

    #[test]
    fn rows_that_cannot_be_addressed_or_belong_elsewhere_are_left_out() {
        for (member, value) in [("id", json!("..")), ("id", json!("")), ("id", json!("a/b")), ("projectId", json!("other")), ("name", json!(7))] {
            let mut row = row();
            row[member] = value;
            assert_eq!(read(row, "p"), None, "{member}");
        }
        let mut gone = row();
        (gone["environment"], gone["folder"]) = (Value::Null, Value::Null);
        assert!(read(gone, "p").is_some_and(|s| s.environment.is_none() && s.secret_path.is_none()));
    }
}
