//! TLS for streams: keys and certificates from files, who is trusted, handshakes. TLS 1.2 and 1.3, by rustls.
//!
//! Both sides of a connection show a certificate and check the other's against the authority of `--ca-cert`; names
//! in certificates are not looked at, as in Open vSwitch. Files are read again when they changed. There is one
//! identity in a process, set by the command line or by the SSL table of the database. Neighbours: `stream` moves
//! the bytes. Main thread.

use crate::cli;
use infra::vlog::{Module, RateLimit};
use infra::{err, info, vlog_rl, warn};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{ring, verify_tls12_signature, verify_tls13_signature, CryptoProvider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{ClientConfig, ClientConnection, Connection, DigitallySignedStruct, RootCertStore};
use rustls::{ServerConfig, ServerConnection, SignatureScheme};
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

static LOG: Module = Module::new("stream_ssl");
static LIMIT: RateLimit = RateLimit::new(10, 25);

/// Bytes that one connection encrypts ahead of its socket.
const BUFFER: usize = 256 << 10;

/// In place of a file of `--ca-cert`: nobody is checked.
const NO_CHECK: &str = "none";

/// The files of our identity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// Our private key.
    pub private_key: Option<PathBuf>,
    /// Our certificate.
    pub certificate: Option<PathBuf>,
    /// The authority that peers are checked against.
    pub ca_cert: Option<PathBuf>,
    /// Take the authority from the first peer if the file is missing.
    pub bootstrap: bool,
    /// More certificates to send.
    pub peer_ca_cert: Option<PathBuf>,
}

impl From<&cli::Tls> for Files {
    fn from(t: &cli::Tls) -> Files {
        Files {
            private_key: t.private_key.clone(),
            certificate: t.certificate.clone(),
            ca_cert: t.ca_cert.clone(),
            bootstrap: t.bootstrap,
            peer_ca_cert: t.peer_ca_cert.clone(),
        }
    }
}

/// When a file was changed, and how long it is: differs when its contents do.
type Stamp = Option<(i64, i64, u64, u64)>;

fn stamp(path: Option<&Path>) -> Stamp {
    let m = std::fs::metadata(path?).ok()?;
    Some((m.mtime(), m.mtime_nsec(), m.size(), m.ino()))
}

/// Whom to trust.
#[derive(Clone)]
enum Trust {
    Anybody,
    Anchors(Arc<RootCertStore>),
    /// The authority in the peer's chain, which goes to this file.
    First(PathBuf),
}

/// What was read from the files.
#[derive(Clone)]
struct Identity {
    client: Arc<ClientConfig>,
    /// None while the authority is still to be learned.
    server: Option<Arc<ServerConfig>>,
}

#[derive(Default)]
struct Settings {
    files: Files,
    stamps: [Stamp; 4],
    identity: Option<Identity>,
}

static SETTINGS: Mutex<Option<Settings>> = Mutex::new(None);

/// Uses other files from now on. Connections that stand are not touched.
pub fn configure(files: Files) {
    let mut settings = SETTINGS.lock().unwrap_or_else(PoisonError::into_inner);
    if settings.as_ref().map(|s| &s.files) != Some(&files) {
        *settings = Some(Settings { files, ..Settings::default() });
    }
}

/// The identity, read again when a file changed.
fn identity() -> io::Result<Identity> {
    let mut guard = SETTINGS.lock().unwrap_or_else(PoisonError::into_inner);
    let s = guard.get_or_insert_with(Settings::default);
    let f = &s.files;
    let stamps = [&f.private_key, &f.certificate, &f.ca_cert, &f.peer_ca_cert].map(|p| stamp(p.as_deref()));
    if stamps != s.stamps || s.identity.is_none() {
        s.identity = load(f);
        s.stamps = stamps;
    }
    s.identity.clone().ok_or_else(|| io::Error::from_raw_os_error(libc::ENOPROTOOPT))
}

fn load(files: &Files) -> Option<Identity> {
    let complain = |what: &str, there: bool| {
        if !there {
            vlog_rl!(LOG, LIMIT, Err, "{what} must be configured to use SSL");
        }
    };
    let key = files
        .private_key
        .as_deref()
        .and_then(|p| read(p, "private key", |p| PrivateKeyDer::from_pem_file(p)));
    let chain = files.certificate.as_deref().and_then(|p| read(p, "certificate", certificates));
    let trust = files.ca_cert.as_deref().and_then(|p| trusted(p, files.bootstrap));
    complain("Private key", key.is_some());
    complain("Certificate", chain.is_some());
    complain("CA certificate", trust.is_some());
    let (key, mut chain, trust) = (key?, chain?, trust?);
    if let Some(more) =
        files.peer_ca_cert.as_deref().and_then(|p| read(p, "peer CA certificate", certificates))
    {
        chain.extend(more);
    }
    match configurations(key, chain, trust) {
        Ok(identity) => Some(identity),
        Err(error) => {
            vlog_rl!(LOG, LIMIT, Err, "private key and certificate cannot be used: {error}");
            None
        }
    }
}

