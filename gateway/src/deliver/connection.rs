//! How connections are made for a webhook that has settings of its own: whom it trusts, who the gateway is to
//! it, and through which proxy.

use std::fmt;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use tokio::sync::OnceCell;
use url::Url;

use super::redact::Credentials;

/// Settings of connections, and the connections that were made by them. Webhooks with the same settings share
/// one; it goes with the last of them.
#[derive(Default)]
pub struct Connection {
    /// The certificates to trust instead of the system's.
    pub(super) roots: Option<Roots>,
    /// What shows a receiver who the gateway is.
    identity: Option<Identity>,
    /// The proxy that requests go through.
    pub(super) proxy: Option<Proxy>,
    /// Made at the first request.
    pub(super) http: OnceCell<reqwest::Client>,
}

impl Connection {
    /// Connections with these settings, none of them made yet.
    #[must_use]
    pub fn new(roots: Option<Roots>, identity: Option<Identity>, proxy: Option<Proxy>) -> Self {
        Self { roots, identity, proxy, http: OnceCell::new() }
    }

    /// The proxy's host and port.
    pub(super) fn proxy_host(&self) -> Option<String> {
        let url = &self.proxy.as_ref()?.url;
        Some(match url.port() {
            Some(port) => format!("{}:{port}", url.host_str()?),
            None => url.host_str()?.to_owned(),
        })
    }

    /// Adds these settings to a client's.
    pub(super) fn apply(
        &self,
        mut builder: reqwest::ClientBuilder,
    ) -> Result<reqwest::ClientBuilder, reqwest::Error> {
        if let Some(Roots(certificates)) = &self.roots {
            let certificates: Result<Vec<_>, _> =
                certificates.iter().map(|der| reqwest::Certificate::from_der(der)).collect();
            builder = builder.tls_certs_only(certificates?);
        }
        if let Some(Identity(pem)) = &self.identity {
            builder = builder.identity(reqwest::Identity::from_pem(pem)?);
        }
        if let Some(Proxy { url, login }) = &self.proxy {
            let mut proxy = reqwest::Proxy::all(url.clone())?;
            if let Some((name, password)) = login {
                proxy = proxy.basic_auth(name, password);
            }
            builder = builder.proxy(proxy);
        }
        Ok(builder)
    }

