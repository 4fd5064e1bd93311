//! Answers: JSON in Prometheus's envelope, plain text, HTML.

use crate::ingest;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

/// The only kind of answer here: bodies are small and whole.
pub type Answer = Response<Full<Bytes>>;

/// An answer with a body of this type.
pub fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
    answer
}

/// A line of text.
pub fn text(status: StatusCode, line: &'static str) -> Answer {
    answer(status, "text/plain; charset=utf-8", line)
}

/// `{"status":"success","data":…}`
pub fn success(data: Value) -> Answer {
    json_answer(StatusCode::OK, &json!({"status": "success", "data": data}))
}

/// `{"status":"error","errorType":…,"error":…}`
pub fn error(status: StatusCode, kind: &str, message: &str) -> Answer {
    json_answer(status, &json!({"status": "error", "errorType": kind, "error": message}))
}

/// Any JSON.
pub fn json_answer(status: StatusCode, value: &Value) -> Answer {
    answer(status, "application/json", value.to_string())
}

/// The receiver's answer as HTTP has it.
pub fn of_receiver(reply: ingest::Reply) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(reply.message)));
    *answer.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in reply.headers {
        if let Ok(value) = HeaderValue::try_from(value) {
            answer.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    answer
}
