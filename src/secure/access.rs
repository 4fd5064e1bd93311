//! Who may pass which door.

use super::Door;
use super::config::{AccessConfig, AuthConfig};
use super::gate::{Gate, Tag};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use std::path::Path;
use subtle::ConstantTimeEq;

/// Bytes of a credential; longer ones are not looked at.
const MAX_CREDENTIAL: usize = 4096;
/// Bytes of a file of tokens, and of the shortest token.
const MAX_TOKEN_FILE: u64 = 64 << 10;
const MIN_TOKEN: usize = 16;

/// Why somebody may not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[repr(usize)]
pub enum Refusal {
    /// 401: no credentials.
    #[error("no credentials")]
    Missing,
    /// 401: credentials of nobody.
    #[error("wrong credentials")]
    Wrong,
    /// 403: known, and not for this door.
    #[error("these credentials are not for this door")]
    Forbidden,
    /// 503: too many passwords are being verified.
    #[error("too many attempts are being verified")]
    Busy,
}

impl Refusal {
    /// Their names in the `reason` label, in their order.
    pub const NAMES: [&'static str; 4] = ["missing", "wrong", "forbidden", "busy"];
}

/// Some of the doors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct DoorSet(u8);

impl DoorSet {
    const ALL: DoorSet = DoorSet(0b111);
    fn only(door: Door) -> DoorSet {
        DoorSet(1 << door as u8)
    }
    fn has(self, door: Door) -> bool {
        self.0 & DoorSet::only(door).0 != 0
    }
    fn is_empty(self) -> bool {
        self.0 == 0
    }
    fn and(self, other: DoorSet) -> DoorSet {
        DoorSet(self.0 | other.0)
    }
}

struct User {
    name: String,
    hash: String,
    doors: DoorSet,
}

struct Token {
    text: String,
    doors: DoorSet,
}

/// Who may pass which door, compiled. The default is open to all.
#[derive(Default)]
pub(super) struct Access {
    guarded: DoorSet,
    users: Vec<User>,
    tokens: Vec<Token>,
    /// What the password of a user that is not there is compared with, so that an answer takes as
    /// long as if it were.
    stand_in: Option<String>,
}

enum Credentials {
    Basic(String, String),
    Bearer(String),
}

impl Access {
    /// Reads the files of tokens; what is wrong with them goes to `problems`.
    pub(super) fn new(config: &AuthConfig, problems: &mut Vec<String>) -> Access {
        let mut access = Access { guarded: DoorSet::ALL, ..Access::default() };
        access.add(&config.all, DoorSet::ALL, problems);
        for (door, own) in Door::ALL.into_iter().zip(&config.doors) {
            access.add(own, DoorSet::only(door), problems);
        }
        let all = std::iter::once(&config.all).chain(&config.doors);
        let cost = all.flat_map(|one| one.basic_auth_users.values()).map(|hash| hash.cost()).max();
        access.stand_in = cost.and_then(|cost| {
            bcrypt::hash_with_salt("nobody", cost, [7; 16]).ok().map(|hash| hash.to_string())
        });
        access
    }

    fn add(&mut self, config: &AccessConfig, doors: DoorSet, problems: &mut Vec<String>) {
        if config.anonymous {
            self.guarded.0 &= !doors.0;
        }
        for (name, hash) in &config.basic_auth_users {
            match self.users.iter_mut().find(|user| user.name == *name && user.hash == hash.0) {
                Some(user) => user.doors = user.doors.and(doors),
                None => self.users.push(User { name: name.clone(), hash: hash.0.clone(), doors }),
            }
        }
        for path in &config.bearer_token_files {
            match tokens(path) {
                Ok(found) => self.tokens.extend(found.into_iter().map(|text| Token { text, doors })),
                Err(why) => problems.push(format!("{}: {why}", path.display())),
            }
        }
    }

    pub(super) fn is_guarded(&self, door: Door) -> bool {
        self.guarded.has(door)
    }

    /// The kinds of credentials that could open a door; one at least.
    pub(super) fn challenges(&self, door: Door) -> Vec<HeaderValue> {
        let basic = HeaderValue::from_static("Basic realm=\"oddity\", charset=\"UTF-8\"");
        let bearer = HeaderValue::from_static("Bearer realm=\"oddity\"");
        let users = self.users.iter().any(|user| user.doors.has(door));
        let tokens = self.tokens.iter().any(|token| token.doors.has(door));
        match (users, tokens) {
            (true, true) => vec![basic, bearer],
            (false, true) => vec![bearer],
            _ => vec![basic],
        }
    }

