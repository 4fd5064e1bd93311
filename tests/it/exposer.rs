//! A target that goes wrong on command.
//!
//! Every scrape is one step: gauges and counters with noise of their own, deterministic in (seed,
//! series, step). Two series can be told to fail: the gauge `app_shift` moves by twelve times its
//! noise, the counter `app_stall_total` stops. The gauge can be hidden, too. Dropping the exposer makes the target vanish.

use crate::harness::http::{Reply, Server};
use crate::harness::{gauss, now_ms};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Noise of `app_shift`.
const SHIFT_NOISE: f64 = 0.5;

/// What one scrape was given.
#[derive(Clone, Debug)]
pub struct Served {
    /// When, Unix milliseconds; the time stamp on the page where time stamps are explicit.
    pub at: i64,
    /// Value of `app_shift`.
    pub shift: f64,
    /// Value of `app_stall_total`.
    pub stall: f64,
    /// Whether the shift was on.
    pub shifted: bool,
    /// Whether the counter stood still.
    pub stalled: bool,
}

struct State {
    seed: u64,
    healthy: usize,
    explicit: bool,
    work: Vec<f64>,
    stall: f64,
    shifted: bool,
    stalled: bool,
    hidden: bool,
    log: Vec<Served>,
}

/// The exposer.
pub struct Exposer {
    server: Server,
    state: Arc<Mutex<State>>,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn page(&mut self) -> String {
        let step = self.log.len() as u64;
        let at = now_ms();
        let stamp = if self.explicit { format!(" {at}") } else { String::new() };
        let seed = self.seed;
        let noise = |series: usize| gauss(seed, series as u64, step);
        let mut page = String::with_capacity(64 * self.healthy);
        page += "# TYPE app_level gauge\n";
        for n in 0..self.healthy / 2 {
            let value = 50.0 + (n % 7) as f64 + (1 + n % 5) as f64 * noise(10 + n);
            writeln!(page, "app_level{{n=\"{n}\"}} {value}{stamp}").expect("memory");
        }
        page += "# TYPE app_work_total counter\n";
        for n in 0..self.healthy - self.healthy / 2 {
            self.work[n] += (100.0 + 5.0 * noise(100_000 + n)).max(0.0);
            writeln!(page, "app_work_total{{n=\"{n}\"}} {}{stamp}", self.work[n]).expect("memory");
        }
        if !self.stalled {
            self.stall += (100.0 + 5.0 * noise(1)).max(0.0);
        }
        let shift = 20.0 + SHIFT_NOISE * noise(2) + if self.shifted { 12.0 * SHIFT_NOISE } else { 0.0 };
        if !self.hidden {
            writeln!(page, "# TYPE app_shift gauge\napp_shift {shift}{stamp}").expect("memory");
        }
        writeln!(page, "# TYPE app_stall_total counter\napp_stall_total {}{stamp}", self.stall)
            .expect("memory");
        let (shifted, stalled, stall) = (self.shifted, self.stalled, self.stall);
        self.log.push(Served { at, shift, stall, shifted, stalled });
        page
    }
}

impl Exposer {
    /// Starts one with this many healthy series, half gauges, half counters.
    pub fn start(seed: u64, healthy: usize, explicit: bool) -> Exposer {
        let state = Arc::new(Mutex::new(State {
            seed,
            healthy,
            explicit,
            work: vec![0.0; healthy],
            stall: 0.0,
            shifted: false,
            stalled: false,
            hidden: false,
            log: Vec::new(),
        }));
        let shared = state.clone();
        let server = Server::start(move |request| {
            if request.target != "GET /metrics" {
                return Reply { status: 404, headers: Vec::new(), body: Vec::new() };
            }
            let page = lock(&shared).page();
            let kind = ("Content-Type", "text/plain; version=0.0.4".to_string());
            Reply { status: 200, headers: vec![kind], body: page.into_bytes() }
        });
        Exposer { server, state }
    }

    /// `host:port`
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.server.port)
    }

    /// From the next scrape on, `app_shift` is twelve times its noise too high.
    pub fn shift(&self) {
        lock(&self.state).shifted = true;
    }

    /// From the next scrape on, `app_stall_total` stands still.
    pub fn stall(&self) {
        lock(&self.state).stalled = true;
    }

    /// From the next scrape on, `app_shift` is missing from the page.
    pub fn hide(&self) {
        lock(&self.state).hidden = true;
    }

    /// Everything served so far.
    pub fn log(&self) -> Vec<Served> {
        lock(&self.state).log.clone()
    }
}

#[test]
fn the_exposer_fails_as_told_and_logs_what_it_served() {
    let exposer = Exposer::start(7, 4, true);
    let url = format!("http://{}/metrics", exposer.address());
    let get = || crate::harness::http::get(&url).expect("a page").text();
    let healthy = get();
    exposer.shift();
    exposer.stall();
    let faulty = get();
    let log = exposer.log();
    assert_eq!(log.len(), 2);
    assert!(log[1].shift - log[0].shift > 6.0 * SHIFT_NOISE && log[1].stall == log[0].stall);
    for (page, served) in [(&healthy, &log[0]), (&faulty, &log[1])] {
        assert!(page.contains(&format!("app_shift {} {}\n", served.shift, served.at)), "{page}");
        assert_eq!(page.lines().filter(|line| !line.starts_with('#')).count(), 6);
    }
    drop(exposer);
    assert!(crate::harness::http::get(&url).is_err(), "a dropped exposer is gone");
}
