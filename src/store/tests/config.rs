//! Sync, connection and settings files.

use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::config::parse_sync_by;
use super::super::{DriftAction, SealMode, Settings, StoreErrorKind};
use super::{Room, account, connection, mode};
use crate::destination::registry;
use crate::model::connection::Credential;
use crate::model::sync::{KindRules, SyncConfig, SyncOptions};
use crate::model::{Map, Problems};

struct Shelf;

impl KindRules for Shelf {
    fn kind(&self) -> &'static str {
        "shelf"
    }
    fn import_refusal(&self) -> Option<&'static str> {
        None
    }
    fn config_fields(&self) -> Vec<&'static str> {
        vec!["board"]
    }
    fn option_fields(&self) -> Vec<&'static str> {
        vec!["dust"]
    }
    fn check(&self, _: &Map, _: &SyncOptions, _: &mut Problems) {}
}

fn rules(kind: &str) -> Option<&'static dyn KindRules> {
    (kind == "shelf").then_some(&Shelf as &dyn KindRules)
}

fn sync(name: &str) -> SyncConfig {
    let document = json!({
        "name": name, "projectId": "p-1", "connectionId": "main", "environment": "prod", "secretPath": "/a/b", "description": "for the tests",
        "isEnabled": false, "syncOptions": {"initialSyncBehavior": "import-prioritize-source", "keySchema": "X_{{secretKey}}", "dust": [1, 2]},
        "destinationConfig": {"board": "upper"}, "destination": "shelf", "sourceConnection": "kms"
    });
    SyncConfig::parse(&document, None, rules, &["shelf"]).unwrap()
}

fn load(path: &Path) -> Result<SyncConfig, super::super::Broken> {
    let stem = path.file_stem().unwrap().to_str().unwrap();
    parse_sync_by(&String::from_utf8_lossy(&std::fs::read(path).unwrap()), stem, path, rules, &["shelf"])
}

#[test]
fn a_sync_file_is_the_documented_request_and_reads_back() {
    let room = Room::new();
    let config = sync("billing");
    room.store.save_sync(&config).unwrap();
    let path = room.path("config/syncs/billing.json");
    assert_eq!((mode(&path), room.store.sync_path("billing")), (0o600, path.clone()));
    let text = std::fs::read_to_string(&path).unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&document["destination"], &document["syncOptions"]["dust"]), (&json!("shelf"), &json!([1, 2])));
    assert!(text.ends_with("}\n") && text.lines().count() > 10, "for people and diffs");
    assert_eq!(load(&path).unwrap(), config);
    assert!(room.store.has_sync("billing"));
    room.store.remove_sync("billing").unwrap();
    assert_eq!(room.store.remove_sync("billing").unwrap_err().kind, StoreErrorKind::NotFound);
    assert!(room.store.syncs().is_empty());
}

#[test]
fn stored_syncs_load_by_the_rules_of_their_kind() {
    let room = Room::new();
    let document = json!({
        "name": "Billing-Prod", "projectId": "p-1", "connectionId": "main", "environment": "prod", "secretPath": "/",
        "syncOptions": {"initialSyncBehavior": "overwrite-destination"},
        "destinationConfig": {"region": "us-east-1", "mappingBehavior": "one-to-one"}
    });
    let config = SyncConfig::parse(&document, Some("aws-secrets-manager"), registry::rules, &registry::kinds()).unwrap();
    room.store.save_sync(&config).unwrap();
    let text = std::fs::read_to_string(room.store.sync_path("billing-prod")).unwrap();
    room.put("config/syncs/other.json", text.replace("us-east-1", "mars-1").replace("billing-prod", "other"), 0o644);
    room.put("config/syncs/typo.json", text.replace("mappingBehavior", "mapingBehavior").replace("billing-prod", "typo"), 0o644);
    assert_eq!(room.again().sync("Billing-PROD").unwrap(), config, "names are compared in lower case");
    let all = room.store.syncs();
    let sound: Vec<&str> = all.iter().filter(|l| l.result.is_ok()).map(|l| l.name.as_str()).collect();
    assert!(sound.contains(&"billing-prod") && !sound.contains(&"typo") && all.len() == 3);
    let error = room.store.sync("typo").unwrap_err();
    assert!(error.kind == StoreErrorKind::Broken && error.text().contains("Did you mean mappingBehavior?"), "{error}");
    assert!(room.store.sync("biling-prod").unwrap_err().text().contains("Did you mean billing-prod?"));
}

