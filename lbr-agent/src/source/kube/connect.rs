//! How the API server is reached.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};

/// Where the API server is, and who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiServer {
    /// A kubeconfig file. `None`: the service account of the pod that lbr runs in.
    pub kubeconfig: Option<PathBuf>,
    /// Its URL, in place of what the kubeconfig or the pod's environment says: before the first Service is in force
    /// the address of the Service `kubernetes` leads nowhere.
    pub server: Option<String>,
}

/// Time for a connection to come about.
const CONNECT: Duration = Duration::from_secs(10);

impl ApiServer {
    /// A client. Nothing is sent yet.
    pub async fn client(&self) -> anyhow::Result<kube::Client> {
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
        kube::Client::try_from(config).context("make a client for the API server")
    }
}
