//! Which URLs may be called, and what they come to.
//!
//! Parsed once with the WHATWG `url` crate, the only URL parser here (S1), after refusing what that
//! parser would silently repair. A [`Target`] is the proof: http or https, no credentials, an allowed
//! port, and a host that is an IP address already judged ([`super::address`]), `localhost`, or a name.
//! Names are resolved and their addresses judged at every connect (`client`), not here.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Uri};
use ipnet::IpNet;
use url::{Host, Url};

use super::address::{self, Blocked};
use super::own::Own;

/// Longest URL, in bytes as written (`api.md` 2.1). What is sent must fit an [`http::Uri`].
pub const URL_MAX: usize = 65_536;

/// What may be called. Everything else is refused.
#[derive(Debug, Clone, Default)]
pub struct TargetRules {
    /// Networks that pass the address guard although they are not public; plain http is allowed to
    /// IP addresses in them.
    pub allow_networks: Vec<IpNet>,
    /// Ports refused beside the fixed rule (80, 443, 1024 to 65535).
    pub deny_ports: Vec<u16>,
    /// Whether plain http is allowed everywhere.
    pub allow_http: bool,
    /// Where this gateway is reached: never called, so that no message goes in circles (S14).
    pub own: Own,
}

impl TargetRules {
    /// Judges an address about to be connected to: the guard, and not ourselves.
    pub fn judge(&self, addr: SocketAddr) -> Result<(), Blocked> {
        judge_address(addr.ip(), self)?;
        if self.own.is_at(addr) {
            return Err(ourselves(addr.ip()));
        }
        Ok(())
    }

    /// Judges a connection that is open, before anything is sent on it: not to ourselves.
    pub fn judge_open(&self, local: SocketAddr, peer: SocketAddr) -> Result<(), Blocked> {
        if self.own.is_between(local, peer) {
            return Err(ourselves(peer.ip()));
        }
        Ok(())
    }

    /// Whether a port may be called.
    pub fn allows_port(&self, port: u16) -> bool {
        matches!(port, 80 | 443 | 1024..) && !self.deny_ports.contains(&port)
    }
}

const fn ourselves(ip: IpAddr) -> Blocked {
    let what = "our own listener";
    Blocked { ip, what }
}

/// Judges one address by the guard alone (S4).
pub fn judge_address(ip: IpAddr, rules: &TargetRules) -> Result<(), Blocked> {
    address::judge(ip, &rules.allow_networks)
}

/// Why a URL cannot be a target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadTarget {
    /// No absolute URL, or written in a way that parsers understand differently.
    #[error("not a URL that can be called: {0}")]
    Syntax(&'static str),
    /// Neither http nor https.
    #[error("the URL must begin with https:// or http://")]
    Scheme,
    /// Plain http where only https is allowed (SW31, R-07).
    #[error("the URL must begin with https://")]
    HttpsRequired,
    /// `user:password@` in the URL.
    #[error("the URL must not contain a user name or password")]
    Credentials,
    /// Not 80, 443 or 1024 to 65535, or denied by the operator.
    #[error("port {0} is not allowed")]
    Port(u16),
    /// A URL of this gateway.
    #[error("the URL leads back to this gateway")]
    Own,
    /// The address guard said no.
    #[error(transparent)]
    Blocked(#[from] Blocked),
}

/// An address we are willing to call. Cheap to share.
#[derive(Debug, Clone)]
pub struct Target {
    secure: bool,
    host: TargetHost,
    port: u16,
    host_header: HeaderValue,
    origin_form: Uri,
    absolute_form: Uri,
}

/// Where a target leads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TargetHost {
    /// A name to resolve: lower case, ASCII (IDNA), without the last dot.
    Name(Arc<str>),
    /// `localhost` or a name below it: 127.0.0.1, never asked of a name server (RFC 6761).
    Localhost(Arc<str>),
    /// An address.
    Ip(IpAddr),
}

