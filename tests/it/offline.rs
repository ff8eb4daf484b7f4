//! Every rule about a member of a sync or a connection, for every destination and method:
//! refused offline, by the member's name and the rule's word.

use kms_sync::destination::registry;
use kms_sync::model::Problems;
use kms_sync::model::connection::Connection;
use kms_sync::model::sync::SyncConfig;
use serde_json::{Value, json};

use crate::support::rig::Rig;

const ID: &str = "3c90c3cc-0d44-4b50-8888-8dd25736052a";

fn sync(document: &Value, kind: &str) -> Result<SyncConfig, Problems> {
    SyncConfig::parse(document, Some(kind), registry::rules, &registry::kinds())
}

fn connection(document: &Value) -> Result<Connection, Problems> {
    let apps: Vec<&str> = registry::apps().iter().map(|a| a.app).collect();
    Connection::parse(document, registry::app, &apps)
}

/// Sets (or, by null, removes) a member by its dotted path.
fn with(document: &Value, path: &str, value: &Value) -> Value {
    let mut out = document.clone();
    let mut at = &mut out;
    let parts: Vec<&str> = path.split('.').collect();
    for part in &parts[..parts.len() - 1] {
        at = &mut at[*part];
    }
    at[parts[parts.len() - 1]] = value.clone();
    out
}

/// `destinationConfig` of the documented sample requests.
fn samples() -> Vec<(&'static str, Value)> {
    vec![
        ("aws-secrets-manager", json!({"region": "us-east-1", "mappingBehavior": "one-to-one"})),
        ("azure-key-vault", json!({"vaultBaseUrl": "https://my-key-vault.vault.azure.net"})),
        ("azure-devops", json!({"devopsProjectId": "12345678-90ab-cdef-1234-567890abcdef", "devopsProjectName": "example-project"})),
        ("bitbucket", json!({"workspaceSlug": "my-bitbucket-workspace", "repositorySlug": "my-bitbucket-repository"})),
        ("oci-vault", json!({"compartmentOcid": "...", "vaultOcid": "...", "keyOcid": "..."})),
    ]
}

fn sample(config: &Value) -> Value {
    json!({"name": "my-sync", "projectId": ID, "description": "an example sync", "connectionId": ID, "environment": "dev",
        "secretPath": "/my-secrets", "isEnabled": true, "syncOptions": {"initialSyncBehavior": "overwrite-destination"}, "destinationConfig": config})
}

/// Member, bad value, rule.
type Rule = (&'static str, Value, &'static str);

/// The rules of every sync.
fn of_every_sync() -> Vec<Rule> {
    vec![
        ("name", json!(""), "required"),
        ("name", json!(null), "required"),
        ("name", json!(5), "type"),
        ("name", json!("a b"), "slug"),
        ("name", json!("-a"), "slug"),
        ("name", json!("a--b"), "slug"),
        ("name", json!("a".repeat(257)), "max-length"),
        ("projectId", json!(""), "required"),
        ("projectId", json!(["x"]), "type"),
        ("projectId", json!(".."), "id"),
        ("projectId", json!("a/b"), "id"),
        ("description", json!("d".repeat(257)), "max-length"),
        ("connectionId", json!(""), "required"),
        ("environment", json!("Dev"), "slug"),
        ("environment", json!("e".repeat(65)), "max-length"),
        ("environment", json!(null), "required"),
        ("secretPath", json!("relative"), "absolute-path"),
        ("secretPath", json!("/a//b"), "path"),
        ("secretPath", json!("/a/../b"), "path"),
        ("isEnabled", json!("yes"), "type"),
        ("syncOptions", json!(null), "required"),
        ("syncOptions", json!([]), "type"),
        ("syncOptions.initialSyncBehavior", json!(null), "required"),
        ("syncOptions.initialSyncBehavior", json!("overwrite"), "choice"),
        ("syncOptions.keySchema", json!("NO_PLACEHOLDER"), "secret-key-placeholder"),
        ("syncOptions.keySchema", json!("{{secretKey}}{{secretKey}}"), "secret-key-placeholder"),
        ("syncOptions.keySchema", json!("a.{{secretKey}}"), "alphabet"),
        ("syncOptions.keySchema", json!("PIPELINE_${secretKey}"), "secret-key-placeholder"),
        ("syncOptions.keySchema", json!(format!("{}{{{{secretKey}}}}", "a".repeat(250))), "max-length"),
        ("syncOptions.disableSecretDeletion", json!("true"), "type"),
        ("syncOptions.includeAllSubFolders", json!(1), "type"),
        ("syncOptions.includeKeys", json!("DB_*"), "type"),
        ("syncOptions.disableSecretDeletoin", json!(true), "unknown-field"),
        ("destinationConfig", json!(null), "required"),
        ("destinationConfig.bogus", json!(1), "unknown-field"),
        ("bogus", json!(1), "unknown-field"),
    ]
}

