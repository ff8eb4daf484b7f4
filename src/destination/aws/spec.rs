//! What the AWS Secrets Manager destination is, as data: words, forms, connection methods.

use crate::destination::Spec;
use crate::destination::form::{Field, Input};
use crate::model::Problems;
use crate::model::connection::{AppSpec, Connection, ConnectionMethod, ConnectionSetting, Credential, CredentialField};

/// The word under which requests are counted and errors are signed.
pub const SERVICE: &str = "aws";

/// Every key a secret of its own.
pub const ONE_TO_ONE: &str = "one-to-one";
/// All keys in one secret, as a JSON object.
pub const MANY_TO_ONE: &str = "many-to-one";

/// Public regions, offered by the form; any other text of the region pattern is accepted too.
pub const REGIONS: &[&str] = &[
    "us-east-1",
    "us-east-2",
    "us-west-1",
    "us-west-2",
    "af-south-1",
    "ap-east-1",
    "ap-east-2",
    "ap-northeast-1",
    "ap-northeast-2",
    "ap-northeast-3",
    "ap-south-1",
    "ap-south-2",
    "ap-southeast-1",
    "ap-southeast-2",
    "ap-southeast-3",
    "ap-southeast-4",
    "ap-southeast-5",
    "ap-southeast-6",
    "ap-southeast-7",
    "ca-central-1",
    "ca-west-1",
    "eu-central-1",
    "eu-central-2",
    "eu-north-1",
    "eu-south-1",
    "eu-south-2",
    "eu-west-1",
    "eu-west-2",
    "eu-west-3",
    "il-central-1",
    "me-central-1",
    "me-south-1",
    "mx-central-1",
    "sa-east-1",
    "cn-north-1",
    "cn-northwest-1",
    "us-gov-east-1",
    "us-gov-west-1",
    "eusc-de-east-1",
];

/// The destination as data.
pub static SPEC: Spec = Spec {
    kind: "aws-secrets-manager",
    title: "AWS Secrets Manager",
    short: "AWS",
    service: SERVICE,
    app: &APP,
    import_note: None,
    config: CONFIG,
    options: OPTIONS,
    notes: &[
        "The connection needs secretsmanager:ListSecrets and BatchGetSecretValue on \"*\" (one-to-one), and Describe, Get, Create, Put, Update, \
         Delete, Restore, Tag and Untag on the secrets themselves.",
        "Removed secrets are scheduled for deletion with a recovery window and are restored when the key comes back.",
    ],
};

const CONFIG: &[Field] = &[
    Field::text("region", "Region", "The AWS region to deploy secrets to.").input(Input::Suggest(REGIONS)).default("us-east-1"),
    Field::text("mappingBehavior", "Mapping Behavior", "Specify how Hanzo KMS should map secrets to AWS Secrets Manager:")
        .input(Input::Choice(&[
            (ONE_TO_ONE, "One-To-One", "Each Hanzo KMS secret will be mapped to a separate AWS Secrets Manager secret."),
            (MANY_TO_ONE, "Many-To-One", "All Hanzo KMS secrets will be mapped to a single AWS Secrets Manager secret."),
        ]))
        .default(ONE_TO_ONE),
    Field::text("secretName", "Secret Name", "Specifies the name of the AWS Secret to map secrets to if Many-To-One mapping behavior is selected.")
        .only_if("mappingBehavior", MANY_TO_ONE),
];