impl Target {
    /// Reads and checks `url`.
    pub fn parse(url: &str, rules: &TargetRules) -> Result<Self, BadTarget> {
        let (url, secure) = read(url)?;
        let (host, port) = place(&url)?;
        if !rules.allows_port(port) {
            return Err(BadTarget::Port(port));
        }
        if rules.own.is_called(&host, port) {
            return Err(BadTarget::Own);
        }
        let mut inside = false; // an address that only the operator's networks let through
        for ip in host.known() {
            rules.judge(SocketAddr::new(*ip, port))?;
            inside |= rules.allow_networks.iter().any(|net| net.contains(ip));
        }
        if !secure && !inside && !rules.allow_http {
            return Err(BadTarget::HttpsRequired);
        }
        Self::assemble(&url, secure, host, port)
    }

    /// Whether it is https.
    pub const fn is_secure(&self) -> bool {
        self.secure
    }

    /// Where it leads.
    pub const fn host(&self) -> &TargetHost {
        &self.host
    }

    /// The port to connect to.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Value of the `Host` header: the name as it stands in the URL, whatever it resolves to (S5).
    pub const fn host_header(&self) -> &HeaderValue {
        &self.host_header
    }

    /// Path and query, as HTTP/1.1 wants them.
    pub const fn origin_form(&self) -> &Uri {
        &self.origin_form
    }

    /// Scheme, authority, path and query, as HTTP/2 wants them.
    pub const fn absolute_form(&self) -> &Uri {
        &self.absolute_form
    }

    fn assemble(url: &Url, secure: bool, host: TargetHost, port: u16) -> Result<Self, BadTarget> {
        const BAD: BadTarget = BadTarget::Syntax("it cannot be written into a request");
        let name = match &host {
            TargetHost::Name(name) | TargetHost::Localhost(name) => name.to_string(),
            TargetHost::Ip(IpAddr::V4(ip)) => ip.to_string(),
            TargetHost::Ip(IpAddr::V6(ip)) => format!("[{ip}]"),
        };
        let authority = match url.port() {
            Some(port) => format!("{name}:{port}"),
            None => name,
        };
        let path = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        let path = PathAndQuery::try_from(path).map_err(|_| BAD)?;
        let host_header = HeaderValue::try_from(authority.as_str()).map_err(|_| BAD)?;
        let absolute_form = Uri::builder()
            .scheme(if secure { Scheme::HTTPS } else { Scheme::HTTP })
            .authority(Authority::try_from(authority).map_err(|_| BAD)?)
            .path_and_query(path.clone())
            .build()
            .map_err(|_| BAD)?;
        Ok(Self {
            secure,
            host,
            port,
            host_header,
            origin_form: Uri::from(path),
            absolute_form,
        })
    }
}

impl TargetHost {
    /// The addresses that need no name server.
    pub fn known(&self) -> &[IpAddr] {
        const LOOPBACK: &[IpAddr] = &[IpAddr::V4(Ipv4Addr::LOCALHOST)];
        match self {
            Self::Name(_) => &[],
            Self::Localhost(_) => LOOPBACK,
            Self::Ip(ip) => std::slice::from_ref(ip),
        }
    }
}

/// Host and port of a URL, however it may be called.
pub(super) fn origin(url: &str) -> Result<(TargetHost, u16), BadTarget> {
    let (url, _) = read(url)?;
    place(&url)
}

/// The URL, and whether it is https.
fn read(url: &str) -> Result<(Url, bool), BadTarget> {
    check_spelling(url)?;
    let url = Url::parse(url).map_err(|_| BadTarget::Syntax("it does not parse"))?;
    let secure = match url.scheme() {
        "https" => true,
        "http" => false,
        _ => return Err(BadTarget::Scheme),
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(BadTarget::Credentials);
    }
    Ok((url, secure))
}

fn place(url: &Url) -> Result<(TargetHost, u16), BadTarget> {
    let host = host(url)?;
    let port = url.port_or_known_default();
    Ok((host, port.ok_or(BadTarget::Syntax("it has no port"))?))
}

