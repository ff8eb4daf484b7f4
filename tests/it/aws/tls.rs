//! TLS with a private authority, and a proxy on the way.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use kms_sync::http::ErrorKind;
use kms_sync::sandbox::aws::{ACCESS_KEY_ID, SECRET_ACCESS_KEY};
use serde_json::json;

use super::direct::{Direct, connection};
use super::lab::{Lab, REGION};
use crate::support::python;

/// A TLS front before a sandbox; ends with its standard input.
struct Front {
    port: String,
    ca: tempfile::NamedTempFile,
    _child: Child,
}

const HOST: &str = "secrets.corp.test";

fn front(lab: &Lab) -> Option<Front> {
    let ca = tempfile::NamedTempFile::new().expect("a file");
    let mut child = Command::new(python::interpreter()?)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vendor/tls_front.py"))
        .args([&lab.host.addr.port().to_string(), ca.path().to_str().expect("a path"), HOST])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the front starts");
    let mut port = String::new();
    BufReader::new(child.stdout.take().expect("its output")).read_line(&mut port).expect("its port");
    Some(Front { port: port.trim().to_string(), ca, _child: child })
}

fn sync(endpoint: &str, ca: Option<&str>) -> Direct {
    let mut connection =
        connection("access-key", json!({"accessKeyId": ACCESS_KEY_ID, "secretAccessKey": SECRET_ACCESS_KEY}), json!({"endpoint": endpoint}));
    connection.ca_file = ca.map(str::to_string);
    Direct::new(connection, json!({"region": REGION, "mappingBehavior": "one-to-one"}), json!({}))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_authority_is_trusted_by_ca_file_only() {
    let lab = Lab::new().await;
    let Some(front) = front(&lab) else { return };
    let endpoint = format!("https://localhost:{}", front.port);
    sync(&endpoint, front.ca.path().to_str()).run(&[("A", "1")]).await.clean();
    assert_eq!(lab.value("A").as_deref(), Some("1"));
    let error = sync(&endpoint, None).try_run(&[], &[]).await.expect_err("an unknown authority");
    assert_eq!(error.kind, ErrorKind::Invalid, "{error}");
    assert!(error.advice.is_some_and(|a| a.contains("caFile")));
    let empty = tempfile::NamedTempFile::new().expect("a file");
    let error = sync(&endpoint, empty.path().to_str()).try_run(&[], &[]).await.expect_err("no certificate");
    assert!(error.message.contains("holds no certificate"), "{error}");
    assert!(sync(&endpoint, Some("/nonexistent")).try_run(&[], &[]).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_of_the_environment_is_used() {
    let lab = Lab::new().await;
    let Some(front) = front(&lab) else { return };
    let endpoint = format!("https://{HOST}:8443");
    let output = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "aws::tls::inner_proxied", "--nocapture"])
        .env("INNER_ENDPOINT", endpoint)
        .env("INNER_CA", front.ca.path())
        .env("HTTPS_PROXY", format!("http://127.0.0.1:{}", front.port))
        .env_remove("NO_PROXY")
        .env_remove("no_proxy")
        .output()
        .expect("the test binary runs");
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(lab.value("PROXIED").as_deref(), Some("1"));
}

#[tokio::test]
async fn inner_proxied() {
    let (Ok(endpoint), Ok(ca)) = (std::env::var("INNER_ENDPOINT"), std::env::var("INNER_CA")) else { return };
    sync(&endpoint, Some(&ca)).run(&[("PROXIED", "1")]).await.clean();
}
