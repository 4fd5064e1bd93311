//! `oddity check`: everything wrong with a configuration, and what its rules would match.

mod live;
mod show;

use crate::config::{Config, Problem};
use clap::ValueEnum;
use live::Matched;
use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Output for people or for programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

/// Options of `oddity check`.
#[derive(Clone, Debug, clap::Args)]
pub struct CheckArgs {
    /// The configuration file
    #[arg(value_name = "FILE", default_value = "rules.yaml")]
    pub file: PathBuf,
    /// Count the series each rule would match on this Prometheus, and the output series it would write,
    /// instead of showing each rule's settings
    #[arg(long, value_name = "URL")]
    pub prometheus: Option<String>,
    /// Output format
    #[arg(long, value_enum, default_value = "text")]
    pub format: Format,
}

/// Runs the command: exit code 0 where the file is valid (and Prometheus answered), else 1.
///
/// # Errors
/// The terminal cannot be written to, or no runtime can be started.
pub fn run(args: CheckArgs) -> anyhow::Result<ExitCode> {
    let file = args.file.display().to_string();
    let config = match Config::load(&args.file) {
        Ok(config) => config,
        Err(problems) => {
            match args.format {
                Format::Json => print(&json!({
                    "file": file, "valid": false, "problems": list(&problems.0), "notes": [],
                }))?,
                Format::Text => {
                    let mut err = std::io::stderr().lock();
                    writeln!(err, "{problems}")?;
                    let count = problems.0.len();
                    writeln!(err, "{file}: not valid: {count} problem{}", plural(count))?;
                }
            }
            return Ok(ExitCode::FAILURE);
        }
    };
    let matched = match &args.prometheus {
        None => None,
        Some(url) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            Some(runtime.block_on(live::count(url, &config.rules)).map_err(|error| format!("{url}: {error}")))
        }
    };
    let failed = matches!(matched, Some(Err(_)));
    match args.format {
        Format::Json => print(&describe(&file, &config, matched.as_ref()))?,
        Format::Text => {
            let mut err = std::io::stderr().lock();
            for note in &config.notes {
                writeln!(err, "warning: {note}")?;
            }
            let mut out = std::io::stdout().lock();
            let count = config.rules.rules.len();
            writeln!(out, "{file}: {count} rule{}, valid", plural(count))?;
            match &matched {
                None => writeln!(out, "\n{}", show::rules(&config.rules))?,
                // What matched is the question then; every setting of every rule would bury it.
                Some(Ok(matched)) => {
                    writeln!(out, "\n{}", show::examples(&config.rules, matched))?;
                    writeln!(out, "\n{}", show::matched(&config.rules, matched))?;
                }
                Some(Err(error)) => writeln!(err, "{error}")?,
            }
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

fn print(value: &Value) -> std::io::Result<()> {
    writeln!(std::io::stdout().lock(), "{value:#}")
}

fn list(problems: &[Problem]) -> Vec<Value> {
    let one = |p: &Problem| {
        json!({
            "file": p.file, "line": p.pos.line, "column": p.pos.column, "path": p.path, "message": p.message,
        })
    };
    problems.iter().map(one).collect()
}

fn describe(file: &str, config: &Config, matched: Option<&Result<Matched, String>>) -> Value {
    let mut rules: Vec<Value> = config.rules.rules.iter().map(|rule| json!(show::settings(rule))).collect();
    if let Some(Ok(matched)) = matched {
        for (value, count) in rules.iter_mut().zip(&matched.rules) {
            value["series"] = json!(count.series);
            value["examples"] = json!(count.examples);
            value["taken_by_earlier_rules"] = json!(count.earlier);
            value["output_series"] = json!(count.outputs);
        }
    }
    let targets: Vec<&str> = config.remote_write.iter().map(|target| target.http.name.as_str()).collect();
    let mut value = json!({
        "file": file, "valid": true, "problems": [], "notes": list(&config.notes),
        "listen": config.server.listen.to_string(), "targets": targets, "rules": rules,
    });
    if let Some(Err(error)) = matched {
        value["prometheus_error"] = json!(error);
    }
    value
}

#[cfg(test)]
mod tests;