/// Refuses what the parser would repair without a word, and what older parsers read differently.
fn check_spelling(url: &str) -> Result<(), BadTarget> {
    if url.len() > URL_MAX {
        return Err(BadTarget::Syntax("it is longer than 65,536 bytes"));
    }
    if url.chars().any(|c| c.is_control() || c == ' ' || c == '\\') {
        return Err(BadTarget::Syntax(
            "it contains a blank, a control character or a backslash",
        ));
    }
    let Some((_, rest)) = url.split_once(':') else {
        return Err(BadTarget::Syntax("it has no scheme"));
    };
    // `https:/host`, `https:host` and `https:///host` are repaired by browsers only.
    if !rest.starts_with("//") || rest.starts_with("///") {
        return Err(BadTarget::Syntax("the scheme must be followed by //"));
    }
    Ok(())
}

fn host(url: &Url) -> Result<TargetHost, BadTarget> {
    match url.host() {
        Some(Host::Ipv4(ip)) => Ok(TargetHost::Ip(ip.into())),
        // IPv6 stays IPv6: mapped forms are refused by the guard instead of being rewritten.
        Some(Host::Ipv6(ip)) => Ok(TargetHost::Ip(ip.into())),
        Some(Host::Domain(name)) => domain(name),
        None => Err(BadTarget::Syntax("it has no host")),
    }
}

