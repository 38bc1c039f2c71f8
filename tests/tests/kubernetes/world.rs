//! A node with pods, an agent, and an API server that the node can reach.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use lbr_agent::dataplane::Pinned;
use lbr_agent::desired::Desired;
use lbr_tests::agent::{Agent, AgentOptions};
use lbr_tests::apiserver;
use lbr_tests::probe::{Client, Server, is_timeout};
use lbr_tests::topology::{Bed, Node, Pod, PodOptions};

use crate::objects::{PORT, WEB, namespace, pod, policy, service, slice};

/// How long something may take that has to come. The agent asks an API server that was away after 30 seconds at most.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How long a client waits for an answer that is not meant to come.
const SILENCE: Duration = Duration::from_millis(300);

/// Fields are dropped in this order: what runs before where it runs.
pub(crate) struct World {
    pub(crate) agent: Agent,
    pub(crate) api: apiserver::Server,
    _servers: Vec<Server>,
    /// In the namespace `shop`, of team `shop`.
    pub(crate) client: Pod,
    /// In the namespace `elsewhere`, of another team.
    pub(crate) stranger: Pod,
    /// In the namespace `default`.
    pub(crate) backends: [Pod; 2],
    pub(crate) node: Node,
    _bed: Bed,
}

impl World {
    /// Namespaces and pods are known, and nothing else.
    pub(crate) fn start(name: &str) -> Self {
        let mut bed = Bed::new(name).unwrap();
        let node = bed.add_node("a").unwrap();
        let mut add = |name| bed.add_pod(&node, name, PodOptions::default()).unwrap();
        let (client, stranger) = (add("client"), add("stranger"));
        let backends = [add("backend-1"), add("backend-2")];
        let servers = backends.iter().map(|pod| Server::pod(pod, PORT).unwrap()).collect();
        let api = node.ns.run(apiserver::Server::start).unwrap();
        api.put_all([namespace("default", "ops"), namespace("shop", "shop"), namespace("elsewhere", "x")])
            .unwrap();
        api.put_all([pod("shop", &client), pod("elsewhere", &stranger)]).unwrap();
        api.put_all(backends.iter().map(|backend| pod("default", backend))).unwrap();
        let kubeconfig = bed.folder().join("kubeconfig");
        std::fs::write(&kubeconfig, api.kubeconfig()).unwrap();
        // So many words that each round of writes is told.
        let arguments = vec!["-v=4".to_owned()];
        let options = AgentOptions { arguments, kubeconfig: Some(kubeconfig), ..AgentOptions::default() };
        let agent = Agent::start_with(&mut bed, &node, &options, &[]).unwrap();
        Self { agent, api, _servers: servers, client, stranger, backends, node, _bed: bed }
    }

    /// The same with the Service `web` on the first backend, and the policy, all in force.
    pub(crate) fn serving(name: &str) -> Self {
        let world = Self::start(name);
        world.serve();
        world
    }

    /// Makes of [`Self::start`] a [`Self::serving`].
    pub(crate) fn serve(&self) {
        self.api.put_all([service("web", WEB), slice("web", &[&self.backends[0]]), policy()]).unwrap();
        self.until("web", || self.reaches(&self.client, WEB));
        self.until("the policy", || self.is_dropped(&self.stranger, WEB));
    }

    /// Whether a connection is answered. One that is refused is not.
    pub(crate) fn reaches(&self, from: &Pod, to: &str) -> bool {
        Client::new(&from.ns).timeout(SILENCE).tcp(to.parse().unwrap()).is_ok()
    }

    /// Whether packets go nowhere, without an answer of any kind.
    pub(crate) fn is_dropped(&self, from: &Pod, to: &str) -> bool {
        let answer = Client::new(&from.ns).timeout(SILENCE).tcp(to.parse().unwrap());
        answer.is_err_and(|error| is_timeout(&error))
    }

    /// Who answers the client.
    pub(crate) fn who(&self, to: &str) -> String {
        Client::new(&self.client.ns)
            .tcp(to.parse().unwrap())
            .map_or_else(|e| format!("{e:#}"), |who| who.name)
    }

    /// Waits for something.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !is_so() {
            assert!(Instant::now() < end, "not after {PATIENCE:?}: {what}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What the agent's maps hold. They are read by their pins, with or without an agent.
    pub(crate) fn maps(&self) -> Desired {
        Pinned::open(self.agent.bpffs()).unwrap().tables().unwrap()
    }

    /// The API server goes away: nobody listens, and all connections break.
    pub(crate) fn api_away(&mut self) {
        self.api.stop();
    }

    /// The API server is there again, where it was.
    pub(crate) fn api_back(&mut self) {
        let ns = self.node.ns.clone();
        ns.run(|| self.api.resume()).unwrap();
    }

    /// An answer of the agent, headers and all; why there is none otherwise.
    pub(crate) fn get(&self, server: &str, path: &str) -> Result<String> {
        self.node.ns.run(|| {
            let mut text = String::new();
            let mut stream = TcpStream::connect(server)?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")?;
            stream.read_to_string(&mut text)?;
            Ok(text)
        })
    }

    /// Whether `/livez` says 200.
    pub(crate) fn lives(&self) -> bool {
        self.get("127.0.0.1:10256", "/livez").is_ok_and(|text| text.starts_with("HTTP/1.1 200 "))
    }

    /// The value of a metric without labels, if it is there.
    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        let text = self.get("127.0.0.1:10249", "/metrics").ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map(|value| value.parse().unwrap())
    }
}

/// New connections one after another, each with one question. None may fail, whoever answers.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<usize>>,
}

impl Load {
    pub(crate) fn start(from: &Pod, to: &str) -> Self {
        let (client, to) = (Client::new(&from.ns), to.parse::<SocketAddr>().unwrap());
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut count = 0;
            while !told.load(Ordering::Relaxed) {
                client.tcp(to).with_context(|| format!("connection {count}"))?;
                count += 1;
                std::thread::sleep(Duration::from_millis(2));
            }
            Ok(count)
        });
        Self { stop, thread }
    }

    #[track_caller]
    pub(crate) fn stop(self, world: &World) {
        self.stop.store(true, Ordering::Relaxed);
        let count = self.thread.join().unwrap().unwrap_or_else(|error| {
            let show = |what| world.agent.show_text(what).unwrap_or_else(|error| format!("{error:#}"));
            panic!("{error:#}\n{}\n{}\n{}", show("counters"), show("endpoints"), world.agent.said())
        });
        assert!(count > 50, "only {count} connections");
    }
}