    pub(super) async fn check(&self, door: Door, headers: &HeaderMap, gate: &Gate) -> Result<(), Refusal> {
        if !self.guarded.has(door) {
            return Ok(());
        }
        let mut given = headers.get_all(AUTHORIZATION).iter();
        let doors = match (given.next(), given.next()) {
            (None, _) => return Err(Refusal::Missing),
            (Some(one), None) => match credentials(one) {
                Some(Credentials::Bearer(token)) => self.of_token(&token, gate),
                Some(Credentials::Basic(user, password)) => {
                    self.of_user(&user, &password, door, gate).await?
                }
                None => DoorSet::default(),
            },
            // Which of two would count is a matter of taste; tastes differ, and that has opened doors.
            (Some(_), Some(_)) => DoorSet::default(),
        };
        match (doors.has(door), doors.is_empty()) {
            (true, _) => Ok(()),
            (false, false) => Err(Refusal::Forbidden),
            (false, true) => Err(Refusal::Wrong),
        }
    }

    /// The doors of a token. All are compared, by keyed hashes and in constant time, so that the time
    /// it takes tells nothing of any.
    fn of_token(&self, token: &str, gate: &Gate) -> DoorSet {
        let tag = |text: &str| -> Option<Tag> { gate.key.tag(&[text.as_bytes()]) };
        let Some(theirs) = tag(token) else { return DoorSet::default() };
        let mut doors = DoorSet::default();
        for own in &self.tokens {
            if tag(&own.text).is_some_and(|ours| bool::from(ours.ct_eq(&theirs))) {
                doors = doors.and(own.doors);
            }
        }
        doors
    }

    /// The doors of a user, those of `door` asked for first.
    async fn of_user(&self, name: &str, password: &str, door: Door, gate: &Gate) -> Result<DoorSet, Refusal> {
        let busy = |_| Refusal::Busy;
        let mut own: Vec<&User> = self.users.iter().filter(|user| user.name == name).collect();
        own.sort_by_key(|user| !user.doors.has(door));
        if let (true, Some(stand_in)) = (own.is_empty(), &self.stand_in) {
            gate.verify(name, password, stand_in).await.map_err(busy)?;
        }
        for user in own {
            if gate.verify(name, password, &user.hash).await.map_err(busy)? {
                return Ok(user.doors);
            }
        }
        Ok(DoorSet::default())
    }
}

/// What a request says of itself; `None` where that makes no sense.
fn credentials(value: &HeaderValue) -> Option<Credentials> {
    let text = value.to_str().ok().filter(|text| text.len() <= MAX_CREDENTIAL)?;
    let (scheme, rest) = text.trim().split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(Credentials::Bearer(rest.to_string()));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(BASE64_STANDARD.decode(rest).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some(Credentials::Basic(user.to_string(), password.to_string()))
}

/// The tokens of a file, one a line. Messages tell nothing of them.
fn tokens(path: &Path) -> Result<Vec<String>, String> {
    let cannot = |error: std::io::Error| format!("cannot be read: {error}");
    let length = std::fs::metadata(path).map_err(cannot)?.len();
    if length > MAX_TOKEN_FILE {
        return Err(format!("a file of tokens is at most {MAX_TOKEN_FILE} bytes long"));
    }
    let text = std::fs::read(path).map_err(cannot)?;
    let text = String::from_utf8(text).map_err(|_| "is not UTF-8".to_string())?;
    let lines =
        text.lines().enumerate().map(|(n, line)| (n + 1, line.trim())).filter(|(_, line)| !line.is_empty());
    let mut found = Vec::new();
    for (n, line) in lines {
        if !line.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!("line {n}: a token has only visible ASCII characters and no spaces"));
        }
        if line.len() < MIN_TOKEN {
            return Err(format!(
                "line {n}: a token has at least {MIN_TOKEN} characters, such as `openssl rand -hex 32` prints"
            ));
        }
        found.push(line.to_string());
    }
    match found.is_empty() {
        true => Err("there is no token in it".into()),
        false => Ok(found),
    }
}
