//! Follows the interfaces and routes of a network namespace over netlink.
//!
//! Events are only a reason to look: each look reads everything, so that a lost event or a wrong order can not
//! leave a wrong picture for longer than until the next one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anyhow::Context as _;
use futures::channel::mpsc::UnboundedReceiver;
use futures::{StreamExt as _, TryStreamExt as _};
use ipnet::IpNet;
use rtnetlink::packet_core::NetlinkMessage;
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::proto::sys::SocketAddr;
use rtnetlink::{Handle, MulticastGroup, RouteMessageBuilder, new_connection, new_multicast_connection};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, warn};

use super::select::{LinkFact, RouteFact, Way, select};
use super::{LinkFilter, LocalLinks};

/// What can make a pod link or a route come, change or go.
const GROUPS: [MulticastGroup; 5] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
];

/// A pod that starts makes a dozen events within this time.
const COALESCE: Duration = Duration::from_millis(15);
/// In case an event never came.
const BACKSTOP: Duration = Duration::from_secs(30);
/// After the kernel refused something.
const RETRY: Duration = Duration::from_secs(1);

type Events = UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>;

/// Follows the network namespace of the calling thread, in a thread of its own that stays in it. Returns when
/// the first picture is complete, and works for as long as anybody holds the receiver.
pub fn watch_links(filter: LinkFilter) -> anyhow::Result<watch::Receiver<LocalLinks>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start a netlink runtime")?;
    let (first_sender, first) = std::sync::mpsc::sync_channel(1);
    // Threads begin in the network namespace of their parent.
    let thread = std::thread::Builder::new().name("links".to_owned());
    thread
        .spawn(move || {
            runtime.block_on(async {
                match Watcher::connect(filter).await {
                    Ok((watcher, links)) => {
                        let (sender, receiver) = watch::channel(links);
                        if first_sender.send(Ok(receiver)).is_ok() {
                            watcher.run(&sender).await;
                        }
                    }
                    // A caller that has gone does not want to know.
                    Err(e) => drop(first_sender.send(Err(e))),
                }
            });
        })
        .context("start the thread that follows the interfaces")?;
    first.recv().context("the thread that follows the interfaces died")?
}

struct Watcher {
    filter: LinkFilter,
    handle: Handle,
    events: Events,
}

impl Watcher {
    /// Subscribes first and reads then, so that nothing happens unseen in between.
    async fn connect(filter: LinkFilter) -> anyhow::Result<(Self, LocalLinks)> {
        let (connection, _, events) =
            new_multicast_connection(&GROUPS).context("subscribe to netlink events")?;
        tokio::spawn(connection);
        // Answers come over a socket of their own, which a flood of events can not fill.
        let (connection, handle, _) = new_connection().context("open a netlink socket")?;
        tokio::spawn(connection);
        let watcher = Self { filter, handle, events };
        let links = watcher.read().await?;
        Ok((watcher, links))
    }

    async fn run(mut self, sender: &watch::Sender<LocalLinks>) {
        while !sender.is_closed() {
            let is_open = tokio::select! {
                () = sender.closed() => return,
                is_open = self.wait() => is_open,
            };
            let result = if is_open { self.read().await } else { self.reconnect().await };
            match result {
                Ok(links) => {
                    sender.send_if_modified(|known| {
                        let changed = *known != links;
                        if changed {
                            debug!(
                                links = links.links.len(),
                                routes = links.routes.len(),
                                "interfaces changed"
                            );
                            *known = links;
                        }
                        changed
                    });
                }
                Err(e) => {
                    warn!("the interfaces of this node can not be read ({e:#}): trying again");
                    sleep(RETRY).await;
                    // Whatever broke, a new socket is not older than it.
                    self.events.close();
                }
            }
        }
    }

    /// Waits for events and lets them come together; what they say does not matter, an overrun is one too.
    /// False if the socket is broken.
    async fn wait(&mut self) -> bool {
        match timeout(BACKSTOP, self.events.next()).await {
            Err(_) => return true,
            Ok(None) => return false,
            Ok(Some(_)) => {}
        }
        // A fixed time after the first one: events that never end must not hold back the picture.
        let deadline = Instant::now() + COALESCE;
        while let Ok(event) = tokio::time::timeout_at(deadline, self.events.next()).await {
            if event.is_none() {
                return false;
            }
        }
        true
    }

