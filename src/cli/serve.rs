//! `run`: the engine without a terminal.

use super::args::LogFormat;
use super::output::note;
use super::{Args, Outcome, access, commands, follow};
use crate::model::run::{RunKind, RunRecord, RunStatus, Trigger};
use crate::service::local::Local;
use crate::service::{RunRequest, Service, ServiceErrorKind};

/// Runs every enabled sync once, or keeps them running until told to stop.
pub async fn run(args: &Args, once: bool, format: LogFormat) -> Outcome {
    log_to_stderr(args.verbose, format);
    if once {
        return self::once(args).await;
    }
    let held = access::engine(args, "kms-sync run").await?;
    let local = held.local.clone();
    local.start_auto();
    tracing::info!("ready");
    systemd("READY=1");
    wait_for_stop(&local).await;
    tracing::info!("stopping");
    systemd("STOPPING=1");
    local.close().await;
    held.finish().await;
    Ok(0)
}

/// Runs every enabled sync once: in this process, or through the engine that is running.
async fn once(args: &Args) -> Outcome {
    let access = access::running(args, "kms-sync run --once", true).await?;
    if access::store(args)?.settings()?.paused {
        note("auto-sync is paused: nothing was run");
        access.close().await;
        return Ok(0);
    }
    let Some(local) = access.local() else { return elsewhere(args, access).await };
    let (records, refused) = tokio::select! {
        done = local.clocks().once() => done,
        () = until_stopped() => {
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
    let (mut requests, mut refused) = (Vec::new(), 0);
    for loaded in access::store(args)?.syncs() {
        match loaded.result {
            Ok(config) if config.is_enabled => requests.push(RunRequest::new(&config.name, RunKind::Sync, Trigger::Auto)),
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
    refused += asked - records.len();
    Ok(match commands::code(&records) {
        130 => 130,
        _ => counted(&records, refused),
    })
}

/// Says how it went, and gives the exit code.
fn counted(records: &[RunRecord], refused: usize) -> i32 {
    let succeeded = records.iter().filter(|r| r.status == RunStatus::Succeeded).count();
    let all = records.len() + refused;
    note(&format!("{succeeded} of {all} syncs succeeded"));
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

/// Returns at SIGTERM or SIGINT; SIGHUP reads the configuration again.
async fn wait_for_stop(local: &Local) {
    use tokio::signal::unix::{SignalKind, signal};
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()));
    let (Ok(mut term), Ok(mut int), Ok(mut hup)) = signals else {
        return std::future::pending().await;
    };
    loop {
        tokio::select! {
            _ = term.recv() => return,
            _ = int.recv() => return,
            _ = hup.recv() => {
                tracing::info!("reading the configuration again");
                local.reload();
                local.clocks().renew();
            }
        }
    }
}

/// Returns at SIGTERM, SIGINT or SIGHUP (the line dropped).
pub async fn until_stopped() {
    use tokio::signal::unix::{SignalKind, signal};
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()));
    let (Ok(mut term), Ok(mut int), Ok(mut hup)) = signals else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
        _ = hup.recv() => {}
    }
}

/// Log lines in files of the state directory, a week of them: the terminal belongs to the
/// screens. The answer writes what is left when it is dropped.
pub fn log_to_file(state: &std::path::Path) -> Option<tracing_appender::non_blocking::WorkerGuard> {
    let files = tracing_appender::rolling::Builder::new()
        .rotation(tracing_appender::rolling::Rotation::DAILY)
        .filename_prefix("kms-sync")
        .filename_suffix("log")
        .max_log_files(7)
        .build(state.join("log"))
        .ok()?;
    let (writer, guard) = tracing_appender::non_blocking(files);
    let filter = tracing_subscriber::EnvFilter::new("kms_sync=info");
    let started = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(false).with_target(false).try_init();
    started.ok().map(|()| guard)
}

/// Structured log lines on standard error.
pub fn log_to_stderr(verbose: u8, format: LogFormat) {
    let level = match verbose {
        0 => "kms_sync=info",
        1 => "kms_sync=debug",
        _ => "kms_sync=trace",
    };
    let filter = tracing_subscriber::EnvFilter::new(level);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // A second call in one process (tests) keeps the first.
    let _ = match format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}
