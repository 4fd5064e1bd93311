//! TLS, and who may do what, over a real socket.

use super::*;
use crate::secure::tests::{Authority, basic, tls, users};
use crate::secure::{AuthConfig, ClientAuth, Door, DoorsConfig};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::path::Path;
use tokio_rustls::TlsConnector;

async fn behind(config: DoorsConfig) -> Server {
    let doors = Doors::new(config, None).expect("valid");
    server_behind(doors, ServerLimits::default(), ReceiverLimits::default()).await
}

#[tokio::test]
async fn routes_lie_behind_their_doors() {
    let dir = tempfile::tempdir().expect("dir");
    let token = dir.path().join("token");
    std::fs::write(&token, "a-token-0123456789").expect("write");
    let mut auth = AuthConfig::default();
    auth.doors[Door::Ingest as usize] = users(&[("writer", "w")]);
    auth.doors[Door::Read as usize] = users(&[("reader", "r")]);
    auth.doors[Door::Admin as usize].bearer_token_files = vec![token];
    let frame = ("x-frame-options".parse().expect("a name"), "deny".parse().expect("a value"));
    let config = DoorsConfig { auth: Some(auth), headers: vec![frame], ..DoorsConfig::default() };
    let server = behind(config).await;
    let (writer, reader) = (basic("writer", "w"), basic("reader", "r"));
    let (admin, wrong) = ("Bearer a-token-0123456789".to_string(), basic("reader", "canary"));
    let body = request(&[(NAME, "up")]);
    let write = WRITE.strip_suffix("").expect("itself");
    for (head, body, [by_writer, by_reader, by_admin]) in [
        (write, body.as_slice(), [204, 403, 403]),
        ("GET /api/v1/write?get_vm_proto_version=1 HTTP/1.1", b"", [200, 403, 403]),
        ("GET /metrics HTTP/1.1", b"", [403, 200, 403]),
        ("GET /metrics/anomalies HTTP/1.1", b"", [403, 200, 403]),
        ("GET /api/v1/status HTTP/1.1", b"", [403, 200, 403]),
        ("GET /api/v1/series HTTP/1.1", b"", [403, 200, 403]),
        ("GET /api/v1/anomalies HTTP/1.1", b"", [403, 200, 403]),
        ("GET /api/v1/rules HTTP/1.1", b"", [403, 200, 403]),
        ("GET / HTTP/1.1", b"", [403, 200, 403]),
        ("GET /nowhere HTTP/1.1", b"", [403, 404, 403]),
        ("POST /-/reload HTTP/1.1", b"", [403, 403, 500]),
    ] {
        for (who, status) in [(&writer, by_writer), (&reader, by_reader), (&admin, by_admin), (&wrong, 401)] {
            let (got, answer, text) = server.ask(&format!("{head}\r\nauthorization: {who}"), body).await;
            assert!(
                got == status && answer.contains("x-frame-options: deny"),
                "{head} by {who}: {answer}\n{text}"
            );
            assert!(!answer.contains("canary") && !text.contains("canary"));
            assert_eq!(answer.contains("www-authenticate: "), got == 401, "{answer}");
        }
        assert_eq!(server.ask(head, body).await.0, 401, "{head} by nobody");
    }
    for open in ["/-/healthy", "/-/ready", "/health"] {
        assert_eq!(server.get(open).await.0, 200);
    }
    let (_, answer, _) = server.ask("POST /-/reload HTTP/1.1", b"").await;
    assert!(
        answer.contains("www-authenticate: bearer realm=\"oddity\"") && !answer.contains("basic"),
        "{answer}"
    );
    // A large body that may not come in is heard out, and the connection ends.
    let (status, answer, _) = server.ask(WRITE, &vec![0; 3_000_000]).await;
    assert!(status == 401 && answer.contains("connection: close"), "{answer}");
    assert_eq!(server.api.receiver.metrics().received.load(Ordering::Relaxed), 1);
}

/// A request by TLS; the status, or why there is none.
async fn by_tls(server: &Server, ca: &str, client: Option<(&Path, &str)>) -> Result<u16, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).expect("PEM")).expect("a CA");
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let config = match client {
        None => config.with_no_client_auth(),
        Some((dir, name)) => {
            let chain = CertificateDer::from_pem_file(dir.join(format!("{name}.pem"))).expect("PEM");
            let key = PrivateKeyDer::from_pem_file(dir.join(format!("{name}.key"))).expect("PEM");
            config.with_client_auth_cert(vec![chain], key).expect("a pair")
        }
    };
    let stream = TcpStream::connect(server.address).await.map_err(|error| text(&error))?;
    let name = ServerName::try_from("oddity.test").expect("a name");
    let connected = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    let mut stream = connected.map_err(|error| text(&error))?;
    let head = b"GET /api/v1/status HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(head).await.map_err(|error| text(&error))?;
    let mut answer = String::new();
    // An end without a closing alert is an error after the answer.
    let read = stream.read_to_string(&mut answer).await;
    match answer.get(9..12).and_then(|status| status.parse().ok()) {
        Some(status) => Ok(status),
        None => Err(read.map_or_else(|error| text(&error), |_| "closed without an answer".into())),
    }
}

