//! The cost of each program of the shipped object in the kernel's verifier: processed instructions, kept states, and
//! the time of a load.
//!
//! The verifier gives up after 1,000,000 processed instructions (`BPF_COMPLEXITY_LIMIT_INSNS`), and a later kernel
//! may explore more states of the same program. So the bar is half of that, on every kernel. The numbers come from
//! the verifier's own log (`BPF_LOG_STATS`), which aya only requests after a failed load: the programs are loaded
//! here by `bpf(2)`, from the object as aya prepares it. Maps are made for that, and removed when the process ends;
//! nothing is pinned or attached.

use std::fmt::Write as _;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::MapData;
use aya_obj::{EbpfSectionKind, Function, Object, ProgramSection};

use lbr_agent::dataplane::requirements;
use lbr_common::maps::config;

use crate::testrun::sys;

/// The most instructions that the verifier may process for one program, on any kernel.
pub const BAR: u64 = 500_000;

/// Room for the verifier's statistics, or its reason for a refusal.
const LOG: usize = 1 << 16;

/// The cost of one program in the verifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Name of the program.
    pub program: String,
    /// Instructions of the program as it is loaded.
    pub instructions: usize,
    /// Instructions that the verifier processed, on all paths together.
    pub processed: u64,
    /// States that it kept in total, and at once.
    pub states: (u64, u64),
    /// The whole load: verification and translation to machine code.
    pub took: Duration,
}

/// Loads each program once, and returns a table. An error if the kernel refuses one, or if one exceeds the bar.
pub fn run() -> Result<String> {
    let costs = costs(lbr_agent::dataplane::OBJECT)?;
    let above: Vec<&str> = costs.iter().filter(|c| c.processed > BAR).map(|c| c.program.as_str()).collect();
    let table = table(&costs);
    ensure!(above.is_empty(), "{table}\nabove the bar of {BAR} processed instructions: {}", above.join(", "));
    Ok(table)
}

/// The cost of each program of an object, sorted by name.
pub fn costs(object: &[u8]) -> Result<Vec<Cost>> {
    let features = aya::features();
    let mut object = Object::parse(object).context("read the kernel object")?;
    let abilities = requirements::check()?;
    let bits = abilities.bits().to_ne_bytes();
    object.patch_map_data([(config::ABILITIES, (bits.as_slice(), true))].into())?;
    let btf = match features.btf() {
        Some(btf) => object.fixup_and_sanitize_btf(btf)?.map(|btf| sys::load_btf(&btf.to_bytes())),
        None => None,
    };
    let btf = btf.transpose().context("load the object's BTF")?;
    let maps = object.maps.iter().map(|(name, map)| {
        let data = MapData::create(map.clone(), name, btf.as_ref().map(|fd| fd.as_fd()))
            .with_context(|| format!("make map {name}"))?;
        if map.section_kind() == EbpfSectionKind::Rodata {
            // The verifier takes frozen maps for constants, and skips code that they make unreachable.
            sys::fill_and_freeze(data.fd().as_fd(), map.data())
                .with_context(|| format!("fill map {name}"))?;
        }
        Ok((name.clone(), map.clone(), data))
    });
    let maps = maps.collect::<Result<Vec<_>>>()?;
    let text = object.functions.keys().map(|(section, _)| *section).collect();
    let fds = maps.iter().map(|(name, map, data)| (name.as_str(), data.fd().as_fd().as_raw_fd(), map));
    object.relocate_maps(fds, &text)?;
    object.relocate_calls(&text)?;
    object.sanitize_functions(features);
    let mut names: Vec<&String> = object.programs.keys().collect();
    names.sort();
    names
        .into_iter()
        // Like the agent.
        .filter(|name| abilities.xdp || !name.starts_with("xdp"))
        .map(|name| {
            let program = &object.programs[name];
            let function = object.functions.get(&program.function_key()).context("it has no code")?;
            cost(name, &program.section, function, btf.as_ref()).with_context(|| format!("program {name}"))
        })
        .collect()
}

