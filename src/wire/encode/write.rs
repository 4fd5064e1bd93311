//! Fields and messages as they are written.

use super::super::cursor::{BYTES, FIXED64, VARINT, tag};
use super::super::histogram::{Histogram, Span};

#[inline]
pub fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A varint field; left out where zero, as proto3 has it.
pub fn varint_field(out: &mut Vec<u8>, field: u32, value: u64) {
    if value != 0 {
        varint(out, u64::from(tag(field, VARINT)));
        varint(out, value);
    }
}

fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

/// A double; left out where it is positive zero (negative zero is another number).
pub fn double(out: &mut Vec<u8>, field: u32, value: f64) {
    if value.to_bits() != 0 {
        one_double(out, field, value);
    }
}

fn one_double(out: &mut Vec<u8>, field: u32, value: f64) {
    varint(out, u64::from(tag(field, FIXED64)));
    out.extend_from_slice(&value.to_le_bytes());
}

pub fn bytes_field(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    varint(out, u64::from(tag(field, BYTES)));
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub fn histogram_message(out: &mut Vec<u8>, timestamp: i64, histogram: &Histogram) {
    if histogram.integer {
        // The `oneof`s are written even where zero: their presence says which kind it is.
        varint(out, u64::from(tag(1, VARINT)));
        varint(out, histogram.count as u64);
    } else {
        one_double(out, 2, histogram.count);
    }
    double(out, 3, histogram.sum);
    varint_field(out, 4, zigzag(i64::from(histogram.schema)));
    double(out, 5, histogram.zero_threshold);
    if histogram.integer {
        varint(out, u64::from(tag(6, VARINT)));
        varint(out, histogram.zero_count as u64);
    } else {
        one_double(out, 7, histogram.zero_count);
    }
    let sides = [
        (8, &histogram.negative_spans, &histogram.negative),
        (11, &histogram.positive_spans, &histogram.positive),
    ];
    let mut packed = Vec::new();
    for (field, spans, counts) in sides {
        for Span { offset, length } in spans {
            packed.clear();
            varint_field(&mut packed, 1, zigzag(i64::from(*offset)));
            varint_field(&mut packed, 2, u64::from(*length));
            bytes_field(out, field, &packed);
        }
        packed.clear();
        if histogram.integer {
            let mut last = 0;
            for count in counts {
                let count = *count as i64;
                varint(&mut packed, zigzag(count.wrapping_sub(last)));
                last = count;
            }
        } else {
            counts.iter().for_each(|count| packed.extend_from_slice(&count.to_le_bytes()));
        }
        if !packed.is_empty() {
            bytes_field(out, field + if histogram.integer { 1 } else { 2 }, &packed);
        }
    }
    varint_field(out, 14, histogram.reset_hint as u64);
    varint_field(out, 15, timestamp as u64);
    if !histogram.custom_values.is_empty() {
        packed.clear();
        histogram.custom_values.iter().for_each(|bound| packed.extend_from_slice(&bound.to_le_bytes()));
        bytes_field(out, 16, &packed);
    }
}
