//! The addresses of this machine, as the kernel lists them.
//!
//! Read from the process's own view of the network, which stays readable in a sandbox that hides the
//! rest of `/proc`. Needed to know where a listener on an unspecified address answers (S14).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tracing::warn;

const V4: &str = "/proc/self/net/fib_trie";
const V6: &str = "/proc/self/net/if_inet6";

/// Addresses of all interfaces, without repeats; those of a kind that cannot be read are missing, and
/// the log says so. Blocks for the time of reading two small files.
pub fn addresses() -> Vec<IpAddr> {
    let mut all: Vec<IpAddr> = read(V4, v4).into_iter().map(IpAddr::V4).collect();
    // Absent where IPv6 is switched off.
    if std::path::Path::new(V6).exists() {
        all.extend(read(V6, v6).into_iter().map(IpAddr::V6));
    }
    all.sort_unstable();
    all.dedup();
    all
}

fn read<T>(path: &'static str, parse: fn(&str) -> Vec<T>) -> Vec<T> {
    match std::fs::read_to_string(path) {
        Ok(text) => parse(&text),
        Err(cause) => {
            let what = "the machine's addresses are not known: only loopback ones count as own";
            warn!(path, %cause, what);
            Vec::new()
        }
    }
}

/// A leaf of the routing trie is an address; the line below says what it is.
fn v4(trie: &str) -> Vec<Ipv4Addr> {
    let mut found = Vec::new();
    let mut leaf: Option<Ipv4Addr> = None;
    for line in trie.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            leaf = address.parse().ok();
        } else if line == "/32 host LOCAL" {
            found.extend(leaf);
        }
    }
    found
}

/// 32 hex digits first in every line.
fn v6(list: &str) -> Vec<Ipv6Addr> {
    let address = |line: &str| {
        let digits = line.split_ascii_whitespace().next()?;
        let bits = u128::from_str_radix(digits, 16).ok();
        bits.filter(|_| digits.len() == 32).map(Ipv6Addr::from)
    };
    list.lines().filter_map(address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_local_addresses_out_of_the_routing_trie() {
        let trie = "Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 10.1.0.0/16 2 0 2
        |-- 10.1.0.0
           /16 link UNICAST
Local:
  +-- 0.0.0.0/0 2 0 2
     |-- 10.1.2.3
        /32 host LOCAL
     |-- 10.1.255.255
        /32 link BROADCAST
     +-- 127.0.0.0/8 2 0 2
        |-- 127.0.0.0
           /8 host LOCAL
        |-- 127.0.0.1
           /32 host LOCAL
";
        let found: Vec<String> = v4(trie).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.1.2.3", "127.0.0.1"]);
        assert!(v4("").is_empty() && v4("|-- x\n/32 host LOCAL").is_empty());
    }

    #[test]
    fn reads_the_list_of_ipv6_addresses() {
        let list = "00000000000000000000000000000001 01 80 10 80       lo
fe80000000000000021122fffe334455 02 40 20 80     eth0
short 01
";
        let found: Vec<String> = v6(list).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["::1", "fe80::211:22ff:fe33:4455"]);
    }

    #[test]
    fn this_machine_has_at_least_its_loopback_address() {
        assert!(addresses().contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)));
    }
}