fn cost(name: &str, section: &ProgramSection, function: &Function, btf: Option<&OwnedFd>) -> Result<Cost> {
    let (kind, attach, flags) = kind(section)?;
    let (funcs, lines) = (function.func_info.func_info_bytes(), function.line_info.line_info_bytes());
    let mut log = vec![0; LOG];
    let begin = Instant::now();
    let loaded = sys::load(&mut sys::Program {
        kind,
        attach,
        flags,
        name,
        instructions: &function.instructions,
        btf: btf.map(|fd| fd.as_fd()),
        funcs: (&funcs, function.func_info_rec_size),
        lines: (&lines, function.line_info_rec_size),
        log: &mut log,
    });
    let took = begin.elapsed();
    let end = log.iter().position(|&byte| byte == 0).unwrap_or(log.len());
    let said = String::from_utf8_lossy(&log[..end]).into_owned();
    loaded.with_context(|| format!("the kernel refuses it:\n{said}"))?;
    let (processed, states) =
        statistics(&said).with_context(|| format!("the verifier's log has no statistics:\n{said}"))?;
    Ok(Cost { program: name.to_owned(), instructions: function.instructions.len(), processed, states, took })
}

/// Type of a program, its expected attach type and its flags, as linux/bpf.h numbers them.
fn kind(section: &ProgramSection) -> Result<(u32, u32, u32)> {
    use aya_obj::generated::{BPF_F_XDP_HAS_FRAGS, bpf_attach_type, bpf_prog_type};
    Ok(match section {
        ProgramSection::SchedClassifier => (bpf_prog_type::BPF_PROG_TYPE_SCHED_CLS as u32, 0, 0),
        ProgramSection::Xdp { frags, .. } => (
            bpf_prog_type::BPF_PROG_TYPE_XDP as u32,
            bpf_attach_type::BPF_XDP as u32,
            if *frags { BPF_F_XDP_HAS_FRAGS } else { 0 },
        ),
        ProgramSection::CgroupSockAddr { attach_type, .. } => (
            bpf_prog_type::BPF_PROG_TYPE_CGROUP_SOCK_ADDR as u32,
            bpf_attach_type::from(*attach_type) as u32,
            0,
        ),
        other => bail!("a program in section {other:?}, which this benchmark does not know"),
    })
}

/// `processed 1234 insns (limit 1000000) max_states_per_insn 5 total_states 67 peak_states 8 mark_read 9`
fn statistics(log: &str) -> Option<(u64, (u64, u64))> {
    let words: Vec<&str> =
        log.lines().find(|line| line.starts_with("processed "))?.split_whitespace().collect();
    let after = |name: &str| words.get(words.iter().position(|word| *word == name)? + 1)?.parse().ok();
    Some((after("processed")?, (after("total_states")?, after("peak_states")?)))
}

fn table(costs: &[Cost]) -> String {
    let mut text = format!(
        "{:<14} {:>13} {:>11} {:>9} {:>12} {:>9}\n",
        "program", "instructions", "processed", "states", "most at once", "load"
    );
    let mut line = |name: &str, instructions: usize, processed: u64, states: (u64, u64), took: Duration| {
        let (total, peak) = states;
        let took = took.as_secs_f64() * 1000.0;
        let _ = writeln!(
            text,
            "{name:<14} {instructions:>13} {processed:>11} {total:>9} {peak:>12} {took:>6.1} ms"
        );
    };
    for cost in costs {
        line(&cost.program, cost.instructions, cost.processed, cost.states, cost.took);
    }
    let sum = |of: fn(&Cost) -> u64| costs.iter().map(of).sum::<u64>();
    let most = costs.iter().map(|cost| cost.states.1).max().unwrap_or(0);
    line(
        "all",
        costs.iter().map(|cost| cost.instructions).sum(),
        sum(|cost| cost.processed),
        (sum(|cost| cost.states.0), most),
        costs.iter().map(|cost| cost.took).sum(),
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_read_from_the_verifiers_log() {
        let log = "func#1 @12\nprocessed 44123 insns (limit 1000000) max_states_per_insn 12 total_states 2100 \
                   peak_states 700 mark_read 90\n";
        assert_eq!(statistics(log), Some((44_123, (2_100, 700))));
        assert_eq!(statistics("R2 type=mem expected=fp\n"), None);
    }
}
