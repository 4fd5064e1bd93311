//! Hostile clients over real HTTP: bombs, giants, broken bodies, slow and idle connections. Meanwhile a
//! healthy sender is served and scored; afterwards memory is within its bound.
//!
//! `ODDITY_BROKEN_BODIES` (default 4,000) and `ODDITY_IDLE_CONNECTIONS` (default 3,000) make it larger:
//!
//!     ODDITY_BROKEN_BODIES=1000000 ODDITY_IDLE_CONNECTIONS=10000 cargo test --release --test it hostile

use crate::harness::http::{Message, read_message};
use crate::harness::sidecar::Sidecar;
use crate::harness::wire::{Histogram, Series, Span, V1, V2, encode_v1, encode_v2, snappy};
use crate::harness::{gauss, heavy, now_ms, temp_dir, wait_until};
use std::io::{self, BufReader, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

fn from_environment(name: &str, default: usize) -> usize {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}: expected a number, found {text:?}")),
        Err(_) => default,
    }
}

/// A connection that is kept.
struct Kept {
    host: String,
    stream: Option<BufReader<TcpStream>>,
}

impl Kept {
    fn new(sidecar: &Sidecar) -> Kept {
        Kept { host: sidecar.base.trim_start_matches("http://").to_string(), stream: None }
    }

