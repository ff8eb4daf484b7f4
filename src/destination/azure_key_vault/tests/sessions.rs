//! Connections: tokens, challenges, rights, addresses.

use super::*;
use crate::http::ErrorKind;
use crate::sandbox::azure_key_vault::Operation;
use crate::sandbox::host::{Effect, Fault};

#[tokio::test]
async fn a_test_tells_who_we_are_and_which_right_is_missing() {
    let world = World::new().await;
    let session = world.session();
    let report = session.test(&world.cx, None).await.expect("token");
    assert!(report.identity.contains(CLIENT) && report.identity.contains(TENANT), "{report:?}");
    assert_eq!(world.host.log.lines().len(), 0);
    session.test(&world.cx, Some(&world.config())).await.expect("list");
    assert_eq!(world.authority.log.lines().len(), 1, "one token for both");
    assert!(world.host.log.lines()[0].contains("api-version=7.4&maxresults=1"));
    world.vault.forbid(Operation::List, None, "ForbiddenByFirewall");
    let error = session.test(&world.cx, Some(&world.config())).await.expect_err("firewall");
    assert!(error.kind == ErrorKind::Permission && error.text().contains("192.0.2.7") && error.request_id.is_some(), "{error}");
}

#[tokio::test]
async fn an_expired_token_is_replaced_once_for_all_workers() {
    let world = World::new().await;
    (0..20).for_each(|i| world.vault.put(&format!("K{i}"), "v"));
    let target = world.target().await;
    let entries = world.list(&*target, &Ledger::default(), 0).await.expect("list").entries;
    world.entra.revoke_all();
    let read = target.read(&world.cx, &entries.iter().collect::<Vec<_>>()).await;
    assert!(read.iter().all(|(_, r)| r.is_ok()));
    assert_eq!(world.entra.requests(), 2, "the first token and one replacement");
}

#[tokio::test]
async fn two_refusals_in_a_row_are_final() {
    let world = World::new().await;
    let body = json!({"error": {"code": "Unauthorized", "message": "AKV10022: Invalid audience."}}).to_string();
    world.host.faults.add(Fault::always("GET", 1.0, Effect::status(401, body)));
    let target = world.target().await;
    let error = world.list(&*target, &Ledger::default(), 0).await.expect_err("refused");
    assert_eq!((error.kind, world.host.log.lines().len(), world.entra.requests()), (ErrorKind::Auth, 2, 2));
    assert!(error.text().contains("AKV10022") && error.text().contains("scope"), "{error}");
}

#[tokio::test]
async fn a_vault_of_another_tenant_is_told_with_both() {
    let world = World::new().await;
    let other = "33333333-3333-4333-8333-333333333333";
    world.vault.set_tenant(other);
    let target = world.target().await;
    let error = world.list(&*target, &Ledger::default(), 0).await.expect_err("tenant");
    assert!(error.text().contains(other) && error.text().contains(TENANT) && error.text().contains("AKV10032"), "{error}");
    assert_eq!(world.host.log.lines().len(), 1, "asking again would not help");
}

#[tokio::test]
async fn a_claims_challenge_is_answered_once() {
    let world = World::new().await;
    let challenge =
        r#"Bearer authorization="https://login.microsoftonline.com/x", error="insufficient_claims", claims="eyJhY2Nlc3NfdG9rZW4iOnt9fQ==""#;
    let headers = vec![("www-authenticate".to_string(), challenge.to_string())];
    world.host.faults.add(Fault::next("GET", 1, Effect::Answer { status: 401, headers, body: "{}".into() }));
    let target = world.target().await;
    world.list(&*target, &Ledger::default(), 0).await.expect("after the second token");
    assert_eq!(world.entra.requests(), 2);
}

#[tokio::test]
async fn a_short_lived_token_makes_no_loop_and_a_wrong_secret_no_retry() {
    let world = World::new().await;
    world.entra.token_life(120);
    let target = world.target().await;
    for _ in 0..3 {
        world.list(&*target, &Ledger::default(), 0).await.expect("list");
    }
    assert_eq!(world.entra.requests(), 1);
    for code in [7000215u32, 7000222, 700016, 90002, 53003, 500011] {
        world.entra.refuse(Some(code));
        let before = world.entra.requests();
        let error = world.session().test(&world.cx, None).await.expect_err("refused");
        assert!(error.kind == ErrorKind::Auth && error.text().contains(&format!("AADSTS{code}")) && error.advice.is_some(), "{error}");
        assert!(!error.text().contains(SECRET));
        assert_eq!(world.entra.requests(), before + 1);
    }
}

