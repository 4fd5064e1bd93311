//! Readers of values on the command line. What they refuse is wrong usage: exit code 2.

use crate::simulate::fault::FaultSpec;
use crate::simulate::sender;
use crate::time::Span;
use std::str::FromStr;
use tokio::net::TcpListener;

/// A whole number from `LEAST` to `MOST`.
pub(super) fn whole<const LEAST: u64, const MOST: u64, T: TryFrom<u64>>(text: &str) -> Result<T, String> {
    let number = match text.parse::<u64>() {
        Ok(number) if number < LEAST => return Err(format!("expected at least {LEAST}")),
        Ok(number) if number > MOST => return Err(format!("expected at most {MOST}")),
        Ok(number) => number,
        Err(_) => return Err(format!("expected a whole number of at least {LEAST}")),
    };
    T::try_from(number).map_err(|_| "too large for this machine".to_string())
}

/// A finite number of at least `LEAST`.
pub(super) fn at_least<const LEAST: u32>(text: &str) -> Result<f64, String> {
    let number = f64::from_str(text).ok().filter(|x| x.is_finite() && *x >= f64::from(LEAST));
    number.ok_or_else(|| format!("expected a number of at least {LEAST}"))
}

/// Percent of pods an hour.
pub(super) fn churn(text: &str) -> Result<f64, String> {
    match at_least::<0>(text)? {
        percent if percent > 10_000.0 => Err("expected at most 10000 percent".into()),
        percent => Ok(percent),
    }
}

/// A duration above 0.
pub(super) fn span(text: &str) -> Result<Span, String> {
    match Span::parse(text)? {
        span if span.0 <= 0 => Err("expected a duration above 0".into()),
        span => Ok(span),
    }
}

/// A duration of at least 20 minutes.
pub(super) fn history(text: &str) -> Result<Span, String> {
    match Span::parse(text)? {
        span if span < Span::minutes(20) => Err("expected a duration of at least 20m".into()),
        span => Ok(span),
    }
}

/// Where remote write goes: an http or https URL.
pub(super) fn receiver(text: &str) -> Result<String, String> {
    sender::address(text).map(|_| text.to_string())
}

/// Where to listen, as Prometheus writes it: `host:port`, `[v6]:port` or `:port`. Whether the host is
/// one of this machine's shows when it is bound.
pub(super) fn listen(text: &str) -> Result<String, String> {
    let wrong = "expected host:port such as 127.0.0.1:9898, or :9898 for every interface";
    let (host, port) = text.rsplit_once(':').ok_or(wrong)?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let fits = match bare {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.contains([':', '/', '@', ' ', '[', ']']),
    };
    match port.parse::<u16>() {
        Ok(_) if fits => Ok(text.to_string()),
        Err(_) if fits => Err(format!("the port is not a number from 0 to 65535; {wrong}")),
        _ => Err(wrong.into()),
    }
}

/// Listens on an address as [`listen`] takes it: `:9898` is every interface.
pub(super) async fn bind(address: &str) -> std::io::Result<TcpListener> {
    match address.strip_prefix(':') {
        Some(port) => match TcpListener::bind(format!("[::]:{port}")).await {
            Ok(listener) => Ok(listener),
            // A machine without IPv6.
            Err(error) if error.kind() != std::io::ErrorKind::AddrInUse => {
                TcpListener::bind(format!("0.0.0.0:{port}")).await
            }
            Err(error) => Err(error),
        },
        None => TcpListener::bind(address).await,
    }
}

/// Faults, as `--faults` lists them.
#[derive(Clone, Debug, Default)]
pub struct Faults(pub Vec<FaultSpec>);

impl FromStr for Faults {
    type Err = crate::simulate::SimulateError;

    fn from_str(text: &str) -> Result<Faults, Self::Err> {
        FaultSpec::parse_list(text).map(Faults)
    }
}
