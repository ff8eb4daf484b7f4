//! Waiting where AWS needs a moment: a name after a deletion, a secret after its restore.

use std::future::Future;
use std::time::Duration;

use crate::http::{ApiError, Cx};

/// Pauses while a name is still blocked after a deletion without recovery; two minutes in all.
const NAME: &[u64] = &[2, 4, 8, 16, 30, 30, 30];
/// Pauses while a restored secret still refuses calls; half a minute in all.
const RESTORE: &[u64] = &[1, 2, 4, 8, 15];

/// The pauses for a blocked name.
#[derive(Default)]
pub struct NamePauses(usize);

impl NamePauses {
    /// Waits once more; gives `error` back when the time is up.
    pub async fn wait(&mut self, cx: &Cx, name: &str, error: ApiError) -> Result<(), ApiError> {
        let Some(seconds) = NAME.get(self.0) else {
            return Err(error.advice("The name stays blocked after a deletion: run again in a few minutes."));
        };
        self.0 += 1;
        cx.wait(&format!("{name}: AWS still blocks the name of the deleted secret"), Duration::from_secs(*seconds)).await
    }
}

/// Repeats a call while a secret that was just restored still says that it is being deleted.
pub async fn settled<T, Fut>(cx: &Cx, name: &str, call: impl Fn() -> Fut) -> Result<T, ApiError>
where
    Fut: Future<Output = Result<T, ApiError>>,
{
    let mut pauses = RESTORE.iter();
    loop {
        match call().await {
            Err(e) if e.code.as_deref() == Some("InvalidRequestException") => match pauses.next() {
                Some(seconds) => cx.wait(&format!("{name}: AWS has not finished restoring the secret"), Duration::from_secs(*seconds)).await?,
                None => return Err(e),
            },
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::http::ErrorKind;

    fn blocked() -> ApiError {
        ApiError::new(ErrorKind::Conflict, super::super::spec::SERVICE, "the name is taken").code("InvalidRequestException")
    }

    #[tokio::test(start_paused = true)]
    async fn a_blocked_name_is_waited_for_two_minutes_at_most() {
        let (cx, begun, mut pauses, mut tries) = (Cx::quiet(), Instant::now(), NamePauses::default(), 0);
        let error = loop {
            tries += 1;
            if let Err(error) = pauses.wait(&cx, "A", blocked()).await {
                break error;
            }
        };
        assert_eq!((tries, begun.elapsed().as_secs()), (8, 120));
        assert!(error.text().contains("a few minutes"), "{error}");
        let begun = Instant::now();
        assert!(settled(&cx, "A", || async { Err::<(), _>(blocked()) }).await.is_err());
        assert_eq!(begun.elapsed().as_secs(), 30, "a restored secret");
        // Another error is not waited out, and a cancelled run waits for nothing.
        let begun = Instant::now();
        assert!(settled(&cx, "A", || async { Err::<(), _>(blocked().code("AccessDeniedException")) }).await.is_err());
        cx.cancel_token().cancel();
        assert_eq!(NamePauses::default().wait(&cx, "A", blocked()).await.expect_err("cancelled").kind, ErrorKind::Cancelled);
        assert_eq!(begun.elapsed().as_secs(), 0);
    }
}
