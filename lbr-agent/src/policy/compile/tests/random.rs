//! Random clusters against a plain reading of the specification, object by object, without an index.

use ipnet::IpNet;
use lbr_common::policy::Allow;

use super::numbers::assert_make_before_break;
use super::*;
use crate::model::{Labels, Peer, PolicyPort, PolicyRule, PortSet, Requirement, Selector};
use crate::policy::judge::Side;

/// xorshift64*: the same numbers in each run.
pub(in crate::policy::compile) struct Random(pub(in crate::policy::compile) u64);

impl Random {
    pub(in crate::policy::compile) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit
    }

    pub(in crate::policy::compile) fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    pub(in crate::policy::compile) fn labels(&mut self) -> Labels {
        let mut labels = Labels::new();
        for key in ["app", "tier", "team"] {
            if self.below(3) > 0 {
                labels.insert(key.into(), (*self.of(&["1", "2", "3"])).into());
            }
        }
        labels
    }

    pub(in crate::policy::compile) fn selector(&mut self) -> Selector {
        let requirement = |random: &mut Self| {
            let key = (*random.of(&["app", "tier", "team"])).to_owned();
            let values = (0..=random.below(2)).map(|_| (*random.of(&["1", "2", "3"])).to_owned()).collect();
            match random.below(6) {
                0 => Requirement::NotIn(key, values),
                1 => Requirement::Exists(key),
                2 => Requirement::DoesNotExist(key),
                _ => Requirement::In(key, values),
            }
        };
        let count = self.below(3);
        Selector { requirements: (0..count).map(|_| requirement(self)).collect() }
    }

    fn rule(&mut self) -> PolicyRule {
        let nets =
            ["10.0.0.0/8", "10.0.0.0/24", "10.0.0.4/30", "0.0.0.0/0", "10.0.0.5/32", "::/0", "fd00::/64"];
        let excepts = ["10.0.0.0/25", "10.0.0.4/31", "10.0.0.5/32", "fd00::4/126", "10.0.0.0/24"];
        let peer = |random: &mut Self| match random.below(5) {
            0 => Peer::Pods(random.selector()),
            1 => Peer::Namespaces(random.selector()),
            2 => Peer::Both(random.selector(), random.selector()),
            _ => {
                let cidr: IpNet = random.of(&nets).parse().unwrap();
                let except = (0..random.below(3)).map(|_| random.of(&excepts).parse::<IpNet>().unwrap());
                let inside = |net: &IpNet| cidr.contains(net) && net.prefix_len() > cidr.prefix_len();
                Peer::Block { cidr, except: except.filter(inside).collect() }
            }
        };
        let port = |random: &mut Self| PolicyPort {
            protocol: *random.of(&[Protocol::Tcp, Protocol::Tcp, Protocol::Udp, Protocol::Sctp]),
            ports: match random.below(5) {
                0 => PortSet::All,
                1 | 2 => PortSet::Named((*random.of(&["http", "dns"])).into()),
                3 => PortSet::Range(79, *random.of(&[80, 8080, 65535])),
                _ => {
                    let port = *random.of(&[53, 80, 81, 8080]);
                    PortSet::Range(port, port)
                }
            },
        };
        let (peers, ports) = (self.below(3), self.below(3));
        PolicyRule {
            peers: (0..peers).map(|_| peer(self)).collect(),
            ports: (0..ports).map(|_| port(self)).collect(),
        }
    }

    pub(super) fn change(&mut self, world: &mut World) {
        let namespace = *self.of(&["a", "b", "c"]);
        match self.below(8) {
            0 if namespace != "c" => {
                let labels = self.labels();
                let labels: Vec<_> = labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
                world.namespace(namespace, &labels);
            }
            1..=4 => {
                let number = self.below(10);
                let name = format!("{namespace}/p{number}");
                let (v4, v6) = (format!("10.0.0.{number}"), format!("fd00::{number}"));
                let labels = self.labels();
                let pod = world.pod(&name, &[v4.as_str(), &v6][..=self.below(2)], &[]);
                pod.labels = labels;
                pod.host_network = self.below(8) == 0;
                pod.terminating = self.below(4) == 0;
                pod.node = (*self.of(&["here", "there"])).into();
                for name in ["http", "dns"] {
                    if self.below(2) == 0 {
                        let protocol = *self.of(&[Protocol::Tcp, Protocol::Udp]);
                        named(pod, name, protocol, *self.of(&[53, 80, 8080]));
                    }
                }
                if self.below(4) == 0 {
                    world.state.pods.remove(&object_name(&name));
                }
            }
            _ => {
                let name = object_name(&format!("{namespace}/{}", self.below(4)));
                if self.below(4) == 0 {
                    world.state.policies.remove(&name);
                    return;
                }
                let rules = |random: &mut Self| {
                    let count = random.below(3);
                    (random.below(3) > 0).then(|| (0..count).map(|_| random.rule()).collect())
                };
                // A rejected edit that selects other pods.
                let edit = (self.below(6) == 0).then(|| {
                    let (pods, ingress) = (self.selector(), Some(Vec::new()));
                    Arc::new(NetworkPolicy { name: name.clone(), pods, ingress, ..NetworkPolicy::default() })
                });
                let policy = NetworkPolicy {
                    name: name.clone(),
                    audit: self.below(4) == 0,
                    pods: self.selector(),
                    ingress: rules(self),
                    egress: rules(self),
                    edit,
                };
                world.state.policies.insert(name, policy.into());
            }
        }
    }
}

