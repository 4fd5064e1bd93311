//! The program under test.

use super::process::Process;
use super::{free_port, http};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A running `oddity serve`.
pub struct Sidecar {
    /// The process.
    pub process: Process,
    /// `http://host:port`
    pub base: String,
    config: PathBuf,
}

impl Sidecar {
    /// Starts it in `dir` with this `rules.yaml` and waits until it is ready.
    pub fn start(dir: &Path, rules: &str, workers: usize) -> Sidecar {
        Self::start_with(dir, rules, workers, &["--log.level", "info"])
    }

    /// The same with more arguments.
    pub fn start_with(dir: &Path, rules: &str, workers: usize, more: &[&str]) -> Sidecar {
        std::fs::create_dir_all(dir).expect("its directory");
        let config = dir.join("rules.yaml");
        std::fs::write(&config, rules).expect("its configuration");
        let port = free_port();
        let mut command = Command::new(env!("CARGO_BIN_EXE_oddity"));
        command
            .current_dir(dir)
            .args(["serve", "--config"])
            .arg(&config)
            .arg("--web.listen-address")
            .arg(format!("127.0.0.1:{port}"))
            .args(["--workers", &workers.to_string()])
            .args(more);
        let mut process = Process::start("oddity", dir, &mut command);
        let base = format!("http://127.0.0.1:{port}");
        process.await_ready(&format!("{base}/-/ready"));
        Sidecar { process, base, config }
    }

    /// Where it takes remote write.
    pub fn write_url(&self) -> String {
        format!("{}/api/v1/write", self.base)
    }

    /// Replaces the rules; panics when the sidecar refuses them.
    pub fn reload(&self, rules: &str) {
        std::fs::write(&self.config, rules).expect("its configuration");
        let answer = http::request("POST", &format!("{}/-/reload", self.base), &[], b"").expect("an answer");
        assert_eq!(answer.status, 200, "reload: {}", answer.text());
    }

    /// Its own metrics page.
    pub fn metrics(&self) -> String {
        http::get(&format!("{}/metrics", self.base)).expect("its metrics").text()
    }

    /// The sum of all its own series of one name whose labels contain `part`.
    pub fn metric(&self, name: &str, part: &str) -> f64 {
        let metrics = self.metrics();
        let ours = metrics.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let rest = series.strip_prefix(name)?;
            let whole = rest.is_empty() || rest.starts_with('{');
            (whole && rest.contains(part)).then(|| value.parse::<f64>().ok()).flatten()
        });
        ours.sum()
    }
}
