//! Case 2: what is already in the field: Debian's own Prometheus over 1.0 and vmagent over zstd as
//! senders, VictoriaMetrics as the target.

use crate::exposer::Exposer;
use crate::harness::peers::{Prometheus, Suite, Victoria, vmagent};
use crate::harness::sidecar::Sidecar;
use crate::harness::{temp_dir, wait_until};
use std::time::Duration;

#[test]
fn prometheus_2_and_vmagent_into_victoria_metrics() {
    let home = temp_dir();
    let dir = home.path();
    let victoria = Victoria::start(Suite::Sid, &dir.join("victoria"));
    let store = &victoria.store;
    let rules = format!(
        "remote_write: [{{url: \"{}\"}}]\ndefaults: {{min_samples: 30}}\nrules:\n- {{name: field, match: ['{{__name__=~\"app_.*\"}}']}}\n",
        store.write_url()
    );
    let sidecar = Sidecar::start(&dir.join("oddity"), &rules, 1);
    // One each: a scrape is a step, so a shared exposer would give either sender half the counts.
    let exposers = [Exposer::start(21, 50, false), Exposer::start(22, 50, false)];
    let scrape = |job: &str, exposer: &Exposer| {
        format!(
            "global: {{scrape_interval: 1s}}\nscrape_configs:\n- {{job_name: {job}, static_configs: [{{targets: [\"{}\"]}}]}}\n",
            exposer.address()
        )
    };
    let queue = "queue_config: {batch_send_deadline: 500ms}";
    let config = scrape("old", &exposers[0])
        + &format!("remote_write: [{{url: \"{}\", {queue}}}]\n", sidecar.write_url());
    let _prometheus = Prometheus::start(Suite::Stable, &dir.join("prometheus"), &config);
    let _vmagent =
        vmagent(Suite::Sid, &dir.join("vmagent"), &scrape("agent", &exposers[1]), &sidecar.write_url());

    for job in ["old", "agent"] {
        for metric in ["app_shift", "app_stall_total"] {
            wait_until(
                &format!("scores of {metric} of {job} in the store"),
                Duration::from_secs(180),
                || {
                    let query =
                        format!("count_over_time(anomaly_score{{metric={metric:?},job={job:?}}}[15m])");
                    let have = store.scalar(&query).unwrap_or(0.0);
                    if have >= 60.0 { Ok(()) } else { Err(format!("{have} scores")) }
                },
            );
        }
    }
    wait_until("a moment without an open flag", Duration::from_secs(60), || {
        let open = "count(max_over_time(anomaly_flag{metric=~\"app_shift|app_stall_total\"}[10s]) == 1)";
        store.scalar(open).map_or(Ok(()), |series| Err(format!("{series} series are flagged while healthy")))
    });
    for exposer in &exposers {
        exposer.shift();
        exposer.stall();
    }
    for job in ["old", "agent"] {
        for metric in ["app_shift", "app_stall_total"] {
            wait_until(&format!("the flag of {metric} of {job}"), Duration::from_secs(30), || {
                let flag = format!("max_over_time(anomaly_flag{{metric={metric:?},job={job:?}}}[10s])");
                match store.scalar(&flag) {
                    Some(1.0) => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            });
        }
    }
    // A score for each sample from the 30th on, none lost on either way in or on the way out.
    for job in ["old", "agent"] {
        let scores = store.samples(&format!("anomaly_score{{metric=\"app_shift\",job={job:?}}}[15m]"));
        let (_, scores) = scores.first().expect("scores");
        let served = exposers[usize::from(job == "agent")].log().len();
        let gap = scores.windows(2).map(|pair| pair[1].0 - pair[0].0).max().unwrap_or(0);
        println!("{job}: {served} scrapes, {} scores, longest gap {gap} ms", scores.len());
        assert!(gap < 1_900, "a score is missing");
        assert!(scores.len() + 29 + 6 >= served, "scores are missing at either end");
        assert!(scores.iter().all(|(_, score)| score.is_finite() && *score >= 0.0));
    }
}
