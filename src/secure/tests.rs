use super::*;
use std::collections::BTreeMap;
use std::path::Path;

const TOKEN: &str = "canary-token-0123456789";
const PASSWORD: &str = "canary-password";

/// A CA and what it signs, as files.
pub(crate) struct Authority {
    params: rcgen::CertificateParams,
    key: rcgen::KeyPair,
    pub pem: String,
}

impl Authority {
    pub(crate) fn new() -> Authority {
        let key = rcgen::KeyPair::generate().expect("key");
        let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).expect("params");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("ca").pem();
        Authority { params, key, pem }
    }

    /// Writes `<name>.pem` and `<name>.key`.
    pub(crate) fn sign(&self, dir: &Path, name: &str, san: &str) {
        let issuer = rcgen::Issuer::from_params(&self.params, &self.key);
        let key = rcgen::KeyPair::generate().expect("key");
        let params = rcgen::CertificateParams::new(vec![san.to_string()]).expect("params");
        let certificate = params.signed_by(&key, &issuer).expect("signed");
        std::fs::write(dir.join(format!("{name}.pem")), certificate.pem()).expect("write");
        std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).expect("write");
    }
}

pub(crate) fn hash(password: &str) -> PasswordHash {
    PasswordHash::parse(&bcrypt::hash(password, 4).expect("hashes")).expect("a hash")
}

pub(crate) fn users(pairs: &[(&str, &str)]) -> AccessConfig {
    let users: BTreeMap<_, _> = pairs.iter().map(|(name, pass)| (name.to_string(), hash(pass))).collect();
    AccessConfig { basic_auth_users: users, ..AccessConfig::default() }
}

pub(crate) fn tls(dir: &Path) -> TlsConfig {
    TlsConfig {
        cert_file: dir.join("server.pem"),
        key_file: dir.join("server.key"),
        client_auth: ClientAuth::None,
        client_ca_file: None,
        client_allowed_sans: Vec::new(),
        min_version: TlsVersion::Tls12,
        max_version: TlsVersion::Tls13,
    }
}

fn guarded(auth: AuthConfig) -> Doors {
    Doors::new(DoorsConfig { auth: Some(auth), ..DoorsConfig::default() }, None).expect("valid")
}

pub(crate) fn basic(user: &str, password: &str) -> String {
    use base64::Engine;
    format!("Basic {}", base64::prelude::BASE64_STANDARD.encode(format!("{user}:{password}")))
}

async fn ask(doors: &Doors, door: Door, values: &[&str]) -> Result<(), Refusal> {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append("authorization", HeaderValue::from_str(value).expect("a value"));
    }
    doors.check(door, &headers, None).await
}

#[tokio::test]
async fn each_door_knows_its_own_and_those_of_all() {
    let dir = tempfile::tempdir().expect("dir");
    let tokens = dir.path().join("tokens");
    std::fs::write(&tokens, format!("\n  {TOKEN}  \nold-token-0123456789\n")).expect("write");
    let mut auth = AuthConfig { all: users(&[("root", "r")]), ..AuthConfig::default() };
    auth.doors[Door::Ingest as usize] = users(&[("prom", "p"), ("both", "1")]);
    auth.doors[Door::Read as usize] = users(&[("both", "2")]);
    auth.doors[Door::Read as usize].bearer_token_files = vec![tokens];
    let doors = guarded(auth);
    let bearer = format!("bearer {TOKEN}");
    let wrong = Err(Refusal::Wrong);
    let forbidden = Err(Refusal::Forbidden);
    for (values, expected) in [
        (vec![], [Err(Refusal::Missing); 3]),
        (vec![basic("root", "r")], [Ok(()); 3]),
        (vec![basic("root", "x")], [wrong; 3]),
        (vec![basic("nobody", "r")], [wrong; 3]),
        (vec![basic("prom", "p")], [Ok(()), forbidden, forbidden]),
        (vec![basic("both", "1")], [Ok(()), forbidden, forbidden]),
        (vec![basic("both", "2")], [forbidden, Ok(()), forbidden]),
        (vec![bearer.clone()], [forbidden, Ok(()), forbidden]),
        (vec!["Bearer old-token-0123456789".into()], [forbidden, Ok(()), forbidden]),
        (vec![format!("Bearer {TOKEN}x")], [wrong; 3]),
        (vec!["Bearer".into()], [wrong; 3]),
        (vec!["Digest x".into()], [wrong; 3]),
        (vec!["Basic %%%".into()], [wrong; 3]),
        (vec![format!("Bearer {}", "x".repeat(5000))], [wrong; 3]),
        (vec![basic("root", "r"), bearer], [wrong; 3]),
    ] {
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        for (door, expected) in Door::ALL.into_iter().zip(expected) {
            assert_eq!(ask(&doors, door, &values).await, expected, "{door:?}: {values:?}");
        }
    }
    let count = |door, reason| {
        let all = doors.metrics().refusals();
        all.iter().find(|(d, r, _)| (*d, *r) == (door, reason)).map(|found| found.2)
    };
    assert_eq!(
        (count("ingest", "missing"), count("read", "missing"), count("admin", "busy")),
        (Some(1), Some(1), Some(0))
    );
    assert_eq!(doors.challenges(Door::Read).len(), 2);
    assert_eq!(doors.challenges(Door::Admin), ["Basic realm=\"oddity\", charset=\"UTF-8\""]);
}

