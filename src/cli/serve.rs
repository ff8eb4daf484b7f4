//! `run`: the engine without a terminal.

use super::args::LogFormat;
use super::output::note;
use super::{Args, Outcome, access};
use crate::model::run::RunStatus;

/// Runs every enabled sync once, or keeps them running until told to stop.
pub async fn run(args: &Args, once: bool, format: LogFormat) -> Outcome {
    log_to_stderr(args.verbose, format);
    let access = access::running(args, "kms-sync run", once).await?;
    let Some(local) = access.local.clone() else {
        return Ok(1);
    };
    if once {
        let records = local.clocks().once().await;
        local.engine().close(std::time::Duration::ZERO).await;
        let failed = records.iter().filter(|r| r.status != RunStatus::Succeeded).count();
        note(&format!("{} of {} syncs succeeded", records.len() - failed, records.len()));
        return Ok(i32::from(failed > 0));
    }
    local.start_auto();
    tracing::info!("ready");
    wait_for_stop().await;
    tracing::info!("stopping");
    access.service.close().await;
    Ok(0)
}

async fn wait_for_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        std::future::pending::<()>().await;
        return;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
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
