//! `lbr show`: prints the maps for people. Reads the pins; no agent needs to run.

mod policy;

use lbr_common::maps::{self, MapSpec};
use serde::Serialize;

use super::args::{Output, ShowArgs, What};
use super::rows::uplinks::UplinkRow;
use super::rows::{self, BackendRow, FlowRow, LinkRow, RejectedRow, ServiceRow};
use super::{json, names, print, table};
use crate::dataplane::{Count, Pinned};

/// Prints what was asked for.
pub fn show(args: &ShowArgs) -> anyhow::Result<()> {
    print(&text(args)?)
}

fn text(args: &ShowArgs) -> anyhow::Result<String> {
    let pinned = Pinned::open(&args.bpffs)?;
    let output = args.output;
    // Read only the maps that are needed: on a large node the others take longer to read than the table to print.
    let tables = || pinned.tables_of(maps_of(args.what));
    match args.what {
        What::Services => render(output, &rows::services(&tables()?)),
        What::Backends => render(output, &rows::backends(&tables()?, names::link)),
        What::Flows => {
            let flows = pinned.flows()?;
            render(output, &rows::flows(&tables()?, &flows, monotonic_ns()?))
        }
        What::Links => render(output, &rows::links(&tables()?, names::link)),
        What::Uplinks => render(output, &rows::uplinks::uplinks(&tables()?, &pinned.xdp()?, names::link)),
        What::Policies => render(output, &rows::policy::policies(&tables()?, &pinned.denials()?)),
        What::Endpoints => render(output, &rows::policy::endpoints(&tables()?, names::link)),
        What::Classes => render(output, &rows::policy::classes(&tables()?)),
        What::Rejected => render(output, &rows::rejected(&tables()?)),
        What::Counters => {
            render(output, &pinned.counters()?.iter().map(CounterRow::from).collect::<Vec<_>>())
        }
    }
}

/// The maps of the agent that a subject needs.
fn maps_of(what: What) -> &'static [MapSpec] {
    match what {
        What::Services => &[maps::FRONTENDS, maps::SLOTS, maps::BACKENDS, maps::SERVICES],
        What::Backends => &[maps::BACKENDS, maps::SERVICES],
        What::Flows => &[maps::SERVICES],
        What::Links => &[maps::LINKS, maps::LINK_POLICY],
        What::Uplinks => &[maps::UPLINKS],
        What::Policies => &[maps::POLICIES, maps::SET_MEMBERS],
        What::Endpoints => &[maps::ENDPOINTS, maps::POD_NAMES],
        What::Classes => &[maps::CLASSES],
        What::Rejected => &[maps::REJECTED],
        What::Counters => &[],
    }
}

/// A row of a table.
trait Row: Serialize {
    /// Column titles.
    fn header(wide: bool) -> &'static [&'static str];
    /// One cell for each title.
    fn cells(&self, wide: bool) -> Vec<String>;
}

fn render<R: Row>(output: Output, rows: &[R]) -> anyhow::Result<String> {
    let wide = match output {
        Output::Json => return json::render(rows),
        Output::Table => false,
        Output::Wide => true,
    };
    let cells: Vec<_> = rows.iter().map(|row| row.cells(wide)).collect();
    Ok(table::render(R::header(wide), &cells))
}

impl Row for ServiceRow {
    fn header(wide: bool) -> &'static [&'static str] {
        const ALL: [&str; 9] = [
            "NAMESPACE",
            "NAME",
            "PORT-NAME",
            "ADDRESS",
            "PROTOCOL",
            "ENDPOINTS",
            "FOR",
            "ID",
            "ENDPOINT-ADDRESSES",
        ];
        if wide { &ALL } else { &ALL[..7] }
    }

    fn cells(&self, wide: bool) -> Vec<String> {
        let mut count = self.endpoints.len().to_string();
        if !self.draining.is_empty() {
            count.push_str(&format!(" (+{} draining)", self.draining.len()));
        }
        if self.local_only {
            count.push_str(" on this node");
        }
        let address = format!("{}:{}", bracketed(&self.address), self.port);
        let mut cells = vec![
            self.namespace.clone(),
            self.name.clone(),
            dash(&self.port_name),
            address,
            self.protocol.clone(),
            count,
            self.clients(),
        ];
        if wide {
            let draining = self.draining.iter().map(|endpoint| format!("{endpoint} (draining)"));
            let all: Vec<_> = self.endpoints.iter().cloned().chain(draining).collect();
            cells.extend([self.service_id.to_string(), dash(&all.join(","))]);
        }
        cells
    }
}

