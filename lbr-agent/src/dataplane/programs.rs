//! Loads the programs of the object into the kernel: all of them before the first is attached, so that a kernel that
//! refuses one leaves everything as it was.

use std::sync::Mutex;
use std::time::Instant;

use anyhow::bail;
use aya::Ebpf;
use aya::programs::{Program, ProgramError};
use nix::sys::signal::SigSet;

/// A program that the kernel refuses, and why.
pub(super) type Refused = (String, anyhow::Error);

/// Loads these programs, on all CPUs at once: the kernel's verifier works on each by itself. Returns those that the
/// kernel refuses, ordered by name.
pub(super) fn load(ebpf: &mut Ebpf, wanted: impl Fn(&str, &Program) -> bool) -> Vec<Refused> {
    let begin = Instant::now();
    let mut programs: Vec<(&str, &mut Program)> =
        ebpf.programs_mut().filter(|(name, program)| wanted(name, program)).collect();
    let count = programs.len();
    // The last are taken first, so those that take longest go to the end.
    programs.sort_by_key(|(name, _)| (effort(name), *name));
    let (left, failed) = (Mutex::new(programs), Mutex::new(Vec::new()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(count);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| load_some(&left, &failed));
        }
    });
    let mut failed = failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    failed.sort_by(|(a, _), (b, _)| a.cmp(b));
    tracing::debug!("{} of {count} programs loaded in {:?}", count - failed.len(), begin.elapsed());
    failed
}

/// The programs that are left, and those that failed.
type Left<'a, 'b> = Mutex<Vec<(&'a str, &'b mut Program)>>;
type Failed = Mutex<Vec<Refused>>;

fn load_some(left: &Left<'_, '_>, failed: &Failed) {
    // Any signal to this thread would stop the verifier (EAGAIN) and cost all of its work. The main thread takes the
    // signals.
    if let Err(error) = SigSet::all().thread_block() {
        tracing::debug!("block signals: {error}");
    }
    loop {
        let next = left.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop();
        let Some((name, program)) = next else { return };
        if let Err(error) = load_one(program) {
            let mut failed = failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            failed.push((name.to_owned(), error));
        }
    }
}

fn load_one(program: &mut Program) -> anyhow::Result<()> {
    let loaded = match program {
        Program::SchedClassifier(program) => program.load(),
        Program::Xdp(program) => program.load(),
        Program::CgroupSockAddr(program) => program.load(),
        other => bail!("its type is {:?}, which lbr does not know", other.prog_type()),
    };
    loaded.map_err(|error| match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let why = reason(&verifier_log.to_string());
            let error = anyhow::Error::new(io_error);
            if why.is_empty() { error } else { error.context(format!("the verifier says: {why}")) }
        }
        other => other.into(),
    })
}

/// The verifier's reason, without its statistics.
fn reason(log: &str) -> String {
    const STATISTICS: [&str; 4] = ["verification time", "stack depth", "processed ", "insns processed"];
    let lines = log.lines().map(str::trim).filter(|line| !line.is_empty());
    let lines: Vec<&str> = lines.filter(|line| !STATISTICS.iter().any(|s| line.starts_with(s))).collect();
    // The reason is at the end; before it the verifier may list the instructions that it checked.
    lines[lines.len().saturating_sub(3)..].join("; ")
}

/// How long the verifier takes for a program, as a rank.
fn effort(name: &str) -> u8 {
    match name {
        "from_netdev" => 4,
        "from_pod" => 3,
        "to_pod" => 2,
        "to_netdev" => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifiers_last_words_are_the_reason() {
        let log = "\nR2 type=mem expected=fp, pkt, map_key, map_value\nverification time 10 usec\n\
                   stack depth 32+8\nprocessed 53 insns (limit 1000000) max_states_per_insn 0\n";
        assert_eq!(reason(log), "R2 type=mem expected=fp, pkt, map_key, map_value");
        assert_eq!(reason("a\nb\nc\nd\n"), "b; c; d");
        assert_eq!(reason(""), "");
    }
}
