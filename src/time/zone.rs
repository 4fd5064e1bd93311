//! Local time by tables made once, so that no sample asks a calendar.

use super::Millis;
use jiff::Timestamp;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// 1970-01-01 and 2100-01-01 UTC, in seconds: what the table covers. Before and after, the nearest
/// offset holds.
const FROM: i64 = 0;
const UNTIL: i64 = 4_102_444_800;

/// A time zone: its name and its offsets from UTC from 1970 to 2100, with daylight saving. Made from
/// the tables built in, so it is the same on every machine. Equal by name; a copy is cheap.
#[derive(Clone)]
pub struct Zone(Arc<Table>);

struct Table {
    name: String,
    /// The offset before the first change, seconds east of UTC.
    first: i32,
    /// Changes in order of time: from when (ms UTC), and the offset from then on (s).
    changes: Box<[(i64, i32)]>,
}

impl Zone {
    /// UTC.
    pub fn utc() -> Zone {
        Zone(Arc::new(Table { name: "UTC".into(), first: 0, changes: Box::default() }))
    }

    /// A zone by its IANA name, such as `Europe/Berlin`.
    ///
    /// # Errors
    /// Not a known name.
    pub fn named(name: &str) -> Result<Zone, String> {
        let zone = calendar(name)?;
        let wrong = |error: jiff::Error| format!("the table of {name:?} cannot be read: {error}");
        let from = Timestamp::from_second(FROM).map_err(wrong)?;
        let first = zone.to_offset(from).seconds();
        let mut last = first;
        let mut changes = Vec::new();
        for change in zone.following(from) {
            if change.timestamp().as_second() >= UNTIL {
                break;
            }
            // A change of the name alone is none of ours.
            let offset = change.offset().seconds();
            if offset != last {
                changes.push((change.timestamp().as_millisecond(), offset));
                last = offset;
            }
        }
        let name = zone.iana_name().unwrap_or(name).to_string();
        Ok(Zone(Arc::new(Table { name, first, changes: changes.into() })))
    }

    /// Its name, as the database writes it.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Seconds from UTC to local time at an instant, positive in the east.
    pub fn offset(&self, at: Millis) -> i32 {
        let after = self.0.changes.partition_point(|(from, _)| *from <= at.0);
        let change = after.checked_sub(1).and_then(|last| self.0.changes.get(last));
        change.map_or(self.0.first, |(_, offset)| *offset)
    }

    /// Local time at an instant: milliseconds that count days and hours as the clocks there show them.
    pub fn local(&self, at: Millis) -> i64 {
        at.0.saturating_add(i64::from(self.offset(at)) * 1000)
    }
}

/// The calendar of a zone by its IANA name, from the tables built in.
///
/// # Errors
/// Not a known name.
pub fn calendar(name: &str) -> Result<TimeZone, String> {
    TimeZoneDatabase::bundled()
        .get(name)
        .map_err(|_| format!("{name:?} is not a known time zone; write a name such as Europe/Berlin or UTC"))
}

impl Default for Zone {
    fn default() -> Self {
        Zone::utc()
    }
}

impl PartialEq for Zone {
    fn eq(&self, other: &Zone) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for Zone {}

impl Hash for Zone {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.name.hash(state);
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Zone({})", self.0.name)
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Millis {
        Millis(text.parse::<Timestamp>().expect(text).as_millisecond())
    }

    #[test]
    fn offsets_follow_daylight_saving_to_the_second() {
        let berlin = Zone::named("Europe/Berlin").expect("known");
        for (text, hours) in [
            ("2026-01-15T12:00:00Z", 1),
            ("2026-03-29T00:59:59Z", 1),
            ("2026-03-29T01:00:00Z", 2),
            ("2026-10-25T00:59:59Z", 2),
            ("2026-10-25T01:00:00Z", 1),
            ("2099-07-01T00:00:00Z", 2),
        ] {
            assert_eq!(berlin.offset(at(text)), hours * 3600, "{text}");
        }
        assert_eq!(berlin.offset(Millis(-1)), 3600);
        assert_eq!(Zone::utc().offset(at("2026-07-01T00:00:00Z")), 0);
        assert_eq!(Zone::utc().local(Millis(i64::MAX)), i64::MAX);
    }

    #[test]
    fn offsets_are_those_of_the_calendar() {
        for name in ["America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "Africa/Casablanca", "UTC"] {
            let (zone, calendar) = (Zone::named(name).expect("known"), calendar(name).expect("known"));
            for step in 0..3_000 {
                let at = Timestamp::from_second(FROM + step * (UNTIL - FROM) / 3_000).expect("in range");
                let told = zone.offset(Millis(at.as_millisecond()));
                assert_eq!(told, calendar.to_offset(at).seconds(), "{name} {at}");
            }
        }
    }

    #[test]
    fn a_zone_is_its_name() {
        let known = |name| Zone::named(name).expect("known");
        assert_eq!(known("europe/berlin"), known("Europe/Berlin"));
        assert_ne!(known("Europe/Berlin"), known("Europe/Paris"));
        assert_eq!(known("UTC"), Zone::default());
        assert!(Zone::named("Mars/Base").is_err_and(|error| error.contains("not a known time zone")));
    }
}
