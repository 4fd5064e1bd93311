//! Which path does what.

use super::reply::{self, Answer};
use super::server::Visitor;
use super::{Api, body, exposition, now, page, series, status};
use crate::secure::{Door, Refusal};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, ALLOW, HeaderMap, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Method, Request, StatusCode};
use serde_json::json;
use std::sync::Arc;

/// Anomalies in an answer when the request names no limit, and at most.
const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 10_000;

enum Route {
    Write,
    Metrics { openmetrics: bool },
    CurrentAnomalies,
    Healthy,
    Ready,
    Reload,
    Status,
    Series,
    Anomalies,
    Rules,
    Later(&'static str),
    Page,
}

impl Route {
    fn find(path: &str, headers: &HeaderMap) -> Option<Route> {
        Some(match path {
            "/api/v1/write" => Route::Write,
            "/metrics" => Route::Metrics { openmetrics: exposition::wants_openmetrics(&accept(headers)) },
            "/metrics/anomalies" => Route::CurrentAnomalies,
            "/-/healthy" | "/health" => Route::Healthy,
            "/-/ready" => Route::Ready,
            "/-/reload" => Route::Reload,
            "/api/v1/status" => Route::Status,
            "/api/v1/series" => Route::Series,
            "/api/v1/anomalies" | "/anomalies" => Route::Anomalies,
            "/api/v1/rules" => Route::Rules,
            "/api/v1/alerts" | "/alerts" => Route::Later("alerts"),
            "/api/v1/incidents" => Route::Later("incidents"),
            "/" => Route::Page,
            _ => return None,
        })
    }

    /// The door in front of it; `None`: open to all.
    fn door(&self) -> Option<Door> {
        match self {
            Route::Healthy | Route::Ready => None,
            Route::Write => Some(Door::Ingest),
            Route::Reload => Some(Door::Admin),
            _ => Some(Door::Read),
        }
    }

    fn methods(&self) -> &'static str {
        match self {
            Route::Write => "POST",
            Route::Reload => "POST, PUT",
            _ => "GET, HEAD",
        }
    }
}

/// Answers a request.
pub(super) async fn answer(api: &Arc<Api>, visitor: &Visitor, request: Request<Incoming>) -> Answer {
    visitor.connection.touch();
    api.look_at_files().await;
    let route = Route::find(request.uri().path(), request.headers());
    // What is not there is nobody's business either.
    let door = route.as_ref().map_or(Some(Door::Read), Route::door);
    let checked = match door {
        Some(door) => {
            api.doors.check(door, request.headers(), Some(visitor.peer)).await.map_err(|why| (door, why))
        }
        None => Ok(()),
    };
    let mut answer = match (checked, route) {
        (Err((door, why)), _) => body::unheard(api, request, refused(api, door, why)),
        (Ok(()), None) => reply::error(StatusCode::NOT_FOUND, "not_found", "no such path"),
        (Ok(()), Some(route)) => {
            let answer = self::route(api, visitor, route, request).await;
            if door.is_some() && answer.status().is_success() {
                visitor.connection.prove();
            }
            answer
        }
    };
    for (name, value) in api.doors.headers() {
        answer.headers_mut().insert(name, value);
    }
    answer
}

fn refused(api: &Api, door: Door, why: Refusal) -> Answer {
    let (status, kind) = match why {
        Refusal::Missing | Refusal::Wrong => (StatusCode::UNAUTHORIZED, "unauthorized"),
        Refusal::Forbidden => (StatusCode::FORBIDDEN, "forbidden"),
        Refusal::Busy => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
    };
    let mut answer = reply::error(status, kind, &why.to_string());
    match why {
        Refusal::Missing | Refusal::Wrong => {
            for challenge in api.doors.challenges(door) {
                answer.headers_mut().append(WWW_AUTHENTICATE, challenge);
            }
        }
        Refusal::Busy => drop(answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("2"))),
        Refusal::Forbidden => {}
    }
    answer
}

