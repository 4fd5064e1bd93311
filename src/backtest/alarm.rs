//! The alarm score: where a score stands out of what came just before, at any height.
//!
//! A benchmark that counts every row above a threshold as an alarm, and sweeps the threshold, would
//! punish a score that stays high while an incident lasts. The alarm score is the score on the rows
//! that open an alarm at some threshold, and 0 elsewhere.

use std::collections::VecDeque;

/// The preceding quiet time, in usual intervals of the series.
pub const QUIET_INTERVALS: i64 = 100;
/// By how much a score must beat every score of the quiet time.
pub const MARGIN: f64 = 0.1;

/// The middle interval between the times, which must increase; 0 for fewer than two.
pub fn usual_interval(times: &[i64]) -> i64 {
    let mut intervals: Vec<i64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let middle = intervals.len() / 2;
    if intervals.is_empty() {
        return 0;
    }
    *intervals.select_nth_unstable(middle).1
}

/// The alarm scores of (time in ms, score) pairs in increasing order of time: the score where it
/// exceeds every score of the preceding `quiet` milliseconds by `margin`, else 0.
pub fn alarm_scores(scores: &[(i64, f64)], quiet: i64, margin: f64) -> Vec<f64> {
    // Scores that can still be the greatest of the window: times increase, scores decrease.
    let mut window: VecDeque<(i64, f64)> = VecDeque::new();
    let mut alarms = Vec::with_capacity(scores.len());
    for &(at, score) in scores {
        while window.front().is_some_and(|(old, _)| at.saturating_sub(*old) > quiet) {
            window.pop_front();
        }
        let before = window.front().map_or(0.0, |(_, score)| *score);
        alarms.push(if score > before + margin { score } else { 0.0 });
        while window.back().is_some_and(|(_, last)| *last <= score) {
            window.pop_back();
        }
        window.push_back((at, score));
    }
    alarms
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_score_must_beat_the_quiet_time_by_the_margin_at_any_height() {
        let scores = [0.2, 0.25, 0.5, 0.5, 3.0, 3.05, 2.0, 3.2, 0.0, 0.0, 0.0, 0.0, 0.4];
        let timed: Vec<_> = scores.iter().enumerate().map(|(i, s)| (i as i64 * 10, *s)).collect();
        let expected = [0.2, 0.0, 0.5, 0.0, 3.0, 0.0, 0.0, 3.2, 0.0, 0.0, 0.0, 0.0, 0.4];
        assert_eq!(alarm_scores(&timed, 40, 0.1), expected);
    }

    #[test]
    fn quiet_is_a_time_and_not_a_number_of_rows() {
        let timed = [(0, 5.0), (1000, 2.0), (1001, 1.0), (1002, 4.0)];
        assert_eq!(alarm_scores(&timed, 100, 0.1), [5.0, 2.0, 0.0, 4.0]);
        assert_eq!(alarm_scores(&timed, 2000, 0.1), [5.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn the_usual_interval_is_not_moved_by_a_gap() {
        assert_eq!(usual_interval(&[0, 60, 120, 9000, 9060]), 60);
        assert_eq!(usual_interval(&[5]), 0);
    }

    proptest! {
        #[test]
        fn it_is_what_a_plain_search_gives(
            steps in prop::collection::vec((1i64..50, 0.0f64..4.0), 0..120),
            quiet in 0i64..400,
        ) {
            let mut at = 0;
            let timed: Vec<(i64, f64)> = steps.iter().map(|(dt, s)| { at += dt; (at, *s) }).collect();
            let plain: Vec<f64> = timed.iter().enumerate().map(|(i, (at, score))| {
                let before = timed[..i].iter().filter(|(old, _)| at - old <= quiet);
                let before = before.map(|(_, s)| *s).fold(0.0, f64::max);
                if *score > before + MARGIN { *score } else { 0.0 }
            }).collect();
            prop_assert_eq!(alarm_scores(&timed, quiet, MARGIN), plain);
        }
    }
}
