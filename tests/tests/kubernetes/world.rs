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

/// The longest wait. The agent asks an API server that was away after 30 seconds at most.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The wait for an answer that should not come.
const SILENCE: Duration = Duration::from_millis(300);

/// Fields are dropped in this order, so processes end before their namespaces.
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
    /// Starts with the namespaces and pods only.
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
        // Verbose enough to log each round of writes.
        let arguments = vec!["-v=4".to_owned()];
        let options = AgentOptions { arguments, kubeconfig: Some(kubeconfig), ..AgentOptions::default() };
        let agent = Agent::start_with(&mut bed, &node, &options, &[]).unwrap();
        Self { agent, api, _servers: servers, client, stranger, backends, node, _bed: bed }
    }

    /// The same with the Service `web` on the first backend and the policy, both in force.
    pub(crate) fn serving(name: &str) -> Self {
        let world = Self::start(name);
        world.serve();
        world
    }

    /// Adds to [`Self::start`] the objects of [`Self::serving`].
    pub(crate) fn serve(&self) {
        self.api.put_all([service("web", WEB), slice("web", &[&self.backends[0]]), policy()]).unwrap();
        self.until("web", || self.reaches(&self.client, WEB));
        self.until("the policy", || self.is_dropped(&self.stranger, WEB));
    }

    /// Whether a connection is answered, and not refused.
    pub(crate) fn reaches(&self, from: &Pod, to: &str) -> bool {
        Client::new(&from.ns).timeout(SILENCE).tcp(to.parse().unwrap()).is_ok()
    }

    /// Whether packets are dropped without any answer.
    pub(crate) fn is_dropped(&self, from: &Pod, to: &str) -> bool {
        let answer = Client::new(&from.ns).timeout(SILENCE).tcp(to.parse().unwrap());
        answer.is_err_and(|error| is_timeout(&error))
    }

    /// Name of the backend that answers the client, or the error.
    pub(crate) fn who(&self, to: &str) -> String {
        Client::new(&self.client.ns)
            .tcp(to.parse().unwrap())
            .map_or_else(|e| format!("{e:#}"), |who| who.name)
    }

    /// Waits for a condition.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !is_so() {
            assert!(Instant::now() < end, "not after {PATIENCE:?}: {what}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The content of the agent's maps, read by their pins, with or without an agent.
    pub(crate) fn maps(&self) -> Desired {
        Pinned::open(self.agent.bpffs()).unwrap().tables().unwrap()
    }

    /// The API server goes away: it does not listen, and all connections break.
    pub(crate) fn api_away(&mut self) {
        self.api.stop();
    }

    /// The API server is back at its address.
    pub(crate) fn api_back(&mut self) {
        let ns = self.node.ns.clone();
        ns.run(|| self.api.resume()).unwrap();
    }

    /// A response of the agent with its headers, or the error.
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

    /// Whether `/livez` answers 200.
    pub(crate) fn lives(&self) -> bool {
        self.get("127.0.0.1:10256", "/livez").is_ok_and(|text| text.starts_with("HTTP/1.1 200 "))
    }

    /// The value of a metric without labels, if present.
    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        let text = self.get("127.0.0.1:10249", "/metrics").ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map(|value| value.parse().unwrap())
    }
}

/// New connections one after another, each with one request. None may fail, whichever backend answers.
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
