//! What may stand in `defaults` and in each rule.

use super::{LATER, is_label_name, label_names};
use crate::detect::{Detector, DetectorSet, Direction, Periods, Season};
use crate::labels::{LabelLimits, Selector};
use crate::rules::budget::Budget;
use crate::rules::model::{As, EmitSet, EmitWhen, OutputNames, Rule, Share, Silence};
use crate::rules::window::Windows;
use crate::rules::yaml::{Map, Node};
use crate::time::{Span, Zone};

/// What a rule is but for its name, selectors and windows.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    rule: Rule,
    /// How long a series is remembered: bounds `silence`.
    forget_after: Span,
}

impl Settings {
    /// The defaults, where series are remembered for so long.
    pub(super) fn remembered_for(forget_after: Span) -> Settings {
        Settings { rule: Rule::new("", Vec::new()), forget_after }
    }

    pub(super) fn into_rule(self, name: String, selectors: Vec<Selector>, ignore: Windows) -> Rule {
        Rule { name, selectors, ignore, ..self.rule }
    }

    /// Takes over what a map says; what it leaves out stays as it is.
    pub(super) fn read(&mut self, map: &mut Map<'_>, names: OutputNames) {
        set(&mut self.rule.transforms, map.take("as").and_then(|node| transforms(&node)));
        self.read_out(map);
        self.models(map);
        self.season(map);
        self.outputs(map, names);
        if let Some(mut fields) = map.take("silence").and_then(|node| node.map()) {
            let after = fields.require("after", "how long a series may be silent, such as 5m");
            let after = after.and_then(|node| self.silent_after(&node));
            self.rule.silence = after.map(|after| Silence { after }).or(self.rule.silence);
            fields.finish();
        }
        for (name, to) in
            [("identity_without", &mut self.rule.identity_without), ("cohort", &mut self.rule.cohort)]
        {
            if let Some(node) = map.take(name) {
                set(to, label_names(&node));
            }
        }
        let most = map.take("max_series").and_then(|node| node.size(1..=1_000_000_000));
        self.rule.max_series = most.or(self.rule.max_series);
        set(&mut self.rule.buckets, map.take("buckets").and_then(|node| node.bool()));
        for name in ["forecast", "narrate", "notify", "responses"] {
            map.refuse(name, LATER);
        }
    }

    /// A silence is told for an hour; the series must be remembered for so long.
    fn silent_after(&self, node: &Node<'_>) -> Option<Span> {
        let after = node.duration(Span::MINUTE..=Span::days(30))?;
        if after.0 + 2 * Span::HOUR.0 > self.forget_after.0 {
            node.error(format!(
                "a series that is silent for {} is forgotten: `state.forget_after` must be at least 2h longer \
                 than `after`",
                self.forget_after
            ));
        }
        Some(after)
    }

    /// How scores are read out of the evidence.
    fn read_out(&mut self, map: &mut Map<'_>) {
        if let Some(budget) = map.take("false_alarms").and_then(|node| node.parse(Budget::parse)) {
            self.rule.read.budget = budget.span;
        }
        if let Some(quiet) = map.take("quiet").and_then(|node| node.duration(Span::SECOND..=Span::days(7))) {
            self.rule.read.quiet = Some(quiet);
        }
        let directions = [("both", Direction::Both), ("up", Direction::Up), ("down", Direction::Down)];
        set(&mut self.rule.read.direction, map.take("direction").and_then(|node| node.choice(&directions)));
        if let Some(mut fields) = map.take("min_change").and_then(|node| node.map()) {
            let change = &mut self.rule.read.min_change;
            let absolute = fields.take("absolute");
            let absolute = absolute.and_then(|node| node.number("a number of at least 0", |x| x >= 0.0));
            set(&mut change.absolute, absolute);
            set(&mut change.relative, fields.take("relative").and_then(|node| node.parse(fraction)));
            fields.finish();
        }
    }

