//! The external addresses of a Service.

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1 as api;
use lbr_common::addr::Family;

use super::super::TrafficPolicy;
use super::super::convert::{Problems, address, not_a_block, port_number, unsafe_address};
use super::{Service, SourceRanges};

/// `spec.externalIPs`, with their index.
pub(super) fn external_ips(
    spec: &api::ServiceSpec,
    cluster_ips: &[IpAddr],
    problems: &mut Problems,
) -> Vec<(usize, IpAddr)> {
    let mut addrs = Vec::new();
    for (i, text) in spec.external_ips.iter().flatten().enumerate() {
        let field = format!("spec.externalIPs[{i}]");
        match address(text) {
            Err(reason) => problems.refuse(field, reason),
            Ok(addr) => match unusable(addr, cluster_ips) {
                Some(reason) => problems.part(field, reason),
                None => addrs.push((i, addr)),
            },
        }
    }
    addrs
}

/// Adds the fields that only load balancers have.
pub(super) fn load_balancer(
    service: Service,
    spec: &api::ServiceSpec,
    status: Option<api::ServiceStatus>,
    problems: &mut Problems,
) -> Service {
    let is_local = service.external_policy == TrafficPolicy::Local;
    let number = spec.health_check_node_port.filter(|&number| is_local && number != 0);
    let port = number.map(|n| port_number(n).map_err(|e| problems.refuse("spec.healthCheckNodePort", e)));
    Service {
        load_balancer_ips: load_balancer_ips(status, &service.cluster_ips, problems),
        source_ranges: source_ranges(spec, problems),
        health_check_port: port.and_then(Result::ok),
        ..service
    }
}

/// Skips host names, and addresses that the load balancer translates itself (`ipMode` Proxy): packets to the node do
/// not carry them.
fn load_balancer_ips(
    status: Option<api::ServiceStatus>,
    cluster_ips: &[IpAddr],
    problems: &mut Problems,
) -> Vec<IpAddr> {
    let ingress = status.and_then(|status| status.load_balancer).and_then(|balancer| balancer.ingress);
    let mut addrs = Vec::new();
    for (i, point) in ingress.unwrap_or_default().into_iter().enumerate() {
        let mode = point.ip_mode.as_deref();
        let Some(text) = point.ip.filter(|ip| !ip.is_empty() && matches!(mode, None | Some("" | "VIP")))
        else {
            continue;
        };
        let checked = address(&text).and_then(|addr| match unusable(addr, cluster_ips) {
            Some(reason) => Err(reason),
            None => Ok(addr),
        });
        match checked {
            Ok(addr) => addrs.push(addr),
            // Costs only the address: the status is not the Service author's mistake.
            Err(reason) => problems.part(format!("status.loadBalancer.ingress[{i}].ip"), reason),
        }
    }
    addrs
}

/// As in kube-proxy, a Service is served in the families of its cluster IPs.
fn unusable(addr: IpAddr, cluster_ips: &[IpAddr]) -> Option<String> {
    unsafe_address(addr).or_else(|| {
        let has_family = cluster_ips.iter().any(|ip| ip.is_ipv4() == addr.is_ipv4());
        (!has_family).then(|| format!("{addr}: the Service has no cluster IP of this family"))
    })
}

/// An unreadable range closes the families without another range, rather than opening them.
fn source_ranges(spec: &api::ServiceSpec, problems: &mut Problems) -> SourceRanges {
    let mut ranges = SourceRanges::default();
    let mut is_open = [false; 2];
    let mut has_wrong = false;
    for (i, text) in spec.load_balancer_source_ranges.iter().flatten().enumerate() {
        let Ok(net) = text.trim().parse::<IpNet>() else {
            problems.part(format!("spec.loadBalancerSourceRanges[{i}]"), not_a_block(text));
            has_wrong = true;
            continue;
        };
        let family = Family::of(net.addr());
        is_open[family.index()] |= net.prefix_len() == 0;
        let of_family = match family {
            Family::V4 => &mut ranges.v4,
            Family::V6 => &mut ranges.v6,
        };
        of_family.get_or_insert_default().push(net.trunc());
    }
    for (is_open, of_family) in is_open.into_iter().zip([&mut ranges.v4, &mut ranges.v6]) {
        if is_open {
            *of_family = None;
        } else if has_wrong {
            of_family.get_or_insert_default();
        }
    }
    ranges
}
