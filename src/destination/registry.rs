//! The list of destinations: the one place outside their modules that names them.

use super::Provider;
use crate::model::connection::AppSpec;
use crate::model::sync::{KindRules, SyncOptions};
use crate::model::{Map, Problems};

/// Every destination, in the order the wizard offers them.
pub static ALL: &[&dyn Provider] =
    &[&super::aws::AWS, &super::azure_key_vault::PROVIDER, &super::azure_devops::AzureDevOps, &super::bitbucket::Bitbucket, &super::oci::OciVault];

/// The provider of a kind.
pub fn find(kind: &str) -> Option<&'static dyn Provider> {
    ALL.iter().copied().find(|p| p.spec().kind == kind)
}

/// The provider that uses an app's connections.
pub fn of_app(app: &str) -> Option<&'static dyn Provider> {
    ALL.iter().copied().find(|p| p.spec().app.app == app)
}

/// All kinds' words.
pub fn kinds() -> Vec<&'static str> {
    ALL.iter().map(|p| p.spec().kind).collect()
}

/// An app by its word or an alias, the KMS included.
pub fn app(word: &str) -> Option<&'static AppSpec> {
    apps().into_iter().find(|a| a.app == word || a.aliases.contains(&word))
}

/// All apps, the KMS first.
pub fn apps() -> Vec<&'static AppSpec> {
    std::iter::once(&crate::source::APP).chain(ALL.iter().map(|p| p.spec().app)).collect()
}

/// The rules of a kind, for parsing sync documents.
pub fn rules(kind: &str) -> Option<&'static dyn KindRules> {
    RULES.get_or_init(|| ALL.iter().map(|p| Rules(*p)).collect()).iter().find(|r| r.kind() == kind).map(|r| r as &dyn KindRules)
}

static RULES: std::sync::OnceLock<Vec<Rules>> = std::sync::OnceLock::new();

struct Rules(&'static dyn Provider);

impl KindRules for Rules {
    fn kind(&self) -> &'static str {
        self.0.spec().kind
    }

    fn import_refusal(&self) -> Option<&'static str> {
        self.0.spec().import_note
    }

    fn config_fields(&self) -> Vec<&'static str> {
        members(self.0.spec().config)
    }

    fn option_fields(&self) -> Vec<&'static str> {
        members(self.0.spec().options)
    }

    fn check(&self, config: &Map, options: &SyncOptions, problems: &mut Problems) {
        self.0.check(config, options, problems);
    }
}

fn members(fields: &'static [super::form::Field]) -> Vec<&'static str> {
    fields.iter().flat_map(|f| std::iter::once(f.name).chain(f.label_into)).collect()
}
