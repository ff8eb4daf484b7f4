//! The forms of the four steps, in the dashboard's order and words: the fixed fields, and those
//! that a destination's [`Spec`] adds.

use crate::destination::Spec;
use crate::destination::form::{Field, Input};
use crate::tui::form::{Form, Item, Kind, Opt};

const ENVIRONMENT: &str = "The project environment to retrieve secrets from.";
const PATH: &str = "The folder path to retrieve secrets from.";
/// Shown with the Source step.
pub const SOURCE_NOTE: &str =
    "If you need to sync secrets from multiple folder locations, use secret imports in Hanzo KMS: what a folder imports is synced with it.";
const SCHEMA: &str = "Template that determines how secret names are transformed when syncing, using {{secretKey}} as a placeholder for the original secret name and {{environment}} for the environment. We highly recommend using a Key Schema to ensure that Hanzo KMS only manages the specific keys you intend, keeping everything else untouched.";
const BEHAVIOR: &str = "Determines how Hanzo KMS should resolve the initial sync.";
const OVERWRITE: &str = "Removes any secrets at the destination endpoint not present in Hanzo KMS.";
const AUTO: &str =
    "If enabled, secrets will automatically be synced from the source location when changes occur. Disable to enforce manual syncing only.";
const KEEP: &str = "If enabled, Hanzo KMS will not remove secrets from the sync destination. Enable this option if you intend to manage some secrets manually outside of Hanzo KMS.";

/// Source: account (shown when there are several), project, environment, path.
pub fn source() -> Form {
    let pick = |free| Kind::Pick { free };
    let mut items = vec![
        Item::new("sourceConnection", "KMS Account", "The Hanzo KMS account to read from.", pick(false)),
        Item::new("projectId", "Project", "The Hanzo KMS project that holds the secrets.", pick(true)),
        Item::new("environment", "Environment", ENVIRONMENT, pick(true)),
        Item::new("secretPath", "Secret Path", PATH, Kind::Path).with("/"),
    ];
    for item in &mut items {
        item.placeholder = "not chosen yet".into();
    }
    Form::new(items)
}

/// Destination: the connection and the fields of the kind.
pub fn destination(spec: &'static Spec) -> Form {
    let label = format!("{} Connection", spec.app.title);
    let mut connection = Item::new("connectionId", &label, format!("The {label} to authenticate with."), Kind::Pick { free: false });
    connection.placeholder = "not chosen yet".into();
    Form::new(std::iter::once(connection).chain(spec.config.iter().map(|f| item("destinationConfig", f))).collect())
}

/// Sync Options: those of every sync, with the kind's own in between.
pub fn options(spec: &'static Spec) -> Form {
    let opt = |value: &str, label: String, help: String| Opt { value: value.into(), label, help };
    let mut behaviors = vec![opt("overwrite-destination", "Overwrite Destination Secrets".into(), OVERWRITE.into())];
    if spec.can_import() {
        for (value, winner, loser) in
            [("import-prioritize-source", "Hanzo KMS", spec.title), ("import-prioritize-destination", spec.title, "Hanzo KMS")]
        {
            behaviors.push(opt(
                value,
                format!("Import Secrets (Prioritize {winner})"),
                format!(
                    "Imports secrets from the destination endpoint before syncing, prioritizing values from {winner} over {loser} when keys conflict."
                ),
            ));
        }
    }
    let mut items = vec![
        Item::new("syncOptions.initialSyncBehavior", "Initial Sync Behavior", BEHAVIOR, Kind::Choice(behaviors)),
        Item::new("syncOptions.keySchema", "Key Schema", SCHEMA, Kind::Line).optional(),
    ];
    items.extend(spec.options.iter().map(|f| item("syncOptions", f)));
    items.push(Item::new("isEnabled", "Auto-Sync Enabled", AUTO, Kind::Flag).on(true));
    items.push(Item::new("syncOptions.disableSecretDeletion", "Disable Secret Deletion", KEEP, Kind::Flag));
    Form::new(items)
}

