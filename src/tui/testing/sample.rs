//! The sample world: syncs, connections, a plan, records, and what a service answers.

use serde_json::json;

use super::{after, before};
use crate::destination::{Choice, TestReport};
use crate::model::Time;
use crate::model::board::{Board, Card, LastRun, LiveRun, Next, Phase, Waiting};
use crate::model::connection::ConnectionView;
use crate::model::plan::{Action, ApprovalDoc, ChangeDoc, ConflictDoc, DestinationSide, PlanDoc, SkippedDoc, SourceSide};
use crate::model::run::{Counts, Outcome, Requests, RunKind, RunRecord, RunStatus, SecretOutcome, Trigger};
use crate::model::sync::{EnvironmentRef, FolderRef, SyncDoc};
use crate::service::{ServiceError, ServiceErrorKind};
use crate::source::{Environment, Project};
use crate::tui::fx::{Call, Reply};

fn card(name: &str, kind: &str, label: &str) -> Card {
    Card {
        name: name.into(),
        destination: kind.into(),
        destination_label: label.into(),
        source_label: format!("prod:/{}", name.split('-').next().unwrap_or(name)),
        connection: format!("prod-{}", kind.split('-').next().unwrap_or(kind)),
        enabled: true,
        key_schema: None,
        last: None,
        last_synced: None,
        run: None,
        next: None,
        broken: None,
    }
}

fn last(status: RunStatus, message: Option<&str>, at: Time) -> Option<LastRun> {
    let counts = Counts { updated: 1, unchanged: 55, ..Counts::default() };
    Some(LastRun { id: "r0".into(), kind: RunKind::Sync, status, message: message.map(str::to_string), at, counts })
}

fn outcome(key: &str, outcome: Outcome, reason: Option<&str>) -> SecretOutcome {
    SecretOutcome { key: key.into(), source_key: Some(key.into()), outcome, reason: reason.map(str::to_string) }
}

/// A run in full swing.
pub fn run() -> LiveRun {
    LiveRun {
        id: "r1".into(),
        kind: RunKind::Sync,
        trigger: Trigger::Manual,
        phase: Phase::Applying,
        started_at: before(3),
        queue_position: None,
        done: 34,
        total: 56,
        counts: Counts { created: 28, updated: 4, restored: 1, failed: 1, skipped: 1, unchanged: 22, ..Counts::default() },
        waiting: None,
        recent: [
            outcome("BILL_TLS", Outcome::Skipped, Some("backs a certificate, never touched")),
            outcome("BILL_OLD_CERT", Outcome::Failed, Some("403 AccessDenied: needs PutSecretValue")),
            outcome("BILL_SMTP_PASSWORD", Outcome::Restored, None),
            outcome("BILL_STRIPE_KEY", Outcome::Created, None),
        ]
        .into_iter()
        .collect(),
        active: vec![("BILL_TAX_API_TOKEN".into(), "creating".into())],
        requests: 71,
        retries: 2,
        waited_ms: 1000,
    }
}

