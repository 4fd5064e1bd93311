//! File descriptors: connections must leave some for files and for the way out.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors kept for everything that is no incoming connection.
const KEPT: u64 = 256;

/// Raises the soft limit of open files to the hard one, as Go programs do, and says how many of the
/// `wanted` connections there may be. A lower number is logged.
pub fn connections(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    // Where that is refused the lower one counts.
    let raised = setrlimit(Resource::Nofile, raised).is_ok().then_some(raised);
    // `None` is no limit at all.
    let files = raised.unwrap_or(limit).current;
    let fits = fit(wanted, files);
    if fits < wanted {
        tracing::warn!(
            limit = fits,
            wanted,
            open_files = files,
            "fewer connections than limits.max_connections: the limit of open files (ulimit -n) is too low"
        );
    }
    fits
}

/// Of `files` descriptors [`KEPT`] stay free, or half of them where there are few.
fn fit(wanted: usize, files: Option<u64>) -> usize {
    let Some(files) = files else { return wanted };
    let fits = files.saturating_sub(KEPT).max(files / 2).max(1);
    wanted.min(usize::try_from(fits).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::fit;

    #[test]
    fn some_descriptors_stay_free() {
        assert_eq!(fit(10_000, Some(1024)), 768);
        assert_eq!(fit(10_000, Some(256)), 128);
        assert_eq!(fit(10_000, Some(1 << 20)), 10_000);
        assert_eq!((fit(10_000, None), fit(5, Some(0))), (10_000, 1));
    }
}
