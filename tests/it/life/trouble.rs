//! What goes wrong around a run: the disk, the credentials, the network, the answers. Each
//! says so, and leaves everything as it was.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;

use kms_sync::sandbox::host::{Effect, Fault};
use serde_json::{Value, json};

use super::yard::Yard;

/// Every file below a directory, with its content.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut out = BTreeMap::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            out.extend(files(&path));
        } else {
            out.insert(path.display().to_string(), std::fs::read(&path).unwrap_or_default());
        }
    }
    out
}

/// Runs the program by a shell that sets a limit first.
fn limited(yard: &Yard, limit: &str, args: &str) -> (i32, String, String) {
    let template = yard.rig.command();
    let mut command = std::process::Command::new("sh");
    command.arg("-c").arg(format!("{limit}; exec '{}' {args}", template.get_program().display())).env_clear();
    for (name, value) in template.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    let output = command.stdin(Stdio::null()).output().expect("a shell");
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_told_and_loses_nothing() {
    let yard = Yard::aws().await;
    yard.place().put("theirs", "theirs");
    for i in 0..60 {
        yard.rig.set(&format!("KEY_{i:02}"), "one");
    }
    yard.create(&yard.document("web", yard.place(), "/app", false, Some("web_{{secretKey}}"))).await;
    let config = files(&yard.rig.config_dir());
    let mut refused = 0;
    // In units of 512 bytes: from nothing at all to a limit that is met in the middle of a run.
    for blocks in [0, 8, 64, 160, 200, 240, 280] {
        let (code, out, err) = tokio::task::block_in_place(|| limited(&yard, &format!("trap '' XFSZ; ulimit -f {blocks}"), "sync web --json"));
        assert!(!err.contains("panicked"), "{blocks}: {err}");
        if code != 0 {
            refused += 1;
            assert_eq!(code, 1, "{blocks}: {out}\n{err}");
            let told = format!("{out}{err}");
            assert!(told.contains("disk") || told.contains("File too large") || told.contains("database"), "{blocks}: {told}");
        }
    }
    assert!(refused >= 2, "no limit was met");
    assert_eq!(files(&yard.rig.config_dir()), config, "the configuration is as it was");
    let good = yard.rig.run(&["sync", "web", "--json"]).await.expect(0);
    assert_eq!(good["runs"][0]["status"], "succeeded");
    assert_eq!(yard.place().values().len(), 61);
    let quiet = yard.rig.run(&["sync", "web", "--json"]).await.expect(0);
    assert_eq!(quiet["runs"][0]["counts"]["unchanged"], 60, "{quiet:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_directory_that_cannot_be_written_is_named() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;

    let yard = Yard::aws().await;
    yard.rig.set("KEY", "one");
    yard.create(&yard.document("web", yard.place(), "/app", false, None)).await;
    let state = yard.rig.state_dir();
    let mode = |dir: &Path, mode: u32| std::fs::set_permissions(dir, std::fs::Permissions::from_mode(mode)).expect("a mode");
    // Modes do not bind root: as somebody else, then, who owns the directories.
    let other = rustix::process::geteuid().is_root().then_some(65_534);
    if let Some(id) = other {
        let home = state.parent().expect("a home");
        let all = std::process::Command::new("chown").args(["-R", &format!("{id}:{id}")]).arg(home).status().expect("chown");
        assert!(all.success());
    }
    mode(&state, 0o500);
    let mut command = yard.rig.command();
    if let Some(id) = other {
        command.uid(id).gid(id);
    }
    let output = tokio::task::block_in_place(|| command.args(["sync", "web"]).output()).expect("the program");
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    mode(&state, 0o700);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains(&state.display().to_string()) && !err.contains("panicked"), "{err}");
    assert_eq!(yard.place().values().len(), 0, "nothing is written that could not be recorded");
}

/// A port where nobody listens. Bound as long as the answer is kept: one that was given back could
/// be another test's server a moment later.
fn closed_port() -> (std::os::fd::OwnedFd, std::net::SocketAddr) {
    use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket};

    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    bind(&socket, &std::net::SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
    let bound = getsockname(&socket).ok().and_then(|a| std::net::SocketAddr::try_from(a).ok()).expect("an address");
    (socket, bound)
}

/// One kind of trouble: what it does to a sync, and what is told.
struct Trouble {
    name: &'static str,
    /// The sync's document, and its connection's name.
    change: fn(&mut Value),
    told: &'static [&'static str],
}