/// The sketches' world, on the destinations this build knows.
pub fn board() -> Board {
    let mut board = Board::default();
    board.engine.account = Some("acme on app.kms.hanzo.ai".into());
    (board.engine.running, board.engine.queued, board.engine.standing) = (1, 1, 1);
    board.engine.rates = [("aws", 9.3), ("kms", 0.7), ("oci", 4.0)].map(|(service, rate)| (service.to_string(), rate)).into();
    board.engine.budgets = [
        ("acme", "5871 of 6000 left this minute".to_string()),
        ("prod-azure", "231 of 250 writes left in 10 s, 100 calls/s".into()),
        ("team-bitbucket", "588 of 1000 calls in the last hour".into()),
    ]
    .map(|(connection, budget)| (connection.to_string(), budget))
    .into();
    let mut add = |card: Card| board.cards.insert(card.name.clone(), card);
    let next = |seconds| Some(Next { at: after(seconds), why: "poll".into(), unread: false, drifted: false });
    let synced = last(RunStatus::Succeeded, None, before(12));
    let asks = "Needs approval, nothing was written: 2 keys are not written by this sync, and not in the source";
    add(Card { last: last(RunStatus::NeedsApproval, Some(asks), before(50)), ..card("legacy-pipelines", "azure-devops", "DevOps example-project") });
    add(Card {
        last: last(
            RunStatus::Failed,
            Some("bitbucket 403 Forbidden (request a1b2): the token lacks pipeline:variable. Add the scope and sync again."),
            before(180),
        ),
        next: next(125),
        ..card("ci-variables", "bitbucket", "Bitbucket acme/api")
    });
    add(Card { run: Some(run()), key_schema: Some("BILL_{{secretKey}}".into()), ..card("billing-vault", "aws-secrets-manager", "AWS eu-central-1") });
    let waiting = Waiting { reason: "429, slowed down by the provider".into(), until: Some(after(8)) };
    add(Card { run: Some(LiveRun { waiting: Some(waiting), ..run() }), ..card("oci-staging", "oci-vault", "OCI main") });
    add(Card {
        last: synced.clone(),
        last_synced: Some(before(12)),
        next: next(48),
        ..card("payments-prod", "aws-secrets-manager", "AWS us-east-1")
    });
    add(Card {
        last: synced.clone(),
        last_synced: Some(before(3700)),
        next: next(48),
        ..card("web-prod", "aws-secrets-manager", "AWS us-east-1 (one)")
    });
    let queued = LiveRun {
        phase: Phase::Queued,
        queue_position: Some(1),
        done: 0,
        total: 0,
        counts: Counts::default(),
        active: Vec::new(),
        recent: Default::default(),
        requests: 0,
        retries: 0,
        waited_ms: 0,
        ..run()
    };
    let waiting = Waiting { reason: "another run writes to the same destination (payments-prod)".into(), until: None };
    add(Card {
        run: Some(LiveRun { waiting: Some(waiting), ..queued }),
        last: synced.clone(),
        last_synced: Some(before(900)),
        ..card("vault-west", "azure-key-vault", "Key Vault acme-west")
    });
    let manual = card("sandbox-dev", "aws-secrets-manager", "AWS eu-west-1");
    add(Card { enabled: false, last: last(RunStatus::Succeeded, None, before(180_000)), last_synced: Some(before(180_000)), ..manual });
    board
}

/// Stored connections: one for the source, two for AWS, one for Bitbucket.
pub fn connections() -> Vec<ConnectionView> {
    let view = |name: &str, app: &str, method: &str, public: serde_json::Value| ConnectionView {
        id: format!("id-{name}"),
        name: name.into(),
        app: app.into(),
        method: method.into(),
        public,
        held: if app == "aws" { json!({"secretAccessKey": {"stored": true}}).as_object().cloned().unwrap_or_default() } else { Default::default() },
        used_by: if name == "prod-aws" { vec!["payments-prod".into(), "web-prod".into()] } else { Vec::new() },
    };
    vec![
        view("acme", "hanzo-kms", "universal-auth", json!({"credentials": {"clientId": "c0ffee"}, "baseUrl": "https://kms.acme.example"})),
        view("prod-aws", "aws", "access-key", json!({"credentials": {"accessKeyId": "AKIAEXAMPLE"}})),
        view("test-aws", "aws", "access-key", json!({"credentials": {"accessKeyId": "AKIATEST"}, "endpoint": "http://127.0.0.1:5000"})),
        view("team-bitbucket", "bitbucket", "api-token", json!({"credentials": {"email": "ops@acme.example"}})),
    ]
}

/// The plan of the Review sketch.
pub fn plan() -> PlanDoc {
    let change = |action, key: &str, reason: Option<&str>| ChangeDoc {
        action,
        key: key.into(),
        source_key: Some(key.trim_start_matches("BILL_").into()),
        owned: action != Action::Delete,
        reason: reason.map(str::to_string),
    };
    let ask = |key: &str| ApprovalDoc { key: key.into(), reason: "not written by this sync (changed 2026-03-02)".into() };
    PlanDoc {
        sync: "billing-vault".into(),
        source: SourceSide { secrets: 56, complete: true },
        destination: DestinationSide { keys: 30, complete: true },
        changes: vec![
            change(Action::Create, "BILL_STRIPE_KEY", None),
            change(Action::Create, "BILL_TAX_API_TOKEN", None),
            change(Action::Update, "BILL_DB_PASSWORD", Some("value differs")),
            change(Action::Restore, "BILL_SMTP_PASSWORD", Some("deletion is pending, comes back")),
            change(Action::Delete, "BILL_OLD_CERT", Some("not in the source")),
            change(Action::Delete, "BILL_LEGACY", Some("not in the source")),
        ],
        unchanged: 22,
        skipped: vec![SkippedDoc { key: Some("BILL_TLS".into()), source_key: None, reason: "binary, left alone".into() }],
        conflicts: vec![ConflictDoc { keys: vec!["BILL_A-B".into()], reason: "A_B and A-B both become A-B: neither written".into() }],
        needs_approval: vec![ask("BILL_OLD_CERT"), ask("BILL_LEGACY")],
        warnings: vec!["web-prod also writes there, keys that match WEB_{{secretKey}}.".into()],
        requests: Requests { total: 4, ..Requests::default() },
    }
}

