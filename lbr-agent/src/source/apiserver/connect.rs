//! Access to the API server.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};

/// Where the API server is, and with which credentials lbr asks it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiServer {
    /// A kubeconfig file. `None`: the service account of the pod that lbr runs in.
    pub kubeconfig: Option<PathBuf>,
    /// Its URL, in place of the one in the kubeconfig or the pod's environment: before the first Service is in force,
    /// the address of the Service `kubernetes` leads nowhere.
    pub server: Option<String>,
    /// How long an answer may be silent. `None`: 90 seconds, as servers send a bookmark each minute.
    pub silence: Option<Duration>,
}

/// Timeout for a connection attempt.
const CONNECT: Duration = Duration::from_secs(10);

/// See [`ApiServer::silence`].
const SILENCE: Duration = Duration::from_secs(90);

impl ApiServer {
    /// The configuration of a client. Sends nothing.
    pub(super) async fn config(&self) -> anyhow::Result<Config> {
        let mut config = match &self.kubeconfig {
            Some(path) => {
                let what = || format!("--kubeconfig {}", path.display());
                let file = Kubeconfig::read_from(path).with_context(what)?;
                let options = KubeConfigOptions::default();
                Config::from_custom_kubeconfig(file, &options).await.with_context(what)?
            }
            None => Config::incluster().context(
                "no --kubeconfig, --manifests or service account: lbr needs a source of objects (in a pod, mount the \
                 service account's token)",
            )?,
        };
        if let Some(server) = &self.server {
            config.cluster_url = server
                .parse()
                .with_context(|| format!("--server {server}: write it as https://HOST:PORT"))?;
        }
        config.connect_timeout = Some(CONNECT);
        config.read_timeout = Some(self.silence.unwrap_or(SILENCE));
        // Otherwise the time for which a connection was idle before it is used again counts too.
        config.reset_reader_on_write = true;
        // Errors of certificates are found here.
        kube::Client::try_from(config.clone()).context("make a client for the API server")?;
        Ok(config)
    }
}
