//! The least HTTP that an engine understands, so that what it says can be shown beside what larder says.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use serde_json::Value;

use crate::run::{Message, Result, fail};

/// Asks for a document.
pub(crate) fn get(address: &str, path: &str) -> Result<Value> {
    Ok(serde_json::from_str(&ask(address, "GET", path)?)?)
}

/// Removes something.
pub(crate) fn delete(address: &str, path: &str) -> Result {
    ask(address, "DELETE", path).map(drop)
}

fn ask(address: &str, method: &str, path: &str) -> Result<String> {
    // To a request of HTTP/1.0 the answer comes in one piece, and the connection ends with it.
    let request = format!("{method} {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
    let mut answer = String::new();
    match address.split_once("://") {
        Some(("unix", socket)) => exchange(UnixStream::connect(socket)?, &request, &mut answer)?,
        Some(("tcp" | "http", host)) => exchange(TcpStream::connect(host)?, &request, &mut answer)?,
        _ => return fail(format!("{address} is no address that this can ask")),
    }
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| Message(format!("{address} did not answer in HTTP")))?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status.starts_with('2') { Ok(body.to_owned()) } else { fail(format!("{method} {path} on {address}: {status} {}", body.trim())) }
}

fn exchange(mut stream: impl Read + Write, request: &str, answer: &mut String) -> Result {
    stream.write_all(request.as_bytes())?;
    stream.read_to_string(answer)?;
    Ok(())
}
