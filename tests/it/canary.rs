//! Canaries: secrets planted in values, credentials, tokens and in error answers that echo
//! them, then everything searched that the program printed, logged or left on the disk.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use kms_sync::sandbox::host::{Effect, Fault};
use serde_json::{Value, json};

use crate::life::yard::Yard;

const CANARY: &str = "cNrY";

/// Long enough that no server text cut to size holds all of it; told apart by both its ends.
fn canary(what: &str) -> String {
    format!("{CANARY}{what}qX7 /+&=é{}{what}Qr5 tAiL8", "zW9k".repeat(16))
}

/// The end by which a part of a secret is known.
fn tail(secret: &str) -> String {
    secret.chars().skip(secret.chars().count() - 12).collect()
}

/// A secret as a server may repeat it, beside what is usual: in another case, letter by letter,
/// its end alone, escaped, encoded once and twice. Each tells by its first characters what it is.
fn guises(secret: &str) -> Vec<String> {
    let standard = base64::engine::general_purpose::STANDARD;
    let tail = tail(secret);
    let entities = |text: &str| text.chars().map(|c| format!("&#{};", c as u32)).collect::<String>();
    let escapes = |text: &str| text.encode_utf16().map(|u| format!("\\u{u:04x}")).collect::<String>();
    let joined = |text: &str, with: &str| text.chars().map(String::from).collect::<Vec<_>>().join(with);
    let listed = |text: &str, with: &str| text.bytes().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(with);
    vec![
        secret.to_uppercase(),
        secret.to_lowercase(),
        joined(secret, " "),
        tail.clone(),
        joined(&tail, " "),
        tail.to_uppercase(),
        entities(&tail),
        escapes(&tail),
        listed(secret, "").to_uppercase(),
        joined(&tail, "\u{200b}"),
        joined(&tail, "\u{ad}"),
        joined(&tail, "\u{2060}"),
        listed(&tail, " "),
        listed(&tail, ":"),
        format!("\\x{}", listed(&tail, "\\x")),
        standard.encode(format!("{{\"value\":\"{tail}\"}}")),
        standard.encode(json!({"content": standard.encode(secret)}).to_string()),
    ]
}

/// How a secret could appear: whole or cut, as it is or encoded.
fn forms(secret: &str) -> Vec<Vec<u8>> {
    let end = (12..=secret.len().min(18)).rev().find(|n| secret.is_char_boundary(*n)).unwrap_or(secret.len());
    let head = &secret[..end];
    let standard = base64::engine::general_purpose::STANDARD_NO_PAD;
    let encoded = standard.encode(&head.as_bytes()[..head.len() / 3 * 3]);
    let url: String = percent_encoding::utf8_percent_encode(head, percent_encoding::NON_ALPHANUMERIC).to_string();
    let form: String = url::form_urlencoded::byte_serialize(head.as_bytes()).collect();
    let hex: String = head.bytes().map(|b| format!("{b:02x}")).collect();
    let escaped = Value::String(head.into()).to_string().trim_matches('"').to_string();
    // As one UTF-16 text, which is what some databases would hold.
    let wide: Vec<u8> = head.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut all: Vec<Vec<u8>> = [head.to_string(), encoded, url, form, hex, escaped].map(String::into_bytes).to_vec();
    all.push(wide);
    // A sandbox's own credentials are too short and plain to be told apart by a few characters.
    let guises = if secret.starts_with(CANARY) { guises(secret) } else { Vec::new() };
    all.extend(guises.into_iter().map(|g| g.chars().take(20).collect::<String>().into_bytes()));
    all
}

/// Everything that was said, by what said it.
#[derive(Default)]
struct Heard(Vec<(String, Vec<u8>)>);

impl Heard {
    fn add(&mut self, what: impl Into<String>, text: impl Into<Vec<u8>>) {
        self.0.push((what.into(), text.into()));
    }

