//! The history of a query from a Prometheus.

use super::super::Usage;
use super::super::simulate::{now, progress};
use super::Args;
use crate::backtest::csv::parse_time;
use crate::history::{Client, History, Query, prometheus};
use crate::time::{Millis, Span};
use anyhow::Context;

/// A time on the command line: a timestamp, or a duration before `from`.
fn time(text: &str, from: Millis) -> Result<Millis, String> {
    match Span::parse(text) {
        Ok(before) => Ok(from.plus(-before.0)),
        Err(_) => parse_time(text)
            .map_err(|_| "expected a duration such as 7d, Unix seconds or milliseconds, or RFC 3339".into()),
    }
}

/// Fetches it, with a bar on stderr.
pub(super) fn fetch(args: &Args, promql: &str) -> anyhow::Result<History> {
    let Some(url) = &args.prometheus else {
        return Err(
            Usage("--query needs --prometheus URL, or PROMETHEUS_URL in the environment".into()).into()
        );
    };
    let wrong = |flag: &str| {
        let flag = flag.to_string();
        move |what: String| Usage(format!("{flag}: {what}"))
    };
    let end = time(&args.end, now()).map_err(wrong("--end"))?;
    let start = time(&args.start, end).map_err(wrong("--start"))?;
    let name = args.metric.clone();
    let query = Query { promql: promql.into(), start, end, step: args.step, name };
    let client = Client::new(url).context("--prometheus")?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let bar = progress(Some(100), "fetch {elapsed_precise} {wide_bar} {percent} % {msg}");
    let history = runtime.block_on(prometheus::fetch(&client, &query, &mut |fetched| {
        bar.set_position((100.0 * fetched.done as f64 / fetched.of as f64) as u64);
        bar.set_message(format!("{} samples", fetched.samples));
    }));
    bar.finish_and_clear();
    let history = history.context(url.trim_end_matches('/').to_string())?;
    anyhow::ensure!(
        !history.series.is_empty(),
        "{url}: the query gives no sample between {} and {} (Unix ms)",
        start.0,
        end.0
    );
    Ok(history)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_timestamps_or_durations_before() {
        let from = Millis(1_700_000_000_000);
        for (text, ms) in [
            ("7d", from.0 - 604_800_000),
            ("0", from.0),
            ("1h30m", from.0 - 5_400_000),
            ("1600000000", 1_600_000_000_000),
            ("2020-09-13T12:26:40Z", 1_600_000_000_000),
        ] {
            assert_eq!(time(text, from), Ok(Millis(ms)), "{text}");
        }
        assert!(time("yesterday", from).is_err_and(|what| what.contains("7d")));
    }
}
