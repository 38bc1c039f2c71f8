//! Services of every kind on three nodes, asked by pods, by processes of the nodes, and from outside of the cluster.
//!
//! Needs root. Each subject is played on nodes of its own, once for each way in which packets of pods get from node to
//! node, and every check goes through both address families and through TCP and UDP. A check is named after the test of
//! Kubernetes (`[sig-network]`) that it stands for, where there is one.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]
#![expect(clippy::print_stdout, reason = "how long things took, for `--nocapture` and for failing tests")]

mod affinity;
mod cluster_ip;
mod cycling;
mod datagrams;
mod expect;
mod health_port;
mod load_balancer;
mod local;
mod maglev;
mod node_port;
mod objects;
mod rolling;
mod source_ranges;
mod terminating;
mod topology;
mod types;
mod world;

/// Two tests for each subject.
macro_rules! play {
    ($($subject:ident)*) => {
        mod routed {
            use lbr_tests::topology::Underlay;
            $(#[test] fn $subject() {
                crate::world::play(stringify!($subject), Underlay::Routed, crate::$subject::CHECKS);
            })*
        }

        mod vxlan {
            use lbr_tests::topology::Underlay;
            $(#[test] fn $subject() {
                crate::world::play(stringify!($subject), Underlay::Vxlan, crate::$subject::CHECKS);
            })*
        }
    };
}

play! {
    affinity cluster_ip cycling health_port load_balancer local maglev node_port rolling source_ranges terminating topology
    types
}
