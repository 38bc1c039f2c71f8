//! Which chains and rules of a table are removed: a pure function, the same for both kinds of iptables.

use std::collections::{BTreeMap, BTreeSet};

use super::names;

/// A table as found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) name: String,
    pub(super) chains: Vec<Chain>,
}

/// A chain as found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) name: String,
    /// One of the kernel's, such as PREROUTING.
    pub(super) base: bool,
    pub(super) rules: Vec<Rule>,
}

/// A rule as found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rule {
    /// Handle or line, for its removal.
    pub(super) id: u64,
    /// The chain that it jumps or goes to.
    pub(super) target: Option<String>,
}

/// A jump from a chain of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Jump {
    pub(super) chain: String,
    pub(super) rule: u64,
    pub(super) target: String,
}

/// What to remove, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// These rules,
    pub(super) jumps: Vec<Jump>,
    /// all rules of these chains, then the chains.
    pub(super) chains: Vec<String>,
    /// kube-proxy's chains that stay, each with the chain that needs it.
    pub(super) kept: Vec<(String, String)>,
}

impl Plan {
    pub(super) fn is_empty(&self) -> bool {
        self.jumps.is_empty() && self.chains.is_empty()
    }
}

pub(super) fn plan(table: &Table) -> Plan {
    let is_ours = |chain: &&Chain| !chain.base && names::is_chain(&table.name, &chain.name);
    let mut doomed: BTreeSet<&str> =
        table.chains.iter().filter(is_ours).map(|chain| chain.name.as_str()).collect();
    // A chain that another owner's rule jumps to stays, and so do all chains that it leads to.
    let mut kept = Vec::new();
    let mut staying: Vec<&Chain> =
        table.chains.iter().filter(|chain| !doomed.contains(chain.name.as_str())).collect();
    let by_name: BTreeMap<&str, &Chain> =
        table.chains.iter().map(|chain| (chain.name.as_str(), chain)).collect();
    while let Some(chain) = staying.pop() {
        for target in chain.rules.iter().filter_map(|rule| rule.target.as_deref()) {
            if (!chain.base || names::is_borrowed(target)) && doomed.remove(target) {
                kept.push((target.to_owned(), chain.name.clone()));
                staying.extend(by_name.get(target));
            }
        }
    }
    let mut jumps = Vec::new();
    for chain in table.chains.iter().filter(|chain| chain.base) {
        for rule in &chain.rules {
            if let Some(target) = rule.target.as_deref().filter(|target| doomed.contains(target)) {
                jumps.push(Jump { chain: chain.name.clone(), rule: rule.id, target: target.to_owned() });
            }
        }
    }
    let chains = table.chains.iter().map(|chain| &chain.name).filter(|name| doomed.contains(name.as_str()));
    let chains = chains.cloned().collect();
    Plan { jumps, chains, kept }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(name: &str, base: bool, targets: &[&str]) -> Chain {
        let rule = |(id, target): (usize, &&str)| Rule {
            id: id as u64,
            target: (!target.is_empty()).then(|| (*target).to_owned()),
        };
        Chain { name: name.to_owned(), base, rules: targets.iter().enumerate().map(rule).collect() }
    }

    const SVC: &str = "KUBE-SVC-2GMJWGJ2MAUYJLYH";
    const SEP: &str = "KUBE-SEP-2GMJWGJ2MAUYJLYH";

    fn nat(more: Vec<Chain>) -> Plan {
        let mut chains = vec![
            chain("PREROUTING", true, &["MINE", "KUBE-SERVICES", ""]),
            chain("POSTROUTING", true, &["KUBE-POSTROUTING"]),
            chain("KUBE-SERVICES", false, &[SVC]),
            chain("KUBE-POSTROUTING", false, &[""]),
            chain("KUBE-MARK-MASQ", false, &[""]),
            chain(SVC, false, &["KUBE-MARK-MASQ", SEP]),
            chain(SEP, false, &["KUBE-MARK-MASQ", ""]),
            chain("KUBE-KUBELET-CANARY", false, &[]),
        ];
        chains.extend(more);
        plan(&Table { name: "nat".to_owned(), chains })
    }

    #[test]
    fn jumps_and_chains() {
        let plan = nat(vec![chain("MINE", false, &["", "KUBE-KUBELET-CANARY"])]);
        let jumps: Vec<_> =
            plan.jumps.iter().map(|j| (j.chain.as_str(), j.rule, j.target.as_str())).collect();
        assert_eq!(jumps, [("PREROUTING", 1, "KUBE-SERVICES"), ("POSTROUTING", 0, "KUBE-POSTROUTING")]);
        assert_eq!(plan.chains, ["KUBE-SERVICES", "KUBE-POSTROUTING", "KUBE-MARK-MASQ", SVC, SEP]);
        assert_eq!(plan.kept, []);
    }

    #[test]
    fn what_others_use_stays_with_all_that_it_leads_to() {
        let plan = nat(vec![chain("MINE", false, &[SVC])]);
        let kept: Vec<_> = plan.kept.iter().map(|(chain, by)| (chain.as_str(), by.as_str())).collect();
        assert!(kept.contains(&(SVC, "MINE")) && kept.contains(&(SEP, SVC)), "{kept:?}");
        assert!(kept.iter().any(|(chain, _)| *chain == "KUBE-MARK-MASQ"), "{kept:?}");
        assert_eq!(plan.chains, ["KUBE-SERVICES", "KUBE-POSTROUTING"]);
        let plan = nat(vec![chain("OUTPUT", true, &["KUBE-MARK-MASQ"])]);
        assert_eq!(plan.kept, [("KUBE-MARK-MASQ".to_owned(), "OUTPUT".to_owned())]);
        assert_eq!(plan.jumps.len(), 2);
    }

    #[test]
    fn a_table_without_kube_proxy_is_left_alone() {
        let chains = vec![chain("INPUT", true, &["KUBE-FIREWALL"]), chain("KUBE-FIREWALL", false, &[""])];
        assert!(plan(&Table { name: "filter".to_owned(), chains }).is_empty());
    }
}
