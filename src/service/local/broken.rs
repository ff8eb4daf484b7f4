//! What of the configuration cannot be used: told once when it begins, when its reason
//! changes, and when it ends. Nothing that was good before stands in for it: a broken file
//! stops its sync, visibly.

use std::collections::BTreeMap;

use super::lookup::Known;
use super::*;
use crate::store::Broken;

/// What was told: the reason, and the sync it is about, by a name of the thing.
pub(super) type Told = BTreeMap<String, (String, Option<String>)>;

impl Local {
    /// Tells what changed since the last look.
    pub(super) fn tell_broken(&self, settings: Option<String>) {
        let now = self.unusable(settings);
        let hub = self.engine.hub();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        for (thing, (why, sync)) in now.iter().filter(|(thing, why)| told.get(*thing) != Some(why)) {
            tracing::debug!("{thing} cannot be used");
            hub.notice("error", why.clone(), sync.as_deref());
        }
        for (thing, (_, sync)) in told.iter().filter(|(thing, _)| !now.contains_key(*thing)) {
            hub.notice("info", format!("{thing} is mended, or gone"), sync.as_deref());
        }
        *told = now;
    }

    fn unusable(&self, settings: Option<String>) -> Told {
        let mut out = Told::new();
        if let Some(why) = settings {
            out.insert("settings.json".into(), (format!("{why} Until then the settings in force stay."), None));
        }
        for loaded in self.store.connections() {
            if let Err(broken) = loaded.result {
                out.insert(thing("connections", &broken), (format!("{broken} Until then no sync can use this connection."), None));
            }
        }
        let known = Known::read(&self.store);
        for loaded in self.store.syncs() {
            match loaded.result {
                Err(broken) => {
                    out.insert(thing("syncs", &broken), (format!("{broken} Until then this sync does not run."), Some(loaded.name)));
                }
                Ok(config) if config.is_enabled && known.account(config.source_connection.as_deref()).is_none_or(|a| a.app != source::APP.app) => {
                    // Its clock cannot run without a place to look at.
                    if let Err(error) = self.engine.pool().account(config.source_connection.as_deref()) {
                        let why = format!("auto-sync of {} stands still: {}", config.name, error.message);
                        out.insert(format!("the account of {}", config.name), (why, Some(config.name)));
                    }
                }
                Ok(_) => {}
            }
        }
        out
    }
}

/// The file's place under the configuration directory.
fn thing(dir: &str, broken: &Broken) -> String {
    let file = broken.path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    crate::model::text::sanitise(&format!("{dir}/{file}"))
}
