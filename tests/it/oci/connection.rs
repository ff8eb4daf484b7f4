//! Connections: rules, the config file, the test, the pickers.

use kms_sync::destination::Provider as _;
use kms_sync::destination::oci::OciVault;
use kms_sync::destination::registry;
use kms_sync::http::ErrorKind;
use kms_sync::model::connection::Connection;
use kms_sync::model::sync::SyncConfig;
use kms_sync::sandbox::host::{Effect, Fault};
use kms_sync::sandbox::oci;

use super::{bench, connect, credentials, resolved};

fn parse(document: &serde_json::Value) -> Result<Connection, kms_sync::model::Problems> {
    Connection::parse(document, registry::app, &["oci"])
}

#[tokio::test]
async fn documents_are_checked_offline() {
    let bench = bench().await;
    let good = bench.state.connection("prod", "http://127.0.0.1:1");
    parse(&good).expect("good");
    let with = |field: &str, value: &str| {
        let mut document = good.clone();
        document["credentials"][field] = value.into();
        document
    };
    parse(&with("fingerprint", &oci::TEST_FINGERPRINT.to_uppercase())).expect("upper case");
    for (field, value, word) in [
        ("userOcid", "ocid1.tenancy.oc1..a", "user"),
        ("tenancyOcid", "ocid1.user.oc1..a", "tenancy"),
        ("region", "eu frankfurt", "' '"),
        ("fingerprint", "aa:bb", "16 hex"),
        ("fingerprint", "00:1f:44:fb:20:ff:d9:fc:86:31:c2:73:d9:74:bf:ac", oci::TEST_FINGERPRINT),
        ("privateKey", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "public key"),
    ] {
        let problems = parse(&with(field, value)).expect_err(field);
        assert_eq!(problems.0.len(), 1, "{problems}");
        assert_eq!(problems.0[0].field, format!("credentials.{field}"));
        assert!(problems.0[0].message.contains(word), "{problems}");
    }
    // What screens and lists print has no key in it.
    let public = parse(&good).expect("good").public(OciVault.spec().app).to_string();
    assert!(public.contains(oci::USER) && !public.contains("PRIVATE KEY"), "{public}");
}

/// Number 3: what a paste or a file leaves behind a field, in each of them.
#[tokio::test]
async fn a_line_break_behind_any_field_is_no_part_of_it() {
    const LOCKED: &str = include_str!("../../../src/destination/oci/fixtures/pkcs8-aes256.pem");
    let bench = bench().await;
    let mut fields = credentials();
    fields.retain(|(name, _)| *name != "privateKey");
    fields.extend([("privateKey", LOCKED), ("passphrase", "kms-sync-test")]);
    let names: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
    for end in ["\n", "\r\n"] {
        // Each by itself, and all together.
        for with in names.iter().map(|n| vec![*n]).chain([names.clone()]) {
            let given: Vec<(&str, String)> =
                fields.iter().map(|(n, v)| (*n, if with.contains(n) { format!("{v}{end}") } else { (*v).to_string() })).collect();
            let mut document = bench.state.connection("prod", &bench.host.url);
            document["credentials"] = given.iter().map(|(n, v)| ((*n).to_string(), v.as_str().into())).collect::<serde_json::Map<_, _>>().into();
            parse(&document).unwrap_or_else(|problems| panic!("{with:?} {end:?}: {problems}"));
            let given: Vec<(&str, &str)> = given.iter().map(|(n, v)| (*n, v.as_str())).collect();
            let session = connect(resolved("access-key", &given, serde_json::json!({ "endpoint": bench.host.url })));
            let session = session.unwrap_or_else(|error| panic!("{with:?} {end:?}: {error}"));
            let report = session.test(&bench.cx, Some(&bench.config())).await.unwrap_or_else(|error| panic!("{with:?} {end:?}: {error}"));
            assert!(report.identity.contains("deploy-bot"), "{with:?} {end:?}: {report:?}");
        }
    }
}

