//! Who a client says it is. Secrets in files are read at each use, and nothing here logs one.

use super::peer::{Http, SendError, causes};
use super::{Auth, Secret};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// A token is renewed this long before it ends.
const MARGIN: Duration = Duration::from_secs(10);
const MAX_TOKEN_ANSWER: usize = 1 << 20;

/// Makes the `Authorization` header.
#[derive(Debug)]
pub struct Authenticator {
    auth: Auth,
    token: Mutex<Option<(HeaderValue, Option<Instant>)>>,
}

impl Authenticator {
    /// For this way of authentication.
    pub fn new(auth: Auth) -> Authenticator {
        Authenticator { auth, token: Mutex::new(None) }
    }

    /// Whether a refused token may be worth renewing.
    pub fn renewable(&self) -> bool {
        matches!(self.auth, Auth::OAuth2 { .. })
    }

    /// Forgets the token, after a 401.
    pub async fn forget(&self) {
        *self.token.lock().await = None;
    }

    /// The header's value, if there is to be one.
    ///
    /// # Errors
    /// A secret's file cannot be read, or the token endpoint does not give a token.
    pub async fn header(&self, http: &Http) -> Result<Option<HeaderValue>, SendError> {
        let text = match &self.auth {
            Auth::None => return Ok(None),
            Auth::Basic { username, password } => {
                let password = password.as_ref().map(read).transpose()?.unwrap_or_default();
                basic(username, &password)
            }
            Auth::Header { scheme, credentials } => format!("{scheme} {}", read(credentials)?),
            Auth::OAuth2 { .. } => return self.oauth2(http).await.map(Some),
        };
        sensitive(&text).map(Some)
    }

    async fn oauth2(&self, http: &Http) -> Result<HeaderValue, SendError> {
        let Auth::OAuth2 { client_id, client_secret, token_url, scopes, endpoint_params } = &self.auth else {
            return Err(SendError::Failed("not OAuth 2.0".into()));
        };
        // Held during the request: the shards ask once, not each for itself.
        let mut cached = self.token.lock().await;
        if let Some((header, until)) = &*cached
            && until.is_none_or(|until| Instant::now() < until)
        {
            return Ok(header.clone());
        }
        let secret = read(client_secret)?;
        let mut form = form_pair("grant_type", "client_credentials");
        if !scopes.is_empty() {
            form = format!("{form}&{}", form_pair("scope", &scopes.join(" ")));
        }
        for (name, value) in endpoint_params {
            form = format!("{form}&{}", form_pair(name, value));
        }
        // RFC 6749, 2.3.1: the header is what every server must take; some take only the form.
        let header = sensitive(&basic(&form_encode(client_id), &form_encode(&secret)))?;
        let first = ask(http, token_url, form.clone(), Some(header)).await?;
        let answer = match first {
            Ok(answer) => answer,
            Err(_) => {
                let id = form_pair("client_id", client_id);
                let form = format!("{form}&{id}&{}", form_pair("client_secret", &secret));
                ask(http, token_url, form, None)
                    .await?
                    .map_err(|status| SendError::Failed(format!("the token endpoint answers {status}")))?
            }
        };
        let field = |name: &str| answer.get(name);
        let token = field("access_token").and_then(|v| v.as_str()).filter(|token| !token.is_empty());
        let token = token
            .ok_or_else(|| SendError::Failed("the token endpoint's answer has no access_token".into()))?;
        let scheme = match field("token_type").and_then(|v| v.as_str()) {
            None | Some("") => "Bearer",
            Some(scheme) if scheme.eq_ignore_ascii_case("bearer") => "Bearer",
            Some(scheme) => scheme,
        };
        let seconds = field("expires_in")
            .and_then(|v| v.as_u64().or_else(|| v.as_str().and_then(|text| text.parse().ok())))
            .filter(|seconds| *seconds > 0);
        let until = seconds.and_then(|seconds| {
            Instant::now().checked_add(Duration::from_secs(seconds).saturating_sub(MARGIN))
        });
        let header = sensitive(&format!("{scheme} {token}"))?;
        *cached = Some((header.clone(), until));
        Ok(header)
    }
}

/// Posts a form. The inner error is a status other than 200.
async fn ask(
    http: &Http,
    url: &str,
    form: String,
    header: Option<HeaderValue>,
) -> Result<Result<serde_json::Value, u16>, SendError> {
    let mut request = Request::post(url)
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(ACCEPT, "application/json")
        .body(Full::new(Bytes::from(form)))
        .map_err(|_| SendError::Failed("token_url is not a URL".into()))?;
    if let Some(header) = header {
        request.headers_mut().insert(AUTHORIZATION, header);
    }
    let response = http
        .request(request)
        .await
        .map_err(|error| SendError::Failed(format!("the token endpoint: {}", causes(&error))))?;
    if !response.status().is_success() {
        return Ok(Err(response.status().as_u16()));
    }
    let body = Limited::new(response.into_body(), MAX_TOKEN_ANSWER).collect().await;
    let body =
        body.map_err(|_| SendError::Failed("the token endpoint's answer broke off".into()))?.to_bytes();
    // The parser's message may quote the answer, which may hold a token.
    serde_json::from_slice(&body)
        .map(Ok)
        .map_err(|_| SendError::Failed("the token endpoint does not answer JSON".into()))
}

fn read(secret: &Secret) -> Result<String, SendError> {
    match secret {
        Secret::Inline(text) => Ok(text.clone()),
        Secret::File(path) => match std::fs::read_to_string(path) {
            Ok(text) => Ok(text.trim().to_string()),
            Err(error) => {
                Err(SendError::Failed(format!("cannot read the secret in {}: {error}", path.display())))
            }
        },
    }
}

fn sensitive(text: &str) -> Result<HeaderValue, SendError> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| SendError::Failed("the credentials hold characters a header cannot carry".into()))?;
    value.set_sensitive(true);
    Ok(value)
}

fn basic(username: &str, password: &str) -> String {
    format!("Basic {}", base64(format!("{username}:{password}").as_bytes()))
}

fn base64(data: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(data.len().div_ceil(3) * 4);
    for chunk in data.chunks(3) {
        let bits =
            chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            if digit > chunk.len() {
                out.push('=');
            } else {
                out.push(char::from(ALPHABET[(bits >> (18 - 6 * digit)) as usize & 63]));
            }
        }
    }
    out
}

fn form_pair(name: &str, value: &str) -> String {
    format!("{}={}", form_encode(name), form_encode(value))
}

/// `application/x-www-form-urlencoded`.
fn form_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'*' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            _ => {
                out.push('%');
                for half in [byte >> 4, byte & 15] {
                    out.extend(char::from_digit(u32::from(half), 16).map(|digit| digit.to_ascii_uppercase()));
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_as_in_rfc_4648() {
        for (text, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(text.as_bytes()), coded);
        }
        assert_eq!(base64(&[0xff, 0xfe, 0xfb]), "//77");
    }

    #[test]
    fn forms_escape_what_they_must() {
        assert_eq!(form_pair("a b", "ü&=+~"), "a+b=%C3%BC%26%3D%2B%7E");
    }
}