    /// What shapes the models.
    fn models(&mut self, map: &mut Map<'_>) {
        let params = &mut self.rule.params;
        let detectors = map.take("detectors");
        set(&mut params.detectors, detectors.and_then(|node| detector_set(&node)));
        let samples = map.take("min_samples").and_then(|node| node.whole(2..=1_000_000));
        set(&mut params.min_samples, samples.and_then(|n| u32::try_from(n).ok()));
        let accept = map.take("accept_shift_after");
        let accept = accept.and_then(|node| node.duration(Span::MINUTE..=Span::days(365)));
        set(&mut params.accept_shift_after, accept);
        let Some(mut models) = map.take("models").and_then(|node| node.map()) else { return };
        if let Some(mut ewma) = models.take("ewma").and_then(|node| node.map()) {
            let half_life = ewma.take("half_life");
            let half_life = half_life.and_then(|node| node.duration(Span::SECOND..=Span::days(30)));
            set(&mut params.ewma_half_life, half_life);
            ewma.finish();
        }
        if let Some(mut zscore) = models.take("zscore").and_then(|node| node.map()) {
            let window = zscore.take("window").and_then(|node| node.whole(4..=4096));
            set(&mut params.zscore_window, window.and_then(|n| u16::try_from(n).ok()));
            zscore.finish();
        }
        if let Some(mut gains) = models.take("holt_winters").and_then(|node| node.map()) {
            let above = "a number above 0 and at most 1";
            let within = "a number from 0 to 1";
            let positive = |x: f64| x > 0.0 && x <= 1.0;
            set(&mut params.alpha, gains.take("alpha").and_then(|node| node.number(above, positive)));
            let unit = |x: f64| (0.0..=1.0).contains(&x);
            set(&mut params.beta, gains.take("beta").and_then(|node| node.number(within, unit)));
            set(&mut params.gamma, gains.take("gamma").and_then(|node| node.number(within, unit)));
            set(&mut params.phi, gains.take("phi").and_then(|node| node.number(above, positive)));
            gains.finish();
        }
        models.refuse("rarity", "rarity has no parameters; remove it");
        models.finish();
    }

    fn season(&mut self, map: &mut Map<'_>) {
        set(&mut self.rule.params.season, map.take("season").and_then(|node| season(&node)));
        set(&mut self.rule.params.zone, map.take("timezone").and_then(|node| node.parse(Zone::named)));
    }

    fn outputs(&mut self, map: &mut Map<'_>, names: OutputNames) {
        set(&mut self.rule.emit, map.take("emit").and_then(|node| emit(&node)));
        let when = [
            ("always", EmitWhen::Always),
            ("changed", EmitWhen::Changed),
            ("anomalous", EmitWhen::Anomalous),
        ];
        set(&mut self.rule.emit_when, map.take("emit_when").and_then(|node| node.choice(&when)));
        for (key, name, node) in map.take("labels").and_then(|node| node.pairs()).unwrap_or_default() {
            // A map with a name twice is complained of by `pairs`.
            if let Some(value) = output_label(&key, &name, &node, names) {
                self.rule.labels.retain(|(have, _)| *have != name);
                self.rule.labels.push((name, value));
            }
        }
        self.rule.labels.sort();
    }
}

fn set<T>(to: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *to = value;
    }
}

/// `10%` or `0.1`.
fn fraction(text: &str) -> Result<f64, String> {
    let (number, scale) = match text.strip_suffix('%') {
        Some(number) => (number.trim_end(), 100.0),
        None => (text, 1.0),
    };
    match number.parse::<f64>() {
        Ok(x) if x.is_finite() && x >= 0.0 => Ok(x / scale),
        _ => Err(format!("expected a share of the expected value, such as 10% or 0.1, found {text:?}")),
    }
}

fn transform(text: &str) -> Result<As, String> {
    let wrong = || {
        format!(
            "expected auto, value, rate, delta, count_rate, mean or quantile(q) with q from 0 to 1, found {text:?}"
        )
    };
    Ok(match text {
        "value" => As::Value,
        "rate" => As::Rate,
        "delta" => As::Delta,
        "count_rate" => As::CountRate,
        "mean" => As::Mean,
        _ => {
            let q = text.strip_prefix("quantile(").and_then(|rest| rest.strip_suffix(')'));
            let q = q.and_then(|q| q.trim().parse::<f64>().ok()).filter(|q| (0.0..=1.0).contains(q));
            let fine = || format!("expected a quantile with at most six decimals, found {text:?}");
            As::Quantile(Share::new(q.ok_or_else(wrong)?).ok_or_else(fine)?)
        }
    })
}

