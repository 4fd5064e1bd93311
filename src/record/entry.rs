//! Records in the form in which a log keeps them: `docs/formats.md`, "Log".

use super::{Body, Record};
use crate::rules::RuleSet;
use crate::time::Millis;
use crate::wire::Version;
use crate::wire::frame::{self, Encoding};
use bytes::Bytes;
use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3;

const BODY: u8 = 1;
const RULES: u8 = 2;
const ELECT: u8 = 3;
const TICK: u8 = 4;
const PUBLISHED: u8 = 5;
/// Bytes before the body in a body's payload: time of receipt, protocol, form.
const BODY_HEAD: usize = 10;

/// A record ready to be written: a small head, and a body that is shared and not copied.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What kind of record it is.
    pub kind: u8,
    /// The first part of the payload.
    pub head: Vec<u8>,
    /// The rest of it.
    pub body: Bytes,
    /// xxh3-64 of the payload.
    pub sum: u64,
}

/// A record as a log has it, whole by its checksum and not read yet.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Its place in the order.
    pub sequence: u64,
    /// What kind of record it is.
    pub kind: u8,
    /// Its payload.
    pub payload: Bytes,
}

impl Kept {
    /// About the bytes that it takes once it is read: for a body what it says that it decompresses to, at most
    /// `limit`, and `limit` where it does not say.
    pub fn size(&self, limit: usize) -> usize {
        let compressed = self.kind == BODY && self.payload.get(BODY_HEAD - 1) != Some(&0);
        let body = self.payload.get(BODY_HEAD..).unwrap_or_default();
        match compressed {
            true => frame::declared_size(body).map_or(limit, |size| size.min(limit as u64) as usize),
            false => self.payload.len(),
        }
    }
}

/// A record as it was kept.
#[derive(Clone, Debug)]
pub enum Logged {
    /// One that came from outside.
    Record(Record),
    /// Epochs were closed, and these models frozen of them.
    Published {
        /// All epochs up to this one were closed.
        through: i64,
        /// The frozen models, in the form of the engine.
        models: Bytes,
    },
}

/// A payload that is whole, by its checksum, but cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// A kind of a later version.
    #[error("a record of the unknown kind {0}: was it written by a later version?")]
    Kind(u8),
    /// It ends too early or says what cannot be.
    #[error("{0} cannot be read: {1}")]
    Payload(&'static str, String),
}

impl Entry {
    fn new(kind: u8, head: Vec<u8>, body: Bytes) -> Entry {
        let mut sum = Xxh3::new();
        sum.update(&head);
        sum.update(&body);
        Entry { kind, head, body, sum: sum.digest() }
    }

    /// Of a record.
    pub fn of(record: &Record) -> Entry {
        match record {
            Record::Body(body) => Entry::body(body),
            Record::Rules(rules) => Entry::rules(rules),
            Record::Elect { cluster, replica } => Entry::elect(cluster, replica),
            Record::Tick { group, to } => Entry::tick(group, *to),
        }
    }

    /// Of a body, in the compressed form if there is one.
    pub fn body(body: &Body) -> Entry {
        let mut head = Vec::with_capacity(10);
        head.extend(body.received.0.to_le_bytes());
        head.push(match body.version {
            Version::V1 => 1,
            Version::V2 => 2,
        });
        let (form, bytes) = match &body.raw {
            None => (0, &body.bytes),
            Some((Encoding::Snappy, raw)) => (1, raw),
            Some((Encoding::Zstd, raw)) => (2, raw),
        };
        head.push(form);
        Entry::new(BODY, head, bytes.clone())
    }

    /// Of a new generation of rules: their text, without what is not about scores.
    pub fn rules(rules: &RuleSet) -> Entry {
        Entry::new(RULES, Vec::new(), Bytes::copy_from_slice(rules.source.as_bytes()))
    }

    /// Of an election.
    pub fn elect(cluster: &str, replica: &str) -> Entry {
        Entry::new(ELECT, lengthened(cluster), Bytes::copy_from_slice(replica.as_bytes()))
    }

    /// Of observed time.
    pub fn tick(group: &str, to: Millis) -> Entry {
        Entry::new(TICK, to.0.to_le_bytes().to_vec(), Bytes::copy_from_slice(group.as_bytes()))
    }

    /// Of the closing of epochs.
    pub fn published(through: i64, models: Bytes) -> Entry {
        Entry::new(PUBLISHED, through.to_le_bytes().to_vec(), models)
    }

