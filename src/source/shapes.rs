//! The JSON of the KMS as far as it is read. Everything is optional that some generation of
//! the server leaves out; unknown members are ignored.

use serde::Deserialize;
use serde::de::{Deserializer, Visitor};

use super::{Environment, Project};
use crate::model::SecretValue;

/// A text that goes straight into wiped memory.
pub(super) struct Hidden(pub SecretValue);

impl<'de> Deserialize<'de> for Hidden {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Hidden;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a text")
            }
            fn visit_str<E>(self, text: &str) -> Result<Hidden, E> {
                Ok(Hidden(SecretValue::new(text)))
            }
            fn visit_string<E>(self, text: String) -> Result<Hidden, E> {
                Ok(Hidden(SecretValue::new(text)))
            }
        }
        deserializer.deserialize_string(Text)
    }
}

/// The answer of a secret list.
#[derive(Deserialize)]
pub(super) struct Listed {
    pub secrets: Vec<Row>,
    #[serde(default)]
    pub imports: Option<Vec<Block>>,
}

/// One secret of a list.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Row {
    pub secret_key: String,
    pub secret_value: Option<Hidden>,
    pub environment: Option<String>,
    pub secret_path: Option<String>,
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub skip_multiline_encoding: Option<bool>,
    pub secret_value_hidden: Option<bool>,
    pub secret_metadata: Option<Vec<Meta>>,
}

impl Row {
    /// Personal overrides never leave the KMS.
    pub fn shared(&self) -> bool {
        self.kind.as_deref().is_none_or(|k| k == "shared")
    }
}

#[derive(Deserialize)]
pub(super) struct Meta {
    pub key: String,
    pub value: Option<String>,
}

/// What one import link brings in.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Block {
    pub secret_path: Option<String>,
    pub environment: Option<String>,
    #[serde(default)]
    pub secrets: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Imports {
    #[serde(alias = "imports")]
    pub secret_imports: Vec<ImportRow>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ImportRow {
    pub import_path: Option<String>,
    pub import_env: Option<EnvironmentRow>,
    pub position: Option<i64>,
    pub is_replication: Option<bool>,
    pub folder_id: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Folders {
    pub folders: Vec<FolderRow>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FolderRow {
    pub id: Option<String>,
    pub name: String,
    pub parent_id: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct EnvironmentRow {
    pub id: Option<String>,
    pub slug: Option<String>,
    pub name: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ProjectRow {
    pub id: String,
    pub name: Option<String>,
    pub slug: Option<String>,
    #[serde(rename = "type")]
    pub kind: Option<String>,
    #[serde(default)]
    pub environments: Option<Vec<EnvironmentRow>>,
}

impl ProjectRow {
    /// Other kinds of projects (certificates, keys) hold no secrets.
    pub fn holds_secrets(&self) -> bool {
        self.kind.as_deref().is_none_or(|k| k == "secret-manager")
    }
}

impl From<ProjectRow> for Project {
    fn from(row: ProjectRow) -> Self {
        let environments = row.environments.unwrap_or_default().into_iter().filter_map(|e| {
            let slug = e.slug?;
            Some(Environment { name: e.name.unwrap_or_else(|| slug.clone()), slug, id: e.id })
        });
        Self { name: row.name.unwrap_or_else(|| row.id.clone()), id: row.id, slug: row.slug, environments: environments.collect() }
    }
}

/// A project with or without its envelope: builds differ.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum OneProject {
    Project { project: ProjectRow },
    Workspace { workspace: ProjectRow },
    Bare(ProjectRow),
}

impl From<OneProject> for ProjectRow {
    fn from(one: OneProject) -> Self {
        match one {
            OneProject::Project { project: row } | OneProject::Workspace { workspace: row } | OneProject::Bare(row) => row,
        }
    }
}

#[derive(Deserialize)]
pub(super) struct Projects {
    #[serde(alias = "workspaces")]
    pub projects: Vec<ProjectRow>,
}

#[derive(Deserialize, Clone)]
#[serde(rename_all = "camelCase")]
pub(super) struct ServiceToken {
    pub name: Option<String>,
    pub workspace: Option<String>,
    pub project_id: Option<String>,
    #[serde(default)]
    pub scopes: Vec<Scope>,
}

#[derive(Deserialize, Clone)]
#[serde(rename_all = "camelCase")]
pub(super) struct Scope {
    pub environment: String,
    pub secret_path: String,
}

/// A path as the server compares it: absolute, no trailing slash.
pub(super) fn tidy(path: &str) -> &str {
    match path.trim_end_matches('/') {
        "" => "/",
        path => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_generations_of_a_list_are_read() {
        let old = r#"{"secrets":[{"id":"1","_id":"1","workspace":"p","environment":"dev","version":1,"type":"shared",
            "secretKey":"A","secretValue":"v","secretComment":""}]}"#;
        let listed: Listed = serde_json::from_str(old).expect("old list");
        assert!(listed.imports.is_none() && listed.secrets[0].shared());
        let new = r#"{"secrets":[{"secretKey":"A","secretValue":null,"type":"personal","secretValueHidden":true,
            "secretMetadata":[{"key":"k","value":null,"isEncrypted":true}],"actor":{"actorId":null}}],"imports":[{"secretPath":"/s","environment":"dev"}]}"#;
        let listed: Listed = serde_json::from_str(new).expect("new list");
        assert!(!listed.secrets[0].shared() && listed.imports.is_some_and(|i| i[0].secrets.is_empty()));
    }

    #[test]
    fn a_project_comes_in_three_envelopes() {
        let bare = r#"{"id":"p","name":"P","slug":"p","environments":[{"id":"e","slug":"dev","name":"Development"}]}"#;
        for text in [bare.to_string(), format!(r#"{{"project":{bare}}}"#), format!(r#"{{"workspace":{bare}}}"#)] {
            let one: OneProject = serde_json::from_str(&text).expect("project");
            assert_eq!(Project::from(ProjectRow::from(one)).environments[0].name, "Development");
        }
    }
}
