//! Models from one folder to another, and what a survey sees.

use super::*;
use crate::keeper::models::{Exported, Imported, export, import, read};
use crate::keeper::survey::survey;
use crate::labels::Selector;
use crate::rules::selector;
use crate::state::StateError;

const BODY: usize = 32 << 20;

/// A folder of so many minutes, its checkpoint at the end.
fn lived(minutes: i64) -> TempDir {
    let place = place();
    let kept = open(place.path(), RULES, &Arc::default(), plain());
    feed(&kept.engine, 0..minutes);
    kept.keeper.stop();
    place
}

fn exported(from: &Path, selectors: &str) -> (TempDir, Exported) {
    let (place, selectors) = (place(), parsed(selectors));
    let exported = export(from, &selectors, &place.path().join("models")).expect("exports");
    (place, exported)
}

fn parsed(text: &str) -> Vec<Selector> {
    if text.is_empty() { Vec::new() } else { selector::parse(text).expect("a selector") }
}

fn counts(imported: &Imported) -> [usize; 6] {
    let Imported { checkpoint: _, added, replaced, kept, unmatched, unusable, over_limit } = imported;
    [*added, *replaced, *kept, *unmatched, *unusable, *over_limit]
}

/// What is said of counters from a minute on.
fn said(heard: &Heard, from: i64) -> Vec<(String, i64, u64)> {
    let mut all = heard.sorted();
    all.retain(|(what, at, _)| what.starts_with("work_total") && *at >= from * STEP * 1000);
    all
}

#[test]
fn what_is_moved_goes_on_as_if_it_had_always_been_there() {
    let from = lived(60);
    let (file, exported) = exported(from.path(), "");
    assert_eq!((exported.series, exported.signals, exported.left), (48, 60, 0));
    let to = place();
    let models = || read(&exported.file).expect("reads");
    let missing = import(models(), &to.path().join("new"), None, false).expect_err("for which rules?");
    assert!(matches!(missing, StateError::Missing(_)), "{missing}");
    let imported = import(models(), to.path(), Some(rules(RULES)), false).expect("imports");
    assert_eq!(counts(&imported), [48, 0, 0, 0, 0, 0]);
    assert_eq!(counts(&import(models(), to.path(), None, false).expect("imports")), [0, 0, 48, 0, 0, 0]);
    assert_eq!(counts(&import(models(), to.path(), None, true).expect("imports")), [0, 48, 0, 0, 0, 0]);

    let (one, other) = (Arc::<Heard>::default(), Arc::<Heard>::default());
    for (place, heard) in [(&from, &one), (&to, &other)] {
        let kept = open(place.path(), RULES, heard, plain());
        assert_eq!(kept.keeper.report().found.series, 48);
        feed(&kept.engine, 60..90);
    }
    assert_eq!(said(&one, 60).len(), 30 * 2 * PODS as usize);
    assert_eq!(said(&other, 60), said(&one, 60));
    drop(file);
}

#[test]
fn only_what_is_asked_for_and_of_use_is_moved() {
    let from = lived(30);
    let (_file, exported) = exported(from.path(), "{__name__=~\"level|work_total\", pod=\"pod-1\"}");
    assert_eq!((exported.series, exported.signals, exported.left), (2, 3, 46));
    let other =
        "rules: [{name: a, match: level, min_samples: 21}, {name: b, match: work_total, min_samples: 20}]";
    for (text, expected) in [
        // The parameters of `work` are the same under any name.
        (other, [1, 0, 0, 0, 1, 0]),
        ("rules: [{name: a, match: level}]", [0, 0, 0, 1, 1, 0]),
        (RULES, [2, 0, 0, 0, 0, 0]),
    ] {
        let to = place();
        let models = read(&exported.file).expect("reads");
        let imported = import(models, to.path(), Some(rules(text)), false).expect("imports");
        assert_eq!(counts(&imported), expected, "{text}");
    }
    let to = place();
    let few = format!("limits: {{max_series: 1}}\n{RULES}");
    let imported = import(read(&exported.file).expect("reads"), to.path(), Some(rules(&few)), false);
    assert_eq!(counts(&imported.expect("imports")), [1, 0, 0, 0, 0, 1]);
    let refused = |selectors: &str, file: &str| {
        let error = export(from.path(), &parsed(selectors), &to.path().join(file)).expect_err("refused");
        assert!(!error.to_string().contains("damaged"), "{error}");
        error.to_string()
    };
    std::fs::write(to.path().join("there"), "mine").expect("writes");
    assert!(refused("", "there").ends_with("there: this file exists already; name another one"));
    assert!(refused("nowhere", "new").ends_with("none of its 48 series fits --match; nothing was written"));
    assert!(!to.path().join("new").exists());
}

