//! A CA, certificates as files, and a client that speaks TLS.

use super::http::{Message, read_message};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::io::{BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A CA, its certificate in `<dir>/ca.pem`.
pub struct Authority {
    dir: PathBuf,
    params: rcgen::CertificateParams,
    key: rcgen::KeyPair,
}

impl Authority {
    /// A new one.
    pub fn new(dir: &Path) -> Authority {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).expect("parameters");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("signed");
        std::fs::write(dir.join("ca.pem"), certificate.pem()).expect("ca.pem");
        Authority { dir: dir.to_path_buf(), params, key }
    }

    /// Writes `<name>.key`, then `<name>.pem`, for a host name or address.
    pub fn sign(&self, name: &str, san: &str) {
        let issuer = rcgen::Issuer::from_params(&self.params, &self.key);
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new(vec![san.to_string()]).expect("parameters");
        let certificate = params.signed_by(&key, &issuer).expect("signed");
        std::fs::write(self.dir.join(format!("{name}.key")), key.serialize_pem()).expect("its key");
        std::fs::write(self.dir.join(format!("{name}.pem")), certificate.pem()).expect("its certificate");
    }

    /// A request to a loopback port, by a certificate of ours where one is named; the answer and the
    /// server's certificate.
    ///
    /// # Errors
    /// Whatever TLS or the socket says.
    pub fn request(
        &self,
        method: &str,
        port: u16,
        path: &str,
        headers: &[(&str, &str)],
        client: Option<&str>,
    ) -> std::io::Result<(Message, Vec<u8>)> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.dir.join("ca.pem")).expect("PEM")).expect("a CA");
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let config = match client {
            None => config.with_no_client_auth(),
            Some(name) => {
                let chain = CertificateDer::from_pem_file(self.dir.join(format!("{name}.pem"))).expect("PEM");
                let key = PrivateKeyDer::from_pem_file(self.dir.join(format!("{name}.key"))).expect("PEM");
                config.with_client_auth_cert(vec![chain], key).expect("a pair")
            }
        };
        let name = ServerName::try_from("127.0.0.1").expect("an address");
        let connection = rustls::ClientConnection::new(Arc::new(config), name).expect("a connection");
        let socket = TcpStream::connect(("127.0.0.1", port))?;
        socket.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut stream = rustls::StreamOwned::new(connection, socket);
        let mut head =
            format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n");
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        stream.write_all(format!("{head}\r\n").as_bytes())?;
        let mut reader = BufReader::new(stream);
        let answer = read_message(&mut reader)?;
        let answer = answer.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::UnexpectedEof))?;
        let shown = reader.get_ref().conn.peer_certificates().and_then(|all| all.first());
        Ok((answer, shown.map(|certificate| certificate.to_vec()).unwrap_or_default()))
    }
}