#[test]
fn the_documented_sample_is_accepted_and_bad_targets_are_not() {
    let sample = serde_json::json!({
        "name": "my-oci-vault-sync", "projectId": "3c90c3cc-0d44-4b50-8888-8dd25736052a", "description": "an example sync",
        "connectionId": "3c90c3cc-0d44-4b50-8888-8dd25736052a", "environment": "dev", "secretPath": "/my-secrets", "isEnabled": true,
        "syncOptions": {"initialSyncBehavior": "overwrite-destination"},
        "destinationConfig": {"compartmentOcid": "...", "vaultOcid": "...", "keyOcid": "..."}
    });
    let parse = |document: &serde_json::Value| SyncConfig::parse(document, Some("oci-vault"), registry::rules, &registry::kinds());
    parse(&sample).expect("the sample request");
    for (path, value, word) in [
        ("/destinationConfig/vaultOcid", serde_json::json!("ocid1.key.oc1.iad.a.b"), "vault"),
        ("/destinationConfig/keyOcid", serde_json::json!(""), "empty"),
        ("/destinationConfig/compartmentOcid", serde_json::json!(7), "text"),
        ("/syncOptions/deletionDays", serde_json::json!(0), "1 to 30"),
        ("/syncOptions/deletionDays", serde_json::json!(31), "1 to 30"),
    ] {
        let mut document = sample.clone();
        document["syncOptions"]["deletionDays"] = 7.into();
        *document.pointer_mut(path).expect("member") = value;
        let problems = parse(&document).expect_err(path);
        assert!(problems.to_string().contains(word), "{path}: {problems}");
    }
}

#[test]
fn overlap_is_same_vault_and_compartment() {
    let map = |c: &str, v: &str| serde_json::json!({"compartmentOcid": c, "vaultOcid": v, "keyOcid": "k"}).as_object().cloned().expect("map");
    assert!(OciVault.overlaps(&map("a", "b"), &map(" a", "b")));
    assert!(!OciVault.overlaps(&map("a", "b"), &map("c", "b")));
    assert_eq!(OciVault.label(&map("c", "ocid1.vault.oc1.fra.seg.aaaabbbbcccc")), "OCI Vault eu-frankfurt-1 …bbcccc");
}

/// A directory with a key file (mode 0600) and a config file.
fn config_dir(config: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("directory");
    let key = dir.path().join("key.pem");
    std::fs::write(&key, oci::TEST_KEY).expect("key");
    set_mode(&key, 0o600);
    std::fs::write(dir.path().join("config"), config.replace("KEYFILE", &key.to_string_lossy())).expect("config");
    dir
}

#[cfg(unix)]
fn set_mode(path: &std::path::Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("mode");
}

#[tokio::test]
async fn the_config_file_of_the_sdks() {
    let bench = bench().await;
    let config = format!(
        "# a comment\n[DEFAULT]\nuser = {}\ntenancy={}\nregion=us-phoenix-1\nfingerprint={}\nkey_file=KEYFILE\npass_phrase=100%s of ; it\n\
         ; another\n[prod]\nregion = fra\nunknown = %(x)s\n[session]\nsecurity_token_file=/x\n[broken]\nkey_file=/does/not/exist\n",
        oci::USER,
        oci::TENANCY,
        oci::TEST_FINGERPRINT
    );
    let dir = config_dir(&config);
    let path = dir.path().join("config").to_string_lossy().into_owned();
    let open =
        |profile: &str| connect(resolved("config-file", &[("path", &path), ("profile", profile)], serde_json::json!({ "endpoint": bench.host.url })));
    // Everything but the region comes from DEFAULT; the passphrase that the plain key does not need is ignored.
    let report = open("prod").expect("session").test(&bench.cx, None).await.expect("tested");
    assert!(report.identity.contains("eu-frankfurt-1"), "{report:?}");
    open("").expect("the default profile");
    let message = |profile: &str| open(profile).err().expect("an error").text();
    assert!(message("nope").contains("DEFAULT, broken, prod, session"), "{}", message("nope"));
    assert!(message("broken").contains("/does/not/exist"), "{}", message("broken"));
    let key = dir.path().join("key.pem");
    #[cfg(unix)]
    {
        set_mode(&key, 0o640);
        assert!(message("prod").contains("chmod 600"), "{}", message("prod"));
        set_mode(&key, 0o600);
    }
    std::fs::write(&key, "-----BEGIN PRIVATE KEY-----\nc2VjcmV0IGJ5dGVz\n-----END PRIVATE KEY-----\n").expect("key");
    assert!(!message("prod").contains("c2VjcmV0"), "{}", message("prod"));
    let missing = connect(resolved("config-file", &[("path", "/does/not/exist")], serde_json::json!({})));
    assert!(missing.err().expect("an error").text().contains("/does/not/exist"));
}

