//! The server: the release binary with a configuration in a temporary folder.

use crate::Emit;
use anyhow::{Context, bail};
use oddity::simulate::{Usage, usage_of};
use serde_json::Value;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long it may take to be ready, and to answer.
const PATIENCE: Duration = Duration::from_secs(120);
/// Bytes shown of what it said when it died.
const SAID: usize = 4_000;

/// What differs between configurations.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Where scores go.
    pub downstream: SocketAddr,
    /// Which are written.
    pub emit: Emit,
    /// `state.forget_after`
    pub forget_after: &'static str,
    /// `limits.max_series`
    pub max_series: usize,
}

/// A running server; killed when dropped.
pub struct Server {
    child: Child,
    folder: tempfile::TempDir,
    address: SocketAddr,
    /// What the process used before the first request.
    pub empty: Usage,
}

impl Server {
    /// Starts it and waits until it is ready.
    pub fn start(setup: &Setup) -> anyhow::Result<Server> {
        let folder = tempfile::Builder::new().prefix("oddity-load-").tempdir()?;
        // Free when it was asked for; nobody else is expected to take it in between.
        let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr())?;
        let config = folder.path().join("rules.yaml");
        std::fs::write(&config, text(address, setup))?;
        let said = File::create(folder.path().join("stderr")).context("the temporary folder")?;
        let child = Command::new(env!("CARGO_BIN_EXE_oddity"))
            .args(["serve", "--log.level", "warn", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said)
            .spawn()
            .context("cannot start the server")?;
        let empty = Usage { cpu_seconds: 0.0, resident_bytes: 0.0 };
        let mut server = Server { child, folder, address, empty };
        let began = Instant::now();
        loop {
            match server.ask("GET", "/-/ready") {
                Ok(_) => break,
                Err(error) if began.elapsed() > PATIENCE => return Err(error.context(server.said())),
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
            server.alive()?;
        }
        server.empty = usage_of(server.pid())?;
        Ok(server)
    }

    /// Puts another configuration in force.
    pub fn reload(&mut self, setup: &Setup) -> anyhow::Result<()> {
        std::fs::write(self.folder.path().join("rules.yaml"), text(self.address, setup))?;
        self.ask("POST", "/-/reload").map(drop).context("the reload was refused")
    }

    /// Where samples go.
    pub fn url(&self) -> String {
        format!("http://{}/api/v1/write", self.address)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// CPU time and memory so far.
    pub fn usage(&self) -> anyhow::Result<Usage> {
        Ok(usage_of(self.pid())?)
    }

    /// `/api/v1/status`.
    pub fn status(&mut self) -> anyhow::Result<Value> {
        let mut all: Value = serde_json::from_str(&self.ask("GET", "/api/v1/status")?)?;
        Ok(all["data"].take())
    }

    /// A metric without labels of `/metrics`.
    pub fn metric(&mut self, name: &str) -> anyhow::Result<f64> {
        let page = self.ask("GET", "/metrics")?;
        let line = page.lines().find(|line| line.split(' ').next() == Some(name));
        let value = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
        value.with_context(|| format!("/metrics has no {name}"))
    }

    /// Fails, with what it said, where the server has died.
    pub fn alive(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("the server died: {status}\n{}", self.said()),
            None => Ok(()),
        }
    }

    /// The end of what it wrote to stderr.
    pub fn said(&self) -> String {
        let said = std::fs::read(self.folder.path().join("stderr")).unwrap_or_default();
        let from = said.len().saturating_sub(SAID);
        format!("the server's stderr:\n{}", String::from_utf8_lossy(&said[from..]))
    }

    /// One exchange over a connection of its own; the body of a 200.
    fn ask(&mut self, method: &str, path: &str) -> anyhow::Result<String> {
        let exchange = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(self.address)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let head = format!("{method} {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n");
            stream.write_all(format!("{head}Content-Length: 0\r\n\r\n").as_bytes())?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer)?;
            Ok(String::from_utf8_lossy(&answer).into_owned())
        };
        let answer = exchange().with_context(|| format!("{method} {path}"))?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
        if !head.starts_with("HTTP/1.1 200 ") {
            bail!("{method} {path}: {} {}", head.lines().next().unwrap_or_default(), body.trim());
        }
        if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
            bail!("{method} {path}: the answer is in chunks, which are not read here");
        }
        Ok(body.to_string())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have died; there is nothing to save of it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The configuration: everything at its default but what a measurement needs.
fn text(address: SocketAddr, setup: &Setup) -> String {
    let Setup { downstream, emit, forget_after, max_series } = setup;
    let more = match emit {
        Emit::None => "    emit: []\n",
        Emit::Changed => "    emit_when: changed\n",
        Emit::Always => "",
    };
    format!(
        "server: {{listen: \"{address}\"}}\n\
         state: {{dir: data, forget_after: {forget_after}}}\n\
         limits: {{max_series: {max_series}, max_aliases: {}}}\n\
         remote_write: [{{url: \"http://{downstream}/api/v1/write\", name: sink}}]\n\
         rules:\n  - name: fleet\n    match: '{{__name__!=\"\"}}'\n{more}",
        4 * max_series
    )
}
