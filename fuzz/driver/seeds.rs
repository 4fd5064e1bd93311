//! The corpora's beginnings: one sound input of each kind. Written anew when a format changes.

use super::targets::read::frame;
use super::targets::state::{INCARNATION, parts};
use super::targets::wire::sample_body;
use oddity::record::{Body, Entry, Journal};
use oddity::state::{CheckpointWriter, Log, LogOptions, SectionKind};
use oddity::time::Millis;
use oddity::wire::proto::v1;
use oddity::wire::{Encoding, Version, compress_snappy};
use prost::Message;
use std::io::{Error, Result};
use std::path::Path;

/// Writes `seed-N` files below a folder.
pub fn write(to: &Path) -> Result<()> {
    let v1 = sample_body(Version::V1);
    let v2 = sample_body(Version::V2);
    let packed = compress_snappy(&v1).map_err(Error::other)?;
    let zstd = zstd::bulk::compress(&v1, 1)?;
    let texts =
        ["rules.yaml", "examples/rules.yaml", "examples/rules-http.yaml", "examples/rules-kubernetes.yaml"];
    let texts = texts.map(|name| std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)));
    let sets = [
        ("decode_v1", vec![v1.clone()]),
        ("decode_v2", vec![v2]),
        ("frames", vec![packed.clone(), zstd, v1.clone()]),
        ("read_frames", vec![stream(), [&[3][..], &stream()[5 + 1..]].concat()]),
        ("read_samples", vec![answer(&v1)]),
        ("xor", vec![CHUNK.to_vec(), WIDE.to_vec()]),
        ("rules", texts.into_iter().collect::<Result<Vec<_>>>()?),
        ("log", records(&v1, &packed)?),
        ("checkpoint", images()?),
    ];
    for (name, inputs) in sets {
        let folder = to.join(name);
        std::fs::create_dir_all(&folder)?;
        for (number, input) in inputs.iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{number}")), input)?;
        }
    }
    Ok(())
}

/// Three samples: 1.0, 1.0, 2.0.
const CHUNK: [u8; 20] =
    [0, 3, 0xd0, 0x0f, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0, 0xe8, 7, 0x40, 0, 0xe1, 0x2f, 0xff, 0x80];
/// Differences of every width, and both kinds of windows.
const WIDE: [u8; 48] = [
    0, 9, 0x80, 0x80, 4, 0xc0, 0x59, 0, 0, 0, 0, 0, 0, 0x98, 0x75, 0xc0, 0x85, 0x60, 0x20, 0x9f, 0xd5, 0x0e,
    0xff, 0x61, 0xc3, 0x5f, 0x0f, 0xff, 0xff, 0xff, 0xff, 0xff, 0x12, 0x34, 0x56, 0x78, 0xd1, 0x55, 0x77,
    0x41, 0x9a, 0x2b, 0x3c, 0x4d, 0x5e, 0x6f, 0x70, 0x81,
];

/// How it is cut, and two frames.
fn stream() -> Vec<u8> {
    let label = |name: &str, value: &str| v1::Label { name: name.into(), value: value.into() };
    let chunk =
        |kind| v1::Chunk { min_time_ms: 1_000, max_time_ms: 3_001, r#type: kind, data: CHUNK.to_vec() };
    let one = |kind| v1::ChunkedReadResponse {
        chunked_series: vec![v1::ChunkedSeries {
            labels: vec![label("__name__", "up"), label("job", "node")],
            chunks: vec![chunk(kind), chunk(kind)],
        }],
        query_index: 1,
    };
    let frames = [1, 4].map(|kind| frame(&one(kind).encode_to_vec()));
    [&[11][..], &frames[0], &frames[1]].concat()
}

/// A body is what a result is.
fn answer(body: &[u8]) -> Vec<u8> {
    let mut out = vec![0x0a];
    prost::encoding::encode_varint(body.len() as u64, &mut out);
    out.extend(body);
    out.extend([0x0a, 0]);
    out
}

/// A whole segment, and a record of each kind alone.
fn records(plain: &[u8], packed: &[u8]) -> Result<Vec<Vec<u8>>> {
    let folder = tempfile::tempdir()?;
    let log = Log::new(folder.path(), INCARNATION, 0, LogOptions::default());
    let body = |raw| Body { raw, ..Body::new(Version::V1, Millis(1_700_000_000_000), plain.to_vec().into()) };
    let entries = [
        Entry::body(&body(None)),
        Entry::body(&body(Some((Encoding::Snappy, packed.to_vec().into())))),
        Entry::elect("cluster", "replica"),
        Entry::tick("group", Millis(5)),
    ];
    let mut sequence = 0;
    for entry in entries {
        sequence += 1;
        log.append(sequence, entry);
        log.commit(sequence).map_err(Error::other)?;
    }
    log.sync();
    drop(log);
    let mut found = Vec::new();
    for file in std::fs::read_dir(folder.path())? {
        found.push([&[1][..], &std::fs::read(file?.path())?].concat());
    }
    // Version 1, compressed by snappy; an election; a tick.
    let at = 1_700_000_000_000i64.to_le_bytes();
    found.push([&[0, 1][..], &at, &[1, 1], packed].concat());
    for kind in 2..=5 {
        found.push([&[0, kind][..], &7u32.to_le_bytes(), b"cluster", b"replica"].concat());
    }
    Ok(found)
}

/// A head, a partition, the names and a whole file.
fn images() -> Result<Vec<Vec<u8>>> {
    let parts = parts();
    let folder = tempfile::tempdir()?;
    let mut writer = CheckpointWriter::begin(folder.path(), INCARNATION, 9, 1).map_err(Error::other)?;
    writer.section(SectionKind::Head, 0, 9, b"head").map_err(Error::other)?;
    writer.section(SectionKind::Partition, 3, 8, b"partition").map_err(Error::other)?;
    let (path, _) = writer.finish().map_err(Error::other)?;
    let mut found = vec![
        [&[0][..], &parts.head].concat(),
        [&[2][..], &parts.names].concat(),
        [&[3][..], &std::fs::read(path)?].concat(),
    ];
    found.extend(parts.partitions.iter().map(|(_, image)| [&[1][..], image].concat()));
    Ok(found)
}