pub(in crate::policy::compile) fn selects(selector: &Selector, labels: &Labels) -> bool {
    selector.requirements.iter().all(|r| match r {
        Requirement::In(k, values) => labels.get(k).is_some_and(|v| values.contains(v)),
        Requirement::NotIn(k, values) => labels.get(k).is_none_or(|v| !values.contains(v)),
        Requirement::Exists(k) => labels.get(k).is_some(),
        Requirement::DoesNotExist(k) => labels.get(k).is_none(),
    })
}

/// The specification.
struct Plain<'a>(&'a ClusterState);

impl Plain<'_> {
    fn owner(&self, ip: IpAddr) -> Option<&Pod> {
        let has = |pod: &&Pod| !pod.host_network && pod.ips.contains(&ip);
        self.0.pods.values().filter(has).min_by_key(|pod| (pod.terminating, pod.node != "here", &pod.name))
    }

    fn rule_allows(
        &self,
        rule: &PolicyRule,
        ns: &str,
        peer: IpAddr,
        dst: IpAddr,
        proto: u8,
        port: u16,
    ) -> bool {
        let pod = self.owner(peer);
        let namespace = |pod: &Pod| {
            let known = self.0.namespaces.get(&ObjectName::cluster(&pod.name.namespace));
            let name = [("kubernetes.io/metadata.name".to_owned(), pod.name.namespace.clone())];
            known.map_or_else(|| name.into(), |n| n.labels.clone())
        };
        let peer_matches = |p: &Peer| match p {
            Peer::Pods(s) => pod.is_some_and(|pod| pod.name.namespace == ns && selects(s, &pod.labels)),
            Peer::Namespaces(n) => pod.is_some_and(|pod| selects(n, &namespace(pod))),
            Peer::Both(n, s) => pod.is_some_and(|pod| selects(n, &namespace(pod)) && selects(s, &pod.labels)),
            Peer::Block { cidr, except } => cidr.contains(&peer) && !except.iter().any(|e| e.contains(&peer)),
        };
        let port_matches = |p: &PolicyPort| {
            let same = match p.protocol {
                Protocol::Tcp => proto == 6,
                Protocol::Udp => proto == 17,
                Protocol::Sctp => proto == 132,
            };
            same && match &p.ports {
                PortSet::All => true,
                PortSet::Range(first, last) => (*first..=*last).contains(&port),
                PortSet::Named(name) => self
                    .owner(dst)
                    .and_then(|pod| pod.named_ports.get(&(name.clone(), p.protocol)))
                    .is_some_and(|number| *number == port),
            }
        };
        (rule.peers.is_empty() || rule.peers.iter().any(peer_matches))
            && (rule.ports.is_empty() || rule.ports.iter().any(port_matches))
    }

    /// `None`: not isolated. Otherwise whether it is allowed.
    fn side(
        &self,
        src: IpAddr,
        dst: IpAddr,
        proto: u8,
        port: u16,
        ingress: bool,
        audit: bool,
    ) -> Option<bool> {
        let (subject, peer) = if ingress { (dst, src) } else { (src, dst) };
        let pod = self.owner(subject).filter(|pod| pod.node == "here" && src != dst)?;
        let rules = |p: &Arc<NetworkPolicy>| if ingress { p.ingress.clone() } else { p.egress.clone() };
        let versions = self.0.policies.values().flat_map(|p| std::iter::once(p).chain(&p.edit));
        let of_pod = versions.filter(|p| {
            p.name.namespace == pod.name.namespace && selects(&p.pods, &pod.labels) && (audit || !p.audit)
        });
        let isolating: Vec<_> = of_pod.filter_map(rules).collect();
        let ns = pod.name.namespace.as_str();
        let allows = |rule: &PolicyRule| self.rule_allows(rule, ns, peer, dst, proto, port);
        (!isolating.is_empty()).then(|| isolating.iter().flatten().any(allows))
    }
}

