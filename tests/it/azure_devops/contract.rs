//! Every request of ours, and every answer of the stand-in, held against a written contract:
//! a third-party proxy (npm `@stoplight/prism-cli`) stands between the two and refuses what
//! `tests/vendor/devops-prism/calls.json` does not allow.

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kms_sync::destination::Provider as _;
use kms_sync::destination::azure_devops::AzureDevOps;
use kms_sync::http::Cx;
use kms_sync::model::Map;
use kms_sync::sandbox::azure_devops::Variable;
use kms_sync::sandbox::host::{Effect, Fault};
use serde_json::{Value, json};

use super::rig::{Rig, TOKEN, config, connection, rig};
use crate::conformance::bench::Bench;
use crate::conformance::{cases, places};
use crate::support::node;

/// The proxy, and what it said.
struct Prism {
    child: Child,
    url: String,
    said: Arc<Mutex<Vec<String>>>,
    marks: AtomicUsize,
}

impl Prism {
    /// Starts before a service; `None` (said loudly) where it cannot be installed.
    fn start(upstream: &str) -> Option<Self> {
        let modules = node::install("devops-prism")?;
        let contract = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vendor/devops-prism/calls.json");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
        let mut child = Command::new("node")
            .arg(modules.join("@stoplight/prism-cli/dist/index.js"))
            .arg("proxy")
            .arg(contract)
            .args([upstream, "--errors", "--port", &port.to_string()])
            .env("NO_PROXY", "127.0.0.1,localhost")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("node starts");
        let said = Arc::new(Mutex::new(Vec::new()));
        let (lines, sink) = (BufReader::new(child.stdout.take().expect("its output")), said.clone());
        std::thread::spawn(move || lines.lines().map_while(Result::ok).for_each(|line| sink.lock().expect("lock").push(line)));
        let prism = Self { child, url: format!("http://127.0.0.1:{port}"), said, marks: AtomicUsize::new(0) };
        prism.wait_for("listening on");
        Some(prism)
    }

    /// Lines of its log that tell of a breach.
    fn complaints(&self) -> Vec<String> {
        // The log comes after the answers: a request of our own that is a breach ends it.
        let mark = format!("/mark-{}", self.marks.fetch_add(1, Ordering::Relaxed));
        let mut stream = TcpStream::connect(self.url.trim_start_matches("http://")).expect("the proxy is there");
        write!(stream, "GET {mark} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").expect("sent");
        stream.read_to_end(&mut Vec::new()).expect("an answer");
        self.wait_for(&format!("{mark} ✖"));
        // An answer that the service lost on its way to the proxy breaks no rule.
        let lost = |line: &str| line.contains("Request terminated with error: FetchError");
        self.lines().into_iter().filter(|l| l.contains('✖') && !l.contains("/mark-") && !lost(l)).collect()
    }

    fn lines(&self) -> Vec<String> {
        self.said.lock().expect("lock").clone()
    }

