//! Access to the API server.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
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
            Some(path) => of_file(path).await.with_context(|| format!("--kubeconfig {}", path.display()))?,
            None => Config::incluster().map_err(|error| anyhow::anyhow!(no_source(&error)))?,
        };
        if let Some(server) = &self.server {
            config.cluster_url = url(server)?;
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

async fn of_file(path: &Path) -> anyhow::Result<Config> {
    // Before the file is read as a kubeconfig, of which no field is required.
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("the file does not exist: correct the path")
        }
        Err(error) if error.kind() == ErrorKind::IsADirectory => bail!("is a folder: give the file in it"),
        Err(error) => bail!("{error}"),
    };
    let kind = text
        .lines()
        .find_map(|line| line.strip_prefix("kind:"))
        .map(|kind| kind.trim().trim_matches(['"', '\'']));
    match kind {
        Some("KubeProxyConfiguration") => bail!("is kube-proxy's configuration: give it as --config"),
        Some(kind) if kind != "Config" => bail!("is of kind {kind}, and a kubeconfig is of kind Config"),
        _ => {}
    }
    let file = Kubeconfig::read_from(path)?;
    if file.contexts.is_empty() {
        bail!("has no contexts, so it is no kubeconfig: `kubectl config view --minify --flatten` writes one");
    }
    Ok(Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?)
}

/// What to do without a source. `error`: why this process has no service account.
fn no_source(error: &dyn std::error::Error) -> String {
    let in_cluster = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
    if in_cluster {
        return format!(
            "this pod's service account cannot be used ({error}): mount its token \
             (automountServiceAccountToken: true), or give --kubeconfig FILE or --manifests DIR"
        );
    }
    "nothing says where Services and policies come from: give --manifests DIR for a folder of Kubernetes YAML, or \
     --kubeconfig FILE for a cluster's API server (inside of a cluster, lbr's pod needs neither)"
        .to_owned()
}

/// `https://HOST:PORT`. Without its scheme, a URL can still be parsed, and leads nowhere.
fn url(server: &str) -> anyhow::Result<hyper::Uri> {
    let wanted = || format!("--server {server}: write it as https://HOST:PORT");
    let url: hyper::Uri = server.parse().with_context(wanted)?;
    let is_whole =
        matches!(url.scheme_str(), Some("https" | "http")) && url.host().is_some_and(|host| !host.is_empty());
    anyhow::ensure!(is_whole, "{}", wanted());
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_needs_its_scheme() {
        for good in ["https://10.0.0.1:6443", "http://[::1]:8001", "https://api.example.org"] {
            assert!(url(good).is_ok(), "{good}");
        }
        for bad in ["10.0.0.1:6443", "api.example.org", "https://", "ftp://a", "/a", ""] {
            let error = url(bad).unwrap_err().to_string();
            assert_eq!(error, format!("--server {bad}: write it as https://HOST:PORT"));
        }
    }

    #[tokio::test]
    async fn a_file_that_is_no_kubeconfig_says_what_it_is() {
        let dir = std::env::temp_dir().join(format!("lbr-kubeconfig-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let file = dir.join("file");
        let mut said = Vec::new();
        for text in ["kind: KubeProxyConfiguration\n", "kind: Service\n", "kind: \"Config\"\n", "", "a: ["] {
            std::fs::write(&file, text).unwrap();
            said.push(format!("{:#}", of_file(&file).await.unwrap_err()));
        }
        for path in [&dir, &dir.join("none")] {
            said.push(format!("{:#}", of_file(path).await.unwrap_err()));
        }
        std::fs::remove_dir_all(&dir).unwrap();
        let words = [
            "give it as --config",
            "is of kind Service",
            "has no contexts",
            "has no contexts",
            "YAML",
            "is a folder",
            "does not exist: correct the path",
        ];
        for (said, words) in said.iter().zip(words) {
            assert!(said.contains(words), "{words}: {said}");
        }
    }
}
