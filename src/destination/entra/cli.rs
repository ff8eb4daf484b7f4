//! Tokens from the Azure command line's sign-in.

use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;

use super::{SERVICE, Token};
use crate::http::{ApiError, Cx, ErrorKind};
use crate::model::SecretValue;

/// As long as Microsoft's own clients wait for the program.
const LIMIT: Duration = Duration::from_secs(10);

/// The program's name on this system.
pub fn program() -> &'static str {
    if cfg!(windows) { "az.cmd" } else { "az" }
}

/// `az account get-access-token --output json --resource R [--tenant T] [--subscription S]`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Printed {
    access_token: String,
    /// POSIX seconds; newer versions of the program.
    #[serde(rename = "expires_on", default)]
    posix: Option<i64>,
    /// Local time without an offset.
    #[serde(default)]
    expires_on: Option<String>,
}

pub(super) async fn token(cx: &Cx, program: &str, resource: &str, tenant: Option<&str>, subscription: Option<&str>) -> Result<Token, ApiError> {
    let mut command = tokio::process::Command::new(program);
    command.args(["account", "get-access-token", "--output", "json", "--resource", resource]);
    for (flag, value) in [("--tenant", tenant), ("--subscription", subscription)] {
        command.args(value.into_iter().flat_map(|v| [flag, v]));
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let failed = |kind: ErrorKind, text: String| ApiError::new(kind, SERVICE, text);
    let asked = Instant::now();
    let output = tokio::select! {
        () = cx.cancel_token().cancelled() => return Err(ApiError::cancelled(SERVICE)),
        done = tokio::time::timeout(LIMIT, command.output()) => match done {
            Err(_) => return Err(failed(ErrorKind::Transient, format!("{program} gave no token within {} s", LIMIT.as_secs()))
                .advice("Run `az account get-access-token` by hand to see what it waits for.")),
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => return Err(failed(ErrorKind::Auth, format!("{program} was not found on the PATH"))
                .advice("Install the Azure CLI, or choose another method for the connection.")),
            Ok(Err(error)) => return Err(failed(ErrorKind::Auth, format!("{program} could not be started: {error}"))),
            Ok(Ok(output)) => output,
        },
    };
    if !output.status.success() {
        return Err(refused(cx, &String::from_utf8_lossy(&output.stderr)));
    }
    // The output holds the token: errors never quote it.
    let stdout = zeroize::Zeroizing::new(output.stdout);
    let printed: Printed =
        serde_json::from_slice(&stdout).map_err(|_| failed(ErrorKind::Auth, format!("{program} printed something else than a token document")))?;
    if printed.access_token.trim().is_empty() {
        return Err(failed(ErrorKind::Auth, format!("{program} printed a token document without a token")));
    }
    let now = jiff::Timestamp::now();
    let until = printed.posix.or_else(|| local(printed.expires_on.as_deref()?));
    let left = until.map_or(300, |t| t.saturating_sub(now.as_second())).max(0);
    Ok(Token::new(SecretValue::new(printed.access_token), asked, Duration::from_secs(left.unsigned_abs()), None))
}

/// `2026-11-25 03:51:30.000000` in this machine's time zone.
fn local(text: &str) -> Option<i64> {
    let civil: jiff::civil::DateTime = text.trim().replacen(' ', "T", 1).parse().ok()?;
    Some(civil.to_zoned(jiff::tz::TimeZone::system()).ok()?.timestamp().as_second())
}

fn refused(cx: &Cx, stderr: &str) -> ApiError {
    let text = cx.redact(stderr.lines().find(|l| !l.trim().is_empty()).unwrap_or("no message"));
    let error = ApiError::new(ErrorKind::Auth, SERVICE, format!("the Azure CLI gave no token: {text}"));
    if let Some(code) = super::aadsts::code_in(stderr) {
        let (_, advice) = super::aadsts::meaning(code);
        return error.code(format!("AADSTS{code}")).advice(advice.unwrap_or("Run `az login` again."));
    }
    if stderr.contains("az login") {
        return error.advice("Run `az login` on this machine, as the user this program runs as.");
    }
    error.advice("Run `az account get-access-token` by hand to see the whole message.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_programs_print_local_time() {
        assert!(local("2026-11-25 03:51:30.000000").is_some());
        assert_eq!(local("soon"), None);
    }

    #[test]
    fn the_three_failures_have_their_own_advice() {
        let cx = Cx::quiet();
        let login = refused(&cx, "ERROR: Please run 'az login' to setup account.\n");
        assert!(login.text().contains("`az login` on this machine"), "{login}");
        let mfa = refused(&cx, "AADSTS50076: Due to a configuration change ...\nTrace ID: x");
        assert_eq!(mfa.code.as_deref(), Some("AADSTS50076"));
    }
}
