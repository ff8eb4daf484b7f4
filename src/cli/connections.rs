//! `connection`: stored, listed, tested, removed, and sealed anew.

use std::io::IsTerminal;

use serde_json::{Value, json};

use super::access;
use super::args::{ConnectionCommand, SealWay};
use super::input::document;
use super::output::{Out, note, print_json, print_list, table, tell_broken};
use super::{Args, Outcome};
use crate::service::{ServiceError, ServiceErrorKind};
use crate::store::{EngineLock, SealMode};

/// Seals every stored credential anew. No engine may run meanwhile: it would use the old key.
fn seal(args: &Args, way: SealWay) -> Outcome {
    let store = access::opened(args)?;
    let (mode, passphrase) = match way {
        SealWay::KeyFile => (SealMode::KeyFile, None),
        SealWay::Passphrase if std::io::stdin().is_terminal() => {
            let first = access::ask_passphrase("New passphrase: ")?;
            if !first.same_as(&access::ask_passphrase("Once more: ")?) {
                return Err(ServiceError::new(ServiceErrorKind::Invalid, "The two passphrases differ; nothing was changed."));
            }
            (SealMode::Passphrase, Some(first))
        }
        SealWay::Passphrase => (SealMode::Passphrase, None),
    };
    let _lock =
        EngineLock::acquire(store.dirs(), "kms-sync connection seal").map_err(|e| ServiceError::new(ServiceErrorKind::Busy, e.to_string()))?;
    store.change_seal(mode, passphrase.as_ref())?;
    note(&format!("all stored credentials are sealed anew: {}", mode.promise()));
    Ok(0)
}

/// Carries out one of them.
pub async fn connection(args: &Args, out: &Out, command: &ConnectionCommand) -> Outcome {
    if let ConnectionCommand::Seal { way } = command {
        return seal(args, *way);
    }
    let access = access::editing(args).await?;
    match command {
        ConnectionCommand::Add { file, replace, .. } => {
            let view = access.service.save_connection(document(file)?, *replace).await?;
            if out.json {
                print_json(&json!({ "connection": view.public }));
            } else {
                note(&format!("connection {} stored; `kms-sync connection test {}` proves it", view.name, view.name));
            }
        }
        ConnectionCommand::List { .. } => {
            let views = access.service.connections().await?;
            let broken = tell_broken(access::store(args)?.connections());
            if out.json {
                let public: Vec<Value> = views.into_iter().map(|v| v.public).collect();
                return Ok(print_list("connections", &public, &broken));
            } else {
                let mut rows: Vec<Vec<String>> = views
                    .into_iter()
                    .map(|v| vec![v.name, v.app, v.method, if v.used_by.is_empty() { "–".into() } else { v.used_by.join(", ") }])
                    .collect();
                rows.extend(broken.iter().map(|(name, _)| [name.as_str(), "broken", "–", "–"].map(str::to_string).to_vec()));
                out.text(&table(&["NAME", "APP", "METHOD", "USED BY"], &rows));
            }
            return Ok(i32::from(!broken.is_empty()));
        }
        ConnectionCommand::Test { name, .. } => {
            let report = access.service.test_connection(name).await?;
            if out.json {
                print_json(&json!({ "connection": name, "ok": true, "identity": report.identity, "notes": report.notes }));
            } else {
                let identity = crate::model::text::sanitise(&report.identity);
                out.text(&if identity.is_empty() { format!("✓ {name} works") } else { format!("✓ {name} works: {identity}") });
                for text in &report.notes {
                    out.text(&format!("  {}", crate::model::text::sanitise(text)));
                }
            }
        }
        ConnectionCommand::Seal { .. } => {}
        ConnectionCommand::Remove { name, .. } => {
            access.service.remove_connection(name).await?;
            if out.json {
                print_json(&json!({ "connection": name, "removed": true }));
            } else {
                note(&format!("connection {} removed", crate::model::text::sanitise(name)));
            }
        }
    }
    Ok(0)
}
