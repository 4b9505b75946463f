//! Which requests go by way of a proxy, and of which.
//!
//! Reads what people set in `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, by the rules of
//! [Go's programs](https://pkg.go.dev/golang.org/x/net/http/httpproxy), which docker, podman and containerd are. Always true: what a proxy
//! wants to know of who asks is sent to that proxy only, and is never printed.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use reqwest::Url;

use super::shown::ShownUrl;

/// The proxies, and what is asked without one. Loopback always is.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    http: Option<Proxy>,
    https: Option<Proxy>,
    except: Vec<Except>,
}

/// The URL of a proxy, which may hold a password.
#[derive(Clone)]
struct Proxy(Url);

/// Where no proxy is used.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Except {
    place: Place,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Everywhere,
    Network(IpNet),
    /// What lies under a domain, and the domain itself if that is wanted.
    Domain {
        name: String,
        itself: bool,
    },
}

/// What should be a proxy cannot be one. It is not repeated, since it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{variable} is not the URL of a proxy")]
pub struct ProxyError {
    /// What was read.
    pub variable: &'static str,
}

/// The kinds of proxy that there are.
const SCHEMES: [&str; 6] = ["http", "https", "socks4", "socks4a", "socks5", "socks5h"];

impl Proxies {
    /// The proxies for plain and for secure requests, and a list of hosts that are asked without them: names (with all that lies under
    /// them), `.name` or `*.name` (only what lies under it), addresses, networks (`10.0.0.0/8`), each with a port or for all ports; `*` is every host.
    pub fn new(http: Option<&str>, https: Option<&str>, except: &str) -> Result<Proxies, ProxyError> {
        let proxy = |variable, text: Option<&str>| text.map(|text| Proxy::parse(text).ok_or(ProxyError { variable })).transpose();
        Ok(Proxies {
            http: proxy("HTTP_PROXY", http)?,
            https: proxy("HTTPS_PROXY", https)?,
            except: except.split([',', ' ']).filter_map(|entry| Except::parse(entry.trim())).collect(),
        })
    }

    /// The proxy that leads to this URL.
    pub(super) fn of(&self, url: &Url) -> Option<&Url> {
        let proxy = if url.scheme() == "https" { &self.https } else { &self.http };
        let proxy = proxy.as_ref()?;
        (!self.except.iter().any(|except| except.covers(url))).then_some(&proxy.0)
    }
}

impl Proxy {
    fn parse(text: &str) -> Option<Proxy> {
        let text = text.trim();
        let url = if text.contains("://") { Url::parse(text) } else { Url::parse(&format!("http://{text}")) };
        url.ok().filter(|url| SCHEMES.contains(&url.scheme()) && url.has_host()).map(Proxy)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", ShownUrl::from(&self.0))
    }
}

impl Except {
    fn parse(entry: &str) -> Option<Except> {
        if let Ok(network) = entry.parse() {
            return Some(Except { place: Place::Network(network), port: None });
        }
        if let Ok(address) = entry.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Some(Except { place: Place::Network(address.into()), port: None });
        }
        let (host, port) = match entry.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().ok()?)),
            None => (entry, None),
        };
        let place = match host.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(address) => Place::Network(address.into()),
            Err(_) if host == "*" => Place::Everywhere,
            Err(_) => {
                let under = host.strip_prefix("*.").or_else(|| host.strip_prefix('.'));
                Place::Domain { name: under.unwrap_or(host).trim_end_matches('.').to_ascii_lowercase(), itself: under.is_none() }
            }
        };
        (!host.is_empty()).then_some(Except { place, port })
    }

    fn covers(&self, url: &Url) -> bool {
        let host = url.host_str().unwrap_or_default();
        let here = match &self.place {
            Place::Everywhere => true,
            Place::Network(network) => host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| network.contains(&address)),
            Place::Domain { name, itself } => match host.trim_end_matches('.').strip_suffix(name.as_str()) {
                Some("") => *itself,
                Some(rest) => rest.ends_with('.'),
                None => false,
            },
        };
        here && self.port.is_none_or(|port| Some(port) == url.port_or_known_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_exceptions_is_read_as_go_reads_it() {
        let cases: [(&str, &[&str], &[&str]); 12] = [
            ("", &[], &["https://h.io", "https://10.1.2.3"]),
            ("*", &["https://h.io", "https://10.1.2.3:5000"], &[]),
            ("h.io", &["https://h.io", "https://a.h.io", "https://h.io:5000", "https://H.IO"], &["https://xh.io", "https://h.io.evil.io"]),
            (".h.io", &["https://a.h.io", "https://a.b.h.io"], &["https://h.io"]),
            ("*.h.io", &["https://a.h.io:444"], &["https://h.io", "https://xh.io"]),
            ("h.io:5000", &["https://h.io:5000", "https://a.h.io:5000"], &["https://h.io", "https://h.io:50000"]),
            ("h.io:443", &["https://h.io"], &["https://h.io:5000"]),
            ("10.0.0.0/8", &["https://10.1.2.3", "https://10.255.0.1:5000"], &["https://11.0.0.1", "https://h.io"]),
            ("10.1.2.3", &["https://10.1.2.3:5000"], &["https://10.1.2.4"]),
            ("10.1.2.3:5000", &["https://10.1.2.3:5000"], &["https://10.1.2.3"]),
            ("fd00::/8,[2001:db8::1]:5000", &["https://[fd12::1]", "https://[2001:db8::1]:5000"], &["https://[2001:db8::1]"]),
            (" a.io , ,b.io:x, c.io.", &["https://a.io", "https://c.io"], &["https://b.io"]),
        ];
        for (list, without, by_proxy) in cases {
            let proxies = Proxies::new(None, Some("http://proxy:3128"), list).unwrap();
            let proxied = |url: &str| proxies.of(&Url::parse(url).unwrap()).is_some();
            assert!(!without.iter().any(|url| proxied(url)), "{list} {without:?}");
            assert!(by_proxy.iter().all(|url| proxied(url)), "{list} {by_proxy:?}");
        }
    }

    #[test]
    fn a_proxy_is_for_its_kind_of_request_and_keeps_its_password() {
        let proxies = Proxies::new(Some("plain:8080"), Some("socks5h://me:s3cret@socks:1080"), "").unwrap();
        let of = |url: &str| proxies.of(&Url::parse(url).unwrap()).map(|p| p.to_string());
        assert_eq!(of("http://h.io/x").as_deref(), Some("http://plain:8080/"));
        assert!(of("https://h.io/x").unwrap().starts_with("socks5h://me:s3cret@socks:1080"));
        assert!(!format!("{proxies:?}").contains("s3cret"), "{proxies:?}");
        for wrong in ["ftp://s3cret@h.io", "http://", "ht tp://s3cret", "://s3cret"] {
            let error = Proxies::new(None, Some(wrong), "").unwrap_err();
            assert_eq!(error.to_string(), "HTTPS_PROXY is not the URL of a proxy");
        }
    }
}