#[tokio::test]
async fn certificates_are_asked_for_and_renewed() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path();
    let (authority, other) = (Authority::new(), Authority::new());
    authority.sign(path, "server", "oddity.test");
    authority.sign(path, "client", "prometheus.test");
    authority.sign(path, "guest", "guest.test");
    other.sign(path, "stranger", "prometheus.test");
    std::fs::write(path.join("ca.pem"), &authority.pem).expect("write");
    let mut tls = tls(path);
    tls.client_auth = ClientAuth::Require;
    tls.client_ca_file = Some(path.join("ca.pem"));
    tls.client_allowed_sans = vec!["prometheus.test".into(), "10.0.0.1".into()];
    let server = behind(DoorsConfig { tls: Some(tls.clone()), ..DoorsConfig::default() }).await;
    let ca = &authority.pem;
    assert_eq!(by_tls(&server, ca, Some((path, "client"))).await, Ok(200));
    for refused in [None, Some((path, "guest")), Some((path, "stranger"))] {
        let result = by_tls(&server, ca, refused).await;
        assert!(result.is_err(), "{refused:?}: {result:?}");
    }
    assert_eq!(server.api.doors.metrics().handshakes_failed.load(Ordering::Relaxed), 3);
    // Plain HTTP is no handshake.
    let mut plain = TcpStream::connect(server.address).await.expect("connects");
    plain.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("writes");
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!String::from_utf8_lossy(&answer).contains("200 OK"));

    // Renewed by another CA, which signs clients from now on.
    std::fs::write(path.join("ca.pem"), &other.pem).expect("write");
    other.sign(path, "server", "oddity.test");
    server.api.doors.look();
    assert_eq!(by_tls(&server, &other.pem, Some((path, "stranger"))).await, Ok(200));
    assert!(by_tls(&server, ca, Some((path, "client"))).await.is_err());
    assert!(by_tls(&server, &other.pem, Some((path, "client"))).await.is_err());

    // Where a certificate is welcome and not needed, it is verified all the same.
    tls.client_auth = ClientAuth::IfGiven;
    let prepared = server.api.doors.prepare(DoorsConfig { tls: Some(tls), ..DoorsConfig::default() });
    server.api.doors.put(prepared.expect("valid"));
    assert_eq!(by_tls(&server, &other.pem, None).await, Ok(200));
    assert_eq!(by_tls(&server, &other.pem, Some((path, "stranger"))).await, Ok(200));
    assert!(by_tls(&server, &other.pem, Some((path, "client"))).await.is_err());
}

#[tokio::test]
async fn a_handshake_that_does_not_come_is_given_up() {
    let dir = tempfile::tempdir().expect("dir");
    Authority::new().sign(dir.path(), "server", "oddity.test");
    let config = DoorsConfig { tls: Some(tls(dir.path())), ..DoorsConfig::default() };
    let limits = ServerLimits { handshake_timeout: Duration::from_millis(20), ..ServerLimits::default() };
    let doors = Doors::new(config, None).expect("valid");
    let server = server_behind(doors, limits, ReceiverLimits::default()).await;
    let mut idle = TcpStream::connect(server.address).await.expect("connects");
    let mut answer = Vec::new();
    let _ = idle.read_to_end(&mut answer).await;
    assert_eq!(answer, b"");
    assert_eq!(server.api.doors.metrics().handshakes_failed.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn idle_connections_give_way_and_do_not_shut_anybody_out() {
    let limits = ServerLimits { connections: 4, ..ServerLimits::default() };
    let server = server(limits, ReceiverLimits::default()).await;
    let mut good = TcpStream::connect(server.address).await.expect("connects");
    let mut idle = Vec::new();
    for _ in 0..50 {
        idle.push(TcpStream::connect(server.address).await.expect("connects"));
        good.write_all(b"GET /api/v1/rules HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("still open");
        let mut start = [0; 12];
        good.read_exact(&mut start).await.expect("an answer");
        assert_eq!(&start, b"HTTP/1.1 200");
        let mut rest = [0; 4096];
        let _ = good.read(&mut rest).await.expect("the rest");
    }
    let [(_, refused), (_, evicted), ..] = server.api.doors.connections().endings();
    assert!(refused == 0 && evicted >= 46, "{refused} {evicted}");
    drop(idle);
}
