//! `oddity serve`: the sidecar.

use super::{Usage, args};
use crate::api::{Control, ServerLimits};
use crate::app::{App, Options, Reloader};
use crate::config::{Config, load_web_config};
use crate::secure::{self, Door, Doors, DoorsConfig, descriptors};
use anyhow::Context;
use clap::{Args, ValueEnum};
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::LevelFilter;

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)] // the names say it
pub enum LogLevel {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

/// How it is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Options of `oddity serve`. Prometheus's names of flags are taken where it has the thing.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The configuration file
    #[arg(long, alias = "config.file", value_name = "FILE", default_value = "rules.yaml")]
    pub config: PathBuf,
    /// Where to listen instead of what the file says; may be repeated
    #[arg(long = "web.listen-address", alias = "listen", value_name = "ADDRESS", value_parser = args::listen)]
    pub listen: Vec<String>,
    /// Serve current scores at /metrics/anomalies
    #[arg(long = "web.enable-anomalies")]
    pub enable_anomalies: bool,
    /// TLS and basic authentication as Prometheus's own file has them, instead of server.tls and
    /// server.auth
    #[arg(long = "web.config.file", value_name = "FILE")]
    pub web_config: Option<PathBuf>,
    /// Threads that score; default: one a core
    #[arg(long, value_name = "N", value_parser = args::whole::<1, 1024, usize>)]
    pub workers: Option<usize>,
    /// Seconds to finish requests and deliver queued scores at shutdown
    #[arg(long = "shutdown-grace", value_name = "SECONDS", default_value_t = 15)]
    pub grace: u64,
    /// How much is logged
    #[arg(long = "log.level", value_enum, default_value = "info")]
    pub log_level: LogLevel,
    /// How it is logged, on stderr
    #[arg(long = "log.format", value_enum, default_value = "text")]
    pub log_format: LogFormat,
}

/// Runs the command until SIGTERM or SIGINT.
///
/// # Errors
/// A configuration that is not valid, an address that cannot be listened on.
pub fn run(args: ServeArgs) -> anyhow::Result<ExitCode> {
    start_log(args.log_level, args.log_format);
    if cfg!(debug_assertions)
        && let Ok(points) = std::env::var("ODDITY_FAIL")
    {
        crate::fail::arm_all(&points).map_err(Usage)?;
    }
    let config = match Config::load(&args.config) {
        Ok(config) => config,
        Err(problems) => {
            eprintln!("{problems}");
            return Ok(ExitCode::FAILURE);
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start")?;
    let result = runtime.block_on(serve(args, config));
    // Nothing of worth is left; a blocking task that hangs must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result.map(|()| ExitCode::SUCCESS)
}

async fn serve(args: ServeArgs, config: Config) -> anyhow::Result<()> {
    for note in &config.notes {
        tracing::info!("{note}");
    }
    let listens_elsewhere = !args.listen.is_empty();
    let addresses = match args.listen.is_empty() {
        true => vec![config.server.listen.to_string()],
        false => args.listen,
    };
    let defaults = Options::default();
    let web_config = args.web_config.map(|path| -> secure::Loader {
        Box::new(move || load_web_config(&path).map_err(|problems| lines(&problems)))
    });
    if web_config.is_some() && config.server.doors != DoorsConfig::default() {
        tracing::warn!("server.tls and server.auth have no effect: --web.config.file counts");
    }
    let connections = descriptors::connections(config.receive.max_connections);
    let path = args.config;
    let options = Options {
        lanes: args.workers.unwrap_or(defaults.lanes),
        anomalies_endpoint: args.enable_anomalies,
        listens_elsewhere,
        grace: Duration::from_secs(args.grace),
        server: ServerLimits { connections, ..defaults.server },
        loader: Some(Box::new(move || Config::load(&path).map_err(|problems| lines(&problems)))),
        web_config,
        ..defaults
    };
    let app = App::build(config, options)?;
    let mut listeners = Vec::new();
    for address in &addresses {
        let listener = args::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
        let local = listener.local_addr()?;
        tracing::info!(address = %local, tls = app.doors().tls().is_some(), "listening");
        if !local.ip().is_loopback() {
            warn_of_open_doors(&app.doors(), local);
        }
        listeners.push(listener);
    }
    // Caught from here on: a signal that came earlier has ended the process.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let hangups = tokio::spawn(reload_on_hangup(app.reloader())?);
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM"),
            _ = interrupt.recv() => tracing::info!("SIGINT"),
        }
    };
    app.run(listeners, shutdown).await;
    hangups.abort();
    Ok(())
}

fn lines(problems: &crate::config::Problems) -> Vec<String> {
    problems.to_string().lines().map(String::from).collect()
}

/// What an operator should know of an address that others reach.
fn warn_of_open_doors(doors: &Doors, address: SocketAddr) {
    if Door::ALL.into_iter().all(|door| !doors.is_guarded(door)) && !doors.asks_for_certificates() {
        tracing::warn!(%address, "there is no authentication: whoever reaches this address may write and read");
    } else if doors.tls().is_none() {
        tracing::warn!(%address, "there is no TLS: passwords and tokens cross the network in clear");
    }
}

fn reload_on_hangup(reloader: Arc<Reloader>) -> std::io::Result<impl Future<Output = ()> + Send> {
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        while hangup.recv().await.is_some() {
            let reloader = reloader.clone();
            // The outcome is logged where it is found out.
            if let Err(error) = tokio::task::spawn_blocking(move || reloader.reload().is_ok()).await {
                tracing::error!(%error, "the reload failed; this is a bug");
            }
        }
    })
}

fn start_log(level: LogLevel, format: LogFormat) {
    let level = match level {
        LogLevel::Trace => LevelFilter::TRACE,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    };
    let log = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .with_max_level(level);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}
