//! The peers: programs of other projects, fetched by `tests/run` into `.tools/peers/<suite>`.

use super::process::Process;
use super::store::Store;
use super::{free_port, http};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which Debian suite a program comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// The machine's own suite.
    Stable,
    /// The newest there is.
    Sid,
}

fn root(suite: Suite) -> PathBuf {
    let peers = match std::env::var_os("ODDITY_PEERS") {
        Some(dir) => PathBuf::from(dir),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/peers"),
    };
    peers.join(if suite == Suite::Stable { "stable" } else { "sid" })
}

/// A command for a peer's program. Panics when `tests/run peers` has not fetched it.
pub fn command(suite: Suite, program: &str) -> Command {
    let root = root(suite);
    let path = root.join("usr/bin").join(program);
    assert!(path.exists(), "{} is missing: run `tests/run peers` first", path.display());
    let mut command = Command::new(path);
    // Programs of the newer suite may need its newer libzstd.
    let libraries = std::fs::read_dir(root.join("usr/lib"))
        .map(|dirs| dirs.flatten().map(|dir| dir.path()).filter(|path| path.is_dir()).collect::<Vec<_>>());
    if let Ok(Ok(path)) = libraries.map(std::env::join_paths) {
        command.env("LD_LIBRARY_PATH", path);
    }
    command
}

/// A Prometheus that scrapes, evaluates rules, sends and receives.
pub struct Prometheus {
    /// The process.
    pub process: Process,
    /// Its API.
    pub store: Store,
    port: u16,
    suite: Suite,
    dir: PathBuf,
}

impl Prometheus {
    /// Starts it in `dir` with this configuration, as a receiver too.
    pub fn start(suite: Suite, dir: &Path, config: &str) -> Prometheus {
        std::fs::create_dir_all(dir).expect("its directory");
        std::fs::write(dir.join("prometheus.yml"), config).expect("its configuration");
        Self::launch(suite, dir, free_port())
    }

    /// Starts it on a port that the configuration already names.
    pub fn start_on(port: u16, suite: Suite, dir: &Path, config: &str) -> Prometheus {
        std::fs::create_dir_all(dir).expect("its directory");
        std::fs::write(dir.join("prometheus.yml"), config).expect("its configuration");
        Self::launch(suite, dir, port)
    }

    fn launch(suite: Suite, dir: &Path, port: u16) -> Prometheus {
        let mut command = command(suite, "prometheus");
        command
            .current_dir(dir)
            .arg(format!("--config.file={}", dir.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("tsdb").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .args(["--web.enable-remote-write-receiver", "--log.level=info"]);
        let mut process = Process::start("prometheus", dir, &mut command);
        process.await_ready(&format!("http://127.0.0.1:{port}/-/ready"));
        Prometheus { process, store: Store::new(port), port, suite, dir: dir.to_path_buf() }
    }

    /// Stops it; its data and its port stay.
    pub fn stop(&mut self) {
        self.process.stop();
    }

    /// Starts it again with the same data on the same port.
    pub fn restart(self) -> Prometheus {
        let Prometheus { process, port, suite, dir, .. } = self;
        drop(process);
        Self::launch(suite, &dir, port)
    }
}

/// A single-node VictoriaMetrics.
pub struct Victoria {
    _process: Process,
    /// Its Prometheus API.
    pub store: Store,
}

impl Victoria {
    /// Starts it in `dir`.
    pub fn start(suite: Suite, dir: &Path) -> Victoria {
        std::fs::create_dir_all(dir).expect("its directory");
        let port = free_port();
        let mut command = command(suite, "victoria-metrics");
        command
            .current_dir(dir)
            .arg(format!("-storageDataPath={}", dir.join("data").display()))
            .arg(format!("-httpListenAddr=127.0.0.1:{port}"))
            // New samples are hidden from queries for 30 s by default.
            .args(["-search.latencyOffset=0s", "-search.disableCache", "-memory.allowedBytes=256MB"]);
        let mut process = Process::start("victoria-metrics", dir, &mut command);
        process.await_ready(&format!("http://127.0.0.1:{port}/health"));
        Victoria { _process: process, store: Store::new(port) }
    }
}

/// Starts vmagent; it scrapes what `config` says and sends it to `url` as zstd.
pub fn vmagent(suite: Suite, dir: &Path, config: &str, url: &str) -> Process {
    std::fs::create_dir_all(dir).expect("its directory");
    std::fs::write(dir.join("scrape.yml"), config).expect("its configuration");
    let port = free_port();
    let mut command = command(suite, "vmagent");
    command
        .current_dir(dir)
        .arg(format!("-promscrape.config={}", dir.join("scrape.yml").display()))
        .arg(format!("-remoteWrite.url={url}"))
        .arg(format!("-remoteWrite.tmpDataPath={}", dir.join("queue").display()))
        .arg(format!("-httpListenAddr=127.0.0.1:{port}"))
        // Its own protocol is the zstd one; without this it might fall back in silence.
        .args([
            "-remoteWrite.forceVMProto=true",
            "-remoteWrite.flushInterval=500ms",
            "-memory.allowedBytes=256MB",
        ]);
    let mut process = Process::start("vmagent", dir, &mut command);
    process.await_ready(&format!("http://127.0.0.1:{port}/health"));
    process
}

/// Starts node_exporter; gives its address as `host:port`.
pub fn node_exporter(dir: &Path) -> (Process, String) {
    let address = format!("127.0.0.1:{}", free_port());
    let mut command = command(Suite::Stable, "prometheus-node-exporter");
    command.arg(format!("--web.listen-address={address}"));
    let mut process = Process::start("node-exporter", dir, &mut command);
    process.await_ready(&format!("http://{address}/"));
    (process, address)
}

/// A real Alertmanager.
pub struct Alertmanager {
    _process: Process,
    /// `host:port`
    pub address: String,
}

impl Alertmanager {
    /// Starts one that keeps alerts and notifies nobody.
    pub fn start(dir: &Path) -> Alertmanager {
        let address = format!("127.0.0.1:{}", free_port());
        let config = dir.join("alertmanager.yml");
        std::fs::write(&config, "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n").expect("config");
        let mut command = command(Suite::Stable, "prometheus-alertmanager");
        // Its template is looked for where it is started: see `peers` in tests/run.
        command
            .current_dir(root(Suite::Stable).join("usr/share/prometheus/alertmanager"))
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.path={}", dir.join("alertmanager").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--cluster.listen-address=");
        let mut process = Process::start("alertmanager", dir, &mut command);
        process.await_ready(&format!("http://{address}/-/ready"));
        Alertmanager { _process: process, address }
    }

    /// Labels of the alerts it holds.
    pub fn alerts(&self) -> Vec<super::store::Labels> {
        let answer = http::get(&format!("http://{}/api/v2/alerts", self.address)).expect("its API");
        let json: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
        let alerts = json.as_array().expect("a list of alerts");
        alerts.iter().map(|alert| super::store::labels(&alert["labels"])).collect()
    }
}
