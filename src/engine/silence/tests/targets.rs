//! Removed targets and sources that are away are not silent.

use super::*;

#[test]
fn removed_targets_are_not_told() {
    // A stale marker on `up`; `up` silent without one; no `up` known, but a stale marker.
    let marked = || {
        let mut rows = scrapes("a", 0..100, true);
        rows.extend([Row("m", "a", 1_500, STALE), Row("up", "a", 1_500, STALE)]);
        rows
    };
    let unknown = || {
        let mut rows = scrapes("a", 0..100, false);
        rows.push(Row("m", "a", 1_500, STALE));
        rows
    };
    for (case, rows) in [("marked", marked()), ("quiet", scrapes("a", 0..100, true)), ("unknown", unknown())]
    {
        let run = Run::new(silent(), 0);
        for row in with_b(rows) {
            run.send(&[row]);
        }
        assert_eq!(run.silences("a"), [0i64; 0], "{case}");
    }
    // Plain disappearance with no `up` known is silence, and so is a target that is down.
    for (case, up) in [("no up", false), ("down", true)] {
        let mut rows = scrapes("a", 0..100, up);
        if up {
            rows.extend((100..600).map(|step| Row("up", "a", step * 15, 0.0)));
        }
        let run = Run::new(silent(), 0);
        for row in with_b(rows) {
            run.send(&[row]);
        }
        assert_eq!(run.silences("a").len(), 15, "{case}");
    }
}

#[test]
fn a_target_that_is_removed_later_ends_what_is_told() {
    let run = Run::new(silent(), 0);
    let mut rows = scrapes("a", 0..100, true);
    rows.extend(ups("a", 100..160));
    rows.push(Row("up", "a", 2_400, STALE));
    for row in with_b(rows) {
        run.send(&[row]);
    }
    let said = run.said("a");
    assert_eq!(
        said[said.len() - 4..],
        [(1_785, "silent"), (2_025, "silent"), (2_265, "silent"), (2_505, "stale")]
    );
}

#[test]
fn an_up_that_a_rule_takes_tells_of_its_target_too() {
    let mut taking = silent();
    taking.selectors = rule("x", "m|up", vec![]).selectors;
    let run = Run::new(taking, 2);
    let gone = [Row("m", "gone", 1_500, STALE), Row("up", "gone", 1_500, STALE)];
    let rows = [scrapes("a", 0..100, true), ups("a", 100..600), scrapes("gone", 0..100, true), gone.to_vec()];
    for chunk in with_b(rows.concat()).chunks(30) {
        run.send(chunk);
    }
    assert_eq!(run.silences("a").len(), 15);
    assert!(run.silences("gone").is_empty());
}

#[test]
fn an_outage_of_the_source_makes_nothing_silent() {
    let run = Run::new(silent(), 0);
    for row in in_order([scrapes("a", 0..100, true), scrapes("b", 0..100, true)].concat()) {
        run.send(&[row]);
    }
    // An hour later all come back but `gone`, whose target does.
    for row in in_order([scrapes("a", 340..400, true), scrapes("b", 340..400, true)].concat()) {
        run.send(&[row]);
    }
    for instance in ["a", "b"] {
        let said = run.said(instance);
        assert!(said.iter().all(|(_, what)| *what == "score"), "{said:?}");
        assert_eq!(said.len(), 160 - 59, "no output is withheld for it");
    }
}

#[test]
fn who_does_not_come_back_after_an_outage_is_given_its_time_anew() {
    let run = Run::new(silent(), 0);
    for row in in_order([scrapes("a", 0..100, true), scrapes("b", 0..100, true)].concat()) {
        run.send(&[row]);
    }
    for row in in_order([ups("a", 340..400), scrapes("b", 340..400, true)].concat()) {
        run.send(&[row]);
    }
    // 5,100 s is when the source is back.
    assert_eq!(run.silences("a"), [5_400, 5_640, 5_880]);
    assert!(run.silences("b").is_empty());
}

#[test]
fn a_source_that_is_away_does_not_concern_another() {
    let run = Run::new(silent(), 1);
    let send = |cluster: &str, instance: &str, seconds: i64| {
        let mut encoder = Encoder::new(Version::V1);
        let labels = [("__name__", "m"), ("cluster", cluster), ("instance", instance)];
        let sample = Sample { timestamp: seconds * 1000, value: (seconds % 7) as f64 };
        encoder.series(labels.into_iter(), MetricKind::Unknown, &[sample]);
        let received = Millis(seconds * 1000);
        let body = Body::new(Version::V1, received, encoder.finish().into());
        run.engine.apply(Record::Body(body)).expect("a good body");
    };
    for step in 0..600 {
        let at = step * 15;
        send("eu", "stays", at);
        if step < 100 {
            send("eu", "stops", at);
            send("us", "away", at);
        }
    }
    assert_eq!(run.silences("stops").len(), 15);
    assert!(run.silences("away").is_empty() && run.silences("stays").is_empty());
}