#[test]
fn names_of_every_allowed_length_have_a_file() {
    let room = Room::new();
    let long = |end: &str| format!("{}{end}", "a".repeat(256 - end.len()));
    for name in ["a".to_string(), "b".repeat(240), "c".repeat(250), long("x"), long("y")] {
        room.store.save_sync(&sync(&name)).unwrap();
        assert_eq!(load(&room.store.sync_path(&name)).unwrap().name, name);
    }
    assert_eq!(room.store.syncs().len(), 5, "long names that differ at their end are two files");
}

#[test]
fn names_cannot_leave_the_directory() {
    let room = Room::new();
    let outside = room.put("config/outside.json", "{}", 0o600);
    for name in ["../outside", "..", "", "a/b", "/etc/passwd", "A\0", ".hidden", "a.json"] {
        assert_eq!(room.store.sync(name).unwrap_err().kind, StoreErrorKind::NotFound, "{name:?}");
        assert_eq!(room.store.connection(name).unwrap_err().kind, StoreErrorKind::NotFound, "{name:?}");
        assert!(room.store.remove_sync(name).is_err() && room.store.remove_connection(name).is_err());
        assert!(room.store.save_sync(&SyncConfig { name: name.into(), ..sync("x") }).is_err());
    }
    assert!(outside.exists());
}