#[tokio::test]
async fn a_ready_token_is_used_as_it_is() {
    let world = World::new().await;
    let with = |token: String| {
        let mut connection = world.connection();
        connection.method = "access-token".into();
        connection.credentials = BTreeMap::from([("accessToken".to_string(), SecretValue::new(token))]);
        world.session_of(connection)
    };
    let session = with(world.entra.mint(TENANT, CLIENT, entra::KEY_VAULT));
    session.test(&world.cx, Some(&world.config())).await.expect("works");
    assert_eq!(world.authority.log.lines().len(), 0);
    world.entra.revoke_all();
    world.host.log.clear();
    assert_eq!(session.test(&world.cx, Some(&world.config())).await.expect_err("revoked").kind, ErrorKind::Auth);
    assert_eq!(world.host.log.lines().len(), 1, "there is no other token to try");
    let foreign = with(world.entra.mint(TENANT, CLIENT, entra::AZURE_DEVOPS));
    world.host.log.clear();
    assert!(foreign.test(&world.cx, Some(&world.config())).await.is_err());
    assert_eq!(world.host.log.lines().len(), 0, "said before the first call");
    with("opaque-token".into()).test(&world.cx, None).await.expect("the service decides");
}

#[tokio::test]
async fn tokens_and_values_stay_out_of_errors() {
    let world = World::new().await;
    let target = world.target().await;
    let canary = "canary-value-1234567890";
    world.cx.redactor().learn(&SecretValue::new(canary));
    let body = json!({"error": {"code": "BadParameter", "message": format!("value {canary} is bad")}}).to_string();
    world.host.faults.add(Fault::next("PUT", 1, Effect::status(400, body)));
    let error = world.apply(&*target, Action::Create, "A", Some(canary), None).await.expect_err("refused");
    assert!(!error.text().contains(canary) && error.text().contains("***"), "{error}");
    assert!(!format!("{:?}", world.connection()).contains(SECRET));
}

#[tokio::test]
async fn addresses_and_clouds_are_checked_before_any_call() {
    let world = World::new().await;
    let vault = |settings: Value, url: &str| {
        let mut connection = world.connection();
        connection.settings = map(settings);
        world.session_of(connection).vault(url)
    };
    let error = vault(json!({"authorityUrl": "https://login.microsoftonline.com"}), "https://kv1.vault.azure.cn").err().expect("clouds");
    assert!(error.text().contains("login.chinacloudapi.cn"), "{error}");
    assert!(vault(json!({}), "https://evil.example").is_err());
    assert!(vault(json!({"allowedVaultHosts": "evil.example"}), "https://evil.example").is_ok());
    let china = vault(json!({}), "https://kv1.vault.azure.cn").expect("vault");
    assert_eq!(china.tokens.scope(), "https://vault.azure.cn/.default");
    let custom = vault(json!({"endpoint": "http://127.0.0.1:9/{vault}", "apiVersion": "7.6"}), "https://kv1.vault.azure.net").expect("vault");
    assert_eq!(custom.url(&["secrets", "A"]).as_str(), "http://127.0.0.1:9/kv1/secrets/A?api-version=7.6");
    assert!(vault(json!({"endpoint": "http://evil.example"}), "https://kv1.vault.azure.net").is_err());
    assert_eq!(world.authority.log.lines().len() + world.host.log.lines().len(), 0);
}