/// Records, newest first.
pub fn history() -> Vec<RunRecord> {
    let record = |id: &str, status, ago: i64, took: i64, counts, secrets| RunRecord {
        id: id.into(),
        sync: "billing-vault".into(),
        kind: RunKind::Sync,
        trigger: if ago > 1000 { Trigger::Auto } else { Trigger::Manual },
        status,
        message: (status == RunStatus::Failed).then(|| "1 secret failed: BILL_OLD_CERT: 403 AccessDenied".to_string()),
        started_at: before(ago),
        finished_at: Some(before(ago - took)),
        counts,
        secrets,
        requests: Requests { total: 12, retries: 1, waited_ms: 400, ..Requests::default() },
    };
    let some = Counts { created: 2, unchanged: 54, ..Counts::default() };
    vec![
        record(
            "r9",
            RunStatus::Failed,
            180,
            7,
            Counts { created: 1, failed: 1, unchanged: 54, ..some },
            vec![
                outcome("BILL_STRIPE_KEY", Outcome::Created, None),
                outcome("BILL_OLD_CERT", Outcome::Failed, Some("403 AccessDenied (request 7c1f): allow secretsmanager:PutSecretValue")),
            ],
        ),
        record("r8", RunStatus::Succeeded, 4000, 2, some, vec![outcome("BILL_STRIPE_KEY", Outcome::Updated, None)]),
        record("r7", RunStatus::Interrupted, 9000, 40, Counts::default(), Vec::new()),
        record("r6", RunStatus::Succeeded, 90_000, 4, some, Vec::new()),
    ]
}

/// A drift check that has mended an outside edit.
pub fn drift_check() -> RunRecord {
    RunRecord {
        id: "r10".into(),
        sync: "payments-prod".into(),
        kind: RunKind::Sync,
        trigger: Trigger::Drift,
        status: RunStatus::Succeeded,
        message: None,
        started_at: before(600),
        finished_at: Some(before(597)),
        counts: Counts { updated: 1, unchanged: 55, ..Counts::default() },
        secrets: vec![outcome("PAY_DB_PASSWORD", Outcome::Updated, Some("was edited outside, is overwritten"))],
        requests: Requests { total: 58, ..Requests::default() },
    }
}

fn document(name: &str) -> SyncDoc {
    SyncDoc {
        id: "5f1d".into(),
        name: name.into(),
        description: Some("keys of the billing service".into()),
        is_enabled: true,
        version: 1,
        folder_id: None,
        connection_id: "id-prod-aws".into(),
        created_at: before(90_000),
        updated_at: before(90_000),
        sync_status: None,
        last_sync_job_id: None,
        last_sync_message: None,
        last_synced_at: None,
        import_status: None,
        last_import_job_id: None,
        last_import_message: None,
        last_imported_at: None,
        remove_status: None,
        last_remove_job_id: None,
        last_remove_message: None,
        last_removed_at: None,
        sync_options: Default::default(),
        project_id: "p1".into(),
        connection: None,
        environment: EnvironmentRef { slug: "prod".into(), name: None, id: None },
        folder: FolderRef { id: None, path: "/billing".into() },
        destination: "aws-secrets-manager".into(),
        destination_config: json!({"region": "eu-central-1", "mappingBehavior": "one-to-one"}).as_object().cloned().expect("an object"),
        source_connection: None,
        waiting: None,
        left_behind: None,
        warnings: Vec::new(),
    }
}

