//! What is fuzzed, by cargo-fuzz (`fuzz/fuzz_targets`) and by the driver that needs no more than a stable
//! compiler (`fuzz/driver`). A target is a function of bytes that panics when something is wrong: it does
//! not only look for panics of the code it calls, it says what must hold of the answer.

pub mod config;
pub mod read;
pub mod state;
pub mod wire;

/// A target.
pub type Target = fn(&[u8]);

/// All of them by name.
pub const ALL: [(&str, Target); 9] = [
    ("decode_v1", wire::decode_v1),
    ("decode_v2", wire::decode_v2),
    ("frames", wire::frames),
    ("read_frames", read::frames),
    ("read_samples", read::samples),
    ("xor", read::xor),
    ("rules", config::rules),
    ("log", state::log),
    ("checkpoint", state::checkpoint),
];