#[test]
fn one_bad_file_never_hides_the_others() {
    let room = Room::new();
    room.store.save_connection(account("good", "x")).unwrap();
    room.put("config/connections/truncated.json", r#"{"name":"truncated","app":"han"#, 0o600);
    room.put("config/connections/empty.json", "", 0o600);
    room.put("config/connections/renamed.json", r#"{"name":"other","app":"hanzo-kms","method":"token","credentials":{"token":{"env":"A"}}}"#, 0o600);
    room.put("config/connections/typo.json", r#"{"name":"typo","app":"hanzo-kms","method":"token","credentails":{}}"#, 0o600);
    room.put("config/connections/wide.json", "{}", 0o644);
    std::fs::create_dir(room.path("config/connections/dir.json")).unwrap();
    room.put("config/connections/notes.txt", "no JSON file", 0o644);
    room.put("config/connections/.kms-sync-abc.tmp", "left by a crash", 0o600);

    let all = room.store.connections();
    let names: Vec<&str> = all.iter().map(|l| l.name.as_str()).collect();
    assert_eq!(names, ["dir", "empty", "good", "renamed", "truncated", "typo", "wide"]);
    for loaded in &all {
        match (&loaded.result, loaded.name.as_str()) {
            (Ok(_), "good") => {}
            (Err(broken), _) => {
                assert_eq!(broken.path, loaded.path);
                assert!(!broken.fix.is_empty() && !broken.reason.is_empty());
            }
            (Ok(_), name) => panic!("{name} should be broken"),
        }
    }
    let reason = |name: &str| all.iter().find(|l| l.name == name).unwrap().result.as_ref().unwrap_err().to_string();
    assert!(reason("truncated").contains("truncated: it ends early"));
    assert!(reason("renamed").contains("Rename the file to other.json"));
    assert!(reason("typo").contains("Did you mean credentials?"));
    assert!(room.store.connection("good").is_ok());
    let error = room.store.connection("no-such").unwrap_err();
    assert!(error.text().contains("truncated"), "the broken ones may be the one that was meant: {error}");
}

#[test]
fn a_broken_file_never_shows_its_content() {
    let room = Room::new();
    room.put("config/connections/a.json", r#"{"name":"a","credentials":{"token":"canary-9a"}} trailing canary-9a"#, 0o600);
    room.put("config/connections/b.json", r#"{"name":"b","app":"hanzo-kms","method":"token","credentials":{"token":["canary-9a"]}}"#, 0o600);
    for loaded in room.store.connections() {
        let broken = loaded.result.unwrap_err();
        assert!(!broken.to_string().contains("canary"), "{broken}");
    }
}

#[test]
fn connections_are_found_by_name_and_by_id() {
    let room = Room::new();
    let stored = room.store.save_connection(account("main", "x")).unwrap();
    room.store.save_connection(account("second", "y")).unwrap();
    assert_eq!(room.store.connection(&stored.id).unwrap().name, "main");
    assert_eq!(room.store.connection(&stored.id.to_uppercase()).unwrap().name, "main");
    let error = room.store.connection("mian").unwrap_err();
    assert!(error.text().contains("Did you mean main?"), "{error}");

    let again = room.store.save_connection(account("main", "z")).unwrap();
    assert_eq!(again.id, stored.id, "a replaced connection keeps its id");
    let mut twin = account("third", "x");
    twin.id = stored.id.clone();
    assert_eq!(room.store.save_connection(twin).unwrap_err().kind, StoreErrorKind::Invalid);
    room.store.remove_connection("main").unwrap();
    assert_eq!(room.store.connection("main").unwrap_err().kind, StoreErrorKind::NotFound);
}

#[test]
fn a_file_written_by_hand_has_the_same_id_on_every_load() {
    let room = Room::new();
    let text = r#"{"name":"hand","app":"hanzo-kms","method":"token","credentials":{"token":{"env":"TOKEN"}}}"#;
    room.put("config/connections/hand.json", text, 0o600);
    let (a, b) = (room.store.connection("hand").unwrap(), room.again().connection("hand").unwrap());
    assert_eq!(a.id, b.id);
    assert_eq!(room.store.connection(&a.id).unwrap().name, "hand");
}

#[test]
fn everything_of_a_connection_survives_storing() {
    let room = Room::new();
    let ca = room.put("lan.pem", rcgen::generate_simple_self_signed(vec!["kms.lan".into()]).unwrap().cert.pem(), 0o644);
    let document = json!({
        "name": "main", "app": "hanzo-kms", "method": "token", "description": "The account", "baseUrl": "http://kms.lan:8080/x",
        "caFile": ca, "allowInsecureHttp": true, "credentials": {"token": {"command": ["pass", "show", "kms"]}}
    });
    let stored = room.store.save_connection(connection(document)).unwrap();
    let loaded = room.store.connection("main").unwrap();
    assert_eq!(format!("{stored:?}"), format!("{loaded:?}"));
    assert_eq!(loaded.setting("baseUrl"), Some("http://kms.lan:8080/x"));
}

#[test]
fn what_no_use_could_go_well_with_is_not_stored() {
    let room = Room::new();
    room.put("text.pem", "no certificate", 0o644);
    let document = |ca: &str, token: serde_json::Value| json!({"name": "main", "app": "hanzo-kms", "method": "token", "baseUrl": "http://127.0.0.1:1", "caFile": ca, "credentials": {"token": token}});
    let text = room.path("text.pem").display().to_string();
    for (ca, token, field) in [
        ("/nonexistent/ca.pem", json!("t"), "caFile"),
        (text.as_str(), json!("t"), "caFile"),
        ("", json!({"sealed": "garbled"}), "credentials.token"),
    ] {
        let error = room.store.save_connection(connection(document(ca, token))).unwrap_err();
        assert_eq!((error.kind, error.problems.0[0].field.as_str()), (StoreErrorKind::Invalid, field), "{error}");
    }
    assert!(room.store.connections().is_empty());
}

#[test]
fn an_edit_keeps_the_credentials_that_it_says_are_stored() {
    let room = Room::new();
    room.store.save_connection(account("main", "first-secret-canary")).unwrap();
    let edit = json!({
        "name": "main", "app": "hanzo-kms", "method": "universal-auth", "baseUrl": "http://127.0.0.1:7500",
        "credentials": {"clientId": "client-2", "clientSecret": {"stored": true}}
    });
    let filled = room.store.with_stored_credentials(edit.clone()).unwrap();
    assert!(filled["credentials"]["clientSecret"]["sealed"].is_string(), "{filled}");
    room.store.save_connection(connection(filled)).unwrap();
    let loaded = room.store.connection("main").unwrap();
    let Some(Credential::Sealed(sealed)) = loaded.credentials.get("clientSecret") else { panic!("it is sealed") };
    assert_eq!(room.store.keys().unseal(sealed).unwrap().expose(), "first-secret-canary");
    assert_eq!(loaded.setting("baseUrl"), Some("http://127.0.0.1:7500"));

    for name in ["another", "../main", ""] {
        let mut elsewhere = edit.clone();
        elsewhere["name"] = name.into();
        let error = room.store.with_stored_credentials(elsewhere).unwrap_err();
        assert_eq!(error.problems.0[0].field, "credentials.clientSecret", "{name}: {error}");
    }
}

#[test]
fn settings_have_defaults_and_read_back() {
    let room = Room::new();
    assert_eq!(room.store.settings().unwrap(), Settings::default());
    let settings = Settings {
        poll_interval_secs: 10,
        drift_hours: None,
        drift_action: DriftAction::Report,
        on_failure: Some(vec!["/bin/notify".into(), "x".into()]),
        paused: true,
        mass_delete_percent: 100,
        ..Settings::default()
    };
    room.store.save_settings(&settings).unwrap();
    assert_eq!(room.again().settings().unwrap(), settings);
    room.put("config/settings.json", r#"{"maxRuns": 9, "driftHours": 0}"#, 0o644);
    let loaded = room.store.settings().unwrap();
    assert_eq!((loaded.max_runs, loaded.drift_hours, loaded.runs_per_connection), (9, None, 5));
}

#[test]
fn bad_settings_are_refused_all_at_once() {
    let document = json!({
        "pollIntervalSecs": 9, "driftHours": "six", "driftAction": "ignore", "maxRuns": 0, "massDeletePercent": 101, "onFailure": "notify",
        "onChange": [], "bell": 1, "seal": "keyring", "massDeletePercentage": 5
    });
    let problems = Settings::parse(&document).unwrap_err();
    let fields: Vec<&str> = problems.0.iter().map(|p| p.field.as_str()).collect();
    for field in document.as_object().unwrap().keys() {
        assert!(fields.contains(&field.as_str()), "{field} in {fields:?}");
    }
    assert!(problems.of("massDeletePercentage").unwrap().contains("Did you mean massDeletePercent?"));

    let room = Room::new();
    room.put("config/settings.json", document.to_string(), 0o600);
    let error = room.store.settings().unwrap_err();
    assert_eq!((error.kind, error.problems.0.len()), (StoreErrorKind::Invalid, problems.0.len()));
    assert!(error.path.is_some() && error.fix.is_some());
    assert!(room.store.save_settings(&Settings { poll_interval_secs: 1, ..Settings::default() }).is_err());
    assert_eq!(Settings::default().seal, SealMode::KeyFile);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn garbled_files_are_errors_and_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400), json in arbitrary_json(), cut in 0usize..400) {
        let room = shared();
        let mut truncated = json.to_string().into_bytes();
        truncated.truncate(cut);
        for content in [bytes, json.to_string().into_bytes(), truncated] {
            for file in ["config/connections/x.json", "config/syncs/x.json", "config/settings.json", "state/ledger.key", "state/key.txt"] {
                room.put(file, &content, 0o600);
            }
            let store = room.again();
            let _ = store.connection("x").map(|_| ());
            let _ = store.sync("x").map(|_| ());
            let _ = load(&room.path("config/syncs/x.json")).map(|_| ()).map_err(|e| e.to_string()) as Result<(), String>;
            let _ = store.settings().map(|_| ());
            let _ = store.hasher().map(|_| ());
            let _ = super::super::doctor(&store);
        }
    }

    #[test]
    fn garbled_seals_are_errors_and_never_panics(text in ".{0,200}", cut in 0usize..300, at in 0usize..300, byte in any::<u8>()) {
        let room = shared();
        let keys = super::super::seal::Keys::new(&room.path("sealing"));
        std::fs::create_dir_all(room.path("sealing")).unwrap();
        let sealed = keys.seal(SealMode::KeyFile, &crate::model::SecretValue::new("value")).unwrap();
        let _ = keys.unseal(&text).is_err();
        let _ = keys.unseal(sealed.get(..cut).unwrap_or(&sealed)).is_err();
        let mut bytes = sealed.clone().into_bytes();
        if at < bytes.len() && bytes[at] != byte {
            bytes[at] = byte;
            let changed = String::from_utf8_lossy(&bytes).into_owned();
            // Trailing bits of base64 may be spelt in two ways; the text is never another one.
            if let Ok(value) = keys.unseal(&changed) {
                prop_assert_eq!(value.expose(), "value");
            }
        }
    }
}

thread_local! {
    static SHARED: Room = Room::new();
}

/// One room for the cases of a property: they write the same few files again and again.
fn shared() -> Room {
    SHARED.with(|room| Room { dir: tempfile::tempdir_in(room.dir.path()).unwrap(), store: room.store.clone() })
}

fn arbitrary_json() -> impl Strategy<Value = Value> {
    let words = prop::sample::select(vec![
        "name",
        "app",
        "method",
        "credentials",
        "token",
        "env",
        "file",
        "command",
        "sealed",
        "hanzo-kms",
        "universal-auth",
        "clientId",
        "clientSecret",
        "x",
        "baseUrl",
        "syncOptions",
        "keySchema",
        "destination",
        "destinationConfig",
        "shelf",
        "secretPath",
        "environment",
        "seal",
        "driftHours",
        "onFailure",
        "id",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        words.clone().prop_map(Value::from)
    ];
    leaf.prop_recursive(4, 40, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((words.clone(), inner), 0..8).prop_map(|m| Value::Object(m.into_iter().map(|(k, v)| (k.to_string(), v)).collect()))
        ]
    })
}