async fn route(api: &Arc<Api>, visitor: &Visitor, route: Route, request: Request<Incoming>) -> Answer {
    let query = request.uri().query().unwrap_or("").to_string();
    if matches!(route, Route::Write) && parameter(&query, "get_vm_proto_version").is_some() {
        // Older vmagents ask in this way whether zstd is understood.
        return reply::text(StatusCode::OK, "1");
    }
    let allowed = match (&route, request.method()) {
        (Route::Write, &Method::POST) | (Route::Reload, &(Method::POST | Method::PUT)) => true,
        (Route::Write | Route::Reload, _) => false,
        (_, method) => matches!(*method, Method::GET | Method::HEAD),
    };
    if !allowed {
        let message = format!("method {} is not allowed here", request.method());
        let mut answer = reply::error(StatusCode::METHOD_NOT_ALLOWED, "bad_data", &message);
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static(route.methods()));
        return answer;
    }
    match route {
        Route::Write => body::write(api, visitor, request).await,
        Route::Healthy => reply::text(StatusCode::OK, "oddity is healthy.\n"),
        Route::Ready if api.is_ready() => reply::text(StatusCode::OK, "oddity is ready.\n"),
        Route::Ready => reply::text(StatusCode::SERVICE_UNAVAILABLE, "oddity is not ready.\n"),
        Route::Later(what) => {
            let message = format!("{what} are not served by this version");
            reply::error(StatusCode::NOT_FOUND, "not_found", &message)
        }
        // What may look at every series or at the disk runs apart from the tasks that serve.
        route => {
            visitor.connection.busy();
            let turn = match route {
                Route::Series => match series::turn().await {
                    Ok(turn) => Some(turn),
                    Err(answer) => return answer,
                },
                _ => None,
            };
            let api = Arc::clone(api);
            let work = move || {
                // The turn ends with the work, also where the client has gone.
                let _turn = turn;
                slow(&api, &route, &query)
            };
            match tokio::task::spawn_blocking(work).await {
                Ok(answer) => answer,
                Err(error) => {
                    tracing::error!(%error, "a request made the API panic; this is a bug");
                    reply::error(StatusCode::INTERNAL_SERVER_ERROR, "internal", "internal error; see the log")
                }
            }
        }
    }
}

fn slow(api: &Api, route: &Route, query: &str) -> Answer {
    match route {
        Route::Metrics { openmetrics } => match api.control.metrics() {
            Ok(text) if *openmetrics => reply::answer(StatusCode::OK, exposition::OPENMETRICS, text),
            Ok(text) => reply::answer(StatusCode::OK, exposition::CLASSIC, exposition::classic(&text)),
            Err(_) => reply::error(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "the metrics cannot be written as text",
            ),
        },
        Route::CurrentAnomalies => match &api.current {
            Some(current) => reply::answer(StatusCode::OK, exposition::CLASSIC, current.text(now())),
            None => reply::error(
                StatusCode::NOT_FOUND,
                "not_found",
                "not enabled: set anomalies_endpoint: true under server:, or --web.enable-anomalies",
            ),
        },
        Route::Reload => match api.control.reload() {
            Ok(()) => {
                reply::success(json!({"reloaded": true, "restart_needed": api.control.restart_needed()}))
            }
            Err(problems) => {
                let body = json!({
                    "status": "error",
                    "errorType": "bad_data",
                    "error": problems.join("\n"),
                    "data": {"problems": problems},
                });
                reply::json_answer(StatusCode::INTERNAL_SERVER_ERROR, &body)
            }
        },
        Route::Status => reply::success(status::status(api)),
        Route::Rules => reply::success(status::rules(&api.engine.rules())),
        Route::Series => with_limit(query, |limit| series::answer(api, &parameters(query, "match[]"), limit)),
        Route::Anomalies => with_limit(query, |limit| {
            let newest = api.recent.newest(limit);
            reply::success(json!(newest.iter().map(|a| a.to_json()).collect::<Vec<_>>()))
        }),
        _ => reply::answer(StatusCode::OK, "text/html; charset=utf-8", page::html(api)),
    }
}

/// What is accepted, all headers of that name in one.
fn accept(headers: &HeaderMap) -> String {
    let values: Vec<_> =
        headers.get_all(ACCEPT).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    values.join(",")
}

fn with_limit(query: &str, f: impl FnOnce(usize) -> Answer) -> Answer {
    match parameter(query, "limit").map(|limit| limit.parse::<usize>()) {
        None => f(DEFAULT_LIMIT),
        Some(Ok(limit)) => f(limit.min(MAX_LIMIT)),
        Some(Err(_)) => {
            reply::error(StatusCode::BAD_REQUEST, "bad_data", "limit: expected a number of at least 0")
        }
    }
}

fn parameter(query: &str, name: &str) -> Option<String> {
    parameters(query, name).into_iter().next()
}

/// The values of a query parameter, decoded, in order.
fn parameters(query: &str, name: &str) -> Vec<String> {
    query
        .split('&')
        .filter_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key) == name).then(|| decode(value))
        })
        .collect()
}

/// Decodes `%xx` and `+`; what is not UTF-8 becomes U+FFFD.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = |i: usize| tail.get(i).and_then(|b| (*b as char).to_digit(16));
        rest = match (first, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high * 16 + low) as u8);
                &tail[2..]
            }
            (b'+', ..) => {
                bytes.push(b' ');
                tail
            }
            (other, ..) => {
                bytes.push(*other);
                tail
            }
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_parameters_are_decoded() {
        let query = "match[]=up%7Bjob%3D%22a+b%22%7D&limit=5&match%5B%5D=x&bad=%zz%e";
        assert_eq!(parameters(query, "match[]"), ["up{job=\"a b\"}", "x"]);
        assert_eq!(parameter(query, "limit").as_deref(), Some("5"));
        assert_eq!(parameter(query, "bad").as_deref(), Some("%zz%e"));
        assert_eq!(parameter(query, "none"), None);
    }
}
