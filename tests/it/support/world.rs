//! All hosts there are: a proxy that answers for every name by itself, and remembers every byte that anybody was sent.
//!
//! Whoever goes through it can be led from host to host without any of them being there.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Heard {
    /// `GET`, `CONNECT`.
    pub method: String,
    /// What was asked for, with scheme and host; for `CONNECT` host and port.
    pub url: String,
    /// All of it: head and body.
    pub text: String,
}

/// What is answered: status, headers, body.
pub type Reply = (u16, Vec<(&'static str, String)>, String);

type Answer = dyn Fn(&Heard) -> Reply + Send + Sync;

/// The hosts. They are there as long as the program runs.
pub struct World {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<Heard>>>,
}

impl World {
    /// Hosts that all answer like this.
    pub fn new(answer: impl Fn(&Heard) -> Reply + Send + Sync + 'static) -> World {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port on loopback is free");
        let address = listener.local_addr().expect("it has an address");
        let heard = Arc::<Mutex<Vec<Heard>>>::default();
        let (all, answer): (_, Arc<Answer>) = (heard.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (all, answer) = (all.clone(), answer.clone());
                std::thread::spawn(move || serve(stream, &all, answer.as_ref()));
            }
        });
        World { address, heard }
    }

    /// The URL of the proxy.
    pub fn proxy(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Everything so far.
    pub fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn serve(mut stream: TcpStream, all: &Mutex<Vec<Heard>>, answer: &Answer) {
    let mut text = Vec::new();
    let mut some = [0; 4096];
    loop {
        if let Some(end) = text.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&text[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
            if text.len() >= end + 4 + length.unwrap_or(0) {
                break;
            }
        }
        match stream.read(&mut some) {
            Ok(n) if n > 0 => text.extend_from_slice(&some[..n]),
            _ => break,
        }
    }
    let text = String::from_utf8_lossy(&text).into_owned();
    let mut first = text.split_whitespace();
    let (method, url) = (first.next().unwrap_or_default().to_owned(), first.next().unwrap_or_default().to_owned());
    let heard = Heard { method, url, text: text.clone() };
    all.lock().unwrap_or_else(PoisonError::into_inner).push(heard.clone());
    let (status, headers, body) = answer(&heard);
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    // One that does not wait for its answer has gone.
    let _ = write!(stream, "HTTP/1.1 {status} So\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
}
