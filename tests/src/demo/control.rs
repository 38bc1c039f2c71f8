//! Where the demo's objects are changed: in a folder, or at a test API server by the real kubectl.

use anyhow::{Context as _, Result};

use super::story::{Stage, Story, indent};
use super::yaml;
use crate::agent::{Agent, AgentOptions};
use crate::apiserver::Server;
use crate::kubectl::Kubectl;
use crate::manifests;
use crate::topology::{Bed, Node, Pod};

/// The source of lbr's objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A folder of YAML.
    Folder,
    /// An API server.
    Kubernetes,
}

/// The means to change objects.
pub(super) enum Control {
    /// The agent knows its folder.
    Folder,
    /// The API server listens in the node's namespace.
    Kubernetes { server: Box<Server>, kubectl: Kubectl },
}

impl Control {
    pub(super) fn start(source: Source, bed: &Bed, node: &Node) -> Result<Self> {
        if source == Source::Folder {
            return Ok(Self::Folder);
        }
        let server = Box::new(node.ns.run(Server::start).context("start the API server")?);
        let kubectl = Kubectl::new(&server, bed.folder(), Some(&node.ns))?;
        Ok(Self::Kubernetes { server, kubectl })
    }
}

/// Starts lbr with the Service, its slice and the pods.
pub(super) fn start_agent(story: &mut Story<'_>, stage: &mut Stage) -> Result<Agent> {
    match stage.control() {
        Control::Folder => on_folder(story, stage),
        Control::Kubernetes { .. } => on_kubernetes(story, stage),
    }
}

fn on_folder(story: &mut Story<'_>, stage: &mut Stage) -> Result<Agent> {
    story.next("A folder of ordinary Kubernetes YAML, and lbr on it")?;
    let files = [
        ("deployment.yaml", yaml::DEPLOYMENT.to_owned()),
        ("my-service.yaml", yaml::service()),
        ("my-service-endpoints.yaml", yaml::slice(&stage.backends)),
        ("pods.yaml", yaml::pods(stage)),
    ];
    story.tell("my-service.yaml:");
    story.tell(&indent(&files[1].1));
    story.tell(
        "my-service-endpoints.yaml lists the three backends, pods.yaml the pods with their labels;\n\
         deployment.yaml is of no use to lbr.",
    );
    story.tell("$ lbr run --manifests DIR --node-name demo-node");
    let node = stage.node.clone();
    let agent = Agent::start_with(&mut stage.bed, &node, &AgentOptions::default(), &files)?;
    let log = agent.log_text();
    for line in log.lines().filter(|line| line.contains("Deployment")).take(1) {
        // Without the time, which is the first word.
        let said = line.trim().split_once(' ').map_or(line, |(_, rest)| rest);
        story.tell(&format!("  {}", said.trim()));
    }
    Ok(agent)
}

fn on_kubernetes(story: &mut Story<'_>, stage: &mut Stage) -> Result<Agent> {
    story.next("An API server, lbr on it, and kubectl")?;
    let kubeconfig = match stage.control() {
        Control::Kubernetes { server, kubectl } => {
            // In a cluster the scheduler and the kubelets report where pods run, and their addresses.
            for pod in serde_saphyr::from_multiple(&yaml::pods(stage))? {
                server.put(pod)?;
            }
            story.tell(&format!(
                "A small API server for tests, at {} of the node. It knows the five pods, as if kubelets\n\
                 had reported them.",
                server.address()
            ));
            kubectl.kubeconfig().to_owned()
        }
        Control::Folder => return on_folder(story, stage),
    };
    story.tell("$ lbr run --kubeconfig FILE --node-name demo-node");
    let options = AgentOptions { kubeconfig: Some(kubeconfig), ..AgentOptions::default() };
    let node = stage.node.clone();
    let agent = Agent::start_with(&mut stage.bed, &node, &options, &[])?;
    story.tell("my-service.yaml:");
    story.tell(&indent(&yaml::service()));
    story.tell("my-service-endpoints.yaml lists the three backends.");
    stage.save(story, "my-service.yaml", &yaml::service())?;
    stage.save(story, "my-service-endpoints.yaml", &yaml::slice(&stage.backends))?;
    Ok(agent)
}

impl Stage {
    /// Creates an object from `text`, or replaces it.
    pub(super) fn save(&self, story: &Story<'_>, name: &str, text: &str) -> Result<()> {
        match self.control() {
            Control::Folder => self.agent()?.write(name, text),
            Control::Kubernetes { kubectl, .. } => {
                manifests::save(self.bed.folder(), name, text)?;
                self.on_file(story, kubectl, "apply", name)
            }
        }
    }

    /// Deletes the object that was saved under this name.
    pub(super) fn remove(&self, story: &Story<'_>, name: &str) -> Result<()> {
        match self.control() {
            Control::Folder => self.agent()?.remove(name),
            Control::Kubernetes { kubectl, .. } => self.on_file(story, kubectl, "delete", name),
        }
    }

    /// Sets the endpoints of the Service.
    pub(super) fn change_slice<'a>(
        &self,
        story: &Story<'_>,
        backends: impl IntoIterator<Item = &'a Pod>,
    ) -> Result<()> {
        let Control::Kubernetes { kubectl, .. } = self.control() else {
            return self.agent()?.write("my-service-endpoints.yaml", &yaml::slice(backends));
        };
        let endpoints: Vec<_> = backends
            .into_iter()
            .map(|pod| serde_json::json!({ "addresses": [pod.v4.to_string()] }))
            .collect();
        let patch = serde_json::json!({ "endpoints": endpoints }).to_string();
        let words = ["patch", "endpointslice", "my-service-1", "--type=merge", "-p"];
        story.tell(&format!("$ kubectl {} '{patch}'", words.join(" ")));
        story.tell(&indent(&kubectl.run(&[&words[..], &[patch.as_str()]].concat())?));
        Ok(())
    }

    fn on_file(&self, story: &Story<'_>, kubectl: &Kubectl, verb: &str, name: &str) -> Result<()> {
        let path = self.bed.folder().join(name).display().to_string();
        story.tell(&format!("$ kubectl {verb} -f {name}"));
        story.tell(&indent(&kubectl.run(&[verb, "-f", &path])?));
        Ok(())
    }

    /// Describes how an object was saved.
    pub(super) fn saved(&self) -> &'static str {
        match self.control() {
            Control::Folder => "Saved.",
            Control::Kubernetes { .. } => "Applied, and kubectl has ended.",
        }
    }

    /// Describes how a backend left.
    pub(super) fn left(&self) -> &'static str {
        match self.control() {
            Control::Folder => "Its address was deleted from the YAML.",
            Control::Kubernetes { .. } => {
                "Its address is gone from the EndpointSlice, and kubectl has ended."
            }
        }
    }

    /// Describes how it came back.
    pub(super) fn joined(&self) -> &'static str {
        match self.control() {
            Control::Folder => "A new pod with its address, and its line in the YAML.",
            Control::Kubernetes { .. } => "A new pod with its address, which is in the EndpointSlice again.",
        }
    }
}
