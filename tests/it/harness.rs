//! What the cases share: processes that end with the test, HTTP, stores, wire messages.

pub mod fleet;
pub mod http;
pub mod peers;
pub mod pods;
pub mod process;
pub mod reference;
pub mod results;
pub mod sidecar;
pub mod sink;
pub mod store;
pub mod tls;
pub mod wire;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Held by the cases that keep both cores busy, so that they never run at once.
pub fn heavy() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The time of day in Unix milliseconds.
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as i64
}

/// Asks until there is an answer; panics with `what` and the last complaint when time is up.
#[track_caller]
pub fn wait_until<T>(what: &str, within: Duration, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(why) if start.elapsed() > within => {
                panic!("waited {}s for {what}: {why}", within.as_secs())
            }
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
}

/// A free loopback port, never handed out twice by this process.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<Vec<u16>> = Mutex::new(Vec::new());
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let port = listener.local_addr().expect("bound").port();
        if !given.contains(&port) {
            given.push(port);
            return port;
        }
    }
}

/// A directory that goes with the case; its name starts with `oddity-it-`.
pub fn temp_dir() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("oddity-it-").tempdir().expect("a temporary directory")
}

/// Deterministic standard normal noise of one series at one step.
pub fn gauss(seed: u64, series: u64, step: u64) -> f64 {
    let mix = |x: u64| {
        let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    };
    let key = mix(seed.wrapping_add(mix(series.wrapping_add(mix(step.wrapping_add(0x9e37_79b9_7f4a_7c15))))));
    let unit = |x: u64| ((x >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    let (a, b) = (unit(mix(key ^ 1)), unit(mix(key ^ 2)));
    (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
}
