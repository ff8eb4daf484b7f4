//! Who shares a reading with whom.

use std::sync::atomic::AtomicUsize;

use async_trait::async_trait;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::model::{Choice, SecretValue, TestReport};
use crate::source::{Polled, Project, ServerSync, SourceSecret, SourceWrite, WriteOutcome};

/// An account whose readings take until they are let go, and bring their own number.
#[derive(Default)]
struct Stub {
    reads: AtomicUsize,
    broken: AtomicUsize,
    go: Option<Arc<Semaphore>>,
}

#[async_trait]
impl Source for Stub {
    async fn read(&self, cx: &Cx, _at: &SourceRef) -> Result<SourceMap, ApiError> {
        let number = self.reads.fetch_add(1, Ordering::SeqCst) + 1;
        cx.meter().request("kms", "GET /api/v4/secrets", 0, false);
        if let Some(go) = &self.go {
            tokio::select! {
                permit = go.acquire() => permit.expect("open").forget(),
                () = cx.cancel_token().cancelled() => return Err(ApiError::cancelled("kms")),
            }
        }
        if self.broken.load(Ordering::SeqCst) > 0 {
            return Err(ApiError::new(ErrorKind::Transient, "kms", format!("away, asked {number} times")));
        }
        let secret = SourceSecret { key: "KEY".into(), value: SecretValue::new(number.to_string()), metadata: Vec::new(), origin: None };
        Ok(SourceMap { secrets: vec![secret], ..SourceMap::default() })
    }

    async fn test(&self, _cx: &Cx) -> Result<TestReport, ApiError> {
        unimplemented!("nobody asks")
    }

    async fn projects(&self, _cx: &Cx) -> Result<Vec<Project>, ApiError> {
        unimplemented!("nobody asks")
    }

    async fn folders(&self, _cx: &Cx, _at: &SourceRef) -> Result<Vec<Choice>, ApiError> {
        unimplemented!("nobody asks")
    }

    async fn poll(&self, _cx: &Cx, _at: &SourceRef, _etag: Option<&str>) -> Result<Polled, ApiError> {
        unimplemented!("nobody asks")
    }

    async fn write(&self, _cx: &Cx, _at: &SourceRef, _writes: &[SourceWrite]) -> Result<Vec<(String, WriteOutcome)>, ApiError> {
        unimplemented!("nobody asks")
    }

    fn host(&self) -> String {
        "stub".into()
    }

    async fn at_hand(&self) -> bool {
        true
    }

    async fn server_syncs(&self, _cx: &Cx, _project: &str) -> Result<Vec<ServerSync>, ApiError> {
        unimplemented!("nobody asks")
    }

    async fn switch_off(&self, _cx: &Cx, _sync: &ServerSync) -> Result<(), ApiError> {
        unimplemented!("nobody asks")
    }
}

fn place() -> SourceRef {
    SourceRef { project_id: "p".into(), environment: "dev".into(), path: "/app".into(), recursive: false }
}

/// Readings of one place of one account.
#[derive(Clone)]
struct Desk {
    readings: Arc<Readings>,
    stub: Arc<Stub>,
    account: Arc<dyn Source>,
}

type Read = Result<Arc<SourceMap>, ApiError>;

impl Desk {
    fn new(go: Option<Arc<Semaphore>>) -> Self {
        let stub = Arc::new(Stub { go, ..Stub::default() });
        Self { readings: Arc::default(), account: stub.clone(), stub }
    }

    /// One whose readings go on when they are let.
    fn held() -> (Self, Arc<Semaphore>) {
        let go = Arc::new(Semaphore::new(0));
        (Self::new(Some(go.clone())), go)
    }

    fn claim(&self, asked: Moment) -> Claim {
        self.readings.claim(asked, "kms".into(), place())
    }

    async fn read(&self, claim: Claim, cx: &Cx) -> Read {
        self.readings.read(&claim, &self.account, cx, &place()).await
    }

    /// Begins a reading and gives it the time to come as far as it does.
    async fn begin(&self, claim: Claim, cx: &Cx) -> tokio::task::JoinHandle<Read> {
        let (desk, cx) = (self.clone(), cx.clone());
        let task = tokio::spawn(async move { desk.read(claim, &cx).await });
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        task
    }

    fn reads(&self) -> usize {
        self.stub.reads.load(Ordering::SeqCst)
    }
}

