//! The rule of gaps.

use super::*;

const HOLD: Duration = Duration::from_secs(30);

fn at(seconds: i64) -> Millis {
    Millis(seconds * 1000)
}

fn clock(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Judges a body and notes it when it passes.
fn body(gaps: &mut Gaps, group: &str, first: i64, last: i64, now: u64) -> Verdict {
    let verdict = gaps.judge(group, at(first), at(last), clock(now));
    if verdict == Verdict::Pass {
        gaps.passed(group, at(last));
    }
    verdict
}

fn hole(verdict: Verdict) -> Hole {
    match verdict {
        Verdict::Begin(hole) => hole,
        other => panic!("no gap is found: {other:?}"),
    }
}

#[test]
fn a_jump_is_a_gap_and_small_ones_are_not() {
    let mut gaps = Gaps::new(HOLD);
    assert_eq!(body(&mut gaps, "", 1_000, 1_010, 0), Verdict::Pass, "the first of a group");
    assert_eq!(body(&mut gaps, "", 1_025, 1_130, 1), Verdict::Pass);
    assert_eq!(body(&mut gaps, "", 1_250, 1_250, 2), Verdict::Pass, "exactly two minutes");
    assert_eq!(body(&mut gaps, "", 500, 600, 3), Verdict::Pass, "the past");
    let found = hole(body(&mut gaps, "", 1_371, 1_380, 4));
    assert_eq!((found.from, found.to), (at(1_250), at(1_371)));
    // Everything later is held, what is older passes, other groups do not care.
    assert_eq!(body(&mut gaps, "", 1_372, 1_390, 5), Verdict::Hold);
    assert_eq!(body(&mut gaps, "", 1_240, 1_250, 5), Verdict::Pass);
    assert_eq!(body(&mut gaps, "", 1_240, 1_260, 5), Verdict::Hold);
    assert_eq!(body(&mut gaps, "other", 9_000, 9_000, 5), Verdict::Pass);
    assert!(gaps.open(&found, clock(33)) && gaps.filling() == 1);
    gaps.done(&found, true);
    assert!(!gaps.open(&found, clock(6)));
    assert_eq!(body(&mut gaps, "", 1_371, 1_380, 6), Verdict::Pass);
    assert_eq!(body(&mut gaps, "", 1_372, 1_390, 6), Verdict::Pass);
    gaps.done(&found, true);
    assert_eq!(body(&mut gaps, "", 1_395, 1_400, 7), Verdict::Pass, "a gap that is over is over");
}

#[test]
fn nobody_waits_longer_than_that() {
    let mut gaps = Gaps::new(HOLD);
    body(&mut gaps, "", 0, 0, 0);
    let found = hole(body(&mut gaps, "", 600, 610, 100));
    assert_eq!(body(&mut gaps, "", 600, 610, 129), Verdict::Hold);
    assert!(!gaps.open(&found, clock(130)));
    assert_eq!(body(&mut gaps, "", 600, 610, 130), Verdict::Pass);
    assert_eq!(gaps.filling(), 0);
    // The next one is another: what was late with the first does not end it.
    let next = hole(body(&mut gaps, "", 1_200, 1_210, 200));
    gaps.done(&found, true);
    assert!(gaps.open(&next, clock(201)));
}

#[test]
fn what_was_seen_before_this_process_counts() {
    let mut gaps = Gaps::new(HOLD);
    gaps.start("eu", at(1_000));
    assert_eq!(hole(body(&mut gaps, "eu", 4_000, 4_010, 0)).from, at(1_000));
    assert_eq!(body(&mut gaps, "us", 4_000, 4_010, 0), Verdict::Pass);
}

#[test]
fn groups_that_send_seldom_are_known_by_their_habit() {
    let mut gaps = Gaps::new(HOLD);
    body(&mut gaps, "", 0, 0, 0);
    let mut found = 0;
    for n in 1..40 {
        // Two targets of a five-minute interval, a second apart.
        for offset in [0, 1] {
            if let Verdict::Begin(hole) = body(&mut gaps, "", n * 300 + offset, n * 300 + offset, 0) {
                found += 1;
                gaps.done(&hole, false);
                assert_eq!(body(&mut gaps, "", n * 300 + offset, n * 300 + offset, 0), Verdict::Pass);
            }
        }
    }
    assert_eq!(found, 3, "three steps make a habit");
    assert_eq!(body(&mut gaps, "", 39 * 300 + 1_400, 39 * 300 + 1_400, 0), Verdict::Pass);
    let from = 39 * 300 + 1_400;
    assert_eq!(hole(body(&mut gaps, "", from + 1_501, from + 1_501, 0)).from, at(from));
}

#[test]
fn gaps_that_were_filled_do_not_become_a_habit() {
    let mut gaps = Gaps::new(HOLD);
    body(&mut gaps, "", 0, 0, 0);
    for n in 1..20 {
        let found = hole(body(&mut gaps, "", n * 600, n * 600, 0));
        gaps.done(&found, true);
        assert_eq!(body(&mut gaps, "", n * 600, n * 600, 0), Verdict::Pass);
    }
}

#[test]
fn groups_are_bounded() {
    let mut gaps = Gaps::new(HOLD);
    for n in 0..MAX_GROUPS + 10 {
        gaps.passed(&n.to_string(), at(0));
    }
    assert_eq!(gaps.groups.len(), MAX_GROUPS);
    assert_eq!(body(&mut gaps, &(MAX_GROUPS + 5).to_string(), 9_000, 9_000, 0), Verdict::Pass);
}

#[test]
fn a_far_step_is_counted_once() {
    let mut gaps = Gaps::new(HOLD);
    body(&mut gaps, "", 0, 0, 0);
    assert_eq!(gaps.suspect("", at(121)), Some(at(0)));
    assert_eq!(gaps.suspect("", at(120)), None);
    assert_eq!(gaps.suspect("unknown", at(1_000_000)), None);
}
