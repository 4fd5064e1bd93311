use super::*;
use crate::detect::{Detector, DetectorSet, Direction, MinChange, Periods, Season};
use crate::rules::model::{As, EmitSet, EmitWhen, Share, Silence};

fn parse(text: &str) -> RuleSet {
    match RuleSet::parse("rules.yaml", text) {
        Ok((rules, _)) => {
            restores(&rules);
            rules
        }
        Err(problems) => panic!("{problems}"),
    }
}

/// What a checkpoint keeps of the rules makes the same rules again.
fn restores(rules: &RuleSet) {
    let again = RuleSet::restore(&rules.source).expect("its own source");
    assert_eq!(format!("{again:?}"), format!("{rules:?}"));
    let keys = |set: &RuleSet| set.rules.iter().map(|rule| rule.params.key()).collect::<Vec<_>>();
    assert_eq!(keys(&again), keys(rules));
    let parsed = RuleSet::parse("checkpoint", &rules.source).expect("its own source").0;
    assert_eq!(parsed.source, rules.source);
}

#[test]
fn rules_come_back_from_what_a_checkpoint_keeps_and_secrets_do_not() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec![root.join("rules.yaml")];
    for entry in std::fs::read_dir(root.join("examples")).expect("the examples") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("rules") && name.ends_with(".yaml") {
            files.push(path);
        }
    }
    assert!(files.len() > 3, "{files:?}");
    for file in files {
        let rules = parse(&std::fs::read_to_string(&file).expect("readable"));
        assert!(!rules.source.contains("http") || !rules.source.contains("://"), "{}", file.display());
    }
    let text = "server: {listen: ':1'}\nstate: {dir: here, forget_after: 2h}\nlimits: {max_series: 5, max_body_bytes: 4096}\n\
                remote_write: [{url: 'http://x', basic_auth: {username: u, password: hunter2}}]\n\
                rules: &r [{name: \"a\\u2028\\u0085 # b\", match: up}] # said\n";
    let source = parse(text).source;
    let expected = r#"{"state":{"forget_after":"2h"},"limits":{"max_series":"5"},"#;
    assert_eq!(&*source, expected.to_string() + r#""rules":[{"name":"a\u2028\u0085 # b","match":"up"}]}"#);
    assert!(RuleSet::restore("").is_err() && RuleSet::restore("{").is_err());
}

#[test]
fn rules_that_aliases_make_huge_are_refused() {
    let item = "x".repeat(200_000);
    let text =
        format!("rules: [{{name: a, match: up, labels: {{a: &a {item}, b: [{}]}}}}]", "*a,".repeat(50));
    let all = problems(&text);
    assert!(all.iter().any(|problem| problem.contains("aliases written out")), "{}", all[0].len());
}

fn problems(text: &str) -> Vec<String> {
    let problems = RuleSet::parse("r", text).map(|_| ()).expect_err(text);
    problems.0.iter().map(ToString::to_string).collect()
}

/// The one problem of a rule with this line in it.
fn problem_of(line: &str) -> String {
    let mut all = problems(&format!("rules:\n- name: a\n  match: up\n  {line}\n"));
    assert_eq!(all.len(), 1, "{line}: {all:?}");
    all.remove(0)
}

fn rule_of(line: &str) -> Rule {
    let set = parse(&format!("rules:\n- name: a\n  match: up\n  {line}\n"));
    Rule::clone(&set.rules[0])
}

#[test]
fn a_rule_says_little_and_the_rest_is_default() {
    let set = parse("rules: [{name: node, match: node_load1}]");
    let rule = &set.rules[0];
    assert_eq!((rule.name.as_str(), rule.selectors.len()), ("node", 1));
    assert_eq!((&rule.params, rule.read), (&Default::default(), Default::default()));
    assert_eq!(rule.emit, EmitSet { score: true, flag: true, bands: false, detectors: false });
    assert!(rule.transforms.is_empty() && !rule.buckets);
    assert_eq!((set.identity, set.limits), (Identity::default(), Limits::default()));
    assert_eq!((set.forget_after, set.output_names), (Span::hours(24), OutputNames::Oddity));
}

