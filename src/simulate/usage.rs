//! What a server's process has used: CPU time and memory.

use super::SimulateError;
use super::sender::Sender;

/// Clock ticks a second in `/proc/<pid>/stat`: fixed at 100 for user space on Linux.
const TICKS: f64 = 100.0;
/// Longest page read from the server's `/metrics`.
const METRICS_LIMIT: usize = 16 << 20;

/// CPU and memory a process has used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// User and system time, seconds.
    pub cpu_seconds: f64,
    /// Resident memory, bytes.
    pub resident_bytes: f64,
}

/// Reads a process's usage from `/proc`.
///
/// # Errors
/// The process does not exist, or this is not Linux.
pub fn usage_of(pid: u32) -> Result<Usage, SimulateError> {
    let read = |name: &str| {
        let path = format!("/proc/{pid}/{name}");
        std::fs::read_to_string(&path).map_err(|error| SimulateError::Usage(format!("{path}: {error}")))
    };
    parse_proc(&read("stat")?, &read("status")?)
        .ok_or_else(|| SimulateError::Usage(format!("/proc/{pid} is not as expected")))
}

/// CPU from `stat`, memory from `status`.
fn parse_proc(stat: &str, status: &str) -> Option<Usage> {
    // The command's name may hold spaces and brackets: fields are counted after the last one.
    let fields: Vec<&str> = stat.get(stat.rfind(')')? + 1..)?.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(Usage { cpu_seconds: ticks / TICKS, resident_bytes: kib * 1024.0 })
}

/// The same from a page of `/metrics`.
fn parse_metrics(page: &str) -> Option<Usage> {
    let value = |name: &str| {
        let line = page.lines().find(|line| line.split([' ', '{']).next() == Some(name))?;
        line.rsplit(' ').next()?.parse::<f64>().ok()
    };
    Some(Usage {
        cpu_seconds: value("process_cpu_seconds_total")?,
        resident_bytes: value("process_resident_memory_bytes")?,
    })
}

/// The usage of a server: of its process, or as its `/metrics` tells.
///
/// # Errors
/// Neither can be read.
pub(super) async fn usage(sender: &Sender, pid: Option<u32>) -> Result<Usage, SimulateError> {
    match pid {
        Some(pid) => usage_of(pid),
        None => parse_metrics(&sender.get("/metrics", METRICS_LIMIT).await?).ok_or_else(|| {
            SimulateError::Usage("its /metrics has no process_* metrics; give --server-pid".into())
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_read_from_proc_and_from_metrics() {
        let stat = "42 (a (b) c) S 1 42 42 0 -1 4194560 100 0 0 0 250 150 0 0 20 0 4 0 100 1000000 500";
        let status = "Name:\tx\nVmRSS:\t    2048 kB\nThreads:\t4\n";
        let expected = Usage { cpu_seconds: 4.0, resident_bytes: 2_097_152.0 };
        assert_eq!(parse_proc(stat, status), Some(expected));
        let page = "# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total 4\n\
                    process_resident_memory_bytes 2.097152e+06\n";
        assert_eq!(parse_metrics(page), Some(expected));
        assert_eq!(parse_metrics("process_cpu_seconds_total 4\n"), None);
        assert_eq!(parse_proc("", ""), None);
    }
}