/// The stored request of the edited sync.
pub fn stored() -> serde_json::Value {
    json!({
        "name": "payments-prod", "projectId": "p1", "description": "an example sync", "connectionId": "id-prod-aws", "environment": "prod",
        "secretPath": "/payments", "isEnabled": false, "destination": "aws-secrets-manager",
        "syncOptions": {"initialSyncBehavior": "import-prioritize-source", "keySchema": "PAY_{{secretKey}}", "disableSecretDeletion": true,
            "tags": [{"key": "team", "value": "payments"}]},
        "destinationConfig": {"region": "us-east-1", "mappingBehavior": "one-to-one"},
    })
}

/// A failure of the far side.
pub fn refused(message: &str) -> ServiceError {
    ServiceError::new(ServiceErrorKind::Remote, message)
}

/// What the sample world answers.
pub fn answer(call: &Call) -> Option<Reply> {
    let environment = |slug: &str, name: &str| Environment { slug: slug.into(), name: name.into(), id: None };
    let project = |id: &str, name: &str| Project {
        id: id.into(),
        name: name.into(),
        slug: Some(name.to_lowercase()),
        environments: vec![environment("dev", "Development"), environment("prod", "Production")],
    };
    let choice = |value: &str, label: &str| Choice { value: value.into(), label: label.into(), detail: None };
    Some(match call {
        Call::Connections => Reply::Connections(Ok(connections())),
        Call::Projects { .. } => Reply::Projects(Ok(vec![project("p1", "Acme"), project("p2", "Internal")])),
        Call::Folders(ask) => Reply::Choices(Ok(match ask.path.as_str() {
            "/" => vec![choice("/billing", "billing"), choice("/web", "web")],
            "/billing" => vec![choice("/billing/eu", "eu")],
            _ => Vec::new(),
        })),
        Call::Choices(ask) => Reply::Choices(Ok(vec![choice(&format!("{}-one", ask.field), "One"), choice(&format!("{}-two", ask.field), "Two")])),
        Call::Test { .. } | Call::TestAt { .. } | Call::Try { .. } => {
            Reply::Report(Ok(TestReport { identity: "account 123456789012 as arn:aws:iam::123456789012:user/ops".into(), notes: Vec::new() }))
        }
        Call::SaveConnection { document, .. } => Reply::Connection(Ok(ConnectionView {
            id: "id-new".into(),
            name: document["name"].as_str().unwrap_or_default().into(),
            app: document["app"].as_str().unwrap_or_default().into(),
            method: document["method"].as_str().unwrap_or_default().into(),
            public: json!({}),
            held: Default::default(),
            used_by: Vec::new(),
        })),
        Call::Plan { .. } => Reply::Plan(Ok(plan())),
        Call::ServerRivals { .. } => Reply::Rivals(Ok(Vec::new())),
        Call::Create { input } | Call::Update { input, .. } => Reply::Sync(Ok(document(input.document["name"].as_str().unwrap_or_default()))),
        Call::Enable { name, .. } | Call::Sync { name } => Reply::Sync(Ok(document(name))),
        Call::Syncs => Reply::Syncs(Ok(Vec::new())),
        Call::Document { .. } => Reply::Document(Ok(stored())),
        Call::Start(_) => Reply::Run(Ok("r2".into())),
        Call::History { .. } => Reply::History(Ok(history())),
        Call::Doctor => Reply::Findings(Ok(Vec::new())),
        Call::Draft => Reply::Draft(Ok(None)),
        Call::Check { .. } | Call::Delete { .. } | Call::RemoveConnection { .. } | Call::Cancel { .. } | Call::Approve(_) | Call::Pause(_) => {
            Reply::Act(Ok(()))
        }
        Call::Watch | Call::SwitchOffRival { .. } => return None,
    })
}

/// The sample world with one connection of this app.
pub fn with_one(app: &'static str, call: &Call) -> Option<Reply> {
    match answer(call) {
        Some(Reply::Connections(Ok(mut views))) => {
            let mut view = views[1].clone();
            (view.name, view.app) = (format!("my-{app}"), app.into());
            views.push(view);
            Some(Reply::Connections(Ok(views)))
        }
        other => other,
    }
}