const TROUBLES: &[Trouble] = &[
    Trouble {
        name: "wrong-key",
        change: |d| d["connectionId"] = "wrong-key".into(),
        told: &["SignatureDoesNotMatch", "InvalidSignature", "signature"],
    },
    Trouble { name: "closed-port", change: |d| d["connectionId"] = "closed-port".into(), told: &["connect", "refused", "answers there"] },
    Trouble { name: "web-page", change: |d| d["connectionId"] = "web-page".into(), told: &["what answered is not AWS"] },
    Trouble { name: "no-folder", change: |d| d["secretPath"] = "/missing".into(), told: &["folder no longer exists", "/missing"] },
    Trouble { name: "no-environment", change: |d| d["environment"] = "missing".into(), told: &["missing"] },
    Trouble { name: "wrong-login", change: |d| d["sourceConnection"] = "wrong-login".into(), told: &["login"] },
    Trouble { name: "kms-away", change: |d| d["sourceConnection"] = "kms-away".into(), told: &["connect", "answers there"] },
    Trouble { name: "kms-page", change: |d| d["sourceConnection"] = "kms-page".into(), told: &["is not a Hanzo KMS"] },
];

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_trouble_is_told_and_nothing_is_written() {
    let yard = Yard::aws().await;
    yard.rig.set("KEY", "one");
    let pages = kms_sync::sandbox::host::Host::start(axum::Router::new(), None).await.expect("a port");
    let headers = vec![("content-type".to_string(), "text/html".to_string())];
    let page = Effect::Answer { status: 200, headers, body: "<html><head><title>Sign in</title></head><body>Sign in</body></html>".into() };
    pages.faults.add(Fault::always("", 1.0, page));
    let (_kept, closed) = closed_port();
    let aws = |name: &str, key: Option<&str>, endpoint: Option<&str>| {
        let mut document = yard.place().connection();
        document["name"] = name.into();
        if let Some(key) = key {
            document["credentials"]["secretAccessKey"] = key.into();
        }
        if let Some(endpoint) = endpoint {
            document["endpoint"] = endpoint.into();
        }
        document
    };
    // An identity of its own: rejected logins lock the one they name.
    let other = yard.rig.kms.add_identity("other", "its-secret");
    let kms = |name: &str, url: &str, secret: &str| {
        json!({"name": name, "app": "hanzo-kms", "method": "universal-auth", "baseUrl": url,
            "credentials": {"clientId": other, "clientSecret": secret}})
    };
    let secret = crate::support::rig::CLIENT_SECRET;
    for document in [
        aws("wrong-key", Some("not-the-secret-access-key-of-this-id-00"), None),
        aws("closed-port", None, Some(&format!("http://{closed}"))),
        aws("web-page", None, Some(&pages.url)),
        kms("wrong-login", &yard.rig.kms_host.url, "wrong"),
        kms("kms-away", &format!("http://{closed}"), secret),
        kms("kms-page", &pages.url, secret),
    ] {
        yard.rig.run_with(&["connection", "add", "-f", "-"], &document).await.expect(0);
    }
    for trouble in TROUBLES {
        let mut document = yard.document(trouble.name, yard.place(), "/app", false, None);
        document["sourceConnection"] = "kms".into();
        (trouble.change)(&mut document);
        yard.create(&document).await;
    }
    let config = files(&yard.rig.config_dir());
    yard.place().host().log.clear();
    let tried = TROUBLES.iter().map(async |trouble| {
        let plan = yard.rig.run(&["plan", trouble.name, "--json"]).await;
        let document = plan.json();
        let told = document["error"]["message"].as_str().unwrap_or_default().to_string();
        assert_eq!(plan.code, 1, "{}: {document:#}", trouble.name);
        assert!(trouble.told.iter().any(|t| told.contains(t)), "{}: {told}", trouble.name);
        // Several at once take turns at being the engine.
        let run = yard.rig.run(&["sync", trouble.name, "--json"]).await;
        let record = &run.json()["runs"][0];
        assert_eq!((run.code, &record["status"]), (1, &json!("failed")), "{}: {} {}", trouble.name, run.stdout, run.stderr);
        let told = record["message"].as_str().unwrap_or_default();
        assert!(trouble.told.iter().any(|t| told.contains(t)), "{}: {told}", trouble.name);
        assert!(told.len() < 600 && !told.contains("Sign in</title>"), "{}: {told}", trouble.name);
        let text = yard.rig.run(&["sync", trouble.name]).await;
        assert_eq!(text.code, 1);
        assert!(
            trouble.told.iter().any(|t| format!("{}{}", text.stdout, text.stderr).contains(t)),
            "{}: {} {}",
            trouble.name,
            text.stdout,
            text.stderr
        );
    });
    futures::future::join_all(tried).await;
    assert_eq!(yard.place().values().len(), 0);
    let writes: Vec<String> = yard.place().host().log.lines().into_iter().filter(|l| yard.place().is_write(l)).collect();
    assert_eq!(writes, Vec::<String>::new());
    assert_eq!(files(&yard.rig.config_dir()), config);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_documents_are_refused_before_anything_is_stored() {
    let yard = Yard::aws().await;
    let before = files(&yard.rig.config_dir());
    let mut document = yard.document("web", yard.place(), "/app", true, None);
    document["syncOptions"]["disableSecretDeletoin"] = true.into();
    let refused = yard.rig.run_with(&["create", "-f", "-", "--json"], &document).await;
    assert_eq!(refused.code, 2);
    assert!(refused.json()["error"]["fields"][0]["message"].as_str().is_some_and(|m| m.contains("disableSecretDeletion")), "{}", refused.stdout);
    for (args, code) in
        [(vec!["sync", "nothing"], 2), (vec!["plan", "nothing"], 2), (vec!["create", "-f", "/nonexistent.json"], 2), (vec!["frob"], 2)]
    {
        let answer = yard.rig.run(&args).await;
        assert_eq!(answer.code, code, "{args:?}: {}", answer.stderr);
        assert!(!answer.stderr.is_empty(), "{args:?}");
    }
    assert_eq!(files(&yard.rig.config_dir()), before);
}