#[test]
fn defaults_reach_every_rule_and_rules_win() {
    let set = parse(
        "defaults: {false_alarms: 1 per 7d, models: {ewma: {half_life: 5m}, zscore: {window: 32}},
           min_change: {absolute: 2}, labels: {team: a, tier: '1'}, detectors: [ewma], quiet: 10m}
rules:
- {name: a, match: a}
- {name: b, match: b, false_alarms: 2 per 7d, models: {zscore: {window: 16}},
   min_change: {relative: 10%}, labels: {team: b}, detectors: [rarity, zscore]}",
    );
    let (a, b) = (&set.rules[0], &set.rules[1]);
    assert_eq!(a.read.budget, Span::days(7));
    assert_eq!(b.read.budget, Span::hours(84));
    assert_eq!((a.params.zscore_window, b.params.zscore_window), (32, 16));
    assert_eq!((b.params.ewma_half_life, b.read.quiet), (Span::minutes(5), Some(Span::minutes(10))));
    assert_eq!(b.read.min_change, MinChange { absolute: 2.0, relative: 0.1 });
    assert_eq!(b.labels, [("team".into(), "b".into()), ("tier".into(), "1".into())]);
    assert_eq!(a.params.detectors, DetectorSet(0).with(Detector::Ewma));
    assert!(b.params.detectors.has(Detector::Rarity) && !b.params.detectors.has(Detector::Ewma));
}

fn fixed(periods: &[Span]) -> Season {
    Season::Fixed(Periods::new(periods).expect("sound"))
}

#[test]
fn seasons_of_other_periods_are_other_models() {
    let texts = ["none", "auto", "[24h]", "[7d]", "[24h, 7d]", "[90m]", "[90m, 7d]", "[31d]", "[10m]"];
    let keys: std::collections::BTreeSet<_> =
        texts.iter().map(|text| rule_of(&format!("season: {text}")).params.key()).collect();
    assert_eq!(keys.len(), texts.len());
    assert_eq!(rule_of("season: [7d, 24h]").params.key(), rule_of("season: [1d, 1w]").params.key());
}

#[test]
fn every_field_of_a_rule() {
    let rule = rule_of("as: [rate, quantile(0.99)]");
    assert_eq!(rule.transforms, [As::Rate, As::Quantile(Share::new(0.99).expect("a share"))]);
    assert_eq!(rule_of("as: auto").transforms, []);
    assert_eq!(rule_of("direction: up").read.direction, Direction::Up);
    assert_eq!(rule_of("season: [7d, 24h]").params.season, fixed(&[Span::DAY, Span::days(7)]));
    assert_eq!(rule_of("season: [90m]").params.season, fixed(&[Span::minutes(90)]));
    assert_eq!(rule_of("season: [8h, 7d]").params.season, fixed(&[Span::hours(8), Span::days(7)]));
    assert_eq!(rule_of("season: none").params.season, Season::None);
    assert_eq!(rule_of("season: 1d").params.season, fixed(&[Span::DAY]));
    assert_eq!(rule_of("emit_when: changed").emit_when, EmitWhen::Changed);
    assert_eq!(rule_of("silence: {after: 5m}").silence, Some(Silence { after: Span::minutes(5) }));
    assert_eq!(rule_of("identity_without: [pod]").identity_without, ["pod"]);
    assert_eq!(rule_of("cohort: [job, metric]").cohort, ["job", "metric"]);
    let emit = rule_of("emit: []").emit;
    assert!(!(emit.score || emit.flag || emit.bands || emit.detectors));
    assert!(rule_of("emit: [bands, detectors]").emit.bands);
    assert!(rule_of("buckets: true").buckets);
    assert_eq!((rule_of("max_series: 500").max_series, rule_of("").max_series), (Some(500), None));
    assert_eq!(rule_of("min_samples: 10").params.min_samples, 10);
    assert_eq!(rule_of("accept_shift_after: 1h").params.accept_shift_after, Span::HOUR);
    assert_eq!(
        rule_of("models: {holt_winters: {alpha: 1, beta: 0, gamma: 0.5, phi: 0.9}}").params.alpha,
        1.0
    );
}

#[test]
fn a_time_zone_is_part_of_the_models_key() {
    let keys = ["UTC", "Europe/Berlin", "Europe/Paris"].map(|zone| {
        let params = rule_of(&format!("timezone: {zone}")).params;
        assert_eq!(params.zone.name(), zone);
        params.key()
    });
    assert!(keys[0] != keys[1] && keys[1] != keys[2]);
    assert_eq!(keys[0], rule_of("direction: up").params.key());
    assert!(problem_of("timezone: Mars/Base").contains("not a known time zone"));
}

#[test]
fn selection_follows_the_order_of_the_rules() {
    let set =
        parse("rules:\n- {name: a, match: ['x{job=\"1\"}', y]}\n- {name: b, match: '{__name__=~\"x|y\"}'}");
    let pick = |name: &'static str, job: &'static str| {
        set.select(|label| match label {
            "__name__" => Some(name),
            "job" => Some(job),
            _ => None,
        })
    };
    assert_eq!(
        (pick("x", "1"), pick("x", "2"), pick("y", "2"), pick("z", "")),
        (Some(0), Some(1), Some(0), None)
    );
}

