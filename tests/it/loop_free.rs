//! Case 3: source and target are one Prometheus, which forwards to the sidecar what the sidecar
//! wrote. Nothing may grow.

use crate::exposer::Exposer;
use crate::harness::peers::{Prometheus, Suite};
use crate::harness::sidecar::Sidecar;
use crate::harness::store::Store;
use crate::harness::{free_port, temp_dir, wait_until};
use std::time::Duration;

fn stays_flat(name: &str, external: &str, names: &str, score: &str, others: &[&str]) {
    let home = temp_dir();
    let dir = home.path();
    let exposer = Exposer::start(31, 30, false);
    let port = free_port();
    let store = Store::new(port);
    // The rule takes everything, so that only the door stands between the loop and the store.
    let rules = format!(
        "remote_write: [{{url: \"{}\"}}]\n{names}defaults: {{min_samples: 5}}\nrules:\n- {{name: all, emit: [score, flag, bands], match: ['{{__name__=~\".+\"}}']}}\n",
        store.write_url()
    );
    let sidecar = Sidecar::start(&dir.join("oddity"), &rules, 1);
    let config = format!(
        "global: {{scrape_interval: 1s{external}}}\nscrape_configs:\n- {{job_name: app, static_configs: [{{targets: [\"{}\"]}}]}}\nremote_write:\n- {{url: \"{}\", queue_config: {{batch_send_deadline: 500ms}}}}\n",
        exposer.address(),
        sidecar.write_url()
    );
    let _prometheus = Prometheus::start_on(port, Suite::Sid, &dir.join("prometheus"), &config);
    let sources = wait_until("the sources", Duration::from_secs(30), || {
        let count = store.try_instant("count({job=\"app\",__name__=~\"app_.*\"})")?;
        count.first().map(|(_, value)| *value).filter(|count| *count >= 32.0).ok_or("not yet".to_string())
    });
    // Sides of a band are written once they are bounded, which may be late: they are counted apart.
    let all = "count({__name__=~\".+\",__name__!~\".*_(lower|upper)\"})";
    let scored = format!("count({{__name__=\"{score}\"}})");
    wait_until(&format!("{name}: scores of every source"), Duration::from_secs(60), || {
        let have = store.scalar(&scored).unwrap_or(0.0);
        if have >= sources { Ok(()) } else { Err(format!("{have} of {sources}")) }
    });
    // Series of the scrape itself may come a sample later: wait for eight quiet seconds. A loop would add series every few samples and never come to rest.
    let mut last = (None, std::time::Instant::now());
    let (series, scores) =
        wait_until(&format!("{name}: the count to settle"), Duration::from_secs(90), || {
            let now = (store.scalar(all), store.scalar(&scored));
            if last.0 != Some(now) {
                last = (Some(now), std::time::Instant::now());
            }
            if last.1.elapsed() > Duration::from_secs(8) { Ok(now) } else { Err(format!("{now:?}")) }
        });
    std::thread::sleep(Duration::from_secs(25));
    assert_eq!(
        (store.scalar(all), store.scalar(&scored)),
        (series, scores),
        "{name}: the number of series grows"
    );
    let again =
        store.instant(&format!("{{__name__=~\"{}\",metric=~\"anomaly_.*|y|yhat.*\"}}", others.join("|")));
    assert!(again.is_empty(), "{name}: scores of scores: {again:?}");
    let again =
        store.instant(&format!("{{__name__=~\"{}\",for=~\"anomaly_.*|y|yhat.*\"}}", others.join("|")));
    assert!(again.is_empty(), "{name}: scores of scores: {again:?}");
    for other in others {
        wait_until(&format!("{name}: {other}"), Duration::from_secs(60), || {
            let have = store.scalar(&format!("count({{__name__=\"{other}\"}})"));
            have.ok_or_else(|| "none is written".to_string())
        });
        let have = store.scalar(&format!("count({{__name__=\"{other}\"}})"));
        assert!(have <= scores, "{name}: {have:?} series of {other}, {scores:?} are scored");
    }
    let dropped = sidecar.metric("oddity_samples_handled_total", "reason=\"own_output\"");
    println!("{name}: {series:?} series, {scores:?} scored, {dropped} own samples dropped at the door");
    assert!(dropped > 0.0, "{name}: the loop was never closed, so nothing was shown");
}

#[test]
fn plain() {
    let names = ["anomaly_score", "anomaly_flag", "anomaly_expected", "anomaly_lower", "anomaly_upper"];
    stays_flat("plain", "", "", "anomaly_score", &names);
}

#[test]
fn with_external_labels() {
    let names = ["anomaly_score", "anomaly_flag", "anomaly_expected"];
    let external = ", external_labels: {site: a, region: north}";
    stays_flat("with external labels", external, "", "anomaly_score", &names);
}

#[test]
fn with_the_names_of_vmanomaly() {
    let names = ["anomaly_score", "y", "yhat", "yhat_lower", "yhat_upper"];
    let external = ", external_labels: {site: a}";
    stays_flat("with vmanomaly's names", external, "output_names: vmanomaly\n", "anomaly_score", &names);
}
