//! `settings.json`: how the engine and the screens behave on this machine.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Store;
use super::error::{Broken, StoreError, StoreErrorKind};
use super::files::{self, Access};
use super::seal::SealMode;
use crate::model::sync::{Reader, unknown};
use crate::model::text::brief;
use crate::model::{Map, Problems};

/// What a drift check does with an outside edit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, strum::Display, strum::EnumString, strum::VariantNames)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum DriftAction {
    /// Writes the source's value again.
    #[default]
    Repair,
    /// Only tells.
    Report,
}

/// The settings; a file that leaves members out means their defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// Seconds between two polls of a source, 10 to 86,400; default 60.
    pub poll_interval_secs: u64,
    /// Hours between two drift checks, up to 8,760; `None` (null or 0) switches them off; default 6.
    pub drift_hours: Option<u64>,
    pub drift_action: DriftAction,
    /// Runs at once, 1 to 64; default 4.
    pub max_runs: usize,
    /// Runs at once over one connection, 1 to 64; default 5.
    pub runs_per_connection: usize,
    /// An unattended run that would delete more than this share of a sync's keys stops and
    /// asks, 1 to 100; default 50.
    pub mass_delete_percent: u8,
    /// Commands (program and arguments, no shell) that get a JSON document on standard input
    /// when a run fails, when one succeeds after failures, and when one changed something.
    pub on_failure: Option<Vec<String>>,
    pub on_recovery: Option<Vec<String>>,
    pub on_change: Option<Vec<String>>,
    /// Seconds after which such a command is ended, 1 to 3,600; default 30.
    pub hook_timeout_secs: u64,
    /// Rings the terminal's bell on a failure.
    pub bell: bool,
    /// Sends desktop notifications by the terminal (OSC 9).
    pub osc9: bool,
    pub mouse: bool,
    /// Draws with ASCII only.
    pub ascii: bool,
    /// All auto-syncs stand still.
    pub paused: bool,
    /// How the key that seals credentials is kept.
    pub seal: SealMode,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            poll_interval_secs: 60,
            drift_hours: Some(6),
            drift_action: DriftAction::Repair,
            max_runs: 4,
            runs_per_connection: 5,
            mass_delete_percent: 50,
            on_failure: None,
            on_recovery: None,
            on_change: None,
            hook_timeout_secs: 30,
            bell: false,
            osc9: false,
            mouse: true,
            ascii: false,
            paused: false,
            seal: SealMode::KeyFile,
        }
    }
}

const FIELDS: &[&str] = &[
    "pollIntervalSecs",
    "driftHours",
    "driftAction",
    "maxRuns",
    "runsPerConnection",
    "massDeletePercent",
    "onFailure",
    "onRecovery",
    "onChange",
    "hookTimeoutSecs",
    "bell",
    "osc9",
    "mouse",
    "ascii",
    "paused",
    "seal",
];

impl Settings {
    /// Reads and checks a settings document; all problems are reported together.
    pub fn parse(document: &Value) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let Some(object) = document.as_object() else {
            return Err(Problems::one("", "object", "The settings must be one JSON object."));
        };
        for key in object.keys().filter(|k| !FIELDS.contains(&k.as_str())) {
            unknown(key, key, FIELDS.iter().copied(), &mut problems);
        }
        let base = Self::default();
        let on_failure = read_command(object, "onFailure", &mut problems);
        let on_recovery = read_command(object, "onRecovery", &mut problems);
        let on_change = read_command(object, "onChange", &mut problems);
        let seal = read_seal(object, &mut problems);
        let mut reader = Reader { object, prefix: "", problems: &mut problems };
        // `null` switches the drift check off; a member left out means the default.
        let drift_hours = match object.get("driftHours") {
            None => base.drift_hours,
            Some(_) => reader.number("driftHours", 0, 8_760).filter(|h| *h > 0).map(|h| h as u64),
        };
        let drift_action = reader.text("driftAction", false, 32);
        let settings = Self {
            poll_interval_secs: reader.number("pollIntervalSecs", 10, 86_400).map_or(base.poll_interval_secs, |n| n as u64),
            drift_hours,
            drift_action: drift_action.as_deref().and_then(|w| w.parse().ok()).unwrap_or_default(),
            max_runs: reader.number("maxRuns", 1, 64).map_or(base.max_runs, |n| n as usize),
            runs_per_connection: reader.number("runsPerConnection", 1, 64).map_or(base.runs_per_connection, |n| n as usize),
            mass_delete_percent: reader.number("massDeletePercent", 1, 100).map_or(base.mass_delete_percent, |n| n as u8),
            on_failure,
            on_recovery,
            on_change,
            hook_timeout_secs: reader.number("hookTimeoutSecs", 1, 3_600).map_or(base.hook_timeout_secs, |n| n as u64),
            bell: reader.flag("bell").unwrap_or(base.bell),
            osc9: reader.flag("osc9").unwrap_or(base.osc9),
            mouse: reader.flag("mouse").unwrap_or(base.mouse),
            ascii: reader.flag("ascii").unwrap_or(base.ascii),
            paused: reader.flag("paused").unwrap_or(base.paused),
            seal,
        };
        if let Some(word) = drift_action.filter(|w| w.parse::<DriftAction>().is_err()) {
            use strum::VariantNames;
            let known = DriftAction::VARIANTS.join(", ");
            problems.add("driftAction", "choice", format!("{:?} is not a drift action; known are {known}.", brief(&word, 40)));
        }
        problems.into_result(settings)
    }
}