    /// Bytes of the payload.
    pub fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// Whether the payload is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn lengthened(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u32).to_le_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

impl Logged {
    /// Reads a payload. A body comes decompressed; `limit` bounds what it may become, in bytes.
    ///
    /// # Errors
    /// A payload that no version up to this one has written.
    pub fn read(kind: u8, payload: Bytes, limit: usize) -> Result<Logged, Unreadable> {
        match kind {
            BODY => body(payload, limit).map(|body| Logged::Record(Record::Body(body))),
            RULES => {
                let text = utf8("rules", &payload)?;
                let rules = RuleSet::restore(text)
                    .map_err(|problems| Unreadable::Payload("rules", problems.to_string()))?;
                Ok(Logged::Record(Record::Rules(Arc::new(rules))))
            }
            ELECT => {
                const WHAT: &str = "an election";
                let short = || Unreadable::Payload(WHAT, "it is too short".into());
                let (length, rest) = payload.split_first_chunk::<4>().ok_or_else(short)?;
                let (cluster, replica) =
                    rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(short)?;
                let (cluster, replica) = (utf8(WHAT, cluster)?.into(), utf8(WHAT, replica)?.into());
                Ok(Logged::Record(Record::Elect { cluster, replica }))
            }
            TICK => {
                let (to, group) = number("a tick", &payload)?;
                let group = utf8("a tick", &payload[group..])?.to_string();
                Ok(Logged::Record(Record::Tick { group, to: Millis(to) }))
            }
            PUBLISHED => {
                let (through, models) = number("published models", &payload)?;
                Ok(Logged::Published { through, models: payload.slice(models..) })
            }
            other => Err(Unreadable::Kind(other)),
        }
    }
}

fn utf8<'a>(what: &'static str, bytes: &'a [u8]) -> Result<&'a str, Unreadable> {
    std::str::from_utf8(bytes).map_err(|error| Unreadable::Payload(what, error.to_string()))
}

/// A number at the start of a payload, and where it ends.
fn number(what: &'static str, payload: &[u8]) -> Result<(i64, usize), Unreadable> {
    match payload.first_chunk::<8>() {
        Some(bytes) => Ok((i64::from_le_bytes(*bytes), 8)),
        None => Err(Unreadable::Payload(what, "it is too short".into())),
    }
}

fn body(payload: Bytes, limit: usize) -> Result<Body, Unreadable> {
    const WHAT: &str = "a body";
    let (received, at) = number(WHAT, &payload)?;
    let (version, form) = match payload.get(at..at + 2) {
        Some([1, form]) => (Version::V1, *form),
        Some([2, form]) => (Version::V2, *form),
        _ => return Err(Unreadable::Payload(WHAT, "it is of no known protocol".into())),
    };
    let raw = payload.slice(at + 2..);
    let received = Millis(received);
    let encoding = match form {
        0 => return Ok(Body::new(version, received, raw)),
        1 => Encoding::Snappy,
        2 => Encoding::Zstd,
        other => return Err(Unreadable::Payload(WHAT, format!("it is in the unknown form {other}"))),
    };
    let mut bytes = Vec::new();
    frame::decompress(encoding, &raw, limit, &mut bytes)
        .map_err(|error| Unreadable::Payload(WHAT, error.to_string()))?;
    Ok(Body { version, received, bytes: bytes.into(), raw: Some((encoding, raw)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 1 << 20;

    fn read(entry: &Entry) -> Result<Logged, Unreadable> {
        Logged::read(entry.kind, [entry.head.as_slice(), &entry.body].concat().into(), LIMIT)
    }

    fn again(record: &Record) -> Record {
        match read(&Entry::of(record)) {
            Ok(Logged::Record(record)) => record,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn records_come_back_as_they_were() {
        let bytes = Bytes::from(b"some message, some message, some message".to_vec());
        let snappy = Bytes::from(frame::compress_snappy(&bytes).expect("compresses"));
        let plain = Body::new(Version::V2, Millis(-5), bytes.clone());
        let raw = Body { raw: Some((Encoding::Snappy, snappy.clone())), ..plain.clone() };
        for body in [plain, raw] {
            let Record::Body(back) = again(&Record::Body(body.clone())) else { panic!("a body") };
            assert_eq!((back.version, back.received, back.bytes), (body.version, body.received, body.bytes));
            assert_eq!(back.raw, body.raw);
        }
        let elect = Record::Elect { cluster: "west".into(), replica: "é".into() };
        assert_eq!(format!("{:?}", again(&elect)), format!("{elect:?}"));
        let tick = Record::Tick { group: String::new(), to: Millis(i64::MIN) };
        assert_eq!(format!("{:?}", again(&tick)), format!("{tick:?}"));
        match read(&Entry::published(-7, bytes.clone())) {
            Ok(Logged::Published { through: -7, models }) => assert_eq!(models, bytes),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn rules_come_back_from_their_text() {
        let text = "rules: [{name: a, match: up, false_alarms: 1 per 7d}]";
        let (rules, _) = RuleSet::parse("rules.yaml", text).expect("valid");
        let Record::Rules(back) = again(&Record::Rules(Arc::new(rules.clone()))) else { panic!("rules") };
        assert_eq!(back.source, rules.source);
        assert_eq!(back.rules[0].name, "a");
    }

    #[test]
    fn what_cannot_be_read_says_so() {
        let bomb = frame::compress_snappy(&vec![0; LIMIT + 1]).expect("compresses");
        let bomb = Body {
            raw: Some((Encoding::Snappy, bomb.into())),
            ..Body::new(Version::V1, Millis(0), Bytes::new())
        };
        assert!(matches!(read(&Entry::body(&bomb)), Err(Unreadable::Payload("a body", _))));
        for (kind, payload) in [
            (BODY, &b""[..]),
            (BODY, b"\0\0\0\0\0\0\0\0\x03\0"),
            (BODY, b"\0\0\0\0\0\0\0\0\x01\x09"),
            (BODY, b"\0\0\0\0\0\0\0\0\x01\x01\xff\xff"),
            (RULES, b"rules: 7"),
            (RULES, b"\xff"),
            (ELECT, b"\xff\xff\xff\xff"),
            (ELECT, b"a"),
            (TICK, b"1234567"),
            (PUBLISHED, b""),
            (77, b""),
        ] {
            let error = Logged::read(kind, Bytes::copy_from_slice(payload), LIMIT).expect_err("refused");
            assert!(!error.to_string().is_empty());
        }
    }
}
