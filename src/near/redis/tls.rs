//! TLS to a server, by rustls.
//!
//! Nothing here holds a lock that a child of a fork could inherit locked: sessions are not resumed,
//! so that there is no store of them. Sessions belong to connections, which a child does not use.

use std::{
    fs,
    io::{self, ErrorKind, Read, Write},
    sync::Arc,
};

use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct,
    Error as Fault, InvalidMessage, RootCertStore, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{
        CertificateDer, PrivateKeyDer, ServerName, UnixTime,
        pem::{Error as PemError, PemObject},
    },
};

use crate::{
    error::Result,
    near::options::{Options, invalid},
    os::stream::Stream,
};

/// Bytes of one record: what the peer reads as a whole or not at all.
const RECORD: usize = 16 << 10;
/// The only value of option `insecure`, so that nobody writes it by accident.
const INSECURE: &str = "accept-any-certificate";

/// What every connection to a server with TLS needs.
#[derive(Clone)]
pub(super) struct Tls {
    config: Arc<ClientConfig>,
    /// The name that the server's certificate must have, if not that of its address.
    name: Option<ServerName<'static>>,
    /// The file with the authorities, or words for the system's.
    authorities: String,
    has_certificate: bool,
    is_insecure: bool,
}

/// By hand: without the key.
impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the files that the options name.
    ///
    /// # Errors
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) names the file and what is wrong with
    /// it.
    pub(super) fn check(options: &Options) -> Result<Self> {
        let is_insecure = insecure(options)?;
        let name = options.get("tls_name").map(server_name).transpose()?;
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|e| invalid("backend", "", &e.to_string()))?;
        let (builder, authorities) = if is_insecure {
            let any = Arc::new(AnyCertificate(provider));
            (builder.dangerous().with_custom_certificate_verifier(any), String::new())
        } else {
            let (roots, words) = authorities(options.get("ca"))?;
            (builder.with_root_certificates(roots), words)
        };
        let certificate = client_certificate(options)?;
        let has_certificate = certificate.is_some();
        let mut config = match certificate {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(|error| {
                let shown = options.get("key").unwrap_or_default();
                let cert = options.get("cert").unwrap_or_default();
                match error {
                    Fault::InconsistentKeys(_) => {
                        invalid("key", shown, &format!("is not the key of the certificate in cert={cert}"))
                    }
                    error => invalid(
                        "key",
                        shown,
                        &format!("cannot be used with the certificate in {cert}: {error}"),
                    ),
                }
            })?,
        };
        config.resumption = Resumption::disabled();
        Ok(Self { config: Arc::new(config), name, authorities, has_certificate, is_insecure })
    }

    /// Whether every certificate is accepted.
    pub(super) fn is_insecure(&self) -> bool {
        self.is_insecure
    }

    /// Greets a server that was connected to, within the stream's deadline.
    ///
    /// # Errors
    /// Words for the user, or the failure of the connection.
    pub(super) fn begin(&self, stream: &mut Stream, host: &str) -> io::Result<Session> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => ServerName::try_from(host.to_owned()).map_err(|_| {
                other(format!("TLS: {host} cannot be the name of a certificate: write tls_name="))
            })?,
        };
        let conn = ClientConnection::new(Arc::clone(&self.config), name)
            .map_err(|error| other(format!("TLS: {error}")))?;
        let mut session = Session { conn: Box::new(conn), tls: self.clone() };
        while session.conn.is_handshaking() {
            session.flush(stream)?;
            if session.conn.is_handshaking() && session.receive(stream)? == 0 {
                return Err(other("TLS: the server closed the connection while it was greeted".to_owned()));
            }
        }
        session.flush(stream)?;
        Ok(session)
    }

    /// What a failure of the protocol means to the user.
    fn words(&self, fault: &Fault) -> String {
        use CertificateError as Bad;
        let said = match fault {
            Fault::InvalidCertificate(Bad::UnknownIssuer | Bad::BadSignature) => {
                format!(
                    "the server's certificate is not of an authority in {}: see option ca",
                    self.authorities
                )
            }
            Fault::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. }) => {
                "the server's certificate has expired".to_owned()
            }
            Fault::InvalidCertificate(Bad::NotValidYet | Bad::NotValidYetContext { .. }) => {
                "the server's certificate is not valid yet: is this machine's clock right?".to_owned()
            }
            Fault::InvalidCertificate(Bad::NotValidForNameContext { expected, presented }) => format!(
                "the server's certificate is for {}, not for {}: see option tls_name",
                presented.join(", "),
                expected.to_str()
            ),
            Fault::InvalidMessage(InvalidMessage::InvalidContentType) => {
                "the server does not speak TLS at this port: write redis://, or its TLS port".to_owned()
            }
            Fault::AlertReceived(alert) => return format!("TLS: {}", self.refusal(*alert)),
            other => other.to_string(),
        };
        format!("TLS: {said}")
    }

    /// What the server's refusal means.
    fn refusal(&self, alert: AlertDescription) -> String {
        use AlertDescription as Alert;
        match alert {
            Alert::CertificateRequired | Alert::HandshakeFailure | Alert::BadCertificate
                if !self.has_certificate =>
            {
                "the server asks for a certificate of the client: write cert= and key=".to_owned()
            }
            Alert::UnknownCA | Alert::BadCertificate | Alert::CertificateUnknown | Alert::AccessDenied => {
                format!("the server does not accept the certificate in cert= ({alert:?})")
            }
            Alert::CertificateExpired => {
                "the server says that the certificate in cert= has expired".to_owned()
            }
            alert => format!("the server refused with the alert {alert:?}"),
        }
    }
}

