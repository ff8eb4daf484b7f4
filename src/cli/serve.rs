//! `run`: the engine without a terminal.

use std::collections::HashMap;

use super::args::LogFormat;
use super::output::note;
use super::signals::{Heard, Signals};
use super::{Args, Outcome, access, follow, log, signals};
use crate::model::run::{RunKind, RunRecord, RunStatus, Trigger};
use crate::service::local::Local;
use crate::service::{RunRequest, Service, ServiceErrorKind};

/// Runs every enabled sync once, or keeps them running until told to stop.
pub async fn run(args: &Args, once: bool, format: LogFormat) -> Outcome {
    log::to_stderr(args.verbose, format, true);
    if once {
        return self::once(args).await;
    }
    // An app that hands over may take its time: a signal meanwhile means what it means later. The
    // configuration is read when there is an engine: SIGHUP asks for nothing before.
    let held = tokio::select! {
        held = access::engine(args, "kms-sync run") => held?,
        () = Signals::listen().stop() => {
            tracing::info!(event = "stopping", "stopping");
            return Ok(0);
        }
    };
    let local = held.local.clone();
    // From the moment on that we are called ready, a signal means what it is to mean.
    let stop = wait_for_stop(&local);
    if access::store(args)?.locked()? {
        let how = crate::store::PASSPHRASE_FILE_ENV;
        note(&format!(
            "error: the stored credentials are sealed with a passphrase that nobody gave: syncs that need them will fail. Set {how}, or give the service the credential kms-sync-passphrase, and start again."
        ));
    }
    local.start_auto();
    tracing::info!(event = "ready", "ready");
    systemd("READY=1");
    stop.await;
    tracing::info!(event = "stopping", "stopping");
    systemd("STOPPING=1");
    local.close().await;
    held.finish().await;
    Ok(0)
}

/// Runs every enabled sync once: in this process, or through the engine that is running.
async fn once(args: &Args) -> Outcome {
    let access = access::running(args, "kms-sync run --once", true).await?;
    if access::store(args)?.settings()?.paused {
        // Cron takes 0 for "everything is in step", which nobody knows now.
        note("error: auto-sync is paused, nothing was run; P in the app resumes it");
        access.close().await;
        return Ok(1);
    }
    let Some(local) = access.local() else { return elsewhere(args, access).await };
    let (records, refused) = tokio::select! {
        done = local.clocks().once() => done,
        () = signals::until_stopped() => {
            note("stopping: what is in flight is finished first");
            local.close().await;
            access.close().await;
            return Ok(130);
        }
    };
    access.close().await;
    Ok(counted(&records, refused))
}

/// Asks the running engine for a run of each enabled sync, and stays to their end. Its hooks
/// are told by that engine.
async fn elsewhere(args: &Args, mut access: access::Access) -> Outcome {
    let (mut requests, mut refused, mut kinds) = (Vec::new(), 0, HashMap::new());
    for loaded in access::store(args)?.syncs() {
        match loaded.result {
            Ok(config) if config.is_enabled => {
                requests.push(RunRequest::new(&config.name, RunKind::Sync, Trigger::Auto));
                kinds.insert(config.name, config.destination);
            }
            Ok(_) => {}
            Err(broken) => {
                refused += 1;
                tracing::error!("{}: {broken}", loaded.name);
            }
        }
    }
    let asked = requests.len();
    let records = match follow::to_the_end(&mut access, requests).await {
        Ok(followed) => followed.records,
        Err(error) if error.kind == ServiceErrorKind::Unreachable => return Err(error),
        // None could be started; each was told.
        Err(error) => {
            tracing::error!("{error}");
            Vec::new()
        }
    };
    access.close().await;
    for record in &records {
        crate::engine::log_ended(record, kinds.get(&record.sync).map(String::as_str).unwrap_or_default());
    }
    refused += asked - records.len();
    Ok(match follow::code(&records) {
        130 => 130,
        _ => counted(&records, refused),
    })
}

/// Says how it went, and gives the exit code.
fn counted(records: &[RunRecord], refused: usize) -> i32 {
    let succeeded = records.iter().filter(|r| r.status == RunStatus::Succeeded).count();
    let all = records.len() + refused;
    tracing::info!(event = "summary", succeeded, all, "{succeeded} of {all} syncs succeeded");
    i32::from(succeeded < all)
}

/// Tells a service manager of type notify, where there is one (sd_notify(3)).
fn systemd(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let Ok(socket) = std::os::unix::net::UnixDatagram::unbound() else { return };
    let sent = match path.to_str().and_then(|p| p.strip_prefix('@')) {
        #[cfg(target_os = "linux")]
        Some(name) => {
            use std::os::linux::net::SocketAddrExt;
            std::os::unix::net::SocketAddr::from_abstract_name(name).and_then(|a| socket.send_to_addr(state.as_bytes(), &a))
        }
        _ => socket.send_to(state.as_bytes(), &path),
    };
    if let Err(error) = sent {
        tracing::warn!("the service manager could not be told: {error}");
    }
}

/// Ends at SIGTERM or SIGINT; SIGHUP reads the configuration again. Signals count from this call on.
fn wait_for_stop(local: &Local) -> impl Future<Output = ()> {
    let mut signals = Signals::listen();
    async move {
        while signals.next().await == Heard::HangUp {
            tracing::info!(event = "reload", "reading the configuration again");
            local.reload();
            local.clocks().renew();
        }
    }
}
