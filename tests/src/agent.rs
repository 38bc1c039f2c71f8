//! The agent (`lbr run`) in a node's namespace, on a folder of manifests or an API server.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::manifests;
use crate::netns::Netns;
use crate::process::{self, Proc};
use crate::topology::{Bed, Node};

/// The longest time until the agent reports that it is ready: enough for a debug build that reads 10,000 Services on
/// a busy machine.
const START: Duration = Duration::from_secs(120);

/// Options of an agent.
#[derive(Clone, Debug, Default)]
pub struct AgentOptions {
    /// Also translate sockets of the node, in the bed's cgroup.
    pub sockets: bool,
    /// More arguments of `lbr run`.
    pub arguments: Vec<String>,
    /// A program, with arguments, that starts `lbr run` in its own place: `setpriv`, for instance.
    pub through: Vec<String>,
    /// Watch the API server of this kubeconfig, in place of the folder of manifests.
    pub kubeconfig: Option<PathBuf>,
}

/// A running agent, killed by its process id when dropped. Its pins stay in the bed's bpffs.
#[derive(Debug)]
pub struct Agent {
    process: Option<Proc>,
    binary: PathBuf,
    node: Netns,
    node_name: String,
    bpffs: PathBuf,
    manifests: PathBuf,
    log: PathBuf,
    arguments: Vec<String>,
    through: Vec<String>,
    kubeconfig: Option<PathBuf>,
    /// Offset in the log where the last start begins.
    begin: usize,
}

impl Agent {
    /// Makes a folder of manifests for the node and starts an agent on it.
    pub fn start(bed: &mut Bed, node: &Node) -> Result<Self> {
        Self::start_with(bed, node, &AgentOptions::default(), &[])
    }

    /// The same with options, and with files that are there from the start (name and text).
    pub fn start_with(
        bed: &mut Bed,
        node: &Node,
        options: &AgentOptions,
        files: &[(&str, String)],
    ) -> Result<Self> {
        let folder = bed.folder().join(format!("manifests-{}", node.name));
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        let mut arguments = options.arguments.clone();
        // Never the cgroup that the agent finds by itself, which covers the whole machine.
        arguments.extend(match options.sockets {
            true => ["--cgroup".to_owned(), bed.cgroup()?.path().display().to_string()],
            false => ["--socket-lb".to_owned(), "off".to_owned()],
        });
        let mut agent = Self {
            process: None,
            binary: binary()?,
            node: node.ns.clone(),
            node_name: node.name.clone(),
            bpffs: bed.bpffs()?.join(&node.name),
            manifests: folder,
            log: bed.folder().join(format!("{}.log", node.name)),
            arguments,
            through: options.through.clone(),
            kubeconfig: options.kubeconfig.clone(),
            begin: 0,
        };
        for (name, text) in files {
            agent.write(name, text)?;
        }
        agent.run()?;
        Ok(agent)
    }

    /// Replaces an argument; the next start uses the new one.
    pub fn replace_argument(&mut self, old: &str, new: &str) {
        for argument in self.arguments.iter_mut().filter(|argument| *argument == old) {
            new.clone_into(argument);
        }
    }

    /// Starts the agent again after [`Self::kill`].
    pub fn run(&mut self) -> Result<()> {
        self.launch()?;
        self.wait_until_ready()
    }