fn read<T, E: std::fmt::Display>(path: &Path, what: &str, from: impl Fn(&Path) -> Result<T, E>) -> Option<T> {
    from(path)
        .map_err(|e| vlog_rl!(LOG, LIMIT, Err, "failed to load {what} from {}: {e}", path.display()))
        .ok()
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, rustls::pki_types::pem::Error> {
    let all: Vec<_> = CertificateDer::pem_file_iter(path)?.collect::<Result<_, _>>()?;
    if all.is_empty() {
        return Err(rustls::pki_types::pem::Error::NoItemsFound);
    }
    Ok(all)
}

fn trusted(path: &Path, bootstrap: bool) -> Option<Trust> {
    if path == Path::new(NO_CHECK) {
        warn!(LOG, "Peer certificate validation disabled (this is a security risk)");
        return Some(Trust::Anybody);
    }
    if bootstrap && !path.exists() {
        return Some(Trust::First(path.to_path_buf()));
    }
    let mut store = RootCertStore::empty();
    for c in read(path, "CA certificates", certificates)? {
        if let Err(e) = store.add(c) {
            vlog_rl!(LOG, LIMIT, Err, "failed to load CA certificates from {}: {e}", path.display());
            return None;
        }
    }
    Some(Trust::Anchors(Arc::new(store)))
}

fn configurations(
    key: PrivateKeyDer<'static>,
    chain: Vec<CertificateDer<'static>>,
    trust: Trust,
) -> Result<Identity, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let server =
        ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let server = match &trust {
        Trust::Anybody => Some(server.with_no_client_auth()),
        Trust::Anchors(store) => {
            let peers = WebPkiClientVerifier::builder_with_provider(store.clone(), provider.clone()).build();
            let peers = peers.map_err(|e| rustls::Error::General(e.to_string()))?;
            Some(server.with_client_cert_verifier(peers))
        }
        Trust::First(_) => None,
    };
    let server = server.map(|s| s.with_single_cert(chain.clone(), key.clone_key())).transpose()?;
    let client = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier { trust, provider }))
        .with_client_auth_cert(chain, key)?;
    Ok(Identity { client: Arc::new(client), server: server.map(Arc::new) })
}

/// Checks a server's chain against the authority, but not its name.
#[derive(Debug)]
struct Verifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Trust::Anybody => "anybody",
            Trust::Anchors(_) => "anchors",
            Trust::First(_) => "first",
        })
    }
}

impl Verifier {
    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        roots: &RootCertStore,
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let algorithms = self.provider.signature_verification_algorithms.all;
        let leaf = ParsedCertificate::try_from(leaf)?;
        verify_server_cert_signed_by_trust_anchor(&leaf, roots, between, now, algorithms)
    }

    /// Keeps the authority that the peer sent behind its certificate. The connection does not go on: the next one is
    /// checked against the file.
    fn learn(
        &self,
        leaf: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        path: &Path,
        now: UnixTime,
    ) -> rustls::Error {
        let Some(last) = between.last() else {
            err!(LOG, "could not bootstrap CA cert: obtained certificate is not self-signed");
            let only = "only one certificate was received, so probably the peer is not configured to send its CA certificate";
            err!(LOG, "{only}");
            return rustls::Error::General("no CA certificate to bootstrap from".into());
        };
        let mut roots = RootCertStore::empty();
        let signed =
            roots.add(last.clone().into_owned()).and_then(|()| self.check(leaf, between, &roots, now));
        if let Err(e) = signed {
            err!(
                LOG,
                "could not bootstrap CA cert: the last certificate obtained is not the peer's authority: {e}"
            );
            return e;
        }
        match write_certificate(path, last) {
            Ok(()) => info!(LOG, "successfully bootstrapped CA cert to {}", path.display()),
            Err(e) => err!(LOG, "could not bootstrap CA cert: creating {} failed: {e}", path.display()),
        }
        rustls::Error::General("CA certificate bootstrapped, connecting anew".into())
    }
}