impl ServiceRow {
    /// Which clients it serves, and how.
    fn clients(&self) -> String {
        let mut text = if self.scope.is_empty() { "all" } else { self.scope }.to_owned();
        if self.source_ranges {
            text.push_str(" in its source ranges");
        }
        if self.algorithm != "random" {
            text.push_str(&format!(" ({})", self.algorithm));
        }
        if self.forwarding != "snat" {
            text.push_str(&format!(" ({})", self.forwarding));
        }
        if self.affinity != 0 {
            text.push_str(&format!(" (affinity {}s)", self.affinity));
        }
        text
    }
}

impl Row for BackendRow {
    fn header(wide: bool) -> &'static [&'static str] {
        const ALL: [&str; 7] = ["NAMESPACE", "SERVICE", "PORT-NAME", "ADDRESS", "PROTOCOL", "STATE", "LINK"];
        const WIDE: [&str; 8] =
            ["NAMESPACE", "SERVICE", "PORT-NAME", "ADDRESS", "PROTOCOL", "STATE", "LINK", "ID"];
        if wide { &WIDE } else { &ALL }
    }

    fn cells(&self, wide: bool) -> Vec<String> {
        let link = if self.link.is_empty() { "(stack)".to_owned() } else { self.link.clone() };
        let mut cells = vec![
            self.namespace.clone(),
            self.name.clone(),
            dash(&self.port_name),
            format!("{}:{}", bracketed(&self.address), self.port),
            self.protocol.clone(),
            self.state.to_owned(),
            link,
        ];
        if wide {
            cells.push(self.id.to_string());
        }
        cells
    }
}

impl Row for FlowRow {
    fn header(wide: bool) -> &'static [&'static str] {
        const ALL: [&str; 9] = [
            "PROTOCOL",
            "CLIENT",
            "FRONTEND",
            "BACKEND",
            "SERVICE",
            "IDLE",
            "STATE",
            "BACKEND-ID",
            "HAIRPIN",
        ];
        if wide { &ALL } else { &ALL[..7] }
    }

    fn cells(&self, wide: bool) -> Vec<String> {
        let mut cells = vec![
            self.protocol.clone(),
            self.client.clone(),
            self.frontend.clone(),
            self.backend.clone(),
            dash(&self.service),
            format!("{}s", self.idle_seconds),
            dash(self.state),
        ];
        if wide {
            cells.extend([self.backend_id.to_string(), if self.hairpin { "yes" } else { "no" }.to_owned()]);
        }
        cells
    }
}

impl Row for LinkRow {
    fn header(_wide: bool) -> &'static [&'static str] {
        &["INDEX", "NAME", "PATH", "STATE"]
    }

    fn cells(&self, _wide: bool) -> Vec<String> {
        vec![self.ifindex.to_string(), self.name.clone(), self.path.to_owned(), self.state.to_owned()]
    }
}

impl Row for UplinkRow {
    fn header(_wide: bool) -> &'static [&'static str] {
        &["INDEX", "NAME", "IPV4", "IPV6", "XDP"]
    }

    fn cells(&self, _wide: bool) -> Vec<String> {
        let (ipv4, ipv6) = (dash(&self.ipv4), dash(&self.ipv6));
        vec![self.ifindex.to_string(), self.name.clone(), ipv4, ipv6, self.xdp.to_owned()]
    }
}

impl Row for RejectedRow {
    fn header(_wide: bool) -> &'static [&'static str] {
        &["STATE", "OBJECT", "WHERE", "FIELD", "REASON"]
    }

    fn cells(&self, _wide: bool) -> Vec<String> {
        let [object, origin, field] = [&self.object, &self.origin, &self.field].map(|text| dash(text));
        vec![self.state.to_owned(), object, origin, field, self.reason.clone()]
    }
}

/// A counter.
#[derive(Debug, Serialize)]
struct CounterRow {
    hook: &'static str,
    verdict: &'static str,
    effect: String,
    packets: u64,
    bytes: u64,
}

impl From<&Count> for CounterRow {
    fn from(count: &Count) -> Self {
        Self {
            hook: count.hook.name(),
            verdict: count.verdict.name(),
            effect: format!("{:?}", count.verdict.effect()).to_lowercase(),
            packets: count.counter.packets,
            bytes: count.counter.bytes,
        }
    }
}

impl Row for CounterRow {
    fn header(_wide: bool) -> &'static [&'static str] {
        &["HOOK", "VERDICT", "EFFECT", "PACKETS", "BYTES"]
    }

    fn cells(&self, _wide: bool) -> Vec<String> {
        let (packets, bytes) = (self.packets.to_string(), self.bytes.to_string());
        vec![self.hook.to_owned(), self.verdict.to_owned(), self.effect.clone(), packets, bytes]
    }
}

fn dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

fn bracketed(address: &str) -> String {
    if address.contains(':') { format!("[{address}]") } else { address.to_owned() }
}

fn monotonic_ns() -> anyhow::Result<u64> {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)?;
    Ok(u64::try_from(now.tv_sec())? * 1_000_000_000 + u64::try_from(now.tv_nsec())?)
}
