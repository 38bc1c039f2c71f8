//! The listener and its connections.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::handle::handle;
use super::shared::Shared;

/// The longest time that a port stays taken after its listener stopped.
const PORT_FREE: Duration = Duration::from_secs(5);

/// Listens. The calling thread makes the socket, so it is in that thread's network namespace.
pub(super) fn bind(address: SocketAddr) -> Result<StdListener> {
    let deadline = Instant::now() + PORT_FREE;
    loop {
        match StdListener::bind(address) {
            Ok(listener) => {
                listener.set_nonblocking(true).context("make the listener non-blocking")?;
                return Ok(listener);
            }
            Err(error) if Instant::now() > deadline => {
                return Err(error).with_context(|| format!("listen on {address}"));
            }
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// Accepts connections until the task is aborted, which also ends the connections.
pub(super) fn accept(
    runtime: &Runtime,
    listener: StdListener,
    tls: Option<TlsAcceptor>,
    shared: Arc<Shared>,
) -> Result<JoinHandle<()>> {
    let _inside = runtime.enter();
    let listener = TcpListener::from_std(listener).context("give the listener to tokio")?;
    Ok(runtime.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let Ok((stream, _)) = accepted else { continue };
                    // Events are small, and clients wait for them.
                    let _ = stream.set_nodelay(true);
                    connections.spawn(connection(stream, tls.clone(), Arc::clone(&shared)));
                }
                Some(_) = connections.join_next() => {}
            }
        }
    }))
}

async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    match tls {
        None => serve(stream, shared).await,
        Some(tls) => {
            if let Ok(stream) = tls.accept(stream).await {
                serve(stream, shared).await;
            }
        }
    }
}

/// Errors are the client's: it has closed, or a test cut the body.
async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, shared: Arc<Shared>) {
    let service = service_fn(move |request| handle(Arc::clone(&shared), request));
    let _ =
        http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).await;
}
