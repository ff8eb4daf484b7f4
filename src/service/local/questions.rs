//! Questions of a screen or a command: somebody waits for the answer, so each has an end.

use std::future::Future;
use std::time::Duration;

use super::{Result, ServiceError, ServiceErrorKind};

/// How long a question may take with all its tries. One request may take as long (the client's
/// own limit), so that a slow server is not cut off before a single answer.
pub(super) const LIMIT: Duration = Duration::from_secs(60);

/// The answer, or an error once [`LIMIT`] has passed. `what` is asked, e.g. `the projects`;
/// `of`: the connection's name.
///
/// # Errors
/// Those of the question, and [`ServiceErrorKind::Unreachable`] at the limit.
pub(super) async fn within<T>(what: &str, of: &str, question: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(LIMIT, question).await {
        Ok(answer) => answer,
        Err(_) => {
            let text = format!(
                "No answer within {} s: {what}, asked through {of}. Check the connection's address, and the network, proxy or firewall on the way.",
                LIMIT.as_secs()
            );
            Err(ServiceError::new(ServiceErrorKind::Unreachable, text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_question_has_an_end_and_says_what_to_check() {
        let begun = tokio::time::Instant::now();
        let error = within::<()>("the projects", "devops", std::future::pending()).await.expect_err("no answer");
        assert_eq!(begun.elapsed().as_secs(), 60);
        assert_eq!(error.kind, ServiceErrorKind::Unreachable);
        assert!(error.message.contains("within 60 s: the projects, asked through devops. Check the connection's address"), "{error}");
        assert_eq!(within("x", "y", async { Ok(1) }).await.expect("an answer"), 1);
    }
}
