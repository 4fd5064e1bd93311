//! What kind of anomaly a sample is: told to people, and no part of any score.

/// A kind of anomaly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A value far above what is expected.
    #[default]
    Spike,
    /// A value far below.
    Dip,
    /// The signal swings more widely than usual.
    Variance,
    /// The level has moved, and stays.
    LevelShift,
    /// The signal is where it usually is, but not at this time of day or week.
    OutOfSeason,
    /// It climbs or falls more steadily than usual.
    Ramp,
    /// It rests on one value for longer than ever.
    FlatLine,
}

impl Kind {
    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Spike => "spike",
            Kind::Dip => "dip",
            Kind::Variance => "variance",
            Kind::LevelShift => "level_shift",
            Kind::OutOfSeason => "out_of_season",
            Kind::Ramp => "ramp",
            Kind::FlatLine => "flat_line",
        }
    }
}
