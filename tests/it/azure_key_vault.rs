//! Azure Key Vault with Microsoft's own client: it drives the embedded vault over TLS, reads
//! what the provider wrote, and the provider works on what it left behind.

mod run;

use std::sync::Arc;
use std::time::Duration;

use kms_sync::destination::{Desired, Destination, Entry, EntryState, Listing, Op, Shape, Target, Written, registry};
use kms_sync::http::{ApiError, Cx};
use kms_sync::model::connection::{Connection, ResolvedConnection};
use kms_sync::model::ledger::Ledger;
use kms_sync::model::plan::Action;
use kms_sync::model::sync::SyncOptions;
use kms_sync::model::{Forgetful, SecretValue};
use kms_sync::sandbox::azure_key_vault::{Operation, State, router};
use kms_sync::sandbox::entra;
use kms_sync::sandbox::host::{Effect, Fault};
use kms_sync::sandbox::tls::TlsHost;
use serde_json::{Value, json};

use crate::support::python;

const TENANT: &str = "11111111-1111-4111-8111-111111111111";
const CLIENT: &str = "22222222-2222-4222-8222-222222222222";

/// A vault behind TLS, its directory, and the certificate in a file.
struct World {
    entra: entra::State,
    authority: TlsHost,
    vault: State,
    host: TlsHost,
    directory: tempfile::TempDir,
    cx: Cx,
}

