//! The loop: terminal events, the service's events, answers, signals and the moments a screen
//! waits for, one after the other through [`app::update`]; then one frame, if anything changed.
//! With nothing happening it sleeps and writes nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossterm::event::{Event as Input, EventStream};
use futures::StreamExt;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::AbortHandle;

use super::app::{self, App, Msg};
use super::fx::{self, Call, Effect, Reply, Ticket};
use super::terminal::{self, Terminal};
use super::view;
use super::wire::Wire;
use super::{Clock, TuiOptions};
use crate::model::board::Event;
use crate::service::{Draft, Service, ServiceError};

/// At most this many frames a second.
const FRAME: Duration = Duration::from_millis(33);
/// The first frame waits this long for the first picture, so that it need not be drawn twice.
const FIRST: Duration = Duration::from_millis(6);
/// How long a leaving app waits for the unfinished sync to be kept.
const GRACE: Duration = Duration::from_secs(10);

/// What tasks send to the loop.
#[allow(clippy::large_enum_variant, reason = "passed once, never stored in numbers")]
enum Incoming {
    Watch(Result<crate::service::Watch, ServiceError>),
    Reply(Ticket, Reply),
}

struct Driver {
    service: Arc<dyn Service>,
    options: TuiOptions,
    terminal: Terminal,
    wire: Wire,
    app: App,
    sender: mpsc::UnboundedSender<Incoming>,
    events: Option<broadcast::Receiver<Event>>,
    tasks: HashMap<Ticket, AbortHandle>,
    drafts: watch::Sender<Option<Draft>>,
    dirty: bool,
    drawn_at: Option<Instant>,
    /// When a visible text changes by itself.
    wake: Option<Instant>,
    leaving: bool,
}

/// Runs the app until the operator leaves or the line drops. Does not close the service.
pub async fn run(service: Arc<dyn Service>, options: TuiOptions) -> anyhow::Result<()> {
    // Before the terminal is taken: from here on every signal gives it back.
    let signals = Signals::new()?;
    let terminal = Terminal::enter(options.mouse)?;
    let (sender, incoming) = mpsc::unbounded_channel();
    let size = terminal.size();
    let app = App::new(options.world(size));
    let (drafts, latest) = watch::channel(None);
    let keeper = tokio::spawn(keep_drafts(service.clone(), latest));
    let mut driver = Driver {
        service: service.clone(),
        options,
        terminal,
        wire: Wire::new(size),
        app,
        sender,
        events: None,
        tasks: HashMap::new(),
        drafts,
        dirty: true,
        drawn_at: None,
        wake: None,
        leaving: false,
    };
    let outcome = driver.drive(incoming, signals).await;
    // However the app ends (the line dropped, a signal), what was being written waits for the next start.
    if let Some(draft) = driver.app.unfinished() {
        driver.drafts.send_replace(Some(draft));
    }
    driver.tasks.values().for_each(AbortHandle::abort);
    // The keeper ends with the last draft kept.
    drop(driver);
    if tokio::time::timeout(GRACE, keeper).await.is_err() {
        tracing::warn!("the unfinished sync could not be kept in time");
    }
    match outcome {
        Err(error) if line_dropped(&error) => Ok(()),
        outcome => outcome,
    }
}

/// True when the terminal went away, which may be seen before SIGHUP comes: a way to leave like others.
fn line_dropped(error: &anyhow::Error) -> bool {
    use rustix::io::Errno;
    let number = error.downcast_ref::<std::io::Error>().and_then(Errno::from_io_error);
    number.is_some_and(|n| [Errno::IO, Errno::NXIO, Errno::NOTTY, Errno::PIPE, Errno::BADF].contains(&n))
}

