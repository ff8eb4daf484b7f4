//! One run from beginning to end: source, destination, plan, import, writes, record.

use std::sync::Arc;

use tokio::sync::OwnedMutexGuard;

use super::pool::Pool;
use super::progress::Progress;
use super::readings::{Claim, Readings};
use super::steps::{Opened, failures, target, withdraw_frozen};
use crate::destination::Destination;
use crate::http::{ApiError, Cx, ErrorKind};
use crate::model::board::Phase;
use crate::model::plan::{ChangeDoc, PlanDoc};
use crate::model::run::{Priority, RunKind, RunRequest, RunStatus, Trigger};
use crate::model::sync::{InitialSyncBehavior, SyncConfig, SyncState};
use crate::plan::import as importing;
use crate::source::SourceMap;
use crate::store::Store;

/// What a run is to do.
#[derive(Clone)]
pub struct RunSpec {
    pub config: SyncConfig,
    pub state: SyncState,
    pub kind: RunKind,
    pub trigger: Trigger,
    pub verify: bool,
    pub rewrite: bool,
    pub allow_delete: bool,
    /// Go on without what needs approval, instead of stopping before the first write.
    pub withhold: bool,
    pub prioritize: Option<Priority>,
    /// A removal takes away only what earlier settings wrote and the present ones no longer reach.
    pub left_behind: bool,
    /// The source as the poll that triggered this run has read it.
    pub source: Option<Arc<SourceMap>>,
    /// What it may share with others that read the same; without, it is asked for when it reads.
    pub claim: Option<Arc<Claim>>,
}

impl RunSpec {
    /// The request that asks for the same again.
    pub fn request(&self) -> RunRequest {
        RunRequest {
            sync: self.config.name.clone(),
            kind: self.kind,
            trigger: self.trigger,
            verify: self.verify,
            rewrite: self.rewrite,
            allow_delete: self.allow_delete,
            withhold: self.withhold,
            prioritize: self.prioritize,
            left_behind: self.left_behind,
        }
    }

    /// A look at what a sync by hand would do.
    pub fn look(config: SyncConfig, state: SyncState, verify: bool) -> Self {
        Self {
            config,
            state,
            kind: RunKind::Sync,
            trigger: Trigger::Manual,
            verify,
            rewrite: false,
            allow_delete: false,
            withhold: false,
            prioritize: None,
            left_behind: false,
            source: None,
            claim: None,
        }
    }
}

/// How a run ended, besides what the progress gathered.
pub struct Ended {
    pub status: RunStatus,
    pub message: Option<String>,
    /// False when the same run would fail the same way until somebody changes something.
    pub retryable: bool,
    /// The KMS rejected the login.
    pub login_refused: bool,
    /// The destination refused the connection's credentials.
    pub credentials_refused: bool,
    /// What was learned of the source's environment and folder.
    pub learned: Option<Learned>,
}

impl Ended {
    /// A run that ended by a defect of this program.
    pub(super) fn defect() -> Self {
        let text = "an internal step failed, which is a defect of kms-sync; what was written is recorded, the next run goes on from there";
        Self {
            status: RunStatus::Failed,
            message: Some(text.into()),
            retryable: false,
            login_refused: false,
            credentials_refused: false,
            learned: None,
        }
    }
}

/// Facts of the source that the documented answer shows.
#[derive(Clone)]
pub struct Learned {
    pub environment_name: Option<String>,
    pub environment_id: Option<String>,
    pub folder_id: Option<String>,
    /// Fingerprint of what the run took from the source.
    pub content: Option<String>,
}

/// Why a run ended early.
pub(super) enum Stopped {
    /// A call failed.
    Call(ApiError),
    /// Keys failed, or the state could not be saved.
    Failed(String),
    Cancelled,
    NeedsApproval(String),
}

impl From<ApiError> for Stopped {
    fn from(error: ApiError) -> Self {
        if error.kind == ErrorKind::Cancelled { Self::Cancelled } else { Self::Call(error) }
    }
}

impl From<String> for Stopped {
    fn from(text: String) -> Self {
        Self::Failed(text)
    }
}

/// Runs and plans syncs.
#[derive(Clone)]
pub struct Runner {
    pub store: Store,
    pub pool: Arc<Pool>,
    pub targets: Arc<super::targets::Targets>,
    pub readings: Arc<Readings>,
    pub mass_delete_percent: u8,
}