    async fn reconnect(&mut self) -> anyhow::Result<LocalLinks> {
        let (watcher, links) = Self::connect(self.filter.clone()).await?;
        *self = watcher;
        Ok(links)
    }

    async fn read(&self) -> anyhow::Result<LocalLinks> {
        let links: Vec<LinkMessage> =
            self.handle.link().get().execute().try_collect().await.context("list the interfaces")?;
        let links: Vec<LinkFact> = links.iter().map(link_fact).collect();
        let mut routes = Vec::new();
        for request in
            [RouteMessageBuilder::<Ipv4Addr>::new().build(), RouteMessageBuilder::<Ipv6Addr>::new().build()]
        {
            let family: Vec<RouteMessage> =
                self.handle.route().get(request).execute().try_collect().await.context("list the routes")?;
            routes.extend(family.iter().filter_map(route_fact));
        }
        Ok(select(&links, &routes, &self.filter))
    }
}

fn link_fact(message: &LinkMessage) -> LinkFact {
    let mut fact = LinkFact {
        index: message.header.index,
        name: String::new(),
        is_pair: false,
        peer_is_elsewhere: false,
        has_master: false,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => fact.name.clone_from(name),
            LinkAttribute::Controller(index) => fact.has_master = *index != 0,
            LinkAttribute::LinkNetNsId(_) => fact.peer_is_elsewhere = true,
            LinkAttribute::LinkInfo(infos) => {
                let is_pair = |i: &LinkInfo| matches!(i, LinkInfo::Kind(InfoKind::Veth | InfoKind::Netkit));
                fact.is_pair = infos.iter().any(is_pair);
            }
            _ => {}
        }
    }
    fact
}

/// The fact, if the route is of the main table and packets to other machines or pods can take it.
fn route_fact(message: &RouteMessage) -> Option<RouteFact> {
    let header = &message.header;
    let mut table = u32::from(header.table);
    let mut metric = 0;
    let mut destination = unspecified(header.address_family)?;
    let mut interface = None;
    let mut has_gateway = false;
    let mut hops = Vec::new();
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(id) => table = *id,
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => has_gateway = true,
            RouteAttribute::MultiPath(next) => hops.extend(next.iter().map(|hop| {
                let is_gateway =
                    |a: &RouteAttribute| matches!(a, RouteAttribute::Gateway(_) | RouteAttribute::Via(_));
                (hop.interface_index, hop.attributes.iter().any(is_gateway))
            })),
            RouteAttribute::Destination(RouteAddress::Inet(addr)) => destination = IpAddr::V4(*addr),
            RouteAttribute::Destination(RouteAddress::Inet6(addr)) => destination = IpAddr::V6(*addr),
            _ => {}
        }
    }
    let destination = IpNet::new(destination, header.destination_prefix_length).ok()?.trunc();
    if table != u32::from(RouteHeader::RT_TABLE_MAIN) || is_of_the_link(destination) {
        return None;
    }
    let gateways: Vec<u32> =
        hops.iter().filter(|(_, is_gateway)| *is_gateway).map(|(index, _)| *index).collect();
    let way = match (header.kind, interface) {
        (RouteType::Unicast, Some(index)) if has_gateway => Way::Gateways(vec![index]),
        (RouteType::Unicast, Some(index)) => Way::Direct(index),
        (RouteType::Unicast, None) if !gateways.is_empty() => Way::Gateways(gateways),
        (
            RouteType::Unicast
            | RouteType::BlackHole
            | RouteType::Unreachable
            | RouteType::Prohibit
            | RouteType::Throw,
            _,
        ) => Way::Other,
        _ => return None,
    };
    Some(RouteFact { destination, metric, way })
}

fn unspecified(family: AddressFamily) -> Option<IpAddr> {
    match family {
        AddressFamily::Inet => Some(Ipv4Addr::UNSPECIFIED.into()),
        AddressFamily::Inet6 => Some(Ipv6Addr::UNSPECIFIED.into()),
        _ => None,
    }
}

/// Every interface has `fe80::/64`, and it says nothing about any.
fn is_of_the_link(destination: IpNet) -> bool {
    matches!(destination.network(), IpAddr::V6(addr) if addr.is_unicast_link_local())
}

#[cfg(test)]
mod tests;
