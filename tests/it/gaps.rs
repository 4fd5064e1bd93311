//! Case 11: a Prometheus that restarts skips what it had not sent. With `remote_read` the sidecar reads
//! it and misses no sample; without it the sidecar goes on. Neither raises an alarm.

use crate::exposer::Exposer;
use crate::harness::peers::{Prometheus, Suite};
use crate::harness::sidecar::Sidecar;
use crate::harness::{free_port, temp_dir, wait_until};
use std::time::{Duration, Instant};

const SERIES: usize = 20;
/// Longer than what is taken for a jump of no meaning.
const HELD_BACK: Duration = Duration::from_secs(126);

/// Samples whose values a sidecar has taken in, by remote write and by remote read.
fn taken(sidecar: &Sidecar) -> f64 {
    let handled = |reason| sidecar.metric("oddity_samples_handled_total", &format!("reason=\"{reason}\""));
    handled("scored")
        + handled("warming")
        + handled("no_signal")
        + sidecar.metric("oddity_gap_fill_samples_total", "")
}

#[test]
fn what_a_restarted_prometheus_skipped_is_filled_in() {
    let home = temp_dir();
    let dir = home.path();
    let exposer = Exposer::start(31, SERIES, false);
    let port = free_port();
    let rules = |more: &str| {
        format!("rules:\n- {{name: r, match: '{{__name__=~\"app_.*\"}}', min_samples: 20}}\n{more}")
    };
    let reads = rules(&format!("remote_read: [{{url: \"http://127.0.0.1:{port}\"}}]\n"));
    let reader = Sidecar::start(&dir.join("reader"), &reads, 2);
    let other = Sidecar::start(&dir.join("other"), &rules(""), 2);
    let config = |targets: &[(&Sidecar, &str)]| {
        let mut text = format!(
            r#"
global: {{scrape_interval: 1s, external_labels: {{cluster: eu, __replica__: a}}}}
scrape_configs: [{{job_name: app, static_configs: [{{targets: ["{}"]}}]}}]
remote_write:
"#,
            exposer.address()
        );
        for (sidecar, message) in targets {
            text += &format!(
                "- {{url: \"{}\", protobuf_message: {message}, queue_config: {{batch_send_deadline: 500ms}}}}\n",
                sidecar.write_url()
            );
        }
        text
    };
    let both = config(&[(&reader, "io.prometheus.write.v2.Request"), (&other, "prometheus.WriteRequest")]);
    let tsdb = dir.join("prometheus");
    let start = |text: &str| Prometheus::start_on(port, Suite::Sid, &tsdb, text);

    let mut prometheus = start(&both);
    wait_until("scores", Duration::from_secs(120), || {
        let scored = |s: &Sidecar| s.metric("oddity_samples_handled_total", "reason=\"scored\"");
        let least = scored(&reader).min(scored(&other));
        if least > (20 * SERIES) as f64 { Ok(()) } else { Err(format!("{least} samples scored")) }
    });
    prometheus.stop();
    drop(prometheus);
    // It scrapes and has nowhere to send to; what it starts with next is newer than all this.
    let mut prometheus = start(&config(&[]));
    let since = Instant::now();
    std::thread::sleep(HELD_BACK.saturating_sub(since.elapsed()));
    prometheus.stop();
    drop(prometheus);
    let prometheus = start(&both);
    wait_until("the gap to be filled", Duration::from_secs(120), || {
        let filled = reader.metric("oddity_gap_fills_total", "result=\"filled\"");
        if filled == 1.0 { Ok(()) } else { Err(reader.metrics()) }
    });
    // A while longer, then everything stops, and the books must balance.
    let after = reader.metric("oddity_samples_received_total", "");
    wait_until("samples after the gap", Duration::from_secs(120), || {
        let now = reader
            .metric("oddity_samples_received_total", "")
            .min(other.metric("oddity_samples_received_total", ""));
        if now > after + (20 * SERIES) as f64 { Ok(()) } else { Err(format!("{now} received")) }
    });
    drop(exposer);
    let stored = || {
        // One name at a time: count_over_time drops it, and series would be alike.
        let names = ["app_level", "app_work_total", "app_shift", "app_stall_total"];
        let count =
            |name| prometheus.store.scalar(&format!("sum(count_over_time({name}[1h]))")).unwrap_or(0.0);
        names.map(count).iter().sum::<f64>()
    };
    wait_until("every sample in the reader", Duration::from_secs(60), || {
        let (have, taken) = (stored(), taken(&reader));
        if have == taken { Ok(()) } else { Err(format!("{have} stored, {taken} taken")) }
    });
    let filled = reader.metric("oddity_gap_fill_samples_total", "");
    let least = (HELD_BACK.as_secs() - 10) * SERIES as u64;
    assert!(filled >= least as f64, "{filled} samples filled in");
    assert!(stored() - taken(&other) >= least as f64, "the other has a hole");
    println!("{filled} samples filled in, {} requests held", reader.metric("oddity_requests_held_total", ""));
    for (sidecar, held) in [(&reader, true), (&other, false)] {
        assert_eq!(sidecar.metric("oddity_flags_total", ""), 0.0, "no alarm");
        assert_eq!(sidecar.metric("oddity_requests_held_total", "") > 0.0, held);
        assert_eq!(sidecar.metric("oddity_gaps_filling", ""), 0.0);
    }
    let kept = reader.metric("oddity_series", "state=\"kept\"");
    assert_eq!(kept, (SERIES + 2) as f64, "series read are those that were sent");
}
