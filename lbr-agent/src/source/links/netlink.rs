//! Watches interfaces and routes of the network namespace that the agent was started in.
//!
//! Subscribed first, then dumped, so that nothing is missed in between. An event, also the one that says that
//! events were lost, only means "dump again": the kernel's tables are small, and a dump can not be stale.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::TryStreamExt as _;
use ipnet::IpNet;
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType};
use rtnetlink::{Handle, MulticastGroup, RouteMessageBuilder};
use tokio::sync::watch;

use super::{LinkFilter, LocalLink, LocalLinks};

/// Events that come in a row (a new pod makes about ten) are one dump.
const SETTLE: Duration = Duration::from_millis(10);
/// A dump without an event, should one have been lost all the same.
const AT_LEAST_EVERY: Duration = Duration::from_secs(30);

/// Groups whose events are followed.
const GROUPS: [MulticastGroup; 3] =
    [MulticastGroup::Link, MulticastGroup::Ipv4Route, MulticastGroup::Ipv6Route];

/// Starts to watch. The first state is there when this returns.
pub async fn watch(filter: LinkFilter) -> anyhow::Result<watch::Receiver<LocalLinks>> {
    let (connection, handle, mut events) = rtnetlink::new_multicast_connection(&GROUPS)?;
    tokio::spawn(connection);
    let (sender, receiver) = watch::channel(dump(&handle, &filter).await?);
    tokio::spawn(async move {
        while !sender.is_closed() {
            // A timeout is as good as an event.
            let event = tokio::time::timeout(AT_LEAST_EVERY, events.next()).await;
            if matches!(event, Ok(None)) {
                tracing::error!("the kernel closed the netlink socket: new pods are not seen; restart lbr");
                return;
            }
            tokio::time::sleep(SETTLE).await;
            while events.try_recv().is_ok() {}
            match dump(&handle, &filter).await {
                Ok(now) => {
                    sender.send_if_modified(|old| {
                        let changed = *old != now;
                        *old = now;
                        changed
                    });
                }
                Err(error) => tracing::warn!("read interfaces and routes: {error:#}; the last state stays"),
            }
        }
    });
    Ok(receiver)
}

/// The present state.
async fn dump(handle: &Handle, filter: &LinkFilter) -> anyhow::Result<LocalLinks> {
    let routes_v4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let routes_v6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
    let mut routes: Vec<RouteMessage> = handle.route().get(routes_v4).execute().try_collect().await?;
    routes.extend(handle.route().get(routes_v6).execute().try_collect::<Vec<_>>().await?);
    let links: Vec<LinkMessage> = handle.link().get().execute().try_collect().await?;
    let routes: Vec<Route> = routes.iter().filter_map(Route::read).collect();
    Ok(assemble(links.iter().filter_map(Interface::read), &routes, filter))
}

/// Interfaces and routes put together.
fn assemble(
    interfaces: impl Iterator<Item = Interface>,
    routes: &[Route],
    filter: &LinkFilter,
) -> LocalLinks {
    let mut local = LocalLinks::default();
    for interface in interfaces {
        let is_uplink = routes.iter().any(|route| route.has_gateway && route.ifindex == interface.ifindex);
        let is_pods = interface.is_veth
            && filter.by_name(&interface.name).unwrap_or(interface.peer_is_elsewhere && !is_uplink);
        if is_pods {
            let Interface { ifindex, name, has_master, peer_is_elsewhere, .. } = interface;
            local.links.insert(ifindex, LocalLink { name, has_master, has_peer: peer_is_elsewhere });
        }
    }
    let mut metrics: BTreeMap<IpNet, u32> = BTreeMap::new();
    for route in routes.iter().filter(|route| !route.has_gateway) {
        let best = metrics.entry(route.destination).or_insert(u32::MAX);
        if route.metric <= *best {
            *best = route.metric;
            local.routes.insert(route.destination, route.ifindex);
        }
    }
    local
}

/// What matters of a link message.
#[derive(Debug)]
struct Interface {
    ifindex: u32,
    name: String,
    is_veth: bool,
    has_master: bool,
    peer_is_elsewhere: bool,
}