impl Driver {
    async fn drive(&mut self, mut incoming: mpsc::UnboundedReceiver<Incoming>, mut signals: Signals) -> anyhow::Result<()> {
        self.watch();
        let first = self.app.begin();
        self.carry_out(first)?;
        if let Ok(Some(message)) = tokio::time::timeout(FIRST, incoming.recv()).await {
            self.incoming(message)?;
        }
        while let Ok(message) = incoming.try_recv() {
            self.incoming(message)?;
        }
        self.draw()?;
        let mut input = EventStream::new();
        while !self.leaving {
            let deadline = self.deadline();
            tokio::select! {
                event = input.next() => match event {
                    Some(Ok(Input::Resize(..))) => {}
                    Some(Ok(event)) => {
                        self.message(Msg::Input(event))?;
                        // What was typed meanwhile belongs to the same frame. Polled with this task's own
                        // waker: the stream remembers the waker of its last poll.
                        while let std::task::Poll::Ready(Some(Ok(event))) = futures::poll!(input.next()) {
                            self.message(Msg::Input(event))?;
                        }
                    }
                    // The terminal is gone.
                    Some(Err(_)) | None => self.leaving = true,
                },
                message = incoming.recv() => {
                    if let Some(message) = message {
                        self.incoming(message)?;
                    }
                    while let Ok(message) = incoming.try_recv() {
                        self.incoming(message)?;
                    }
                },
                event = next_event(&mut self.events) => self.board_event(event)?,
                () = sleep_until(deadline) => {
                    if self.wake.is_some_and(|w| w <= Instant::now()) {
                        self.wake = None;
                        self.message(Msg::Tick)?;
                    }
                },
                signal = signals.next() => match signal {
                    Signal::End => self.leaving = true,
                    Signal::Stop => self.suspend()?,
                    Signal::Resize => self.redraw(),
                    Signal::Continue => {
                        self.terminal.resume()?;
                        self.redraw();
                    }
                },
            }
            if !self.leaving && self.dirty && self.drawn_at.is_none_or(|at| at.elapsed() >= FRAME) {
                self.draw()?;
            }
        }
        Ok(())
    }

    /// The next moment at which the loop has something to do by itself.
    fn deadline(&self) -> Option<Instant> {
        let frame = self.dirty.then(|| self.drawn_at.map_or_else(Instant::now, |at| at + FRAME));
        [frame, self.wake].into_iter().flatten().min()
    }

    fn message(&mut self, message: Msg) -> anyhow::Result<()> {
        let effects = app::update(&mut self.app, message, self.options.clock.now());
        self.dirty = true;
        self.carry_out(effects)
    }

    fn incoming(&mut self, message: Incoming) -> anyhow::Result<()> {
        match message {
            Incoming::Watch(Ok(watch)) => {
                self.events = Some(watch.events);
                self.message(Msg::Board(Box::new(watch.board)))
            }
            Incoming::Watch(Err(error)) => self.message(Msg::Lost(error)),
            Incoming::Reply(ticket, reply) => {
                // An abandoned call may have been answered already.
                if self.tasks.remove(&ticket).is_none() { Ok(()) } else { self.message(Msg::Reply(ticket, reply)) }
            }
        }
    }

    fn board_event(&mut self, event: Option<Event>) -> anyhow::Result<()> {
        match event {
            Some(Event::Lagged) => self.watch(),
            Some(event) => {
                self.message(Msg::Event(Box::new(event)))?;
                // What came meanwhile belongs to the same frame; a gap in it asks for a new picture.
                while let Some(events) = &mut self.events {
                    match events.try_recv() {
                        Ok(Event::Lagged) | Err(broadcast::error::TryRecvError::Lagged(_)) => self.watch(),
                        Ok(event) => self.message(Msg::Event(Box::new(event)))?,
                        Err(_) => break,
                    }
                }
            }
            None => {
                // The engine that was watched is gone; the service may have another one by now.
                self.events = None;
                self.watch();
            }
        }
        Ok(())
    }

    fn watch(&self) {
        let (service, sender) = (self.service.clone(), self.sender.clone());
        tokio::spawn(async move {
            let answer = service.watch().await;
            let _ = sender.send(Incoming::Watch(answer));
        });
    }

