//! One function per command; each asks the service and prints.

use std::path::Path;

use clap::CommandFactory;
use serde_json::{Value, json};

use super::access::{self, Access};
use super::args::Prioritize;
use super::follow::{Followed, code, to_the_end as follow};
use super::input::{confirm, document};
use super::output::{self, Out, note, plan_text, print_json, print_list, run_text, table, tell_broken};
use super::{Args, Command, Outcome, demo, progress, serve};
use crate::model::json::One;
use crate::model::run::{RunKind, RunRecord, Trigger};
use crate::model::sync::{JobStatus, SyncDoc};
use crate::plan::count;
use crate::service::{PlanTarget, Priority, RunRequest, ServiceError, ServiceErrorKind, SyncInput, going};

/// Does what the arguments ask.
pub async fn dispatch(args: &Args, out: &Out) -> Outcome {
    let Some(command) = &args.command else {
        return terminal(args).await;
    };
    if args.verbose > 0 && !matches!(command, Command::Run { .. }) {
        super::log::to_stderr(args.verbose, super::args::LogFormat::Text, false);
    }
    match command {
        Command::Demo { headless, serve, quiet_world, .. } => demo::run(args, out, *headless, *serve, *quiet_world).await,
        Command::List { .. } => list(args, out).await,
        Command::Show { name, .. } => show(args, out, name).await,
        Command::Create { file, destination, no_run, allow_delete, .. } => create(args, out, file, destination.clone(), *no_run, *allow_delete).await,
        Command::Update { name, file, .. } => update(args, out, name, file).await,
        Command::Delete { name, remove_secrets, yes, allow_delete, .. } => delete(args, out, name, *remove_secrets, *yes, *allow_delete).await,
        Command::Plan { name, verify, .. } => plan(args, out, name, *verify).await,
        Command::Sync { names, all, verify, rewrite, allow_delete, no_wait, .. } => {
            let access = access::running(args, "kms-sync sync", !no_wait).await?;
            let names = if *all { access::reading(args)?.service.syncs().await?.into_iter().map(|s| s.name).collect() } else { names.clone() };
            let wish = |n: &String| RunRequest { verify: *verify, rewrite: *rewrite, allow_delete: *allow_delete, ..request(n, RunKind::Sync) };
            let requests = names.iter().map(wish).collect();
            let broken = if *all { tell_broken(access::store(args)?.syncs()) } else { Vec::new() };
            let code = runs(access, out, requests).await?;
            Ok(if code == 0 && !broken.is_empty() { 1 } else { code })
        }
        Command::Import { name, prioritize, .. } => {
            let access = access::running(args, "kms-sync import", true).await?;
            let prioritize = prioritize.map(|p| if p == Prioritize::Source { Priority::Source } else { Priority::Destination });
            runs(access, out, vec![RunRequest { prioritize, ..request(name, RunKind::Import) }]).await
        }
        Command::RemoveSecrets { name, yes, allow_delete, left_behind, disable, .. } => {
            let access = access::running(args, "kms-sync remove-secrets", true).await?;
            let doc = access.service.sync(name).await?;
            let comes_back = doc.is_enabled && !left_behind;
            if comes_back && !disable {
                note(&format!(
                    "warning: auto-sync of {0} is on: the next change of its source, or its next drift check, writes the secrets again. \
                     --disable switches it off before, as `kms-sync disable {0}` does.",
                    doc.name
                ));
            }
            let question = match left_behind {
                true => format!("Take away what earlier settings of {} wrote and the present ones no longer reach?", doc.name),
                false => format!("Take the secrets of {} away from {}?", doc.name, doc.destination),
            };
            confirm(*yes, &question, &doc.name)?;
            if comes_back && *disable {
                access.service.set_enabled(&doc.name, false).await?;
                note(&format!("auto-sync of {} is off", doc.name));
            }
            runs(access, out, vec![RunRequest { allow_delete: *allow_delete, left_behind: *left_behind, ..request(name, RunKind::Remove) }]).await
        }
        Command::TakeOver { name, ids, yes, .. } => super::takeover::take_over(args, out, name, ids, *yes).await,
        Command::Cancel { name, .. } => cancel(args, out, name).await,
        Command::Enable { name, .. } => enable(args, out, name, true).await,
        Command::Disable { name, .. } => enable(args, out, name, false).await,
        Command::History { name, limit, .. } => history(args, out, name, *limit).await,
        Command::Run { once, log_format } => serve::run(args, *once, *log_format).await,
        Command::Connection { command } => super::connections::connection(args, out, command).await,
        Command::Doctor { .. } => doctor(args, out).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Args::command(), "kms-sync", &mut script);
            output::print_text(&String::from_utf8_lossy(&script));
            Ok(0)
        }
        Command::Man => {
            let page = super::man::page().map_err(|e| ServiceError::new(ServiceErrorKind::Storage, e.to_string()))?;
            output::print_text(&page);
            Ok(0)
        }
    }
}

