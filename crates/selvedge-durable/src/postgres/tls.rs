//! Connections that nobody else can read: what `sslmode` and its kin mean, and
//! the handshake by rustls.
//!
//! The modes are libpq's, with three differences, each to the safe side: a
//! handshake that fails is never followed by an attempt in the clear, `verify-…`
//! without `sslrootcert` trusts what the system trusts, and `sslrootcert`
//! without `sslmode` is `verify-full`. `allow`, which asks for encryption only
//! when refused, is not there.

use std::{
    io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use sha2::Digest;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::{
    Socket,
    config::SslMode,
    tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream as Encrypted};

/// Files of certificates and keys are smaller.
const FILE_MAX: u64 = 1 << 20;

/// How far the server is trusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    /// Nothing is encrypted.
    Disable,
    /// Encrypted if the server can, by whatever certificate.
    #[default]
    Prefer,
    /// Encrypted, by whatever certificate.
    Require,
    /// Encrypted, by a certificate of a trusted authority.
    VerifyCa,
    /// And the certificate carries the name of the host.
    VerifyFull,
}

/// What a connection string says about encryption.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tls {
    pub(super) mode: Mode,
    /// Authorities that are trusted, a file of PEM; none: those of the system.
    roots: Option<PathBuf>,
    /// Certificate and key that this side shows, files of PEM.
    own: Option<(PathBuf, PathBuf)>,
}

