//! What every screen may look at: the engine's picture, the stored connections, the log and the
//! clock. Kept up to date by [`super::app`]; read by the screens, which change only the log.

use std::collections::VecDeque;

use ratatui::layout::Size;

use super::fx::{Level, Load};
use super::theme::Theme;
use crate::model::Time;
use crate::model::board::Board;
use crate::model::connection::ConnectionView;
use crate::service::{Draft, ServiceError};

/// A line of the log.
#[derive(Debug, Clone)]
pub struct LogLine {
    pub at: Time,
    pub level: Level,
    pub text: String,
    /// It told of a failure that is over: the log keeps it, the last line no longer says it.
    pub over: bool,
}

/// What all screens see.
pub struct World {
    pub board: Board,
    /// False until the first picture is here.
    pub loaded: bool,
    /// Why there is no picture.
    pub lost: Option<ServiceError>,
    pub connections: Load<Vec<ConnectionView>>,
    pub log: VecDeque<LogLine>,
    pub now: Time,
    pub zone: jiff::tz::TimeZone,
    pub theme: Theme,
    pub size: Size,
    /// What the demo says of itself, when this is one.
    pub demo: Option<String>,
    pub demo_paused: bool,
    /// The demo changes nothing by itself.
    pub demo_quiet: bool,
    /// The sync that was begun and not finished.
    pub draft: Load<Option<Draft>>,
    pub start: super::Start,
}

/// How many log lines are kept.
const LOG: usize = 1000;

impl World {
    /// Stored connections of an app.
    pub fn connections_of(&self, app: &str) -> Vec<&ConnectionView> {
        self.connections.value.iter().flatten().filter(|c| c.app == app).collect()
    }

    /// Adds a line to the log; the newest is shown as the last result.
    pub fn note(&mut self, level: Level, text: impl Into<String>) {
        if self.log.len() == LOG {
            self.log.pop_front();
        }
        self.log.push_back(LogLine { at: self.now, level, text: text.into(), over: false });
    }

    /// What these lines told of is over.
    pub fn settle(&mut self, told: impl Fn(&str) -> bool) {
        self.log.iter_mut().filter(|l| told(&l.text)).for_each(|l| l.over = true);
    }

    /// The newest line, unless what it tells of is over.
    pub fn last_line(&self) -> Option<&LogLine> {
        self.log.back().filter(|l| !l.over)
    }

    /// Runs that are going or queued.
    pub fn runs(&self) -> usize {
        self.board.cards.values().filter(|c| c.run.is_some()).count()
    }

    /// A moment as local time of day.
    pub fn clock(&self, at: Time) -> String {
        at.to_zoned(self.zone.clone()).strftime("%H:%M:%S").to_string()
    }

    /// A moment as local date and time.
    pub fn date(&self, at: Time) -> String {
        at.to_zoned(self.zone.clone()).strftime("%Y-%m-%d %H:%M").to_string()
    }
}
