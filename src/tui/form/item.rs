//! One field of a form: what it holds, how it is edited, and what is said beside it.

use tui_textarea::TextArea;

use super::line::Line;
use crate::destination::Choice;
use crate::destination::form::Unlisted;
use crate::model::Time;
use crate::service::ServiceErrorKind;
use crate::tui::fx::Load;
use crate::tui::theme::Role;

/// How a field is edited.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    Line,
    /// Masked; `multiline` for PEM keys.
    Secret {
        multiline: bool,
    },
    /// A text area; line breaks belong to the value.
    Area,
    Choice(Vec<Opt>),
    Flag,
    /// Picked from a list that the owner fetches. `free`: any text may be typed instead.
    Pick {
        free: bool,
    },
    /// A folder path: the list shows what lies below the path typed so far.
    Path,
    Number {
        min: i64,
        max: i64,
    },
}

/// One of a fixed list.
#[derive(Debug, Clone, PartialEq)]
pub struct Opt {
    pub value: String,
    pub label: String,
    pub help: String,
}

/// Where a credential comes from when it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// What is stored stays.
    Stored,
    Typed,
    Env,
    File,
    Command,
}

impl Origin {
    /// The next one, in the order of the key's hint; `held`: something is stored.
    pub fn next(self, held: bool) -> Self {
        match self {
            Self::Stored => Self::Typed,
            Self::Typed => Self::Env,
            Self::Env => Self::File,
            Self::File => Self::Command,
            Self::Command if held => Self::Stored,
            Self::Command => Self::Typed,
        }
    }

    /// What is asked for.
    pub fn prompt(self) -> &'static str {
        match self {
            Self::Stored | Self::Typed => "",
            Self::Env => "environment variable",
            Self::File => "file",
            Self::Command => "command",
        }
    }
}

/// One field.
pub struct Item {
    /// The JSON path it fills, e.g. `destinationConfig.region`.
    pub id: String,
    pub label: String,
    pub help: String,
    pub required: bool,
    pub kind: Kind,
    pub line: Line,
    pub area: TextArea<'static>,
    pub chosen: usize,
    pub on: bool,
    /// What is wrong with the value; shown once the field was touched.
    pub problem: Option<String>,
    /// Said instead of the help, without standing in the way (a connection's failed test).
    pub notice: Option<(Role, String)>,
    pub touched: bool,
    pub hidden: bool,
    /// What the picked value is called.
    pub called: Option<String>,
    /// Value and name before the last pick, until the screen has looked at it.
    pub before: Option<(String, Option<String>)>,
    pub choices: Load<Vec<Choice>>,
    /// What the choices were asked for; other dependencies make them stale.
    pub asked: Option<String>,
    /// Shown at the right: a connection's test, a hint.
    pub status: Option<(Role, String)>,
    /// `None`: the field cannot be a reference.
    pub origin: Option<Origin>,
    /// A value is stored that can be kept as it is.
    pub held: bool,
    /// A secret is readable until then.
    pub revealed: Option<Time>,
    /// Why it cannot be changed.
    pub locked: Option<&'static str>,
    /// Shown while empty.
    pub placeholder: String,
    /// What an empty field stands for.
    pub follows: Option<String>,
    /// Said when nothing is listed; empty: the usual words.
    pub none_listed: &'static str,
    /// What must be typed where the list is refused; empty: any text may do.
    pub when_refused: Option<Unlisted>,
}

impl Item {
    /// An empty, required field.
    pub fn new(id: impl Into<String>, label: impl Into<String>, help: impl Into<String>, kind: Kind) -> Self {
        let multiline = matches!(kind, Kind::Secret { multiline: true });
        let mut area = TextArea::default();
        area.set_cursor_line_style(ratatui::style::Style::new());
        area.set_wrap_mode(tui_textarea::WrapMode::WordOrGlyph);
        Self {
            id: id.into(),
            label: label.into(),
            help: help.into(),
            required: true,
            kind,
            line: Line::new(multiline),
            area,
            chosen: 0,
            on: false,
            problem: None,
            notice: None,
            touched: false,
            hidden: false,
            called: None,
            before: None,
            choices: Load::default(),
            asked: None,
            status: None,
            origin: None,
            held: false,
            revealed: None,
            locked: None,
            placeholder: String::new(),
            follows: None,
            none_listed: "",
            when_refused: None,
        }
    }

    pub fn optional(mut self) -> Self {
        self.required = false;
        self
    }

    pub fn with(mut self, text: &str) -> Self {
        self.set(text);
        self
    }

    pub fn on(mut self, on: bool) -> Self {
        self.on = on;
        self
    }

    /// Sets the value from its text.
    pub fn set(&mut self, text: &str) {
        match &self.kind {
            Kind::Choice(options) => self.chosen = options.iter().position(|o| o.value == text).unwrap_or(0),
            Kind::Flag => self.on = text == "true",
            Kind::Area => {
                let style = self.area.cursor_line_style();
                self.area = TextArea::new(text.split('\n').map(str::to_owned).collect());
                self.area.set_cursor_line_style(style);
                self.area.set_wrap_mode(tui_textarea::WrapMode::WordOrGlyph);
            }
            _ => self.line.set(text),
        }
    }

    /// The value as text, trimmed at the ends.
    pub fn value(&self) -> String {
        match &self.kind {
            Kind::Choice(options) => options.get(self.chosen).map(|o| o.value.clone()).unwrap_or_default(),
            Kind::Flag => self.on.to_string(),
            Kind::Area => self.area.lines().join("\n").trim().to_string(),
            Kind::Secret { .. } => self.line.text().to_string(),
            _ => self.line.text().trim().to_string(),
        }
    }

    pub fn is_empty(&self) -> bool {
        !matches!(self.kind, Kind::Flag | Kind::Choice(_)) && self.origin != Some(Origin::Stored) && self.value().is_empty()
    }

    /// What may be typed, when the list is refused and only a certain form of text does without it.
    pub fn unlisted(&self) -> Option<Unlisted> {
        self.when_refused.filter(|_| self.choices.error.as_ref().is_some_and(|e| e.kind == ServiceErrorKind::Forbidden))
    }

    /// True where a value that no list gives may be typed.
    pub fn free(&self) -> bool {
        matches!(self.kind, Kind::Path | Kind::Pick { free: true })
    }

    pub fn picks(&self) -> bool {
        matches!(self.kind, Kind::Pick { .. } | Kind::Path)
    }

    /// True when typed characters belong to the field.
    pub fn takes_text(&self) -> bool {
        self.locked.is_none() && !matches!(self.kind, Kind::Flag | Kind::Choice(_))
    }

    /// What is typed takes the place of what is stored.
    pub(super) fn take_over(&mut self) {
        if self.origin == Some(Origin::Stored) {
            self.origin = Some(Origin::Typed);
        }
    }

    pub(super) fn cycle(&mut self, by: isize) -> bool {
        match &self.kind {
            Kind::Choice(options) if !options.is_empty() && self.locked.is_none() => {
                self.chosen = (self.chosen as isize + by).rem_euclid(options.len() as isize) as usize;
            }
            Kind::Flag if self.locked.is_none() => self.on = !self.on,
            _ => return false,
        }
        self.touched = true;
        true
    }
}
