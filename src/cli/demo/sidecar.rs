//! The sidecar of the demo: the whole application in this process, behind a real socket.

use super::{Args, show::Show};
use crate::app::{App, Options};
use crate::cli::args;
use crate::config::{Config, ServerConfig};
use crate::detect::Direction;
use crate::emit::config::{HttpConfig, RemoteWriteConfig};
use crate::labels::{MatchOp, Matcher, NAME, Selector};
use crate::rules::{As, EmitSet, Rule, RuleSet};
use crate::time::Span;
use anyhow::Context;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Time to drain when the demo ends.
const GRACE: Duration = Duration::from_secs(5);

/// A running sidecar.
pub struct Sidecar {
    /// Its address, `http://host:port`.
    pub url: String,
    stop: oneshot::Sender<()>,
    running: JoinHandle<()>,
}

impl Sidecar {
    /// Stops it and waits until it has drained.
    pub async fn stop(self) -> anyhow::Result<()> {
        // It may have ended by itself; joining tells.
        let _ = self.stop.send(());
        self.running.await.context("the sidecar ended early")
    }
}

/// Starts it.
pub async fn start(args: &Args, show: &Show) -> anyhow::Result<Sidecar> {
    let listener = match args::bind(&args.listen).await {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            show.say(&format!("{} is in use; taking a free port", args.listen));
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("no free port")?
        }
        bound => bound.with_context(|| format!("cannot listen on {}", args.listen))?,
    };
    let address = listener.local_addr().context("the listener has no address")?;
    let config = config(address, args.remote_write.as_deref())?;
    let app = App::build(config, Options { grace: GRACE, ..Options::default() })?;
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(async move {
        let shutdown = async {
            // A dropped sender means stop as well.
            let _ = stopped.await;
        };
        app.run(vec![listener], shutdown).await;
    });
    Ok(Sidecar { url: format!("http://{address}"), stop, running })
}

fn config(listen: SocketAddr, target: Option<&str>) -> anyhow::Result<Config> {
    let rules = rules().map_err(|error| anyhow::anyhow!("the demo's rules: {error}"))?;
    let remote_write = target.map(|url| {
        let http = HttpConfig { name: "demo".into(), ..HttpConfig::plain(url, Span::seconds(30)) };
        RemoteWriteConfig::new(http)
    });
    Ok(Config {
        server: ServerConfig { listen, anomalies_endpoint: true, ..ServerConfig::default() },
        rules: Arc::new(rules),
        remote_write: remote_write.into_iter().collect(),
        ..Config::default()
    })
}

/// The demo's rules: errors and traffic as rates, the rest as it is.
fn rules() -> Result<RuleSet, String> {
    let selector = |name: &str, code: &str| -> Result<Selector, String> {
        let mut matchers = vec![Matcher::new(NAME, MatchOp::Regex, name)?];
        if !code.is_empty() {
            matchers.push(Matcher::new("code", MatchOp::Regex, code)?);
        }
        Ok(Selector { matchers })
    };
    let rule = |name: &str, selector: Selector, transform: As, direction: Direction| {
        let mut rule = Rule {
            transforms: vec![transform],
            emit: EmitSet { bands: true, ..EmitSet::default() },
            ..Rule::new(name, vec![selector])
        };
        rule.read.direction = direction;
        Arc::new(rule)
    };
    let workload = "http_request_latency_p99_seconds|worker_queue_depth|go_goroutines\
                    |container_(cpu_usage_cores|memory_working_set_bytes|fs_usage_bytes)";
    Ok(RuleSet {
        rules: vec![
            rule("errors", selector("http_requests_total", "5..")?, As::Rate, Direction::Up),
            rule("traffic", selector("(http|container)_.*_total", "")?, As::Rate, Direction::Both),
            rule("workload", selector(workload, "")?, As::Value, Direction::Both),
        ],
        ..RuleSet::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_take_what_the_fleet_has_to_show() {
        let rules = rules().expect("valid");
        let take = |name: &'static str, code: &'static str| {
            let get = |label: &str| match label {
                NAME => Some(name),
                "code" if !code.is_empty() => Some(code),
                _ => None,
            };
            rules.select(get).map(|rule| rules.rules[rule].name.clone())
        };
        assert_eq!(take("http_requests_total", "500").as_deref(), Some("errors"));
        assert_eq!(take("http_requests_total", "200").as_deref(), Some("traffic"));
        assert_eq!(take("container_network_receive_bytes_total", "").as_deref(), Some("traffic"));
        assert_eq!(take("container_cpu_usage_cores", "").as_deref(), Some("workload"));
        assert_eq!(take("process_max_fds", ""), None);
    }
}