async fn terminal(args: &Args) -> Outcome {
    demo::terminal(args).await
}

fn request(sync: &str, kind: RunKind) -> RunRequest {
    RunRequest::new(sync, kind, Trigger::Manual)
}

async fn list(args: &Args, out: &Out) -> Outcome {
    let access = access::reading(args)?;
    let syncs = access.service.syncs().await?;
    let broken = tell_broken(access::store(args)?.syncs());
    if out.json {
        return Ok(print_list("secretSyncs", &syncs, &broken));
    }
    if syncs.is_empty() && broken.is_empty() {
        note("There is no sync yet. `kms-sync` opens the terminal app, which sets one up; `kms-sync create -f FILE` takes a document.");
        return Ok(0);
    }
    let mut rows: Vec<Vec<String>> = syncs
        .iter()
        .map(|s| {
            let destination = crate::engine::pool::label(&s.destination, &s.destination_config);
            let auto = if s.is_enabled { "auto" } else { "manual" };
            vec![s.name.clone(), status(s.sync_status), destination, format!("{}:{}", s.environment.slug, s.folder.path), auto.into(), when(s)]
        })
        .collect();
    rows.extend(broken.iter().map(|(name, _)| [&[name.as_str(), "broken"][..], &["–"; 4]].concat().into_iter().map(str::to_string).collect()));
    rows.sort_by(|a, b| a[0].cmp(&b[0]));
    out.text(&table(&["NAME", "STATUS", "DESTINATION", "SOURCE", "MODE", "LAST SYNCED"], &rows));
    Ok(i32::from(!broken.is_empty()))
}

fn status(status: Option<JobStatus>) -> String {
    status.map_or_else(|| "never run".to_string(), |s| s.to_string())
}

fn when(doc: &SyncDoc) -> String {
    doc.last_synced_at.map_or_else(|| "never".to_string(), |t| t.strftime("%Y-%m-%d %H:%M:%SZ").to_string())
}

async fn show(args: &Args, out: &Out, name: &str) -> Outcome {
    let access = access::reading(args)?;
    let doc = access.service.sync(name).await?;
    if out.json {
        print_json(&One("secretSync", &doc));
        return Ok(0);
    }
    let mut rows = vec![
        ("Name", doc.name.clone()),
        ("Description", doc.description.clone().unwrap_or_default()),
        ("Source", format!("{}:{} of project {}", doc.environment.slug, doc.folder.path, doc.project_id)),
        ("Destination", crate::engine::pool::label(&doc.destination, &doc.destination_config)),
        ("Connection", doc.connection.as_ref().map_or_else(|| doc.connection_id.clone(), |c| c.name.clone())),
        ("Initial Sync Behavior", doc.sync_options.initial_sync_behavior.to_string()),
        ("Key Schema", doc.sync_options.key_schema.clone().unwrap_or_else(|| "none".into())),
    ];
    for (label, keys) in [("Include Keys", &doc.sync_options.include_keys), ("Exclude Keys", &doc.sync_options.exclude_keys)] {
        if !keys.is_empty() {
            rows.push((label, keys.join(", ")));
        }
    }
    rows.extend([
        ("Auto-Sync Enabled", doc.is_enabled.to_string()),
        ("Disable Secret Deletion", doc.sync_options.disable_secret_deletion.unwrap_or(false).to_string()),
        ("Status", status(doc.sync_status)),
        ("Last synced", when(&doc)),
    ]);
    if let Some(message) = &doc.last_sync_message {
        rows.push(("Last message", message.clone()));
    }
    if let Some(waiting) = &doc.waiting {
        let until = waiting.next_at.map(|t| format!(", until {}", t.strftime("%Y-%m-%d %H:%M:%SZ"))).unwrap_or_default();
        rows.push(("Waiting", format!("{}{until}", waiting.reason)));
    }
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(k, v)| vec![k.to_string(), v]).collect();
    out.text(&table(&["", ""], &rows).lines().skip(1).map(|l| format!("{l}\n")).collect::<String>());
    Ok(0)
}

