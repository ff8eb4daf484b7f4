//! What went wrong with a call, in the operator's words.

use std::time::Duration;

use crate::model::text::brief;

/// The class of a failure: code decides on it, so every provider maps its own codes here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::Display)]
#[strum(serialize_all = "kebab-case")]
pub enum ErrorKind {
    /// The credential is wrong, expired or revoked: nothing else of this connection will work.
    Auth,
    /// The credential is good, a right is missing.
    Permission,
    NotFound,
    /// Somebody else's change or object is in the way.
    Conflict,
    /// The provider refuses the input for good (name, size, shape), or our configuration is wrong.
    Invalid,
    /// A quota is full (not a rate): no retry helps.
    Quota,
    /// A rate limit: slower, then again.
    Throttled,
    /// The object is between two states: wait for it.
    Unsettled,
    /// 5xx, time-outs, resets.
    Transient,
    /// The host does not resolve or does not accept connections.
    Unreachable,
    /// What answered is not the service (HTML, a proxy, another product).
    NotTheService,
    Cancelled,
}

impl ErrorKind {
    /// True when the same call may succeed a little later.
    pub fn passing(self) -> bool {
        matches!(self, Self::Throttled | Self::Unsettled | Self::Transient | Self::Unreachable)
    }

    /// True when every other call of the same connection would fail likewise.
    pub fn whole_connection(self) -> bool {
        matches!(self, Self::Auth | Self::Unreachable | Self::NotTheService | Self::Cancelled)
    }
}

/// A sentence without the separator of a part that was empty, before or behind it.
fn whole(message: &str) -> String {
    let message = message.trim().trim_start_matches(':').trim_start();
    let cut = message.strip_suffix("()").unwrap_or(message).trim_end().trim_end_matches(':').trim_end();
    if cut.is_empty() { "no reason was given".to_string() } else { cut.to_string() }
}

/// A failed call. The texts are sanitised and hold no secret: build them through
/// [`super::Cx::redact`] wherever a server's text goes in.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", self.text())]
pub struct ApiError {
    pub kind: ErrorKind,
    /// The provider's word, e.g. `aws`.
    pub service: String,
    /// What failed and what the provider said.
    pub message: String,
    /// The provider's own code.
    pub code: Option<String>,
    pub status: Option<u16>,
    pub request_id: Option<String>,
    /// What the operator can do.
    pub advice: Option<String>,
    /// True when the call may have taken effect all the same.
    pub ambiguous: bool,
    /// True when nothing was sent, because another operation's failure told that it is in vain.
    pub unsent: bool,
    pub retry_after: Option<Duration>,
}

impl ApiError {
    /// A failure with its class and text.
    pub fn new(kind: ErrorKind, service: &str, message: impl AsRef<str>) -> Self {
        Self {
            kind,
            service: service.to_string(),
            message: whole(&brief(message.as_ref(), 600)),
            code: None,
            status: None,
            request_id: None,
            advice: None,
            ambiguous: false,
            unsent: false,
            retry_after: None,
        }
    }

    /// The run was cancelled.
    pub fn cancelled(service: &str) -> Self {
        Self::new(ErrorKind::Cancelled, service, "cancelled")
    }

    pub fn code(mut self, code: impl AsRef<str>) -> Self {
        self.code = Some(brief(code.as_ref(), 120)).filter(|c| !c.is_empty());
        self
    }

    pub fn status(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }

    pub fn request_id(mut self, id: Option<impl AsRef<str>>) -> Self {
        self.request_id = id.map(|i| brief(i.as_ref(), 120)).filter(|i| !i.is_empty());
        self
    }

    /// Without the code and the request id where these repeat a secret: they are the server's
    /// texts as much as its message is.
    pub fn masked(mut self, cx: &super::Cx) -> Self {
        let clean = |text: Option<String>| text.filter(|t| cx.redact(t) == *t);
        self.code = clean(self.code);
        self.request_id = clean(self.request_id);
        self
    }

    pub fn advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    pub fn ambiguous(mut self, ambiguous: bool) -> Self {
        self.ambiguous = ambiguous;
        self
    }

    /// The error of a further operation that is not sent after this one; `why` begins its
    /// sentence: `not sent, because a write of this run was refused`.
    pub fn unsent(mut self, why: &str) -> Self {
        self.message = format!("{why}: {}", self.message);
        self.ambiguous = false;
        self.unsent = true;
        self
    }

    pub fn retry_after(mut self, wait: Option<Duration>) -> Self {
        self.retry_after = wait;
        self
    }

    /// The whole text: message, provider's code, status and request id, advice.
    pub fn text(&self) -> String {
        let mut facts = Vec::new();
        if let Some(status) = self.status {
            facts.push(status.to_string());
        }
        if let Some(code) = &self.code {
            facts.push(code.clone());
        }
        let message = whole(&self.message);
        let mut out = if self.service == "kms-sync" {
            message
        } else if facts.is_empty() {
            format!("{}: {message}", self.service)
        } else {
            format!("{} {}: {message}", self.service, facts.join(" "))
        };
        if let Some(id) = &self.request_id {
            out.push_str(&format!(" (request {id})"));
        }
        if let Some(advice) = &self.advice {
            if !out.ends_with(['.', '!', '?']) {
                out.push('.');
            }
            out.push(' ');
            out.push_str(advice);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_is_empty_leaves_no_hole() {
        for (message, text) in [
            (": the connection broke", "x: the connection broke"),
            ("set KEY: ", "x: set KEY"),
            ("it broke ()", "x: it broke"),
            ("  ", "x: no reason was given"),
            ("set KEY: refused", "x: set KEY: refused"),
        ] {
            assert_eq!(ApiError::new(ErrorKind::Invalid, "x", message).text(), text);
        }
        let mut error = ApiError::new(ErrorKind::Invalid, "x", "refused");
        error.message = format!("set KEY: {}", "");
        assert_eq!(error.status(400).advice("Look.").text(), "x 400: set KEY. Look.");
    }
}