    /// Starts the agent without waiting.
    pub fn launch(&mut self) -> Result<()> {
        self.begin = usize::try_from(fs::metadata(&self.log).map(|m| m.len()).unwrap_or(0))?;
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("open {}", self.log.display()))?;
        let words = self.through.iter().map(OsStr::new).chain([self.binary.as_os_str()]);
        let words: Vec<&OsStr> = words.collect();
        let mut command = self.node.command(words[0])?;
        command
            .args(&words[1..])
            .args(["run", "--node-name", &self.node_name])
            .args(match &self.kubeconfig {
                Some(path) => [OsStr::new("--kubeconfig"), path.as_os_str()],
                None => [OsStr::new("--manifests"), self.manifests.as_os_str()],
            })
            .arg("--bpffs")
            .arg(&self.bpffs)
            .args(&self.arguments)
            // The log is a file, which has no colours whatever the tests run in.
            .env_remove("NO_COLOR")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        self.process = Some(Proc::spawn(&mut command)?);
        Ok(())
    }

    /// Waits until the agent reports that it is ready. An agent that takes too long is killed.
    pub fn wait_until_ready(&mut self) -> Result<()> {
        let mut process = self.process.take().context("`lbr run` was not started")?;
        let end = Instant::now() + START;
        while !self.said().lines().any(is_ready) {
            if let Some(status) = process.try_wait()? {
                bail!("`lbr run` ended before it was ready: {status}\n{}", self.log_text());
            }
            if Instant::now() > end {
                bail!("`lbr run` was not ready after {START:?}\n{}", self.log_text());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.process = Some(process);
        Ok(())
    }

    /// Kills the agent (`SIGKILL`).
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Ends the agent (`SIGTERM`) and waits.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        process.signal(nix::sys::signal::Signal::SIGTERM)?;
        let status = process.wait(Duration::from_secs(10))?;
        if !status.success() {
            bail!("`lbr run` ended with {status}\n{}", self.log_text());
        }
        Ok(())
    }

    /// Process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Proc::id)
    }

    /// Its folder of manifests.
    pub fn manifests(&self) -> &Path {
        &self.manifests
    }

    /// The folder of its pins.
    pub fn bpffs(&self) -> &Path {
        &self.bpffs
    }

    /// Saves a file of its folder.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        manifests::save(&self.manifests, name, text)
    }

    /// Deletes a file of its folder.
    pub fn remove(&self, name: &str) -> Result<()> {
        fs::remove_file(self.manifests.join(name)).with_context(|| format!("remove {name}"))
    }

    /// `lbr show KIND -o json`.
    pub fn show(&self, kind: &str) -> Result<serde_json::Value> {
        let output = process::run(self.show_command(kind)?.args(["-o", "json"]))?;
        serde_json::from_slice(&output.stdout).with_context(|| format!("JSON of `lbr show {kind}`"))
    }

    /// `lbr show KIND`, the table for people.
    pub fn show_text(&self, kind: &str) -> Result<String> {
        let output = process::run(&mut self.show_command(kind)?)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The output of `lbr why`, and whether it says "allowed".
    pub fn why(&self, from: &str, to: &str) -> Result<(String, bool)> {
        let mut command = self.node.command(&self.binary)?;
        let output = command.args(["why", from, to, "--bpffs"]).arg(&self.bpffs).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        match output.status.code() {
            Some(code @ (0 | 1)) => Ok((text, code == 0)),
            _ => bail!("lbr why {from} {to}: {}", String::from_utf8_lossy(&output.stderr)),
        }
    }

    /// Waits until the output of `lbr show KIND` satisfies the condition.
    pub fn wait_for(
        &self,
        kind: &str,
        timeout: Duration,
        mut wanted: impl FnMut(&serde_json::Value) -> bool,
    ) -> Result<serde_json::Value> {
        let end = Instant::now() + timeout;
        loop {
            let shown = self.show(kind)?;
            if wanted(&shown) {
                return Ok(shown);
            }
            if Instant::now() > end {
                bail!("`lbr show {kind}` after {timeout:?}: {shown:#}\n{}", self.log_text());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Its output so far.
    pub fn log_text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_else(|error| format!("no log: {error}"))
    }

    /// Its output since its last start.
    pub fn said(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(log.get(self.begin..).unwrap_or_default()).into_owned();
        assert!(!log.contains('\x1b'), "colours in a file: {log}");
        log
    }

    fn show_command(&self, kind: &str) -> Result<Command> {
        let mut command = self.node.command(&self.binary)?;
        command.args(["show", kind, "--bpffs"]).arg(&self.bpffs);
        Ok(command)
    }
}

impl Drop for Agent {
    #[expect(clippy::print_stderr, reason = "a failing test shows what the agent said")]
    fn drop(&mut self) {
        self.process = None;
        if std::thread::panicking() {
            eprintln!("--- log of lbr on {} ---\n{}", self.node_name, self.log_text());
        }
    }
}

/// A line of the log that says `ready` as a word of its own.
fn is_ready(line: &str) -> bool {
    line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "ready")
}

/// The binary `lbr`: `LBR_BIN`, or beside the running program or its folder (`target/debug/deps/test-1a2b`).
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("LBR_BIN") {
        let path = PathBuf::from(path);
        if !path.is_file() {
            bail!("LBR_BIN says {}, where no file is", path.display());
        }
        return Ok(path);
    }
    let program = std::env::current_exe().context("find the running program")?;
    let folders = program.ancestors().skip(1).take(2);
    let mut candidates = folders.map(|folder| folder.join("lbr"));
    candidates.find(|path| path.is_file()).with_context(|| {
        format!("no `lbr` beside {}: run `cargo build` (with the same profile) first", program.display())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_is_a_word() {
        assert!(is_ready("2026-01-01T00:00:00Z  INFO lbr: ready services=3"));
        assert!(is_ready("ready"));
        assert!(!is_ready("INFO already there"));
        assert!(!is_ready("WARN endpoint not_ready"));
    }
}
