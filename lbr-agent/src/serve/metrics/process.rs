//! Resource usage of the agent, by the names of Go's client.

use std::fs;
use std::time::{Duration, SystemTime};

use nix::unistd::{SysconfVar, sysconf};
use prometheus::proto::MetricFamily;

use super::family::{counter, gauge, number, one};

/// The metrics that `/proc` has values for.
pub(super) fn families() -> Vec<MetricFamily> {
    let mut families = Vec::new();
    if let Some(process) = Process::read() {
        families.extend([
            counter(
                "process_cpu_seconds_total",
                "CPU time used, user and system.",
                one(process.cpu.as_secs_f64()),
            ),
            gauge("process_resident_memory_bytes", "Resident memory.", one(number(process.resident))),
            gauge("process_virtual_memory_bytes", "Virtual memory.", one(number(process.virtual_size))),
            gauge(
                "process_start_time_seconds",
                "When the process started.",
                one(process.start.as_secs_f64()),
            ),
        ]);
    }
    if let Ok(fds) = fs::read_dir("/proc/self/fd") {
        // Without the descriptor of this folder.
        let open = fds.count().saturating_sub(1);
        families.push(gauge("process_open_fds", "Open file descriptors.", one(number(open as u64))));
    }
    families
}

struct Process {
    cpu: Duration,
    resident: u64,
    virtual_size: u64,
    /// Since 1970.
    start: Duration,
}

impl Process {
    fn read() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        let uptime = fs::read_to_string("/proc/uptime").ok()?;
        let number_of = |name| sysconf(name).ok().flatten().and_then(|n| u64::try_from(n).ok());
        let tick = number_of(SysconfVar::CLK_TCK).filter(|&n| n > 0)?;
        let up = uptime.split_whitespace().next()?.parse().ok()?;
        let booted = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .ok()?
            .checked_sub(Duration::try_from_secs_f64(up).ok()?)?;
        Self::parse(&stat, tick, number_of(SysconfVar::PAGE_SIZE)?, booted)
    }

    /// Parses proc_pid_stat(5). The second field may contain anything, and ends at the last `)`.
    fn parse(stat: &str, tick: u64, page: u64, booted: Duration) -> Option<Self> {
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        // The man page counts from 1, and `fields` begins with the third.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let ticks = |count: u64| Duration::from_millis(count * 1000 / tick);
        Some(Self {
            cpu: ticks(field(14)? + field(15)?),
            start: booted + ticks(field(22)?),
            virtual_size: field(23)?,
            resident: field(24)? * page,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_stat() {
        let stat = "7 (a) b) (c) S 1 7 7 0 -1 4194560 1 2 3 4 150 75 8 9 20 0 3 0 1234 99000 55 184467";
        let process = Process::parse(stat, 100, 4096, Duration::from_secs(1000)).unwrap();
        assert_eq!(process.cpu, Duration::from_millis(2250));
        assert_eq!(process.start, Duration::from_millis(1_012_340));
        assert_eq!((process.virtual_size, process.resident), (99000, 55 * 4096));
        assert!(Process::parse("7 (x) S 1", 100, 4096, Duration::ZERO).is_none());
    }

    #[test]
    fn this_process() {
        let process = Process::read().unwrap();
        assert!(process.resident > 1 << 20 && process.virtual_size >= process.resident);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        assert!(
            process.start <= now + Duration::from_secs(1)
                && now < process.start + Duration::from_secs(86_400)
        );
        assert_eq!(families().len(), 5);
    }
}
