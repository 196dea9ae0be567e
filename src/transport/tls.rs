//! TLS of the server's own listener: certificates from files, which may change while it runs.
//!
//! A [`Tls`] holds one rustls configuration at a time. New connections take the current one, those that are open keep theirs.
//! What this does not do: client certificates, several names with a certificate each, OCSP.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig, crypto::ring};

use super::accept::stopped;

/// How often the files are looked at for changes.
const LOOK: Duration = Duration::from_secs(2);

/// A file larger than this holds no certificates, in bytes.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// What ALPN offers: the WebSockets of HTTP/2 are not served.
const ALPN: &[u8] = b"http/1.1";

/// Where the certificates are.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsOptions {
    /// A PEM file with the server's certificate and then those that lead to a root.
    pub certificates: PathBuf,
    /// A PEM file with the certificate's private key: PKCS#8, SEC1 or PKCS#1, without a passphrase.
    pub key: PathBuf,
}

impl TlsOptions {
    /// The two files, which may be one.
    pub fn new(certificates: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        TlsOptions { certificates: certificates.into(), key: key.into() }
    }
}

/// Why there is no TLS with these files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file can't be read.
    #[error("{}: expected a file that can be read: {error}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        error: io::Error,
    },
    /// A file that is too large to be one.
    #[error("{}: expected a PEM file of at most {FILE_BYTES_MAX} bytes, came one of {bytes}", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// How many bytes it has.
        bytes: u64,
    },
    /// PEM that can't be read. What is wrong is not repeated: it may be of the key.
    #[error("{}: expected PEM, came a section that is not well formed", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// A file without certificates.
    #[error("{}: expected a certificate in PEM, came none", .path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A file without a key, or with one that needs a passphrase.
    #[error("{}: expected a private key in PEM (PKCS#8, SEC1 or PKCS#1, without a passphrase), came none", .path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// A key of another certificate.
    #[error("{}: expected the private key of the certificate in {}, came another", .key.display(), .certificates.display())]
    OtherKey {
        /// The file with the key.
        key: PathBuf,
        /// The file with the certificates.
        certificates: PathBuf,
    },
    /// A certificate or key of a kind that is not served.
    #[error("{} and {}: expected a certificate and a key that TLS can use: {error}", .certificates.display(), .key.display())]
    Unusable {
        /// The file with the certificates.
        certificates: PathBuf,
        /// The file with the key.
        key: PathBuf,
        /// What rustls says.
        error: rustls::Error,
    },
}

