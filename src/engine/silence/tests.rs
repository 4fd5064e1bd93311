//! Silence as the engine's callers see it.

use super::*;
use crate::engine::testing::{rule, rules};
use crate::engine::{Applied, Engine, OutputBatch, OutputSink};
use crate::record::{Body, Record};
use crate::rules::{As, EmitWhen, Windows, window};
use crate::wire::encode::Encoder;
use crate::wire::{MetricKind, STALE_BITS, Sample, Version};
use parking_lot::Mutex;
use std::collections::BTreeMap;

#[derive(Default)]
struct Kept(Mutex<Vec<Output>>);

impl OutputSink for Kept {
    fn take(&self, batch: &Arc<OutputBatch>) {
        self.0.lock().extend(batch.outputs.iter().cloned());
    }
}

/// Name, instance, time in seconds, value.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Row(&'static str, &'static str, i64, f64);

const STALE: f64 = f64::from_bits(STALE_BITS);

fn body(rows: &[Row]) -> Record {
    let mut encoder = Encoder::new(Version::V2);
    for Row(name, instance, seconds, value) in rows {
        let labels = [("__name__", *name), ("instance", *instance), ("job", "j")];
        let sample = Sample { timestamp: seconds * 1000, value: *value };
        encoder.series(labels.into_iter(), MetricKind::Unknown, &[sample]);
    }
    let received = Millis(rows.iter().map(|row| row.2).max().unwrap_or(0) * 1000);
    Record::Body(Body::new(Version::V2, received, encoder.finish().into()))
}

fn silent() -> Rule {
    let mut rule = rule("r", "m.*", vec![As::Value]);
    rule.silence = Some(Silence { after: Span::minutes(5) });
    rule
}

struct Run {
    engine: Engine,
    kept: Arc<Kept>,
}

impl Run {
    fn new(rule: Rule, lanes: usize) -> Run {
        let kept = Arc::new(Kept::default());
        let sinks: Vec<Arc<dyn OutputSink>> = vec![kept.clone()];
        Run { engine: Engine::new(Arc::new(rules(vec![rule])), lanes, sinks), kept }
    }

    fn send(&self, rows: &[Row]) -> Applied {
        self.engine.apply(body(rows)).expect("a good body")
    }

    /// What was said of a series: time in seconds, and what; in the order in which it was said.
    fn said(&self, instance: &str) -> Vec<(i64, &'static str)> {
        let kept = self.kept.0.lock();
        let ours = kept.iter().filter(|output| output.labels.get("instance") == Some(instance));
        let said = |output: &Output| match output.value {
            OutputValue::Scored { .. } => "score",
            OutputValue::Silent { .. } => "silent",
            OutputValue::Stale => "stale",
        };
        ours.map(|output| (output.at.0 / 1000, said(output))).collect()
    }

    fn silences(&self, instance: &str) -> Vec<i64> {
        self.said(instance).into_iter().filter(|(_, what)| *what == "silent").map(|(at, _)| at).collect()
    }
}

/// Samples of `m` each 15 s, from step 0 on, and of `up` where asked.
fn scrapes(instance: &'static str, steps: std::ops::Range<i64>, up: bool) -> Vec<Row> {
    let one = |step: i64| {
        let value = 100.0 + f64::from((step * 7919 % 13) as i32);
        let m = Row("m", instance, step * 15, value);
        [Some(m), up.then_some(Row("up", instance, step * 15, 1.0))].into_iter().flatten()
    };
    steps.flat_map(one).collect()
}

fn ups(instance: &'static str, steps: std::ops::Range<i64>) -> Vec<Row> {
    steps.map(|step| Row("up", instance, step * 15, 1.0)).collect()
}

fn in_order(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort_by_key(|row| row.2);
    rows
}

/// The last sample of a hundred is at 1,485 s; `b` goes on.
fn with_b(rest: impl IntoIterator<Item = Row>) -> Vec<Row> {
    let mut rows = scrapes("b", 0..600, false);
    rows.extend(rest);
    in_order(rows)
}

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

/// Scores, silences and ends by series, time and bits.
fn digest(run: &Run) -> Vec<(String, i64, u64)> {
    let kept = run.kept.0.lock();
    let bits = |output: &Output| match output.value {
        OutputValue::Scored { score, .. } | OutputValue::Silent { score, .. } => score.to_bits(),
        OutputValue::Stale => 0,
    };
    let mut all: Vec<_> =
        kept.iter().filter(|o| o.emit).map(|o| (o.labels.to_string(), o.at.0, bits(o))).collect();
    all.sort();
    all
}

const PODS: [&str; 12] = ["p0", "p1", "p2", "p3", "p4", "p5", "p6", "p7", "p8", "p9", "pa", "pb"];

/// A fleet in which everything happens: series stop and come back, targets go, the source is away.
fn fleet() -> Vec<Row> {
    let mut rows = Vec::new();
    for (i, pod) in PODS.into_iter().enumerate() {
        let n = i as i64;
        let stop = 90 + 7 * n;
        let back = if i % 3 == 0 { 400 } else { stop + 14 + n };
        rows.extend(scrapes(pod, 0..stop, i % 4 != 3));
        rows.extend(scrapes(pod, back..400, i % 4 != 3));
        match i % 4 {
            0 => rows.extend(ups(pod, stop..back.min(stop + 45))),
            1 => rows.extend(ups(pod, stop..stop + 9)),
            2 => rows.extend([Row("up", pod, stop * 15, STALE), Row("m", pod, stop * 15, STALE)]),
            _ => {}
        }
    }
    rows.retain(|row| !(270..300).contains(&(row.2 / 15)));
    in_order(rows)
}

