//! The terminal app on a real terminal: from an empty configuration to a succeeded sync with
//! the keyboard alone, once for each destination; and its manners towards the terminal.

use kms_sync::destination::form::Input;
use kms_sync::destination::registry;
use kms_sync::model::connection::AppSpec;
use kms_sync::sandbox::world::{Options, World};
use serde_json::Value;

use crate::support::pty::Pty;

/// Directories of its own.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn dirs(&self) -> Vec<String> {
        let path = |name: &str| self.0.path().join(name).to_string_lossy().into_owned();
        vec!["--config-dir".into(), path("config"), "--state-dir".into(), path("state")]
    }

    fn app(&self, columns: u16, rows: u16) -> Pty {
        let dirs = self.dirs();
        let args: Vec<&str> = dirs.iter().map(String::as_str).collect();
        let runtime = self.0.path().join("run").to_string_lossy().into_owned();
        std::fs::create_dir_all(&runtime).expect("a directory");
        Pty::start(&args, &[("XDG_RUNTIME_DIR", &runtime), ("NO_PROXY", "127.0.0.1,localhost")], columns, rows)
    }
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_default()
}

/// Fills the connection form in front, from a connection document, and saves it.
fn fill_connection(pty: &mut Pty, app: &AppSpec, document: &Value) {
    let method = app.methods.iter().find(|m| m.name == text(document, "method")).expect("a method");
    pty.focus("Name");
    pty.send(text(document, "name"));
    pty.focus("Method");
    for _ in 0..app.methods.iter().position(|m| m.name == method.name).unwrap_or(0) {
        pty.key(" ");
    }
    pty.see(method.label);
    for field in method.fields {
        if let Some(value) = document["credentials"][field.name].as_str() {
            pty.focus(field.label);
            pty.paste(value);
        }
    }
    for setting in app.settings {
        if let Some(value) = document[setting.name].as_str() {
            pty.focus(setting.label);
            pty.paste(value);
        }
    }
    if let Some(ca) = document["caFile"].as_str() {
        pty.focus("CA File");
        pty.paste(ca);
    }
    // Test and save, the first button.
    pty.key("PageDown");
    pty.see(&format!("connection {} saved", text(document, "name")));
}

/// Picks a value in the list of the focused field.
fn pick(pty: &mut Pty, label: &str, value: &str) {
    pty.focus(label);
    pty.paste(value);
    // One that is refused takes what was typed.
    let open = |screen: &str| screen.contains("type to filter ─") || screen.contains("type the value ─");
    pty.wait("the list answers", |screen| open(screen) && !screen.contains("asking"));
    pty.key("Enter");
    pty.wait("the list closes", |screen| !open(screen));
}

/// Walks through the five steps for a documented request, and waits for the run.
pub(crate) fn walk(pty: &mut Pty, request: &Value) {
    let provider = registry::find(text(request, "destination")).expect("a known destination");
    let spec = provider.spec();
    pty.see("Where should the secrets go?");
    pty.key("g");
    for _ in 0..registry::kinds().iter().position(|k| *k == spec.kind).unwrap_or(0) {
        pty.key("Down");
    }
    pty.wait("the destination is marked", |screen| screen.contains(&format!("▸ {}", spec.title)));
    pty.key("Enter");
    pty.see(&format!("New sync to {}", spec.title));
    // The only project is taken by itself.
    pick(pty, "Environment", text(request, "environment"));
    pick(pty, "Secret Path", text(request, "secretPath"));
    pty.key("PageDown");
    pty.see("◉ Destination");
    pty.see(&format!("{} Connection", spec.app.title));
    pty.see("✓ works");
    for field in spec.config {
        let Some(value) = request["destinationConfig"][field.name].as_str() else {
            continue;
        };
        match field.input {
            Input::Live { .. } | Input::Suggest(_) => pick(pty, field.label, value),
            Input::Choice(options) => {
                pty.focus(field.label);
                for _ in 0..options.iter().position(|o| o.0 == value).unwrap_or(0) {
                    pty.key(" ");
                }
            }
            _ => {
                pty.focus(field.label);
                pty.key("Ctrl-U");
                pty.paste(value);
            }
        }
    }
    pty.key("PageDown");
    pty.see("Initial Sync Behavior");
    if let Some(note) = spec.import_note {
        pty.see(note);
        assert!(!spec.can_import() && !pty.screen().contains("Import Secrets"), "{}", pty.screen());
    }
    if let Some(schema) = request["syncOptions"]["keySchema"].as_str() {
        pty.focus("Key Schema");
        pty.paste(schema);
    }
    pty.key("PageDown");
    pty.see("The name of your sync. Must be slug-friendly.");
    pty.send(text(request, "name"));
    pty.focus("Description");
    pty.send("made by hand");
    pty.key("PageDown");
    pty.see("Create and sync");
    pty.wait("the plan is there", |screen| screen.contains(" same") || screen.contains("Nothing to change"));
    pty.key("Enter");
    pty.see(&format!("{} in sync:", text(request, "name")));
    pty.see("✓ in sync");
}

