//! What an answer means.

use super::client::Answer;
use super::metrics::Rejected;
use crate::wire::Version;
use std::time::Duration;

/// What to do after an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Done: so many samples were written, so many were not.
    Done {
        /// Samples written.
        accepted: usize,
        /// Samples not written, and why.
        rejected: Option<(Rejected, usize)>,
    },
    /// The receiver does not speak 2.0: the same samples again in 1.0, at once.
    FallBack,
    /// Some sample is bad and the receiver may have written none: halve, to lose only that one.
    Split(Rejected),
    /// Later again.
    Retry {
        /// What the receiver asked for.
        after: Option<Duration>,
    },
}

/// How a request was sent.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// In which protocol.
    pub version: Version,
    /// Whether 1.0 may be tried.
    pub auto: bool,
    /// Whether this receiver has shown that it speaks 2.0.
    pub confirmed: bool,
    /// Samples in it.
    pub samples: usize,
}

/// Judges an answer.
///
/// 401, 403, 404 and a 415 that negotiation cannot help say that the configuration is wrong, not
/// the samples: they are retried until the age limit, so that nothing is lost while somebody mends it.
pub fn judge(answer: &Answer, sent: Sent) -> Verdict {
    let v2 = sent.version == Version::V2;
    let all = |why| Verdict::Done { accepted: 0, rejected: Some((why, sent.samples)) };
    let as_written = |written: u64| {
        let accepted = usize::try_from(written).unwrap_or(usize::MAX).min(sent.samples);
        let rest = sent.samples - accepted;
        Verdict::Done { accepted, rejected: (rest > 0).then_some((Rejected::NotWritten, rest)) }
    };
    match answer.status {
        200..300 => match (v2, answer.written) {
            (false, _) => Verdict::Done { accepted: sent.samples, rejected: None },
            (true, Some(written)) => as_written(written),
            // Old receivers take a 2.0 message for an empty 1.0 one and say 2xx.
            (true, None) if sent.auto => Verdict::FallBack,
            (true, None) => all(Rejected::Unconfirmed),
        },
        300..400 => all(Rejected::Redirect),
        415 if v2 && sent.auto => Verdict::FallBack,
        400 if v2 && sent.auto && !sent.confirmed && answer.written.is_none() => Verdict::FallBack,
        // Written counts mean that the valid rest was kept; with none written it may as well be a
        // receiver that takes all or nothing.
        400 | 422 => match answer.written {
            Some(written) if v2 && (written > 0 || sent.samples == 1) => as_written(written),
            _ => Verdict::Split(Rejected::BadRequest),
        },
        413 => Verdict::Split(Rejected::TooLarge),
        401 | 403 | 404 | 415 | 408 | 429 | 500..=u16::MAX => Verdict::Retry { after: answer.retry_after },
        _ => all(Rejected::Status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: u16, version: Version, written: Option<u64>, auto: bool, confirmed: bool) -> Verdict {
        let answer = Answer { status, written, ..Answer::default() };
        judge(&answer, Sent { version, auto, confirmed, samples: 10 })
    }

    #[test]
    fn every_answer_has_its_meaning() {
        use Version::{V1, V2};
        let done = |accepted, rejected| Verdict::Done { accepted, rejected };
        let retry = Verdict::Retry { after: None };
        for (status, version, written, auto, confirmed, expected) in [
            (204, V1, None, true, false, done(10, None)),
            (202, V1, None, true, false, done(10, None)),
            (204, V2, Some(10), true, false, done(10, None)),
            (204, V2, Some(99), true, false, done(10, None)),
            (204, V2, Some(7), true, false, done(7, Some((Rejected::NotWritten, 3)))),
            (204, V2, None, true, true, Verdict::FallBack),
            (204, V2, None, false, false, done(0, Some((Rejected::Unconfirmed, 10)))),
            (415, V2, None, true, true, Verdict::FallBack),
            (415, V2, None, false, false, retry.clone()),
            (415, V1, None, true, false, retry.clone()),
            (400, V2, None, true, false, Verdict::FallBack),
            (400, V2, None, true, true, Verdict::Split(Rejected::BadRequest)),
            (400, V2, Some(9), true, true, done(9, Some((Rejected::NotWritten, 1)))),
            (400, V2, Some(0), true, true, Verdict::Split(Rejected::BadRequest)),
            (400, V1, None, true, false, Verdict::Split(Rejected::BadRequest)),
            (413, V1, None, true, false, Verdict::Split(Rejected::TooLarge)),
            (308, V1, None, true, false, done(0, Some((Rejected::Redirect, 10)))),
            (409, V1, None, true, false, done(0, Some((Rejected::Status, 10)))),
            (401, V1, None, true, false, retry.clone()),
            (429, V1, None, true, false, retry.clone()),
            (408, V2, None, true, false, retry.clone()),
            (503, V2, None, true, false, retry.clone()),
            (529, V2, None, true, false, retry.clone()),
        ] {
            assert_eq!(judged(status, version, written, auto, confirmed), expected, "{status} {version:?}");
        }
    }
}
