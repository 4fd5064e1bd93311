//! What the figures are of: the machine, the day, the commit.

use std::process::Command;

/// Lines to stand above the figures.
pub fn lines() -> Vec<String> {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let date = jiff::Zoned::now().strftime("%Y-%m-%d").to_string();
    vec![
        format!("{cores} cores, {}; {}; {date}; {}", model(), memory(), commit()),
        "the load generator and the downstream share these cores with the server".to_string(),
    ]
}

fn model() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
    line.and_then(|line| line.split_once(':'))
        .map_or_else(|| "a CPU of unknown model".to_string(), |(_, name)| name.trim().to_string())
}

fn memory() -> String {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok());
    kib.map_or_else(|| "unknown memory".to_string(), |kib| format!("{:.0} GiB", kib / 1_048_576.0))
}

fn commit() -> String {
    let git = |args: &[&str]| {
        let out = Command::new("git").arg("-C").arg(env!("CARGO_MANIFEST_DIR")).args(args).output().ok()?;
        out.status.success().then(|| String::from_utf8_lossy(&out.stdout).trim().to_string())
    };
    let Some(commit) = git(&["rev-parse", "--short", "HEAD"]) else { return "no commit".to_string() };
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|all| !all.is_empty());
    format!("commit {commit}{}", if changed { " and changes" } else { "" })
}