/// Empty for `auto`.
fn transforms(node: &Node<'_>) -> Option<Vec<As>> {
    if node.is_scalar() {
        return node.parse(|text| match text {
            "auto" => Ok(Vec::new()),
            _ => transform(text).map(|one| vec![one]),
        });
    }
    let mut all = Vec::new();
    let items = node.list()?;
    if items.is_empty() {
        node.error("expected at least one of value, rate, delta, count_rate, mean, quantile(q); or auto");
    }
    for item in items {
        let one = item.parse(|text| match text {
            "auto" => Err("auto stands alone, not in a list".to_string()),
            _ => transform(text),
        });
        match one {
            Some(one) if all.contains(&one) => item.error(format!("{one} is named twice")),
            Some(one) => all.push(one),
            None => {}
        }
    }
    Some(all)
}

fn detector_set(node: &Node<'_>) -> Option<DetectorSet> {
    let words = Detector::ALL.map(|detector| (detector.name(), detector));
    let items = node.one_or_many()?;
    if items.is_empty() {
        node.error("expected at least one of ewma, zscore, holt_winters, rarity, isolation");
    }
    let mut set = DetectorSet(0);
    for item in items {
        if let Some(detector) = item.choice(&words) {
            if set.has(detector) {
                item.error(format!("{} is named twice", detector.name()));
            }
            set = set.with(detector);
        }
    }
    if set == DetectorSet(0).with(Detector::Isolation) {
        node.error("isolation looks at the distances that others keep; add at least one of ewma, zscore, holt_winters, rarity");
    }
    (set.0 > 0).then_some(set)
}

fn season(node: &Node<'_>) -> Option<Season> {
    if node.is_scalar() {
        return node.parse(|text| match text {
            "none" => Ok(Season::None),
            "auto" => Ok(Season::Auto),
            _ => match Span::parse(text) {
                Ok(span) => Periods::new(&[span]).map(Season::Fixed),
                Err(_) => Err(format!("expected none, auto or a list such as [24h, 7d], found {text:?}")),
            },
        });
    }
    let items = node.list()?;
    let wanted = items.len();
    let spans: Vec<Span> =
        items.iter().filter_map(|item| item.duration(Periods::LEAST..=Periods::MOST)).collect();
    if spans.len() < wanted {
        return None;
    }
    match Periods::new(&spans) {
        Ok(periods) => Some(Season::Fixed(periods)),
        Err(wrong) => {
            node.error(wrong);
            None
        }
    }
}

fn emit(node: &Node<'_>) -> Option<EmitSet> {
    let mut set = EmitSet { score: false, flag: false, bands: false, detectors: false };
    for item in node.one_or_many()? {
        let words = [("score", 0), ("flag", 1), ("bands", 2), ("detectors", 3)];
        let to = match item.choice(&words) {
            Some(0) => &mut set.score,
            Some(1) => &mut set.flag,
            Some(2) => &mut set.bands,
            Some(_) => &mut set.detectors,
            None => continue,
        };
        if std::mem::replace(to, true) {
            item.error("named twice");
        }
    }
    Some(set)
}

fn output_label(key: &Node<'_>, name: &str, node: &Node<'_>, names: OutputNames) -> Option<String> {
    let taken = ["metric", "rule", "as", "detector"].contains(&name)
        || name == "for" && names == OutputNames::VmAnomaly;
    if taken {
        key.error(format!("the label `{name}` is set by oddity itself; choose another name"));
        return None;
    }
    if !is_label_name(name) || name.starts_with("__") {
        key.error("expected a label name: letters, digits and _, not starting with a digit or __");
        return None;
    }
    let value = node.string()?;
    let most = LabelLimits::default().bytes;
    if value.len() > most {
        node.error(format!("a label's value is at most {most} bytes long"));
    }
    Some(value)
}
