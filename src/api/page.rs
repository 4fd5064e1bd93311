//! The status page: one self-contained HTML document. Whatever comes from outside is escaped.

use super::anomalies::short;
use super::status::TOP;
use super::{Anomaly, Api, now};
use crate::time::{Millis, Span};
use std::fmt::Write;
use std::sync::atomic::Ordering::Relaxed;

const HEAD: &str = r#"<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1"><meta http-equiv="refresh" content="15">
<title>oddity</title><style>
:root{color-scheme:light dark;--fg:#1c2430;--dim:#667085;--bg:#f6f7f9;--card:#fff;--line:#e3e6eb;--hot:#c2410c;--ok:#15803d}
@media(prefers-color-scheme:dark){:root{--fg:#e6e9ee;--dim:#98a2b3;--bg:#12161c;--card:#1b212a;--line:#2b333f;--hot:#fb923c;--ok:#4ade80}}
*{box-sizing:border-box}body{margin:0;font:15px/1.5 system-ui,sans-serif;color:var(--fg);background:var(--bg)}
main{max-width:1080px;margin:0 auto;padding:32px 20px 64px}h1{font-size:26px;margin:0}h2{font-size:16px;margin:32px 0 10px}
p.dim,.dim{color:var(--dim)}.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin-top:20px}
.card{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:12px 16px}.card b{display:block;font-size:22px;font-variant-numeric:tabular-nums}
.table{overflow-x:auto;background:var(--card);border:1px solid var(--line);border-radius:10px}table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:8px 14px;border-top:1px solid var(--line);vertical-align:top}tr:first-child th{border-top:0}th{font-weight:600;color:var(--dim);font-size:13px}
td.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}code{font:13px ui-monospace,monospace;overflow-wrap:anywhere}
.hot{color:var(--hot);font-weight:600}.ok{color:var(--ok);font-weight:600}a{color:inherit}
</style></head><body><main>"#;

/// The page.
pub fn html(api: &Api) -> String {
    let mut out = String::from(HEAD);
    // Writing to a String cannot fail.
    let _ = write(api, &mut out);
    out.push_str("</main></body></html>\n");
    out
}

fn write(api: &Api, out: &mut String) -> std::fmt::Result {
    let stats = api.engine.stats();
    let metrics = api.receiver.metrics();
    let (class, state) = if api.is_ready() { ("ok", "ready") } else { ("hot", "not ready") };
    write!(
        out,
        "<h1>oddity</h1><p class=dim>Anomaly detection for Prometheus: every sample that comes by remote write \
         is scored as it arrives, and the score is written back. Version {}, up {}, \
         <span class={class}>{state}</span>.</p>",
        escape(api.version),
        Span(now().since(api.started) / 1000 * 1000),
    )?;
    out.push_str("<div class=cards>");
    for (name, value) in [
        ("samples received", metrics.received.load(Relaxed)),
        ("samples scored", metrics.handled().get("scored").copied().unwrap_or(0)),
        ("flags", metrics.flagged.load(Relaxed)),
        ("series kept", stats.series),
        ("signals warming up", stats.warming),
        ("rules", api.engine.rules().rules.len() as u64),
        ("MB in models and indexes", stats.memory.total() / 1_000_000),
    ] {
        write!(out, "<div class=card><b>{value}</b><span class=dim>{name}</span></div>")?;
    }
    out.push_str("</div><h2>Newest anomalies</h2>");
    anomalies(&api.recent.newest(25), out)?;
    targets(api, out)?;
    cardinality(api, out)?;
    let notes = api.control.notes();
    if !notes.is_empty() {
        out.push_str("<h2>Notes</h2><ul>");
        for note in notes {
            write!(out, "<li>{}</li>", escape(&note))?;
        }
        out.push_str("</ul>");
    }
    out.push_str(
        "<h2>More</h2><p><a href=api/v1/status>status</a> · <a href=api/v1/series>series</a> · \
         <a href=api/v1/anomalies>anomalies</a> · <a href=api/v1/rules>rules</a> · <a href=metrics>metrics</a></p>",
    );
    Ok(())
}

