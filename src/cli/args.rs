//! The arguments.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

/// Carries secrets from Hanzo KMS to AWS Secrets Manager, Azure Key Vault, Azure DevOps,
/// Bitbucket and OCI Vault. Without a command it opens the terminal app.
#[derive(Debug, Parser)]
#[command(name = "kms-sync", version, max_term_width = 100)]
pub struct Args {
    /// Directory of the configuration (syncs, connections, settings).
    #[arg(long, global = true, env = "KMS_SYNC_CONFIG_DIR", value_name = "DIR")]
    pub config_dir: Option<PathBuf>,
    /// Directory of the state (history, ledger, keys).
    #[arg(long, global = true, env = "KMS_SYNC_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// No colours (also by the environment variable NO_COLOR).
    #[arg(long, global = true)]
    pub no_color: bool,
    /// Say more on standard error; twice: still more.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    #[command(subcommand)]
    pub command: Option<Command>,
}

impl Args {
    /// True when colours are off by flag or environment.
    pub fn no_color(&self) -> bool {
        self.no_color || std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty())
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Try everything on an embedded KMS and five embedded destinations; nothing is configured or kept.
    Demo {
        /// Create one sync per destination, run all twice, print a table, exit.
        #[arg(long, conflicts_with = "serve")]
        headless: bool,
        /// Start only the servers, print one JSON line with every endpoint and credential, stay.
        #[arg(long)]
        serve: bool,
        /// The embedded world stands still: nobody edits secrets or throttles.
        #[arg(long)]
        quiet_world: bool,
        /// With --headless: print JSON.
        #[arg(long)]
        json: bool,
    },
    /// List the syncs.
    List {
        #[arg(long)]
        json: bool,
    },
    /// Show a sync.
    Show {
        name: String,
        #[arg(long)]
        json: bool,
    },
    /// Create a sync from a request document, and run it.
    Create {
        /// The document; - reads standard input.
        #[arg(short, long, value_name = "FILE")]
        file: PathBuf,
        /// The destination's kind, when the document does not say it.
        #[arg(long, value_name = "KIND")]
        destination: Option<String>,
        /// Only store it.
        #[arg(long)]
        no_run: bool,
        /// Agree to delete or overwrite what this sync did not write, on the first run.
        #[arg(long)]
        allow_delete: bool,
        #[arg(long)]
        json: bool,
    },
    /// Change a sync; members left out keep their value.
    Update {
        name: String,
        #[arg(short, long, value_name = "FILE")]
        file: PathBuf,
        #[arg(long)]
        json: bool,
    },
    /// Delete a sync; its secrets at the destination stay unless asked otherwise.
    Delete {
        name: String,
        /// Take the synced secrets away from the destination before.
        #[arg(long)]
        remove_secrets: bool,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        /// With --remove-secrets: also those this sync did not write, or that were edited since.
        #[arg(long, requires = "remove_secrets")]
        allow_delete: bool,
        #[arg(long)]
        json: bool,
    },
    /// Show what a sync would do. Exit code 0: nothing; 10: there are changes, also such that wait for
    /// your agreement.
    Plan {
        name: String,
        #[arg(long)]
        json: bool,
        /// Re-read what can be read.
        #[arg(long)]
        verify: bool,
    },
    /// Run syncs now.
    Sync {
        #[arg(required_unless_present = "all")]
        names: Vec<String>,
        /// Every sync.
        #[arg(long, conflicts_with = "names")]
        all: bool,
        #[arg(long)]
        json: bool,
        /// Re-read what can be read.
        #[arg(long)]
        verify: bool,
        /// Write every value again that the destination does not give back (Bitbucket, Azure DevOps).
        #[arg(long)]
        rewrite: bool,
        /// Agree to delete or overwrite what these syncs did not write.
        #[arg(long)]
        allow_delete: bool,
        /// Fail at once when another process holds the engine and cannot be asked.
        #[arg(long)]
        no_wait: bool,
    },
    /// Import the destination's secrets into the KMS.
    Import {
        name: String,
        /// Whose value wins when both have a key; default: the sync's own import behaviour.
        #[arg(long, value_enum)]
        prioritize: Option<Prioritize>,
        #[arg(long)]
        json: bool,
    },
    /// Take the synced secrets away from the destination.
    RemoveSecrets {
        name: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        /// Also remove what the source names and this sync did not write, or was edited since.
        #[arg(long)]
        allow_delete: bool,
        /// Only what this sync wrote before an edit and no longer reaches: under an earlier key
        /// schema, or at an earlier target whose connection is still stored.
        #[arg(long)]
        left_behind: bool,
        /// Switch auto-sync off before, so that it does not write them again.
        #[arg(long)]
        disable: bool,
        #[arg(long)]
        json: bool,
    },
    /// Switch off the KMS server's own syncs on auto-sync that write where a sync here does, so that
    /// two engines do not overwrite and delete each other's keys.
    TakeOver {
        name: String,
        /// Only this sync of the server, by its id; also where its account cannot be told from here.
        #[arg(long = "id", value_name = "ID")]
        ids: Vec<String>,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        #[arg(long)]
        json: bool,
    },
    /// Cancel a sync's run that is queued or going in the running engine; what is in flight is
    /// finished first. Exit code 1 when there is none.
    Cancel {
        name: String,
        #[arg(long)]
        json: bool,
    },
    /// Switch auto-sync on.
    Enable {
        name: String,
        #[arg(long)]
        json: bool,
    },
    /// Switch auto-sync off.
    Disable {
        name: String,
        #[arg(long)]
        json: bool,
    },
    /// Show past runs, newest first.
    History {
        name: String,
        #[arg(long)]
        json: bool,
        /// At most this many runs.
        #[arg(long, default_value_t = 50, value_name = "N")]
        limit: usize,
    },
    /// Keep the syncs running, without a terminal. SIGTERM and SIGINT stop it in good order (runs
    /// under way get 10 s, then they are parked), SIGHUP reads the configuration again.
    Run {
        /// Run every enabled sync once and exit.
        #[arg(long)]
        once: bool,
        #[arg(long, value_enum, default_value_t = LogFormat::Text)]
        log_format: LogFormat,
    },
    /// Manage connections.
    Connection {
        #[command(subcommand)]
        command: ConnectionCommand,
    },
    /// Check directories, permissions, connections and the clock, and say how to mend.
    Doctor {
        #[arg(long)]
        json: bool,
    },
    /// Print a completion script.
    Completions { shell: clap_complete::Shell },
    /// Print the manual page.
    Man,
}