fn outcome(side: Side) -> Option<bool> {
    match side {
        Side::NoPod | Side::Exempt | Side::NotIsolated => None,
        Side::Allowed(_) => Some(true),
        Side::Denied { .. } => Some(false),
    }
}

fn check(world: &World, d: &Desired, random: &mut Random) {
    let plain = Plain(&world.state);
    let mut ips: Vec<String> = (0..10).flat_map(|n| [format!("10.0.0.{n}"), format!("fd00::{n}")]).collect();
    ips.extend(["10.0.0.77", "10.9.9.9", "192.0.2.1", "2001:db8::1"].map(str::to_owned));
    for _ in 0..600 {
        let (src, dst) = (random.of(&ips).clone(), random.of(&ips).clone());
        let (proto, port) = (*random.of(&[6, 6, 17, 132, 1]), *random.of(&[0, 53, 79, 80, 81, 8080, 65535]));
        let judged = judge(d, &tuple(&src, &dst, proto, port));
        let (src, dst) = (src.parse().unwrap(), dst.parse().unwrap());
        for (ingress, audit, side) in [
            (false, false, judged.egress),
            (true, false, judged.ingress),
            (false, true, judged.audited_egress),
            (true, true, judged.audited_ingress),
        ] {
            let expected = plain.side(src, dst, proto, port, ingress, audit);
            let which = format!("{src} > {dst} {proto}/{port} ingress {ingress} audit {audit}: {side:?}");
            assert_eq!(outcome(side), expected, "{which}");
            if let Side::Allowed(Allow { policy, rule }) = side {
                let record = d.policies[&policy];
                let name = format!("{}/{}", record.namespace.as_str(), record.name.as_str());
                let policy = &world.state.policies[&object_name(&name)];
                let rules = if ingress { &policy.ingress } else { &policy.egress };
                let rule = &rules.as_ref().unwrap()[rule as usize];
                let (ns, peer) = (record.namespace.as_str(), if ingress { src } else { dst });
                assert!(plain.rule_allows(rule, ns, peer, dst, proto, port), "{which}");
            }
        }
    }
}

#[test]
fn random_clusters_are_judged_as_specified_and_change_without_a_gap() {
    let mut random = Random(20);
    for _ in 0..12 {
        let mut world = World::new();
        for _ in 0..30 {
            random.change(&mut world);
        }
        let mut before = world.compile();
        for _ in 0..12 {
            check(&world, &before, &mut random);
            for _ in 0..=random.below(3) {
                random.change(&mut world);
            }
            if random.below(4) == 0 {
                world.ids = Ids::restore(&before);
            }
            let after = world.compile();
            assert_make_before_break(&before, &after);
            world.ids = Ids::restore(&after);
            assert_eq!(world.compile(), after, "a restart changes nothing");
            before = after;
        }
    }
}
