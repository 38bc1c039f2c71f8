//! Names of terms and selectors in tables for people.

use super::terms::{Namespaces, Term};
use crate::model::{Requirement, Selector};

/// `pods app=web in namespaces team=a`, `block 10.0.0.0/8 except 10.1.0.0/16`, `port http=8080/TCP`.
pub(super) fn term(term: &Term) -> String {
    match term {
        Term::Pods(namespaces, pods) => {
            let pods = match pods.requirements.is_empty() {
                true => "all pods".to_owned(),
                false => format!("pods {}", selector(pods)),
            };
            match namespaces {
                Namespaces::Named(name) => format!("{pods} in namespace {name}"),
                Namespaces::Matching(all) if all.requirements.is_empty() => {
                    format!("{pods} in all namespaces")
                }
                Namespaces::Matching(some) => format!("{pods} in namespaces {}", selector(some)),
            }
        }
        Term::Block(cidr, except) if except.is_empty() => format!("block {cidr}"),
        Term::Block(cidr, except) => {
            let except: Vec<String> = except.iter().map(ToString::to_string).collect();
            format!("block {cidr} except {}", except.join(", "))
        }
        Term::Port(name, protocol, number) => {
            let protocol = lbr_common::user::proto_name(protocol.number());
            format!("port {name}={number}/{protocol}")
        }
    }
}

/// As kubectl writes it: `app=web,tier in (a,b),!old`.
fn selector(selector: &Selector) -> String {
    let list = |values: &std::collections::BTreeSet<String>| {
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        values.join(",")
    };
    let requirement = |requirement: &Requirement| match requirement {
        Requirement::In(key, values) if values.len() == 1 => format!("{key}={}", list(values)),
        Requirement::In(key, values) => format!("{key} in ({})", list(values)),
        Requirement::NotIn(key, values) if values.len() == 1 => format!("{key}!={}", list(values)),
        Requirement::NotIn(key, values) => format!("{key} notin ({})", list(values)),
        Requirement::Exists(key) => key.clone(),
        Requirement::DoesNotExist(key) => format!("!{key}"),
    };
    selector.requirements.iter().map(requirement).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_written_as_kubectl_does() {
        let (key, set) =
            (|| "k".to_owned(), |values: &[&str]| values.iter().map(|v| (*v).to_owned()).collect());
        let requirements = vec![
            Requirement::In(key(), set(&["a"])),
            Requirement::In(key(), set(&["a", "b"])),
            Requirement::NotIn(key(), set(&["a"])),
            Requirement::NotIn(key(), set(&["a", "b"])),
            Requirement::Exists(key()),
            Requirement::DoesNotExist(key()),
        ];
        let text = selector(&Selector { requirements });
        assert_eq!(text, "k=a,k in (a,b),k!=a,k notin (a,b),k,!k");
    }
}
