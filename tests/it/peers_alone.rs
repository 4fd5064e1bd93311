//! The peers and the harness without the sidecar: what is measured with must itself be exact.

use crate::exposer::Exposer;
use crate::harness::peers::{Alertmanager, Prometheus, Suite, Victoria, vmagent};
use crate::harness::sink::Sink;
use crate::harness::wire::{Series, V1, V2, encode_v1, encode_v2, send};
use crate::harness::{now_ms, temp_dir, wait_until};
use std::time::Duration;

/// An awkward value: its shortest decimal form has 17 digits.
const AWKWARD: f64 = 0.1 + 0.2;

#[test]
fn prometheus_scrapes_forwards_and_gives_back_the_bits() {
    let home = temp_dir();
    let sink = Sink::start();
    let exposer = Exposer::start(61, 10, true);
    let config = |proto: &str| {
        format!(
            "global: {{scrape_interval: 1s}}\nscrape_configs:\n- {{job_name: app, static_configs: [{{targets: [\"{}\"]}}]}}\nremote_write:\n- {{url: \"{}\"{proto}, queue_config: {{batch_send_deadline: 500ms}}}}\n",
            exposer.address(),
            sink.url()
        )
    };
    let config = config(", protobuf_message: io.prometheus.write.v2.Request");
    let prometheus = Prometheus::start(Suite::Sid, &home.path().join("new"), &config);
    wait_until("forwarded samples", Duration::from_secs(30), || match sink.count() {
        have if have > 60 => Ok(()),
        have => Err(format!("{have}")),
    });
    let [(_, stored)] = prometheus.store.samples("app_shift[5m]").try_into().expect("one series");
    let log = exposer.log();
    assert!(stored.len() > 3);
    for (at, value) in stored {
        let served = log.iter().find(|served| served.at == at).expect("the explicit time stamp");
        assert_eq!(served.shift.to_bits(), value.to_bits());
    }
    let forwarded = sink.into_kept();
    let (_, forwarded) =
        forwarded.iter().find(|(labels, _)| labels.contains("app_shift")).expect("forwarded");
    let known = |(at, bits): (&i64, &u64)| log.iter().any(|s| s.at == *at && s.shift.to_bits() == *bits);
    assert!(forwarded.iter().all(known), "{forwarded:?}");
}

#[test]
fn stores_take_our_bodies_in_either_protocol() {
    let home = temp_dir();
    let prometheus = Prometheus::start(Suite::Sid, &home.path().join("new"), "global: {}\n");
    let old = Prometheus::start(Suite::Stable, &home.path().join("old"), "global: {}\n");
    let victoria = Victoria::start(Suite::Sid, &home.path().join("victoria"));
    let at = now_ms() - 5_000;
    let body = |name: &str| vec![Series::new(&[("__name__", name), ("job", "x")], &[(at, AWKWARD)])];
    for (store, name, kind, bytes) in [
        (&prometheus.store, "in_one", V1, encode_v1(&body("in_one"))),
        (&prometheus.store, "in_two", V2, encode_v2(&body("in_two"))),
        (&old.store, "in_one", V1, encode_v1(&body("in_one"))),
        (&victoria.store, "in_one", V1, encode_v1(&body("in_one"))),
    ] {
        let answer = send(&store.write_url(), kind, &bytes).expect("an answer");
        assert_eq!(answer.status, 204, "{}", answer.text());
        let value = wait_until(&format!("{name} at {}", store.base), Duration::from_secs(30), || {
            let found = store.samples(&format!("{name}[1m]"));
            found.first().map(|(_, samples)| samples[0]).ok_or_else(|| "not yet".to_string())
        });
        let exact = !std::ptr::eq(store, &victoria.store);
        assert_eq!(value.0, at);
        assert!(if exact {
            value.1.to_bits() == AWKWARD.to_bits()
        } else {
            (value.1 - AWKWARD).abs() < 1e-12
        });
    }
}

#[test]
fn vmagent_and_alertmanager_start() {
    let home = temp_dir();
    let victoria = Victoria::start(Suite::Sid, &home.path().join("victoria"));
    let exposer = Exposer::start(62, 4, false);
    let scrape = format!(
        "global: {{scrape_interval: 1s}}\nscrape_configs:\n- {{job_name: a, static_configs: [{{targets: [\"{}\"]}}]}}\n",
        exposer.address()
    );
    let _agent = vmagent(Suite::Sid, &home.path().join("agent"), &scrape, &victoria.store.write_url());
    assert!(Alertmanager::start(home.path()).alerts().is_empty());
    wait_until("a scrape by vmagent in the store", Duration::from_secs(30), || {
        victoria.store.scalar("app_shift").ok_or_else(|| "not yet".to_string())
    });
}
