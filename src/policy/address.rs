//! The address guard: which IP addresses may be called.
//!
//! Judged is the address itself, in numbers, after parsing and resolving; names and spellings are no
//! matter here (`docs/adr/0020-address-guard.md`). Only what is publicly routable passes; networks the
//! operator allows pass as well. An IPv6 address that carries an IPv4 address (NAT64, ISATAP) is no
//! better than the one it carries.
//!
//! Sources: IANA IPv4 and IPv6 special-purpose address registries; RFC 6052 and 8215 (NAT64),
//! RFC 5214 (ISATAP), RFC 3056 (6to4), RFC 4380 (Teredo), RFC 9602 (SRv6).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The guard said no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{ip} is not a public address: {what}")]
pub struct Blocked {
    /// The judged address.
    pub ip: IpAddr,
    /// What it is instead.
    pub what: &'static str,
}

/// Judges one address. `allowed` holds the networks that pass although they are not public.
pub fn judge(ip: IpAddr, allowed: &[IpNet]) -> Result<(), Blocked> {
    if allowed.iter().any(|net| net.contains(&ip)) {
        return Ok(());
    }
    let blocked = match ip {
        IpAddr::V4(v4) => special_v4(v4),
        IpAddr::V6(v6) => special_v6(v6, allowed),
    };
    blocked.map_or(Ok(()), |what| Err(Blocked { ip, what }))
}

/// Not public, by network. Azure's wire server is a public address with metadata behind it.
const SPECIAL_V4: &[(Ipv4Net, &str)] = &[
    (v4(0, 0, 0, 0, 8), "this network"),
    (v4(10, 0, 0, 0, 8), "private"),
    (v4(100, 64, 0, 0, 10), "carrier-grade NAT"),
    (v4(127, 0, 0, 0, 8), "loopback"),
    (v4(168, 63, 129, 16, 32), "cloud metadata"),
    (v4(169, 254, 0, 0, 16), "link-local"),
    (v4(172, 16, 0, 0, 12), "private"),
    (v4(192, 0, 0, 0, 24), "protocol assignments"),
    (v4(192, 0, 2, 0, 24), "documentation"),
    (v4(192, 31, 196, 0, 24), "AS112"),
    (v4(192, 52, 193, 0, 24), "AMT"),
    (v4(192, 88, 99, 0, 24), "6to4 relay"),
    (v4(192, 168, 0, 0, 16), "private"),
    (v4(192, 175, 48, 0, 24), "AS112"),
    (v4(198, 18, 0, 0, 15), "benchmarking"),
    (v4(198, 51, 100, 0, 24), "documentation"),
    (v4(203, 0, 113, 0, 24), "documentation"),
    (v4(224, 0, 0, 0, 4), "multicast"),
    (v4(240, 0, 0, 0, 4), "reserved"),
];

/// Inside `2000::/3`, the only block that is routed at all.
const SPECIAL_V6: &[(Ipv6Net, &str)] = &[
    (
        v6([0x2001, 0, 0, 0], 23),
        "protocol assignments (Teredo and others)",
    ),
    (v6([0x2001, 0xdb8, 0, 0], 32), "documentation"),
    (v6([0x2002, 0, 0, 0], 16), "6to4"),
    (v6([0x2620, 0x4f, 0x8000, 0], 48), "AS112"),
    (v6([0x3fff, 0, 0, 0], 20), "documentation"),
];

const GLOBAL_V6: Ipv6Net = v6([0x2000, 0, 0, 0], 3);
/// `64:ff9b::/96`: an IPv4 address in the last 32 bits.
const NAT64: Ipv6Net = v6([0x64, 0xff9b, 0, 0], 96);

fn special_v4(ip: Ipv4Addr) -> Option<&'static str> {
    let found = SPECIAL_V4.iter().find(|(net, _)| net.contains(&ip));
    found.map(|(_, what)| *what)
}

fn special_v6(ip: Ipv6Addr, allowed: &[IpNet]) -> Option<&'static str> {
    if NAT64.contains(&ip) {
        return judge(IpAddr::V4(last_v4(ip)), allowed)
            .err()
            .map(|_| "NAT64 form of an address that is not public");
    }
    if !GLOBAL_V6.contains(&ip) {
        return Some("outside of the global unicast block");
    }
    if let Some((_, what)) = SPECIAL_V6.iter().find(|(net, _)| net.contains(&ip)) {
        return Some(what);
    }
    let [_, _, _, _, flags, marker, _, _] = ip.segments();
    // ISATAP: the interface id is 0000:5efe or 0200:5efe and an IPv4 address, under any prefix.
    if matches!(flags, 0 | 0x200) && marker == 0x5efe {
        return judge(IpAddr::V4(last_v4(ip)), allowed)
            .err()
            .map(|_| "ISATAP form of an address that is not public");
    }
    None
}