fn anomalies(newest: &[Anomaly], out: &mut String) -> std::fmt::Result {
    if newest.is_empty() {
        out.push_str("<p class=dim>None since the start.</p>");
        return Ok(());
    }
    out.push_str(
        "<div class=table><table><tr><th>time</th><th>series</th><th>rule</th><th>score</th><th>why</th></tr>",
    );
    for anomaly in newest {
        write!(
            out,
            "<tr><td class=dim>{}</td><td><code>{}</code></td><td>{}</td><td class=\"n hot\">{}</td><td>{}</td></tr>",
            time(anomaly.at),
            escape(&anomaly.labels.to_string()),
            escape(&anomaly.rule),
            short(anomaly.score),
            escape(&anomaly.why()),
        )?;
    }
    out.push_str("</table></div>");
    Ok(())
}

fn targets(api: &Api, out: &mut String) -> std::fmt::Result {
    out.push_str("<h2>Remote write targets</h2>");
    let targets = api.emitter.snapshot();
    if targets.is_empty() {
        out.push_str("<p class=dim>None configured: scores stay here.</p>");
        return Ok(());
    }
    out.push_str("<div class=table><table><tr><th>target</th><th>state</th><th>samples written</th><th>waiting</th></tr>");
    for target in targets {
        write!(
            out,
            "<tr><td><code>{}</code></td><td class={}</td><td class=n>{}</td><td class=n>{}</td></tr>",
            escape(&target.target),
            if target.down { "hot>down" } else { "ok>up" },
            target.accepted,
            target.pending_samples,
        )?;
    }
    out.push_str("</table></div>");
    Ok(())
}

fn cardinality(api: &Api, out: &mut String) -> std::fmt::Result {
    let counts = api.engine.cardinality();
    let mut rules = counts.rules();
    rules.truncate(TOP);
    if rules.is_empty() {
        return Ok(());
    }
    out.push_str(
        "<h2>Most series</h2><div class=table><table><tr><th>rule</th><th>series kept</th><th>refused</th></tr>",
    );
    for count in rules {
        write!(
            out,
            "<tr><td>{}</td><td class=n>{}</td><td class=n>{}</td></tr>",
            escape(&count.rule),
            count.kept,
            count.refused_by_rule + count.refused_by_all,
        )?;
    }
    out.push_str("</table></div>");
    let metrics = [
        ("series kept", api.engine.largest_metrics(TOP)),
        ("times refused: over a limit of series", counts.refused(TOP)),
    ];
    for (what, all) in metrics.into_iter().filter(|(_, all)| !all.is_empty()) {
        write!(out, "<p></p><div class=table><table><tr><th>metric</th><th>{what}</th></tr>")?;
        for (metric, n) in all {
            write!(out, "<tr><td><code>{}</code></td><td class=n>{n}</td></tr>", escape(&metric))?;
        }
        out.push_str("</table></div>");
    }
    Ok(())
}

fn time(at: Millis) -> String {
    jiff::Timestamp::from_millisecond(at.0).map_or_else(|_| at.0.to_string(), |time| format!("{time:.0}"))
}

/// Text made harmless in HTML, in attributes too.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::current::tests::{output, rule};
    use crate::labels::NAME;

    #[test]
    fn label_values_cannot_inject_markup() {
        let output = output(&[(NAME, "up"), ("job", "<script>alert(1)</script>\"'")], 1_700_000_000_000, 2.0);
        let mut out = String::new();
        anomalies(&[Anomaly::of(&output, &rule()).expect("flagged")], &mut out).expect("writes");
        assert!(!out.contains("<script"), "{out}");
        assert!(out.contains("&lt;script&gt;") && out.contains("2023-11-14T22:13:20Z"), "{out}");
    }
}
