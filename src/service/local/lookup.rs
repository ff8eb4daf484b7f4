//! Stored syncs by name or id, and the documented answer about them.

use super::*;

impl Local {
    pub(super) fn config(&self, name: &str) -> Result<SyncConfig> {
        if let Ok(config) = self.store.sync(name) {
            return Ok(config);
        }
        // By id; and a broken file of that name must say why it is broken.
        for loaded in self.store.syncs() {
            match loaded.result {
                Err(broken) if loaded.name == name => return Err(ServiceError::new(ServiceErrorKind::Storage, broken.to_string())),
                Ok(config) if self.store.sync_state(&config.name).is_ok_and(|s| s.id == name) => return Ok(config),
                _ => {}
            }
        }
        let names: Vec<String> = self.store.syncs().into_iter().map(|l| l.name).collect();
        let hint = crate::model::text::closest(name, names.iter().map(String::as_str)).map(|n| format!(" Did you mean {n}?")).unwrap_or_default();
        let name = crate::model::text::brief(name, 80);
        Err(ServiceError::new(ServiceErrorKind::NotFound, format!("There is no sync {name:?}.{hint}")))
    }

    /// The configuration of a stored sync, or of a draft; with the name of the stored sync that
    /// it is, or replaces.
    pub(super) fn target(&self, target: PlanTarget) -> Result<(SyncConfig, Option<String>)> {
        match target {
            PlanTarget::Stored { name } => {
                let config = self.config(&name)?;
                let name = config.name.clone();
                Ok((config, Some(name)))
            }
            PlanTarget::Draft { document, replaces } => {
                let old = replaces.as_deref().and_then(|n| self.config(n).ok());
                let config = self.checked(&SyncInput { document, destination: None }, old.as_ref())?;
                Ok((config, old.map(|o| o.name)))
            }
        }
    }

    pub(super) fn doc(&self, config: &SyncConfig) -> Result<SyncDoc> {
        self.doc_with(config, &Known::read(&self.store))
    }

    pub(super) fn doc_with(&self, config: &SyncConfig, known: &Known) -> Result<SyncDoc> {
        let mut state = self.store.sync_state(&config.name)?;
        for job in [&mut state.sync, &mut state.import, &mut state.remove] {
            if job.status == Some(JobStatus::Running)
                && let Some(id) = &job.job_id
                && let Some(run) = self.store.run(id)?.filter(|r| r.status == RunStatus::Interrupted && r.finished_at.is_some())
            {
                // Its process is dead; the next engine writes that down.
                (job.status, job.message) = (Some(JobStatus::Failed), run.message);
            }
        }
        let connection = known.find(&config.connection_id).map(|c| ConnectionRef { app: c.app.clone(), name: c.name.clone(), id: c.id.clone() });
        let account = known.account(config.source_connection.as_deref()).map(|a| a.name.clone());
        let mut doc = SyncDoc::new(config, &state, connection);
        // What a dead engine was waiting for is nobody's wait any more.
        let engine = || EngineLock::holder(self.store.dirs()).is_ok_and(|h| h.is_some());
        // The state is newer than the waits: a run that has ended since waits for nothing.
        let jobs = [&state.sync, &state.import, &state.remove].into_iter();
        let mut under_way = jobs.filter(|j| matches!(j.status, Some(JobStatus::Pending | JobStatus::Running)));
        let of_run = under_way.find_map(|j| known.waits.get(j.job_id.as_deref()?)).cloned();
        doc.waiting = of_run.or_else(|| waits(&self.store, &state.id).filter(|_| config.is_enabled && engine()));
        doc.source_connection = config.source_connection.clone().or(account);
        Ok(doc)
    }

    /// The documented answer about one sync, with what its earlier settings left behind.
    pub(super) fn whole_doc(&self, config: &SyncConfig) -> Result<SyncDoc> {
        let known = Known::read(&self.store);
        let mut doc = self.doc_with(config, &known)?;
        doc.left_behind = Some(self.left_behind(config, &doc.id, &known)?).filter(|n| *n > 0);
        Ok(doc)
    }

    /// How many keys that a sync wrote its settings no longer reach, as far as can be told
    /// without asking the destination.
    fn left_behind(&self, config: &SyncConfig, id: &str, known: &Known) -> Result<usize> {
        let Some(provider) = registry::find(&config.destination) else { return Ok(0) };
        let keys = provider.keys(&config.destination_config);
        let matcher = crate::plan::Matcher::new(config, &*keys);
        let place = |c: &SyncConfig| (known.find(&c.connection_id).map(|c| c.id.clone()), c.destination.clone(), c.destination_config.clone());
        let mut left = 0;
        for written in self.store.places(id)? {
            let Some(settings) = &written.settings else { continue };
            if place(&settings.config) == place(config) {
                left += written.keys.iter().filter(|k| !matcher.matches(k)).count();
            } else {
                left += written.keys.len();
            }
        }
        Ok(left)
    }
}

/// The stored connections, and what runs wait for, read once for many syncs.
pub(super) struct Known {
    connections: Vec<Connection>,
    waits: std::collections::BTreeMap<String, SyncWait>,
}

impl Known {
    pub(super) fn read(store: &Store) -> Self {
        let connections = store.connections().into_iter().filter_map(|l| l.result.ok()).collect();
        Self { connections, waits: crate::engine::run_waits(store) }
    }

    pub(super) fn find(&self, name: &str) -> Option<&Connection> {
        self.connections.iter().find(|c| c.name == name || c.id == name)
    }

    /// The named KMS account, or the only one there is.
    pub(super) fn account(&self, named: Option<&str>) -> Option<&Connection> {
        if let Some(name) = named {
            return self.find(name);
        }
        let mut accounts = self.connections.iter().filter(|c| c.app == source::APP.app);
        accounts.next().filter(|_| accounts.next().is_none())
    }
}
