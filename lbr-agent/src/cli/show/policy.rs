//! Columns of the rows about policies.

use super::{Row, dash};
use crate::cli::rows::policy::{ClassRow, EndpointRow, PolicyRow, directions};

impl Row for PolicyRow {
    fn header(wide: bool) -> &'static [&'static str] {
        const ALL: [&str; 9] =
            ["NAMESPACE", "NAME", "MODE", "INGRESS", "EGRESS", "PODS", "DENIED", "WOULD-DENY", "ID"];
        if wide { &ALL } else { &ALL[..8] }
    }

    fn cells(&self, wide: bool) -> Vec<String> {
        let mut cells = vec![
            self.namespace.clone(),
            self.name.clone(),
            self.mode.to_owned(),
            rules(self.isolates_ingress, self.ingress_rules),
            rules(self.isolates_egress, self.egress_rules),
            self.pods.to_string(),
            self.denied_packets.to_string(),
            self.would_be_denied_packets.to_string(),
        ];
        if wide {
            cells.push(self.id.to_string());
        }
        cells
    }
}

/// `-`: does not isolate in this direction, whatever rules it has.
fn rules(isolates: bool, count: u32) -> String {
    match (isolates, count) {
        (false, _) => "-".to_owned(),
        (true, 0) => "allows nothing".to_owned(),
        (true, 1) => "1 rule".to_owned(),
        (true, count) => format!("{count} rules"),
    }
}

impl Row for EndpointRow {
    fn header(wide: bool) -> &'static [&'static str] {
        const ALL: [&str; 8] = ["ADDRESS", "POD", "LINK", "STATE", "SET", "ISOLATED", "AUDIT-SET", "AUDITED"];
        if wide { &ALL } else { &ALL[..6] }
    }

    fn cells(&self, wide: bool) -> Vec<String> {
        let number = |set: u32| if set == 0 { "-".to_owned() } else { set.to_string() };
        let mut cells = vec![
            self.address.clone(),
            dash(&self.pod),
            dash(&self.link),
            self.state.to_owned(),
            number(self.set),
            dash(&directions(self.isolated_ingress, self.isolated_egress)),
        ];
        if wide {
            let audited = directions(self.audited_ingress, self.audited_egress);
            cells.extend([number(self.audit_set), dash(&audited)]);
        }
        cells
    }
}

impl Row for ClassRow {
    fn header(_wide: bool) -> &'static [&'static str] {
        &["ID", "PODS", "BLOCKS", "MATCHES"]
    }

    fn cells(&self, _wide: bool) -> Vec<String> {
        vec![self.id.to_string(), self.pods.to_string(), self.blocks.to_string(), dash(&self.matches)]
    }
}

#[cfg(test)]
mod tests {
    use lbr_common::policy::policy_flags;

    use super::*;
    use crate::cli::args::Output;
    use crate::cli::example;
    use crate::cli::rows::{self, policy};
    use crate::cli::show::render;

    #[test]
    fn every_row_has_a_cell_for_each_title() {
        let tables = example::tables();
        for wide in [false, true] {
            for row in policy::policies(&tables, &[]) {
                assert_eq!(row.cells(wide).len(), PolicyRow::header(wide).len());
            }
            for row in policy::endpoints(&tables, |_| String::new()) {
                assert_eq!(row.cells(wide).len(), EndpointRow::header(wide).len());
            }
            for row in policy::classes(&tables) {
                assert_eq!(row.cells(wide).len(), ClassRow::header(wide).len());
            }
        }
    }

    #[test]
    fn policies_say_whether_they_isolate_and_allow() {
        let text = render(Output::Table, &policy::policies(&example::tables(), &[])).unwrap();
        assert_eq!(
            text,
            "NAMESPACE  NAME   MODE     INGRESS  EGRESS          PODS  DENIED  WOULD-DENY\n\
             default    later  audit    -        allows nothing  1     0       0\n\
             default    web    enforce  2 rules  -               1     0       0\n"
        );
    }

    #[test]
    fn links_say_whether_policies_hold() {
        let mut tables = example::tables();
        tables.links = [(1, Default::default()), (2, Default::default())].into();
        tables.link_policy = [(1, policy_flags::POD)].into();
        let text = render(Output::Table, &rows::links(&tables, |link| format!("veth{link}"))).unwrap();
        assert_eq!(
            text,
            "INDEX  NAME   PATH   STATE\n1      veth1  stack  ready\n2      veth2  stack  pending\n"
        );
    }

    #[test]
    fn json_has_all_that_the_tables_have() {
        let text = render(Output::Json, &policy::endpoints(&example::tables(), |_| String::new())).unwrap();
        let rows: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(rows[4]["pod"], "default/web-0");
        assert_eq!(rows[4]["isolated_ingress"], true);
        assert_eq!(rows[4]["audit_set"], example::AUDIT_SET.id);
    }
}