const OPTIONS: &[Field] = &[
    Field::text("keyId", "KMS Key", "The AWS KMS key ID or alias to encrypt secrets with.").optional(),
    Field::text("tags", "Tags", "Optional tags to add to secrets synced by Hanzo KMS.").input(Input::Pairs).optional(),
    Field::text(
        "syncSecretMetadataAsTags",
        "Sync Secret Metadata as Tags",
        "If enabled, metadata attached to secrets will be added as tags to secrets synced by Hanzo KMS. Manually configured tags from the Tags \
         field will take precedence over secret metadata when tag keys conflict.",
    )
    .input(Input::Flag)
    .optional()
    .only_if("mappingBehavior", ONE_TO_ONE),
    Field::text(
        "recoveryWindowDays",
        "Recovery Window (days)",
        "How long AWS keeps a removed secret before it is gone for good. Until then it can be restored.",
    )
    .input(Input::Number { min: 7, max: 30 })
    .optional()
    .default("30"),
    Field::text(
        "forceDelete",
        "Delete Without Recovery",
        "If enabled, removed secrets are deleted at once and can never be restored. Leave it off unless names must be free again immediately.",
    )
    .input(Input::Flag)
    .optional(),
];

const fn credential(name: &'static str, label: &'static str, required: bool, secret: bool, help: &'static str) -> CredentialField {
    CredentialField { name, label, required, secret, multiline: false, help }
}

/// Connections to AWS.
pub static APP: AppSpec = AppSpec {
    app: "aws",
    title: "AWS",
    aliases: &["aws-secrets-manager"],
    methods: &[
        ConnectionMethod {
            name: "access-key",
            label: "Access Key",
            fields: &[
                credential(
                    "accessKeyId",
                    "Access Key ID",
                    true,
                    false,
                    "The id of an access key of an IAM user, AKIA… (or ASIA… with a session token).",
                ),
                credential("secretAccessKey", "Secret Access Key", true, true, "The secret that belongs to the access key id."),
                credential("sessionToken", "Session Token", false, true, "Only for temporary keys (ASIA…)."),
            ],
        },
        ConnectionMethod {
            name: "assume-role",
            label: "Assume Role",
            fields: &[
                credential("roleArn", "Role ARN", true, false, "The role to assume, arn:aws:iam::123456789012:role/NAME."),
                credential("externalId", "External ID", false, false, "Only when the role's trust policy asks for one."),
                credential("sessionName", "Session Name", false, false, "Shown in CloudTrail; kms-sync when empty."),
                credential("durationSeconds", "Duration (seconds)", false, false, "900 to 43200; empty leaves it to AWS (one hour)."),
                credential("profile", "Profile", false, false, "The profile of the base credentials; the default chain when empty."),
            ],
        },
        ConnectionMethod {
            name: "default-chain",
            label: "Default Credential Chain",
            fields: &[credential(
                "profile",
                "Profile",
                false,
                false,
                "A profile of ~/.aws/config. Empty: environment, profile files, SSO, web identity, container, instance metadata.",
            )],
        },
    ],
    settings: &[
        ConnectionSetting {
            name: "endpoint",
            label: "Endpoint",
            url: true,
            help: "Where Secrets Manager answers, for emulators and private endpoints; empty means AWS. Requests there start unpaced.",
        },
        ConnectionSetting { name: "stsEndpoint", label: "STS Endpoint", url: true, help: "Where STS answers, when it is not the endpoint above." },
    ],
    check: check_connection,
};

/// The text of a credential that stands in the document itself.
fn literal<'c>(connection: &'c Connection, field: &str) -> Option<&'c str> {
    match connection.credentials.get(field)? {
        Credential::Literal(secret) => Some(secret.expose().trim()),
        Credential::Plain(text) => Some(text.trim()),
        _ => None,
    }
}

fn check_connection(connection: &Connection, problems: &mut Problems) {
    if let Some(id) = literal(connection, "accessKeyId")
        && let Err(why) = access_key_id(id, connection.credentials.contains_key("sessionToken"))
    {
        problems.add("credentials.accessKeyId", "access-key-id", why);
    }
    for (field, rule) in ROLE_RULES {
        if let Some(text) = literal(connection, field)
            && let Err(why) = rule(text)
        {
            problems.add(format!("credentials.{field}"), "format", format!("credentials.{field} {why}."));
        }
    }
}

type TextRule = fn(&str) -> Result<(), String>;