#[test]
fn a_sidecar_that_runs_is_left_alone_and_damaged_models_too() {
    let from = lived(25);
    let (file, exported) = exported(from.path(), "level");
    let kept = open(from.path(), RULES, &Arc::default(), plain());
    let models = read(&exported.file).expect("reads");
    assert!(matches!(import(models, from.path(), None, false), Err(StateError::InUse(_))));
    assert!(survey(from.path(), true, BODY).expect("looks").in_use);
    drop(kept);
    assert!(!survey(from.path(), true, BODY).expect("looks").in_use);

    let whole = std::fs::read(&exported.file).expect("reads");
    let broken = file.path().join("broken");
    for at in (0..whole.len()).step_by(whole.len() / 300 + 1).chain(0..60) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        std::fs::write(&broken, &bytes).expect("writes");
        assert!(read(&broken).is_err(), "byte {at}");
        std::fs::write(&broken, &whole[..at]).expect("writes");
        assert!(read(&broken).is_err(), "cut at {at}");
    }
}

/// Its only file with an ending.
fn file(folder: &Path, ending: &str) -> std::path::PathBuf {
    let mut all: Vec<_> =
        std::fs::read_dir(folder).expect("lists").map(|entry| entry.expect("one").path()).collect();
    all.retain(|path| path.extension().is_some_and(|have| have == ending));
    all.sort();
    all.pop().expect("a file")
}

fn flip(path: &Path, back: usize) {
    let mut bytes = std::fs::read(path).expect("reads");
    let at = bytes.len() - back;
    bytes[at] ^= 4;
    std::fs::write(path, bytes).expect("writes");
}

#[test]
fn a_survey_counts_and_sees_damage() {
    let place = place();
    assert!(survey(place.path(), false, BODY).is_err(), "there is no state");
    let kept = open(place.path(), RULES, &Arc::default(), plain());
    feed(&kept.engine, 0..200);
    kept.keeper.checkpoint().expect("taken");
    feed(&kept.engine, 200..210);
    let sequence = kept.engine.sequence();
    drop(kept);

    for all in [false, true] {
        let found = survey(place.path(), all, BODY).expect("looks");
        assert_eq!((&found.problems, &found.notes), (&Vec::new(), &Vec::new()), "{found:?}");
        assert_eq!(found.checkpoints.len(), 2);
        let content = found.checkpoints[0].content.as_ref().expect("read");
        let by_rule: Vec<_> = content.rules.iter().map(|(rule, count)| (rule.as_str(), *count)).collect();
        assert_eq!(by_rule, [("gone", 24), ("work", 12), ("level", 12)]);
        assert_eq!((content.series, content.signals, content.unmatched), (48, 60, 0));
        assert_eq!(found.checkpoints[1].content.is_some(), all);
        assert_eq!(found.replay, sequence - found.checkpoints[0].sequence);
        assert!(found.replay >= 10 && found.incarnation.is_some() && !found.in_use);
        serde_json::to_value(&found).expect("JSON");
    }

    let log = file(&place.path().join("log"), "log");
    let whole = std::fs::read(&log).expect("reads");
    std::fs::write(&log, &whole[..whole.len() - 3]).expect("writes");
    let found = survey(place.path(), true, BODY).expect("looks");
    assert!(
        found.problems.is_empty() && found.notes[0].contains("the next start cuts them off"),
        "{found:?}"
    );
    std::fs::write(&log, &whole).expect("writes");
    flip(&log, 5);
    let found = survey(place.path(), true, BODY).expect("looks");
    assert!(found.problems[0].contains("checksum"), "{found:?}");
    std::fs::write(&log, &whole).expect("writes");

    // The older checkpoint is damaged too: only a look at everything sees it.
    let checkpoints = place.path().join("checkpoints");
    let older = survey(place.path(), false, BODY).expect("looks").checkpoints[1].file.clone();
    flip(&older, 100);
    assert!(survey(place.path(), false, BODY).expect("looks").problems.is_empty());
    assert!(survey(place.path(), true, BODY).expect("looks").problems[0].contains("damaged"));
    flip(&file(&checkpoints, "checkpoint"), 100);
    assert_eq!(survey(place.path(), true, BODY).expect("looks").problems.len(), 2);

    std::fs::rename(&older, older.with_extension("checkpoint.corrupt")).expect("renames");
    assert_eq!(survey(place.path(), false, BODY).expect("looks").set_aside.len(), 1);
}

#[test]
fn records_that_are_missing_are_a_problem() {
    let place = place();
    let mut checkpoint = 0;
    for minutes in [0..10, 10..20, 20..30] {
        let kept = open(place.path(), RULES, &Arc::default(), plain());
        checkpoint = kept.keeper.report().found.checkpoint.unwrap_or(0);
        feed(&kept.engine, minutes);
    }
    assert_eq!(survey(place.path(), true, BODY).expect("looks").problems, Vec::<String>::new());
    let mut logs: Vec<_> = std::fs::read_dir(place.path().join("log")).expect("lists").flatten().collect();
    logs.sort_by_key(|entry| entry.path());
    assert_eq!(logs.len(), 3);
    std::fs::remove_file(logs[1].path()).expect("removes");
    let found = survey(place.path(), true, BODY).expect("looks");
    let expected = format!("records {} to {} are not in the log", checkpoint + 11, checkpoint + 20);
    assert!(found.problems.len() == 1 && found.problems[0].starts_with(&expected), "{found:?}");
}
