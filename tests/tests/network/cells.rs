//! The same checks for every place of the backends, and for both kinds of pod networks.

use lbr_tests::agent::AgentOptions;
use lbr_tests::topology::{PodNetwork, Underlay};

use crate::world::{Check, Place, Plan, World, run};
use crate::{catalog, checks, moving};

const CHECKS: &[Check] = &[
    ("addresses on both sides", checks::addresses),
    ("even spread", checks::spread),
    ("several ports", checks::several_ports),
    ("two addresses of a family", checks::two_addresses),
    ("to itself", checks::hairpin),
    ("refused", checks::refused),
    ("port unreachable", checks::port_unreachable),
    ("fragments", checks::fragments),
    ("two Services, one source port", checks::one_port_two_services),
    ("a Service and its endpoint, one source port", checks::one_port_service_and_endpoint),
    ("ready later", moving::ready_later),
    ("connections outlive changes", moving::connections_stay),
    ("datagrams move", moving::datagrams_move),
    ("target port changes", moving::target_port_changes),
];

fn cell(name: &str, plan: Plan) {
    let mut world = World::start(name, plan, catalog::all).unwrap();
    run(&mut world, CHECKS);
}

#[test]
fn routed_same_node() {
    cell("rs", Plan::new(PodNetwork::Routed, Place::SameNode));
}

#[test]
fn routed_other_node() {
    cell("rr", Plan::new(PodNetwork::Routed, Place::OtherNode(Underlay::Routed)));
}

#[test]
fn routed_other_node_vxlan() {
    cell("rv", Plan::new(PodNetwork::Routed, Place::OtherNode(Underlay::Vxlan)));
}

#[test]
fn bridge_same_node() {
    cell("bs", Plan::new(PodNetwork::Bridge, Place::SameNode));
}

#[test]
fn bridge_other_node() {
    cell("br", Plan::new(PodNetwork::Bridge, Place::OtherNode(Underlay::Routed)));
}

#[test]
fn bridge_other_node_vxlan() {
    cell("bv", Plan::new(PodNetwork::Bridge, Place::OtherNode(Underlay::Vxlan)));
}

fn clsact(plan: Plan) -> Plan {
    let arguments = ["--attach", "clsact"].map(str::to_owned).to_vec();
    Plan { agent: AgentOptions { arguments, ..AgentOptions::default() }, ..plan }
}

#[test]
fn clsact_same_node() {
    cell("cs", clsact(Plan::new(PodNetwork::Routed, Place::SameNode)));
}

#[test]
fn clsact_other_node() {
    cell("co", clsact(Plan::new(PodNetwork::Bridge, Place::OtherNode(Underlay::Routed))));
}
