//! Where a request comes from when proxies stand in front (`X-Forwarded-For`).
//!
//! The header is believed as far as trusted proxies wrote it: from its end backwards, past every trusted
//! address, to the first one that is not. What stands before that was written by whoever called, and is
//! never looked at. A peer that is no trusted proxy is the client, whatever it sends.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

/// Entries that are looked at, at most.
const MAX_ENTRIES: usize = 32;

/// The client's address. An entry that is no address ends the search: the proxy that wrote it is the
/// last that is known.
pub fn client<'a>(
    peer: IpAddr,
    values: impl Iterator<Item = &'a [u8]>,
    trusted: &[IpNet],
) -> IpAddr {
    let is_trusted = |ip: &IpAddr| trusted.iter().any(|network| network.contains(ip));
    let mut known = peer.to_canonical();
    if !is_trusted(&known) {
        return known;
    }
    let entries: Vec<&[u8]> = values
        .flat_map(|value| value.split(|b| *b == b','))
        .collect();
    for entry in entries.iter().rev().take(MAX_ENTRIES) {
        let Some(ip) = address(entry) else {
            return known;
        };
        known = ip;
        if !is_trusted(&known) {
            return known;
        }
    }
    known
}

/// An address, with or without a port or brackets.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry.trim_ascii()).ok()?;
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let ip = bare.unwrap_or(text).parse::<IpAddr>().ok();
    let ip = ip.or_else(|| text.parse::<SocketAddr>().ok().map(|addr| addr.ip()));
    ip.map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(peer: &str, headers: &[&str], trusted: &[&str]) -> String {
        let trusted: Vec<IpNet> = trusted.iter().map(|text| text.parse().unwrap()).collect();
        let values = headers.iter().map(|value| value.as_bytes());
        client(peer.parse().unwrap(), values, &trusted).to_string()
    }

    #[test]
    fn only_what_trusted_proxies_wrote_is_believed() {
        let proxies = &["10.0.0.0/8", "::1/128"];
        for (peer, headers, want) in [
            // Nobody trusted in front: the peer, whatever it claims.
            ("203.0.113.9", &["198.51.100.1"][..], "203.0.113.9"),
            ("203.0.113.9", &[][..], "203.0.113.9"),
            // A trusted proxy in front.
            ("10.0.0.1", &["198.51.100.1"][..], "198.51.100.1"),
            ("10.0.0.1", &[][..], "10.0.0.1"),
            ("::1", &["2001:db8::1"][..], "2001:db8::1"),
            // The client wrote an entry of its own: it stands before what the proxy added.
            ("10.0.0.1", &["127.0.0.1, 198.51.100.1"][..], "198.51.100.1"),
            (
                "10.0.0.1",
                &["10.9.9.9", "198.51.100.1"][..],
                "198.51.100.1",
            ),
            // Two proxies.
            ("10.0.0.1", &["198.51.100.1, 10.0.0.2"][..], "198.51.100.1"),
            (
                "10.0.0.1",
                &["6.6.6.6, 198.51.100.1 ,10.0.0.2"][..],
                "198.51.100.1",
            ),
            // Forms of an address.
            ("10.0.0.1", &["198.51.100.1:4711"][..], "198.51.100.1"),
            ("10.0.0.1", &["[2001:db8::1]:4711"][..], "2001:db8::1"),
            ("10.0.0.1", &["[2001:db8::1]"][..], "2001:db8::1"),
            (
                "::ffff:10.0.0.1",
                &["::ffff:198.51.100.1"][..],
                "198.51.100.1",
            ),
            // What is no address ends the search at the last that is known.
            ("10.0.0.1", &["198.51.100.1, unknown"][..], "10.0.0.1"),
            ("10.0.0.1", &["unknown, 10.0.0.2"][..], "10.0.0.2"),
            ("10.0.0.1", &["198.51.100.1,"][..], "10.0.0.1"),
        ] {
            assert_eq!(from(peer, headers, proxies), want, "{peer} {headers:?}");
        }
        assert_eq!(from("10.0.0.1", &["198.51.100.1"], &[]), "10.0.0.1");
    }
}