/// The parser has made it lower-case ASCII by IDNA.
fn domain(name: &str) -> Result<TargetHost, BadTarget> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let fits = |label: &str| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(inner)
    };
    if name.len() > 253 || !name.split('.').all(fits) {
        return Err(BadTarget::Syntax("its host is no domain name"));
    }
    if name == "localhost" || name.ends_with(".localhost") {
        return Ok(TargetHost::Localhost(name.into()));
    }
    Ok(TargetHost::Name(name.into()))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use proptest::prelude::*;

    use super::*;

    fn parse(url: &str) -> Result<Target, BadTarget> {
        Target::parse(url, &TargetRules::default())
    }

    fn inside() -> TargetRules {
        TargetRules {
            allow_networks: vec!["127.0.0.0/8".parse().unwrap()],
            ..TargetRules::default()
        }
    }

    #[test]
    fn takes_a_public_https_url_apart() {
        let target = parse("https://Example.COM./a%20b/?q=1&r=ü#frag").unwrap();
        assert_eq!(target.host(), &TargetHost::Name("example.com".into()));
        assert_eq!((target.port(), target.is_secure()), (443, true));
        assert_eq!(target.host_header(), "example.com");
        assert_eq!(target.origin_form(), "/a%20b/?q=1&r=%C3%BC");
        assert_eq!(
            target.absolute_form(),
            "https://example.com/a%20b/?q=1&r=%C3%BC"
        );
        let target = parse("https://[2606:4700:4700::1111]:8443").unwrap();
        assert_eq!(target.host_header(), "[2606:4700:4700::1111]:8443");
        assert_eq!(target.origin_form(), "/");
        let target = parse("https://bücher.example/").unwrap();
        assert_eq!(target.host_header(), "xn--bcher-kva.example");
    }

    #[test]
    fn every_spelling_of_a_private_address_is_blocked() {
        for host in [
            "127.0.0.1",
            "2130706433",
            "0x7f.1",
            "0x7f000001",
            "0177.0.0.1",
            "127.1",
            "0",
            "0.0.0.0",
            "１２７.0.0.1",
            "127。0。0。1",
            "127.0.0.1.",
            "localhost",
            "localhost.",
            "LOCALHOST",
            "a.localhost",
            "169.254.169.254",
            "168.63.129.16",
            "[::]",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "[0:0:0:0:0:ffff:127.0.0.1]",
            "[::127.0.0.1]",
            "[::ffff:0:7f00:1]",
            "[::5efe:7f00:1]",
            "[64:ff9b::7f00:1]",
            "[64:ff9b:1::1]",
            "[2002:7f00:1::]",
            "[2001:0:7f00:1::]",
            "[fec0::1]",
            "[fd00:ec2::254]",
        ] {
            for scheme in ["https", "http"] {
                let got = parse(&format!("{scheme}://{host}/x"));
                assert!(matches!(got, Err(BadTarget::Blocked(_))), "{host}: {got:?}");
            }
        }
    }

    #[test]
    fn odd_syntax_is_refused_rather_than_repaired() {
        for url in [
            "",
            "example.com",
            "//example.com/",
            "https:example.com",
            "https:/example.com",
            "https:///example.com",
            "https://",
            "https://exa mple.com/",
            " https://example.com/",
            "https://example.com/\n",
            "https://exam\tple.com/",
            "https://example.com\\@127.0.0.1/",
            "https:\\\\example.com",
            "https://[example.com]/",
            "https://[fe80::1%25lo]/",
            "https://a..b/",
            "https://exa%00mple.com/",
            "https://1.2.3.4.5/",
            "https://256.1.1.1/",
            "https://example.com:99999/",
        ] {
            let got = parse(url);
            assert!(matches!(got, Err(BadTarget::Syntax(_))), "{url:?}: {got:?}");
        }
        assert_eq!(parse("ftp://example.com/").err(), Some(BadTarget::Scheme));
        for url in ["https://a@example.com/", "https://:b@example.com/"] {
            assert_eq!(parse(url).err(), Some(BadTarget::Credentials));
        }
        let tricked = parse("https://a@127.0.0.1/").err();
        assert_eq!(tricked, Some(BadTarget::Credentials));
        assert!(parse("https://127.0.0.1#@good.example/").is_err());
    }

    #[test]
    fn plain_http_needs_permission() {
        assert_eq!(
            parse("http://example.com/").err(),
            Some(BadTarget::HttpsRequired)
        );
        let rules = TargetRules {
            allow_http: true,
            ..TargetRules::default()
        };
        assert!(Target::parse("http://example.com/", &rules).is_ok());
        let rules = inside();
        for url in ["http://127.0.0.1:9000/", "http://localhost:9000/"] {
            assert!(Target::parse(url, &rules).is_ok(), "{url}");
        }
        assert_eq!(
            Target::parse("http://example.com/", &rules).err(),
            Some(BadTarget::HttpsRequired)
        );
    }

    #[test]
    fn ports_below_1024_and_denied_ones_are_refused() {
        let rules = TargetRules {
            deny_ports: vec![6379],
            ..TargetRules::default()
        };
        for (port, allowed) in [
            (80, true),
            (443, true),
            (1024, true),
            (65_535, true),
            (0, false),
            (22, false),
            (25, false),
            (1023, false),
            (6379, false),
        ] {
            let got = Target::parse(&format!("https://example.com:{port}/"), &rules);
            assert_eq!(got.is_ok(), allowed, "{port}");
        }
    }

    #[test]
    fn our_own_listener_is_no_target() {
        let rules = TargetRules {
            own: Own {
                listeners: vec![
                    "127.0.0.1:8071".parse().unwrap(),
                    "0.0.0.0:8072".parse().unwrap(),
                ],
                public_urls: vec!["https://hooks.example.com".parse().unwrap()],
                ..Own::default()
            },
            ..inside()
        };
        for port in [8071, 8072] {
            let got = Target::parse(&format!("http://127.0.0.1:{port}/"), &rules);
            assert!(matches!(got, Err(BadTarget::Blocked(_))), "{port}");
        }
        let got = Target::parse("https://HOOKS.example.com/in", &rules);
        assert_eq!(got.err(), Some(BadTarget::Own));
        assert!(Target::parse("http://127.0.0.1:8073/", &rules).is_ok());
        assert!(Target::parse("http://127.0.0.2:8071/", &rules).is_ok());
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_parses_can_be_sent(text in ".{0,40}|https?://.{0,40}") {
            if let Ok(target) = parse(&text) {
                prop_assert!(target.origin_form().path().starts_with('/'));
                prop_assert!(target.host().known().iter().all(|ip| address::judge(*ip, &[]).is_ok()));
            }
        }

        #[test]
        fn an_ipv6_literal_is_judged_like_its_address(bits: u128) {
            let ip = Ipv6Addr::from(bits);
            let passes = parse(&format!("https://[{ip}]/")).is_ok();
            prop_assert_eq!(passes, address::judge(ip.into(), &[]).is_ok());
        }
    }
}
