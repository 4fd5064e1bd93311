//! Case 10: series that stop. One is missing from its page, one target is down, one is removed.

use crate::exposer::Exposer;
use crate::harness::peers::{Prometheus, Suite};
use crate::harness::sidecar::Sidecar;
use crate::harness::store::{Samples, Store};
use crate::harness::{free_port, temp_dir, wait_until};
use std::time::Duration;

const AFTER_MS: i64 = 60_000;
/// Scores before anything stops.
const SCORED: f64 = 10.0;

fn all(store: &Store, series: &str, job: &str) -> Samples {
    let found = store.samples(&format!("{series}{{job={job:?}}}[15m]"));
    assert!(found.len() < 2, "{series} of {job} is one series");
    found.into_iter().flat_map(|(_, samples)| samples).collect()
}

#[test]
fn a_series_that_stops_is_flagged_and_a_removed_target_is_not() {
    let home = temp_dir();
    let dir = home.path();
    let [hidden, down, removed] = [21, 22, 23].map(|seed| Exposer::start(seed, 4, false));
    let port = free_port();
    let rules = format!(
        r#"
remote_write: [{{url: "{}"}}]
rules:
- {{name: r, match: app_shift, min_samples: 12, silence: {{after: 1m}}}}
"#,
        Store::new(port).write_url()
    );
    let sidecar = Sidecar::start(&dir.join("oddity"), &rules, 2);
    let targets = dir.join("removed.json");
    std::fs::write(&targets, format!("[{{\"targets\": [\"{}\"]}}]", removed.address())).expect("targets");
    let config = format!(
        r#"
global: {{scrape_interval: 1s}}
scrape_configs:
- {{job_name: hidden, static_configs: [{{targets: ["{hidden}"]}}]}}
- {{job_name: down, static_configs: [{{targets: ["{down}"]}}]}}
- {{job_name: removed, file_sd_configs: [{{files: ["{targets}"], refresh_interval: 1s}}]}}
remote_write:
- url: "{url}"
  protobuf_message: io.prometheus.write.v2.Request
  queue_config: {{batch_send_deadline: 500ms}}
  write_relabel_configs: [{{source_labels: [__name__], regex: "up|app_.*", action: keep}}]
"#,
        hidden = hidden.address(),
        down = down.address(),
        targets = targets.display(),
        url = sidecar.write_url(),
    );
    let prometheus = Prometheus::start_on(port, Suite::Sid, &dir.join("prometheus"), &config);
    let store = &prometheus.store;
    for job in ["hidden", "down", "removed"] {
        wait_until(&format!("scores of {job}"), Duration::from_secs(90), || {
            let have = store.scalar(&format!("count_over_time(anomaly_score{{job={job:?}}}[15m])"));
            if have >= Some(SCORED) { Ok(()) } else { Err(format!("{have:?} scores")) }
        });
    }

    std::fs::write(&targets, "[]").expect("targets");
    wait_until("the removed target's end", Duration::from_secs(60), || {
        let left = store.scalar("count(app_shift{job=\"removed\"} or up{job=\"removed\"})");
        if left.is_none() { Ok(()) } else { Err(format!("{left:?} series left")) }
    });
    hidden.hide();
    drop(down);

    for job in ["hidden", "down"] {
        // One to two minutes after it was due; and once more.
        wait_until(&format!("the silence of {job}"), Duration::from_secs(330), || {
            let last = all(store, "app_shift", job).last().copied().ok_or("no sample")?;
            let told = |series: &str| -> Samples {
                all(store, series, job).into_iter().filter(|(at, _)| *at > last.0).collect()
            };
            let (flags, scores) = (told("anomaly_flag"), told("anomaly_score"));
            if flags.len() < 2 || scores.len() < 2 {
                return Err(format!("{} flags, {} scores", flags.len(), scores.len()));
            }
            assert_eq!(flags[0], (last.0 + AFTER_MS, 1.0), "the first flag of {job}");
            assert_eq!(flags[1], (last.0 + 2 * AFTER_MS, 1.0), "the second flag of {job}");
            assert_eq!(scores[0].1, 1.0);
            assert!(scores[1].1 > 1.5 && scores[1].1 < 2.0, "1 + ln 2: {scores:?}");
            Ok(())
        });
    }
    let up = |job: &str| store.scalar(&format!("up{{job={job:?}}}"));
    assert_eq!((up("hidden"), up("down"), up("removed")), (Some(1.0), Some(0.0), None));

    // It stopped before the others, so it would have been told before them.
    let last = all(store, "app_shift", "removed").last().map(|sample| sample.0).expect("samples");
    let flags = all(store, "anomaly_flag", "removed");
    assert!(flags.iter().all(|(at, _)| *at <= last), "a removed target is no silence: {flags:?}");
    assert!(sidecar.metric("oddity_flags_total", "rule=\"r\"") >= 4.0);
}
