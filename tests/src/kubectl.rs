//! The real kubectl, with a kubeconfig of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::apiserver::Server;
use crate::netns::Netns;
use crate::process;

/// How to install it.
const MISSING: &str =
    "there is no kubectl: `cargo xtask setup` installs it (on Debian: apt-get install kubernetes-client)";

/// From this minor version on, kubectl leaves validation to servers that offer it. An older one needs schemas, which
/// the test server does not have.
const SERVER_VALIDATES: u64 = 29;

/// Runs kubectl on one API server.
#[derive(Debug)]
pub struct Kubectl {
    /// `KUBECTL`, or the one in the path.
    binary: String,
    kubeconfig: PathBuf,
    /// The folder of its cache.
    home: PathBuf,
    /// The namespace where the server can be reached.
    ns: Option<Netns>,
    validates_itself: bool,
}

impl Kubectl {
    /// Finds kubectl, and writes its kubeconfig into an existing folder.
    pub fn new(server: &Server, folder: &Path, ns: Option<&Netns>) -> Result<Self> {
        let kubeconfig = folder.join("kubeconfig");
        fs::write(&kubeconfig, server.kubeconfig())
            .with_context(|| format!("write {}", kubeconfig.display()))?;
        let binary = std::env::var("KUBECTL").unwrap_or_else(|_| "kubectl".to_owned());
        let home = folder.to_owned();
        let mut kubectl = Self { binary, kubeconfig, home, ns: ns.cloned(), validates_itself: false };
        let minor = kubectl.minor().context(MISSING)?;
        kubectl.validates_itself = minor < SERVER_VALIDATES;
        Ok(kubectl)
    }

    /// Its kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Its output. The error has its error messages.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        let output = process::run(&mut self.command(words)?)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// A command for it, to be started in another way.
    pub fn command(&self, words: &[&str]) -> Result<Command> {
        let mut command = self.bare()?;
        command.args(words);
        let sends = words.first().is_some_and(|verb| ["apply", "create", "replace"].contains(verb));
        if self.validates_itself && sends {
            command.arg("--validate=false");
        }
        Ok(command)
    }

    fn minor(&self) -> Result<u64> {
        let output = process::run(self.bare()?.args(["version", "--client", "-o", "json"]))?;
        let version: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let minor = version["clientVersion"]["minor"].as_str().unwrap_or_default();
        match minor.trim_end_matches('+').parse() {
            Ok(minor) => Ok(minor),
            Err(_) => bail!("{} has no version: {version}", self.binary),
        }
    }

    fn bare(&self) -> Result<Command> {
        let mut command = match &self.ns {
            Some(ns) => ns.command(&self.binary)?,
            None => Command::new(&self.binary),
        };
        command.env("KUBECONFIG", &self.kubeconfig).env("HOME", &self.home);
        command.env_remove("KUBERNETES_SERVICE_HOST").stdin(Stdio::null());
        Ok(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_kubectl_is_reported_with_its_package() {
        let kubectl = Kubectl {
            binary: "kubectl-that-nobody-has".to_owned(),
            kubeconfig: PathBuf::new(),
            home: PathBuf::new(),
            ns: None,
            validates_itself: false,
        };
        let error = format!("{:#}", kubectl.minor().context(MISSING).unwrap_err());
        assert!(error.contains("kubernetes-client") && error.contains("kubectl-that-nobody-has"), "{error}");
    }
}
