//! The addresses of a grant: where a plugin may send requests.

use std::fmt;

use url::{Host, Url};

/// URLs that begin alike: a scheme, a host or every name below one, a port, and the start of a path.
#[derive(Clone, PartialEq, Eq)]
pub struct AllowedUrl {
    scheme: String,
    host: AllowedHost,
    port: Option<u16>,
    /// Begins with a slash. With one at its end everything below is allowed, else the path itself too.
    path: String,
}

#[derive(Clone, PartialEq, Eq)]
enum AllowedHost {
    /// A name or an address, as a URL shows it.
    Just(String),
    /// Every name that ends in this, which begins with a full stop.
    Below(String),
}

impl AllowedUrl {
    /// Reads `https://api.example.com/v1/` or `https://*.example.com/`.
    ///
    /// # Errors
    /// A phrase that says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        const FORM: &str =
            "write it as in \"https://api.example.com/v1/\" or \"https://*.example.com/\"";
        // A URL's host has no `*`, so it is taken off first.
        let (plain, below) = match text.split_once("://*.") {
            Some((scheme, rest)) => (format!("{scheme}://{rest}"), true),
            None => (text.to_owned(), false),
        };
        let url = Url::parse(&plain).map_err(|error| format!("is no URL ({error}); {FORM}"))?;
        if !matches!(url.scheme(), "https" | "http") {
            return Err(format!("has the scheme {:?}; {FORM}", url.scheme()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("holds a user name or password; a plugin sets headers itself".to_owned());
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err("has a query or fragment; it covers every query".to_owned());
        }
        let host = match (url.host(), below) {
            (Some(Host::Domain(name)), _) if name.contains('*') => {
                return Err(format!("has a `*` that is not the host's first name; {FORM}"));
            }
            (Some(Host::Domain(name)), true) if name.contains('.') => {
                AllowedHost::Below(format!(".{name}"))
            }
            (Some(_), true) => {
                return Err(format!(
                    "covers too much: no `*` before an address or a last name; {FORM}"
                ));
            }
            (Some(host), false) => AllowedHost::Just(host.to_string()),
            (None, _) => return Err(format!("has no host; {FORM}")),
        };
        let port = url.port_or_known_default();
        Ok(Self { scheme: url.scheme().to_owned(), host, port, path: url.path().to_owned() })
    }

    /// Whether a URL is covered.
    #[must_use]
    pub fn covers(&self, url: &Url) -> bool {
        let host = url.host_str().is_some_and(|host| match &self.host {
            AllowedHost::Just(name) => name == host,
            AllowedHost::Below(end) => host.len() > end.len() && host.ends_with(end.as_str()),
        });
        host && url.scheme() == self.scheme
            && url.port_or_known_default() == self.port
            && self.covers_path(url.path())
    }

    fn covers_path(&self, path: &str) -> bool {
        // Parsing has resolved `..`. What a server may resolve after decoding it stays outside, unless
        // there is nothing above to get to.
        let lower = path.to_ascii_lowercase();
        if self.path != "/" && ["%2f", "%5c"].iter().any(|code| lower.contains(code)) {
            return false;
        }
        match path.strip_prefix(self.path.as_str()) {
            Some(rest) => rest.is_empty() || self.path.ends_with('/') || rest.starts_with('/'),
            None => false,
        }
    }
}

impl fmt::Display for AllowedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (star, host) = match &self.host {
            AllowedHost::Just(host) => ("", host),
            AllowedHost::Below(end) => ("*", end),
        };
        write!(f, "{}://{star}{host}", self.scheme)?;
        match (self.scheme.as_str(), self.port) {
            ("https", Some(443)) | ("http", Some(80)) | (_, None) => {}
            (_, Some(port)) => write!(f, ":{port}")?,
        }
        f.write_str(&self.path)
    }
}

impl fmt::Debug for AllowedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(allowed: &str, url: &str) -> bool {
        AllowedUrl::parse(allowed).unwrap().covers(&Url::parse(url).unwrap())
    }

    #[test]
    fn a_url_is_covered_by_scheme_host_port_and_path() {
        for (allowed, url) in [
            ("https://api.example.com/v1/", "https://api.example.com/v1/customers/7?x=1"),
            ("https://api.example.com/v1/", "https://API.example.com:443/v1/"),
            ("https://api.example.com/v1", "https://api.example.com/v1"),
            ("https://api.example.com/v1", "https://api.example.com/v1/x"),
            ("https://api.example.com", "https://api.example.com/any%2fthing"),
            ("https://api.example.com:8443/", "https://api.example.com:8443/x"),
            ("https://*.example.com/", "https://a.example.com/"),
            ("https://*.example.com/", "https://a.b.example.com/x"),
            ("http://127.0.0.1:81/", "http://127.0.0.1:81/x"),
            ("https://[::1]/", "https://[::1]/x"),
        ] {
            assert!(covers(allowed, url), "{allowed} {url}");
        }
    }

    #[test]
    fn everything_else_is_not() {
        for (allowed, url) in [
            ("https://api.example.com/v1/", "http://api.example.com/v1/"),
            ("https://api.example.com/v1/", "https://api.example.com:8443/v1/"),
            ("https://api.example.com/v1/", "https://api.example.com.evil.example/v1/"),
            ("https://api.example.com/v1/", "https://evil.example/v1/"),
            ("https://api.example.com/v1/", "https://api.example.com/v1"),
            ("https://api.example.com/v1", "https://api.example.com/v10"),
            ("https://api.example.com/v1/", "https://api.example.com/v1/../admin"),
            ("https://api.example.com/v1/", "https://api.example.com/v1/%2e%2e/admin"),
            ("https://api.example.com/v1/", "https://api.example.com/v1/..%2fadmin"),
            ("https://api.example.com/v1/", "https://api.example.com/v1/..%5Cadmin"),
            ("https://*.example.com/", "https://example.com/"),
            ("https://*.example.com/", "https://.example.com/"),
            ("https://*.example.com/", "https://badexample.com/"),
            ("https://*.example.com/", "https://a.example.com.evil.example/"),
            ("https://api.example.com/", "https://api.example.com@evil.example/"),
        ] {
            let covered = match Url::parse(url) {
                Ok(url) => AllowedUrl::parse(allowed).unwrap().covers(&url),
                Err(_) => false,
            };
            assert!(!covered, "{allowed} {url}");
        }
    }

    #[test]
    fn what_is_no_grant_is_refused() {
        for (text, why) in [
            ("api.example.com", "is no URL"),
            ("ftp://example.com/", "scheme"),
            ("https://user:pass@example.com/", "user name"),
            ("https://example.com/?a=b", "query"),
            ("https://*.com/", "covers too much"),
            ("https://*.10.0.0.1/", "covers too much"),
            ("https://*/", "not the host's first name"),
            ("https://a.*.example.com/", "not the host's first name"),
        ] {
            let error = AllowedUrl::parse(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn it_is_shown_as_it_is_written() {
        for text in [
            "https://api.example.com/v1/",
            "https://*.example.com/",
            "http://127.0.0.1:81/",
            "https://api.example.com/v1",
        ] {
            assert_eq!(AllowedUrl::parse(text).unwrap().to_string(), text);
        }
    }
}
