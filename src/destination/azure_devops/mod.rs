//! Azure DevOps: one variable group (Pipelines > Library) that holds every key of a sync.
//!
//! There is no call for a single variable: the group is read, changed and written back as a
//! whole, so everything that is not ours is carried along. Values of secret variables are
//! never returned; the group's `modifiedOn` is the only stamp, and the ledger with
//! [`trace`] decides what is unchanged.
//!
//! | file | subject |
//! | --- | --- |
//! | [`spec`] | words, forms and methods, as data |
//! | [`keys`] | names and values a variable can have |
//! | [`api`] | base addresses and API versions |
//! | [`client`] | one call: headers, credential, version negotiation, pacing |
//! | [`errors`] | answers that are no success, as advice |
//! | [`group`] | the variable group on the wire |
//! | [`session`] | connection test, pickers, opening a target |
//! | [`find`] | the group by name or id, and when it is not where it was |
//! | [`target`] | the inventory and what it proves |
//! | [`trace`] | facts kept over restarts: the stamps we made |
//! | [`draft`] | the group as it should be, computed without IO |
//! | [`write`] | sending a draft, and what to do when the answer is lost |
//! | [`outcome`] | the answer compared with what was sent, key by key |

mod api;
mod client;
mod draft;
mod errors;
mod find;
mod group;
mod keys;
mod outcome;
mod session;
mod spec;
mod target;
mod trace;
mod write;

use std::sync::Arc;

use async_trait::async_trait;

use super::{KeySpace, Provider, Session, Spec};
use crate::http::ApiError;
use crate::model::connection::ResolvedConnection;
use crate::model::sync::{Reader, SyncOptions};
use crate::model::{Map, Memory, Problems};

/// The word under which requests are counted.
pub(super) const SERVICE: &str = "azure-devops";

/// The provider.
#[derive(Debug)]
pub struct AzureDevOps;

#[async_trait]
impl Provider for AzureDevOps {
    fn spec(&self) -> &'static Spec {
        &spec::SPEC
    }

    fn check(&self, config: &Map, _options: &SyncOptions, problems: &mut Problems) {
        let mut reader = Reader { object: config, prefix: "destinationConfig.", problems };
        let project = reader.text("devopsProjectId", true, 256).unwrap_or_default();
        reader.text("devopsProjectName", false, 256);
        reader.text("variableGroupName", false, 256);
        if !project.is_empty()
            && let Some(why) = no_project(&project)
        {
            let field = "destinationConfig.devopsProjectId";
            problems.add(field, "project", format!("{field} must be a project's id or name: {why}."));
        }
    }

    fn label(&self, config: &Map) -> String {
        let project = text(config, "devopsProjectName").or_else(|| text(config, "devopsProjectId")).unwrap_or("?");
        match text(config, "variableGroupName") {
            Some(group) => format!("DevOps {project} / {group}"),
            None => format!("DevOps {project}"),
        }
    }

    fn keys(&self, _config: &Map) -> Box<dyn KeySpace> {
        Box::new(keys::Keys)
    }

    fn overlaps(&self, a: &Map, b: &Map) -> bool {
        let project = |c: &Map| text(c, "devopsProjectId").map(str::to_lowercase);
        let group = |c: &Map| text(c, "variableGroupName").map(str::to_lowercase);
        project(a).is_some() && project(a) == project(b) && group(a) == group(b)
    }

    /// Without a name of its own a sync's group is named after its environment.
    fn follows_environment(&self, config: &Map) -> bool {
        text(config, "variableGroupName").is_none()
    }

    fn connect(&self, connection: ResolvedConnection, memory: Arc<dyn Memory>) -> Result<Arc<dyn Session>, ApiError> {
        Ok(Arc::new(session::DevOpsSession::new(&connection, memory)?))
    }
}

/// Why a text is neither the id nor the name of a project. Microsoft: "Naming restrictions and
/// conventions", project names.
fn no_project(text: &str) -> Option<String> {
    const NEVER: &str = "\\/:*?\"<>|;#${},+=[]";
    if let Some(bad) = text.chars().find(|c| c.is_control() || NEVER.contains(*c)) {
        return Some(format!("{bad:?} is not allowed in it"));
    }
    if text.starts_with('_') {
        return Some("it does not begin with an underscore".into());
    }
    (text.starts_with('.') || text.ends_with('.')).then(|| "it neither begins nor ends with a full stop".to_string())
}

/// A filled text of a configuration.
fn text<'m>(config: &'m Map, field: &str) -> Option<&'m str> {
    config.get(field).and_then(serde_json::Value::as_str).map(str::trim).filter(|t| !t.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Map {
        serde_json::from_str(text).expect("an object")
    }

    #[test]
    fn the_documented_configuration_is_accepted_and_the_project_is_required() {
        let mut problems = Problems::default();
        let seed = config(r#"{"devopsProjectId": "12345678-90ab-cdef-1234-567890abcdef", "devopsProjectName": "example-project"}"#);
        AzureDevOps.check(&seed, &SyncOptions::default(), &mut problems);
        assert!(problems.is_empty(), "{problems}");
        assert_eq!(AzureDevOps.label(&seed), "DevOps example-project");
        AzureDevOps.check(&config(r#"{"devopsProjectId": "", "variableGroupName": 3}"#), &SyncOptions::default(), &mut problems);
        assert!(problems.of("destinationConfig.devopsProjectId").is_some());
        assert!(problems.of("destinationConfig.variableGroupName").is_some());
        for (project, fits) in [
            ("Fabrikam Fiber 1.2", true),
            ("ünï & co (EU)", true),
            (".", false),
            ("..", false),
            ("a/b", false),
            ("a\nb", false),
            ("_apis", false),
            ("a?b", false),
            ("a.", false),
        ] {
            let mut problems = Problems::default();
            AzureDevOps.check(
                &serde_json::json!({"devopsProjectId": project}).as_object().cloned().expect("an object"),
                &SyncOptions::default(),
                &mut problems,
            );
            let rule = problems.0.first().map(|p| (p.field.as_str(), p.rule.as_str()));
            assert_eq!(rule, (!fits).then_some(("destinationConfig.devopsProjectId", "project")), "{project}");
        }
    }

    #[test]
    fn overlap_is_by_project_and_group() {
        let plain = config(r#"{"devopsProjectId": "A"}"#);
        let named = config(r#"{"devopsProjectId": "a", "variableGroupName": "X"}"#);
        assert!(AzureDevOps.overlaps(&plain, &plain));
        assert!(!AzureDevOps.overlaps(&plain, &named));
        assert!(AzureDevOps.overlaps(&named, &config(r#"{"devopsProjectId": "A", "variableGroupName": "x"}"#)));
        assert!(!AzureDevOps.overlaps(&plain, &config(r#"{"devopsProjectId": "B"}"#)));
        assert!(AzureDevOps.follows_environment(&plain) && !AzureDevOps.follows_environment(&named));
    }
}
