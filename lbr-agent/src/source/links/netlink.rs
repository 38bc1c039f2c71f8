//! Follows the interfaces, routes and neighbours of a network namespace over netlink.
//!
//! An event of an interface, a route or an address is only a reason to look: each look reads everything, so that a lost
//! event or a wrong order leaves a wrong picture only until the next look. Events of neighbours are complete
//! ([`super::news`]): lbr draws a new picture from them without reading. Pods cause events at will, so each link has a
//! limited number of looks ([`super::limit`]).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anyhow::Context as _;
use futures::channel::mpsc::UnboundedReceiver;
use futures::{StreamExt as _, TryStreamExt as _};
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::address::AddressMessage;
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::RouteMessage;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::proto::sys::SocketAddr;
use rtnetlink::{Handle, MulticastGroup, RouteMessageBuilder, new_connection, new_multicast_connection};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, warn};

use super::LinkFilter;
use super::addresses::{Neighbours, Places};
use super::known::Known;
use super::limit::Limit;
use super::message::{address_fact, link_fact, neighbour_fact, node_address, route_fact};
use super::news::{Facts, News, Picture};
use super::select::{View, select, turned};
use crate::node::links::{LocalLinks, PodAddresses};

/// Events that can add, change or remove a pod link, a route or an address.
const GROUPS: [MulticastGroup; 6] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Neigh,
];

/// A pod that starts causes a dozen events within this time.
const COALESCE: Duration = Duration::from_millis(15);
/// How many pictures the claims of one link cause at once: nearly as many as addresses that it may claim.
const DRAWN_AT_ONCE: u32 = 10;
/// The same for looks at everything, which a pod causes by setting its interface up and down.
const READ_AT_ONCE: u32 = 20;
/// Time between two probes for the same address. The kernel itself sends three, a second apart.
const ASK: Duration = Duration::from_secs(4);
/// Time until a look without an event, in case one was lost.
const BACKSTOP: Duration = Duration::from_secs(30);
/// Delay after an error of the kernel.
const RETRY: Duration = Duration::from_secs(1);

type Events = UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>;

/// Follows the network namespace of the calling thread, on a new thread that stays in it. Returns when the first
/// picture is complete, and works as long as the receiver exists.
///
/// `pods` are the addresses of this node's pods. If one is behind no known link, lbr makes the kernel probe for it,
/// again and again, on the bridge that the node's route for it leads to.
///
/// `former`: the link that each of these addresses was behind when a former agent ended.
pub fn watch_links(
    filter: LinkFilter,
    pods: watch::Receiver<PodAddresses>,
    former: BTreeMap<IpAddr, u32>,
) -> anyhow::Result<watch::Receiver<LocalLinks>> {
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
                match Watcher::connect(filter, pods, Past { former, ..Past::default() }).await {
                    Ok(watcher) => {
                        let (sender, receiver) = watch::channel(watcher.past.picture.clone());
                        if first_sender.send(Ok(receiver)).is_ok() {
                            watcher.run(&sender).await;
                        }
                    }
                    // The caller may have gone.
                    Err(e) => drop(first_sender.send(Err(e))),
                }
            });
        })
        .context("start the thread that follows the interfaces")?;
    first.recv().context("the thread that follows the interfaces died")?
}

struct Watcher {
    filter: LinkFilter,
    pods: watch::Receiver<PodAddresses>,
    handle: Handle,
    events: Events,
    facts: Facts,
    past: Past,
    /// When to read everything, and when to draw a new picture, if there is a reason to.
    everything_due: Instant,
    draw_due: Option<Instant>,
    draws: Limit,
    reads: Limit,
    asked_at: Instant,
    /// Some addresses need a probe.
    has_questions: bool,
}

/// State that one picture passes to the next.
#[derive(Clone, Default)]
struct Past {
    picture: LocalLinks,
    known: Known,
    /// The link of each pod's address, from a former agent. The first picture takes it over.
    former: BTreeMap<IpAddr, u32>,
}

/// The next step.
enum Wake {
    Everything,
    Draw,
    Ask,
    Reconnect,
}