#[test]
fn lanes_and_cuts_do_not_change_a_bit() {
    let rows = fleet();
    let mut digests = Vec::new();
    for (lanes, cut) in [(0, 1), (1, 5), (2, 37), (3, 400)] {
        for when in [EmitWhen::Always, EmitWhen::Anomalous] {
            let mut rule = silent();
            rule.emit_when = when;
            let run = Run::new(rule, lanes);
            for chunk in rows.chunks(cut) {
                run.send(chunk);
            }
            digests.push((when, digest(&run)));
        }
    }
    let first = digests.iter().find(|(when, _)| *when == EmitWhen::Always).map(|(_, all)| all.len());
    assert!(first > Some(1_000), "{first:?}");
    for when in [EmitWhen::Always, EmitWhen::Anomalous] {
        let mut of = digests.iter().filter(|(have, _)| *have == when).map(|(_, digest)| digest);
        let one = of.next().expect("some");
        assert!(one.iter().any(|(.., bits)| *bits == 0), "an end");
        for other in of {
            assert_eq!(one, other);
        }
    }
}

#[test]
fn senders_less_than_a_minute_apart_do_not_change_a_bit() {
    let rows = fleet();
    // The last silence may not have fallen due yet for the one and for the other: a tick brings all there.
    let tick = Record::Tick { group: String::new(), to: Millis(6_100_000) };
    let mut digests = Vec::new();
    for late in [0, 15, 45, 59] {
        let run = Run::new(silent(), 2);
        // Half of the series come later than the rest, by that much.
        let mut order = rows.clone();
        let half = |row: &Row| PODS.iter().position(|pod| *pod == row.1).unwrap_or(0) % 2 == 0;
        order.sort_by_key(|row| row.2 + if half(row) { late } else { 0 });
        for chunk in order.chunks(1 + late as usize % 4) {
            run.send(chunk);
        }
        run.engine.apply(tick.clone()).expect("a tick");
        digests.push(digest(&run));
    }
    assert!(digests.windows(2).all(|pair| pair[0] == pair[1]));
    assert!(digests[0].len() > 1_000);
}

#[test]
fn series_without_silence_are_as_they_were() {
    let plain = || {
        let mut rule = rule("plain", "m", vec![As::Value]);
        rule.silence = None;
        rule
    };
    let run = |with: bool| {
        let kept = Arc::new(Kept::default());
        let mut list = vec![plain()];
        if with {
            let mut other = silent();
            (other.name, other.selectors) = ("other".into(), rule("x", "other", vec![]).selectors);
            list.push(other);
        }
        let engine = Engine::new(Arc::new(rules(list)), 2, vec![kept.clone() as Arc<dyn OutputSink>]);
        let run = Run { engine, kept };
        // Out of order within a body, too.
        let mut rows = fleet();
        rows.chunks_mut(50).for_each(|chunk| chunk.reverse());
        let mut handled = Vec::new();
        for chunk in rows.chunks(200) {
            handled.push(run.send(chunk).handled);
        }
        (digest(&run), handled)
    };
    assert!(run(true) == run(false));
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

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]

    /// Whatever comes and goes: neither lanes nor cuts nor senders up to a minute apart change a bit.
    #[test]
    fn interleaving_changes_nothing(
        // For each pod: phase in seconds, first stop, pause, second stop, what `up` does, how late it comes.
        pods in proptest::collection::vec((0i64..15, 62i64..140, 18i64..60, 10i64..90, 0usize..4, 0i64..60), 2..7),
        cut in 1usize..80,
        lanes in 0usize..3,
    ) {
        let mut rows = scrapes("anchor", 0..360, true).into_iter().map(|row| (0, row)).collect::<Vec<_>>();
        for ((phase, stop, pause, again, up, late), pod) in pods.into_iter().zip(PODS) {
            let back = stop + pause;
            let end = (back + again).min(330);
            let mut own = [scrapes(pod, 0..stop, up > 0), scrapes(pod, back..end, up > 0)].concat();
            match up {
                1 => own.extend(ups(pod, stop..back)),
                2 => own.extend([Row("up", pod, stop * 15, STALE), Row("m", pod, stop * 15, STALE)]),
                3 => own.extend([ups(pod, stop..back), ups(pod, end..360)].concat()),
                _ => {}
            }
            rows.extend(own.into_iter().map(|row| (late, Row(row.0, row.1, row.2 + phase, row.3))));
        }
        let play = |order: &[(i64, Row)], cut: usize, lanes: usize| {
            let run = Run::new(silent(), lanes);
            let rows: Vec<Row> = order.iter().map(|(_, row)| *row).collect();
            for chunk in rows.chunks(cut) {
                run.send(chunk);
            }
            run.engine.apply(Record::Tick { group: String::new(), to: Millis(5_520_000) }).expect("a tick");
            for pod in PODS {
                assert!(run.said(pod).is_sorted_by(|a, b| a.0 < b.0), "{pod}: {:?}", run.said(pod));
            }
            digest(&run)
        };
        rows.sort_by_key(|(_, row)| row.2);
        let one = play(&rows, 1, 0);
        rows.sort_by_key(|(late, row)| row.2 + late);
        proptest::prop_assert_eq!(&one, &play(&rows, cut, lanes));
        proptest::prop_assert_eq!(&one, &play(&rows, 1, lanes));
    }
}
