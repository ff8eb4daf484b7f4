//! Values arrive as they are, or the key says why it does not.

use kms_sync::model::run::{Outcome, RunStatus};
use serde_json::json;

use crate::conformance::bench::{Bench, ended, fate};

/// Unicode, line breaks, quotes, control characters, 25 KB: byte for byte.
pub async fn of_every_kind(b: Bench) {
    let long = "0123456789abcdef".repeat(1600);
    let values = [
        ("UNICODE", "pä55wörd \u{1f511} \u{202e}rtl 漢字"),
        ("QUOTES", "\"double\" 'single' `back` \\ back\\slash $dollar %percent% {{x}} <tag> &amp;"),
        ("JSON", "{\"a\": [1, null, \"b\"]}"),
        ("CONTROL", "tab\tbell\u{7}escape\u{1b}[31m"),
        ("SPACES", "in  the  middle"),
        ("EQUALS", "a=b;c=d,e"),
        ("LONG", long.as_str()),
        ("LINES", "-----BEGIN KEY-----\nabc\ndef\n-----END KEY-----"),
        ("NEWLINE", "ends in a newline\n"),
        ("CRLF", "windows\r\nlines"),
    ];
    let many_lines = ["LINES", "NEWLINE", "CRLF"];
    for (key, value) in values {
        b.set(key, value);
    }
    b.create(json!({})).await;
    let record = b.sync().await;
    let held = values.into_iter().filter(|(k, _)| b.nature().multiline || !many_lines.contains(k));
    b.holds(held);
    if b.nature().multiline {
        ended(&record, RunStatus::Succeeded);
        b.settled().await;
    } else {
        ended(&record, RunStatus::Failed);
        assert_eq!(record.counts.failed, 3, "{record:#?}");
        for key in many_lines {
            let (outcome, reason) = fate(&record, key).expect("an outcome");
            assert!(outcome == Outcome::Failed && !reason.is_empty(), "{key}: {reason}");
        }
        b.mark();
        assert_eq!(b.sync().await.counts.writes(), 0);
        assert_eq!(b.writes(), Vec::<String>::new());
    }
}

/// Section 12, row 12: an empty value is a value; where the destination takes none, the key
/// is skipped and what is there stays.
pub async fn empty(b: Bench) {
    b.set("FULL", "f");
    b.set("EMPTY", "");
    b.set("EMPTIED", "before");
    b.create(json!({})).await;
    b.synced().await;
    b.set("EMPTIED", "");
    let record = b.synced().await;
    if b.nature().empty {
        b.holds([("FULL", "f"), ("EMPTY", ""), ("EMPTIED", "")]);
    } else {
        b.holds([("FULL", "f"), ("EMPTIED", "before")]);
        for key in ["EMPTY", "EMPTIED"] {
            let (outcome, reason) = fate(&record, key).expect("an outcome");
            assert!(outcome == Outcome::Skipped && reason.contains("empty"), "{key}: {outcome} {reason}");
        }
        assert_eq!(record.counts.skipped, 2);
    }
    b.settled().await;
}

/// A value over the limit fails alone, offline, and leaves the old value there.
pub async fn too_large(b: Bench) {
    let Some(limit) = b.nature().largest else { return };
    b.set("GROWS", "small");
    b.set("FITS", &"f".repeat(limit));
    b.create(json!({})).await;
    b.synced().await;
    b.set("GROWS", &"g".repeat(limit + 1));
    b.set("GOOD", "g");
    let record = b.sync().await;
    ended(&record, RunStatus::Failed);
    let (outcome, reason) = fate(&record, "GROWS").expect("an outcome");
    assert!(outcome == Outcome::Failed && reason.contains(&(limit + 1).to_string()), "{reason}");
    b.holds([("GROWS", "small"), ("FITS", &"f".repeat(limit)), ("GOOD", "g")]);
}