/// The rules of one destination.
fn of_destination(kind: &str) -> Vec<Rule> {
    let pair = |key: &str, value: &str| json!([{"key": key, "value": value}]);
    match kind {
        "aws-secrets-manager" => vec![
            ("destinationConfig.region", json!(""), "required"),
            ("destinationConfig.region", json!("mars"), "region"),
            ("destinationConfig.mappingBehavior", json!("both"), "choice"),
            ("destinationConfig.secretName", json!("x"), "not-applicable"),
            ("syncOptions.keyId", json!(""), "min-length"),
            ("syncOptions.keyId", json!("a b"), "alphabet"),
            ("syncOptions.keyId", json!("bare"), "key-id"),
            ("syncOptions.tags", json!("a=b"), "type"),
            ("syncOptions.tags.0", json!([{"key": "a"}]), "type"),
            ("syncOptions.tags.0", pair("", "v"), "tag"),
            ("syncOptions.tags.0", pair(&"k".repeat(129), "v"), "tag"),
            ("syncOptions.tags.0", pair("k", &"v".repeat(257)), "tag"),
            ("syncOptions.tags.0", pair("k#", "v"), "tag"),
            ("syncOptions.tags", Value::Array((0..51).map(|i| json!({"key": format!("k{i}"), "value": ""})).collect()), "max-items"),
            ("syncOptions.syncSecretMetadataAsTags", json!("x"), "type"),
            ("syncOptions.recoveryWindowDays", json!(6), "range"),
        ],
        "azure-key-vault" => vec![
            ("destinationConfig.vaultBaseUrl", json!(""), "required"),
            ("destinationConfig.vaultBaseUrl", json!("x y"), "url"),
            ("destinationConfig.vaultBaseUrl", json!("http://abc.vault.azure.net"), "insecure-http"),
            ("syncOptions.disableCertificateImport", json!("x"), "type"),
        ],
        "azure-devops" => vec![
            ("destinationConfig.devopsProjectId", json!(""), "required"),
            ("destinationConfig.devopsProjectId", json!("."), "project"),
            ("destinationConfig.devopsProjectId", json!(".."), "project"),
            ("destinationConfig.devopsProjectId", json!("a/../b"), "project"),
            ("destinationConfig.devopsProjectName", json!(5), "type"),
            ("syncOptions.initialSyncBehavior", json!("import-prioritize-source"), "import-unsupported"),
        ],
        "bitbucket" => vec![
            ("destinationConfig.workspaceSlug", json!(""), "required"),
            ("destinationConfig.workspaceSlug", json!("a b"), "slug"),
            ("destinationConfig.workspaceSlug", json!(".."), "slug"),
            ("destinationConfig.repositorySlug", json!(".."), "slug"),
            ("destinationConfig.repositorySlug", json!(""), "required"),
            ("destinationConfig.repositorySlug", json!("other-workspace/repository"), "contradiction"),
            ("destinationConfig.environmentId", json!("{not a uuid}"), "uuid"),
            ("syncOptions.initialSyncBehavior", json!("import-prioritize-destination"), "import-unsupported"),
        ],
        "oci-vault" => {
            let mut all = vec![("syncOptions.deletionDays", json!(0), "range"), ("syncOptions.deletionDays", json!(31), "range")];
            for field in ["destinationConfig.compartmentOcid", "destinationConfig.vaultOcid", "destinationConfig.keyOcid"] {
                all.extend([(field, json!(""), "required"), (field, json!(7), "type")]);
                for bad in ["x", "....", "ocid1.user.oc1..a", "ocid1.vault", "a b"] {
                    all.push((field, json!(bad), "ocid"));
                }
            }
            all
        }
        _ => panic!("the rules of {kind} are not under test"),
    }
}

/// The document that breaks a rule: items of a list are named in reports, and the list is set.
fn broken(good: &Value, member: &str, value: &Value) -> Value {
    with(good, member.strip_suffix(".0").unwrap_or(member), value)
}

#[test]
fn every_rule_of_a_sync_names_its_member() {
    let known: Vec<&str> = samples().iter().map(|(k, _)| *k).collect();
    assert_eq!(known, registry::kinds());
    for (kind, config) in samples() {
        let good = sample(&config);
        sync(&good, kind).unwrap_or_else(|p| panic!("{kind}: the documented request: {p}"));
        for (member, value, rule) in of_every_sync().into_iter().chain(of_destination(kind)) {
            let problems = sync(&broken(&good, member, &value), kind).err().unwrap_or_default();
            let found: Vec<(&str, &str)> = problems.0.iter().map(|p| (p.field.as_str(), p.rule.as_str())).collect();
            assert!(found.contains(&(member, rule)), "{kind}: {member} = {value}: {found:?}");
        }
    }
}

