//! Reading a remote-write body, bounded in bytes and time.

use super::reply::{Answer, of_receiver};
use super::server::Visitor;
use super::{Api, now};
use crate::ingest::admission::Reservation;
use crate::ingest::{ReceiverLimits, Reply, RequestHead, Unread};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Request;
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue};
use std::time::Instant;

/// Bytes of a refused body that are read and thrown away.
const MAX_DISCARDED: u64 = 1 << 30;

/// `POST /api/v1/write`
pub(super) async fn write(api: &Api, visitor: &Visitor, request: Request<Incoming>) -> Answer {
    let header = |name: HeaderName| {
        request.headers().get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let head = RequestHead { content_type: header(CONTENT_TYPE), content_encoding: header(CONTENT_ENCODING) };
    let mut body = request.into_body();
    match read(api, visitor, &head, &mut body).await {
        // The reservation lasts to the end of the answer: the compressed bytes are held that long.
        Ok((bytes, _reservation)) => {
            visitor.connection.busy();
            of_receiver(api.receiver.receive(&head, bytes, now()).await)
        }
        Err(reply) => {
            let slow = reply.status == 408;
            let mut answer = of_receiver(reply);
            if !body.is_end_stream() {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                if !slow {
                    tokio::spawn(discard(body, *api.receiver.limits(), MAX_DISCARDED));
                }
            }
            answer
        }
    }
}

/// An answer that does not hang on the request's body. What there is of it is read and thrown away,
/// no more than a body may be long.
pub(super) fn unheard(api: &Api, request: Request<Incoming>, mut answer: Answer) -> Answer {
    let body = request.into_body();
    if !body.is_end_stream() {
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        let limits = *api.receiver.limits();
        tokio::spawn(discard(body, limits, limits.compressed as u64));
    }
    answer
}

/// Reads a body to its end; the reservation grows as bytes come.
async fn read(
    api: &Api,
    visitor: &Visitor,
    head: &RequestHead,
    body: &mut Incoming,
) -> Result<(Bytes, Reservation), Reply> {
    let receiver = &api.receiver;
    let limits = receiver.limits();
    let mut reservation = receiver.admit(head, body.size_hint().exact()).await?;
    let started = Instant::now();
    let mut bytes = Vec::new();
    loop {
        let frame = next(body, limits, started).await.map_err(|why| receiver.unread(head, why))?;
        visitor.connection.touch();
        let Some(frame) = frame else { return Ok((bytes.into(), reservation)) };
        // Trailers say nothing here.
        let Ok(data) = frame.into_data() else { continue };
        let length = bytes.len().saturating_add(data.len());
        if length > limits.compressed {
            return Err(receiver.unread(head, Unread::TooLong));
        }
        receiver.grow(head, &mut reservation, length).await?;
        bytes.extend_from_slice(&data);
    }
}

/// The next piece of a body whose reading began at `started`; `None` at its end.
async fn next(
    body: &mut Incoming,
    limits: &ReceiverLimits,
    started: Instant,
) -> Result<Option<Frame<Bytes>>, Unread> {
    let left = limits.body_time.saturating_sub(started.elapsed());
    match tokio::time::timeout(left.min(limits.body_pause), body.frame()).await {
        Ok(frame) => frame.transpose().map_err(|_| Unread::BrokenOff),
        Err(_) => Err(Unread::TooSlow),
    }
}

/// Reads a body to its end without keeping it, while the answer goes out. A sender whose connection
/// is closed in the middle of its body may see that instead of the answer, and would send the same
/// again for ever.
async fn discard(mut body: Incoming, limits: ReceiverLimits, most: u64) {
    let started = Instant::now();
    let mut seen = 0u64;
    while let Ok(Some(frame)) = next(&mut body, &limits, started).await {
        seen += frame.data_ref().map_or(0, |data| data.len() as u64);
        if seen > most {
            break;
        }
    }
}
