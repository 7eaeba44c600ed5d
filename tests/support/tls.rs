//! A certificate for the servers of the tests, from an authority that nobody else trusts.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::command::shell;

/// Files of a certificate for 127.0.0.1 and for those whom the tests play.
pub(crate) struct Certificates {
    /// The authority's own certificate.
    pub(crate) authority: PathBuf,
    cert: PathBuf,
    key: PathBuf,
    _dir: tempfile::TempDir,
}

impl Certificates {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        shell(
            dir.path(),
            "new='openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2'
             $new -subj '/CN=authority of tests' -keyout ca.key -out ca.pem
             $new -subj '/CN=server of tests' -keyout key.pem -out cert.pem -CA ca.pem -CAkey ca.key \\
               -addext basicConstraints=critical,CA:FALSE \\
               -addext subjectAltName=IP:127.0.0.1,DNS:accounts.google.com,DNS:sts.eu-west-1.amazonaws.com",
        );
        let path = |name| dir.path().join(name);
        Self { authority: path("ca.pem"), cert: path("cert.pem"), key: path("key.pem"), _dir: dir }
    }

    /// How a server shows it.
    pub(super) fn server(&self) -> Arc<ServerConfig> {
        let chain = CertificateDer::pem_file_iter(&self.cert).expect("certificates");
        let chain: Vec<_> = chain.map(|one| one.expect("a certificate")).collect();
        let key = PrivateKeyDer::from_pem_file(&self.key).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions().expect("versions of TLS");
        Arc::new(
            config.with_no_client_auth().with_single_cert(chain, key).expect("a certificate and its key"),
        )
    }
}