#[test]
fn each_mistake_is_named_where_it_stands() {
    for (line, at, part) in [
        ("as: ratio", "r:4:7: rules[0].as", "expected auto, value"),
        ("as: [rate, auto]", "r:4:14: rules[0].as[1]", "stands alone"),
        ("as: [rate, rate]", "r:4:14: rules[0].as[1]", "twice"),
        ("as: quantile(1.5)", "r:4:7: rules[0].as", "from 0 to 1"),
        ("as: quantile(0.1234567)", "r:4:7: rules[0].as", "at most six decimals"),
        ("direction: upp", "r:4:14: rules[0].direction", "did you mean \"up\"?"),
        ("season: [5m]", "r:4:12: rules[0].season[0]", "from 10m to 31d"),
        ("season: 32d", "r:4:11: rules[0].season", "a season lasts from 10m to 31d, not 32d"),
        ("season: [24h, 7d, 8h]", "r:4:11: rules[0].season", "at most two seasons"),
        ("season: [24h, 1d]", "r:4:11: rules[0].season", "the season 1d is named twice"),
        ("season: []", "r:4:11: rules[0].season", "expected none, auto or a list"),
        ("false_alarms: often", "r:4:17: rules[0].false_alarms", "1 per 30d"),
        ("min_change: {relative: ten}", "r:4:26: rules[0].min_change.relative", "10% or 0.1"),
        ("min_change: {absolute: -1}", "r:4:26: rules[0].min_change.absolute", "at least 0"),
        ("models: {zscore: {window: 3}}", "r:4:29: rules[0].models.zscore.window", "from 4 to 4096"),
        ("models: {holt_winters: {phi: 0}}", "r:4:32: rules[0].models.holt_winters.phi", "above 0"),
        ("detectors: []", "r:4:14: rules[0].detectors", "at least one"),
        ("detectors: [zscores]", "r:4:15: rules[0].detectors[0]", "did you mean \"zscore\"?"),
        ("labels: {rule: x}", "r:4:12: rules[0].labels.rule", "oddity itself"),
        ("labels: {0x: x}", "r:4:12: rules[0].labels.0x", "label name"),
        ("silence: {}", "r:4:12: rules[0].silence", "`after` is missing"),
        ("silence: {after: 5s}", "r:4:20: rules[0].silence.after", "from 1m to 30d"),
        (
            "silence: {after: 23h}",
            "r:4:20: rules[0].silence.after",
            "`state.forget_after` must be at least 2h",
        ),
        ("emit: [score, scores]", "r:4:17: rules[0].emit[1]", "did you mean \"score\"?"),
        ("notify: x", "r:4:3: rules[0].notify", "later version"),
        ("false_alarm: 1 per 7d", "r:4:3: rules[0].false_alarm", "did you mean `false_alarms`?"),
        ("name: b", "r:4:3: rules[0].name", "given twice"),
        ("quiet: 0", "r:4:10: rules[0].quiet", "from 1s to 7d"),
    ] {
        let problem = problem_of(line);
        assert!(problem.starts_with(&format!("{at}: ")) && problem.contains(part), "{line}: {problem}");
    }
}

#[test]
fn windows_of_the_file_hold_for_every_rule_beside_its_own() {
    let set = parse(
        "ignore:\n- {cron: '0 2 * * sun', duration: 2h, timezone: Europe/Berlin, comment: backups}\n\
         rules:\n- {name: a, match: up, ignore: [{from: 2026-01-01T00:00:00Z, to: 2026-01-01T06:00:00+01:00, match: 'up{job=\"x\"}'}]}\n\
         - {name: b, match: down}\n",
    );
    let shown = |n: usize| set.rules[n].ignore.iter().map(|w| w.when.to_string()).collect::<Vec<_>>();
    let weekly = "0 2 * * sun for 2h (Europe/Berlin)";
    assert_eq!(shown(0), [weekly, "2026-01-01T00:00:00Z to 2026-01-01T05:00:00Z"]);
    assert_eq!(shown(1), [weekly]);
    let own = set.rules[0].ignore.iter().nth(1).expect("two");
    assert_eq!((own.selectors.len(), &own.comment), (1, &None));
    assert_eq!(set.rules[1].ignore.iter().next().and_then(|w| w.comment.clone()), Some("backups".into()));
}