async fn create(args: &Args, out: &Out, file: &Path, destination: Option<String>, no_run: bool, allow_delete: bool) -> Outcome {
    let document = document(file)?;
    let editing = access::editing(args).await?;
    let enabled = |d: &Value| {
        let d = d.get("secretSync").unwrap_or(d);
        !["isEnabled", "isAutoSyncEnabled"].iter().any(|k| d.get(k) == Some(&Value::Bool(false)))
    };
    let mut told = Vec::new();
    if !no_run && enabled(&document) {
        // Nothing is stored before both sides have answered: a missing folder or a wrong
        // credential is found now, not by auto-sync at night.
        let input = SyncInput { document: document.clone(), destination: destination.clone() };
        editing.service.check_sync(input, None).await?;
        let target = PlanTarget::Draft { document: with_kind(&document, destination.as_deref()), replaces: None };
        let name = document.get("secretSync").unwrap_or(&document).get("name").and_then(Value::as_str);
        let plan = progress::told(&*editing.service, name, editing.service.plan(target, false)).await?;
        told = plan.warnings;
        warn(&told);
    }
    let doc = editing.service.create_sync(SyncInput { document, destination }).await?;
    warn(doc.warnings.iter().filter(|w| !told.contains(w)));
    if !out.json {
        note(&format!("{} created", doc.name));
    }
    if no_run || !doc.is_enabled {
        print_created(out, &doc, None);
        return Ok(0);
    }
    drop(editing);
    let mut access = access::running(args, "kms-sync create", true).await?;
    let request = RunRequest { trigger: Trigger::Created, allow_delete, ..request(&doc.name, RunKind::Sync) };
    let followed = follow(&mut access, vec![request]).await;
    access.close().await;
    let records = followed?.records;
    let doc = SyncDoc { warnings: doc.warnings, ..access::reading(args)?.service.sync(&doc.name).await? };
    print_created(out, &doc, records.first());
    Ok(code(&records))
}

fn warn<'w>(warnings: impl IntoIterator<Item = &'w String>) {
    for warning in warnings {
        note(&format!("warning: {}", crate::model::text::sanitise(warning)));
    }
}

/// The document with the destination that the command line names.
fn with_kind(document: &Value, destination: Option<&str>) -> Value {
    let mut document = document.get("secretSync").unwrap_or(document).clone();
    if let (Some(map), Some(kind)) = (document.as_object_mut(), destination) {
        map.insert("destination".into(), kind.into());
    }
    document
}

fn print_created(out: &Out, doc: &SyncDoc, run: Option<&RunRecord>) {
    if out.json {
        #[derive(serde::Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Created<'a> {
            secret_sync: &'a SyncDoc,
            run: Option<&'a RunRecord>,
        }
        print_json(&Created { secret_sync: doc, run });
    } else if let Some(run) = run {
        out.text(&run_text(out, run));
    }
}

async fn update(args: &Args, out: &Out, name: &str, file: &Path) -> Outcome {
    let document = document(file)?;
    let access = access::editing(args).await?;
    let doc = access.service.update_sync(name, SyncInput { document, destination: None }).await?;
    if out.json {
        print_json(&One("secretSync", &doc));
    } else {
        note(&format!("{} updated", doc.name));
    }
    warn(&doc.warnings);
    if let Some(left) = doc.left_behind {
        let name = &doc.name;
        note(&format!(
            "warning: {} written before stay there and are no longer reached: `kms-sync plan {name}` names them, `kms-sync remove-secrets {name} --left-behind` takes them away",
            crate::plan::count(left, "key")
        ));
    }
    Ok(0)
}

async fn delete(args: &Args, out: &Out, name: &str, remove_secrets: bool, yes: bool, allow_delete: bool) -> Outcome {
    let mut access = if remove_secrets { access::running(args, "kms-sync delete", true).await? } else { access::editing(args).await? };
    let doc = access.service.sync(name).await?;
    let what = if remove_secrets { "and take its secrets away from the destination" } else { "(its secrets at the destination stay)" };
    confirm(yes, &format!("Delete the sync {} {what}?", doc.name), &doc.name)?;
    for left_behind in doc.removals().filter(|_| remove_secrets) {
        let records = follow(&mut access, vec![RunRequest { allow_delete, left_behind, ..request(name, RunKind::Remove) }]).await?.records;
        if code(&records) != 0 {
            report(out, &records);
            note(&format!("{} was not deleted, because its secrets could not all be removed", doc.name));
            access.close().await;
            return Ok(code(&records));
        }
    }
    access.service.delete_sync(name).await?;
    access.close().await;
    if out.json {
        print_json(&One("secretSync", &doc));
    } else {
        note(&format!("{} deleted", doc.name));
    }
    Ok(0)
}