impl Runner {
    /// Executes a run. Never fails: the ending says what happened.
    pub async fn run(&self, spec: &RunSpec, cx: &Cx, progress: &Progress) -> Ended {
        let mut learned = None;
        let result = match spec.kind {
            RunKind::Sync => self.sync(spec, cx, progress, &mut learned).await,
            RunKind::Import => self.import(spec, cx, progress, &mut learned).await.map(|()| None),
            RunKind::Remove if spec.left_behind => self.remove_left_behind(spec, cx, progress, &mut learned).await.map(|()| None),
            RunKind::Remove => self.remove(spec, cx, progress, &mut learned).await.map(|()| None),
        };
        progress.meter(cx, true);
        let mut retryable = false;
        let (mut login_refused, mut credentials_refused) = (false, false);
        let (status, message) = match result {
            Ok(told) => (RunStatus::Succeeded, told),
            Err(Stopped::Call(error)) => {
                retryable = error.kind.passing() || error.ambiguous;
                login_refused = error.kind == ErrorKind::Auth && error.service == crate::source::SERVICE;
                credentials_refused = error.kind == ErrorKind::Auth && !login_refused;
                (RunStatus::Failed, Some(error.text()))
            }
            Err(Stopped::Failed(text)) => {
                retryable = progress.may_pass();
                (RunStatus::Failed, Some(text))
            }
            Err(Stopped::Cancelled) => (RunStatus::Cancelled, Some("cancelled; what was written stays, the next run goes on from here".to_string())),
            Err(Stopped::NeedsApproval(text)) => (RunStatus::NeedsApproval, Some(text)),
        };
        Ended { status, message: message.map(|m| cx.redact_told(&m)), retryable, login_refused, credentials_refused, learned }
    }

    /// Answers what the run took for granted, where there is something to tell.
    async fn sync(&self, spec: &RunSpec, cx: &Cx, progress: &Progress, learned: &mut Option<Learned>) -> Result<Option<String>, Stopped> {
        let mut opened = self.open(spec, cx, progress, learned, None).await?;
        let _turn = self.turn(spec, &opened, cx).await?;
        let behavior = spec.config.sync_options.initial_sync_behavior;
        let first = self.imports_first(spec, &opened);
        let full = self.full(spec, first);
        self.list(spec, cx, progress, &mut opened, full).await?;
        let mut frozen = Vec::new();
        if first {
            progress.phase(Phase::Importing);
            let indexes = importing::reads(&spec.config, &opened.inventory, opened.destination.keys());
            let failed = self.read(cx, &mut opened, &indexes).await?;
            let wins = behavior == InitialSyncBehavior::ImportPrioritizeDestination;
            let plan = self.import_plan(spec, &opened, wins, &failed);
            frozen = self.write_source(spec, cx, progress, &mut opened, plan).await?;
        }
        progress.phase(Phase::Planning);
        let mut plan = self.compute(spec, cx, &mut opened, full, first).await?;
        withdraw_frozen(&mut plan, &frozen, opened.destination.keys());
        self.report(&plan, progress);
        if let Some(reason) = plan.stops().filter(|_| !spec.withhold) {
            self.withhold(&plan, progress);
            return Err(Stopped::NeedsApproval(reason));
        }
        progress.phase(Phase::Applying);
        self.apply(spec, cx, progress, &opened, &plan).await?;
        let stays = self.verdict(spec, cx, progress, &opened, &plan).await?;
        let told: Vec<String> = stays.into_iter().chain(opened.destination.unproved()).collect();
        Ok((!told.is_empty()).then(|| told.join(" ")))
    }

    async fn import(&self, spec: &RunSpec, cx: &Cx, progress: &Progress, learned: &mut Option<Learned>) -> Result<(), Stopped> {
        let mut opened = self.open(spec, cx, progress, learned, None).await?;
        let _turn = self.turn(spec, &opened, cx).await?;
        self.list(spec, cx, progress, &mut opened, true).await?;
        progress.phase(Phase::Importing);
        let indexes = importing::reads(&spec.config, &opened.inventory, opened.destination.keys());
        let failed = self.read(cx, &mut opened, &indexes).await?;
        let wins = match spec.prioritize {
            Some(priority) => priority == Priority::Destination,
            None => spec.config.sync_options.initial_sync_behavior == InitialSyncBehavior::ImportPrioritizeDestination,
        };
        let plan = self.import_plan(spec, &opened, wins, &failed);
        let unchanged = plan.unchanged;
        self.write_source(spec, cx, progress, &mut opened, plan).await?;
        progress.kept(unchanged);
        failures(progress)
    }

