//! The documentation page of each kind of sync: the fields it names are offered, in its order and
//! words, and no others but those named here as ours; what it warns of is said.

use super::form::Field;
use super::registry;

/// A member, its label, and how its help begins.
type Row = (&'static str, &'static str, &'static str);

struct Page {
    kind: &'static str,
    title: &'static str,
    /// The page's sentence where it lists one way of an initial sync only.
    import: Option<&'static str>,
    config: &'static [Row],
    options: &'static [Row],
    /// Fields that no page has.
    our_config: &'static [(&'static str, &'static str)],
    our_options: &'static [(&'static str, &'static str)],
    /// Parts of notes.
    said: &'static [&'static str],
}

const PAGES: &[Page] = &[
    Page {
        kind: "aws-secrets-manager",
        title: "AWS Secrets Manager",
        import: None,
        config: &[
            ("region", "Region", "The AWS region to deploy secrets to."),
            ("mappingBehavior", "Mapping Behavior", "Specify how Hanzo KMS should map secrets to AWS Secrets Manager:"),
            ("secretName", "Secret Name", "Specifies the name of the AWS Secret to map secrets to if Many-To-One mapping behavior is selected."),
        ],
        options: &[
            ("keyId", "KMS Key", "The AWS KMS key ID or alias to encrypt secrets with."),
            ("tags", "Tags", "Optional tags to add to secrets synced by Hanzo KMS."),
            (
                "syncSecretMetadataAsTags",
                "Sync Secret Metadata as Tags",
                "If enabled, metadata attached to secrets will be added as tags to secrets synced by Hanzo KMS. \
                 Manually configured tags from the Tags field will take precedence over secret metadata when tag keys conflict.",
            ),
        ],
        our_config: &[],
        our_options: &[("recoveryWindowDays", "Recovery Window (days)"), ("forceDelete", "Delete Without Recovery")],
        said: &[],
    },
    Page {
        kind: "azure-key-vault",
        title: "Azure Key Vault",
        import: None,
        config: &[("vaultBaseUrl", "Vault Base URL", "The URL of your Azure Key Vault.")],
        options: &[],
        our_config: &[],
        our_options: &[("disableCertificateImport", "Leave Certificates Alone"), ("ownershipTag", "Ownership Tag")],
        said: &[
            "Secrets in Hanzo KMS that contain an underscore (_) will be converted to a hyphen (-) when synced to Azure Key Vault.",
            "these secrets permissions: secrets/list, secrets/get, secrets/set, secrets/recover",
            "Any role with these permissions would work, such as the Key Vault Secrets Officer role.",
        ],
    },
    Page {
        kind: "azure-devops",
        title: "Azure DevOps",
        import: Some("Azure Devops does not support importing secrets."),
        config: &[("devopsProjectId", "Project", "The Azure DevOps project to deploy secrets to.")],
        options: &[],
        our_config: &[("variableGroupName", "Variable Group")],
        our_options: &[],
        said: &[],
    },
    Page {
        kind: "bitbucket",
        title: "Bitbucket",
        import: Some("Bitbucket does not support importing secrets."),
        config: &[
            ("workspaceSlug", "Workspace", "The Bitbucket workspace to sync secrets to."),
            ("repositorySlug", "Repository", "The Bitbucket repository to sync secrets to."),
            ("environmentId", "Deployment Environment (Optional)", "The Bitbucket deployment environment to sync secrets to."),
        ],
        options: &[],
        our_config: &[],
        our_options: &[],
        said: &[],
    },
    Page {
        kind: "oci-vault",
        title: "OCI Vault",
        import: None,
        config: &[
            ("compartmentOcid", "Compartment", "The compartment where the vault is located."),
            ("vaultOcid", "Vault", "The vault to sync secrets to."),
            ("keyOcid", "Encryption Key", "The encryption key to use when creating secrets in the vault."),
        ],
        options: &[],
        our_config: &[],
        our_options: &[("deletionDays", "Deletion Window"), ("pruneVersions", "Prune Versions")],
        said: &["a deleted secret that returns is brought back, which can take up to a minute."],
    },
];

#[track_caller]
fn offers(kind: &str, fields: &[Field], page: &[Row], ours: &[(&str, &str)]) {
    let offered: Vec<_> = fields.iter().map(|f| (f.name, f.label)).collect();
    let named: Vec<_> = page.iter().map(|(name, label, _)| (*name, *label)).chain(ours.iter().copied()).collect();
    assert_eq!(offered, named, "{kind}");
    for (field, (name, _, help)) in fields.iter().zip(page) {
        assert!(field.help.starts_with(help), "{kind}.{name}: {}", field.help);
    }
}

#[test]
fn every_kind_offers_what_its_page_lists_and_what_is_named_as_ours() {
    assert_eq!(registry::kinds(), PAGES.iter().map(|p| p.kind).collect::<Vec<_>>());
    for page in PAGES {
        let spec = registry::find(page.kind).expect("a kind").spec();
        assert_eq!(spec.title, page.title);
        offers(page.kind, spec.config, page.config, page.our_config);
        offers(page.kind, spec.options, page.options, page.our_options);
        // No field of ours stands in the way of who follows the page.
        for (name, _) in page.our_config.iter().chain(page.our_options) {
            let field = spec.config.iter().chain(spec.options).find(|f| f.name == *name).expect("a field");
            assert!(!field.required, "{}.{name}", page.kind);
        }
    }
}

#[test]
fn every_kind_says_what_its_page_warns_of() {
    for page in PAGES {
        let spec = registry::find(page.kind).expect("a kind").spec();
        for sentence in page.said {
            assert!(spec.notes.iter().any(|n| n.contains(sentence)), "{}: {sentence:?} is not in {:#?}", page.kind, spec.notes);
        }
    }
}

/// One sentence wherever an import is asked for: here where the wizard and the engine take it
/// from, and in the refusal of a document.
#[test]
fn an_import_is_refused_in_the_pages_words() {
    for page in PAGES {
        let spec = registry::find(page.kind).expect("a kind").spec();
        assert_eq!((spec.import_note, spec.can_import()), (page.import, page.import.is_none()), "{}", page.kind);
        let document = serde_json::json!({"name": "x", "destination": page.kind, "syncOptions": {"initialSyncBehavior": "import-prioritize-source"}});
        let problems = crate::model::sync::SyncConfig::parse(&document, None, registry::rules, &registry::kinds()).expect_err("the rest is missing");
        assert_eq!(problems.of("syncOptions.initialSyncBehavior"), page.import, "{}", page.kind);
    }
}
