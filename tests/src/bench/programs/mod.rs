//! The cost of each program for a packet, by the packet's path: the shipped object by `BPF_PROG_TEST_RUN`, with maps
//! that the real compiler and reconciler filled.
//!
//! A repeated test run does not make the packet anew: it sees the packet that the previous run rewrote. So there are
//! two figures. *One run*: each packet is a call of its own, and the median counts; the caches hold what the system
//! call left of them. *In a row*: thousands of runs in one call, for packets that a program leaves unchanged; the
//! caches hold everything. The cost of an empty program in the same mode (clock, and call of the program) is
//! subtracted from both. Neither includes the kernel's work afterwards: a redirect is only requested.

pub(super) mod node;
mod ways;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};
use lbr_common::verdict::Hook;

use self::node::Node;
use self::ways::{Packets, Way};
use super::report::Summary;
use super::rounds::progress;
use crate::interrupt;
use crate::testrun::{Action, Empty, Ran};

/// Single runs of each way in a round.
const SINGLE: u16 = 200;
/// Runs in a row in a round.
const ROW: u32 = 20_000;

/// The result of one path in a round, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Times {
    single: f64,
    row: Option<f64>,
}

/// All rounds of one path.
#[derive(Default)]
struct Found {
    single: Vec<f64>,
    row: Vec<f64>,
}

/// Measures, and returns a table.
pub fn run(rounds: usize) -> Result<String> {
    ensure!(rounds > 0, "at least one round is needed");
    let mut node = Node::set_up()?;
    let empty = [Empty::load(Hook::FromNetdev)?, Empty::load(Hook::Xdp)?];
    let ways = ways::all(&mut node)?;
    let (mut nothing, mut found) = ([Found::default(), Found::default()], BTreeMap::<usize, Found>::new());
    for round in 0..rounds {
        progress(&format!("round {} of {rounds}", round + 1));
        let bases = [time_empty(&empty[0], &node)?, time_empty(&empty[1], &node)?];
        for (nothing, base) in nothing.iter_mut().zip(bases) {
            nothing.single.push(base.single);
            nothing.row.extend(base.row);
        }
        for step in 0..ways.len() {
            interrupt::check()?;
            let which = (step + round) % ways.len();
            let way = &ways[which];
            let times = time(way, &mut node)
                .with_context(|| format!("{}, {}, {}", way.hook.name(), way.name, way.family()))?
                .less(bases[usize::from(way.hook == Hook::Xdp)]);
            let all = found.entry(which).or_default();
            all.single.push(times.single);
            all.row.extend(times.row);
        }
    }
    progress("");
    Ok(table(&ways, &nothing, &found))
}

impl Times {
    /// Without the cost of an empty program.
    fn less(self, base: Self) -> Self {
        let row = self.row.zip(base.row).map(|(own, base)| own - base);
        Self { single: self.single - base.single, row }
    }
}

fn time_empty(empty: &Empty, node: &Node) -> Result<Times> {
    let (link, packet) = (node.links().uplink, [0; 64]);
    let single = || Ok(empty.time(link, &packet, 1)?.as_nanos() as f64);
    let singles = (0..SINGLE).map(|_| single()).collect::<Result<Vec<_>>>()?;
    let row = empty.time(link, &packet, ROW)?.as_nanos() as f64;
    Ok(Times { single: Summary::of(&singles).median, row: Some(row) })
}

fn time(way: &Way, node: &mut Node) -> Result<Times> {
    node.forget_flows()?;
    for step in &way.before {
        let ran = node.programs.run_at(step.hook, step.link, step.entered_by, &step.packet)?;
        ensure!(ran.action != Action::Drop, "before it: {:?}", ran.verdict);
    }
    let first = way.packets.number(0);
    if !way.before.is_empty() {
        // The state for most packets: after the handshake, and not the first packet of its direction.
        node.programs.flows.establish()?;
        let hook = if way.hook == Hook::Xdp { Hook::FromNetdev } else { way.hook };
        node.programs.run_at(hook, way.link, way.entered_by, &first)?;
    }
    let ran = check(way, node, &first)?;
    let mut singles = Vec::new();
    for number in 1..=SINGLE {
        let packet = way.packets.number(number);
        let time = node.programs.time_at(way.hook, way.link, way.entered_by, &packet, 1)?;
        singles.push(time.as_nanos() as f64);
    }
    check(way, node, &way.packets.number(SINGLE + 1))?;
    let row = match way.packets {
        Packets::Same(ref packet) if ran.packet == *packet => {
            let time = node.programs.time_at(way.hook, way.link, way.entered_by, packet, ROW)?;
            Some(time.as_nanos() as f64)
        }
        _ => None,
    };
    Ok(Times { single: Summary::of(&singles).median, row })
}

/// Checks that the path has the expected verdict.
fn check(way: &Way, node: &mut Node, packet: &[u8]) -> Result<Ran> {
    let ran = node.programs.run_at(way.hook, way.link, way.entered_by, packet)?;
    ensure!(ran.verdict == way.verdict, "{:?} in place of {:?}", ran.verdict, way.verdict);
    Ok(ran)
}

fn table(ways: &[Way], nothing: &[Found; 2], found: &BTreeMap<usize, Found>) -> String {
    let mut text = format!(
        "{:<12} {:<46} {:<6} {:>10}  {:<15} {:>10}  {}\n",
        "program", "a packet", "family", "one run", "lowest..highest", "in a row", "lowest..highest"
    );
    let mut line = |program: &str, name: &str, family: &str, found: &Found| {
        let _ = write!(text, "{program:<12} {name:<46} {family:<6} {}", cell(&found.single));
        if !found.row.is_empty() {
            let _ = write!(text, " {}", cell(&found.row));
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    };
    line("(empty)", "taken off from all others, at tc", "", &nothing[0]);
    line("(empty)", "taken off from all others, at XDP", "", &nothing[1]);
    for (which, way) in ways.iter().enumerate() {
        if let Some(found) = found.get(&which) {
            line(way.hook.name(), way.name, way.family(), found);
        }
    }
    text.push_str(
        "\nIn a row: only where the packet stays as it is, since a test run that repeats does not make it anew.\nThe \
         socket programs are not listed: the kernel has no test run for programs of cgroups.\n",
    );
    text
}

/// Median and range.
fn cell(times: &[f64]) -> String {
    let Summary { median, min, max } = Summary::of(times);
    format!("{:>7.0} ns  {:<15}", median, format!("{min:.0}..{max:.0}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_program_is_taken_off_from_both_figures() {
        let base = Times { single: 100.0, row: Some(5.0) };
        let own = Times { single: 400.0, row: Some(60.0) };
        assert_eq!(own.less(base), Times { single: 300.0, row: Some(55.0) });
        assert_eq!(Times { row: None, ..own }.less(base).row, None);
    }

    #[test]
    fn a_cell_has_median_and_range() {
        assert_eq!(cell(&[3.0, 1.0, 10.0]).trim_end(), "      3 ns  1..10");
    }
}
