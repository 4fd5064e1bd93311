//! Fuzzing with a stable compiler: mutates the corpora, a fixed number of times.
//!
//!     cargo test --test fuzz -- [TARGET…] [--runs N] [--seed N] [--write-seeds]
//!
//! A failure leaves its input in `fuzz/artifacts/<target>/` and says how to repeat it. It does not see
//! what code is reached; cargo-fuzz and `fuzz/cover` do, with the same targets and corpora.
#![forbid(unsafe_code)]

mod mutate;
mod seeds;
#[path = "../targets/mod.rs"]
mod targets;

use mutate::Random;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;
use targets::Target;

/// Runs of a target, so that it takes a few seconds.
fn usual(target: &str) -> u64 {
    match target {
        "rules" => 1_500,
        "checkpoint" => 2_000,
        "log" => 5_000,
        "frames" => 20_000,
        "xor" => 200_000,
        _ => 80_000,
    }
}

/// Bytes of address space of the whole process.
const MEMORY: u64 = 4 << 30;

#[derive(Default)]
struct Options {
    only: Vec<String>,
    runs: Option<u64>,
    seed: Option<u64>,
    write: bool,
}

fn options() -> Result<Options, String> {
    let mut options = Options::default();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || {
            let value = args.next().and_then(|value| value.parse().ok());
            value.ok_or_else(|| format!("{arg} needs a number"))
        };
        match arg.as_str() {
            "--runs" => options.runs = Some(number()?),
            "--seed" => options.seed = Some(number()?),
            "--write-seeds" => options.write = true,
            // What a test harness is asked, it may be asked too.
            flag if flag.starts_with("--") => {}
            name if targets::ALL.iter().any(|(have, _)| *have == name) => options.only.push(name.into()),
            name => {
                let names: Vec<_> = targets::ALL.iter().map(|(name, _)| *name).collect();
                return Err(format!("there is no target {name:?}; there are {}", names.join(", ")));
            }
        }
    }
    Ok(options)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// The files of a corpus in the order of their names.
fn corpus(target: &str) -> std::io::Result<Vec<Vec<u8>>> {
    let mut paths: Vec<_> = std::fs::read_dir(root().join("corpus").join(target))?
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<_>>()?;
    paths.sort();
    paths.iter().map(std::fs::read).collect()
}

/// Whether the target takes these bytes. The panic is printed as it happens.
fn holds(target: Target, input: &[u8]) -> bool {
    catch_unwind(|| target(input)).is_ok()
}

fn fuzz(name: &str, target: Target, runs: u64, seed: u64) -> Result<(), String> {
    let corpus = corpus(name).map_err(|error| format!("its corpus: {error}"))?;
    if corpus.is_empty() {
        return Err("its corpus is empty".into());
    }
    // Should the process be ended, the last line says where.
    eprintln!("{name}: seed {seed}");
    let begun = Instant::now();
    let mut random = Random::new(seed);
    let failed = |input: &[u8], run: u64| {
        let folder = root().join("artifacts").join(name);
        let path = folder.join(format!("crash-{seed}-{run}"));
        let kept = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&path, input));
        let place = kept.map_or_else(|error| format!("not kept: {error}"), |()| path.display().to_string());
        format!(
            "run {run} fails ({} bytes: {place}); repeat: cargo test --test fuzz -- {name} --seed {seed}",
            input.len()
        )
    };
    for (number, input) in corpus.iter().enumerate() {
        if !holds(target, input) {
            return Err(format!("file {number} of its corpus fails"));
        }
    }
    for run in 0..runs {
        let input = mutate::mutated(&corpus, &mut random);
        if !holds(target, &input) {
            return Err(failed(&input, run));
        }
    }
    println!(
        "{name}: {runs} runs over {} inputs, seed {seed}, {:.1} s",
        corpus.len(),
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}

/// What takes more memory ends with a trace of where, rather than by the kernel's hand, with the machine's
/// other work in danger.
fn limit_memory() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let most = Some(MEMORY);
    if let Err(error) = setrlimit(Resource::As, Rlimit { current: most, maximum: most }) {
        eprintln!("fuzz: memory is not bounded: {error}");
    }
}

fn main() -> ExitCode {
    limit_memory();
    let options = match options() {
        Ok(options) => options,
        Err(why) => {
            eprintln!("fuzz: {why}");
            return ExitCode::from(2);
        }
    };
    if options.write {
        if let Err(error) = seeds::write(&root().join("corpus")) {
            eprintln!("fuzz: {error}");
            return ExitCode::FAILURE;
        }
        return ExitCode::SUCCESS;
    }
    let seed = options.seed.unwrap_or_else(|| {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        since.as_secs()
    });
    let mut failures = 0;
    for (name, target) in targets::ALL {
        if !options.only.is_empty() && !options.only.iter().any(|only| only == name) {
            continue;
        }
        if let Err(why) = fuzz(name, target, options.runs.unwrap_or_else(|| usual(name)), seed) {
            eprintln!("{name}: {why}");
            failures += 1;
        }
    }
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
