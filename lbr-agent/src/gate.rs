//! Lets a CNI plugin hold back a pod's start until its policies are in force.
//!
//! A plugin knows a pod's addresses before the API does (the kubelet reports them after the plugin has ended), so it
//! passes them here. No plugin uses this yet: `--pending` decides what passes before a pod is known.

use std::net::IpAddr;

use lbr_common::addr::Addr;
use tokio::sync::{mpsc, oneshot};

use crate::cluster::Change;
use crate::engine::Engine;
use crate::model::ObjectName;

/// How many requests may wait for the agent's loop.
const QUEUE: usize = 256;

/// The caller's end.
#[derive(Clone, Debug)]
pub struct Gate(mpsc::Sender<Request>);

/// The agent has ended.
#[derive(Debug, thiserror::Error)]
#[error("the agent has ended")]
pub struct Ended;

/// A pod, its addresses, and where to send the answer.
#[derive(Debug)]
pub struct Request {
    pod: ObjectName,
    addresses: Vec<IpAddr>,
    done: oneshot::Sender<()>,
}

/// A gate, and the agent's end of it.
pub fn gate() -> (Gate, mpsc::Receiver<Request>) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (Gate(sender), receiver)
}

impl Gate {
    /// Makes the endpoint of a pod of this node ready: returns when the pod is known, its interface has its programs,
    /// and its policies are in force for all of these addresses. A caller that gives up drops the future.
    pub async fn ready(&self, pod: ObjectName, addresses: Vec<IpAddr>) -> Result<(), Ended> {
        let (done, answer) = oneshot::channel();
        self.0.send(Request { pod, addresses, done }).await.map_err(|_| Ended)?;
        answer.await.map_err(|_| Ended)
    }
}

/// Requests without an answer.
#[derive(Debug, Default)]
pub(crate) struct Waiting(Vec<Request>);

impl Waiting {
    pub(crate) fn add(&mut self, request: Request, engine: &mut Engine) {
        engine.take(Change::Addresses(request.pod.clone(), request.addresses.clone()));
        self.0.push(request);
    }

    /// Answers requests whose pod is ready, and forgets those whose caller has gone.
    pub(crate) fn answer(&mut self, engine: &Engine) {
        let is_ready = |request: &Request| {
            let mut addresses = request.addresses.iter().map(|&ip| Addr::from(ip));
            addresses.all(|addr| engine.is_ready(&addr))
        };
        let (ready, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut self.0).into_iter().partition(is_ready);
        for request in ready {
            // The caller may have gone.
            let _ = request.done.send(());
        }
        self.0 = waiting;
        self.0.retain(|request| !request.done.is_closed());
    }
}

#[cfg(test)]
mod tests;
