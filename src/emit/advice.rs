//! What to do about a target that does not take samples, where the cause is well known.

use super::metrics::Rejected;
use crate::outbound::SendError;
use std::fmt;

/// What Prometheus needs to take remote write; its own 404 names it.
const FLAG: &str = "--web.enable-remote-write-receiver";
const NOT_FOUND: &str = "is the path of the URL right, and does a Prometheus there run with \
     --web.enable-remote-write-receiver?";
const LATE: &str = "a Prometheus takes late samples with out_of_order_time_window under storage.tsdb, such \
     as 30m";

/// Why a request failed that will be tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// HTTP status; `None` where no answer came.
    pub status: Option<u16>,
    why: String,
    advice: Option<&'static str>,
}

impl Failure {
    /// No answer.
    pub fn unanswered(error: &SendError) -> Failure {
        let advice = match error {
            SendError::Refused(_) => Some("is it running, and is the URL right?"),
            SendError::Failed(_) => None,
        };
        Failure { status: None, why: error.to_string(), advice }
    }

    /// An answer that may be another one later.
    pub fn answered(status: u16, message: &str) -> Failure {
        let advice = match status {
            401 | 403 => Some("are the credentials right?"),
            404 => not_found(message),
            415 => Some("does it take remote write, and the version that protobuf_message says?"),
            _ => None,
        };
        Failure { status: Some(status), why: format!("HTTP status {status} {message}"), advice }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.why.trim_end())?;
        self.advice.map_or(Ok(()), |advice| write!(f, "; {advice}"))
    }
}

/// About samples that were refused for good.
pub fn refusal(why: Rejected, status: u16, message: &str) -> Option<&'static str> {
    let told = message.to_ascii_lowercase();
    let late = ["out of order", "out-of-order", "out of bounds", "too old"];
    match (why, status) {
        (Rejected::Redirect, _) => Some("redirects are not followed: configure the final URL"),
        (Rejected::Unconfirmed, _) => Some("it did not say what it wrote: does it speak remote write 2.0?"),
        (_, 400 | 422) if late.iter().any(|words| told.contains(words)) => Some(LATE),
        (_, 405) => not_found(message),
        _ => None,
    }
}

fn not_found(message: &str) -> Option<&'static str> {
    (!message.contains(FLAG)).then_some(NOT_FOUND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_whose_cause_is_known_bring_advice() {
        let told = |status, message| Failure::answered(status, message).to_string();
        assert_eq!(told(503, "try again"), "HTTP status 503 try again");
        assert_eq!(
            told(404, "404 page not found"),
            format!("HTTP status 404 404 page not found; {NOT_FOUND}")
        );
        let own = "remote write receiver needs to be enabled with --web.enable-remote-write-receiver";
        assert_eq!(told(404, own), format!("HTTP status 404 {own}"));
        assert_eq!(told(401, ""), "HTTP status 401; are the credentials right?");
        let refused = Failure::unanswered(&SendError::Refused("connection refused".into()));
        assert_eq!(refused.to_string(), "connection refused; is it running, and is the URL right?");
        let slow = Failure::unanswered(&SendError::Failed("no answer within 30s".into()));
        assert_eq!(slow.to_string(), "no answer within 30s");
    }

    #[test]
    fn refusals_too() {
        for message in ["out of order sample", "out of bounds", "Too old sample"] {
            assert_eq!(refusal(Rejected::BadRequest, 400, message), Some(LATE), "{message}");
            assert_eq!(refusal(Rejected::NotWritten, 400, message), Some(LATE), "{message}");
        }
        assert_eq!(refusal(Rejected::BadRequest, 400, "label name missing"), None);
        assert_eq!(refusal(Rejected::Status, 405, "Method Not Allowed"), Some(NOT_FOUND));
        assert!(refusal(Rejected::Redirect, 308, "").is_some());
    }
}
