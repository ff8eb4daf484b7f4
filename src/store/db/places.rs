//! The places that a sync has written to: how each is reached, and whether a run succeeded there.

use rusqlite::params;

use super::ledger::{make_place, place};
use super::{from_json, to_json};
use crate::model::ledger::{PlaceSettings, WrittenPlace};
use crate::store::{Store, StoreError};

impl Store {
    /// Every place at which a sync has written keys, in the order of their identities.
    pub fn places(&self, sync_id: &str) -> Result<Vec<WrittenPlace>, StoreError> {
        self.db().read(|c| {
            let mut statement = c.prepare_cached(
                "SELECT places.target, places.settings, json_group_array(ledger.key) FROM places JOIN ledger ON ledger.place = places.id
                 WHERE places.sync_id = ?1 AND (ledger.value_hash IS NOT NULL OR ledger.intent IS NOT NULL)
                 GROUP BY places.id ORDER BY places.target",
            )?;
            let mut rows = statement.query([sync_id])?;
            let mut out = Vec::new();
            while let Some(row) = rows.next()? {
                let settings: Option<String> = row.get(1)?;
                out.push(WrittenPlace {
                    target: row.get(0)?,
                    settings: settings.map(|s| from_json("a place's settings", &s)).transpose()?,
                    keys: from_json("a place's keys", &row.get::<_, String>(2)?)?,
                });
            }
            Ok(out)
        })
    }

    /// Records how a place is reached, before anything is written there. Where the settings
    /// were others, and decide anew what is deleted, the place asks like a new one.
    pub fn note_place(&self, sync_id: &str, target: &str, settings: &PlaceSettings) -> Result<(), StoreError> {
        let known = self.place_settings(sync_id, target)?;
        if known.as_ref() == Some(settings) {
            return Ok(());
        }
        let anew = known.is_some_and(|k| settings.config.asks_anew(&k.config));
        self.db().write(|t| {
            let place = make_place(t, sync_id, target)?;
            t.execute("UPDATE places SET settings = ?2, settled = settled AND NOT ?3 WHERE id = ?1", params![place, to_json(settings)?, anew])?;
            Ok(())
        })
    }

    /// How a place was reached when this sync last wrote there.
    pub fn place_settings(&self, sync_id: &str, target: &str) -> Result<Option<PlaceSettings>, StoreError> {
        self.db().read(|c| {
            let mut statement = c.prepare_cached("SELECT settings FROM places WHERE sync_id = ?1 AND target = ?2")?;
            let mut rows = statement.query([sync_id, target])?;
            let settings: Option<String> = rows.next()?.map(|r| r.get(0)).transpose()?.flatten();
            settings.map(|s| from_json("a place's settings", &s)).transpose()
        })
    }

    /// Forgets everything about one sync at one target.
    pub fn forget_target(&self, sync_id: &str, target: &str) -> Result<(), StoreError> {
        self.db().write(|t| {
            let Some((place, _)) = place(t, sync_id, target)? else {
                return Ok(());
            };
            for table in ["ledger WHERE place", "decisions WHERE place", "places WHERE id"] {
                t.execute(&format!("DELETE FROM {table} = ?1"), [place])?;
            }
            Ok(())
        })
    }

    /// Marks that a run of this sync succeeded at this target.
    pub fn settle(&self, sync_id: &str, target: &str) -> Result<(), StoreError> {
        let settled = self.db().read(|c| place(c, sync_id, target))?.is_some_and(|(_, settled)| settled);
        if settled {
            return Ok(());
        }
        self.db().write(|t| {
            let place = make_place(t, sync_id, target)?;
            t.execute("UPDATE places SET settled = 1 WHERE id = ?1", [place])?;
            Ok(())
        })
    }

    /// The next run of this sync asks like a first one, at every target.
    pub fn unsettle(&self, sync_id: &str) -> Result<(), StoreError> {
        self.db().write(|t| {
            t.execute("UPDATE places SET settled = 0 WHERE sync_id = ?1", [sync_id])?;
            Ok(())
        })
    }
}
