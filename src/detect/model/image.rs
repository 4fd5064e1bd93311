//! The binary form of a model. What its parameters shape (the window's size, whether there is a slope) is
//! in it; the parameters themselves are not.

use super::{BACK, Model};
use crate::codec::stored;

stored!(plain struct Model {
    samples,
    last_at,
    interval,
    steps,
    base,
    base_tail,
    ewma,
    zscore,
    holt,
    rarity,
    season,
    exposure,
    ledger,
    plain,
    shift,
    slope,
    flat,
    odd_since,
    back,
    kin,
} valid |model| (model.back < BACK || model.odd().is_none()) && model.kin > 0);

#[cfg(test)]
mod tests;