    fn wait_for(&self, text: &str) {
        let begun = Instant::now();
        while !self.lines().iter().any(|l| l.contains(text)) {
            assert!(begun.elapsed() < Duration::from_secs(60), "the proxy does not say {text:?}: {:#?}", self.lines());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Prism {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs conformance cases behind the proxy, one after the other.
macro_rules! keeps_the_contract {
    ($($group:ident::$case:ident),* $(,)?) => {{
        let mut complaints: Vec<String> = Vec::new();
        $(
            let mut front = None;
            let place = places::azure_devops::start_at(|url| {
                front = Prism::start(url);
                front.as_ref().map_or_else(String::new, |f| f.url.clone())
            })
            .await;
            let Some(front) = front else { return };
            cases::$group::$case(Bench::new(place).await).await;
            complaints.extend(front.complaints().into_iter().map(|line| format!("{}: {line}", stringify!($case))));
        )*
        assert!(complaints.is_empty(), "{complaints:#?}");
    }};
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conformance_cases_break_no_rule() {
    keeps_the_contract!(
        basics::life_of_keys,
        basics::five_hundred_secrets,
        deleting::removal_takes_ours_only,
        foreign::untouched_outside_the_schema,
        foreign::overwritten_after_approval,
        values::of_every_kind,
        names::at_their_limits,
        drift::edited_outside,
        sharing::two_syncs_at_once,
        trouble::bad_secrets,
        trouble::throttling_storm,
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conformance_cases_with_trouble_break_no_rule() {
    keeps_the_contract!(
        trouble::lost_answers,
        trouble::lost_answers_to_changes,
        trouble::half_answers,
        trouble::killed_and_resumed,
        values::empty,
        source::emptied,
        deleting::edited_and_removed_comes_back_as_the_source_has_it,
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conformance_cases_of_edited_syncs_break_no_rule() {
    keeps_the_contract!(
        edits::cleared_schema_asks,
        edits::another_schema_asks,
        edits::deletion_switched_on_asks,
        edits::environment_renamed,
        left_behind::at_an_earlier_target,
        left_behind::under_an_earlier_schema,
        left_behind::edited_since,
        left_behind::removed_with_the_rest,
        left_behind::out_of_reach,
        left_behind::nothing_by_another_name,
        left_behind::edited_file_asks,
        left_behind::another_source_asks,
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_pickers_renamed_groups_and_foreign_variables_break_no_rule() {
    let rig = rig().await;
    let Some(front) = Prism::start(&rig.host.url) else { return };
    let session = |token: &str| {
        let made = connection("access-token", &front.url, &[("orgName", "contoso"), ("accessToken", token)], &[]);
        AzureDevOps.connect(made, rig.memory.clone()).expect("a session")
    };
    rig.state.page(2);
    rig.state.project("Another project");
    rig.state.project("A third one");
    let cx = Cx::quiet();
    assert_eq!(session(TOKEN).choices(&cx, "devopsProjectId", &Map::new()).await.expect("projects").len(), 3);
    session(TOKEN).test(&cx, Some(&config(&[("devopsProjectId", "fabrikam")]))).await.expect("good");
    session("nobody").test(&cx, None).await.expect_err("refused");
    for name in ["Prod", "Prod (EU)", "Prod (EU) 2"] {
        rig.state.group(&rig.project, name, &[("X", Variable::plain("x"))]);
    }
    let mut sync = rig.sync("a");
    sync.session = session(TOKEN);
    sync.environment = Some("Prod (EU) & 50% *".into());
    sync.run(&[("A", "1"), ("B", "line\r\ntwo")]).await;
    let id = rig.state.find(&rig.project, "Prod (EU) & 50% *").expect("the group");
    for (name, variable) in
        [("P", Variable::plain("")), ("S", Variable::secret("theirs")), ("R", Variable::secret("ro").read_only().with("contentType", json!("x")))]
    {
        rig.state.set(id, name, variable);
    }
    sync.run(&[("A", "2")]).await;
    assert_eq!(rig.state.variables(id).len(), 4);
    // Group by id, there and gone; a project that does not exist; a taken name.
    rig.state.rename(id, "Elsewhere");
    sync.try_run(&cx, &[("A", "3")]).await.expect_err("renamed");
    rig.state.delete(id);
    sync.run(&[("A", "4")]).await;
    sync.remove().await.expect("removed");
    sync.config = config(&[("devopsProjectId", "00000000-1111-2222-3333-444444444444")]);
    sync.try_run(&cx, &[("A", "5")]).await.expect_err("no such project");
    let hidden = rig.state.group(&rig.project, "Hidden", &[("X", Variable::plain("x"))]);
    rig.state.hide(hidden, true);
    let mut taken = rig.sync("b");
    (taken.session, taken.environment) = (session(TOKEN), Some("Hidden".into()));
    taken.try_run(&cx, &[("A", "1")]).await.expect_err("taken");
    assert_eq!(front.complaints(), Vec::<String>::new());
    assert!(front.lines().iter().any(|l| l.contains("delete /contoso/")), "the proxy saw the calls: {:#?}", front.lines());
}

/// One request through the proxy: its status, and whether the service got to see it.
async fn sent(rig: &Rig, front: &Prism, method: &str, tail: &str, body: Option<Value>) -> (u16, bool) {
    // A second install fails because the first one stands: both are ring.
    let _ = rustls::crypto::ring::default_provider().install_default();
    rig.host.log.clear();
    let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
    let mut request = reqwest::Client::new().request(method, format!("{}/contoso{tail}", front.url)).basic_auth("", Some(TOKEN));
    if let Some(body) = body {
        request = request.json(&body);
    }
    let status = request.send().await.expect("an answer").status().as_u16();
    (status, !rig.host.log.lines().is_empty())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_catches_what_it_must() {
    let rig = rig().await;
    let Some(front) = Prism::start(&rig.host.url) else { return };
    const GROUPS: &str = "/_apis/distributedtask/variablegroups";
    let reference = |id: &str| json!([{"name": "G", "projectReference": {"id": id}}]);
    let group = |variables: Value, references: Value| {
        Some(json!({"name": "G", "type": "Vsts", "variables": variables, "variableGroupProjectReferences": references}))
    };
    let good = json!({"A": {"value": "1", "isSecret": true}});
    let post = |version: &str| format!("{GROUPS}{version}");
    let v = "?api-version=7.1";
    for (method, tail, body) in [
        ("GET", format!("/{}{GROUPS}?groupName=G", rig.project), None),
        ("POST", post(""), group(good.clone(), reference(&rig.project))),
        ("POST", post(v), Some(json!({"name": "G", "type": "Vsts", "variables": good}))),
        ("POST", post(v), group(good.clone(), json!([]))),
        ("POST", post(v), group(good.clone(), reference("Fabrikam"))),
        ("POST", post(v), group(json!({}), reference(&rig.project))),
        ("POST", post(v), group(json!({"A": {"value": 1}}), reference(&rig.project))),
        ("DELETE", format!("{GROUPS}/1{v}"), None),
        ("PUT", format!("{GROUPS}/x{v}"), group(good.clone(), reference(&rig.project))),
    ] {
        let before = front.complaints().len();
        assert_eq!(sent(&rig, &front, method, &tail, body.clone()).await, (422, false), "{method} {tail} {body:?}");
        assert_eq!(front.complaints().len(), before + 1, "{:#?}", front.lines());
    }
    assert_eq!(sent(&rig, &front, "POST", &post(v), group(good, reference(&rig.project))).await, (200, true));
    // And an answer of the stand-in that is not as the service's.
    let headers = vec![("content-type".to_string(), "application/json".to_string())];
    rig.host.faults.add(Fault::next("GET", 1, Effect::Answer { status: 200, headers, body: json!({"count": 1, "value": [{}]}).to_string() }));
    assert_eq!(sent(&rig, &front, "GET", &format!("/{}{GROUPS}{v}", rig.project), None).await, (500, true));
}
