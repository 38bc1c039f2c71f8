//! Services of every type on three nodes, with clients in pods, on nodes, and outside of the cluster.
//!
//! Needs root. Each subject has nodes of its own, once for each underlay between nodes, and every check runs with
//! both address families and with TCP and UDP. A check has the name of the Kubernetes test (`[sig-network]`) that it
//! stands for, where there is one.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]
#![expect(clippy::print_stdout, reason = "how long things took, for `--nocapture` and for failing tests")]

mod affinity;
mod cluster_ip;
mod cycling;
mod datagrams;
mod direct;
mod endpoints;
mod expect;
mod health_port;
mod load_balancer;
mod local;
mod maglev;
mod moved;
mod node_port;
mod objects;
mod rolling;
mod sctp;
mod source_ranges;
mod stray;
mod terminating;
mod topology;
mod types;
mod world;

/// A test for each subject and for each underlay.
macro_rules! play {
    ($($subject:ident)*) => {
        mod routed {
            use lbr_tests::topology::Underlay;
            use crate::world::Xdp;
            $(#[test] fn $subject() {
                crate::world::play(stringify!($subject), Underlay::Routed, Xdp::Off, crate::$subject::CHECKS);
            })*

            #[test] fn direct_tunneled() {
                crate::world::play("tunneled", Underlay::Routed, Xdp::Off, crate::direct::TUNNELED);
            }
        }

        mod vxlan {
            use lbr_tests::topology::Underlay;
            use crate::world::Xdp;
            $(#[test] fn $subject() {
                crate::world::play(stringify!($subject), Underlay::Vxlan, Xdp::Off, crate::$subject::CHECKS);
            })*

            #[test] fn direct_tunneled() {
                crate::world::play("tunneled", Underlay::Vxlan, Xdp::Off, crate::direct::TUNNELED);
            }
        }
    };
}

play! {
    affinity cluster_ip cycling direct endpoints health_port load_balancer local maglev moved node_port rolling sctp source_ranges
    stray terminating topology types
}

/// The subjects with clients outside and backends on other nodes, with XDP at the uplinks. See [`world::Xdp`].
macro_rules! play_with_xdp {
    ($($subject:ident)*) => {
        mod xdp {
            use lbr_tests::topology::Underlay;
            use crate::world::Xdp;
            $(#[test] fn $subject() {
                crate::world::play(stringify!($subject), Underlay::Routed, Xdp::Native, crate::$subject::CHECKS);
            })*
        }
    };
}

play_with_xdp! {
    load_balancer node_port rolling terminating
}

#[test]
fn xdp_generic_node_port() {
    use lbr_tests::topology::Underlay;
    world::play("node_port", Underlay::Routed, world::Xdp::Generic, node_port::CHECKS);
}