impl Tls {
    /// Reads the parameters; what is left out has its default.
    pub(super) fn read(
        mode: Option<&str>,
        roots: Option<&str>,
        certificate: Option<&str>,
        key: Option<&str>,
    ) -> Result<Self, String> {
        let mode = match mode {
            None if roots.is_some() => Mode::VerifyFull,
            None => Mode::default(),
            Some("disable") => Mode::Disable,
            Some("prefer") => Mode::Prefer,
            Some("require") if roots.is_some() => Mode::VerifyCa,
            Some("require") => Mode::Require,
            Some("verify-ca") => Mode::VerifyCa,
            Some("verify-full") => Mode::VerifyFull,
            Some(other) => {
                return Err(format!(
                    "`sslmode={other}` is none of disable, prefer, require, verify-ca, verify-full"
                ));
            }
        };
        let verifies = matches!(mode, Mode::VerifyCa | Mode::VerifyFull);
        if roots.is_some() && !verifies {
            return Err(
                "`sslrootcert` is of no use unless `sslmode` is verify-full, verify-ca or require"
                    .to_owned(),
            );
        }
        if roots == Some("system") && mode == Mode::VerifyCa {
            return Err("anybody can have a certificate of the system's authorities: \
                        `sslrootcert=system` needs `sslmode=verify-full`"
                .to_owned());
        }
        let own = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
            (None, None) => None,
            _ => return Err("`sslcert` and `sslkey` belong together".to_owned()),
        };
        let roots = roots.filter(|roots| *roots != "system").map(PathBuf::from);
        Ok(Self { mode, roots, own })
    }

    /// The same for the client, which knows less about it.
    pub(super) const fn ssl_mode(&self) -> SslMode {
        match self.mode {
            Mode::Disable => SslMode::Disable,
            Mode::Prefer => SslMode::Prefer,
            Mode::Require | Mode::VerifyCa | Mode::VerifyFull => SslMode::Require,
        }
    }

    /// Reads the files, anew for each connection: certificates are exchanged
    /// while a process runs.
    pub(super) fn connector(&self) -> Result<Connector, String> {
        let used = Arc::new(AtomicBool::new(false));
        if self.mode == Mode::Disable {
            return Ok(Connector { config: None, used });
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier: Arc<dyn ServerCertVerifier> = match self.mode {
            Mode::VerifyFull => {
                let roots = Arc::new(self.trusted()?);
                WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
                    .build()
                    .map_err(|error| format!("no certificate to trust: {error}"))?
            }
            Mode::VerifyCa => {
                Arc::new(Lenient { roots: Some(self.trusted()?), provider: provider.clone() })
            }
            _ => Arc::new(Lenient { roots: None, provider: provider.clone() }),
        };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let config = match &self.own {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = certificates(certificate)?;
                let pem = read(key)?;
                let secret = PrivateKeyDer::from_pem_slice(&pem)
                    .map_err(|error| format!("`sslkey` {}: {error}", key.display()))?;
                config.with_client_auth_cert(chain, secret).map_err(|error| {
                    format!("`sslcert` {} and its key: {error}", certificate.display())
                })?
            }
        };
        Ok(Connector { config: Some(Arc::new(config)), used })
    }

    fn trusted(&self) -> Result<RootCertStore, String> {
        let mut store = RootCertStore::empty();
        let Some(path) = &self.roots else {
            let found = rustls_native_certs::load_native_certs();
            let (taken, _) = store.add_parsable_certificates(found.certs);
            if taken == 0 {
                return Err("this system trusts no authority: name a certificate with \
                            `sslrootcert=`, or install `ca-certificates`"
                    .to_owned());
            }
            return Ok(store);
        };
        for certificate in certificates(path)? {
            store
                .add(certificate)
                .map_err(|error| format!("`sslrootcert` {}: {error}", path.display()))?;
        }
        Ok(store)
    }

    /// Why a handshake failed, and what to do.
    pub(super) fn explain(&self, failed: &Failed) -> String {
        let tls = failed.problem.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let host = &failed.host;
        let Some(rustls::Error::InvalidCertificate(problem)) = tls else {
            return format!("the handshake with `{host}` failed: {}", failed.problem);
        };
        match problem {
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                let names = match problem {
                    CertificateError::NotValidForNameContext { presented, .. }
                        if !presented.is_empty() =>
                    {
                        presented.join(", ")
                    }
                    _ => "no host (its common name does not count)".to_owned(),
                };
                format!(
                    "the certificate of `{host}` names {names}: connect by a name that it carries, \
                     or give the server another; `sslmode=verify-ca` does without"
                )
            }
            CertificateError::UnknownIssuer => {
                let roots = self.roots.as_ref().map_or_else(
                    || "what this system trusts".to_owned(),
                    |path| path.display().to_string(),
                );
                format!(
                    "the certificate of `{host}` comes from an authority that is not in {roots}: \
                     name the file of that authority with `sslrootcert=`"
                )
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                format!("the certificate of `{host}` has expired: give the server a new one")
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                format!(
                    "the certificate of `{host}` is not valid yet: is the time right on both sides?"
                )
            }
            other if format!("{other:?}").contains("CaUsedAsEndEntity") => format!(
                "the certificate of `{host}` is that of an authority, which cannot be a server's \
                 too: sign one for the server with it"
            ),
            other => format!("the certificate of `{host}` is refused: {other}"),
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let problem = |error: io::Error| format!("{}: {error}", path.display());
    if std::fs::metadata(path).map_err(problem)?.len() > FILE_MAX {
        return Err(format!("{} is larger than 1 MiB", path.display()));
    }
    std::fs::read(path).map_err(problem)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(format!("{} holds no certificate in PEM", path.display())),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

/// Takes certificates of its authorities whatever name they carry, or all; who
/// shows one must have its key all the same.
#[derive(Debug)]
struct Lenient {
    roots: Option<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(roots) = &self.roots {
            let certificate = rustls::server::ParsedCertificate::try_from(end_entity)?;
            rustls::client::verify_server_cert_signed_by_trust_anchor(
                &certificate,
                roots,
                intermediates,
                now,
                self.provider.signature_verification_algorithms.all,
            )?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Makes connections, for one attempt to connect.
#[derive(Clone)]
pub(super) struct Connector {
    config: Option<Arc<ClientConfig>>,
    used: Arc<AtomicBool>,
}

impl Connector {
    /// Whether the connection that was made is encrypted.
    pub(super) fn encrypts(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }
}

impl MakeTlsConnect<Socket> for Connector {
    type Stream = Stream;
    type TlsConnect = Handshake;
    type Error = Failed;

    fn make_tls_connect(&mut self, host: &str) -> Result<Handshake, Failed> {
        // Of several hosts the last one counts.
        self.used.store(false, Ordering::Relaxed);
        Ok(Handshake { connector: self.clone(), host: host.to_owned() })
    }
}

pub(super) struct Handshake {
    connector: Connector,
    host: String,
}

/// A handshake that failed.
#[derive(Debug, thiserror::Error)]
#[error("{problem}")]
pub(super) struct Failed {
    host: String,
    problem: io::Error,
}

impl TlsConnect<Socket> for Handshake {
    type Stream = Stream;
    type Error = Failed;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, Failed>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        let Self { connector, host } = self;
        Box::pin(async move {
            let handshake = async {
                let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
                let config = connector.config.ok_or(io::ErrorKind::Unsupported)?;
                TlsConnector::from(config).connect(name, socket).await
            };
            match handshake.await {
                Ok(stream) => {
                    connector.used.store(true, Ordering::Relaxed);
                    Ok(Stream(stream))
                }
                Err(problem) => Err(Failed { host, problem }),
            }
        })
    }
}

/// An encrypted connection.
pub(super) struct Stream(Encrypted<Socket>);

impl TlsStream for Stream {
    /// Ties the password's exchange to this connection, RFC 5929 §4.
    fn channel_binding(&self) -> ChannelBinding {
        let (_, session) = self.0.get_ref();
        let digest = session
            .peer_certificates()
            .and_then(<[_]>::first)
            .and_then(|certificate| end_point(certificate));
        digest.map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, into)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// The certificate's digest, by the hash of its own signature: SHA-256 where
/// that is weaker, nothing where it names none.
fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let (outer, _) = element(certificate)?;
    let (_, rest) = element(outer)?;
    let (algorithm, _) = element(rest)?;
    let (oid, _) = element(algorithm)?;
    /// Of PKCS #1: 1.2.840.113549.1.1.
    const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
    /// Of X9.62: 1.2.840.10045.4.
    const ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04];
    let sha256 = || Some(sha2::Sha256::digest(certificate).to_vec());
    let sha384 = || Some(sha2::Sha384::digest(certificate).to_vec());
    let sha512 = || Some(sha2::Sha512::digest(certificate).to_vec());
    if let Some(kind) = oid.strip_prefix(RSA) {
        return match kind {
            [4 | 5 | 11] => sha256(),
            [12] => sha384(),
            [13] => sha512(),
            _ => None,
        };
    }
    match oid.strip_prefix(ECDSA)? {
        [1] | [3, 2] => sha256(),
        [3, 3] => sha384(),
        [3, 4] => sha512(),
        _ => None,
    }
}

/// The content of the first element of DER, and what comes after it.
fn element(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&length, rest) = der.get(1..)?.split_first()?;
    let (length, rest) = if length < 0x80 {
        (usize::from(length), rest)
    } else {
        let (bytes, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
        if bytes.len() > 4 {
            return None;
        }
        (bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_those_of_libpq() {
        let mode = |mode, roots| Tls::read(mode, roots, None, None).map(|tls| tls.mode);
        assert_eq!(mode(None, None), Ok(Mode::Prefer));
        assert_eq!(mode(Some("require"), None), Ok(Mode::Require));
        assert_eq!(mode(Some("require"), Some("ca.pem")), Ok(Mode::VerifyCa));
        assert_eq!(mode(None, Some("ca.pem")), Ok(Mode::VerifyFull));
        assert_eq!(mode(None, Some("system")), Ok(Mode::VerifyFull));
        assert_eq!(mode(Some("verify-full"), None), Ok(Mode::VerifyFull));
        for (name, roots) in [
            (Some("allow"), None),
            (Some("verify_full"), None),
            (Some("prefer"), Some("ca.pem")),
            (Some("disable"), Some("ca.pem")),
            (Some("require"), Some("system")),
        ] {
            assert!(mode(name, roots).is_err(), "{name:?} {roots:?}");
        }
        assert!(Tls::read(None, None, Some("own.pem"), None).is_err());
    }

    #[test]
    fn nonsense_is_no_certificate() {
        for der in [&[][..], &[0x30], &[0x30, 0x84, 255, 255, 255, 255], &[0x30, 0x82, 1], &[0; 9]]
        {
            assert_eq!(end_point(der), None);
        }
    }
}