#[tokio::test]
async fn a_stack_with_an_ad_fs_and_a_resource_of_its_own() {
    let world = World::new().await;
    let resource = "https://vault.adfs.stack.test/6f1b1b1e";
    world.entra.register("adfs", CLIENT, SECRET);
    world.entra.add_resource(resource);
    world.vault.set_tenant("adfs");
    world.vault.set_resource(resource);
    world.vault.put("A", "v");
    let open = |settings: Value| {
        let mut connection = world.connection();
        connection.credentials.insert("tenantId".into(), SecretValue::new("adfs"));
        connection.settings.extend(map(settings));
        world.session_of(connection)
    };
    let stack = "https://kv1.vault.local.stack.test";
    let error = open(json!({})).vault(stack).err().expect("a host nobody knows");
    assert!(error.text().contains("allowedVaultHosts"), "{error}");
    open(json!({"allowedVaultHosts": ".vault.local.stack.test"})).vault(stack).expect("its suffix is allowed");

    // The same through an endpoint on this machine.
    let config = map(json!({"vaultBaseUrl": stack}));
    let session = open(json!({"endpoint": world.host.url}));
    let error = session.test(&world.cx, Some(&config)).await.expect_err("tokens for the public cloud");
    assert!(error.kind == ErrorKind::Auth && error.text().contains(resource) && error.text().contains("tokenResource"), "{error}");
    assert!(!error.text().contains("belongs to tenant"), "adfs is no tenant: {error}");
    let session = open(json!({"endpoint": world.host.url, "tokenResource": resource}));
    session.test(&world.cx, Some(&config)).await.expect("works");
    let target = session.open(&world.cx, &super::target(config, SyncOptions::default())).await.expect("target");
    assert_eq!(world.list(&*target, &Ledger::default(), 0).await.expect("list").entries.len(), 1);
    assert!(world.authority.log.lines().iter().all(|l| l == "POST /adfs/oauth2/token"), "{:?}", world.authority.log.lines());
}

#[tokio::test]
async fn a_name_that_does_not_resolve() {
    let world = World::new().await;
    // RFC 6761: nothing ever resolves below .invalid.
    let mut connection = world.connection();
    connection.settings.insert("endpoint".into(), "https://{vault}.vault.invalid".into());
    let config = map(json!({"vaultBaseUrl": "https://no-such-vault.vault.azure.net"}));
    let error = world.session_of(connection).test(&world.cx, Some(&config)).await.expect_err("no such name");
    assert_eq!(error.kind, ErrorKind::Unreachable, "{error}");
    assert!(error.text().contains("no vault of that name") && error.text().contains("private DNS zone"), "{error}");
}

#[tokio::test]
async fn an_endpoint_stands_for_the_vault() {
    let world = World::new().await;
    let mut connection = world.connection();
    connection.settings.insert("endpoint".into(), world.host.url.clone().into());
    let session = world.session_of(connection);
    let config = map(json!({"vaultBaseUrl": "https://my-key-vault.vault.azure.net"}));
    let target = session.open(&world.cx, &super::target(config, SyncOptions::default())).await.expect("target");
    (0..30).for_each(|i| world.vault.put(&format!("K{i}"), "v"));
    assert_eq!(world.list(&*target, &Ledger::default(), 0).await.expect("list").entries.len(), 30);
    assert!(target.identity().contains("my-key-vault"));
}

#[tokio::test]
async fn rights_are_told_apart_by_operation() {
    let world = World::new().await;
    world.vault.put("A", "v");
    let target = world.target().await;
    let entries = world.list(&*target, &Ledger::default(), 0).await.expect("list").entries;
    world.vault.forbid(Operation::Get, Some("A"), "ForbiddenByPolicy");
    let error = target.read(&world.cx, &[&entries[0]]).await.remove(0).1.expect_err("get");
    assert!(error.text().contains("permission Get"), "{error}");
    world.vault.forbid(Operation::Set, Some("A"), "ForbiddenByRbac");
    let error = world.apply(&*target, Action::Update, "A", Some("w"), None).await.expect_err("set");
    assert!(error.text().contains("setSecret/action"), "{error}");
    world.apply(&*target, Action::Create, "B", Some("v"), None).await.expect("the others go on");
    world.vault.enable("A", false);
    world.vault.permit_all();
    let read = target.read(&world.cx, &[&entries[0]]).await.remove(0).1.expect("told");
    assert!(read.value.is_none() && read.problem.expect("problem").contains("disabled"));
}

