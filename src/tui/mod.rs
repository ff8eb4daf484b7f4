//! The terminal app: one face of the application service. No cloud code, no SQL, no provider's
//! name; screens talk to [`crate::service::Service`] and draw from the destinations' forms.
//!
//! One loop ([`driver`]) feeds a pure transition ([`app::update`]) and draws ([`view::draw`])
//! into a buffer whose difference to the last one goes over the line ([`wire`]).
//!
//! | file | subject |
//! | --- | --- |
//! | [`app`], [`world`], [`fx`], [`actions`] | state, what all screens see, what is asked of the service, what decisions lead to |
//! | [`keys`], [`theme`], [`words`] | key bindings, looks and words as data |
//! | [`form`] | fields, editing, pickers |
//! | [`dashboard`], [`wizard`], [`connections`], [`setup`], [`panes`], [`modal`] | the screens |
//! | [`ui`], [`text`], [`view`] | drawing |

mod actions;
mod app;
mod connections;
mod dashboard;
mod driver;
mod form;
mod fx;
mod keys;
mod modal;
mod panes;
mod setup;
mod terminal;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod text;
mod theme;
mod ui;
mod view;
mod wire;
mod wizard;
mod words;
mod world;

use std::collections::VecDeque;
use std::sync::Arc;

use ratatui::layout::Size;

use crate::model::Time;
use crate::service::Service;

/// Where the time comes from.
pub trait Clock: Send + Sync {
    fn now(&self) -> Time;
}

/// What a demo offers to the screens.
pub trait DemoControls: Send + Sync {
    /// Pauses or resumes what the demo changes by itself.
    fn pause(&self, paused: bool);
    /// True when it changes nothing by itself, ever.
    fn quiet(&self) -> bool;
    /// A sentence for the newcomer: what this is and what will happen.
    fn describe(&self) -> String;
}

/// A screen to start on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Screen {
    Dashboard,
    Connections,
    NewSync,
}

/// The screen still to be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    Screen(Screen),
    Done,
}

/// How the app is to behave.
#[derive(Clone)]
pub struct TuiOptions {
    /// No colour codes at all; status is still a symbol and a word.
    pub no_color: bool,
    /// Only ASCII characters. The default follows the locale.
    pub ascii: bool,
    /// Clicks and wheel. The terminal's own selection then needs Shift.
    pub mouse: bool,
    /// Ring the bell at the end of a run.
    pub bell: bool,
    /// Notify through the terminal (OSC 9) at the end of a run.
    pub notify: bool,
    pub demo: Option<Arc<dyn DemoControls>>,
    pub start: Option<Screen>,
    pub clock: Arc<dyn Clock>,
    /// For times of day.
    pub zone: jiff::tz::TimeZone,
}

impl Default for TuiOptions {
    fn default() -> Self {
        Self {
            no_color: std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty()),
            ascii: !theme::locale_is_utf8(),
            mouse: true,
            bell: false,
            notify: false,
            demo: None,
            start: None,
            clock: Arc::new(driver::SystemClock),
            zone: jiff::tz::TimeZone::system(),
        }
    }
}

impl TuiOptions {
    fn world(&self, size: Size) -> world::World {
        world::World {
            board: Default::default(),
            loaded: false,
            lost: None,
            connections: Default::default(),
            log: VecDeque::new(),
            now: self.clock.now(),
            zone: self.zone.clone(),
            theme: theme::Theme { colour: !self.no_color, ascii: self.ascii },
            size,
            demo: self.demo.as_ref().map(|d| d.describe()),
            demo_paused: false,
            demo_quiet: self.demo.as_ref().is_some_and(|d| d.quiet()),
            draft: Default::default(),
            start: Start::Screen(self.start.unwrap_or(Screen::Dashboard)),
        }
    }
}

/// Runs the terminal app until the operator leaves. Gives the terminal back on every way out.
///
/// # Errors
/// When standard input or output is no terminal, or the terminal cannot be written to.
pub async fn run(service: Arc<dyn Service>, options: TuiOptions) -> anyhow::Result<()> {
    driver::run(service, options).await
}

/// A click on a form: focuses a field, takes a row of the open list, or presses a button (then true).
fn form_click(form: &mut form::Form, hit: &ui::Hit) -> bool {
    match hit {
        ui::Hit::Row(n) => form.mark(*n),
        ui::Hit::Field(n) => {
            form.popup = None;
            let again = form.focus == *n && form.items.get(*n).is_some_and(|i| !i.takes_text());
            form.focus = *n;
            if again {
                form.act(keys::Action::Toggle);
            }
            false
        }
        ui::Hit::Button(n) => {
            form.popup = None;
            (form.focus, form.button) = (form.items.len(), *n);
            true
        }
        ui::Hit::Tab(_) => false,
    }
}