fn methods() -> Vec<Value> {
    let of = |app: &str, method: &str, credentials: Value| json!({"name": "c", "app": app, "method": method, "credentials": credentials});
    vec![
        of("hanzo-kms", "universal-auth", json!({"clientId": ID, "clientSecret": "s"})),
        of("hanzo-kms", "token", json!({"token": "st.a.b.c"})),
        of("aws", "access-key", json!({"accessKeyId": "AKIAIOSFODNN7EXAMPLE", "secretAccessKey": "s"})),
        of("aws", "assume-role", json!({"roleArn": "arn:aws:iam::123456789012:role/x"})),
        of("aws", "default-chain", json!({})),
        of("azure-key-vault", "client-secret", json!({"tenantId": ID, "clientId": ID, "clientSecret": "s"})),
        of("azure-key-vault", "access-token", json!({"accessToken": "t"})),
        of("azure-key-vault", "az-cli", json!({})),
        of("azure-key-vault", "managed-identity", json!({})),
        of("azure-key-vault", "workload-identity", json!({})),
        of("azure-devops", "access-token", json!({"orgName": "contoso", "accessToken": "t"})),
        of(
            "azure-devops",
            "client-secret",
            json!({"orgName": "contoso", "tenantId": "contoso.onmicrosoft.com", "clientId": ID, "clientSecret": "s"}),
        ),
        of("azure-devops", "bearer-token", json!({"orgName": "contoso", "accessToken": "t"})),
        of("azure-devops", "az-cli", json!({"orgName": "contoso"})),
        of("bitbucket", "api-token", json!({"email": "ops@example.com", "apiToken": "t"})),
        of("bitbucket", "access-token", json!({"accessToken": "t"})),
        of("bitbucket", "oauth-client-credentials", json!({"clientId": "k", "clientSecret": "s"})),
        of("oci", "config-file", json!({})),
    ]
}

fn of_every_connection() -> Vec<Rule> {
    vec![
        ("name", json!(""), "required"),
        ("name", json!("A b"), "slug"),
        ("name", json!(5), "type"),
        ("id", json!("a/../b"), "alphabet"),
        ("app", json!("x"), "choice"),
        ("method", json!("x"), "choice"),
        ("description", json!("d".repeat(257)), "max-length"),
        ("caFile", json!(5), "type"),
        ("allowInsecureHttp", json!("yes"), "type"),
        ("credentials", json!("x"), "type"),
        ("credentials.bogus", json!("x"), "unknown-field"),
        ("bogus", json!(1), "unknown-field"),
    ]
}

/// The rules of one credential or setting, whatever method it belongs to.
fn of_member(app: &str) -> Vec<Rule> {
    let url = |member: &'static str| {
        [("x", "url"), ("ftp://h", "url"), ("http://example.com", "insecure-http"), ("https://u:p@h", "url"), ("https://h?x=1", "url")]
            .map(|(bad, rule)| (member, json!(bad), rule))
    };
    let mut all: Vec<Rule> = Vec::new();
    match app {
        "hanzo-kms" => {
            all.extend(url("baseUrl"));
            for member in ["credentials.clientId", "credentials.clientSecret", "credentials.token"] {
                all.extend([(member, json!(""), "required"), (member, json!("a b"), "white-space")]);
            }
            all.push(("credentials.organizationSlug", json!("a b"), "white-space"));
        }
        "aws" => {
            all.extend(url("endpoint"));
            all.extend(url("stsEndpoint"));
            all.extend([
                ("credentials.accessKeyId", json!("a b"), "access-key-id"),
                ("credentials.secretAccessKey", json!(""), "required"),
                ("credentials.secretAccessKey", json!(5), "credential"),
                ("credentials.secretAccessKey", json!({"env": ""}), "credential"),
                ("credentials.secretAccessKey", json!({"command": [""]}), "credential"),
                ("credentials.secretAccessKey", json!({"env": "A", "file": "b"}), "credential"),
                ("credentials.secretAccessKey", json!("a\nb"), "control-characters"),
                ("credentials.roleArn", json!("arn:aws:iam::1:role/x"), "format"),
                ("credentials.durationSeconds", json!("899"), "format"),
            ]);
        }
        "azure-key-vault" | "azure-devops" => {
            all.extend(url("authorityUrl"));
            all.extend([
                ("credentials.tenantId", json!("tenant"), "tenant"),
                ("credentials.tenantId", json!("--help.me"), "tenant"),
                ("credentials.tenantId", json!("a b"), "white-space"),
                ("credentials.clientId", json!("client"), "guid"),
                ("credentials.clientId", json!("a b"), "white-space"),
                ("credentials.clientSecret", json!(""), "required"),
            ]);
            if app == "azure-devops" {
                all.extend([("credentials.orgName", json!("https://dev.azure.com/contoso"), "name"), ("apiVersion", json!("latest"), "version")]);
            } else {
                all.extend([("allowedVaultHosts", json!(7), "host"), ("apiVersion", json!("?"), "value")]);
            }
        }
        "bitbucket" => {
            all.extend(url("endpoint"));
            all.extend([
                ("credentials.email", json!("ops"), "email"),
                ("hourlyBudget", json!("5"), "range"),
                ("hourlyBudget", json!("many"), "range"),
            ]);
        }
        "oci" => all.extend(url("vaultEndpoint")),
        _ => panic!("the rules of {app} are not under test"),
    }
    all
}

