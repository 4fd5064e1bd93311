//! Fail points: places where a test lets the process die, as by a power cut or `kill -9`. Only builds
//! with debug assertions have them; elsewhere they are nothing.

/// A place where an armed process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Point {
    /// Half of a record is written to the log.
    Append,
    /// Half of a record's partitions have applied it.
    Apply,
    /// Half of a checkpoint is written.
    Checkpoint,
    /// A checkpoint is written and not yet renamed into place.
    Rename,
    /// Half of what says how much targets have accepted is written.
    QueueCut,
}

impl Point {
    /// All of them, by their names.
    pub const ALL: [(&'static str, Point); 5] = [
        ("append", Point::Append),
        ("apply", Point::Apply),
        ("checkpoint", Point::Checkpoint),
        ("rename", Point::Rename),
        ("queue-cut", Point::QueueCut),
    ];
}

#[cfg(debug_assertions)]
mod armed {
    use super::Point;
    use std::sync::atomic::{AtomicI64, Ordering};

    static LEFT: [AtomicI64; Point::ALL.len()] = [const { AtomicI64::new(0) }; Point::ALL.len()];

    /// The `times`-th passage of a point, from now on, ends the process.
    pub fn arm(point: Point, times: i64) {
        if let Some(left) = LEFT.get(point as usize) {
            left.store(times, Ordering::Relaxed);
        }
    }

    /// Passes a point.
    pub fn point(point: Point) {
        let Some(left) = LEFT.get(point as usize) else { return };
        if left.load(Ordering::Relaxed) > 0 && left.fetch_sub(1, Ordering::Relaxed) == 1 {
            // No destructor runs and nothing is flushed: as with SIGKILL.
            std::process::abort();
        }
    }
}

#[cfg(not(debug_assertions))]
mod armed {
    use super::Point;

    /// Nothing.
    pub fn arm(_: Point, _: i64) {}

    /// Nothing.
    #[inline(always)]
    pub fn point(_: Point) {}
}

pub use armed::{arm, point};

/// Arms the points that a text names, as `append=3,rename=1`.
///
/// # Errors
/// A name that is no point's, or a count that is none.
pub fn arm_all(text: &str) -> Result<(), String> {
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (name, times) = part.split_once('=').unwrap_or((part, "1"));
        let found = Point::ALL.iter().find(|(have, _)| *have == name);
        match (found, times.parse()) {
            (Some((_, point)), Ok(times)) => arm(*point, times),
            _ => return Err(format!("{part:?} is no fail point with a count, as in append=3")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_have_names() {
        assert!(arm_all("append=1000000,queue-cut=1000000,").is_ok());
        assert!(arm_all("nowhere=1").is_err() && arm_all("append=x").is_err());
        arm(Point::Append, 0);
        arm(Point::QueueCut, 0);
        point(Point::Append);
    }
}