fn read_command(object: &Map, field: &str, problems: &mut Problems) -> Option<Vec<String>> {
    let parts = match object.get(field) {
        None | Some(Value::Null) => return None,
        Some(Value::Array(parts)) => parts.iter().map(|p| p.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>(),
        Some(_) => None,
    };
    match parts {
        Some(argv) if argv.first().is_some_and(|p| !p.is_empty()) => Some(argv),
        _ => {
            problems.add(field, "command", format!("{field} must be a command as a list of texts, e.g. [\"/usr/local/bin/notify\", \"kms-sync\"]."));
            None
        }
    }
}

fn read_seal(object: &Map, problems: &mut Problems) -> SealMode {
    match object.get("seal") {
        None | Some(Value::Null) => return SealMode::default(),
        Some(Value::String(word)) => match word.as_str() {
            "keyring" => problems.add(
                "seal",
                "choice",
                "This build has no access to the operating system's keyring; use key-file or passphrase, or references to your keyring's own command \
                 ({\"command\":[\"secret-tool\",\"lookup\",…]}).",
            ),
            word => match word.parse() {
                Ok(mode) => return mode,
                Err(_) => problems.add("seal", "choice", format!("{:?} is not a way to seal; known are key-file, passphrase.", brief(word, 40))),
            },
        },
        Some(_) => problems.add("seal", "type", "seal must be a text."),
    }
    SealMode::default()
}

impl Store {
    /// The settings; defaults when there is no file. A file that cannot be used is an error
    /// with its path and a fix, of kind `Invalid` where its content is to blame: a mistyped
    /// safety setting must not be dropped in silence.
    pub fn settings(&self) -> Result<Settings, StoreError> {
        self.read_settings().map_err(|error| match error.kind {
            StoreErrorKind::Broken => StoreError { kind: StoreErrorKind::Invalid, ..error },
            _ => error,
        })
    }

    fn read_settings(&self) -> Result<Settings, StoreError> {
        let path = self.dirs().settings();
        let Some(text) = files::read(&path, Access::Readable)? else {
            return Ok(Settings::default());
        };
        let document = super::config::parse_json(&text, &path)?;
        Settings::parse(&document).map_err(|problems| {
            let fix = "Correct these members, or remove them to get the defaults.".to_string();
            StoreError::from(Broken { path: path.clone(), reason: problems.ruled(), fix, problems })
        })
    }

    /// Stores the settings. A changed `seal` seals every credential anew first, see
    /// [`Store::change_seal`].
    pub fn save_settings(&self, settings: &Settings) -> Result<(), StoreError> {
        let document = serde_json::to_value(settings).map_err(|e| StoreError::new(StoreErrorKind::Invalid, e.to_string()))?;
        if let Err(problems) = Settings::parse(&document) {
            return Err(problems.into());
        }
        if self.settings().is_ok_and(|now| now.seal != settings.seal) {
            self.change_seal(settings.seal, None)?;
        }
        self.write_settings(settings)
    }

    pub(super) fn write_settings(&self, settings: &Settings) -> Result<(), StoreError> {
        let mut text = serde_json::to_string_pretty(settings).map_err(|e| StoreError::new(StoreErrorKind::Invalid, e.to_string()))?;
        text.push('\n');
        files::write(&self.dirs().settings(), text.as_bytes())
    }
}
