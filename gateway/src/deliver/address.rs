//! Where a request may go: HTTPS to public addresses, and what the operator allows beyond.
//!
//! Webhook URLs come from tenants, and the gateway stands inside the network: without a guard, anyone
//! who may add a webhook could reach internal services through it. So every address is checked, after
//! names are resolved and for literal addresses too, and the connection goes to a checked address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use url::{Host, Url};

/// Where requests may go.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Plain HTTP is allowed.
    pub allow_http: bool,
    /// Networks that are allowed although they are not public.
    pub allow_networks: Vec<IpNet>,
    /// Host names that may lead to any address; lower case.
    pub allow_hosts: Vec<String>,
}

impl Policy {
    /// Reads a URL that requests are to go to, and checks what can be told from it alone.
    ///
    /// # Errors
    /// A phrase that says what is wrong, to follow the URL's field name. A URL may hold a token, so it is not repeated.
    pub fn parse_url(&self, text: &str) -> Result<Url, String> {
        let url = Url::parse(text).map_err(|error| {
            format!("is not a URL ({error}); write it as in \"https://example.com/hook\"")
        })?;
        if url.fragment().is_some() {
            return Err(
                "has a fragment, which is never sent; leave out `#` and the rest".to_owned()
            );
        }
        self.check_url(&url)?;
        Ok(url)
    }

    /// Checks what can be told from the URL alone: its scheme, and its host when that is an address.
    ///
    /// # Errors
    /// A phrase that says why not, to follow the URL's field name.
    pub fn check_url(&self, url: &Url) -> Result<(), String> {
        match url.scheme() {
            "https" => {}
            "http" if self.allow_http => {}
            "http" => {
                return Err(
                    "uses plain HTTP; use an https:// URL, or set `delivery.allow_http = true`"
                        .to_owned(),
                );
            }
            other => {
                return Err(format!("has the scheme {other:?}; only https:// is possible"));
            }
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("holds a user name or password; put credentials in `auth`".to_owned());
        }
        let address: IpAddr = match url.host() {
            Some(Host::Ipv4(address)) => address.into(),
            Some(Host::Ipv6(address)) => address.into(),
            Some(Host::Domain(_)) => return Ok(()),
            None => return Err("has no host".to_owned()),
        };
        if self.allows_address(address) { Ok(()) } else { Err(refusal(address)) }
    }

    /// Whether a host name may lead to any address.
    #[must_use]
    pub fn allows_host(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.');
        self.allow_hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(host))
    }

    /// Whether a request may go to this address.
    #[must_use]
    pub fn allows_address(&self, address: IpAddr) -> bool {
        let address = canonical(address);
        is_public(address) || self.allow_networks.iter().any(|network| network.contains(&address))
    }
}

/// Why an address is refused, and the way out.
#[must_use]
pub(super) fn refusal(address: IpAddr) -> String {
    format!(
        "leads to {address}, which is not a public address; to allow it, add its network to \
         `delivery.allow_networks`"
    )
}

/// An IPv4 address in IPv6 clothes is judged as the IPv4 address it is.
fn canonical(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => v6.to_canonical(),
        IpAddr::V4(_) => address,
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// IANA's special-purpose registry for IPv4, and multicast.
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !matches!(
        (a, b, c),
        (0 | 10 | 127 | 224..=255, _, _) // this network, private, loopback, multicast, reserved, broadcast
            | (100, 64..=127, _) // shared by carriers
            | (169, 254, _) // link-local, cloud metadata
            | (172, 16..=31, _) | (192, 168, _) // private
            | (192, 0, 0 | 2) // protocol assignments, documentation
            | (192, 88, 99) // 6to4 relays
            | (198, 18..=19, _) // benchmarking
            | (198, 51, 100) | (203, 0, 113) // documentation
    )
}

/// IANA's special-purpose registry for IPv6, multicast, and what embeds IPv4 addresses.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    !matches!(
        segments,
        [0, 0, 0, 0, 0, 0, ..] // unspecified, loopback, IPv4-compatible
            | [0, 0, 0, 0, 0xffff, 0, ..] // IPv4-translated
            | [0x64, 0xff9b, ..] // NAT64, well known and local
            | [0x100, 0, 0, 0..=1, ..] // discard, dummy
            | [0x2001, 0..=0x01ff, ..] // protocol assignments, Teredo, ORCHID
            | [0x2001, 0x0db8, ..] | [0x3fff, 0..=0x0fff, ..] // documentation
            | [0x2002, ..] // 6to4
            | [0x5f00, ..] // segment routing
            | [0xfc00..=0xfdff, ..] // unique local
            | [0xfe80..=0xfeff, ..] // link-local, site-local
            | [0xff00..=0xffff, ..] // multicast
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_addresses_are_refused() {
        let policy = Policy::default();
        for address in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:0:7f00:1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!policy.allows_address(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn public_addresses_are_allowed() {
        let policy = Policy::default();
        for address in [
            "1.1.1.1",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.17.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2001:4860:4860::8888",
            "::ffff:1.1.1.1",
        ] {
            assert!(policy.allows_address(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn allowed_networks_open_just_themselves() {
        let policy =
            Policy { allow_networks: vec!["127.0.0.0/8".parse().unwrap()], ..Policy::default() };
        assert!(policy.allows_address("127.0.0.1".parse().unwrap()));
        assert!(policy.allows_address("::ffff:127.0.0.1".parse().unwrap()));
        assert!(!policy.allows_address("10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn urls_are_judged_by_scheme_and_literal_host() {
        let strict = Policy::default();
        let check = |url: &str| strict.check_url(&Url::parse(url).unwrap());
        assert_eq!(check("https://example.com/hook"), Ok(()));
        for (url, why) in [
            ("http://example.com/", "plain HTTP"),
            ("ftp://example.com/", "scheme"),
            ("https://user:pass@example.com/", "user name"),
            ("https://127.0.0.1/", "not a public address"),
            ("https://2130706433/", "not a public address"), // decimal 127.0.0.1
            ("https://0x7f.1/", "not a public address"),
            ("https://[::1]/", "not a public address"),
            ("https://[::ffff:169.254.169.254]/", "not a public address"),
        ] {
            assert!(check(url).unwrap_err().contains(why), "{url}");
        }
    }
}
