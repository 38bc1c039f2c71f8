//! The server for tests: start and stop, address, credentials.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::shared::{Shared, State};
use super::{listen, tls};

/// Options of a server.
#[derive(Clone, Debug)]
pub struct Options {
    /// The address where it listens.
    pub address: SocketAddr,
    /// HTTPS, with these names in the certificate besides the address and the usual ones.
    pub tls: Option<Vec<String>>,
    /// Clients need this bearer token.
    pub token: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { address: (Ipv4Addr::LOCALHOST, 0).into(), tls: None, token: None }
    }
}

/// A running server. It has threads of its own, so it answers while a test blocks. It ends when dropped.
#[derive(Debug)]
pub struct Server {
    pub(super) shared: Arc<Shared>,
    address: SocketAddr,
    tls: Option<Tls>,
    listening: Option<JoinHandle<()>>,
    runtime: Option<Runtime>,
}

struct Tls {
    acceptor: TlsAcceptor,
    authority: String,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.debug_struct("Tls").field("authority", &self.authority).finish_non_exhaustive()
    }
}

impl Server {
    /// Listens on a free port of 127.0.0.1, with plain HTTP.
    pub fn start() -> Result<Self> {
        Self::start_with(&Options::default())
    }

    /// Listens in the network namespace of the calling thread.
    pub fn start_with(options: &Options) -> Result<Self> {
        let listener = listen::bind(options.address)?;
        let address = listener.local_addr().context("read the listener's address")?;
        let tls = match &options.tls {
            None => None,
            Some(names) => {
                let (acceptor, authority) = tls::make(address, names)?;
                Some(Tls { acceptor, authority })
            }
        };
        let mut state = State::default();
        state.settings.token.clone_from(&options.token);
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("apiserver")
            .enable_all()
            .build()
            .context("start the server's threads")?;
        let shared = Arc::new(Shared::new(state));
        let mut server = Self { shared, address, tls, listening: None, runtime: Some(runtime) };
        server.listen(listener)?;
        Ok(server)
    }

    fn listen(&mut self, listener: std::net::TcpListener) -> Result<()> {
        if let Some(runtime) = &self.runtime {
            let tls = self.tls.as_ref().map(|tls| tls.acceptor.clone());
            self.listening = Some(listen::accept(runtime, listener, tls, Arc::clone(&self.shared))?);
        }
        Ok(())
    }

    /// Stops listening and breaks all connections. Objects stay.
    pub fn stop(&mut self) {
        if let Some(listening) = self.listening.take() {
            listening.abort();
            while !listening.is_finished() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// Listens again on the same port, after [`Self::stop`].
    pub fn resume(&mut self) -> Result<()> {
        if self.listening.is_none() {
            self.listen(listen::bind(self.address)?)?;
        }
        Ok(())
    }

    /// The address where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL for clients.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// The authority's certificate in PEM, with HTTPS.
    pub fn authority(&self) -> Option<&str> {
        self.tls.as_ref().map(|tls| tls.authority.as_str())
    }

    /// Clients need another token from now on, or none.
    pub fn set_token(&self, token: Option<&str>) {
        self.shared.state().settings.token = token.map(str::to_owned);
    }

    /// A kubeconfig for this server.
    pub fn kubeconfig(&self) -> String {
        use base64::Engine as _;
        let authority = self.authority().map(|pem| base64::engine::general_purpose::STANDARD.encode(pem));
        let token = self.shared.state().settings.token.clone();
        let mut config = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "test", "cluster": { "server": self.url() } }],
            "users": [{ "name": "test", "user": {} }],
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test" } }],
            "current-context": "test",
        });
        if let Some(authority) = authority {
            config["clusters"][0]["cluster"]["certificate-authority-data"] = authority.into();
        }
        if let Some(token) = token {
            config["users"][0]["user"]["token"] = token.into();
        }
        config.to_string()
    }

    /// Writes the files that a pod has in `/var/run/secrets/kubernetes.io/serviceaccount`.
    pub fn write_service_account(&self, folder: &Path) -> Result<()> {
        let token = self.shared.state().settings.token.clone().unwrap_or_default();
        let files =
            [("ca.crt", self.authority().unwrap_or_default()), ("token", &token), ("namespace", "default")];
        for (name, text) in files {
            let path = folder.join(name);
            fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A runtime must not wait for its threads in a place where futures run, and a test may be such a place.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