/// The protocol's state of one connection.
pub(super) struct Session {
    conn: Box<ClientConnection>,
    tls: Tls,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

/// A stream that is written to within its deadline.
struct Out<'a>(&'a Stream);

impl Write for Out<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.left()?;
        self.0.send(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Session {
    /// Writes some of `bytes`, one record. After an error the server has got nothing of them that it
    /// can read: a record is whole or worthless.
    pub(super) fn send(&mut self, stream: &Stream, bytes: &[u8]) -> io::Result<usize> {
        let part = bytes.get(..RECORD).unwrap_or(bytes);
        let taken = self.conn.writer().write(part)?;
        self.flush(stream)?;
        Ok(taken)
    }

    pub(super) fn read(&mut self, stream: &mut Stream, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.conn.reader().read(buf) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                done => return done,
            }
            self.receive(stream)?;
            // An answer to a request of the protocol itself.
            self.flush(stream)?;
        }
    }

    fn receive(&mut self, stream: &mut Stream) -> io::Result<usize> {
        let got = self.conn.read_tls(stream)?;
        match self.conn.process_new_packets() {
            Ok(_) => Ok(got),
            Err(fault) => {
                // The server is told why. It may be gone already.
                let _ = self.flush(stream);
                Err(other(self.tls.words(&fault)))
            }
        }
    }

    fn flush(&mut self, stream: &Stream) -> io::Result<()> {
        while self.conn.wants_write() {
            self.conn.write_tls(&mut Out(stream))?;
        }
        Ok(())
    }

    /// What a connection that the server ended during the login may mean.
    pub(super) fn hint(&self) -> &'static str {
        if self.tls.has_certificate {
            ""
        } else {
            "; if the server asks for a certificate, write cert= and key="
        }
    }
}

fn other(words: String) -> io::Error {
    io::Error::other(words)
}

fn insecure(options: &Options) -> Result<bool> {
    match options.get("insecure") {
        None => Ok(false),
        Some(INSECURE) => {
            match ["ca", "tls_name"].into_iter().find_map(|name| Some((name, options.get(name)?))) {
                Some((name, text)) => {
                    Err(invalid(name, text, "has no meaning with insecure: no certificate is checked"))
                }
                None => Ok(true),
            }
        }
        Some(text) => Err(invalid(
            "insecure",
            text,
            &format!(
                "whoever answers would get the password and the values. Name the server's authority with \
                 ca=/path instead; if you must, write insecure={INSECURE}"
            ),
        )),
    }
}

fn server_name(text: &str) -> Result<ServerName<'static>> {
    ServerName::try_from(text.to_owned()).map_err(|_| {
        invalid("tls_name", text, "must be the host name or the IP address in the server's certificate")
    })
}

fn read(option: &'static str, path: &str) -> Result<Vec<u8>> {
    fs::read(path).map_err(|error| invalid(option, path, &format!("the file cannot be read: {error}")))
}

fn certificates(option: &'static str, path: &str) -> Result<Vec<CertificateDer<'static>>> {
    let text = read(option, path)?;
    let found: std::result::Result<Vec<_>, PemError> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if found.is_empty() => {
            Err(invalid(option, path, "the file has no certificate (-----BEGIN CERTIFICATE-----)"))
        }
        Ok(found) => Ok(found),
        Err(error) => Err(invalid(option, path, &format!("the file is not valid PEM: {error}"))),
    }
}

/// The authorities that may have signed the server's certificate, and where they are from.
fn authorities(ca: Option<&str>) -> Result<(RootCertStore, String)> {
    let mut roots = RootCertStore::empty();
    let Some(path) = ca else {
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            let why = found.errors.first().map_or_else(String::new, |error| format!(" ({error})"));
            return Err(invalid(
                "ca",
                "",
                &format!(
                    "this system has no certificates of authorities{why}: write ca=/path of the server's"
                ),
            ));
        }
        return Ok((roots, "the system's list".to_owned()));
    };
    for (n, certificate) in certificates("ca", path)?.into_iter().enumerate() {
        roots.add(certificate).map_err(|error| {
            invalid("ca", path, &format!("certificate {} of the file cannot be used: {error}", n + 1))
        })?;
    }
    Ok((roots, format!("ca={path}")))
}

/// What the server is shown.
fn client_certificate(
    options: &Options,
) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>> {
    let (cert, key) = match (options.get("cert"), options.get("key")) {
        (None, None) => return Ok(None),
        (Some(cert), Some(key)) => (cert, key),
        (Some(cert), None) => {
            return Err(invalid("cert", cert, "needs key=/path of the certificate's private key"));
        }
        (None, Some(key)) => return Err(invalid("key", key, "needs cert=/path of the certificate")),
    };
    let chain = certificates("cert", cert)?;
    let text = read("key", key)?;
    let key = PrivateKeyDer::from_pem_slice(&text).map_err(|error| {
        let is_encrypted = text.windows(9).any(|word| word == b"ENCRYPTED");
        let reason = match error {
            PemError::NoItemsFound if is_encrypted => {
                "the key is encrypted: write it without a passphrase, readable by this user only".to_owned()
            }
            PemError::NoItemsFound => "the file has no private key (-----BEGIN PRIVATE KEY-----)".to_owned(),
            error => format!("the file is not valid PEM: {error}"),
        };
        invalid("key", key, &reason)
    })?;
    Ok(Some((chain, key)))
}

/// Accepts every certificate: `insecure`. That the server has its key is still checked.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, Fault> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, Fault> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, Fault> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
