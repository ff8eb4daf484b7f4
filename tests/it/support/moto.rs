//! moto's server: a third-party Secrets Manager and STS, one for the whole test binary. moto
//! keeps its state per region, so each test takes a region of its own.

#![allow(dead_code, reason = "not every selection of tests uses every helper")]

use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A running server.
pub struct Moto {
    pub url: String,
    /// Ends when its standard input closes with this process.
    _child: Child,
}

/// The server; `None` (said loudly) where the Python environment cannot be made.
pub fn moto() -> Option<&'static Moto> {
    static MOTO: OnceLock<Option<Moto>> = OnceLock::new();
    MOTO.get_or_init(start).as_ref()
}

fn start() -> Option<Moto> {
    let python = super::python::interpreter()?;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("an address");
    drop(listener);
    let child = Command::new(python)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vendor/moto_server.py"))
        .arg(addr.port().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("moto starts");
    let begun = Instant::now();
    while TcpStream::connect(addr).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(60), "moto does not listen");
        std::thread::sleep(Duration::from_millis(50));
    }
    Some(Moto { url: format!("http://{addr}"), _child: child })
}