fn write_certificate(path: &Path, der: &CertificateDer<'_>) -> io::Result<()> {
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in base64(der).as_bytes().chunks(64) {
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    std::fs::OpenOptions::new().write(true).create_new(true).open(path)?.write_all(text.as_bytes())
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let word = group.iter().fold(0u32, |w, b| w << 8 | u32::from(*b)) << (8 * (3 - group.len()));
        for i in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * i)) as usize & 63];
            out.push(if i <= group.len() { digit.into() } else { '=' });
        }
    }
    out
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.trust {
            Trust::Anybody => {}
            Trust::Anchors(roots) => self.check(leaf, between, roots, now)?,
            Trust::First(path) => return Err(self.learn(leaf, between, path, now)),
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// What a read of a session brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Plain {
    /// That many bytes.
    Bytes(usize),
    /// Nothing now.
    Nothing,
    /// The peer closed.
    End,
}

/// One TLS session over a socket that does not block.
pub struct Session {
    connection: Connection,
    side: &'static str,
}

impl Session {
    /// The side that connects.
    pub fn client(peer: IpAddr) -> io::Result<Session> {
        let config = identity()?.client;
        let connection = ClientConnection::new(config, ServerName::from(peer)).map_err(io::Error::other)?;
        Ok(Session::new(connection.into(), "SSL_connect"))
    }

    /// The side that listens.
    pub fn server() -> io::Result<Session> {
        let config = identity()?.server.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOPROTOOPT))?;
        let connection = ServerConnection::new(config).map_err(io::Error::other)?;
        Ok(Session::new(connection.into(), "SSL_accept"))
    }

    fn new(mut connection: Connection, side: &'static str) -> Session {
        connection.set_buffer_limit(Some(BUFFER));
        Session { connection, side }
    }

    /// Whether the handshake is over.
    pub fn is_established(&self) -> bool {
        !self.connection.is_handshaking()
    }

    /// Whether encrypted bytes wait for the socket.
    pub fn wants_write(&self) -> bool {
        self.connection.wants_write()
    }

    /// Writes what is encrypted, as far as the socket takes it.
    pub fn flush(&mut self, socket: &mut dyn Write) -> io::Result<()> {
        while self.connection.wants_write() {
            match self.connection.write_tls(socket) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Takes bytes from the socket: some, none now, or the end.
    fn feed<S: Read + Write>(&mut self, socket: &mut S) -> io::Result<Plain> {
        let n = loop {
            match self.connection.read_tls(socket) {
                Ok(n) => break n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Plain::Nothing),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        };
        if n == 0 {
            return Ok(Plain::End);
        }
        let processed = self.connection.process_new_packets();
        // Also what is wrong is told to the peer.
        let flushed = self.flush(socket);
        if let Err(e) = processed {
            return Err(self.failed(&e));
        }
        flushed.map(|()| Plain::Bytes(n))
    }

    fn failed(&self, e: &rustls::Error) -> io::Error {
        let side = if self.is_established() { "SSL_read" } else { self.side };
        vlog_rl!(LOG, LIMIT, Warn, "{side}: {e}");
        io::Error::from_raw_os_error(libc::EPROTO)
    }

    /// Goes on with the handshake; true when it is over.
    pub fn handshake<S: Read + Write>(&mut self, socket: &mut S) -> io::Result<bool> {
        self.flush(socket)?;
        while !self.is_established() {
            match self.feed(socket)? {
                Plain::Bytes(_) => {}
                Plain::Nothing => return Ok(false),
                Plain::End => {
                    vlog_rl!(LOG, LIMIT, Warn, "{}: unexpected eof while reading", self.side);
                    return Err(io::Error::from_raw_os_error(libc::EPROTO));
                }
            }
        }
        Ok(true)
    }

    /// Reads into `buffer`.
    pub fn receive<S: Read + Write>(&mut self, socket: &mut S, buffer: &mut [u8]) -> io::Result<Plain> {
        if !self.handshake(socket)? {
            return Ok(Plain::Nothing);
        }
        loop {
            match self.connection.reader().read(buffer) {
                Ok(0) => return Ok(Plain::End),
                Ok(n) => return Ok(Plain::Bytes(n)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                // The peer left without saying so.
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(Plain::End),
                Err(e) => return Err(e),
            }
            match self.feed(socket)? {
                Plain::Bytes(_) => {}
                other => return Ok(other),
            }
        }
    }

    /// Encrypts what fits of `bytes` and writes it; how many were taken.
    pub fn write<S: Read + Write>(&mut self, socket: &mut S, bytes: &[u8]) -> io::Result<usize> {
        if !self.handshake(socket)? || self.wants_write() {
            return Ok(0);
        }
        let n = self.connection.writer().write(bytes)?;
        self.flush(socket)?;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn base64_of_all_lengths() {
        for (bytes, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