    fn carry_out(&mut self, effects: Vec<Effect>) -> anyhow::Result<()> {
        for effect in effects {
            match effect {
                Effect::Call(_, Call::Watch) => self.watch(),
                Effect::Call(ticket, call) => {
                    let (service, sender) = (self.service.clone(), self.sender.clone());
                    let task = tokio::spawn(async move {
                        let reply = fx::execute(service, call).await;
                        let _ = sender.send(Incoming::Reply(ticket, reply));
                    });
                    self.tasks.insert(ticket, task.abort_handle());
                }
                Effect::Abandon(ticket) => {
                    if let Some(task) = self.tasks.remove(&ticket) {
                        task.abort();
                    }
                }
                Effect::Copy(text) => terminal::write(&osc52(&text))?,
                Effect::Notify(text) => self.notify(&text)?,
                Effect::Play(paused) => {
                    if let Some(demo) = &self.options.demo {
                        demo.pause(paused);
                    }
                }
                Effect::Keep(draft) => {
                    self.drafts.send_replace(draft.map(|d| *d));
                }
                Effect::Redraw => self.redraw(),
                Effect::Suspend => self.suspend()?,
                Effect::Quit => self.leaving = true,
            }
        }
        Ok(())
    }

    fn notify(&self, text: &str) -> anyhow::Result<()> {
        if self.options.bell {
            terminal::write("\x07")?;
        }
        if self.options.notify {
            terminal::write(&format!("\x1b]9;{}\x07", crate::model::text::brief(text, 120)))?;
        }
        Ok(())
    }

    fn suspend(&mut self) -> anyhow::Result<()> {
        self.terminal.suspend()?;
        self.redraw();
        Ok(())
    }

    fn redraw(&mut self) {
        let size = self.terminal.size();
        self.app.world.size = size;
        self.wire.invalidate(size);
        self.dirty = true;
    }

    fn draw(&mut self) -> anyhow::Result<()> {
        self.dirty = false;
        self.app.world.now = self.options.clock.now();
        let drawn = view::draw(&self.app, self.wire.buffer());
        let now = self.app.world.now;
        self.wake = drawn.wake.map(|at| {
            let ms = (at.as_millisecond() - now.as_millisecond()).max(10) as u64;
            Instant::now() + Duration::from_millis(ms)
        });
        let bytes = self.wire.finish(drawn.cursor);
        if !bytes.is_empty() {
            terminal::write(bytes)?;
        }
        app::drawn(&mut self.app, drawn);
        self.drawn_at = Some(Instant::now());
        Ok(())
    }
}

/// Keeps the newest draft, one at a time: an older one must never be written over a newer one.
async fn keep_drafts(service: Arc<dyn Service>, mut latest: watch::Receiver<Option<Draft>>) {
    while latest.changed().await.is_ok() {
        let draft = latest.borrow_and_update().clone();
        if let Err(error) = service.keep_draft(draft).await {
            tracing::warn!("the unfinished sync could not be kept: {error}");
        }
    }
}

/// Sets the clipboard of the operator's own terminal, over SSH too.
fn osc52(text: &str) -> String {
    use base64::Engine as _;
    format!("\x1b]52;c;{}\x07", base64::engine::general_purpose::STANDARD.encode(text))
}

async fn next_event(events: &mut Option<broadcast::Receiver<Event>>) -> Option<Event> {
    match events {
        Some(receiver) => match receiver.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(Event::Lagged),
            Err(broadcast::error::RecvError::Closed) => None,
        },
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

enum Signal {
    /// Leave in order: SIGTERM, SIGINT, SIGHUP (the line dropped).
    End,
    Stop,
    Continue,
    /// The window has another size. Crossterm hears this only once its stream is polled; we from the start.
    Resize,
}

struct Signals {
    term: tokio::signal::unix::Signal,
    int: tokio::signal::unix::Signal,
    hup: tokio::signal::unix::Signal,
    stop: tokio::signal::unix::Signal,
    cont: tokio::signal::unix::Signal,
    winch: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
            stop: signal(SignalKind::from_raw(rustix::process::Signal::TSTP.as_raw()))?,
            cont: signal(SignalKind::from_raw(rustix::process::Signal::CONT.as_raw()))?,
            winch: signal(SignalKind::window_change())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.term.recv() => Signal::End,
            _ = self.int.recv() => Signal::End,
            _ = self.hup.recv() => Signal::End,
            _ = self.stop.recv() => Signal::Stop,
            _ = self.cont.recv() => Signal::Continue,
            _ = self.winch.recv() => Signal::Resize,
        }
    }
}

/// The clock of the system.
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> crate::model::Time {
        crate::model::Time::now()
    }
}