const fn last_v4(ip: Ipv6Addr) -> Ipv4Addr {
    let [.., a, b, c, d] = ip.octets();
    Ipv4Addr::new(a, b, c, d)
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(head: [u16; 4], prefix: u8) -> Ipv6Net {
    let [a, b, c, d] = head;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0), prefix)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_public(text: &str) -> bool {
        judge(text.parse().unwrap(), &[]).is_ok()
    }

    #[test]
    fn public_addresses_pass() {
        for ip in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "168.63.129.15",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2606:4700:4700::1111",
            "2a00:1450:4001:82a::200e",
            "64:ff9b::808:808",
            "2600::5efe:808:808",
        ] {
            assert!(is_public(ip), "{ip}");
        }
    }

    #[test]
    fn nothing_else_does() {
        for ip in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.255.255",
            "168.63.129.16",
            "169.254.169.254",
            "169.254.170.2",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::127.0.0.1",
            "::ffff:0:7f00:1",
            "::5efe:7f00:1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "64:ff9b:1:fffe::808:808",
            "100::1",
            "2001::1",
            "2001:0:4136:e378:8000:63bf:3fff:fdd2",
            "2001:2::1",
            "2001:10::1",
            "2001:20::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:808:808::1",
            "2620:4f:8000::1",
            "3fff::1",
            "5f00::1",
            "4000::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2600::5efe:7f00:1",
            "2600::200:5efe:a9fe:a9fe",
        ] {
            assert!(!is_public(ip), "{ip}");
        }
    }

    #[test]
    fn allowed_networks_pass_and_only_in_the_family_they_name() {
        let allowed = ["127.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let passes = |ip: &str| judge(ip.parse().unwrap(), &allowed).is_ok();
        assert!(passes("127.0.0.1") && passes("fd00:ec2::254"));
        assert!(!passes("::1") && !passes("::ffff:127.0.0.1") && !passes("10.0.0.1"));
    }

    proptest! {
        #[test]
        fn no_ipv6_form_opens_a_way_to_a_blocked_ipv4_address(
            inner in prop_oneof![
                any::<[u8; 4]>(),
                any::<[u8; 3]>().prop_map(|[b, c, d]| [127, b, c, d]),
                any::<[u8; 2]>().prop_map(|[c, d]| [169, 254, c, d]),
                any::<[u8; 3]>().prop_map(|[b, c, d]| [10, b, c, d]),
                Just([168, 63, 129, 16]),
            ],
            prefix: [u16; 4],
        ) {
            let [a, b, c, d] = inner;
            let (hi, lo) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            let [p, q, r, s] = prefix;
            let v4_passes = judge(IpAddr::from(inner), &[]).is_ok();
            let inheriting = [
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, hi, lo),
                Ipv6Addr::new(0x2600 | (p & 0xff), q, r, s, 0, 0x5efe, hi, lo),
                Ipv6Addr::new(0x2600 | (p & 0xff), q, r, s, 0x200, 0x5efe, hi, lo),
            ];
            for ip in inheriting {
                prop_assert_eq!(judge(ip.into(), &[]).is_ok(), v4_passes, "{}", ip);
            }
            let never = [
                Ipv6Addr::new(0, 0, 0, 0, 0, 0, hi, lo),
                Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, hi, lo),
                Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, hi, lo),
                Ipv6Addr::new(0, 0, 0, 0, 0, 0x5efe, hi, lo),
                Ipv6Addr::new(0x64, 0xff9b, 1, q, r, s, hi, lo),
                Ipv6Addr::new(0x2002, hi, lo, p, q, r, s, 0),
                Ipv6Addr::new(0x2001, 0, p, q, r, s, !hi, !lo),
                Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0x5efe, hi, lo),
            ];
            for ip in never {
                prop_assert!(judge(ip.into(), &[]).is_err(), "{}", ip);
            }
        }

        #[test]
        fn whatever_passes_is_global_unicast_or_nat64(bits: u128) {
            let ip = Ipv6Addr::from(bits);
            if judge(ip.into(), &[]).is_ok() {
                prop_assert!(GLOBAL_V6.contains(&ip) || NAT64.contains(&ip), "{}", ip);
                prop_assert!(!ip.is_multicast() && !ip.is_loopback() && !ip.is_unspecified());
                prop_assert!(!ip.is_unique_local() && !ip.is_unicast_link_local());
            }
        }

        #[test]
        fn whatever_ipv4_passes_is_none_of_the_standard_librarys_special_kinds(bits: u32) {
            let ip = Ipv4Addr::from(bits);
            if judge(ip.into(), &[]).is_ok() {
                prop_assert!(!(ip.is_private() || ip.is_loopback() || ip.is_link_local()));
                prop_assert!(!(ip.is_broadcast() || ip.is_documentation() || ip.is_multicast()));
                prop_assert!(!ip.is_unspecified());
            }
        }
    }
}
