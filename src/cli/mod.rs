//! The command line: the same service as the terminal app, for scripts and hands.
//!
//! Standard output carries the result and nothing else; progress and messages go to standard
//! error. Exit codes: 0 success, 1 the work failed, 2 usage or bad input, 10 the plan has
//! changes, 130 interrupted.

mod access;
mod args;
mod commands;
mod connections;
mod demo;
mod follow;
mod input;
mod log;
mod man;
mod output;
mod progress;
mod serve;
mod signals;
mod takeover;

use std::process::ExitCode;

use clap::Parser;

pub use args::{Args, Command};
pub use demo::{furnish, perform};
use output::Out;

use crate::service::{ServiceError, ServiceErrorKind};

/// How a command ends.
pub type Outcome = Result<i32, ServiceError>;

/// Parses the arguments, does the work, and answers the exit code.
pub fn main() -> ExitCode {
    let json_wanted = std::env::args().any(|a| a == "--json");
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            if json_wanted && error.use_stderr() {
                let text = error.to_string();
                let lines: Vec<&str> = text
                    .lines()
                    .take_while(|l| !l.starts_with("Usage:") && !l.starts_with("For more"))
                    .map(str::trim)
                    .filter(|l| !l.is_empty())
                    .collect();
                let message = lines.join(" ").trim_start_matches("error: ").to_string();
                output::print_json(&output::error_document(&ServiceError::new(ServiceErrorKind::Invalid, message)));
            }
            // A closed pipe is no reason to fail here.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    harden();
    // A panic's text may quote what it stumbled over, a secret among them: only the place is told.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or_else(|| "an unknown place".to_string(), |l| format!("{}:{}", l.file(), l.line()));
        output::note(&format!("kms-sync: internal error at {place}"));
    }));
    let out = Out::new(args.command.as_ref().is_some_and(Command::json), args.no_color());
    let runtime = match runtime(args.command.as_ref()) {
        Ok(runtime) => runtime,
        Err(error) => {
            out.error(&ServiceError::new(ServiceErrorKind::Storage, format!("the runtime did not start: {error}")));
            return ExitCode::from(1);
        }
    };
    let work = async {
        if args.command.as_ref().is_some_and(Command::interruptible) {
            tokio::select! {
                done = commands::dispatch(&args, &out) => done,
                () = signals::until_stopped() => Ok(130),
            }
        } else {
            commands::dispatch(&args, &out).await
        }
    };
    let code = match runtime.block_on(work) {
        Ok(0 | 10) if output::LOST.load(std::sync::atomic::Ordering::Relaxed) => 1,
        Ok(code) => code,
        Err(error) => {
            out.error(&error);
            error.exit_code()
        }
    };
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// Short commands get by on one thread; whoever runs syncs or draws gets workers.
fn runtime(command: Option<&Command>) -> std::io::Result<tokio::runtime::Runtime> {
    if command.is_some_and(Command::short) {
        tokio::runtime::Builder::new_current_thread().enable_all().build()
    } else {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
    }
}

/// No core dumps and no peeking by other processes of the user: secrets live in this memory.
fn harden() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
        // Both may be refused by a container's policy; the program works all the same.
        let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
        let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    }
}
