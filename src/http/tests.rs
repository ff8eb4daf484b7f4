//! Answers, retries and addresses of the HTTP client.

use super::*;

fn answer(headers: &[(&'static str, &str)], body: &str) -> Answer {
    let mut map = HeaderMap::new();
    for (k, v) in headers {
        map.insert(*k, v.parse().expect("header value"));
    }
    Answer { status: 200, headers: map, body: Zeroizing::new(body.as_bytes().to_vec()) }
}

#[tokio::test]
async fn a_call_without_a_body_says_so_once() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url: url::Url = format!("http://{}/", listener.local_addr().expect("an address")).parse().expect("a url");
    let server = tokio::spawn(async move {
        let mut heads = Vec::new();
        for _ in 0..3 {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut head = vec![0; 4096];
            let n = stream.read(&mut head).await.expect("a head");
            stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").await.expect("an answer");
            heads.push(String::from_utf8_lossy(&head[..n]).to_lowercase());
        }
        heads
    });
    let http = Http::with(None, false);
    for (method, body) in [(reqwest::Method::POST, None), (reqwest::Method::POST, Some("")), (reqwest::Method::GET, None)] {
        let make = || {
            let request = http.request(method.clone(), url.clone())?;
            Ok(if let Some(body) = body { request.body(body) } else { request })
        };
        http.send(&Cx::quiet(), "test", "CALL", Policy::default(), make).await.expect("an answer");
    }
    let counts: Vec<usize> = server.await.expect("heads").iter().map(|h| h.matches("content-length: 0").count()).collect();
    assert_eq!(counts, [1, 1, 0]);
}

#[tokio::test]
async fn a_write_that_may_have_been_done_is_not_repeated_blind() {
    use crate::sandbox::host::{Effect, Fault, Host};

    for (status, calls) in [(503, 1), (429, 2)] {
        let host = Host::start(axum::Router::new().fallback(|| async { "done" }), None).await.expect("a port");
        let headers = vec![("retry-after".to_string(), "0".to_string())];
        host.faults.add(Fault::next("", 1, Effect::Answer { status, headers, body: String::new() }));
        let (http, url) = (Http::with(None, false), host.url.parse::<url::Url>().expect("a url"));
        let policy = Policy { repeatable: false, ..Policy::default() };
        let answer = http.send(&Cx::quiet(), "test", "PUT", policy, || http.request(reqwest::Method::PUT, url.clone())).await.expect("an answer");
        assert_eq!((answer.ok(), host.log.lines().len()), (status == 429, calls));
    }
}

#[tokio::test]
async fn a_connection_cut_under_tls_is_told_without_the_librarys_manual() {
    use crate::sandbox::host::{Effect, Fault};
    use crate::sandbox::tls::TlsHost;

    let router = axum::Router::new().fallback(|| async { "a whole answer" });
    let host = TlsHost::start(router, None).await.expect("a port");
    host.faults.add(Fault::always("", 1.0, Effect::HalfBody));
    let authority = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(authority.path(), &host.certificate).expect("written");
    let http = Http::with(Some(authority.path().display().to_string()), true);
    let url: url::Url = host.url.parse().expect("a url");
    let policy = Policy { attempts: 1, ..Policy::default() };
    let error = http.send(&Cx::quiet(), "test", "GET", policy, || http.request(reqwest::Method::GET, url.clone())).await.err().expect("cut");
    assert!(error.ambiguous && error.text().contains("close_notify"), "{error}");
    assert!(!error.text().contains("://") && !error.text().contains(":)"), "{error}");
}

#[test]
fn a_body_grows_in_few_steps_and_never_by_itself() {
    let mut body = Zeroizing::new(Vec::with_capacity(10));
    let (mut expected, mut buffers) = (Vec::new(), std::collections::BTreeSet::new());
    for i in 0..5_000u32 {
        let chunk = i.to_be_bytes();
        let room = body.capacity() - body.len();
        let before = body.as_ptr();
        append(&mut body, &chunk);
        assert_eq!(body.as_ptr() == before, room >= chunk.len(), "moved only into a buffer of our own");
        expected.extend_from_slice(&chunk);
        buffers.insert(body.capacity());
    }
    assert_eq!(*body, expected);
    assert!(buffers.len() < 20, "{buffers:?}");
}

#[test]
fn a_compressed_body_is_named_not_shown() {
    let zipped = answer(&[("content-type", "application/json"), ("content-encoding", "gzip")], "\u{1f}\u{8b}{}");
    assert!(!zipped.is_json() && zipped.excerpt() == "a body compressed with gzip");
    let error = zipped.json::<serde_json::Value>("kms").expect_err("not readable");
    assert!(error.text().contains("gzip") && error.text().contains("proxy"), "{error}");
    let plain = answer(&[("content-encoding", "identity")], "{}");
    assert!(plain.is_json() && plain.json::<serde_json::Value>("kms").is_ok());
}

#[test]
fn html_is_not_json_even_when_it_says_so() {
    assert!(answer(&[("content-type", "application/json")], "{}").is_json());
    assert!(!answer(&[("content-type", "text/html")], "{}").is_json());
    assert!(!answer(&[("content-type", "application/json")], " <html>").is_json());
    assert_eq!(answer(&[], "<p>Sign <b>in</b>\n now</p>").excerpt(), "Sign in now");
}

#[test]
fn retry_after_in_both_forms_and_capped() {
    assert_eq!(answer(&[("retry-after", "7")], "").retry_after(), Some(Duration::from_secs(7)));
    assert_eq!(answer(&[("retry-after", "99999999")], "").retry_after(), Some(RETRY_AFTER_CAP));
    let dated = answer(&[("date", "Wed, 21 Oct 2015 07:28:00 GMT"), ("retry-after", "Wed, 21 Oct 2015 07:28:05 GMT")], "");
    assert_eq!(dated.retry_after(), Some(Duration::from_secs(5)));
    assert_eq!(answer(&[("retry-after", "soon")], "").retry_after(), None);
}

#[test]
fn links_to_other_hosts_are_foreign() {
    let base: url::Url = "https://v.vault.azure.net/secrets".parse().expect("url");
    for (link, same) in [
        ("https://v.vault.azure.net:443/x", true),
        ("https://V.vault.azure.net/x", true),
        ("http://v.vault.azure.net/x", false),
        ("https://v.vault.azure.net:8443/x", false),
        ("https://evil.example/x", false),
        ("https://u@v.vault.azure.net/x", false),
    ] {
        assert_eq!(same_origin(&base, &link.parse().expect("url")), same, "{link}");
    }
}

#[test]
fn segments_are_encoded_and_paths_kept() {
    let base: url::Url = "http://127.0.0.1:7400/bitbucket/".parse().expect("url");
    assert_eq!(join(&base, &["2.0", "a b", "{x}"]).as_str(), "http://127.0.0.1:7400/bitbucket/2.0/a%20b/%7Bx%7D");
}

#[test]
fn http_dates_round_trip() {
    let text = "Tue, 02 Jan 2024 03:04:05 GMT";
    assert_eq!(http_date(parse_http_date(text).expect("date")), text);
}
