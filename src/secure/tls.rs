//! TLS of the listener: our certificate, and whose certificates of clients are taken.

use super::config::{ClientAuth, TlsConfig, TlsVersion};
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion, version};
use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

/// Reads the files.
///
/// # Errors
/// Which file cannot be used, and why.
pub(super) fn server(config: &TlsConfig) -> Result<Arc<ServerConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = certificates(&config.cert_file)?;
    let key =
        PrivateKeyDer::from_pem_file(&config.key_file).map_err(|error| wrong(&config.key_file, error))?;
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&versions(config))
        .map_err(|error| format!("tls: {error}"))?;
    let builder = match (config.client_auth, &config.client_ca_file) {
        (ClientAuth::None, _) => builder.with_no_client_auth(),
        (auth, Some(file)) => builder.with_client_cert_verifier(verifier(file, auth, provider)?),
        (_, None) => return Err("tls: client_auth_type needs client_ca_file".into()),
    };
    let mut server = builder.with_single_cert(chain, key).map_err(|error| {
        format!("{} and {}: {error}", config.cert_file.display(), config.key_file.display())
    })?;
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(server))
}

fn versions(config: &TlsConfig) -> Vec<&'static SupportedProtocolVersion> {
    let all = [(TlsVersion::Tls12, &version::TLS12), (TlsVersion::Tls13, &version::TLS13)];
    let range = config.min_version..=config.max_version;
    all.into_iter().filter_map(|(version, supported)| range.contains(&version).then_some(supported)).collect()
}

fn verifier(
    file: &Path,
    auth: ClientAuth,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|error| wrong(file, error))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = match auth {
        ClientAuth::IfGiven => builder.allow_unauthenticated(),
        _ => builder,
    };
    builder.build().map_err(|error| wrong(file, error))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).map_err(|error| wrong(path, error))?;
    let found = read.collect::<Result<Vec<_>, _>>().map_err(|error| wrong(path, error))?;
    match found.is_empty() {
        true => Err(wrong(path, "no certificate in it")),
        false => Ok(found),
    }
}

fn wrong(path: &Path, error: impl Display) -> String {
    format!("{}: {error}", path.display())
}

/// Whether a client's verified certificate bears one of the allowed names, if there are any. A client
/// without a certificate is another matter: `VerifyClientCertIfGiven` lets it in.
pub(super) fn is_allowed(config: &TlsConfig, certificates: Option<&[CertificateDer<'_>]>) -> bool {
    let Some(own) = certificates.and_then(<[_]>::first) else { return true };
    if config.client_allowed_sans.is_empty() {
        return true;
    }
    let Ok(own) = ParsedCertificate::try_from(own) else { return false };
    let bears = |name: &String| match ServerName::try_from(name.as_str()) {
        Ok(name) => verify_server_name(&own, &name).is_ok(),
        Err(_) => false,
    };
    config.client_allowed_sans.iter().any(bears)
}
