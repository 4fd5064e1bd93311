//! The configuration file.

use oddity::config::Config;
use oddity::rules::{RuleSet, selector};

/// `rules.yaml`: every problem has a place, what is valid is valid alone and reads itself back.
pub fn rules(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let config = match Config::parse("fuzz.yaml", text) {
        Ok(config) => config,
        Err(problems) => return assert!(!problems.to_string().is_empty()),
    };
    let (rules, _) = RuleSet::parse("fuzz.yaml", text).expect("its rules are valid alone");
    assert_eq!(rules.source, config.rules.source);
    let again = RuleSet::restore(&rules.source).expect("it reads its own source");
    assert_eq!(again.source, rules.source);
    assert_eq!(again.rules.len(), rules.rules.len());
    for (rule, again) in rules.rules.iter().zip(&again.rules) {
        assert_eq!(format!("{rule:?}"), format!("{again:?}"));
        for selector in &rule.selectors {
            let shown = selector.to_string();
            let read = selector::parse(&shown).unwrap_or_else(|why| panic!("{shown}: {why}"));
            assert_eq!(read.iter().map(ToString::to_string).collect::<Vec<_>>(), [shown]);
        }
    }
}
