//! What leads back to this gateway, and so is never called (`reliability.md` S14).
//!
//! Three things are known of where it can be reached: the addresses it listens on, the addresses of
//! the machine (a listener on an unspecified address answers on all of them), and what its operator
//! says it is called from outside, behind address translation or a proxy. What none of them shows
//! ends by its hops ([`super::hop`]).

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use super::target::{TargetHost, origin};

/// Where this gateway can be reached.
#[derive(Debug, Clone, Default)]
pub struct Own {
    /// Addresses of the listeners. An unspecified one stands for loopback and the whole machine.
    pub listeners: Vec<SocketAddr>,
    /// Addresses of the machine.
    pub machine: Vec<IpAddr>,
    /// What it is called from outside.
    pub public_urls: Vec<PublicUrl>,
}

impl Own {
    /// Whether a connection to `addr` would end here.
    pub fn is_at(&self, addr: SocketAddr) -> bool {
        let ip = addr.ip().to_canonical();
        let listens = self.at_port(addr.port()).any(|own| {
            let everywhere = own.ip().is_unspecified();
            own.ip() == ip || (everywhere && (ip.is_loopback() || self.machine.contains(&ip)))
        });
        let is_public = |url: &PublicUrl| url.host.known().contains(&ip);
        listens || self.public_at(addr.port()).any(is_public)
    }

    /// Whether a URL with this host and port leads here.
    pub fn is_called(&self, host: &TargetHost, port: u16) -> bool {
        self.public_at(port).any(|url| url.host == *host)
    }

    /// Whether a connection that is open, from `local` to `peer`, ended here: the address was not
    /// known as one of the machine, but both sides of the connection are the same.
    pub fn is_between(&self, local: SocketAddr, peer: SocketAddr) -> bool {
        let mut listening = self.at_port(peer.port());
        local.ip() == peer.ip() && listening.any(|own| own.ip().is_unspecified())
    }

    fn at_port(&self, port: u16) -> impl Iterator<Item = &SocketAddr> {
        self.listeners.iter().filter(move |own| own.port() == port)
    }

    fn public_at(&self, port: u16) -> impl Iterator<Item = &PublicUrl> {
        self.public_urls.iter().filter(move |url| url.port == port)
    }
}

/// A URL under which the gateway is reached from outside. Host and port count; a path does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl {
    text: String,
    host: TargetHost,
    port: u16,
}

impl FromStr for PublicUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, port) = origin(text).map_err(|_| "want http:// or https:// and a host")?;
        Ok(Self {
            text: text.to_owned(),
            host,
            port,
        })
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Own {
        Own {
            listeners: ["127.0.0.1:8071", "0.0.0.0:8072", "[::]:8073"]
                .map(|addr| addr.parse().unwrap())
                .into(),
            machine: ["127.0.0.1", "10.1.2.3", "2001:db8::5"]
                .map(|ip| ip.parse().unwrap())
                .into(),
            public_urls: ["https://Hooks.Example.com/in", "http://20.1.1.1:8080"]
                .map(|url| url.parse().unwrap())
                .into(),
        }
    }

    #[test]
    fn a_listener_on_all_addresses_is_every_address_of_the_machine() {
        for (addr, is_own) in [
            ("127.0.0.1:8071", true),
            ("127.0.0.2:8071", false),
            ("10.1.2.3:8071", false),
            ("10.1.2.3:8072", true),
            ("[::ffff:10.1.2.3]:8072", true),
            ("127.9.9.9:8072", true),
            ("10.1.2.4:8072", false),
            ("10.1.2.3:8074", false),
            ("[2001:db8::5]:8073", true),
            ("10.1.2.3:8073", true),
            ("[::1]:8073", true),
            ("[2001:db8::6]:8073", false),
        ] {
            assert_eq!(own().is_at(addr.parse().unwrap()), is_own, "{addr}");
        }
    }

    #[test]
    fn a_public_url_is_known_by_host_and_port() {
        let called = |url: &str| {
            let (host, port) = origin(url).unwrap();
            own().is_called(&host, port)
        };
        assert!(called("https://hooks.example.com/other"));
        assert!(called("https://hooks.example.com.:443/"));
        assert!(!called("https://hooks.example.com:8443/"));
        assert!(!called("https://other.example.com/"));
        // A name that resolves to a public address of ours is found out at the connect.
        assert!(own().is_at("20.1.1.1:8080".parse().unwrap()));
        assert!(!own().is_at("20.1.1.1:443".parse().unwrap()));
    }

    #[test]
    fn an_address_that_the_machine_got_later_shows_at_the_connection() {
        let between = |local: &str, peer: &str| {
            own().is_between(local.parse().unwrap(), peer.parse().unwrap())
        };
        assert!(between("10.9.9.9:50000", "10.9.9.9:8072"));
        assert!(
            !between("10.9.9.9:50000", "10.9.9.9:8071"),
            "it listens on one address only"
        );
        assert!(!between("10.9.9.9:50000", "10.9.9.8:8072"));
    }

    #[test]
    fn what_is_no_url_is_no_public_url() {
        for bad in [
            "",
            "hooks.example.com",
            "ftp://a.example",
            "https://",
            "https://a b",
        ] {
            assert!(bad.parse::<PublicUrl>().is_err(), "{bad:?}");
        }
        let url: PublicUrl = "https://hooks.example.com".parse().unwrap();
        assert_eq!(url.to_string(), "https://hooks.example.com");
    }
}