    fn once(&mut self, kind: &str, encoding: &str, body: &[u8]) -> io::Result<Message> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(&self.host)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(Duration::from_secs(60)))?;
                BufReader::new(stream)
            }
        };
        let head = format!(
            "POST /api/v1/write HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Encoding: {encoding}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.get_mut().write_all(&[head.as_bytes(), body].concat())?;
        let answer = read_message(&mut stream)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        if answer.header("connection") != Some("close") {
            self.stream = Some(stream);
        }
        Ok(answer)
    }

    /// Sends until there is an answer other than 503; how often it was sent again is added to `again`.
    fn send(&mut self, kind: &str, encoding: &str, body: &[u8], again: &AtomicU64) -> Message {
        let started = Instant::now();
        loop {
            match self.once(kind, encoding, body) {
                Ok(answer) if answer.status != 503 => return answer,
                // As Prometheus does: what was closed or refused is sent again.
                Ok(_) | Err(_) => {
                    again.fetch_add(1, Relaxed);
                    assert!(started.elapsed() < Duration::from_secs(120), "no answer for two minutes");
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        }
    }
}

const HEALTHY: usize = 50;

/// Sends samples of [`HEALTHY`] series until told to stop; gives how many.
fn healthy(mut kept: Kept, stop: &AtomicBool, again: &AtomicU64) -> u64 {
    let start = now_ms() - 3_600_000;
    let mut step = 0;
    while !stop.load(Relaxed) || step < 80 {
        let all: Vec<Series> = (0..HEALTHY as u64)
            .map(|n| {
                let number = n.to_string();
                let labels = [("__name__", "healthy_level"), ("n", number.as_str())];
                Series::new(&labels, &[(start + step as i64, 50.0 + gauss(3, n, step))])
            })
            .collect();
        let answer = kept.send(V2, "snappy", &snappy(&encode_v2(&all)), again);
        assert_eq!(answer.status, 204, "healthy traffic at step {step}: {}", answer.text());
        step += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    step * HEALTHY as u64
}

fn varint(mut n: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
    out
}

fn field(tag: u8, content: &[u8]) -> Vec<u8> {
    [&[tag], varint(content.len()).as_slice(), content].concat()
}

/// Bodies that try to become large: what they are, type, encoding, bytes, what the answer says.
fn giants() -> Vec<(&'static str, &'static str, &'static str, Vec<u8>, &'static str)> {
    let zeros = vec![0u8; 31 << 20];
    let stream = {
        // A frame that declares no size, of a gigabyte.
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).expect("an encoder");
        for _ in 0..32 {
            encoder.write_all(&vec![0; 32 << 20]).expect("compresses");
        }
        encoder.finish().expect("compresses")
    };
    // 10 M labels in one series, and a thousand in each of 10,000.
    let one = field(0x0a, &[0x0a, 0].repeat(10_000_000));
    let many = field(0x0a, &[0x0a, 0].repeat(1000)).repeat(10_000);
    let references = {
        let symbols = [field(0x22, b""), field(0x22, b"a"), field(0x22, b"b")].concat();
        let series = field(0x2a, &field(0x0a, &[1, 2].repeat(1000)));
        [symbols, series.repeat(10_000)].concat()
    };
    let series = field(0x0a, b"").repeat(3_000_000);
    let samples = field(0x0a, &field(0x12, b"").repeat(3_000_000));
    let symbols = field(0x22, b"").repeat(3_000_000);
    let histograms = field(0x0a, &field(0x22, b"").repeat(500_000));
    // Exemplars are walked over and not kept.
    let exemplars = field(0x0a, &field(0x1a, b"").repeat(3_000_000));
    let buckets = field(0x0a, &field(0x22, &field(0x62, &vec![0; 5 << 20])));
    let metadata = field(0x1a, b"").repeat(3_000_000);
    vec![
        ("a snappy bomb", V1, "snappy", snappy(&zeros), "protobuf"),
        ("a snappy bomb that declares too much", V2, "snappy", snappy(&vec![0; 64 << 20]), "over the limit"),
        ("a zstd bomb", V1, "zstd", stream, "over the limit"),
        ("10 M labels in a series", V1, "snappy", snappy(&one), "labels in one series"),
        ("10 M labels in 10,000 series", V1, "snappy", snappy(&many), "10000 malformed series"),
        ("10 M labels by reference", V2, "snappy", snappy(&references), "10000 malformed series"),
        ("3 M series", V1, "snappy", snappy(&series), "series in one request"),
        ("3 M samples", V1, "snappy", snappy(&samples), "samples in one request"),
        ("3 M symbols", V2, "snappy", snappy(&symbols), "symbols in one request"),
        ("500,000 histograms", V1, "snappy", snappy(&histograms), "histograms in one request"),
        ("3 M exemplars", V1, "snappy", snappy(&exemplars), "__name__"),
        ("5 M buckets", V1, "snappy", snappy(&buckets), "buckets"),
        ("3 M metadata entries", V1, "snappy", snappy(&metadata), "metadata entries in one request"),
    ]
}

/// Sound bodies to break.
fn sound(now: i64) -> Vec<(&'static str, Vec<u8>)> {
    let histogram = Histogram {
        count_int: Some(6),
        sum: 12.5,
        zero_count_int: Some(1),
        positive_spans: vec![Span { offset: 0, length: 2 }],
        positive_deltas: vec![2, 1],
        timestamp: now,
        ..Histogram::default()
    };
    let mut all: Vec<Series> = (0..20)
        .map(|n| {
            let number = n.to_string();
            Series::new(
                &[("__name__", "broken"), ("n", &number), ("job", "x")],
                &[(now, 1.0), (now + 1, 2.0)],
            )
        })
        .collect();
    all.push(Series { histograms: vec![histogram], ..Series::new(&[("__name__", "broken_h")], &[]) });
    vec![(V1, encode_v1(&all)), (V2, encode_v2(&all))]
}

/// Sends bodies with bits turned and ends cut off, half of them below the compression.
fn broken(sidecar: &Sidecar, bodies: usize, again: &AtomicU64) -> [u64; 2] {
    let mut kept = Kept::new(sidecar);
    let mut random = 0x1234_5678_9abc_def0u64;
    let mut next = |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % below.max(1) as u64) as usize
    };
    let mut statuses = [0, 0];
    let sound = sound(now_ms() - 1000);
    for n in 0..bodies {
        let (kind, body) = &sound[n % sound.len()];
        let outer = n % 4 < 2;
        let (encoding, mut bytes) = match (outer, n % 8 < 4) {
            (true, true) => ("snappy", snappy(body)),
            (true, false) => ("zstd", zstd::encode_all(body.as_slice(), 1).expect("compresses")),
            (false, _) => ("snappy", body.clone()),
        };
        for _ in 0..=next(3) {
            let at = next(bytes.len());
            bytes[at] ^= 1 << next(8);
        }
        if next(3) == 0 {
            bytes.truncate(next(bytes.len()));
        }
        let bytes = if outer { bytes } else { snappy(&bytes) };
        let answer = kept.send(kind, encoding, &bytes, again);
        match answer.status {
            204 => statuses[0] += 1,
            400 => statuses[1] += 1,
            other => panic!("body {n}: {other}: {}", answer.text()),
        }
    }
    statuses
}

