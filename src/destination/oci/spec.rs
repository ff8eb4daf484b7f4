//! The provider as data: connection methods, the Destination step, options, sentences.

use super::super::Spec;
use super::super::form::{Field, Input};
use super::key;
use crate::model::Problems;
use crate::model::connection::{AppSpec, Connection, ConnectionMethod, ConnectionSetting, Credential, CredentialField};

const fn plain(name: &'static str, label: &'static str, required: bool, help: &'static str) -> CredentialField {
    CredentialField { name, label, required, secret: false, multiline: false, help }
}

const fn endpoint(name: &'static str, label: &'static str, help: &'static str) -> ConnectionSetting {
    ConnectionSetting { name, label, url: true, help }
}

/// Connections to Oracle Cloud.
pub(super) static APP: AppSpec = AppSpec {
    app: "oci",
    title: "OCI",
    aliases: &["oracle", "oci-vault"],
    methods: &[
        ConnectionMethod {
            name: "access-key",
            label: "API key",
            fields: &[
                plain("userOcid", "User OCID", true, "ocid1.user.oc1..…, shown on the user's page in the OCI Console."),
                plain("tenancyOcid", "Tenancy OCID", true, "ocid1.tenancy.oc1..…, shown under Tenancy details."),
                plain("region", "Region", true, "The vault's region, such as eu-frankfurt-1; the three-letter code (fra) does too."),
                plain("fingerprint", "Fingerprint", true, "The API key's fingerprint, 16 hex pairs joined by colons."),
                CredentialField {
                    name: "privateKey",
                    label: "Private Key PEM",
                    required: true,
                    secret: true,
                    multiline: true,
                    help: "The API key's private half: PKCS#1 or PKCS#8, plain or encrypted, at least 2048 bits.",
                },
                CredentialField {
                    name: "passphrase",
                    label: "Passphrase",
                    required: false,
                    secret: true,
                    multiline: false,
                    help: "Only for an encrypted private key.",
                },
            ],
        },
        ConnectionMethod {
            name: "config-file",
            label: "OCI config file",
            fields: &[
                plain("path", "File", false, "Empty means $OCI_CONFIG_FILE, then ~/.oci/config."),
                plain("profile", "Profile", false, "A section of the file; empty means DEFAULT."),
            ],
        },
    ],
    settings: &[
        endpoint("endpoint", "Endpoint", "One address for all five services, for emulators; the fields below win over it."),
        endpoint("identityEndpoint", "Identity endpoint", "Users and compartments; the version path is added."),
        endpoint("kmsVaultEndpoint", "KMS vault endpoint", "The list of vaults."),
        endpoint("kmsManagementEndpoint", "KMS management endpoint", "The keys; empty means what each vault names."),
        endpoint("vaultEndpoint", "Vault endpoint", "Secrets without values."),
        endpoint("secretsEndpoint", "Secrets endpoint", "Secret values."),
    ],
    check: check_connection,
};

/// Rules between the fields of a connection, as far as the texts are at hand (a reference is
/// read at use).
fn check_connection(connection: &Connection, problems: &mut Problems) {
    let plain = |name: &str| match connection.credentials.get(name) {
        Some(Credential::Plain(text)) => Some(text.trim().to_string()),
        _ => None,
    };
    let secret = |name: &str| match connection.credentials.get(name) {
        Some(Credential::Literal(value)) => Some(value.clone()),
        _ => None,
    };
    for (field, kind) in [("userOcid", "user"), ("tenancyOcid", "tenancy")] {
        if let Some(why) = plain(field).and_then(|value| super::ocid::fault(&value, &[kind])) {
            problems.add(format!("credentials.{field}"), "ocid", format!("credentials.{field}: {why}."));
        }
    }
    if let Some(region) = plain("region")
        && let Some(bad) = region.chars().find(|c| !(c.is_ascii_alphanumeric() || "-.".contains(*c)))
    {
        problems.add("credentials.region", "region", format!("credentials.region is a name such as eu-frankfurt-1; {bad:?} is not allowed."));
    }
    // Where the operator names the hosts, the word may be an emulator's own.
    else if let Some(region) = plain("region").filter(|r| !r.is_empty() && !super::region::is_region(r))
        && !connection.settings.keys().any(|name| name.to_ascii_lowercase().ends_with("endpoint"))
    {
        let region = crate::model::text::brief(&region, 60);
        problems.add(
            "credentials.region",
            "region",
            format!("credentials.region is a name such as eu-frankfurt-1; {region:?} does not look like one."),
        );
    }
    let fingerprint = plain("fingerprint").map(|f| key::normalise(&f));
    if fingerprint == Some(None) {
        problems.add("credentials.fingerprint", "fingerprint", "credentials.fingerprint must be 16 hex pairs joined by colons.");
    }
    // An encrypted key whose passphrase is a reference can only be opened at use.
    let passphrase_elsewhere = connection.credentials.contains_key("passphrase") && secret("passphrase").is_none();
    if let Some(pem) = secret("privateKey")
        && !passphrase_elsewhere
    {
        match key::PrivateKey::load(pem.expose(), secret("passphrase").and_then(|p| key::passphrase(&p)).as_ref()) {
            Err(why) => problems.add("credentials.privateKey", "private-key", format!("credentials.privateKey: {why}.")),
            Ok(loaded) => {
                if let Some(Err(why)) = fingerprint.flatten().map(|said| key::match_fingerprint(&loaded, &said)) {
                    problems.add("credentials.fingerprint", "fingerprint", format!("credentials.fingerprint: {why}."));
                }
            }
        }
    }
}

/// The kind as data; labels and help are the dashboard's.
pub(super) static SPEC: Spec = Spec {
    kind: "oci-vault",
    title: "OCI Vault",
    short: "OCI",
    service: super::SERVICE,
    app: &APP,
    import_note: None,
    config: &[
        Field::text("compartmentOcid", "Compartment", "The compartment where the vault is located.").input(Input::Live { depends: &[] }),
        Field::text("vaultOcid", "Vault", "The vault to sync secrets to.")
            .input(Input::Live { depends: &["compartmentOcid"] })
            .none_listed("This compartment has no vaults: choose another compartment above, or type the vault's OCID."),
        Field::text("keyOcid", "Encryption Key", "The encryption key to use when creating secrets in the vault.")
            .input(Input::Live { depends: &["compartmentOcid", "vaultOcid"] })
            .none_listed("No AES key of this vault is listed here: create one, or type the OCID of one in another compartment."),
    ],
    options: &[
        Field::text(
            "deletionDays",
            "Deletion Window",
            "Days until a deleted secret is erased for good, 1 to 30; until then it can be brought back, and keeps its name.",
        )
        .input(Input::Number { min: 1, max: 30 })
        .default("7")
        .optional(),
        Field::text(
            "pruneVersions",
            "Prune Versions",
            "A secret holds 30 active versions. On: when one is full, its oldest deprecated version is scheduled for deletion in a day to make room; versions in use are never taken. Needs manage secret-versions.",
        )
        .input(Input::Flag)
        .optional(),
    ],
    notes: &[
        "Secret names may hold letters, digits, _ - and . (up to 255 characters); values up to 25 KB; empty values are skipped.",
        "Secrets between two states are waited for; a deleted secret that returns is brought back, which can take up to a minute.",
        "Policy: allow group G to manage secret-family, use keys and use vaults in the compartment, and to inspect compartments in tenancy.",
    ],
};
