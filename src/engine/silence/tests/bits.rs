//! Neither lanes nor cuts nor senders change what is told.

use super::*;

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