impl Interface {
    fn read(message: &LinkMessage) -> Option<Self> {
        let mut interface = Self {
            ifindex: message.header.index,
            name: String::new(),
            is_veth: false,
            has_master: false,
            peer_is_elsewhere: false,
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => interface.name.clone_from(name),
                LinkAttribute::Controller(index) => interface.has_master = *index != 0,
                LinkAttribute::LinkNetNsId(_) => interface.peer_is_elsewhere = true,
                LinkAttribute::LinkInfo(infos) => {
                    interface.is_veth =
                        infos.iter().any(|info| matches!(info, LinkInfo::Kind(InfoKind::Veth)));
                }
                _ => {}
            }
        }
        (!interface.name.is_empty()).then_some(interface)
    }
}

/// What matters of a unicast route of the main table.
#[derive(Debug)]
struct Route {
    destination: IpNet,
    ifindex: u32,
    has_gateway: bool,
    metric: u32,
}

impl Route {
    fn read(message: &RouteMessage) -> Option<Self> {
        let header = &message.header;
        if header.kind != RouteType::Unicast || header.table != RouteHeader::RT_TABLE_MAIN {
            return None;
        }
        let is_v4 = header.address_family == rtnetlink::packet_route::AddressFamily::Inet;
        let mut destination: IpAddr =
            if is_v4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let (mut ifindex, mut has_gateway, mut metric) = (None, false, 0);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(RouteAddress::Inet(addr)) => destination = (*addr).into(),
                RouteAttribute::Destination(RouteAddress::Inet6(addr)) => destination = (*addr).into(),
                RouteAttribute::Oif(index) => ifindex = Some(*index),
                RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => has_gateway = true,
                RouteAttribute::Priority(priority) => metric = *priority,
                _ => {}
            }
        }
        let destination = IpNet::new(destination, header.destination_prefix_length).ok()?;
        // Without an interface of its own: several next hops, none of them a pod.
        Some(Self { destination, ifindex: ifindex?, has_gateway, metric })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(ifindex: u32, name: &str, has_master: bool) -> Interface {
        Interface { ifindex, name: name.to_owned(), is_veth: true, has_master, peer_is_elsewhere: true }
    }

    fn route(destination: &str, ifindex: u32, has_gateway: bool, metric: u32) -> Route {
        Route { destination: destination.parse().unwrap(), ifindex, has_gateway, metric }
    }

    #[test]
    fn uplinks_are_not_pods() {
        let interfaces =
            [interface(2, "eth0", false), interface(3, "veth1", false), interface(4, "veth2", true)];
        let routes = [
            route("0.0.0.0/0", 2, true, 0),
            route("10.244.0.2/32", 3, false, 0),
            route("10.244.1.0/24", 9, false, 0),
        ];
        let local = assemble(interfaces.into_iter(), &routes, &LinkFilter::default());
        assert_eq!(local.links.keys().copied().collect::<Vec<_>>(), [3, 4]);
        assert_eq!(local.direct_link("10.244.0.2".parse().unwrap()), Some(3));
        assert_eq!(local.direct_link("10.244.1.2".parse().unwrap()), None, "behind a bridge");
        assert_eq!(local.direct_link("192.0.2.1".parse().unwrap()), None, "by a gateway");
    }

    #[test]
    fn include_overrides_the_guess_but_never_takes_what_is_no_veth() {
        let filter = LinkFilter::new(&["*".into()], &[]).unwrap();
        let other = Interface { is_veth: false, ..interface(5, "tun0", false) };
        let interfaces = [interface(2, "eth0", false), other];
        let local = assemble(interfaces.into_iter(), &[route("0.0.0.0/0", 2, true, 0)], &filter);
        assert_eq!(local.links.keys().copied().collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn the_route_with_the_lowest_metric_counts() {
        let routes = [
            route("10.0.0.1/32", 7, false, 100),
            route("10.0.0.1/32", 8, false, 10),
            route("10.0.0.1/32", 9, false, 50),
        ];
        let local = assemble(std::iter::empty(), &routes, &LinkFilter::default());
        assert_eq!(local.routes[&"10.0.0.1/32".parse::<IpNet>().unwrap()], 8);
    }
}