/// Details: name and description.
pub fn details() -> Form {
    Form::new(vec![
        Item::new("name", "Name", "The name of your sync. Must be slug-friendly.", Kind::Line),
        Item::new("description", "Description", "An optional description for your sync.", Kind::Area).optional(),
    ])
}

fn item(prefix: &str, field: &'static Field) -> Item {
    let kind = match field.input {
        Input::Text => Kind::Line,
        Input::Live { .. } | Input::Suggest(_) => Kind::Pick { free: true },
        Input::Choice(options) => Kind::Choice(
            options.iter().map(|(value, label, help)| Opt { value: (*value).into(), label: (*label).into(), help: (*help).into() }).collect(),
        ),
        Input::Flag => Kind::Flag,
        Input::Number { min, max } => Kind::Number { min, max },
        Input::Pairs => Kind::Area,
    };
    let mut item = Item::new(format!("{prefix}.{}", field.name), field.label, field.help, kind);
    if matches!(field.input, Input::Pairs) {
        item.help = format!("{} One key=value a line.", field.help);
    }
    item.required = field.required;
    item.placeholder = if field.required { "not filled in yet".into() } else { "(none)".into() };
    item.none_listed = field.none_listed;
    item.when_refused = field.when_refused;
    if let Some(default) = field.default {
        item.set(default);
    }
    item
}

/// The field description behind an item of the Destination or Sync Options step.
pub fn field_of(spec: &'static Spec, id: &str) -> Option<&'static Field> {
    let (prefix, name) = id.split_once('.')?;
    let fields = if prefix == "destinationConfig" { spec.config } else { spec.options };
    fields.iter().find(|f| f.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::destination::registry;

    /// The documentation pages list these, in this order; the kind's own stand between them.
    #[test]
    fn the_options_step_has_the_pages_rows() {
        for (kind, own) in [
            ("aws-secrets-manager", &["KMS Key", "Tags", "Sync Secret Metadata as Tags", "Recovery Window (days)", "Delete Without Recovery"][..]),
            ("azure-key-vault", &["Leave Certificates Alone", "Ownership Tag"]),
            ("azure-devops", &[]),
            ("bitbucket", &[]),
            ("oci-vault", &["Deletion Window", "Prune Versions"]),
        ] {
            let form = options(registry::find(kind).expect("a kind").spec());
            let labels: Vec<&str> = form.items.iter().map(|i| i.label.as_str()).collect();
            let shared = [&["Initial Sync Behavior", "Key Schema"], own, &["Auto-Sync Enabled", "Disable Secret Deletion"]].concat();
            assert_eq!(labels, shared, "{kind}");
        }
    }

    #[test]
    fn an_initial_sync_is_offered_in_the_pages_ways() {
        for (kind, title) in [
            ("aws-secrets-manager", Some("AWS Secrets Manager")),
            ("azure-key-vault", Some("Azure Key Vault")),
            ("azure-devops", None),
            ("bitbucket", None),
            ("oci-vault", Some("OCI Vault")),
        ] {
            let form = options(registry::find(kind).expect("a kind").spec());
            let Kind::Choice(ways) = &form.items[0].kind else { panic!("{kind}: no choice") };
            let offered: Vec<_> = ways.iter().map(|w| (w.value.as_str(), w.label.as_str())).collect();
            let theirs = title.map(|t| format!("Import Secrets (Prioritize {t})"));
            let mut named = vec![("overwrite-destination", "Overwrite Destination Secrets")];
            if let Some(theirs) = &theirs {
                named.push(("import-prioritize-source", "Import Secrets (Prioritize Hanzo KMS)"));
                named.push(("import-prioritize-destination", theirs));
            }
            assert_eq!(offered, named, "{kind}");
        }
    }
}