#[tokio::test]
async fn a_door_that_names_nobody_is_closed_and_an_anonymous_one_open() {
    let mut auth = AuthConfig::default();
    auth.doors[Door::Ingest as usize] = users(&[("prom", "p")]);
    auth.doors[Door::Read as usize].anonymous = true;
    let doors = guarded(auth);
    assert_eq!(ask(&doors, Door::Read, &[]).await, Ok(()));
    assert_eq!(ask(&doors, Door::Read, &["Basic %%%"]).await, Ok(()));
    assert_eq!(ask(&doors, Door::Admin, &[]).await, Err(Refusal::Missing));
    assert_eq!(ask(&doors, Door::Admin, &[&basic("prom", "p")]).await, Err(Refusal::Forbidden));
    assert_eq!(Door::ALL.map(|door| doors.is_guarded(door)), [true, false, true]);
    assert!(!Doors::default().is_guarded(Door::Admin));
}

#[tokio::test]
async fn tokens_are_read_again_and_a_bad_file_leaves_the_old_ones() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("tokens");
    let write = |text: &str| std::fs::write(&path, text).expect("write");
    write(TOKEN);
    let all = AccessConfig { bearer_token_files: vec![path.clone()], ..AccessConfig::default() };
    let doors = guarded(AuthConfig { all, ..AuthConfig::default() });
    let old = format!("Bearer {TOKEN}");
    for (text, says) in [
        ("", "no token"),
        ("canary-short", "at least 16"),
        ("canary token with spaces in it", "no spaces"),
        ("canary\u{e9}canary-canary-canary", "ASCII"),
    ] {
        write(text);
        let problem = doors.prepare(doors.state.load().config.clone()).map(drop).expect_err(text).remove(0);
        assert!(problem.contains(says) && !problem.contains("canary"), "{problem}");
        doors.look();
        assert_eq!(ask(&doors, Door::Read, &[&old]).await, Ok(()), "{text}");
        assert!(!doors.metrics().files_ok.load(Ordering::Relaxed));
    }
    let refused = doors.metrics().files_refused.load(Ordering::Relaxed);
    doors.look();
    assert_eq!(doors.metrics().files_refused.load(Ordering::Relaxed), refused, "told once");
    write("another-token-0123456789");
    doors.look();
    assert_eq!(ask(&doors, Door::Read, &[&old]).await, Err(Refusal::Wrong));
    assert_eq!(ask(&doors, Door::Read, &["Bearer another-token-0123456789"]).await, Ok(()));
    assert!(doors.metrics().files_ok.load(Ordering::Relaxed));
    std::fs::remove_file(&path).expect("remove");
    doors.look();
    assert_eq!(ask(&doors, Door::Read, &["Bearer another-token-0123456789"]).await, Ok(()));
}

#[test]
fn a_certificate_whose_key_does_not_fit_leaves_the_old_one() {
    let dir = tempfile::tempdir().expect("dir");
    let authority = Authority::new();
    authority.sign(dir.path(), "server", "oddity.test");
    let config = DoorsConfig { tls: Some(tls(dir.path())), ..DoorsConfig::default() };
    let doors = Doors::new(config, None).expect("valid");
    let first = doors.tls().expect("TLS");
    let same = |other: &Arc<ServerConfig>| Arc::ptr_eq(&first, other);
    doors.look();
    assert!(doors.tls().is_some_and(|now| same(&now)), "nothing has changed");
    let key = std::fs::read(dir.path().join("server.key")).expect("read");
    authority.sign(dir.path(), "server", "oddity.test");
    let new_key = std::fs::read(dir.path().join("server.key")).expect("read");
    std::fs::write(dir.path().join("server.key"), key).expect("write");
    doors.look();
    assert!(doors.tls().is_some_and(|now| same(&now)) && !doors.metrics().files_ok.load(Ordering::Relaxed));
    std::fs::write(dir.path().join("server.key"), new_key).expect("write");
    doors.look();
    assert!(doors.tls().is_some_and(|now| !same(&now)) && doors.metrics().files_ok.load(Ordering::Relaxed));
}

#[test]
fn files_that_cannot_be_used_are_all_named() {
    let dir = tempfile::tempdir().expect("dir");
    let mut tls = tls(dir.path());
    tls.client_auth = ClientAuth::Require;
    let all = AccessConfig { bearer_token_files: vec![dir.path().join("tokens")], ..AccessConfig::default() };
    let auth = Some(AuthConfig { all, ..AuthConfig::default() });
    let config = DoorsConfig { tls: Some(tls), auth, ..DoorsConfig::default() };
    let problems = Doors::new(config, None).map(drop).expect_err("no files");
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].contains("server.pem") && problems[1].contains("tokens"), "{problems:?}");
}

#[tokio::test]
async fn nothing_secret_is_in_what_is_printed() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("tokens");
    std::fs::write(&path, TOKEN).expect("write");
    let mut auth = AuthConfig { all: users(&[("me", PASSWORD)]), ..AuthConfig::default() };
    auth.doors[0].bearer_token_files = vec![path];
    let hashed = auth.all.basic_auth_users["me"].0.clone();
    let doors = guarded(auth);
    assert_eq!(ask(&doors, Door::Read, &[&basic("me", PASSWORD)]).await, Ok(()));
    let shown = format!("{doors:?} {:?} {:?}", doors.metrics(), doors.state.load().config);
    assert!(shown.contains("<secret>") && !shown.contains("canary") && !shown.contains(&hashed), "{shown}");
}

#[test]
fn only_bcrypt_hashes_of_a_bearable_cost_are_taken() {
    let at = |cost: u32| {
        bcrypt::hash_with_salt("x", 4, [1; 16])
            .expect("hashes")
            .to_string()
            .replace("$04$", &format!("${cost:02}$"))
    };
    assert!(PasswordHash::parse(&at(4)).is_ok() && PasswordHash::parse(&at(16)).is_ok());
    for text in ["", PASSWORD, "$2y$10$short", &at(17), &at(31), &at(3)] {
        let problem = PasswordHash::parse(text).expect_err(text);
        assert!(!problem.contains("canary"), "{problem}");
    }
}
