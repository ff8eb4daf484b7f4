//! A KMS, all five destinations, the program in processes of its own, and engines in this one.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kms_sync::store::{Dirs, Store};
use serde_json::{Value, json};

use crate::conformance::place::Place;
use crate::conformance::places;
use crate::support::rig::Rig;

/// Nothing that is waited for may take longer.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The yard.
pub struct Yard {
    pub rig: Rig,
    pub places: Vec<Box<dyn Place>>,
}

impl Yard {
    /// An account and a connection to each destination, named by its kind.
    pub async fn new() -> Self {
        Self::with(vec![
            places::aws::start().await,
            places::azure_key_vault::start().await,
            places::azure_devops::start().await,
            places::bitbucket::start().await,
            places::oci::start().await,
        ])
        .await
    }

    /// AWS alone.
    pub async fn aws() -> Self {
        Self::with(vec![places::aws::start().await]).await
    }

    /// AWS, Key Vault and Azure DevOps: three that keep each other back in nothing.
    pub async fn apart() -> Self {
        Self::with(vec![places::aws::start().await, places::azure_key_vault::start().await, places::azure_devops::start().await]).await
    }

    /// Bitbucket alone.
    pub async fn bitbucket() -> Self {
        Self::with(vec![places::bitbucket::start().await]).await
    }

    /// These places.
    pub async fn with(places: Vec<Box<dyn Place>>) -> Self {
        let rig = Rig::new().await;
        let yard = Self { rig, places };
        let store = yard.store();
        for place in &yard.places {
            let mut document = place.connection();
            document["name"] = place.kind().into();
            let local = kms_sync::service::local::Local::new(store.clone());
            kms_sync::service::Service::save_connection(&*local, document, true).await.expect("a good connection");
        }
        yard
    }

    pub fn place(&self) -> &dyn Place {
        &*self.places[0]
    }

    pub fn dirs(&self) -> Dirs {
        Dirs::resolve(Some(self.rig.config_dir()), Some(self.rig.state_dir())).expect("directories")
    }

    pub fn store(&self) -> Store {
        Store::open(self.dirs()).expect("a store")
    }

    /// The create request of a sync from a folder to a destination; deletion on, keys `NAME_…`
    /// of its own where a schema names keys.
    pub fn document(&self, name: &str, place: &dyn Place, folder: &str, enabled: bool, schema: Option<&str>) -> Value {
        let mut options = json!({"initialSyncBehavior": "overwrite-destination"});
        if let Some(schema) = schema {
            options["keySchema"] = schema.into();
        }
        json!({"name": name, "projectId": self.rig.project, "connectionId": place.kind(), "environment": "dev", "secretPath": folder,
            "isEnabled": enabled, "syncOptions": options, "destination": place.kind(), "destinationConfig": place.config()})
    }

    /// Stores a sync by the command line, without running it.
    pub async fn create(&self, document: &Value) {
        self.rig.run_with(&["create", "-f", "-", "--no-run"], document).await.expect(0);
    }

    /// Writes `settings.json`.
    pub fn settings(&self, settings: &Value) {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;
        let path = self.rig.config_dir().join("settings.json");
        let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).expect("settings");
        file.write_all(settings.to_string().as_bytes()).expect("settings");
    }

    /// Starts the program and does not wait for its end.
    pub fn spawn(&self, args: &[&str]) -> Process {
        let mut command = self.rig.command();
        command.args(args);
        self.start(command)
    }

    /// Starts a command of the program and does not wait for its end.
    pub fn start(&self, mut command: std::process::Command) -> Process {
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        Process::new(command.spawn().expect("the program starts"))
    }

    /// `kms-sync run`, ready.
    pub async fn engine(&self, args: &[&str]) -> Process {
        let process = self.spawn(&[&["run"], args].concat());
        process.says("ready").await;
        process
    }
}

/// A running program.
pub struct Process {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Process {
    fn new(mut child: Child) -> Self {
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let (kept, stderr) = (lines.clone(), child.stderr.take().expect("a pipe"));
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                kept.lock().expect("lines").push(line);
            }
        });
        Self { child, lines }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to standard error.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("lines").clone()
    }

    /// Waits for a line that contains this.
    pub async fn says(&self, what: &str) -> String {
        until(&format!("a line with {what:?}"), || self.lines().into_iter().find(|l| l.contains(what)), || self.lines().join("\n")).await
    }

    /// Sends a signal, by name.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.child.id() as i32).expect("a pid");
        rustix::process::kill_process(pid, signal).expect("a living process");
    }

    /// Kills it at once, as `kill -9` does, and waits until it is gone.
    pub fn kill(&mut self) {
        self.child.kill().expect("a process");
        self.child.wait().expect("a process");
    }

    /// Waits for its end.
    pub async fn end(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a process") {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "it does not end; it said:\n{}", self.lines().join("\n"));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// True while it runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().expect("a process").is_none()
    }

    /// CPU time so far, of all its threads.
    pub fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).expect("a living process");
        let fields: Vec<&str> = stat[stat.rfind(')').expect("a name") + 1..].split_ascii_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().expect("ticks") + fields[12].parse::<u64>().expect("ticks");
        // USER_HZ is 100 on every Linux.
        Duration::from_millis(ticks * 10)
    }

    /// Resident memory, in KiB.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("a living process");
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).expect("resident memory");
        line.split_ascii_whitespace().nth(1).expect("a figure").parse().expect("a figure")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until something is there; `told` explains when it never comes.
pub async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>, told: impl Fn() -> String) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}:\n{}", told());
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
}

/// Waits until this is true.
pub async fn sure(what: &str, mut look: impl FnMut() -> bool) {
    until(what, || look().then_some(()), String::new).await;
}

/// A path of the yard's state directory as text.
pub fn socket_of(yard: &Yard) -> PathBuf {
    // The children have no XDG_RUNTIME_DIR: their socket lives in the state directory.
    yard.rig.state_dir().join("engine.sock")
}