#[tokio::test]
async fn the_test_tells_who_we_are_and_what_is_missing() {
    let bench = bench().await;
    let report = bench.session.test(&bench.cx, Some(&bench.config())).await.expect("tested");
    assert!(report.identity.contains("deploy-bot"), "{report:?}");
    assert!(report.notes.iter().any(|n| n.contains("app-secrets-key")), "{report:?}");
    // A 404 on oneself still proves the signature.
    bench.state.allow("USER_INSPECT", false);
    let report = bench.session.test(&bench.cx, None).await.expect("tested");
    assert!(report.notes.iter().any(|n| n.contains("authenticated")), "{report:?}");
    for (state, algorithm, word) in [("DISABLED", "AES", "DISABLED"), ("ENABLED", "RSA", "symmetric")] {
        bench.state.set_key(bench.state.key(), state, algorithm);
        let error = bench.session.test(&bench.cx, Some(&bench.config())).await.expect_err(word);
        assert!(error.text().contains(word), "{error}");
    }
    let mut config = bench.config();
    let other = bench.state.add_key("elsewhere", &bench.state.add_vault("second", bench.state.compartment()), bench.state.compartment());
    config.insert("keyOcid".into(), other.into());
    let error = bench.session.test(&bench.cx, Some(&config)).await.expect_err("another vault's key");
    assert!(error.text().contains("another vault"), "{error}");
    bench.state.allow("SECRET_INSPECT", false);
    let error = bench.session.test(&bench.cx, Some(&bench.config())).await.expect_err("no right");
    assert!(error.text().contains("SECRET_INSPECT"), "{error}");
}

#[tokio::test]
async fn a_wrong_clock_is_explained_and_not_retried() {
    for (offset, word) in [(360, "6 min slow"), (-360, "6 min fast")] {
        let bench = bench().await;
        bench.state.set_clock(offset);
        let error = bench.session.test(&bench.cx, None).await.expect_err("refused");
        assert_eq!(error.kind, ErrorKind::Auth);
        assert!(error.text().contains(word), "{error}");
        assert_eq!(bench.host.log.lines().len(), 1);
        bench.state.set_clock(offset.signum() * 240);
        bench.session.test(&bench.cx, None).await.expect("4 minutes are within the bounds");
    }
}

#[tokio::test]
async fn a_vault_of_another_region_is_told_before_any_call() {
    let bench = bench().await;
    let session = connect(resolved("access-key", &credentials(), serde_json::json!({}))).expect("session");
    let mut target = bench.target(serde_json::json!({}));
    target.config.insert("vaultOcid".into(), "ocid1.vault.oc1.iad.seg.abc".into());
    let error = session.open(&bench.cx, &target).await.err().expect("refused");
    assert!(error.text().contains("us-ashburn-1") && error.text().contains("eu-frankfurt-1"), "{error}");
    // Where the operator named the hosts, too: they tell no region, and the connection does.
    let error = bench.session.open(&bench.cx, &target).await.err().expect("refused");
    assert!(error.text().contains("us-ashburn-1") && error.text().contains("Use a connection whose region"), "{error}");
    let error = bench.session.test(&bench.cx, Some(&target.config)).await.expect_err("refused");
    assert!(error.text().contains("us-ashburn-1"), "{error}");
    target.config.insert("vaultOcid".into(), "ocid1.vault.oc1.emulated.seg.abc".into());
    bench.session.open(&bench.cx, &target).await.map(drop).expect("an emulator's own word");
    assert_eq!(bench.host.log.count("/secrets"), 0);
}

