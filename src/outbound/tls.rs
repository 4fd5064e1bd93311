//! TLS of a client: whose certificates are trusted, and which is shown.

use super::{OutboundError, TlsConfig};
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A connector for `http` and, where `https` is needed, for that.
///
/// # Errors
/// Files that cannot be read or hold no certificates, or a name that cannot be one.
pub fn connector(
    config: &TlsConfig,
    https: bool,
    connect_timeout: Duration,
) -> Result<HttpsConnector<HttpConnector>, OutboundError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(tls_error)?;
    let builder = if config.insecure_skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptAny(provider.clone())))
    } else {
        // Reading the system's store takes its time: not for plain http.
        builder.with_root_certificates(if https {
            roots(config.ca_file.as_deref())?
        } else {
            RootCertStore::empty()
        })
    };
    let tls = match (&config.cert_file, &config.key_file) {
        (Some(cert), Some(key)) => {
            let files = ClientFiles { cert: cert.clone(), key: key.clone(), provider };
            files.read()?;
            builder.with_client_cert_resolver(Arc::new(files))
        }
        (None, None) => builder.with_no_client_auth(),
        _ => return Err(OutboundError::Tls("cert_file and key_file need each other".into())),
    };
    let mut builder = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
    if let Some(name) = &config.server_name {
        let name = ServerName::try_from(name.clone())
            .map_err(|_| OutboundError::Tls(format!("server_name {name:?} is not a host name")))?;
        builder = builder.with_server_name_resolver(FixedServerNameResolver::new(name));
    }
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(connect_timeout));
    Ok(builder.enable_http1().wrap_connector(http))
}

fn tls_error(error: rustls::Error) -> OutboundError {
    OutboundError::Tls(error.to_string())
}

fn file_error(path: &Path, error: impl std::fmt::Display) -> OutboundError {
    OutboundError::Tls(format!("{}: {error}", path.display()))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, OutboundError> {
    let read = CertificateDer::pem_file_iter(path).map_err(|error| file_error(path, error))?;
    let found = read.collect::<Result<Vec<_>, _>>().map_err(|error| file_error(path, error))?;
    if found.is_empty() {
        return Err(file_error(path, "no certificate in it"));
    }
    Ok(found)
}

fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, OutboundError> {
    let mut store = RootCertStore::empty();
    if let Some(path) = ca_file {
        for certificate in certificates(path)? {
            store.add(certificate).map_err(|error| file_error(path, error))?;
        }
        return Ok(store);
    }
    let found = rustls_native_certs::load_native_certs();
    store.add_parsable_certificates(found.certs);
    if store.is_empty() {
        let why = found.errors.first().map_or(String::new(), |error| format!(" ({error})"));
        return Err(OutboundError::Tls(format!("the system has no CA certificates{why}; set ca_file")));
    }
    Ok(store)
}

/// The client's certificate, read at each handshake: short-lived ones are renewed on disk.
#[derive(Debug)]
struct ClientFiles {
    cert: PathBuf,
    key: PathBuf,
    provider: Arc<CryptoProvider>,
}

impl ClientFiles {
    fn read(&self) -> Result<CertifiedKey, OutboundError> {
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| file_error(&self.key, error))?;
        CertifiedKey::from_der(certificates(&self.cert)?, key, &self.provider).map_err(tls_error)
    }
}

impl ResolvesClientCert for ClientFiles {
    fn resolve(&self, _issuers: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        match self.read() {
            Ok(certificate) => Some(Arc::new(certificate)),
            Err(error) => {
                tracing::warn!("no client certificate shown: {error}");
                None
            }
        }
    }
    fn has_certs(&self) -> bool {
        true
    }
}

/// `insecure_skip_verify`: any certificate will do, but its owner must still hold the key.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
