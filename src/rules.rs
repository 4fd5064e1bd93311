//! Rules: which series are scored, how, and what is written back. Immutable; swapped whole on reload.

pub mod budget;
pub mod cron;
pub mod model;
pub mod schema;
pub mod selector;
pub mod window;
pub mod yaml;

pub use model::{As, EmitSet, EmitWhen, Identity, Limits, OutputNames, Rule, RuleSet, Share, Silence};
pub use window::{Window, Windows};