#[tokio::test]
async fn pickers_are_fed_live() {
    let bench = bench().await;
    bench.state.set_page_size(1);
    let none = serde_json::Map::new();
    let labels = |choices: &[kms_sync::destination::Choice]| choices.iter().map(|c| c.label.clone()).collect::<Vec<_>>();
    let compartments = bench.session.choices(&bench.cx, "compartmentOcid", &none).await.expect("compartments");
    assert_eq!(labels(&compartments), ["acme (root)", "acme/production", "acme/production/payments", "acme/staging"]);
    let mut filled = none.clone();
    filled.insert("compartmentOcid".into(), compartments[1].value.clone().into());
    let vaults = bench.session.choices(&bench.cx, "vaultOcid", &filled).await.expect("vaults");
    assert_eq!((vaults.len(), vaults[0].value.as_str()), (1, bench.state.vault()));
    filled.insert("vaultOcid".into(), vaults[0].value.clone().into());
    // Keys of other vaults, disabled ones and asymmetric ones are not offered.
    let second = bench.state.add_vault("second", bench.state.compartment());
    bench.state.add_key("foreign", &second, bench.state.compartment());
    let off = bench.state.add_key("off", bench.state.vault(), bench.state.compartment());
    bench.state.set_key(&off, "DISABLED", "AES");
    let keys = bench.session.choices(&bench.cx, "keyOcid", &filled).await.expect("keys");
    assert_eq!(keys.iter().map(|k| k.value.as_str()).collect::<Vec<_>>(), [bench.state.key()]);
    // When none is fit, why is said.
    bench.state.set_key(bench.state.key(), "PENDING_DELETION", "AES");
    let error = bench.session.choices(&bench.cx, "keyOcid", &filled).await.expect_err("none is fit");
    assert!(error.text().contains("app-secrets-key: it is PENDING_DELETION; off: it is DISABLED"), "{error}");
    assert!(!error.text().contains("foreign"), "{error}");
    bench.state.set_key(bench.state.key(), "ENABLED", "AES");
    // Nothing to list is an answer, a missing right is an error.
    filled.insert("compartmentOcid".into(), compartments[3].value.clone().into());
    assert_eq!(bench.session.choices(&bench.cx, "vaultOcid", &filled).await.expect("vaults"), []);
    bench.state.allow("VAULT_INSPECT", false);
    let error = bench.session.choices(&bench.cx, "vaultOcid", &filled).await.expect_err("forbidden");
    assert!(error.text().contains("VAULT_INSPECT") && error.text().ends_with("Type the OCID, or add the right."), "{error}");
    bench.state.allow("TENANCY_INSPECT", false);
    let compartments = bench.session.choices(&bench.cx, "compartmentOcid", &none).await.expect("compartments");
    assert_eq!(compartments[0].label, "root (root)");
}

#[tokio::test]
async fn a_management_endpoint_of_a_stranger_gets_no_request() {
    let bench = bench().await;
    let session = connect(resolved(
        "access-key",
        &credentials(),
        serde_json::json!({"kmsVaultEndpoint": bench.host.url, "identityEndpoint": bench.host.url, "vaultEndpoint": bench.host.url, "secretsEndpoint": bench.host.url}),
    ))
    .expect("session");
    let mut filled = bench.config();
    for (endpoint, good) in [("https://evil.example", false), ("http://keys.oraclecloud.com", false), (bench.host.url.as_str(), true)] {
        bench.state.set_management_endpoint(bench.state.vault(), endpoint);
        filled.remove("keyOcid");
        let result = session.choices(&bench.cx, "keyOcid", &filled).await;
        assert_eq!(result.is_ok(), good, "{endpoint}: {result:?}");
    }
}