    fn files(&mut self, dir: &Path) {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let path: PathBuf = entry.path();
            if path.is_dir() {
                self.files(&path);
            } else if let Ok(bytes) = std::fs::read(&path) {
                self.add(path.display().to_string(), bytes);
            }
        }
    }

    /// Who said a secret, and around where.
    fn leaks(&self, secrets: &[(String, String)]) -> Vec<String> {
        let mut leaks = Vec::new();
        for (name, secret) in secrets {
            for form in forms(secret) {
                for (what, bytes) in &self.0 {
                    if let Some(at) = bytes.windows(form.len()).position(|w| w == form) {
                        let around = &bytes[at.saturating_sub(80)..(at + 60).min(bytes.len())];
                        leaks.push(format!("{name} in {what}: …{}…", String::from_utf8_lossy(around)));
                    }
                }
            }
        }
        leaks
    }
}

/// The secret credentials of a connection document.
fn credentials(document: &Value) -> Vec<(String, String)> {
    const SECRET: &[&str] = &["secretAccessKey", "clientSecret", "accessToken", "apiToken", "privateKey", "passphrase", "token"];
    let all = document["credentials"].as_object().expect("credentials");
    let secret = all.iter().filter(|(k, _)| SECRET.contains(&k.as_str()));
    let text = |v: &Value| {
        let text = v.as_str().expect("a literal credential").to_string();
        // A PEM block begins like any other: its second line is its own.
        text.lines().find(|l| !l.starts_with("-----")).unwrap_or_default().to_string()
    };
    secret.map(|(k, v)| (format!("{}'s {k}", document["name"]), text(v))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_leaves_the_memory() {
    let yard = Yard::new().await;
    let mut heard = Heard::default();
    let mut secrets = vec![("the KMS client secret".to_string(), crate::support::rig::CLIENT_SECRET.to_string())];
    for place in &yard.places {
        let found = credentials(&place.connection());
        assert!(!found.is_empty(), "{}", place.kind());
        secrets.extend(found);
    }
    // A second account, by token; and a credential that only the environment holds.
    let token = yard.rig.kms.issue_token(&yard.rig.client_id).expect("a token");
    // Its first part is the same in every token of its kind.
    let own = token.rsplit('.').next().unwrap_or(&token).to_string();
    secrets.push(("the KMS token".into(), own));
    let account =
        json!({"name": "by-token", "app": "hanzo-kms", "method": "token", "baseUrl": yard.rig.kms_host.url, "credentials": {"token": token}});
    yard.rig.run_with(&["connection", "add", "-f", "-", "-vv"], &account).await.expect(0);
    for i in 0..3 {
        let value = canary(&format!("Value{i}"));
        yard.rig.set(&format!("KEY_{i}"), &value);
        secrets.push((format!("value {i}"), value));
    }
    let theirs = canary("Theirs");
    secrets.push(("a foreign value".into(), theirs.clone()));

    let say = async |heard: &mut Heard, args: &[&str], document: Option<&Value>| {
        let answer = match document {
            Some(document) => yard.rig.run_with(args, document).await,
            None => yard.rig.run(args).await,
        };
        heard.add(format!("{args:?} stdout"), answer.stdout);
        heard.add(format!("{args:?} stderr"), answer.stderr);
        answer.code
    };
    let mut names = Vec::new();
    for (i, place) in yard.places.iter().enumerate() {
        let name = format!("to-{}", place.kind());
        let mut document = yard.document(&name, &**place, "/app", i % 2 == 0, Some("S_{{secretKey}}"));
        document["sourceConnection"] = if i % 2 == 0 { "kms".into() } else { "by-token".into() };
        place.put(&place.key("S_THEIRS"), &theirs);
        if place.nature().imports {
            document["syncOptions"]["initialSyncBehavior"] = "import-prioritize-destination".into();
        }
        say(&mut heard, &["create", "-f", "-", "-vv", "--no-run", "--json"], Some(&document)).await;
        names.push(name);
    }

    let forgive = || {
        yard.places.iter().for_each(|p| {
            p.forgive();
            p.host().faults.clear();
        });
    };
    // Every destination refuses each write and repeats what it was sent, in every guise.
    let refused = |echo: &str| {
        json!({"__type": "InvalidRequestException", "message": echo, "Message": echo, "code": "InvalidParameter",
            "error": {"code": "BadParameter", "message": echo, "detail": format!("{} {echo}", "x".repeat(150))}, "typeKey": "VariableGroupException"})
        .to_string()
    };
    let value = secrets.iter().find(|(n, _)| n == "value 0").map(|(_, s)| s.clone()).expect("a value");
    let all = [&["sync"], names.iter().map(String::as_str).collect::<Vec<_>>().as_slice()].concat();
    for (i, guise) in guises(&value).iter().enumerate() {
        for place in &yard.places {
            place.host().faults.add(Fault::next(place.nature().creation, 100, Effect::status(400, refused(&format!("the value {guise} is bad")))));
        }
        let args = if i % 2 == 0 { [all.as_slice(), &["-vv"]].concat() } else { [all.as_slice(), &["-vv", "--json"]].concat() };
        assert_eq!(say(&mut heard, &args, None).await, 1, "all were refused");
        forgive();
    }
    // Codes and request ids are the server's texts, too.
    let end = tail(&value);
    for place in &yard.places {
        let body = json!({"__type": end, "code": end, "message": "no", "typeKey": end, "error": {"code": end, "message": "no", "id": end}});
        let headers = ["x-amzn-requestid", "x-ms-request-id", "opc-request-id", "activityid", "x-request-id"].map(|h| (h.to_string(), end.clone()));
        let headers = headers.into_iter().chain([("content-type".to_string(), "application/json".to_string())]).collect();
        let answer = Effect::Answer { status: 400, headers, body: body.to_string() };
        place.host().faults.add(Fault::next(place.nature().creation, 100, answer));
    }
    assert_eq!(say(&mut heard, &[all.as_slice(), &["--json"]].concat(), None).await, 1, "all were refused");
    forgive();
    // And with an error that repeats all of it, in texts of several kinds.
    let echo = secrets.iter().filter(|(n, _)| n.contains("value")).map(|(_, s)| s.as_str()).collect::<Vec<_>>().join(" | ");
    for place in &yard.places {
        let padding = "x".repeat(150);
        for (round, (status, kind, body)) in [
            (400, "application/json", refused(&echo)),
            (400, "text/html", format!("<html><body>{padding}{echo}</body></html>")),
            (403, "text/plain", format!("{padding} {echo}")),
            (400, "application/json", format!("{{\"torn\": \"{padding}{echo}")),
        ]
        .into_iter()
        .enumerate()
        {
            let round = round as u32;
            let headers = vec![("content-type".to_string(), kind.to_string()), ("x-request-id".to_string(), "r-1".to_string())];
            // One after the other: a fault counts only the requests that reach it.
            place.host().faults.add(Fault::next(place.nature().creation, 1, Effect::Answer { status, headers, body }).after(round));
        }
    }
    for name in &names {
        for round in 0..4 {
            let args: &[&str] = if round % 2 == 0 { &["sync", name, "-vv"] } else { &["sync", name, "-vv", "--json"] };
            say(&mut heard, args, None).await;
        }
    }
    // And the KMS repeats what it was asked with.
    let padding = "y".repeat(560);
    let asked = |sent: &str| format!("not understood: {sent} {padding}{sent}");
    let refusal = |sent: &str| json!({"statusCode": 400, "message": asked(sent), "error": "BadRequest"}).to_string();
    let ids = |sent: &str| json!({"statusCode": 400, "message": "no", "error": format!("q {sent}"), "reqId": format!("q {sent}")}).to_string();
    for (name, sent) in [(&names[0], crate::support::rig::CLIENT_SECRET), (&names[1], token.as_str())] {
        for command in ["sync", "plan"] {
            for body in [refusal(sent), ids(sent)] {
                yard.rig.kms_host.faults.add(Fault::next("GET /api/v4/secrets", 1, Effect::status(400, body)));
                say(&mut heard, &[command, name, "-vv", "--json"], None).await;
            }
        }
    }
    let sent = crate::support::rig::CLIENT_SECRET;
    yard.rig.kms_host.faults.add(Fault::next("/auth/universal-auth/login", 1, Effect::status(401, ids(sent))));
    say(&mut heard, &["connection", "test", "kms", "-vv", "--json"], None).await;
    yard.rig.kms_host.faults.add(Fault::next("/auth/universal-auth/login", 2, Effect::status(401, refusal(sent))));
    say(&mut heard, &["connection", "test", "kms", "-vv", "--json"], None).await;
    say(&mut heard, &["sync", &names[0], "-vv"], None).await;
    yard.rig.kms_host.faults.clear();
    forgive();

    // The engine, both ways of logging, failing and well; and a change while it runs.
    for format in ["text", "json"] {
        let round = canary(&format!("Live{format}"));
        secrets.push((format!("the value of the {format} log's time"), round.clone()));
        let refused = json!({"__type": "InvalidRequestException", "message": round}).to_string();
        yard.places[0].host().faults.add(Fault::next("PutSecretValue", 1, Effect::status(400, refused)));
        let mut engine = yard.engine(&["-vv", "--log-format", format]).await;
        yard.rig.set("KEY_0", &round);
        let name = &names[0];
        engine.says(&format!("{name} failed")).await;
        let next = canary(&format!("Next{format}"));
        secrets.push((format!("the value after a failure in the {format} log"), next.clone()));
        yard.rig.set("KEY_0", &next);
        engine.says(&format!("{name}: 1 updated")).await;
        // A face's questions go over the socket.
        for args in [vec!["connection", "test", "kms"], vec!["sync", name, "--json"], vec!["connection", "list", "--json"]] {
            say(&mut heard, &args, None).await;
        }
        engine.signal(rustix::process::Signal::TERM);
        engine.end().await;
        heard.add(format!("run --log-format {format}"), engine.lines().join("\n"));
    }

    for name in &names {
        for words in [
            vec!["plan"],
            vec!["plan", "--verify"],
            vec!["sync", "--verify", "--allow-delete"],
            vec!["import"],
            vec!["import", "--prioritize", "destination"],
            vec!["show"],
            vec!["history"],
            vec!["remove-secrets", "--yes"],
        ] {
            let (command, rest) = words.split_first().expect("a word");
            for json in [&["-vv"][..], &["-vv", "--json"]] {
                let args = [&[*command, name.as_str()], rest, json].concat();
                say(&mut heard, &args, None).await;
            }
        }
    }
    for args in [&["list"][..], &["connection", "list"], &["doctor"]] {
        for json in [&["-vv"][..], &["-vv", "--json"]] {
            say(&mut heard, &[args, json].concat(), None).await;
        }
    }
    for connection in ["kms", "by-token"].into_iter().chain(yard.places.iter().map(|p| p.kind())) {
        let code = say(&mut heard, &["connection", "test", connection, "-vv", "--json"], None).await;
        assert_eq!(code, 0, "{connection}");
    }
    for name in &names {
        say(&mut heard, &["delete", name, "--yes", "-vv"], None).await;
    }
    let spoken = heard.0.iter().map(|(_, b)| b.len()).sum::<usize>();
    heard.files(&yard.rig.config_dir());
    heard.files(&yard.rig.state_dir());

    // The search finds what is there to be found.
    let proof = [("a name".to_string(), names[0].clone())];
    assert!(!heard.leaks(&proof).is_empty() && spoken > 10_000, "{spoken}");
    assert!(heard.0.iter().any(|(what, _)| what.ends_with("kms-sync.db")), "the database was searched");
    let leaks = heard.leaks(&secrets);
    assert!(leaks.is_empty(), "{} leaks of {} canaries:\n{}", leaks.len(), secrets.len(), leaks.join("\n"));
}
