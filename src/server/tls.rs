//! TLS of the incoming side: one certificate, exchanged while connections are open.

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::Error;
use crate::config::Server as Section;

/// Certificate and key of the listeners. Clones share it, so a reload reaches all of them.
#[derive(Clone)]
pub struct Tls {
    current: Arc<ArcSwap<ServerConfig>>,
}

impl Tls {
    /// Reads the configured files; `None` if TLS is off.
    ///
    /// # Errors
    /// A file cannot be read, holds no certificate or key, or the two do not belong together.
    pub fn open(section: &Section) -> Result<Option<Self>, Error> {
        let (Some(cert), Some(key)) = (&section.tls_cert, &section.tls_key) else {
            return Ok(None);
        };
        Ok(Some(Self {
            current: Arc::new(ArcSwap::from(read(cert, key)?)),
        }))
    }

    /// Reads the files again, which may be others by now; nothing is exchanged before
    /// [`Renewal::adopt`]. `None` if TLS is off in `section`: that takes a restart.
    ///
    /// # Errors
    /// As [`Tls::open`].
    pub fn renew(&self, section: &Section) -> Result<Option<Renewal>, Error> {
        let fresh = Self::open(section)?;
        Ok(fresh.map(|fresh| Renewal {
            of: self.clone(),
            fresh: fresh.current.load_full(),
        }))
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.load_full())
    }
}

/// Certificate and key that were read and belong together, not yet in use.
#[must_use = "nothing is exchanged before it is adopted"]
pub struct Renewal {
    of: Tls,
    fresh: Arc<ServerConfig>,
}

impl Renewal {
    /// New connections get the new certificate, open ones keep theirs.
    pub fn adopt(self) {
        self.of.current.store(self.fresh);
    }
}

fn read(cert: &Path, key: &Path) -> Result<Arc<ServerConfig>, Error> {
    let wrong = |path: &Path, why: String| Error::Pem {
        path: path.to_owned(),
        why,
    };
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong(cert, error.to_string()))?;
    if chain.is_empty() {
        return Err(wrong(cert, String::from("it holds no certificate")));
    }
    // The error never shows the content of the file.
    let secret =
        PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, error.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder
                .with_no_client_auth()
                .with_single_cert(chain, secret)
        })
        .map_err(Error::Tls)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