#[tokio::test]
async fn pages_that_are_not_the_api() {
    let bench = bench().await;
    for (status, body) in [(200, "<html><body>Sign in</body></html>"), (403, "<html>blocked by proxy</html>"), (200, "{\"half\":")] {
        bench.host.faults.add(Fault::next("/20160918/users", 1, Effect::status(status, body)));
        let error = bench.session.test(&bench.cx, None).await.expect_err("not the API");
        assert!(!error.text().contains('<'), "{error}");
    }
    bench.host.faults.add(Fault::next("/20160918/users", 1, Effect::status(503, "<html>busy</html>")));
    bench.session.test(&bench.cx, None).await.expect("a 503 passes");
}

#[tokio::test(start_paused = true)]
async fn a_screen_is_not_kept_waiting_for_a_service_that_is_down() {
    let bench = bench().await;
    bench.host.faults.add(Fault::always("/20160918/compartments", 1.0, Effect::status(503, "<html><body>busy</body></html>")));
    let begun = tokio::time::Instant::now();
    let error = bench.session.choices(&bench.cx, "compartmentOcid", &serde_json::Map::new()).await.expect_err("down");
    assert_eq!(error.kind, ErrorKind::Transient);
    assert!(error.text().contains("503") && error.text().contains("busy") && !error.text().contains('<'), "{error}");
    assert!(begun.elapsed() < std::time::Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_picker_that_fails_says_why_and_what_to_do() {
    let bench = bench().await;
    let page = |status, body: &str| Effect::Answer { status, headers: vec![("content-type".into(), "text/html".into())], body: body.into() };
    let refusal = r#"{"code":"NotAuthorizedOrNotFound","message":"Authorization failed or requested resource not found."}"#;
    for (field, path) in [("compartmentOcid", "/compartments?"), ("vaultOcid", "/vaults?"), ("keyOcid", "/keys?")] {
        for (effect, kind) in [
            (page(200, "<html>Sign in</html>"), ErrorKind::NotTheService),
            (page(302, ""), ErrorKind::NotTheService),
            (Effect::status(203, "[]"), ErrorKind::NotTheService),
            (Effect::status(200, "{}"), ErrorKind::NotTheService),
            (Effect::status(404, refusal), ErrorKind::NotFound),
            (Effect::status(403, r#"{"code":"NotAllowed","message":"no"}"#), ErrorKind::Permission),
            (Effect::status(401, r#"{"code":"NotAuthenticated","message":"no"}"#), ErrorKind::Auth),
        ] {
            bench.host.faults.add(Fault::always(path, 1.0, effect.clone()));
            let error = bench.session.choices(&bench.cx, field, &bench.config()).await.expect_err("no list");
            assert_eq!(error.kind, kind, "{field} {effect:?}: {error}");
            assert!(error.advice.as_ref().is_some_and(|a| a.len() > 20) && !error.text().contains('<'), "{field} {effect:?}: {error}");
            bench.host.faults.clear();
        }
    }
}

#[tokio::test]
async fn five_hundred_of_everything_can_be_picked_from() {
    let bench = bench().await;
    for n in 0..500 {
        bench.state.add_compartment(&format!("team-{n:03}"), bench.state.compartment());
        bench.state.add_vault(&format!("vault-{n:03}"), bench.state.compartment());
        bench.state.add_key(&format!("key-{n:03}"), bench.state.vault(), bench.state.compartment());
    }
    let config = bench.config();
    for (field, count, pages) in [("compartmentOcid", 504, 1), ("vaultOcid", 501, 6), ("keyOcid", 501, 6)] {
        bench.host.log.clear();
        let choices = bench.session.choices(&bench.cx, field, &config).await.expect(field);
        assert_eq!(choices.len(), count, "{field}");
        let lists = bench.host.log.lines().iter().filter(|l| l.contains("compartmentId=")).count();
        assert_eq!(lists, pages, "{field}");
    }
}
