//! The live picture, brought in line with the files and the state database.

use super::lookup::Known;
use super::*;

impl Local {
    /// Reads the configuration files, and tells everything in them that cannot be used.
    pub fn reload(&self) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.look_again();
    }

    /// Reads configuration files again after they changed behind our back; tells what became
    /// unusable, or usable, since the last look.
    pub fn look_again(&self) {
        let settings = self.store.settings();
        let unusable = settings.as_ref().err().map(ToString::to_string);
        if let Ok(settings) = settings {
            self.engine.set_settings(settings);
        }
        self.fill_board();
        self.tell_broken(unusable);
        self.clocks.wake();
    }

    /// Brings the board in line with the files and the state database.
    pub(super) fn fill_board(&self) {
        let mut names = Vec::new();
        let known = Known::read(&self.store);
        for loaded in self.store.syncs() {
            names.push(loaded.name.clone());
            let card = match &loaded.result {
                Ok(config) => self.card(config, &known),
                Err(broken) => broken_card(&loaded.name, &broken.to_string()),
            };
            self.engine.hub().publish(Event::Card { card: Box::new(card) });
        }
        let gone: Vec<String> = self.engine.hub().read(|b| b.cards.keys().filter(|k| !names.contains(k)).cloned().collect());
        for name in gone {
            self.engine.hub().publish(Event::Gone { name });
        }
        let account = known.account(None).cloned();
        let paused = self.engine.settings().paused;
        self.engine.hub().facts(|f| {
            f.account = account.map(|a| {
                let host = url::Url::parse(a.setting("baseUrl").unwrap_or(source::DEFAULT_BASE_URL)).ok();
                format!("{} on {}", a.name, host.as_ref().and_then(|u| u.host_str()).unwrap_or("?"))
            });
            f.paused = paused;
        });
    }

    fn card(&self, config: &SyncConfig, known: &Known) -> Card {
        let last = self.store.last_run(&config.name).ok().flatten().as_ref().map(LastRun::of);
        let state = self.store.sync_state(&config.name).ok();
        let connection = known.find(&config.connection_id).map_or_else(|| config.connection_id.clone(), |c| c.name.clone());
        let next = self.engine.hub().read(|b| b.cards.get(&config.name).and_then(|c| c.next.clone())).filter(|_| config.is_enabled);
        Card {
            name: config.name.clone(),
            destination: config.destination.clone(),
            destination_label: crate::engine::pool::label(&config.destination, &config.destination_config),
            source_label: format!("{}:{}", config.environment, config.secret_path),
            connection,
            enabled: config.is_enabled,
            key_schema: config.sync_options.key_schema.clone(),
            last,
            last_synced: state.and_then(|s| s.sync.at),
            run: None,
            next,
            broken: None,
        }
    }

    pub(super) fn publish_card(&self, config: &SyncConfig) {
        self.engine.hub().publish(Event::Card { card: Box::new(self.card(config, &Known::read(&self.store))) });
    }
}

fn broken_card(name: &str, reason: &str) -> Card {
    Card {
        name: name.to_string(),
        destination: String::new(),
        destination_label: String::new(),
        source_label: String::new(),
        connection: String::new(),
        enabled: false,
        key_schema: None,
        last: None,
        last_synced: None,
        run: None,
        next: None,
        broken: Some(reason.to_string()),
    }
}