impl Watcher {
    /// Subscribes before it reads, so that no change in between is missed.
    async fn connect(
        filter: LinkFilter,
        pods: watch::Receiver<PodAddresses>,
        past: Past,
    ) -> anyhow::Result<Self> {
        let (connection, _, events) =
            new_multicast_connection(&GROUPS).context("subscribe to netlink events")?;
        tokio::spawn(connection);
        // Answers come over a separate socket, which a flood of events cannot fill.
        let (connection, handle, _) = new_connection().context("open a netlink socket")?;
        tokio::spawn(connection);
        let now = Instant::now();
        let mut watcher = Self {
            filter,
            pods,
            handle,
            events,
            facts: Facts::default(),
            past,
            everything_due: now,
            draw_due: None,
            draws: Limit::new(DRAWN_AT_ONCE),
            reads: Limit::new(READ_AT_ONCE),
            asked_at: now,
            has_questions: false,
        };
        watcher.read_everything().await?;
        watcher.ask().await;
        Ok(watcher)
    }

    async fn run(mut self, sender: &watch::Sender<LocalLinks>) {
        while !sender.is_closed() {
            let wake = tokio::select! {
                () = sender.closed() => return,
                wake = self.wait() => wake,
            };
            if let Err(e) = self.act(wake).await {
                warn!("the interfaces of this node cannot be read ({e:#}): trying again");
                sleep(RETRY).await;
                // Whatever broke, begin with a new socket.
                self.events.close();
            }
            sender.send_if_modified(|known| {
                let changed = *known != self.past.picture;
                if changed {
                    known.clone_from(&self.past.picture);
                    debug!(
                        links = known.links.len(),
                        routes = known.routes.len(),
                        addresses = known.addresses.len(),
                        "interfaces changed"
                    );
                }
                changed
            });
        }
    }

    async fn act(&mut self, wake: Wake) -> anyhow::Result<()> {
        match wake {
            Wake::Everything => self.read_everything().await,
            Wake::Draw => {
                self.draw();
                Ok(())
            }
            Wake::Ask => {
                // The pods' addresses also decide what is remembered.
                self.draw();
                self.ask().await;
                Ok(())
            }
            Wake::Reconnect => {
                let past = std::mem::take(&mut self.past);
                match Self::connect(self.filter.clone(), self.pods.clone(), past.clone()).await {
                    Ok(watcher) => *self = watcher,
                    Err(e) => {
                        self.past = past;
                        return Err(e);
                    }
                }
                Ok(())
            }
        }
    }

    /// Waits for events that count, and collects them for a moment.
    async fn wait(&mut self) -> Wake {
        let mut pods_can_change = true;
        loop {
            tokio::select! {
                event = self.events.next() => match event {
                    None => return Wake::Reconnect,
                    // Waits a fixed time after the first one: endless events must not hold back the picture.
                    Some((message, _)) => self.take(&message.payload),
                },
                changed = self.pods.changed(), if pods_can_change => match changed {
                    Ok(()) => return Wake::Ask,
                    // The sender of pods is gone.
                    Err(_) => pods_can_change = false,
                },
                () = sleep_until(self.everything_due) => return Wake::Everything,
                () = sleep_until(self.draw_due.unwrap_or(self.everything_due)), if self.draw_due.is_some() => {
                    return Wake::Draw;
                }
                () = sleep_until(self.asked_at + ASK), if self.has_questions => return Wake::Ask,
            }
        }
    }

    fn take(&mut self, payload: &NetlinkPayload<RouteNetlinkMessage>) {
        let (now, pods) = (Instant::now(), self.pods.borrow());
        let Past { picture: local, known, .. } = &self.past;
        let news = self.facts.take(payload, Picture { local, known, pods: &pods });
        let draw = match news {
            News::None => None,
            News::Claims(link) => self.draws.event(link, now + COALESCE),
            // Its programs must not wait until everything is read.
            News::Link(_) => Some(now),
            News::Everything(_) => None,
        };
        if let News::Link(link) | News::Everything(link) = news
            && let Some(due) = self.reads.event(link, now + COALESCE)
        {
            self.everything_due = self.everything_due.min(due);
        }
        self.draw_due = self.draw_due.into_iter().chain(draw).min();
    }