/// The certificates that new connections get.
#[derive(Debug)]
pub struct Tls {
    options: TlsOptions,
    current: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`], the first thing wrong with them.
    pub fn load(options: TlsOptions) -> Result<Arc<Tls>, TlsError> {
        let current = RwLock::new(read(&options)?);
        Ok(Arc::new(Tls { options, current }))
    }

    /// What a new connection is served with.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read())
    }

    /// Reads the files again. Where that fails, everything stays as it was.
    ///
    /// # Errors
    /// As [`Tls::load`].
    pub fn reload(&self) -> Result<(), TlsError> {
        let next = read(&self.options)?;
        *self.current.write() = next;
        Ok(())
    }

    /// Reads the files again at each SIGHUP, and when they have changed and then stayed the same for a look, until `stop`
    /// turns true.
    pub async fn watch(self: Arc<Self>, mut hangups: Hangups, mut stop: watch::Receiver<bool>) {
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut watched = Watched::new(self.stamps().await);
        loop {
            // All arms are cancel-safe: a tick or a signal that is not taken stays.
            tokio::select! {
                () = stopped(&mut stop) => return,
                () = hangups.next() => {
                    watched = Watched::new(self.stamps().await);
                    self.reload_logged().await;
                }
                _ = looks.tick() => {
                    if watched.is_due(self.stamps().await) {
                        self.reload_logged().await;
                    }
                }
            }
        }
    }

    async fn reload_logged(self: &Arc<Self>) {
        let tls = Arc::clone(self);
        let certificates = self.options.certificates.display();
        match tokio::task::spawn_blocking(move || tls.reload()).await {
            Ok(Ok(())) => tracing::info!(%certificates, "certificates were read again"),
            Ok(Err(error)) => tracing::error!(%error, "the new certificates are faulty: those from before stay"),
            Err(error) => tracing::error!(%error, "reading the certificates again ended early"),
        }
    }

    async fn stamps(&self) -> Stamps {
        let paths = [self.options.certificates.clone(), self.options.key.clone()];
        let looking = tokio::task::spawn_blocking(move || paths.map(|path| Stamp::of(&path)));
        looking.await.unwrap_or_default()
    }
}

/// SIGHUPs, which end the process no more from when there are these.
#[derive(Debug)]
pub struct Hangups(Signal);

impl Hangups {
    /// Listens for them from here on.
    ///
    /// # Errors
    /// What the operating system says.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn listen() -> io::Result<Self> {
        signal(SignalKind::hangup()).map(Hangups)
    }

    async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            std::future::pending().await
        }
    }
}

/// What changes when a file does. A file that can't be looked at has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

type Stamps = [Option<Stamp>; 2];

impl Stamp {
    /// Of the file behind symbolic links: an orchestrator swaps these.
    fn of(path: &Path) -> Option<Stamp> {
        let metadata: Metadata = fs::metadata(path).ok()?;
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        Some(Stamp { inode: metadata.ino(), bytes: metadata.len(), modified })
    }
}

/// Notices changed files, and waits until they are whole: a change counts once a further look finds nothing new.
#[derive(Debug)]
struct Watched {
    read: Stamps,
    seen: Stamps,
}

impl Watched {
    fn new(read: Stamps) -> Self {
        Watched { read, seen: read }
    }

    /// Whether the files are to be read again.
    fn is_due(&mut self, found: Stamps) -> bool {
        let settled = self.seen == found;
        self.seen = found;
        let due = settled && self.read != found;
        if due {
            self.read = found;
        }
        due
    }
}

fn read(options: &TlsOptions) -> Result<Arc<ServerConfig>, TlsError> {
    let TlsOptions { certificates, key } = options;
    let chain = read_chain(certificates)?;
    let private_key = read_key(key)?;
    let configured = configure(chain, private_key).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            TlsError::OtherKey { key: key.clone(), certificates: certificates.clone() }
        }
        error => TlsError::Unusable { certificates: certificates.clone(), key: key.clone(), error },
    })?;
    Ok(Arc::new(configured))
}

fn configure(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // Clients keep their sessions, sealed: the server holds nothing of those that are away. The keys are of this
    // configuration alone, so that after a change of certificates nobody goes on with a session from before.
    config.ticketer = ring::Ticketer::new()?;
    Ok(config)
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = read_file(path)?;
    let chain: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&bytes).collect();
    let chain = chain.map_err(|_| TlsError::Malformed { path: path.to_owned() })?;
    if chain.is_empty() { Err(TlsError::NoCertificate { path: path.to_owned() }) } else { Ok(chain) }
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let bytes = read_file(path)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsError::NoKey { path: path.to_owned() },
        _ => TlsError::Malformed { path: path.to_owned() },
    })
}

fn read_file(path: &Path) -> Result<Vec<u8>, TlsError> {
    let unreadable = |error| TlsError::Unreadable { path: path.to_owned(), error };
    let bytes = fs::metadata(path).map_err(unreadable)?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(TlsError::TooLarge { path: path.to_owned(), bytes });
    }
    fs::read(path).map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use rcgen::{CertifiedKey, KeyPair, PKCS_ED25519, generate_simple_self_signed};

    use super::*;

    /// A folder of one test.
    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let name = format!("bennu-tls-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            let path = self.0.join(name);
            fs::write(&path, text).unwrap();
            path
        }

        fn put(&self, pair: &CertifiedKey<KeyPair>) -> TlsOptions {
            let certificates = self.write("chain.pem", &pair.cert.pem());
            TlsOptions::new(certificates, self.write("key.pem", &pair.signing_key.serialize_pem()))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn pair() -> CertifiedKey<KeyPair> {
        generate_simple_self_signed(["localhost".to_owned()]).unwrap()
    }

    #[test]
    fn what_is_wrong_with_the_files_is_said_by_their_names_and_without_the_key() {
        let folder = Folder::new();
        let good = folder.put(&pair());
        assert!(Tls::load(good.clone()).is_ok());
        let other_key = folder.write("other.pem", &pair().signing_key.serialize_pem());
        let ed25519 = folder.write("ed.pem", &KeyPair::generate_for(&PKCS_ED25519).unwrap().serialize_pem());
        let empty = folder.write("empty.pem", "");
        let torn = folder.write("torn.pem", "-----BEGIN CERTIFICATE-----\ns3cr3t!\n-----END CERTIFICATE-----\n");
        let torn_key = folder.write("torn_key.pem", "-----BEGIN PRIVATE KEY-----\ns3cr3t\n-----END PRIVATE KEY-----\n");
        let large = folder.write("large.pem", "");
        fs::File::options().write(true).open(&large).unwrap().set_len(FILE_BYTES_MAX + 1).unwrap();
        let (chain, key) = (&good.certificates, &good.key);
        let cases: [(&PathBuf, &PathBuf, &str); 10] = [
            (&folder.0.join("absent.pem"), key, "absent.pem: expected a file that can be read: "),
            (chain, &folder.0.join("absent.pem"), "absent.pem: expected a file that can be read: "),
            (&empty, key, "empty.pem: expected a certificate in PEM, came none"),
            (key, key, "key.pem: expected a certificate in PEM, came none"),
            (chain, chain, "chain.pem: expected a private key in PEM (PKCS#8, SEC1 or PKCS#1"),
            (&torn, key, "torn.pem: expected PEM, came a section that is not well formed"),
            (chain, &torn_key, "expected"),
            (chain, &other_key, "other.pem: expected the private key of the certificate in "),
            (chain, &ed25519, "ed.pem: expected the private key of the certificate in "),
            (&large, key, "large.pem: expected a PEM file of at most 4194304 bytes, came one of 4194305"),
        ];
        for (certificates, key, said) in cases {
            let error = Tls::load(TlsOptions::new(certificates, key)).unwrap_err().to_string();

            assert!(error.contains(said), "expected {said:?} in {error:?}");
            assert!(!error.contains("s3cr3t"), "{error}");
        }
    }

    #[test]
    fn both_may_be_in_one_file() {
        let (folder, pair) = (Folder::new(), pair());
        let text = pair.signing_key.serialize_pem() + &pair.cert.pem();
        let path = folder.write("both.pem", &text);

        assert!(Tls::load(TlsOptions::new(&path, &path)).is_ok());
    }

    #[test]
    fn faulty_files_leave_the_certificates_from_before_and_whole_ones_replace_them() {
        let folder = Folder::new();
        let tls = Tls::load(folder.put(&pair())).unwrap();
        let first = tls.config();

        folder.write("key.pem", "");
        assert!(tls.reload().is_err());
        assert!(Arc::ptr_eq(&tls.config(), &first));

        folder.put(&pair());
        tls.reload().unwrap();
        assert!(!Arc::ptr_eq(&tls.config(), &first));
    }

    #[test]
    fn a_change_counts_once_nothing_new_is_found() {
        let stamps = |bytes| [Some(Stamp { inode: 1, bytes, modified: (1, 0) }), None];
        let mut watched = Watched::new(stamps(1));
        let looks = [(1, false), (2, false), (3, false), (3, true), (3, false), (1, false), (3, false), (3, false)];

        for (at, (bytes, due)) in looks.into_iter().enumerate() {
            assert_eq!(watched.is_due(stamps(bytes)), due, "look {at}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn changed_files_are_read_without_being_told() {
        let folder = Folder::new();
        let tls = Tls::load(folder.put(&pair())).unwrap();
        let first = tls.config();
        let (stop, stopped) = watch::channel(false);
        let watching = tokio::spawn(Arc::clone(&tls).watch(Hangups::listen().unwrap(), stopped));
        // The first look stands before the change.
        tokio::time::sleep(LOOK / 2).await;

        folder.put(&pair());
        tokio::time::sleep(LOOK * 4).await;

        assert!(!Arc::ptr_eq(&tls.config(), &first));
        stop.send_replace(true);
        watching.await.unwrap();
    }
}