async fn plan(args: &Args, out: &Out, name: &str, verify: bool) -> Outcome {
    let access = access::looking(args)?;
    let asked = access.service.plan(PlanTarget::Stored { name: name.to_string() }, verify);
    // The service is this command's alone: whatever waits is the plan.
    let plan = progress::told(&*access.service, None, asked).await?;
    if out.json {
        print_json(&plan);
    } else {
        out.text(&plan_text(&plan));
    }
    if plan.is_noop() && !plan.conflicts.is_empty() {
        note(&format!("nothing to do, but {} cannot be written: see the conflicts", count(plan.conflicts.iter().map(|c| c.keys.len()).sum(), "key")));
    }
    Ok(if plan.is_noop() { 0 } else { 10 })
}

async fn runs(mut access: Access, out: &Out, requests: Vec<RunRequest>) -> Outcome {
    let known = async {
        for request in &requests {
            access.service.sync(&request.sync).await?;
        }
        Ok::<_, ServiceError>(())
    };
    let records = match known.await {
        // Gone in the meantime: whoever is the engine next knows, too.
        Err(error) if error.kind != ServiceErrorKind::Unreachable => Err(error),
        _ => follow(&mut access, requests).await,
    };
    access.close().await;
    let Followed { records, refused } = records?;
    report(out, &records);
    Ok(match code(&records) {
        0 if refused => 1,
        code => code,
    })
}

fn report(out: &Out, records: &[RunRecord]) {
    if out.json {
        print_json(&One("runs", &records));
    } else {
        out.text(&records.iter().map(|r| run_text(out, r)).collect::<String>());
    }
}

/// Cancels in the engine that runs, and waits for the run's end.
async fn cancel(args: &Args, out: &Out, name: &str) -> Outcome {
    let name = access::reading(args)?.service.sync(name).await?.name;
    let nothing = |why: String| {
        report(out, &[]);
        note(&why);
        Ok(1)
    };
    let Some(engine) = access::asking(&access::opened(args)?).await? else {
        return nothing(format!("nothing to cancel: no engine is running here, so no run of {name} is"));
    };
    let Some(run) = going(&*engine, &name).await? else {
        return nothing(format!("nothing to cancel: no run of {name} is queued or going"));
    };
    match engine.cancel(&run).await {
        // It ended by itself in between: its record says how.
        Err(over) if over.kind == ServiceErrorKind::NotFound => {}
        done => done?,
    }
    if !out.json {
        note("cancelling: what is in flight is finished first");
    }
    let record = engine.finished(&run).await?;
    report(out, std::slice::from_ref(&record));
    Ok(0)
}

async fn enable(args: &Args, out: &Out, name: &str, enabled: bool) -> Outcome {
    let access = access::editing(args).await?;
    let doc = access.service.set_enabled(name, enabled).await?;
    if out.json {
        print_json(&One("secretSync", &doc));
    } else {
        note(&format!("auto-sync of {} is {}", doc.name, if enabled { "on" } else { "off" }));
    }
    warn(&doc.warnings);
    Ok(0)
}

async fn history(args: &Args, out: &Out, name: &str, limit: usize) -> Outcome {
    let access = access::reading(args)?;
    let records = access.service.history(name, limit).await?;
    if out.json {
        print_json(&One("runs", &records));
        return Ok(0);
    }
    let rows: Vec<Vec<String>> = records
        .iter()
        .map(|r| {
            let took = r.finished_at.map(|f| f.as_millisecond() - r.started_at.as_millisecond());
            vec![
                r.started_at.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
                out.status(r.status),
                r.kind.to_string(),
                r.trigger.to_string(),
                took.map_or_else(|| "–".into(), |ms| format!("{:.1} s", ms as f64 / 1000.0)),
                crate::model::text::brief(&crate::engine::summary(r), 90),
            ]
        })
        .collect();
    out.text(&table(&["STARTED", "STATUS", "KIND", "TRIGGER", "TOOK", "RESULT"], &rows));
    Ok(0)
}

async fn doctor(args: &Args, out: &Out) -> Outcome {
    let access = access::examining(args)?;
    let findings = access.service.doctor().await?;
    let bad = findings.iter().filter(|f| !f.ok).count();
    if out.json {
        let told: Vec<Value> =
            findings.iter().map(|f| json!({"ok": f.ok, "level": f.level(), "what": f.what, "detail": f.detail, "fix": f.fix})).collect();
        print_json(&json!({ "findings": told, "ok": bad == 0 }));
    } else {
        for finding in &findings {
            let mark = match finding.level() {
                "ok" => "✓",
                "warning" => "!",
                _ => "✗",
            };
            out.text(&format!("{mark} {}: {}", crate::model::text::sanitise(&finding.what), crate::model::text::sanitise(&finding.detail)));
            if let Some(fix) = &finding.fix {
                out.text(&format!("    → {}", crate::model::text::sanitise(fix)));
            }
        }
    }
    Ok(i32::from(bad > 0))
}