impl World {
    async fn new() -> Self {
        let entra = entra::State::new();
        entra.register(TENANT, CLIENT, "s3cret-value");
        let authority = TlsHost::start(entra::router(entra.clone()), None).await.expect("a port");
        let vault = State::new(&entra, TENANT);
        vault.set_delays(Duration::from_millis(300), Duration::from_millis(300), Duration::ZERO);
        let host = TlsHost::start(router(vault.clone()), None).await.expect("a port");
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("vault.pem"), format!("{}{}", authority.certificate, host.certificate)).expect("the certificates");
        Self { entra, authority, vault, host, directory, cx: Cx::quiet() }
    }

    fn certificate(&self) -> String {
        self.directory.path().join("vault.pem").display().to_string()
    }

    /// One step of Microsoft's client; `None` where it cannot be installed.
    async fn vendor(&self, step: &'static str) -> Option<Value> {
        let token = match step {
            "sign-in" => format!("{} {TENANT} {CLIENT} s3cret-value", self.authority.url),
            _ => self.entra.mint(TENANT, CLIENT, entra::KEY_VAULT),
        };
        let (url, certificate) = (self.host.url.clone(), self.certificate());
        let printed = tokio::task::spawn_blocking(move || python::script("azure_key_vault.py", &[&url, &certificate, &token, step]));
        let printed = printed.await.expect("the script ends")?;
        Some(serde_json::from_str(&printed).expect("one JSON document"))
    }

    /// The connection as a file would describe it.
    fn connection(&self) -> ResolvedConnection {
        let document = json!({
            "name": "azure", "app": "azure-key-vault", "method": "client-secret", "caFile": self.certificate(), "authorityUrl": self.authority.url,
            "credentials": {"tenantId": TENANT, "clientId": CLIENT, "clientSecret": "s3cret-value"},
        });
        let stored = Connection::parse(&document, registry::app, &[]).expect("a good document");
        let credentials = [("tenantId", TENANT), ("clientId", CLIENT), ("clientSecret", "s3cret-value")];
        ResolvedConnection {
            id: stored.id,
            name: stored.name,
            app: stored.app,
            method: stored.method,
            credentials: credentials.into_iter().map(|(k, v)| (k.to_string(), SecretValue::new(v))).collect(),
            settings: stored.settings,
            ca_file: stored.ca_file,
            allow_insecure_http: stored.allow_insecure_http,
        }
    }

    async fn target(&self) -> Arc<dyn Destination> {
        let provider = registry::find("azure-key-vault").expect("registered");
        let session = provider.connect(self.connection(), Arc::new(Forgetful)).expect("session");
        let config = json!({"vaultBaseUrl": self.host.url}).as_object().cloned().expect("an object");
        let report = session.test(&self.cx, Some(&config)).await.expect("the connection works");
        assert!(report.identity.contains(CLIENT));
        let target = Target {
            sync_id: "s".into(),
            sync_name: "s".into(),
            config,
            options: SyncOptions::default(),
            environment_slug: "dev".into(),
            environment_name: None,
        };
        session.open(&self.cx, &target).await.expect("target")
    }

    async fn entries(&self, target: &dyn Destination) -> Vec<Entry> {
        let ledger = Ledger::default();
        target.list(&self.cx, &Listing { prefix: "", ledger: &ledger, wanted: 0, full: false }).await.expect("list").entries
    }

    async fn write(&self, target: &dyn Destination, action: Action, key: &str, value: &str, entry: Option<&Entry>) -> Result<Written, ApiError> {
        let name = target.keys().convert(key).expect("a name");
        let desired = Desired {
            source_key: key.into(),
            fold: target.keys().fold(&name),
            key: name.clone(),
            value: SecretValue::new(value),
            metadata: Vec::new(),
        };
        let op = Op {
            action,
            key: &name,
            entry,
            row: None,
            desired: Some(&desired),
            value_differs: true,
            token: "6f1b1b1e-0000-4000-8000-000000000000",
            approved: true,
        };
        match target.shape() {
            Shape::Itemised(items) => items.apply(&self.cx, &op).await,
            Shape::Document(_) => panic!("an object per key"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn microsofts_client_finds_the_vault_it_knows() {
    let world = World::new().await;
    let Some(tour) = world.vendor("tour").await else { return };
    let expected = json!({
        "asked": [[["https://vault.azure.net/.default"], TENANT]],
        "version_length": 32, "same_secret": true, "current": "v2", "old": "v1 ü\r\n", "tags_after_put": null, "versions": 2,
        "listed": 61, "listed_by_7": 61,
        "disabled": [false, ["HttpResponseError", 403, "SecretDisabled"]],
        "updated": ["0", {"x": "y"}, "t"],
        "while_deleting": ["ResourceExistsError", 409, "ObjectIsBeingDeleted"],
        "deleted": true, "deleted_list": ["K01"],
        "get_deleted_name": ["ResourceNotFoundError", 404, null],
        "set_deleted_name": ["ResourceExistsError", 409, "ObjectIsDeletedButRecoverable"],
        "while_recovering": ["ResourceExistsError", 409, "ObjectIsBeingRecovered"],
        "recovered": "1",
        "missing": ["ResourceNotFoundError", 404, null],
        "bad_name": ["HttpResponseError", 400, null],
        "too_large": ["HttpResponseError", 400, null],
        "page_too_large": ["HttpResponseError", 400, null],
        "by_7_4": "2",
    });
    let mut tour = tour;
    // An absent map and an empty one are the same to the client.
    if tour["tags_after_put"] == json!({}) {
        tour["tags_after_put"] = Value::Null;
    }
    assert_eq!(tour, expected);
    let lines = world.host.log.lines();
    assert!(lines.iter().any(|l| l.starts_with("GET /secrets/A-B/?")), "the client reads with a trailing slash");
    let pages: Vec<&String> = lines.iter().filter(|l| l.starts_with("GET /secrets?")).collect();
    assert_eq!(pages.len(), 3 + 9 + 1, "{pages:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn microsofts_sign_in_finds_the_directory_it_knows() {
    let world = World::new().await;
    world.vault.set_authority(&world.authority.url);
    let Some(out) = world.vendor("sign-in").await else { return };
    assert_eq!(out, json!({"value": "v", "names": ["SIGNED-IN"], "wrong": true}));
    let asked = world.authority.log.lines();
    assert!(asked.iter().any(|l| l.contains("/.well-known/openid-configuration")), "{asked:?}");
    assert_eq!(world.entra.requests(), 2, "one token for three calls, and one refusal: {asked:?}");
    // What it wrote is there for ours, which signs in at the same place.
    let target = world.target().await;
    let entries = world.entries(&*target).await;
    assert_eq!(entries.iter().map(|e| e.key.as_str()).collect::<Vec<_>>(), ["SIGNED-IN"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_nothing_happens() {
    let world = World::new().await;
    world.vault.put("K1", "v");
    let Some(out) = world.vendor("stranger").await else { return };
    assert_eq!(out["set"][0], "ClientAuthenticationError");
    assert_eq!(out["delete"][1], 401);
    let seen = world.vault.secrets();
    assert_eq!((seen.len(), seen["k1"].value.as_str(), world.vault.deleted().len()), (1, "v", 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn microsofts_client_reads_what_was_written_and_edits_are_seen() {
    let world = World::new().await;
    let target = world.target().await;
    let values = [("APP_ONE", "1"), ("APP_TWO", "multi\r\nline ü 🦀"), ("APP_THREE", "\"quoted\" \\"), ("APP_FOUR", "")];
    for (key, value) in values {
        world.write(&*target, Action::Create, key, value, None).await.expect("written");
    }
    let Some(read) = world.vendor("read").await else { return };
    let expected = json!({"APP-ONE": "1", "APP-TWO": "multi\r\nline ü 🦀", "APP-THREE": "\"quoted\" \\", "APP-FOUR": ""});
    assert_eq!(read, expected);

    world.vendor("edit").await.expect("the client was there a moment ago");
    let entries = world.entries(&*target).await;
    let entry = |key: &str| entries.iter().find(|e| e.key == key);
    assert!(entry("APP-THREE").is_none(), "deleted");
    assert!(matches!(&entry("APP-FOUR").expect("listed").state, EntryState::Protected(why) if why.contains("disabled")));
    let one = entry("APP-ONE").expect("listed");
    let value = target.read(&world.cx, &[one]).await.remove(0).1.expect("read").value.expect("value");
    assert_eq!(value.expose(), "edited outside");
    assert!(entry("NATIVE-hyphen").is_some());

    world.write(&*target, Action::Update, "APP_ONE", "1", Some(one)).await.expect("written");
    world.write(&*target, Action::Update, "APP_TWO", "2", entry("APP-TWO")).await.expect("written");
    let deleted = target.hidden(&world.cx, &["app-three"]).await.expect("hidden").entries;
    world.write(&*target, Action::Restore, "APP_THREE", "back", deleted.first()).await.expect("recovered and set");
    let read = world.vendor("read").await.expect("the client was there a moment ago");
    assert_eq!((&read["APP-ONE"], &read["APP-TWO"], &read["APP-THREE"]), (&json!("1"), &json!("2"), &json!("back")));
    assert_eq!(world.vault.secrets()["app-two"].tags["team"], "red", "a foreign tag survives our update");
    assert_eq!(world.vault.purges(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_checked_and_rights_are_named() {
    let world = World::new().await;
    let provider = registry::find("azure-key-vault").expect("registered");
    let config = json!({"vaultBaseUrl": world.host.url}).as_object().cloned().expect("an object");
    let mut connection = world.connection();
    connection.ca_file = None;
    let session = provider.connect(connection, Arc::new(Forgetful)).expect("session");
    let error = session.test(&world.cx, Some(&config)).await.expect_err("an unknown certificate");
    assert!(error.text().contains("caFile"), "{error}");
    assert_eq!(world.host.log.lines().len(), 0);

    let session = provider.connect(world.connection(), Arc::new(Forgetful)).expect("session");
    world.vault.forbid(Operation::List, None, "ForbiddenByRbac");
    let error = session.test(&world.cx, Some(&config)).await.expect_err("no right");
    assert!(error.text().contains("readMetadata") && error.text().contains("Secrets Officer"), "{error}");
    world.vault.permit_all();
    world.host.faults.add(Fault::next("GET", 1, Effect::status(503, "{}")));
    session.test(&world.cx, Some(&config)).await.expect("a passing trouble passes");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_secrets_in_and_out_again() {
    let world = World::new().await;
    let target = world.target().await;
    let value = "x".repeat(2_000);
    let writes = (0..200).map(|i| {
        let (target, world, value) = (&target, &world, &value);
        async move { world.write(&**target, Action::Create, &format!("K_{i:03}"), value, None).await }
    });
    use futures::StreamExt as _;
    let done: Vec<_> = futures::stream::iter(writes).buffer_unordered(12).collect().await;
    assert!(done.iter().all(Result::is_ok));
    world.host.log.clear();
    let entries = world.entries(&*target).await;
    assert_eq!((entries.len(), world.host.log.lines().len()), (200, 8));
    let read = target.read(&world.cx, &entries.iter().collect::<Vec<_>>()).await;
    assert!(read.iter().all(|(_, r)| r.as_ref().is_ok_and(|r| r.value.as_ref().is_some_and(|v| v.expose() == value))));
    assert_eq!(world.entra.requests(), 1);
}