#[test]
fn every_rule_of_a_connection_names_its_member() {
    let mut tried = std::collections::BTreeSet::new();
    for good in methods() {
        let (app, method) = (good["app"].as_str().expect("an app"), good["method"].as_str().expect("a method"));
        connection(&good).unwrap_or_else(|p| panic!("{app} by {method}: {p}"));
        tried.insert((app.to_string(), method.to_string()));
        let spec = registry::app(app).expect("an app");
        let fields = spec.methods.iter().find(|m| m.name == method).expect("a method").fields;
        let knows = |member: &str| match member.strip_prefix("credentials.") {
            Some(field) => fields.iter().any(|f| f.name == field),
            None => spec.settings.iter().any(|s| s.name == member),
        };
        // A rule that a field has only where it is required.
        let applies = |(member, value, rule): &Rule| {
            let optional = fields.iter().any(|f| Some(f.name) == member.strip_prefix("credentials.") && !f.required);
            // A managed identity's client may be anything that the platform knows.
            knows(member) && !(optional && *rule == "required" && value == "")
        };
        let own: Vec<Rule> = of_member(app).into_iter().filter(applies).collect();
        for (member, value, rule) in of_every_connection().into_iter().chain(own) {
            let problems = connection(&with(&good, member, &value)).err().unwrap_or_default();
            let found: Vec<(&str, &str)> = problems.0.iter().map(|p| (p.field.as_str(), p.rule.as_str())).collect();
            assert!(found.contains(&(member, rule)), "{app} by {method}: {member} = {value}: {found:?}");
            for field in fields.iter().filter(|f| f.required) {
                let path = format!("credentials.{}", field.name);
                let missing = connection(&with(&good, &path, &json!(null))).err().unwrap_or_default();
                assert!(missing.0.iter().any(|p| p.field == path && p.rule == "required"), "{app} by {method}: {path}: {missing}");
            }
        }
    }
    // API keys of OCI need a real key: their rules are tried beside that module.
    tried.insert(("oci".into(), "access-key".into()));
    let all = registry::apps().into_iter().flat_map(|a| a.methods.iter().map(|m| (a.app.to_string(), m.name.to_string()))).collect();
    assert_eq!(tried, all, "every method is tried");
}

/// Another authority than Microsoft's may know other ids.
#[test]
fn an_own_authority_has_its_own_ids() {
    let own = json!({"name": "c", "app": "azure-key-vault", "method": "client-secret", "authorityUrl": "https://adfs.local.test/adfs",
        "credentials": {"tenantId": "adfs", "clientId": "kms-sync", "clientSecret": "s"}});
    connection(&own).expect("an AD FS");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_documents_exit_with_2_and_store_nothing() {
    let rig = Rig::new().await;
    let files = || {
        let dir = |name: &str| {
            std::fs::read_dir(rig.config_dir().join(name)).map(|d| d.flatten().map(|e| e.file_name()).collect::<Vec<_>>()).unwrap_or_default()
        };
        (dir("syncs"), dir("connections"))
    };
    let before = files();
    for (kind, config) in samples() {
        let document = with(&sample(&config), "syncOptions.keySchema", &json!("x"));
        let answer = rig.run_with(&["create", "-f", "-", "--destination", kind, "--no-run", "--json"], &document).await.expect(2);
        assert_eq!(answer["error"]["fields"][0]["field"], "syncOptions.keySchema", "{kind}: {answer}");
    }
    for good in methods() {
        let mut document = good.clone();
        document["caFile"] = "/nonexistent/ca.pem".into();
        let answer = rig.run_with(&["connection", "add", "-f", "-", "--json"], &document).await.expect(2);
        assert_eq!(answer["error"]["fields"][0]["field"], "caFile", "{}: {answer}", good["app"]);
    }
    assert_eq!(files(), before);
}