/// From nothing to a succeeded sync, at both design sizes.
fn from_nothing(kind: &str) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let app = registry::find(kind).expect("a known destination").spec().app;
    for (columns, rows) in [(80, 24), (120, 40)] {
        let world = runtime.block_on(World::start(Options { quiet: true, ..Options::default() })).expect("the world starts");
        let request = world.syncs().into_iter().find(|s| text(s, "destination") == kind).expect("the embedded world has it");
        let connections = world.connections();
        let of = |app: &str| connections.iter().find(|c| text(c, "app") == app).expect("a connection").clone();
        let home = Home::new();
        let mut pty = home.app(columns, rows);
        pty.see("Welcome to kms-sync");
        pty.key("Enter");
        pty.see("New Hanzo KMS connection");
        fill_connection(&mut pty, &kms_sync::source::APP, &of("hanzo-kms"));
        pty.see("Welcome to kms-sync");
        pty.key("Enter");
        pty.see("New connection");
        // The app is the first field; the KMS is not among them.
        for _ in 0..registry::ALL.iter().position(|p| p.spec().app.app == app.app).unwrap_or(0) {
            pty.key(" ");
        }
        pty.see(app.title);
        fill_connection(&mut pty, app, &of(app.app));
        pty.see("Welcome to kms-sync");
        pty.key("Enter");
        walk(&mut pty, &request);
        pty.key("q");
        assert_eq!(pty.end(), 0);
        assert!(!pty.alternate(), "the terminal is given back");
    }
}

#[test]
fn from_nothing_to_aws_secrets_manager() {
    from_nothing("aws-secrets-manager");
}

#[test]
fn from_nothing_to_azure_key_vault() {
    from_nothing("azure-key-vault");
}

#[test]
fn from_nothing_to_azure_devops() {
    from_nothing("azure-devops");
}

#[test]
fn from_nothing_to_bitbucket() {
    from_nothing("bitbucket");
}

#[test]
fn from_nothing_to_oci_vault() {
    from_nothing("oci-vault");
}

pub(crate) fn signal(pid: i32, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).expect("a pid"), signal).expect("the signal is sent");
}

#[test]
fn every_way_out_gives_the_terminal_back() {
    use rustix::process::Signal;
    for how in [None, Some(Signal::TERM), Some(Signal::HUP), Some(Signal::INT)] {
        let home = Home::new();
        let mut pty = home.app(80, 24);
        pty.see("Welcome to kms-sync");
        assert!(pty.alternate());
        match how {
            None => pty.key("Ctrl-C"),
            Some(how) => signal(pty.pid(), how),
        }
        pty.end();
        assert!(!pty.alternate(), "{how:?}");
    }
}

