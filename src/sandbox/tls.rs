//! Puts a service's router behind TLS, with a certificate made at start: vendors' clients
//! that refuse plain http can then be driven against the sandbox.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::serve::Listener;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::host::{Faults, RequestLog, wrap};

/// Marks requests that came in over TLS, for services that print their own address.
#[derive(Debug, Clone, Copy)]
pub struct OverTls;

/// A service running behind TLS.
pub struct TlsHost {
    /// `https://localhost:PORT`, without trailing slash.
    pub url: String,
    pub addr: SocketAddr,
    /// The self-signed certificate, PEM: what a client must be told to trust.
    pub certificate: String,
    pub faults: Faults,
    pub log: RequestLog,
    stop: CancellationToken,
}

impl TlsHost {
    /// Serves `router` on a free loopback port (or on `port`, when given), under a
    /// certificate for `localhost` and 127.0.0.1.
    pub async fn start(router: axum::Router, port: Option<u16>) -> std::io::Result<Self> {
        let (acceptor, certificate) = acceptor()?;
        let listener = TcpListener::bind(("127.0.0.1", port.unwrap_or(0))).await?;
        let addr = listener.local_addr()?;
        let (faults, log, stop) = (Faults::default(), RequestLog::default(), CancellationToken::new());
        let app = wrap(router, &faults, &log).layer(axum::Extension(OverTls));
        let listener = TlsListener::start(listener, acceptor, addr, stop.clone());
        let ending = stop.clone();
        tokio::spawn(async move {
            let server = axum::serve(listener, app).with_graceful_shutdown(async move { ending.cancelled().await });
            if let Err(error) = server.await {
                tracing::warn!(%error, "a sandbox service ended");
            }
        });
        Ok(Self { url: format!("https://localhost:{}", addr.port()), addr, certificate, faults, log, stop })
    }
}

impl Drop for TlsHost {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn acceptor() -> std::io::Result<(TlsAcceptor, String)> {
    let mut params = rcgen::CertificateParams::new(["localhost".to_string(), "127.0.0.1".to_string()]).map_err(std::io::Error::other)?;
    // Certificates of one name are one to OpenSSL: a client that trusts several hosts at once
    // would look at the first only.
    params.distinguished_name.push(rcgen::DnType::CommonName, format!("kms-sync sandbox {}", uuid::Uuid::new_v4()));
    let signing_key = rcgen::KeyPair::generate().map_err(std::io::Error::other)?;
    let certificate = params.self_signed(&signing_key).map_err(std::io::Error::other)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|b| b.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key))
        .map_err(std::io::Error::other)?;
    Ok((TlsAcceptor::from(Arc::new(config)), certificate.pem()))
}

/// Hands out connections whose handshake is done: one that dawdles holds up nobody.
struct TlsListener {
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    addr: SocketAddr,
}

impl TlsListener {
    fn start(listener: TcpListener, acceptor: TlsAcceptor, addr: SocketAddr, stop: CancellationToken) -> Self {
        let (sender, ready) = mpsc::channel(16);
        tokio::spawn(async move {
            loop {
                let accepted = tokio::select! {
                    () = stop.cancelled() => return,
                    accepted = listener.accept() => accepted,
                };
                let Ok((stream, peer)) = accepted else { continue };
                let (acceptor, sender) = (acceptor.clone(), sender.clone());
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        // The receiver goes only when the server has ended.
                        let _ = sender.send((stream, peer)).await;
                    }
                });
            }
        });
        Self { ready, addr }
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(connection) => connection,
            // The server is stopping: its shutdown signal ends the wait.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        Ok(self.addr)
    }
}