    async fn remove(&self, spec: &RunSpec, cx: &Cx, progress: &Progress, learned: &mut Option<Learned>) -> Result<(), Stopped> {
        // The source may be gone: what the ledger knows can still be taken away.
        let mut opened = self.open(spec, cx, progress, learned, Some(unread())).await?;
        let _turn = self.turn(spec, &opened, cx).await?;
        self.list(spec, cx, progress, &mut opened, false).await?;
        progress.phase(Phase::Planning);
        let plan = self.removal(spec, cx, &mut opened).await?;
        let held = self.take_away(spec, cx, progress, &opened, &plan).await?;
        failures(progress)?;
        held_back(held)
    }

    /// Waits for this run's turn at its destination.
    async fn turn(&self, spec: &RunSpec, opened: &Opened, cx: &Cx) -> Result<OwnedMutexGuard<()>, ApiError> {
        let place = opened.destination.writers();
        let connection = self.pool.connection(&spec.config.connection_id)?;
        self.targets.learn(super::targets::name(&connection.id, &spec.config), &place);
        self.targets.turn(&place, cx).await
    }

    /// Computes a plan and writes nothing, at neither side.
    pub async fn plan(&self, spec: &RunSpec, cx: &Cx) -> Result<PlanDoc, ApiError> {
        let mut planned = self.planned(spec, cx).await;
        if let Err(error) = &mut planned {
            error.message = cx.redact_told(&error.message);
        }
        planned
    }

    async fn planned(&self, spec: &RunSpec, cx: &Cx) -> Result<PlanDoc, ApiError> {
        let progress = Progress::silent();
        let mut learned = None;
        let mut opened = self.open(spec, cx, &progress, &mut learned, None).await.map_err(api)?;
        let behavior = spec.config.sync_options.initial_sync_behavior;
        let first = self.imports_first(spec, &opened);
        let full = self.full(spec, first);
        self.list(spec, cx, &progress, &mut opened, full).await.map_err(api)?;
        let mut imports: Vec<ChangeDoc> = Vec::new();
        let mut skipped = Vec::new();
        let mut frozen = Vec::new();
        if first {
            let indexes = importing::reads(&spec.config, &opened.inventory, opened.destination.keys());
            let failed = self.read(cx, &mut opened, &indexes).await.map_err(api)?;
            let wins = behavior == InitialSyncBehavior::ImportPrioritizeDestination;
            let plan = self.import_plan(spec, &opened, wins, &failed);
            imports = plan.documents();
            skipped = plan.skipped.clone();
            frozen = plan.frozen.clone();
            let all: Vec<_> = plan.changes.iter().collect();
            let merged = importing::merged(std::mem::take(&mut opened.source), &all);
            opened.set_source(merged);
        }
        let mut plan = self.compute(spec, cx, &mut opened, full, first).await.map_err(api)?;
        withdraw_frozen(&mut plan, &frozen, opened.destination.keys());
        plan.skipped.extend(skipped);
        plan.warnings.extend(self.elsewhere(spec, &opened).await.map_err(api)?);
        let mut document = plan.document(&spec.config.name, &opened.source, imports);
        document.requests = cx.meter().snapshot();
        for text in document.warnings.iter_mut().chain(document.conflicts.iter_mut().map(|c| &mut c.reason)) {
            *text = cx.redact_told(text);
        }
        Ok(document)
    }

    /// The destination of a sync, opened only to learn its identity and its key rules.
    pub async fn destination(&self, config: &SyncConfig, state: &SyncState, cx: &Cx) -> Result<Arc<dyn Destination>, ApiError> {
        let session = self.pool.session(&config.connection_id).await?;
        session.open(cx, &target(config, state, state.environment_name.clone())).await
    }
}

/// A source that could not be read.
pub(super) fn unread() -> SourceMap {
    SourceMap { incomplete: vec!["the source could not be read".into()], ..SourceMap::default() }
}

/// The end of a removal that left keys to the operator.
pub(super) fn held_back(held: usize) -> Result<(), Stopped> {
    match held {
        0 => Ok(()),
        held => Err(Stopped::NeedsApproval(format!(
            "{} not as this sync left it, and {} left alone: look at the list, then run again with --allow-delete. Everything else is removed.",
            if held == 1 { "1 key is".to_string() } else { format!("{held} keys are") },
            if held == 1 { "was" } else { "were" },
        ))),
    }
}

fn api(stopped: Stopped) -> ApiError {
    match stopped {
        Stopped::Cancelled => ApiError::cancelled("kms-sync"),
        Stopped::Call(error) => error,
        Stopped::Failed(text) | Stopped::NeedsApproval(text) => ApiError::new(ErrorKind::Invalid, "kms-sync", text),
    }
}