    async fn read_everything(&mut self) -> anyhow::Result<()> {
        let links: Vec<LinkMessage> =
            self.handle.link().get().execute().try_collect().await.context("list the interfaces")?;
        let mut routes = Vec::new();
        for request in
            [RouteMessageBuilder::<Ipv4Addr>::new().build(), RouteMessageBuilder::<Ipv6Addr>::new().build()]
        {
            let family: Vec<RouteMessage> =
                self.handle.route().get(request).execute().try_collect().await.context("list the routes")?;
            routes.extend(family.iter().filter_map(route_fact));
        }
        let addresses: Vec<AddressMessage> =
            self.handle.address().get().execute().try_collect().await.context("list the node's addresses")?;
        self.facts.links = links.iter().map(link_fact).collect();
        self.facts.routes = routes;
        self.facts.node_addresses = addresses.iter().filter_map(node_address).collect();
        self.facts.addresses = addresses.iter().filter_map(address_fact).collect();
        let now = Instant::now();
        self.everything_due = now + BACKSTOP;
        self.reads.looked(now);
        self.read_neighbours().await
    }

    async fn read_neighbours(&mut self) -> anyhow::Result<()> {
        let mut neighbours = Neighbours::default();
        for family in [AddressFamily::Unspec, AddressFamily::Bridge] {
            let request = self.handle.neighbours().get().set_address_family(family);
            let entries: Vec<NeighbourMessage> =
                request.execute().try_collect().await.context("list the neighbours")?;
            entries.iter().filter_map(neighbour_fact).for_each(|fact| neighbours.insert(fact));
        }
        self.facts.neighbours = neighbours;
        self.draw();
        Ok(())
    }

    /// Makes the picture from the facts and from the picture before.
    fn draw(&mut self) {
        let facts = &self.facts;
        let pods = self.pods.borrow();
        let Past { picture: before, known, former } = &mut self.past;
        known.begin(&facts.links, &facts.routes, &pods);
        for (addr, index) in std::mem::take(former) {
            let link = facts.links.iter().find(|link| link.index == index && link.is_pair);
            if let (Some(link), Some(pod)) = (link, pods.get(&addr)) {
                known.found(index, pod);
                before.links.insert(index, link.into());
                before.addresses.insert(addr, index);
            }
        }
        let mut picture = select(&View {
            links: &facts.links,
            routes: &facts.routes,
            addresses: &facts.addresses,
            filter: &self.filter,
            before,
            known,
        });
        picture.node_addresses.clone_from(&facts.node_addresses);
        let places = Places::new(&picture, &facts.links);
        let addresses = places.addresses(&facts.neighbours, before, &pods, known);
        self.has_questions = places.unknown(&addresses, &pods).next().is_some();
        picture.addresses = addresses;
        for change in turned(before, &picture) {
            warn!("{change}");
        }
        *before = picture;
        self.draw_due = None;
        self.draws.looked(Instant::now());
    }

    /// Makes the kernel probe for pods that are behind no known link: their answers fill its tables.
    async fn ask(&mut self) {
        self.asked_at = Instant::now();
        let questions: Vec<(IpAddr, u32, bool)> = {
            let picture = &self.past.picture;
            let places = Places::new(picture, &self.facts.links);
            let is_claimed = |addr, device| places.is_claimed(&self.facts.neighbours, device, addr);
            let pods = self.pods.borrow_and_update();
            let unknown = places.unknown(&picture.addresses, &pods);
            unknown.map(|(addr, device)| (addr, device, is_claimed(addr, device))).collect()
        };
        self.has_questions = !questions.is_empty();
        for (addr, device, is_claimed) in questions {
            // The entry is another pod's claim, which is ignored. Without it the kernel probes all pods.
            if is_claimed && let Err(e) = self.handle.neighbours().del(entry(device, addr)).execute().await {
                debug!("the kernel does not forget {addr}: {e}");
            }
            // As if a packet were to be sent there. An existing entry is used, not replaced.
            let request = self.handle.neighbours().add(device, addr).replace();
            let request = request.state(NeighbourState::None).flags(NeighbourFlags::Use);
            if let Err(e) = request.execute().await {
                debug!("the kernel does not ask for {addr}: {e}");
            }
        }
    }
}

/// A neighbour entry, for the kernel to forget.
fn entry(device: u32, addr: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = device;
    let (family, addr) = match addr {
        IpAddr::V4(v4) => (AddressFamily::Inet, NeighbourAddress::Inet(v4)),
        IpAddr::V6(v6) => (AddressFamily::Inet6, NeighbourAddress::Inet6(v6)),
    };
    message.header.family = family;
    message.attributes = vec![NeighbourAttribute::Destination(addr)];
    message
}

#[cfg(test)]
mod tests;