/// Connections that bring a byte now and then, or none.
fn hold(sidecar: &Sidecar, connections: usize, stop: &AtomicBool) -> usize {
    let host = sidecar.base.trim_start_matches("http://");
    let mut held = Vec::new();
    let mut most = 0;
    for n in 0..connections {
        let Ok(mut stream) = TcpStream::connect(host) else { continue };
        let head = format!("POST /api/v1/write HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n", 32 << 20);
        // A third idle, a third within the head, a third within the body; some are closed already.
        let _ = match n % 3 {
            0 => Ok(()),
            1 => stream.write_all(head.as_bytes()),
            _ => stream.write_all(format!("{head}\r\nx").as_bytes()),
        };
        held.push(stream);
        most = most.max(held.len());
    }
    while !stop.load(Relaxed) {
        for (n, stream) in held.iter_mut().enumerate() {
            if n % 3 > 0 {
                let _ = stream.write_all(b"x");
            }
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    most
}

#[test]
fn hostile_clients_harm_nobody() {
    let _turn = heavy();
    // This side needs a descriptor for each idle connection.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).expect("the hard limit");
    let idle = from_environment("ODDITY_IDLE_CONNECTIONS", 3_000);
    let bodies = from_environment("ODDITY_BROKEN_BODIES", 4_000);
    let home = temp_dir();
    let rules = "limits: {max_series: 20000, max_in_flight_bytes: 67108864}\n\
                 rules: [{name: all, match: '{__name__=~\".+\"}'}]\n";
    let mut sidecar = Sidecar::start(home.path(), rules, 2);
    let again = Arc::new(AtomicU64::new(0));
    let healthy_again = AtomicU64::new(0);
    let (stop, release) = (AtomicBool::new(false), AtomicBool::new(false));
    let before = sidecar.process.status("VmHWM");
    let (sent, statuses, held) = std::thread::scope(|scope| {
        let good = scope.spawn(|| healthy(Kept::new(&sidecar), &stop, &healthy_again));
        let holder = scope.spawn(|| hold(&sidecar, idle, &release));
        let senders: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut kept = Kept::new(&sidecar);
                    for (name, kind, encoding, body, says) in giants() {
                        let answer = kept.send(kind, encoding, &body, &again);
                        assert!(
                            answer.status == 400 && answer.text().contains(says),
                            "{name}: {} {}",
                            answer.status,
                            answer.text()
                        );
                    }
                })
            })
            .collect();
        for sender in senders {
            sender.join().expect("every giant is refused");
        }
        // More series than there may be.
        let mut kept = Kept::new(&sidecar);
        for n in 0..10 {
            let now = now_ms();
            let flood = (0..10_000).map(|i| {
                let number = format!("{n}-{i}");
                Series::new(&[("__name__", "flood"), ("n", &number)], &[(now, 1.0)])
            });
            let flood: Vec<Series> = flood.collect();
            let answer = kept.send(V1, "snappy", &snappy(&encode_v1(&flood)), &again);
            assert_eq!(answer.status, 204, "{}", answer.text());
        }
        let statuses = broken(&sidecar, bodies, &again);
        release.store(true, Relaxed);
        let held = holder.join().expect("held");
        stop.store(true, Relaxed);
        (good.join().expect("healthy traffic"), statuses, held)
    });
    sidecar.process.assert_running();
    let peak = sidecar.process.status("VmHWM");
    println!(
        "peak {} MiB (at first {}), now {} MiB; {held} connections held; broken bodies: {} taken, {} refused; sent again: {} hostile, {} healthy",
        peak >> 10,
        before >> 10,
        sidecar.process.status("VmRSS") >> 10,
        statuses[0],
        statuses[1],
        again.load(Relaxed),
        healthy_again.load(Relaxed),
    );
    // Two budgets of 64 MiB, what decoding makes of two bodies, 20,000 series, connections.
    assert!(peak < 512 << 10, "{} MiB at the most", peak >> 10);
    let log = sidecar.process.log();
    let bugs: Vec<&str> = log.lines().filter(|line| line.contains("panic") || line.contains("bug")).collect();
    assert!(bugs.is_empty(), "{bugs:?}");
    assert!(statuses[0] > 0 && statuses[1] > 0, "{statuses:?}");
    for limit in
        ["decompressed_bytes", "labels", "series", "samples", "symbols", "histograms", "buckets", "metadata"]
    {
        let count = sidecar.metric("oddity_limit_exceeded_total", &format!("limit=\"{limit}\""));
        assert!(count >= 3.0, "{limit}: {count}");
    }
    let over = sidecar.metric("oddity_samples_handled_total", "reason=\"over_limit\"");
    assert!(over >= 80_000.0 && sidecar.metric("oddity_series", "kept") <= 20_000.0, "{over}");
    if idle > 1024 {
        let cut = sidecar.metric("oddity_connections_cut_off_total", "evicted");
        assert!(cut > 0.0 && sidecar.metric("oddity_connections_limit", "") <= 1024.0, "{cut}");
    }
    // Every healthy sample was handled, and each after the 60th of its series scored.
    let scored = || sidecar.metric("oddity_samples_scored_total", "");
    let expected = sent as f64 - 59.0 * HEALTHY as f64;
    wait_until("scores of the healthy series", Duration::from_secs(10), || match scored() {
        scored if scored >= expected => Ok(()),
        scored => Err(format!("{scored} of {expected}")),
    });
    wait_until("the held connections to go", Duration::from_secs(60), || {
        match sidecar.metric("oddity_connections", "") {
            open if open <= 5.0 => Ok(()),
            open => Err(format!("{open} open")),
        }
    });
}
