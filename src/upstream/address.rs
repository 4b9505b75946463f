//! Which addresses are dialled.
//!
//! Whoever names a registry or leads to another place chooses an address, and some of them belong to the machine's own surroundings: link-local ones, and
//! those where clouds keep secrets for their machines. Always true: none of them is dialled, however it is spelled and whatever name leads to it, unless
//! the settings have just this address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use reqwest::Url;

/// The addresses that are not dialled.
#[derive(Debug, Clone)]
pub(super) struct Shut {
    except: Arc<[IpAddr]>,
}

impl Shut {
    /// All but these.
    pub(super) fn except(allowed: &[IpAddr]) -> Shut {
        Shut { except: allowed.iter().copied().map(plain).collect() }
    }

    /// Whether this is one of them.
    pub(super) fn has(&self, address: IpAddr) -> bool {
        const AMAZON: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
        const ALIBABA: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 200);
        let address = plain(address);
        let shut = match address {
            IpAddr::V4(v4) => v4.is_link_local() || v4 == ALIBABA,
            IpAddr::V6(v6) => v6.is_unicast_link_local() || v6 == AMAZON,
        };
        shut && !self.except.contains(&address)
    }
}

/// The address as IPv4 where there is one inside: mapped, compatible, behind a translator's well-known prefix, or reached through 6to4.
fn plain(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let v4 = |high: u16, low: u16| IpAddr::V4(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)));
    match v6.segments() {
        // Those below are IPv6's own: the unspecified one, and loopback.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => address,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] => v4(high, low),
        [0x64, 0xff9b, 0 | 1, 0, 0, 0, high, low] => v4(high, low),
        [0x2002, high, low, ..] => v4(high, low),
        _ => address,
    }
}

/// The address that a URL names, if it names one and no host name.
pub(super) fn address_of(url: &Url) -> Option<IpAddr> {
    url.host_str()?.trim_matches(['[', ']']).parse().ok()
}

/// Looks names up as the system does, and hides the addresses that are not dialled.
pub(super) struct Resolver {
    pub(super) shut: Shut,
}

/// A name leads to addresses that are not dialled, and to no other.
#[derive(Debug, thiserror::Error)]
#[error("{0} is no address of a registry")]
pub(super) struct BlockedAddress(pub(super) IpAddr);

/// A name could not be looked up.
#[derive(Debug, thiserror::Error)]
#[error("the name could not be resolved")]
pub(super) struct Unresolved(#[source] pub(super) std::io::Error);

impl reqwest::dns::Resolve for Resolver {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let shut = self.shut.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await.map_err(Unresolved)?;
            let (blocked, open): (Vec<SocketAddr>, Vec<SocketAddr>) = found.partition(|a| shut.has(a.ip()));
            match blocked.first() {
                Some(address) if open.is_empty() => Err(BlockedAddress(address.ip()).into()),
                _ => Ok(Box::new(open.into_iter()) as reqwest::dns::Addrs),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<IpAddr> {
        address_of(&Url::parse(text).unwrap())
    }

    #[test]
    fn metadata_addresses_are_known_in_every_spelling() {
        let shut = Shut::except(&[]);
        let blocked = [
            "http://169.254.169.254/",
            "http://169.254.0.1:80/x",
            "http://2852039166/",
            "http://0xA9FEA9FE/",
            "http://0251.0376.0251.0376/",
            "http://169.254.43518/",
            "http://[fe80::1]/",
            "http://[febf::1]:5000/",
            "http://[::ffff:169.254.169.254]/",
            "http://[::ffff:a9fe:a9fe]/",
            "http://[::169.254.169.254]/",
            "http://[::ffff:0:169.254.169.254]/",
            "http://[64:ff9b::a9fe:a9fe]/",
            "http://[64:ff9b:1::a9fe:a9fe]/",
            "http://[2002:a9fe:a9fe::1]/",
            "http://[fd00:ec2::254]/",
            "http://100.100.100.200/",
            "http://[::ffff:100.100.100.200]/",
        ];
        for text in blocked {
            assert!(address(text).is_some_and(|a| shut.has(a)), "{text}");
        }
        for text in
            ["http://127.0.0.1/", "http://10.0.0.1/", "http://[::1]/", "http://[fd00:ec2::253]/", "http://169.253.1.1/", "http://h.io/"]
        {
            assert!(!address(text).is_some_and(|a| shut.has(a)), "{text}");
        }
    }

    #[test]
    fn an_address_that_is_allowed_is_open_in_every_spelling_and_no_other_is() {
        let shut = Shut::except(&["169.254.7.7".parse().unwrap(), "fe80::7".parse().unwrap()]);
        for open in ["http://169.254.7.7/", "http://[::ffff:169.254.7.7]/", "http://0xa9fe0707/", "http://[fe80::7]/"] {
            assert!(!address(open).is_some_and(|a| shut.has(a)), "{open}");
        }
        for blocked in ["http://169.254.7.8/", "http://169.254.169.254/", "http://[fe80::8]/"] {
            assert!(address(blocked).is_some_and(|a| shut.has(a)), "{blocked}");
        }
    }

    #[tokio::test]
    async fn names_are_not_a_way_to_metadata_addresses() {
        // The system takes an address for a name that it knows.
        let look_up = async |name: &str, allowed: &[IpAddr]| {
            let resolver = Resolver { shut: Shut::except(allowed) };
            reqwest::dns::Resolve::resolve(&resolver, name.parse().unwrap()).await
        };
        for name in ["169.254.169.254", "fe80::1", "::ffff:169.254.169.254"] {
            let error = look_up(name, &[]).await.err().unwrap();
            assert!(error.downcast_ref::<BlockedAddress>().is_some(), "{name}: {error}");
        }
        assert_eq!(look_up("127.0.0.1", &[]).await.ok().unwrap().count(), 1);
        assert_eq!(look_up("169.254.169.254", &["169.254.169.254".parse().unwrap()]).await.ok().unwrap().count(), 1);
    }
}