#[test]
fn each_mistake_in_a_window_is_named_where_it_stands() {
    for (window, at, part) in [
        ("{}", "r:4:12: rules[0].ignore[0]", "expected `from` and `to`, or `cron`"),
        ("{from: 2026-01-01T00:00:00Z}", "r:4:12: rules[0].ignore[0]", "`to` is missing"),
        ("{to: 2026-01-01T00:00:00Z}", "r:4:12: rules[0].ignore[0]", "`from` is missing"),
        (
            "{from: 2026-01-01, to: 2026-01-02T00:00:00Z}",
            "r:4:19: rules[0].ignore[0].from",
            "expected a time with its offset",
        ),
        (
            "{from: 2026-01-02T00:00:00Z, to: 2026-01-01T00:00:00Z}",
            "r:4:45: rules[0].ignore[0].to",
            "closes before it opens",
        ),
        ("{cron: 0 2 * *, duration: 2h}", "r:4:19: rules[0].ignore[0].cron", "expected five fields"),
        ("{cron: 0 25 * * 0, duration: 2h}", "r:4:19: rules[0].ignore[0].cron", "hour: expected 0 to 23"),
        ("{cron: 0 2 * * 0}", "r:4:12: rules[0].ignore[0]", "`duration` is missing"),
        ("{cron: 0 2 * * 0, duration: 1s}", "r:4:40: rules[0].ignore[0].duration", "from 1m to 31d"),
        (
            "{cron: 0 2 * * 0, duration: 2h, timezone: Mars/Base}",
            "r:4:54: rules[0].ignore[0].timezone",
            "not a known time zone",
        ),
        (
            "{cron: 0 2 * * 0, duration: 2h, to: 2026-01-01T00:00:00Z}",
            "r:4:48: rules[0].ignore[0].to",
            "either `cron` or",
        ),
        (
            "{from: 2026-01-01T00:00:00Z, to: 2026-01-02T00:00:00Z, duration: 2h}",
            "r:4:77: rules[0].ignore[0].duration",
            "goes with `cron`",
        ),
        ("{cron: 0 2 * * 0, duration: 2h, match: '{'}", "r:4:51: rules[0].ignore[0].match", "not a valid"),
        (
            "{cron: 0 2 * * 0, duration: 2h, matc: up}",
            "r:4:44: rules[0].ignore[0].matc",
            "did you mean `match`?",
        ),
    ] {
        let problem = problem_of(&format!("ignore: [{window}]"));
        assert!(problem.starts_with(&format!("{at}: ")) && problem.contains(part), "{window}: {problem}");
    }
    assert!(problem_of("ignore: nightly").contains("expected a list"));
    let all = problems("defaults: {ignore: []}\nrules: [{name: a, match: up}]");
    assert!(all.len() == 1 && all[0].contains("defaults.ignore: write it at the top level"), "{all:?}");
}

#[test]
fn the_top_level_is_checked_too() {
    for (text, part) in [
        ("", "r:1:1: `rules` is missing: say which series"),
        ("# only a remark\n", "r:1:1: `rules` is missing"),
        ("rules: []", "r:1:8: rules: there is no rule"),
        ("rules: {a: b}", "r:1:8: rules: expected a list"),
        ("[a]", "r:1:1: expected fields"),
        ("just text", "r:1:1: expected fields"),
        ("rules: [{match: up}]", "r:1:9: rules[0]: `name` is missing"),
        ("rules: [{name: a}]", "r:1:9: rules[0]: `match` is missing"),
        ("rules: [{name: a, match: 'rate(up[5m])'}]", "rules[0].match: the function rate()"),
        ("rules: [{name: a, match: [up, '{']}]", "rules[0].match[1]: not a valid selector"),
        ("rules: [{name: a, match: up}, {name: a, match: up}]", "rules[1].name: there is already"),
        ("forecast: 1\nrules: [{name: a, match: up}]", "r:1:1: forecast: reserved"),
        ("rule: 1\nrules: [{name: a, match: up}]", "r:1:1: rule: unknown field; did you mean `rules`?"),
        ("output_names: vm\nrules: [{name: a, match: up}]", "output_names: expected oddity or vmanomaly"),
        ("partition_by: []\nrules: [{name: a, match: up}]", "partition_by: expected at least one"),
        (
            "rules: [{name: a, match: up, detectors: isolation}]",
            "isolation looks at the distances that others",
        ),
        ("limits: {max_series: 0}\nrules: [{name: a, match: up}]", "limits.max_series: expected a whole"),
        ("ha: {cluster_label: a, replica_label: a}\nrules: [{name: a, match: up}]", "different labels"),
    ] {
        let all = problems(text);
        assert!(all.len() == 1 && all[0].contains(part), "{text}: {all:?}");
    }
}

#[test]
fn fields_of_rules_are_acted_on_without_remark() {
    let text = "rules:\n- name: a\n  match: up\n  silence: {after: 5m}\n  identity_without: [pod]\n  cohort: [job]\n";
    let (_, notes) = RuleSet::parse("r", text).expect("valid");
    assert!(notes.is_empty(), "{notes:?}");
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in r#"([a-z]{1,9}|rules|name|match|as|\n|  |- |: |\[|\]|\{|\}|,|'|"|&a|\*a|\||>|#|!|%|~|1|\t|é){0,40}"#) {
        let _ = RuleSet::parse("r", &text);
    }
}