#[derive(Debug, Subcommand)]
pub enum ConnectionCommand {
    /// Store a connection.
    Add {
        /// The document; - reads standard input.
        #[arg(short, long, value_name = "FILE")]
        file: PathBuf,
        /// Replace the connection of the same name.
        #[arg(long)]
        replace: bool,
        #[arg(long)]
        json: bool,
    },
    /// List the connections, without their secrets.
    List {
        #[arg(long)]
        json: bool,
    },
    /// Prove that a connection works.
    Test {
        name: String,
        #[arg(long)]
        json: bool,
    },
    /// Forget a connection that no sync uses.
    Remove {
        name: String,
        #[arg(long)]
        json: bool,
    },
    /// Change how the key that seals stored credentials is kept, and seal all of them anew.
    Seal {
        /// A key file in the state directory, or a passphrase.
        #[arg(value_enum)]
        way: SealWay,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SealWay {
    KeyFile,
    Passphrase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Prioritize {
    Source,
    Destination,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

impl Command {
    /// True when the result is to be JSON.
    pub fn json(&self) -> bool {
        match self {
            Self::Demo { json, .. }
            | Self::List { json }
            | Self::Show { json, .. }
            | Self::Create { json, .. }
            | Self::Update { json, .. }
            | Self::Delete { json, .. }
            | Self::Plan { json, .. }
            | Self::Sync { json, .. }
            | Self::Import { json, .. }
            | Self::RemoveSecrets { json, .. }
            | Self::TakeOver { json, .. }
            | Self::Cancel { json, .. }
            | Self::Enable { json, .. }
            | Self::Disable { json, .. }
            | Self::History { json, .. }
            | Self::Doctor { json } => *json,
            Self::Connection { command } => match command {
                ConnectionCommand::Add { json, .. }
                | ConnectionCommand::List { json }
                | ConnectionCommand::Test { json, .. }
                | ConnectionCommand::Remove { json, .. } => *json,
                ConnectionCommand::Seal { .. } => false,
            },
            _ => false,
        }
    }

    /// True when the command only looks, or asks for one thing at a time, so that a signal may
    /// simply end it.
    pub fn interruptible(&self) -> bool {
        matches!(self, Self::Plan { .. } | Self::TakeOver { .. } | Self::Cancel { .. } | Self::Doctor { .. } | Self::Connection { .. })
    }

    /// True when the command only reads or writes files.
    pub fn short(&self) -> bool {
        matches!(
            self,
            Self::List { .. }
                | Self::Show { .. }
                | Self::History { .. }
                | Self::Enable { .. }
                | Self::Disable { .. }
                | Self::Completions { .. }
                | Self::Man
        )
    }
}