    /// Adds what must not go on record.
    pub fn credentials(&self, credentials: &mut Credentials) {
        let login = self.proxy.as_ref().and_then(|proxy| proxy.login.as_ref());
        if let Some((_, password)) = login {
            credentials.add("password of the proxy", password);
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("roots", &self.roots.as_ref().map(|Roots(certificates)| certificates.len()))
            .field("identity", &self.identity.is_some())
            .field("proxy", &self.proxy_host())
            .finish_non_exhaustive()
    }
}

/// Certificates of authorities.
pub struct Roots(Vec<CertificateDer<'static>>);

impl Roots {
    /// Reads certificates in PEM.
    ///
    /// # Errors
    /// A phrase that says what is wrong, to follow the name of the file.
    pub fn parse(pem: &[u8]) -> Result<Self, String> {
        let certificates = certificates(pem)?;
        let mut store = RootCertStore::empty();
        for (certificate, number) in certificates.iter().zip(1..) {
            store.add(certificate.clone()).map_err(|error| {
                format!("holds a certificate, number {number}, that cannot be used: {error}")
            })?;
        }
        Ok(Self(certificates))
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roots({})", self.0.len())
    }
}

/// A certificate with its key, in PEM.
pub struct Identity(Vec<u8>);

impl Identity {
    /// Reads a certificate, with those that vouch for it behind it, and its key, both in PEM.
    ///
    /// # Errors
    /// Whether it is about the key, and a phrase that says what is wrong, to follow the name of that file.
    pub fn parse(certificate: &[u8], key: &[u8]) -> Result<Self, (bool, String)> {
        let of_certificate = |why: String| (false, why);
        let of_key = |why: String| (true, why);
        let chain = certificates(certificate).map_err(of_certificate)?;
        let parsed = PrivateKeyDer::from_pem_slice(key)
            .map_err(|_| of_key("holds no private key in PEM that is not encrypted".to_owned()))?;
        let parsed = rustls::crypto::ring::sign::any_supported_type(&parsed)
            .map_err(|error| of_key(format!("holds a key that cannot be used: {error}")))?;
        let certified = CertifiedKey::new(chain, parsed);
        match certified.keys_match() {
            Err(rustls::Error::InconsistentKeys(_)) => {
                return Err(of_key("does not hold the key of the certificate".to_owned()));
            }
            Err(error) => {
                let why = format!("holds a certificate that cannot be used: {error}");
                return Err(of_certificate(why));
            }
            Ok(()) => {}
        }
        Ok(Self([certificate, b"\n", key].concat()))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(…)")
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("is not PEM: {error}"))?;
    if certificates.is_empty() {
        return Err("holds no certificate in PEM".to_owned());
    }
    Ok(certificates)
}

/// A proxy. Whoever sets it is trusted: its address is not vetted, that of the webhook's URL is.
pub struct Proxy {
    url: Url,
    /// A name and a password.
    login: Option<(String, String)>,
}

impl Proxy {
    /// A proxy at this URL.
    ///
    /// # Errors
    /// A phrase that says why it cannot be used, to follow the setting's name.
    pub fn parse(text: &str) -> Result<Self, String> {
        const HOW: &str = "write it as in \"http://proxy.internal:3128\" or \
             \"socks5://proxy.internal:1080\"";
        let url = Url::parse(text).map_err(|error| format!("is not a URL ({error}); {HOW}"))?;
        match url.scheme() {
            "http" | "socks5" => {}
            "socks5h" => {
                return Err("leaves resolving names to the proxy, where addresses cannot be \
                     checked; write socks5://"
                    .to_owned());
            }
            other => {
                return Err(format!(
                    "has the scheme {other:?}; http:// and socks5:// are possible"
                ));
            }
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("holds a user name or password; they go into `username` and `password` \
                 beside it"
                .to_owned());
        }
        let has_more = !matches!(url.path(), "" | "/") || url.query().or(url.fragment()).is_some();
        if url.host_str().is_none_or(str::is_empty) || has_more {
            return Err(format!("is more or less than a scheme, a host and a port; {HOW}"));
        }
        Ok(Self { url, login: None })
    }

    /// The same with this name and password.
    #[must_use]
    pub fn with_login(self, login: Option<(String, String)>) -> Self {
        Self { login, ..self }
    }

    /// Its host, in lower case, to be told from that of a receiver.
    pub(super) fn host(&self) -> Option<String> {
        self.url.host_str().map(str::to_lowercase)
    }

    /// Whether it is asked for each plain request, rather than for a connection.
    pub(super) fn forwards(&self, to: &Url) -> bool {
        self.url.scheme() == "http" && to.scheme() == "http"
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({})", self.url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_proxies_are_a_scheme_a_host_and_a_port() {
        for good in ["http://proxy:3128", "http://10.1.2.3/", "socks5://[::1]:1080"] {
            assert!(Proxy::parse(good).is_ok(), "{good}");
        }
        for (bad, why) in [
            ("proxy:3128", "scheme"),
            ("proxy", "not a URL"),
            ("https://proxy", "http:// and socks5://"),
            ("socks5h://proxy", "socks5://"),
            ("http://a:b@proxy", "`username`"),
            ("http://proxy/path", "more or less"),
            ("socks5://", "more or less"),
        ] {
            let message = Proxy::parse(bad).unwrap_err();
            assert!(message.contains(why), "{bad}: {message}");
        }
    }

    #[test]
    fn files_that_hold_something_else_are_refused() {
        assert!(Roots::parse(b"").unwrap_err().contains("no certificate"));
        assert!(Roots::parse(b"hello").unwrap_err().contains("no certificate"));
        let nonsense = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(Roots::parse(nonsense).unwrap_err().contains("number 1"));
        let (is_key, why) = Identity::parse(b"", b"").unwrap_err();
        assert!(!is_key && why.contains("no certificate"), "{why}");
        let (is_key, why) = Identity::parse(nonsense, b"").unwrap_err();
        assert!(is_key && why.contains("no private key"), "{why}");
    }
}
