//! Certificates that a test makes for itself, in a folder of its own.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bennu::server::TlsOptions;
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};

/// The name that every certificate is for.
pub const NAME: &str = "localhost";

/// A certificate that signs itself, and its key.
pub struct Certificate(CertifiedKey<KeyPair>);

impl Certificate {
    pub fn new() -> Self {
        Certificate(generate_simple_self_signed([NAME.to_owned()]).expect("a certificate for a host can be made"))
    }

    pub fn der(&self) -> &CertificateDer<'static> {
        self.0.cert.der()
    }

    pub fn chain_pem(&self) -> String {
        self.0.cert.pem()
    }

    pub fn key_pem(&self) -> String {
        self.0.signing_key.serialize_pem()
    }
}

/// A folder with the two files of a server; it goes with the test.
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("bennu-server-tls-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("the temporary folder can be written");
        Folder { path }
    }

    /// A folder that holds a certificate.
    pub fn holding(certificate: &Certificate) -> Self {
        let folder = Self::new();
        folder.put(certificate);
        folder
    }

    /// Replaces the files.
    pub fn put(&self, certificate: &Certificate) {
        self.write("chain.pem", &certificate.chain_pem());
        self.write("key.pem", &certificate.key_pem());
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path.join(name), text).expect("the test's folder can be written");
    }

    pub fn options(&self) -> TlsOptions {
        TlsOptions::new(self.path.join("chain.pem"), self.path.join("key.pem"))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// A client's settings that trust these certificates.
pub fn trusting(certificates: &[&Certificate]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate.der().clone()).expect("it is a certificate");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}