#[test]
fn connections_that_cannot_work_say_why() {
    use crate::destination::registry;
    use crate::model::connection::Connection;
    let parse = |method: &str, credentials: Value| {
        let document = json!({"name": "az", "app": "azure", "method": method, "credentials": credentials});
        Connection::parse(&document, registry::app, &["azure-key-vault"])
    };
    let good = parse("client-secret", json!({"tenantId": TENANT, "clientId": CLIENT, "clientSecret": "x", "clientSecretKeyId": "k"})).expect("good");
    assert_eq!(good.app, "azure-key-vault", "the older word is an alias");
    assert!(parse("oauth", json!({"code": "x"})).expect_err("oauth").of("method").is_some_and(|m| m.contains("browser")));
    assert!(parse("certificate", json!({})).expect_err("certificate").of("method").is_some_and(|m| m.contains("client-secret")));
    assert!(parse("clientsecret", json!({})).expect_err("typo").of("method").is_some_and(|m| m.contains("Did you mean client-secret")));
    assert!(parse("az-cli", json!({"tenantId": "--help"})).is_err());
    let missing = parse("client-secret", json!({"tenantId": TENANT})).expect_err("incomplete");
    assert!(missing.of("credentials.clientId").is_some() && missing.of("credentials.clientSecret").is_some());
}

#[test]
fn the_documented_request_is_accepted_and_bad_ones_name_the_field() {
    use crate::destination::registry;
    use crate::model::sync::SyncConfig;
    let request = |vault: &str| {
        json!({
            "name": "my-key-vault-sync", "projectId": "3c90c3cc-0d44-4b50-8888-8dd25736052a", "description": "an example sync",
            "connectionId": "3c90c3cc-0d44-4b50-8888-8dd25736052a", "environment": "dev", "secretPath": "/my-secrets", "isEnabled": true,
            "syncOptions": {"initialSyncBehavior": "overwrite-destination"}, "destinationConfig": {"vaultBaseUrl": vault}
        })
    };
    let parse = |document: &Value| SyncConfig::parse(document, Some("azure-key-vault"), registry::rules, &registry::kinds());
    let config = parse(&request("https://my-key-vault.vault.azure.net")).expect("the sample");
    let provider = registry::find("azure-key-vault").expect("registered");
    assert_eq!(provider.label(&config.destination_config), "Key Vault my-key-vault");
    assert!(provider.overlaps(&config.destination_config, &map(json!({"vaultBaseUrl": "My-Key-Vault"}))));
    assert!(!provider.overlaps(&config.destination_config, &map(json!({"vaultBaseUrl": "https://other.vault.azure.net/"}))));
    for bad in ["", "http://my-key-vault.vault.azure.net", "https://my-key-vault.vault.azure.net/x", "nonsense url"] {
        assert!(parse(&request(bad)).expect_err(bad).of("destinationConfig.vaultBaseUrl").is_some(), "{bad}");
    }
    let mut typed = request("https://my-key-vault.vault.azure.net");
    typed["syncOptions"]["disableCertificateImport"] = "yes".into();
    assert!(parse(&typed).expect_err("type").of("syncOptions.disableCertificateImport").is_some());
}

#[test]
fn a_vault_whose_name_does_not_resolve_gets_its_own_advice() {
    let connection = ResolvedConnection {
        id: "c".into(),
        name: "azure".into(),
        app: "azure-key-vault".into(),
        method: "access-token".into(),
        credentials: BTreeMap::from([("accessToken".to_string(), SecretValue::new("opaque"))]),
        settings: Map::new(),
        ca_file: None,
        allow_insecure_http: false,
    };
    let vault = KeyVaultSession::new(connection, Arc::new(Forgetful)).expect("session").vault("kv-one").expect("vault");
    let unresolved = ApiError::new(ErrorKind::Unreachable, "azure-key-vault", "cannot connect")
        .advice("The host name does not resolve: check the address for a typing error, or the machine's DNS.");
    assert!(vault.unreachable(unresolved).text().contains("no vault of that name"));
    let refused = ApiError::new(ErrorKind::Unreachable, "azure-key-vault", "cannot connect").advice("Nothing answers there.");
    assert!(vault.unreachable(refused).text().contains("Nothing answers there"));
}
