//! The usual `process_*` metrics, from `/proc`; absent where there is none.

use super::write::Writer;
use std::fmt;
use std::fs;

/// Clock ticks a second in `/proc`: fixed at 100 for user space on Linux.
const TICKS: f64 = 100.0;

struct Process {
    cpu_seconds: f64,
    resident_bytes: f64,
    start_seconds: f64,
}

fn read() -> Option<Process> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The command's name may hold anything; the fields after it start behind its last parenthesis.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let ticks = |i: usize| fields.get(i)?.parse::<f64>().ok();
    let boot = fs::read_to_string("/proc/stat")
        .ok()?
        .lines()
        .find_map(|line| line.strip_prefix("btime ")?.trim().parse::<f64>().ok())?;
    let resident = fs::read_to_string("/proc/self/status").ok()?.lines().find_map(|line| {
        line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()
    })?;
    Some(Process {
        cpu_seconds: (ticks(11)? + ticks(12)?) / TICKS,
        resident_bytes: resident * 1024.0,
        start_seconds: boot + ticks(19)? / TICKS,
    })
}

pub(super) fn write(out: &mut Writer<'_, '_>) -> fmt::Result {
    let Some(process) = read() else { return Ok(()) };
    out.counter("process_cpu_seconds", "User and system CPU time", process.cpu_seconds)?;
    out.gauge("process_resident_memory_bytes", "Resident memory", process.resident_bytes)?;
    out.gauge(
        "process_start_time_seconds",
        "Start of the process since the Unix epoch",
        process.start_seconds,
    )?;
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    // No limit at all is left out.
    if let Some(most) = files.current {
        out.gauge("process_max_fds", "Open file descriptors that there may be", most as f64)?;
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        out.gauge("process_open_fds", "Open file descriptors", open.count() as f64)?;
    }
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #[test]
    fn proc_is_read() {
        let process = super::read().expect("on Linux");
        assert!(process.resident_bytes > 1e6 && process.start_seconds > 1e9 && process.cpu_seconds >= 0.0);
    }
}
