//! What a failure of the HTTP library means.
//!
//! The library wraps the cause in layers, and takes a bad certificate for a failed connection; here the layers are
//! looked through once, and each kind of failure gets its own name.

use std::error::Error;
use std::io::{self, ErrorKind};

use super::address::{BlockedAddress, Unresolved};
use super::error::UpstreamError;
use super::shown::ShownUrl;

/// Names the failure of a request that got no answer, or whose answer broke off.
pub(super) fn of_request(url: ShownUrl, error: reqwest::Error) -> UpstreamError {
    let source = error.without_url();
    // The types of these errors are not public. What is wrong with the way to a proxy is inside them.
    if causes(&source).any(|e| e.to_string().starts_with("tunnel error") || e.to_string().starts_with("SOCKS error")) {
        return UpstreamError::Proxy { url, source: Some(source) };
    }
    if let Some(tls) = cause::<rustls::Error>(&source) {
        return of_tls(url, tls.clone());
    }
    if let Some(BlockedAddress(address)) = cause(&source) {
        return UpstreamError::Blocked { url, address: *address };
    }
    if let Some(Unresolved(io)) = cause(&source) {
        return UpstreamError::Resolve { url, source: same(io) };
    }
    if source.is_connect() {
        return match cause::<io::Error>(&source) {
            Some(io) if io.kind() == ErrorKind::ConnectionRefused => UpstreamError::Refused { url },
            _ => UpstreamError::Connect { url, source },
        };
    }
    match cause::<hyper::Error>(&source) {
        Some(http) if http.is_parse() => UpstreamError::NotHttp { url, source },
        _ => UpstreamError::Broken { url, source },
    }
}

fn of_tls(url: ShownUrl, source: rustls::Error) -> UpstreamError {
    match source {
        rustls::Error::InvalidMessage(_) => UpstreamError::NotTls { url },
        source => UpstreamError::Tls { url, source },
    }
}

fn cause<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    causes(error).find_map(|e| e.downcast_ref())
}

/// The error and its causes. An I/O error passes over what it wraps when it is asked for its source, so it is unwrapped.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&e| match e.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner as &(dyn Error + 'static)),
        None => e.source(),
    })
}

fn same(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}
