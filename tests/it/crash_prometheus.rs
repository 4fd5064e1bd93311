//! Killed again and again between a real Prometheus that sends and the same that receives, by 1.0 and by
//! 2.0: the store holds, bit for bit, what an undisturbed engine gives on the samples in it.

use crate::crash::Mortal;
use crate::exposer::Exposer;
use crate::harness::peers::{Prometheus, Suite};
use crate::harness::reference::Reference;
use crate::harness::sink::{Kept, count, differences, keep};
use crate::harness::store::{Store, text};
use crate::harness::wire::{Series, encode_v1};
use crate::harness::{free_port, gauss, now_ms, temp_dir, wait_until};
use std::collections::BTreeMap;
use std::time::Duration;

const SERIES: usize = 300;
const KILLS: usize = 10;
const ROUTES: [&str; 2] = ["one", "two"];
const SOURCES: [&str; 4] = ["app_level", "app_shift", "app_work_total", "app_stall_total"];

fn rules(route: &str, target: &str) -> String {
    format!(
        r#"
state: {{dir: data, checkpoint_every: 3s}}
remote_write: [{{url: "{target}"}}]
defaults: {{min_samples: 10}}
rules:
  - {{name: {route}, match: ['{{__name__=~"app_level|app_shift"}}'], as: value}}
  - {{name: {route}-rate, match: ['{{__name__=~"app_.*_total"}}'], as: rate}}
"#
    )
}

#[test]
fn a_prometheus_never_notices_that_it_is_killed() {
    let home = temp_dir();
    let dir = home.path();
    let exposer = Exposer::start(23, SERIES, false);
    let port = free_port();
    let target = Store::new(port).write_url();
    let ports = ROUTES.map(|_| free_port());
    let dirs = ROUTES.map(|route| dir.join(route));
    for (route, dir) in ROUTES.iter().zip(&dirs) {
        std::fs::create_dir_all(dir).expect("its folder");
        std::fs::write(dir.join("rules.yaml"), rules(route, &target)).expect("its configuration");
    }
    let mut oddities: Vec<Mortal> =
        dirs.iter().zip(ports).map(|(dir, port)| Mortal::start(dir, port, None)).collect();
    for oddity in &oddities {
        wait_until("oddity", Duration::from_secs(60), || match oddity.ready() {
            true => Ok(()),
            false => Err("not ready".into()),
        });
    }
    let [one, two] = ports.map(|port| format!("http://127.0.0.1:{port}/api/v1/write"));
    let config = format!(
        r#"
global: {{scrape_interval: 1s}}
scrape_configs:
- {{job_name: app, static_configs: [{{targets: ["{app}"]}}]}}
remote_write:
- {{url: "{one}", name: one, protobuf_message: prometheus.WriteRequest, queue_config: {{batch_send_deadline: 500ms, max_backoff: 1s}}}}
- {{url: "{two}", name: two, protobuf_message: io.prometheus.write.v2.Request, queue_config: {{batch_send_deadline: 500ms, max_backoff: 1s}}}}
"#,
        app = exposer.address()
    );
    let prometheus = Prometheus::start_on(port, Suite::Sid, &dir.join("prometheus"), &config);
    let store = &prometheus.store;
    let seed = now_ms() as u64;
    println!("seed {seed}");
    for kill in 0..KILLS {
        let pause = 1_000 + gauss(seed, 0, kill as u64).to_bits() % 4_000;
        std::thread::sleep(Duration::from_millis(pause));
        let which = kill % 2;
        oddities[which].kill();
        std::thread::sleep(Duration::from_millis(gauss(seed, 1, kill as u64).to_bits() % 1_500));
        oddities[which] = Mortal::start(&dirs[which], ports[which], None);
    }
    std::thread::sleep(Duration::from_secs(3));
    // What was scraped later may still be on its way.
    let until = now_ms();
    for route in ROUTES {
        let mut by_time: BTreeMap<i64, Vec<Series>> = BTreeMap::new();
        for source in SOURCES {
            for (labels, samples) in store.samples(&format!("{source}{{job=\"app\"}}[30m]")) {
                let labels: Vec<(&str, &str)> =
                    labels.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
                for sample in samples.into_iter().filter(|sample| sample.0 <= until) {
                    by_time.entry(sample.0).or_default().push(Series::new(&labels, &[sample]));
                }
            }
        }
        let reference = Reference::new(&rules(route, &target));
        by_time.into_values().for_each(|series| reference.apply(encode_v1(&series)));
        let expected = reference.into_kept();
        assert!(count(&expected) > SERIES * 2 * 15, "it was scored: {}", count(&expected));
        let kept = wait_until(&format!("all scores by {route}"), Duration::from_secs(60), || {
            let mut kept = Kept::new();
            for metric in ["anomaly_score", "anomaly_flag"] {
                let range = format!("{metric}{{rule=~\"{route}|{route}-rate\"}}[30m]");
                for (labels, samples) in store.samples(&range) {
                    for (at, value) in samples.into_iter().filter(|sample| sample.0 <= until) {
                        keep(&mut kept, &text(&labels), at, value.to_bits()).expect("one value a moment");
                    }
                }
            }
            match count(&kept) >= count(&expected) {
                true => Ok(kept),
                false => Err(format!("{} of {}", count(&kept), count(&expected))),
            }
        });
        println!("by {route}: {} samples in {} series", count(&kept), kept.len());
        assert!(kept == expected, "store and engine differ:\n{}", differences(&kept, &expected));
    }
}