/// Limits of the STS API's AssumeRole.
const ROLE_RULES: &[(&str, TextRule)] = &[
    ("roleArn", role_arn),
    ("externalId", |t| limited(t, 2, 1224, "_+=,.@:/-")),
    ("sessionName", |t| limited(t, 2, 64, "_+=,.@-")),
    ("durationSeconds", |t| match t.parse::<u32>() {
        Ok(900..=43_200) => Ok(()),
        _ => Err("must be a whole number from 900 to 43200".into()),
    }),
];

fn limited(text: &str, min: usize, max: usize, signs: &str) -> Result<(), String> {
    let fits = text.chars().all(|c| c.is_ascii_alphanumeric() || signs.contains(c));
    if fits && (min..=max).contains(&text.len()) { Ok(()) } else { Err(format!("must be {min} to {max} letters, digits and {signs}")) }
}

fn role_arn(text: &str) -> Result<(), String> {
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    match parts.as_slice() {
        ["arn", partition, "iam", "", account, resource]
            if partition.starts_with("aws") && account.len() == 12 && resource.starts_with("role/") && text.len() <= 2048 =>
        {
            Ok(())
        }
        _ => Err("must be a role's ARN such as arn:aws:iam::123456789012:role/NAME".into()),
    }
}

/// The offline rules for an access key id (16 to 128 word characters; `ASIA…` needs a token).
pub fn access_key_id(id: &str, has_token: bool) -> Result<(), String> {
    if !(16..=128).contains(&id.len()) || !id.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        // Emulators take any text, so only what could never be signed with is refused.
        if id.is_empty() || id.len() > 128 || !id.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c)) {
            return Err("credentials.accessKeyId must be letters, digits and _ (an AWS key id has 16 to 128 of them).".into());
        }
    }
    if id.starts_with("ASIA") && !has_token {
        return Err("credentials.accessKeyId is a temporary key (ASIA…): give its sessionToken too.".into());
    }
    Ok(())
}

/// The partition a region belongs to, as ARNs write it.
pub fn partition(region: &str) -> &'static str {
    const PREFIXES: &[(&str, &str)] =
        &[("cn-", "aws-cn"), ("us-gov-", "aws-us-gov"), ("eusc-", "aws-eusc"), ("us-iso-", "aws-iso"), ("us-isob-", "aws-iso-b")];
    PREFIXES.iter().find(|(prefix, _)| region.starts_with(prefix)).map_or("aws", |(_, partition)| partition)
}

/// The API's own pattern for regions: `^([a-z]+-)+\d+$`.
pub fn is_region(text: &str) -> bool {
    let mut parts: Vec<&str> = text.split('-').collect();
    let number = parts.pop().unwrap_or_default();
    !parts.is_empty()
        && !number.is_empty()
        && number.bytes().all(|b| b.is_ascii_digit())
        && parts.iter().all(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_by_pattern() {
        assert!(REGIONS.iter().all(|r| is_region(r)));
        for (text, fits) in
            [("xx-new-9", true), ("us-gov-east-1", true), ("us", false), ("us-east", false), ("US-east-1", false), ("-1", false), ("a--1", false)]
        {
            assert_eq!(is_region(text), fits, "{text}");
        }
        assert_eq!(partition("cn-north-1"), "aws-cn");
        assert_eq!(partition("us-gov-west-1"), "aws-us-gov");
        assert_eq!(partition("eu-west-1"), "aws");
    }

    #[test]
    fn keys_and_roles_are_checked_offline() {
        assert!(access_key_id("AKIAIOSFODNN7EXAMPLE", false).is_ok());
        assert!(access_key_id("ASIAIOSFODNN7EXAMPLE", false).is_err());
        assert!(access_key_id("ASIAIOSFODNN7EXAMPLE", true).is_ok());
        assert!(access_key_id("test", false).is_ok());
        assert!(access_key_id("a b", false).is_err());
        assert!(role_arn("arn:aws-cn:iam::123456789012:role/x").is_ok());
        assert!(role_arn("arn:aws:iam::1234:role/x").is_err());
        assert!(role_arn("arn:aws:iam::123456789012:user/x").is_err());
    }
}