/// Adds a connection on the command line.
fn add_connection(home: &Home, document: &Value) {
    use std::io::Write as _;
    let mut command = std::process::Command::new(crate::support::KMS_SYNC);
    command.args(home.dirs()).args(["connection", "add", "-f", "-"]).stdin(std::process::Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    child.stdin.take().expect("a pipe").write_all(document.to_string().as_bytes()).expect("the document is sent");
    assert!(child.wait().expect("it ends").success());
}

/// An access token belongs to no user, so it lists no workspaces; here nothing else is listed either.
#[test]
fn where_bitbucket_lists_nothing_everything_is_typed() {
    use kms_sync::sandbox::bitbucket::{At, OAUTH_SCOPES, State, router};
    use kms_sync::sandbox::host::{Effect, Fault, Host};
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let world = runtime.block_on(World::start(Options { quiet: true, ..Options::default() })).expect("the world starts");
    let state = State::new();
    state.add_workspace("acme", None);
    state.add_repository("acme", "api");
    let environment = state.environment("acme", "api", "Production").expect("every repository has it");
    let token = state.add_access_token("acme", Some("api"), OAUTH_SCOPES);
    let host = runtime.block_on(Host::start(router(state.clone()), None)).expect("the stand-in starts");
    let refusal = r#"{"type":"error","error":{"message":"Forbidden"}}"#;
    for list in ["GET /2.0/repositories/acme?", "GET /2.0/repositories/acme/api/environments?"] {
        host.faults.add(Fault::always(list, 1.0, Effect::status(403, refusal)));
    }
    let home = Home::new();
    for document in world.connections().iter().filter(|c| text(c, "app") == "hanzo-kms") {
        add_connection(&home, document);
    }
    let credentials = serde_json::json!({"accessToken": token});
    add_connection(
        &home,
        &serde_json::json!({"name": "bb", "app": "bitbucket", "method": "access-token", "endpoint": host.url, "credentials": credentials}),
    );
    let mut request = world.syncs().into_iter().find(|s| text(s, "destination") == "bitbucket").expect("the embedded world has it");
    request["destinationConfig"] = serde_json::json!({"workspaceSlug": "acme", "repositorySlug": "api", "environmentId": environment});
    let mut pty = home.app(80, 24);
    pty.see("No syncs yet");
    pty.key("n");
    walk(&mut pty, &request);
    pty.key("q");
    assert_eq!(pty.end(), 0);
    let there = state.variables(At::repository("acme", "api").environment(&environment));
    assert!(!there.is_empty() && there.iter().all(|v| v.secured));
    for list in ["GET /2.0/user/workspaces", "GET /2.0/repositories/acme?", "GET /2.0/repositories/acme/api/environments?"] {
        assert!(host.log.count(list) > 0, "{list}: {:?}", host.log.lines());
    }
}

#[test]
fn a_dropped_line_leaves_the_unfinished_sync_for_the_next_start() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let world = runtime.block_on(World::start(Options { quiet: true, ..Options::default() })).expect("the world starts");
    let request = world.syncs().into_iter().find(|s| text(s, "destination") == "aws-secrets-manager").expect("the world has it");
    let home = Home::new();
    for document in world.connections().iter().filter(|c| ["hanzo-kms", "aws"].contains(&text(c, "app"))) {
        add_connection(&home, document);
    }
    let mut pty = home.app(80, 24);
    pty.see("No syncs yet");
    pty.key("n");
    pty.see("Where should the secrets go?");
    pty.key("Enter");
    pty.see("New sync to AWS Secrets Manager");
    pick(&mut pty, "Environment", text(&request, "environment"));
    pick(&mut pty, "Secret Path", text(&request, "secretPath"));
    pty.see(&format!("{} ▾", text(&request, "secretPath")));
    signal(pty.pid(), rustix::process::Signal::HUP);
    pty.end();

    let mut pty = home.app(80, 24);
    pty.see("No syncs yet");
    pty.key("n");
    pty.see("Go on with the unfinished sync?");
    pty.see(&format!("{}:{}", text(&request, "environment"), text(&request, "secretPath")));
    pty.key("Enter");
    pty.see("New sync to AWS Secrets Manager");
    pty.wait("the path is there", |screen| screen.contains(text(&request, "secretPath")));
    pty.key("PageDown");
    pty.see("◉ Destination");
}

#[test]
fn it_follows_every_resize() {
    let home = Home::new();
    let mut pty = home.app(80, 24);
    pty.see("Welcome to kms-sync");
    pty.resize(30, 8);
    pty.see("This terminal is 30x8");
    pty.resize(200, 60);
    pty.wait("the wide screen", |screen| screen.lines().any(|l| l.chars().count() > 190));
    pty.resize(60, 20);
    pty.see("Welcome to kms-sync");
    assert_eq!(pty.quit(), 0);
}

#[test]
fn it_is_stopped_and_continued() {
    let home = Home::new();
    let mut pty = home.app(80, 24);
    pty.see("Welcome to kms-sync");
    signal(pty.pid(), rustix::process::Signal::TSTP);
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while pty.alternate() && std::time::Instant::now() < end {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(!pty.alternate(), "stopped, the shell's screen is back");
    signal(pty.pid(), rustix::process::Signal::CONT);
    pty.wait("the screen is back", |screen| screen.contains("Welcome to kms-sync"));
    assert!(pty.alternate());
    assert_eq!(pty.quit(), 0);
}

#[test]
fn without_a_terminal_it_says_so() {
    let home = Home::new();
    let output = std::process::Command::new(crate::support::KMS_SYNC).args(home.dirs()).output().expect("the program starts");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("terminal"), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_quiet_demo_says_that_nothing_plays_and_the_other_one_can_be_paused() {
    let home = tempfile::tempdir().expect("a directory");
    let env = [("HOME", home.path().to_str().expect("a path"))];
    let mut pty = Pty::start(&["demo", "--quiet-world"], &env, 120, 40);
    pty.see("demo (quiet)");
    pty.wait("the demo's syncs", |screen| screen.contains("in sync"));
    pty.send("w");
    pty.send("?");
    pty.see("Keys that work here");
    assert!(!pty.screen().contains("(paused)"), "{}", pty.screen());
    drop(pty);
    let mut pty = Pty::start(&["demo"], &env, 120, 40);
    pty.wait("the play", |screen| screen.contains("  demo") && screen.contains("in sync"));
    assert!(!pty.screen().contains("demo (quiet)"), "{}", pty.screen());
    pty.send("w");
    pty.see("demo (paused)");
    pty.send("w");
    pty.wait("the play's return", |screen| !screen.contains("(paused)"));
}