fn value(read: &Read) -> String {
    read.as_ref().expect("a reading").secrets[0].value.expose().to_string()
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_for_together_is_read_once_and_counted_once() {
    let desk = Desk::new(None);
    let asked = desk.readings.now();
    let claims: Vec<Claim> = (0..3).map(|_| desk.claim(asked)).collect();
    let mut counts = Vec::new();
    for claim in claims {
        let cx = Cx::quiet();
        assert_eq!(value(&desk.read(claim, &cx).await), "1");
        counts.push(cx.meter().total());
    }
    assert_eq!((desk.reads(), counts), (1, vec![1, 0, 0]));
}

#[tokio::test(start_paused = true)]
async fn those_that_come_meanwhile_wait_for_the_reading_under_way() {
    let (desk, go) = Desk::held();
    let asked = desk.readings.now();
    let (first, second) = (desk.claim(asked), desk.claim(asked));
    let (a, b) = (Cx::quiet(), Cx::quiet());
    let first = desk.begin(first, &a).await;
    let second = desk.begin(second, &b).await;
    assert_eq!((desk.reads(), b.next_wake()), (1, None), "a moment is no wait to speak of");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(b.longest_wait().map(|w| w.reason).as_deref(), Some(WAITS));
    go.add_permits(1);
    assert_eq!((value(&first.await.expect("no panic")), value(&second.await.expect("no panic"))), ("1".into(), "1".into()));
    assert_eq!((a.meter().total(), b.meter().total(), b.next_wake()), (1, 0, None));
}

#[tokio::test(start_paused = true)]
async fn a_run_never_takes_what_was_read_before_it_was_asked_for() {
    let (desk, go) = Desk::held();
    let asked = desk.readings.now();
    let (first, other) = (desk.claim(asked), desk.claim(asked));
    let cx = Cx::quiet();
    let first = desk.begin(first, &cx).await;
    // Asked for while the first reading is under way: an edit may lie between.
    let later = desk.claim(desk.readings.now());
    let later = desk.begin(later, &cx).await;
    go.add_permits(2);
    assert_eq!(value(&first.await.expect("no panic")), "1");
    assert_eq!(value(&later.await.expect("no panic")), "2");
    // One of the first ones may take either.
    assert_eq!(value(&desk.read(other, &cx).await), "2");
    assert_eq!(desk.reads(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_was_written_since_or_is_read_over_another_account_is_not_shared() {
    let desk = Desk::new(None);
    let asked = desk.readings.now();
    let claims: Vec<Claim> = (0..3).map(|_| desk.claim(asked)).collect();
    let [first, second, third] = <[Claim; 3]>::try_from(claims).ok().expect("three");
    let cx = Cx::quiet();
    assert_eq!(value(&desk.read(first, &cx).await), "1");
    desk.readings.outdate();
    assert_eq!(value(&desk.read(second, &cx).await), "2");
    let anew: Arc<dyn Source> = Arc::new(Stub::default());
    assert_eq!(value(&desk.readings.read(&third, &anew, &cx, &place()).await), "1", "of the account that was opened anew");
    // Another place is another reading.
    let elsewhere = SourceRef { recursive: true, ..place() };
    let (here, there) = (desk.claim(asked), desk.readings.claim(asked, "kms".into(), elsewhere.clone()));
    desk.read(here, &cx).await.expect("a reading");
    desk.readings.read(&there, &desk.account, &cx, &elsewhere).await.expect("a reading");
    assert_eq!(desk.reads(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_told_to_those_that_waited_for_it_and_to_nobody_else() {
    let (desk, go) = Desk::held();
    desk.stub.broken.store(1, Ordering::SeqCst);
    let asked = desk.readings.now();
    let (first, waiting, late) = (desk.claim(asked), desk.claim(asked), desk.claim(asked));
    let cx = Cx::quiet();
    let first = desk.begin(first, &cx).await;
    let waiting = desk.begin(waiting, &cx).await;
    go.add_permits(1);
    for failed in [first, waiting] {
        let error = failed.await.expect("no panic").expect_err("it is away");
        assert!(error.text().contains("asked 1 times"), "{error}");
    }
    desk.stub.broken.store(0, Ordering::SeqCst);
    go.add_permits(1);
    assert_eq!(value(&desk.read(late, &cx).await), "2");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_run_takes_no_reading_from_the_others() {
    let (desk, go) = Desk::held();
    let asked = desk.readings.now();
    let (first, second, third) = (desk.claim(asked), desk.claim(asked), desk.claim(asked));
    let stop = CancellationToken::new();
    let (cut, cx) = (Cx::new(stop.clone(), Arc::new(|_| {})), Cx::quiet());
    let first = desk.begin(first, &cut).await;
    let second = desk.begin(second, &cx).await;
    let waiting = CancellationToken::new();
    let third = desk.begin(third, &Cx::new(waiting.clone(), Arc::new(|_| {}))).await;
    stop.cancel();
    assert_eq!(first.await.expect("no panic").expect_err("cancelled").kind, ErrorKind::Cancelled);
    // One that only waits goes at once, too, and the reading of the other goes on.
    waiting.cancel();
    assert_eq!(third.await.expect("no panic").expect_err("cancelled").kind, ErrorKind::Cancelled);
    go.add_permits(1);
    assert_eq!(value(&second.await.expect("no panic")), "2");
    assert_eq!((cut.meter().total(), cx.meter().total()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn values_are_dropped_with_the_last_claim_and_with_age() {
    let desk = Desk::new(None);
    let asked = desk.readings.now();
    let cx = Cx::quiet();
    // Nobody else may take it: it is not kept at all.
    let alone = desk.read(desk.claim(asked), &cx).await.expect("a reading");
    assert_eq!(Arc::strong_count(&alone), 1);
    let (first, second, third) = (desk.claim(asked), desk.claim(asked), desk.claim(asked));
    let kept = Arc::downgrade(&desk.read(first, &cx).await.expect("a reading"));
    assert!(kept.upgrade().is_some());
    drop(desk.read(second, &cx).await);
    drop(third);
    assert!(kept.upgrade().is_none(), "the last one that may come has gone");
    let (first, queued) = (desk.claim(asked), desk.claim(asked));
    let kept = Arc::downgrade(&desk.read(first, &cx).await.expect("a reading"));
    tokio::time::sleep(FRESH + Duration::from_millis(1)).await;
    assert!(kept.upgrade().is_none(), "a run that queues for long keeps no values");
    let before = desk.reads();
    desk.read(queued, &cx).await.expect("a reading");
    assert_eq!(desk.reads(), before + 1);
}
