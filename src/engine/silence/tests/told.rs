//! What is told of a series that stops, and until when.

use super::*;

#[test]
fn a_series_that_stops_while_up_comes_is_told_until_an_hour_is_over() {
    let run = Run::new(silent(), 0);
    let mut rows = scrapes("a", 0..100, true);
    rows.extend(ups("a", 100..600));
    // As Prometheus ends a series that is missing from a scrape.
    rows.push(Row("m", "a", 1_500, STALE));
    for chunk in with_b(rows).chunks(10) {
        run.send(chunk);
    }
    let said = run.said("a");
    let end = said.iter().position(|said| *said == (1_500, "stale")).expect("its scores end");
    let expected: Vec<_> =
        (0..15).map(|k| (1_785 + k * 240, "silent")).chain([(1_785 + 3_600, "stale")]).collect();
    assert_eq!(said[end + 1..], expected);
    let scores: Vec<f64> = run
        .kept
        .0
        .lock()
        .iter()
        .filter_map(|output| match output.value {
            OutputValue::Silent { score, since, .. } => {
                assert!(output.flagged() && output.emit && since == Millis(1_485_000));
                Some(score)
            }
            _ => None,
        })
        .collect();
    assert_eq!(scores[0], 1.0);
    assert!(scores.windows(2).all(|pair| pair[0] < pair[1]) && scores[14] < 4.0, "{scores:?}");
    assert!(run.silences("b").is_empty());
}

#[test]
fn what_comes_back_is_scored_again_and_keeps_its_order() {
    // Back just after it was due (1,785 s), before and after the minute, and after it was told.
    for (back, withheld, told) in
        [(118, 0, 0), (119, 0, 0), (120, 4, 1), (123, 1, 1), (124, 0, 1), (150, 0, 2)]
    {
        let run = Run::new(silent(), 0);
        let rows =
            with_b([scrapes("a", 0..100, true), ups("a", 100..back), scrapes("a", back..600, true)].concat());
        let mut handled = BTreeMap::new();
        for row in rows {
            for (reason, count) in run.send(&[row]).handled {
                *handled.entry(reason).or_insert(0u64) += count;
            }
        }
        let said = run.said("a");
        assert!(said.is_sorted_by_key(|(at, _)| *at), "{back}: {said:?}");
        assert_eq!(handled.get("withheld").copied().unwrap_or(0), withheld, "{back}");
        assert_eq!(run.silences("a").len(), told, "{back}: {said:?}");
        assert_eq!(said.len(), 100 - 59 + told + (600 - back) as usize - withheld as usize);
    }
}

#[test]
fn a_marker_in_the_minute_of_the_decision_leaves_the_end_to_the_silence() {
    // Due at 1,785 s, decided at 1,860 s as of 1,800 s; the marker comes before that or after it.
    for late in [0, 30, 59] {
        let run = Run::new(silent(), 0);
        let mut rows = with_b([scrapes("a", 0..100, false), vec![Row("m", "a", 1_815, STALE)]].concat());
        rows.sort_by_key(|row| row.2 + if row.1 == "a" { late } else { 0 });
        for row in rows {
            run.send(&[row]);
        }
        let said = run.said("a").split_off(100 - 59);
        assert_eq!(said, [(1_785, "silent"), (2_025, "stale")], "{late} s late");
    }
}

#[test]
fn in_a_window_silence_is_not_told_and_after_it_all_have_their_time() {
    let mut ignoring = silent();
    let when = window::When::Once(Millis(1_400_000), Millis(3_000_000));
    let once = window::Window { when, selectors: Vec::new(), comment: None };
    ignoring.ignore = Windows::new(vec![Arc::new(once)]);
    let run = Run::new(ignoring, 0);
    for row in with_b([scrapes("a", 0..100, true), ups("a", 100..600)].concat()) {
        run.send(&[row]);
    }
    assert_eq!(run.silences("a").first(), Some(&3_300));
}

#[test]
fn what_was_never_scored_is_not_told() {
    let run = Run::new(silent(), 0);
    for row in with_b([scrapes("a", 0..50, true), ups("a", 50..600)].concat()) {
        run.send(&[row]);
    }
    assert_eq!(run.said("a"), []);
}

#[test]
fn a_tick_lets_silence_fall_due() {
    let run = Run::new(silent(), 2);
    for row in scrapes("a", 0..100, false) {
        run.send(&[row]);
    }
    let tick = |seconds: i64| {
        let record = Record::Tick { group: String::new(), to: Millis(seconds * 1000) };
        run.engine.apply(record).expect("a tick").flagged
    };
    assert_eq!((tick(1_785), tick(1_859), tick(1_860), tick(1_870)), (0, 0, 1, 0));
    assert_eq!(run.silences("a"), [1_785]);
    let told = run.engine.signals(&[], 10);
    assert_eq!(told[0].standing, crate::engine::Standing::Silent { since: Millis(1_485_000) });
}

#[test]
fn rules_without_silence_end_it() {
    let run = Run::new(silent(), 0);
    let rows = with_b([scrapes("a", 0..100, true), ups("a", 100..600)].concat());
    let (before, after) = rows.split_at(rows.iter().position(|row| row.2 > 1_700).expect("later rows"));
    run.send(before);
    let mut plain = silent();
    plain.silence = None;
    run.engine.apply(Record::Rules(Arc::new(rules(vec![plain])))).expect("rules");
    for chunk in after.chunks(20) {
        run.send(chunk);
    }
    assert!(run.silences("a").is_empty());
}
