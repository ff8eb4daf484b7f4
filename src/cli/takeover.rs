//! `take-over`: switches off what the KMS server's own engine does at the destination of a sync.

use serde_json::{Value, json};

use super::input::confirm;
use super::output::{Out, note, print_json};
use super::{Args, Outcome, access};
use crate::model::text::sanitise;
use crate::service::{PlanTarget, ServerRival, ServiceError, ServiceErrorKind};

/// Switches off the syncs of the server that stand in the way of `name`: those of these ids, or
/// all that are certain to write the same place.
pub async fn take_over(args: &Args, out: &Out, name: &str, ids: &[String], yes: bool) -> Outcome {
    let service = access::editing(args).await?.service;
    let doc = service.sync(name).await?;
    let target = || PlanTarget::Stored { name: doc.name.clone() };
    let found = service.server_rivals(target()).await?;
    if let Some(id) = ids.iter().find(|id| !found.iter().any(|r| r.sync.id == **id)) {
        return Err(ServiceError::no_rival(id, &doc.name));
    }
    let chosen = |r: &ServerRival| if ids.is_empty() { r.certain } else { ids.contains(&r.sync.id) };
    let (chosen, left): (Vec<_>, Vec<_>) = found.into_iter().partition(chosen);
    for rival in chosen.iter().chain(&left) {
        note(&sanitise(&rival.text));
    }
    if chosen.is_empty() && !left.is_empty() {
        let text = "Nothing was switched off: the account behind a connection of the server cannot be told from here. Where it is the same, name the sync: --id ID.";
        return Err(ServiceError::new(ServiceErrorKind::Invalid, text));
    }
    let (mut off, mut failed) = (Vec::new(), Vec::new());
    if chosen.is_empty() {
        note(&format!("nothing to take over: no sync of the KMS server that is on auto-sync writes where {} does", doc.name));
    } else {
        let names: Vec<&str> = chosen.iter().map(|r| r.sync.name.as_str()).collect();
        confirm(yes, &sanitise(&format!("Switch auto-sync of {} off at the KMS server?", names.join(", "))), &doc.name)?;
        for rival in &chosen {
            match service.switch_off_rival(target(), &rival.sync.id).await {
                Ok(done) => {
                    let runs = if done.sync.running { "; its run that is queued or going goes on to its end" } else { "" };
                    note(&sanitise(&format!("auto-sync of {} is off at the KMS server{runs}", done.sync.name)));
                    off.push(shown(rival));
                }
                Err(error) => {
                    note(&sanitise(&format!("error: auto-sync of {} was not switched off: {}", rival.sync.name, error.message)));
                    let mut shown = shown(rival);
                    shown["reason"] = error.message.into();
                    failed.push(shown);
                }
            }
        }
        if !doc.is_enabled {
            note(&format!("auto-sync of {0} is off here, too: `kms-sync enable {0}` lets it carry changes from now on", doc.name));
        }
    }
    if out.json {
        print_json(&json!({"switchedOff": off, "failed": failed, "left": left.iter().map(shown).collect::<Vec<_>>()}));
    }
    Ok(i32::from(!failed.is_empty()))
}

fn shown(rival: &ServerRival) -> Value {
    let sync = &rival.sync;
    json!({"id": sync.id, "name": sync.name, "destination": sync.destination, "destinationConfig": sync.destination_config,
        "environment": sync.environment, "secretPath": sync.secret_path, "connection": sync.connection})
}
