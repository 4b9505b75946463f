//! HTTP to an engine, over its socket.
//!
//! Owns connections, time limits and the size of answers. Always true: a small question is answered within the time limit or fails; an
//! upload may take any time, but never outlives its connection. What is asked, and what an answer means, is not known here.

use std::error::Error;
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Incoming};
use hyper::{HeaderMap, Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{mpsc, watch};

use super::discover::Address;
use super::process::{Ended, Tunnel};
use super::tls;
use super::{EngineError, Place};
use crate::json;

/// The longest answer that is read: larger than the config of any image.
const ANSWER_LIMIT: usize = 16 << 20;
/// How much of an engine's words goes into a message.
const WORDS_LIMIT: usize = 1000;

/// A way to ask one engine.
#[derive(Debug, Clone)]
pub(super) struct Wire {
    pub(super) place: Place,
    address: Address,
    limit: Duration,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Called with every line of an answer as it comes.
pub(super) type Hear<'a> = dyn FnMut(&str) -> Line + Send + 'a;

/// What becomes of a line of an answer.
pub(super) enum Line {
    /// It is a part of the answer.
    Kept,
    /// It was dealt with.
    Dropped,
}

/// Why a request came to nothing.
#[derive(Debug)]
pub(super) enum Failure {
    Connecting(io::Error),
    Talking(hyper::Error),
    TooLong,
    /// Nothing moved any more, and it did not answer when it was asked whether it lives.
    Silent(EngineError),
}

impl Wire {
    pub(super) fn new(place: Place, address: Address, limit: Duration) -> Wire {
        Wire { place, address, limit }
    }

    /// How long a small answer may take.
    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    /// The address, if it leads to another machine, or may.
    pub(super) fn remote(&self) -> Option<String> {
        match self.address {
            Address::Unix(_) => None,
            _ => Some(self.place.address.clone()),
        }
    }

    /// The socket, if it is one of this machine's.
    pub(super) fn socket(&self) -> Option<&Path> {
        match &self.address {
            Address::Unix(path) => Some(path),
            _ => None,
        }
    }

    /// Asks for a document that is always there.
    pub(super) async fn ask<T: DeserializeOwned>(&self, path: &str) -> Result<T, EngineError> {
        let reply = self.get(path).await?;
        self.read(path, &reply)
    }

    /// Asks for a document that may not be there.
    pub(super) async fn find<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, EngineError> {
        let reply = self.get(path).await?;
        if reply.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        self.read(path, &reply).map(Some)
    }

    fn read<T: DeserializeOwned>(&self, path: &str, reply: &Reply) -> Result<T, EngineError> {
        if reply.status != StatusCode::OK {
            return Err(self.refused(&shown(&Method::GET, path), reply));
        }
        json::read(&reply.body).map_err(|source| self.unreadable(path, source))
    }

    pub(super) async fn get(&self, path: &str) -> Result<Reply, EngineError> {
        self.call(Method::GET, path).await
    }

    /// Has something small done that succeeds with this status.
    pub(super) async fn must(&self, method: Method, path: &str, status: StatusCode) -> Result<(), EngineError> {
        let reply = self.call(method.clone(), path).await?;
        if reply.status == status { Ok(()) } else { Err(self.refused(&shown(&method, path), &reply)) }
    }

    async fn call(&self, method: Method, path: &str) -> Result<Reply, EngineError> {
        let asked = async {
            let request = self.request(method.clone(), path, Empty::<Bytes>::new());
            self.exchange(request, &mut |_| Line::Kept).await
        };
        match tokio::time::timeout(self.limit, asked).await {
            Ok(done) => done.map_err(|failure| self.failed(&method, path, failure)),
            Err(_) => Err(EngineError::TimedOut { place: self.place.clone(), request: shown(&method, path), after: self.limit }),
        }
    }

    /// What a failure is an error of.
    pub(super) fn failed(&self, method: &Method, path: &str, failure: Failure) -> EngineError {
        let (place, request) = (self.place.clone(), shown(method, path));
        if let Some(source) = failure.ended() {
            return EngineError::Tunnel { place, source };
        }
        match failure {
            Failure::Connecting(source) => EngineError::Unreachable { place, source },
            Failure::Talking(source) => EngineError::Broken { place, request, source: source.into() },
            Failure::TooLong => EngineError::TooLong { place, request, limit: ANSWER_LIMIT },
            Failure::Silent(error) => error,
        }
    }

    /// Waits for work that may take any time, as long as the engine lives: whenever nothing `moved` for as long as a small answer may take, it is
    /// asked for one.
    async fn while_alive<T>(&self, mut moved: watch::Receiver<u64>, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let mut work = pin!(work);
        loop {
            let still = async {
                loop {
                    match tokio::time::timeout(self.limit, moved.changed()).await {
                        Ok(Ok(())) => {}
                        // Whoever moves it is gone when all was sent.
                        Ok(Err(_)) => return tokio::time::sleep(self.limit).await,
                        Err(_) => return,
                    }
                }
            };
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = still => {}
            }
            tokio::select! {
                biased;
                done = &mut work => return done,
                pong = self.get("/_ping") => pong.map_err(Failure::Silent)?,
            };
        }
    }

    /// Sends a body of known length and returns what the engine answers, whenever that is as long as it lives, without the lines that
    /// `hear` dropped.
    pub(super) async fn upload<B>(&self, path: &str, body: B, moved: watch::Receiver<u64>, hear: &mut Hear<'_>) -> Result<Reply, Failure>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: std::error::Error + Send + Sync,
    {
        let mut request = self.request(Method::POST, path, body);
        request.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/x-tar"));
        self.while_alive(moved, self.exchange(request, hear)).await
    }

    /// Asks for an archive of any length and hands it on in pieces, as fast as they are taken. It may take any time, as long as the
    /// engine lives.
    pub(super) async fn stream(&self, path: &str, pieces: mpsc::Sender<Bytes>) -> Result<(), EngineError> {
        let (moves, moved) = watch::channel(0);
        let asked = async {
            let request = self.request(Method::GET, path, Empty::<Bytes>::new());
            talk(self.connect().await?, request, |response| pour(response, pieces, moves)).await
        };
        match self.while_alive(moved, asked).await {
            Ok(None) => Ok(()),
            Ok(Some(reply)) => Err(self.refused(&shown(&Method::GET, path), &reply)),
            Err(failure) => Err(self.failed(&Method::GET, path, failure)),
        }
    }

    pub(super) fn unreadable(&self, path: &str, source: serde_json::Error) -> EngineError {
        EngineError::Unreadable { place: self.place.clone(), request: shown(&Method::GET, path), source }
    }

    fn refused(&self, request: &str, reply: &Reply) -> EngineError {
        EngineError::Refused { place: self.place.clone(), request: request.to_owned(), status: reply.status.as_u16(), said: reply.words() }
    }

    fn request<B: Body>(&self, method: Method, path: &str, body: B) -> Request<B> {
        let host = match &self.address {
            Address::Unix(_) | Address::Ssh(_) => "localhost".to_owned(),
            Address::Tcp(host, port) | Address::Tls(host, port, _) if host.contains(':') => format!("[{host}]:{port}"),
            Address::Tcp(host, port) | Address::Tls(host, port, _) => format!("{host}:{port}"),
        };
        let request = Request::builder().method(method).uri(path).header(header::HOST, host);
        let request = request.header(header::USER_AGENT, concat!("larder/", env!("CARGO_PKG_VERSION"))).body(body);
        request.expect("hosts and paths were checked or encoded when they were read")
    }

    async fn exchange<B>(&self, request: Request<B>, hear: &mut Hear<'_>) -> Result<Reply, Failure>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: std::error::Error + Send + Sync,
    {
        talk(self.connect().await?, request, |response| collect(response, hear)).await
    }

    async fn connect(&self) -> Result<Box<dyn Socket>, Failure> {
        let connecting = async {
            Ok(match &self.address {
                Address::Unix(path) => Box::new(UnixStream::connect(path).await?) as Box<dyn Socket>,
                Address::Tcp(host, port) => Box::new(TcpStream::connect((host.as_str(), *port)).await?),
                Address::Tls(host, port, tls) => Box::new(tls::connect(host, *port, tls).await?),
                Address::Ssh(ssh) => Box::new(Tunnel::start("ssh", &ssh.arguments(self.limit.as_secs())).map_err(io::Error::other)?),
            })
        };
        let late = |_| io::Error::from(io::ErrorKind::TimedOut);
        tokio::time::timeout(self.limit, connecting).await.map_err(late).flatten().map_err(Failure::Connecting)
    }
}

/// Sends a request and reads what comes back as `read` does it.
async fn talk<B, T, F>(socket: Box<dyn Socket>, request: Request<B>, read: impl FnOnce(Response<Incoming>) -> F) -> Result<T, Failure>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::error::Error + Send + Sync,
    F: Future<Output = Result<T, Failure>>,
{
    let io = TokioIo::new(Patient { socket, broken: false });
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.map_err(Failure::Talking)?;
    let mut answered = pin!(async move { read(sender.send_request(request).await.map_err(Failure::Talking)?).await });
    tokio::select! {
        biased;
        reply = &mut answered => return reply,
        // Whatever ended the connection, the request learns of it.
        _ = connection => {}
    }
    answered.await
}

impl Failure {
    /// The end of the program that led to the engine, if that is what it was.
    fn ended(&self) -> Option<Ended> {
        match self {
            Failure::Connecting(source) => Failure::ended_in(source),
            Failure::Talking(source) => Failure::ended_in(source),
            Failure::TooLong | Failure::Silent(_) => None,
        }
    }

    /// The same, among the causes of an error.
    pub(super) fn ended_in(error: &(dyn Error + 'static)) -> Option<Ended> {
        let mut cause = Some(error);
        while let Some(error) = cause {
            let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref).map(|inner| inner as &(dyn Error + 'static));
            if let Some(ended) = [Some(error), inner].into_iter().flatten().find_map(|error| error.downcast_ref::<Ended>()) {
                return Some(ended.clone());
            }
            cause = error.source();
        }
        None
    }
}

impl Reply {
    /// The text of a header; empty if there is none.
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// What the engine said, fit to be shown: its `message`, else the whole text.
    pub(super) fn words(&self) -> String {
        #[derive(Deserialize)]
        struct Message {
            message: String,
        }
        match json::read::<Message>(&self.body) {
            Ok(Message { message }) => words(&message),
            Err(_) => words(&String::from_utf8_lossy(&self.body)),
        }
    }
}

/// An engine's words, fit to be shown: on one line and not too long.
pub(super) fn words(text: &str) -> String {
    let text = text.trim().chars().take(WORDS_LIMIT);
    text.map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Text as a part of a path or a query, with all that could mean something else encoded.
pub(super) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b':' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn shown(method: &Method, path: &str) -> String {
    format!("{method} {path}")
}

async fn collect(response: Response<Incoming>, hear: &mut Hear<'_>) -> Result<Reply, Failure> {
    let (head, mut body) = response.into_parts();
    let (mut kept, mut line) = (BytesMut::new(), BytesMut::new());
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(Failure::Talking)?.into_data() else { continue };
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            if kept.len() + line.len() + piece.len() > ANSWER_LIMIT {
                return Err(Failure::TooLong);
            }
            line.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                let whole = line.split();
                match hear(&String::from_utf8_lossy(&whole)) {
                    Line::Kept => kept.extend_from_slice(&whole),
                    Line::Dropped => {}
                }
            }
        }
    }
    kept.extend_from_slice(&line);
    Ok(Reply { status: head.status, headers: head.headers, body: kept.freeze() })
}

/// Hands on what comes, if it is what was asked for; else returns what was said instead.
async fn pour(response: Response<Incoming>, pieces: mpsc::Sender<Bytes>, moves: watch::Sender<u64>) -> Result<Option<Reply>, Failure> {
    if response.status() != StatusCode::OK {
        return collect(response, &mut |_| Line::Kept).await.map(Some);
    }
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(Failure::Talking)?.into_data() else { continue };
        moves.send_modify(|moved| *moved += data.len() as u64);
        if pieces.send(data).await.is_err() {
            break;
        }
    }
    Ok(None)
}

trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// A connection on which a failed write waits for what there is to read.
///
/// An engine that gives up in the middle of an upload answers why and closes. The next write then fails, and hyper would report that
/// and drop the answer, which is on its way or here already. Reading goes on instead: it finds the answer, or the end.
struct Patient {
    socket: Box<dyn Socket>,
    broken: bool,
}

impl Patient {
    fn write<T>(&mut self, write: impl FnOnce(Pin<&mut dyn Socket>) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if self.broken {
            return Poll::Pending;
        }
        match write(Pin::new(&mut *self.socket)) {
            Poll::Ready(Err(e)) if matches!(e.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
                self.broken = true;
                // Reading, which comes before every write, wakes this task.
                Poll::Pending
            }
            done => done,
        }
    }
}

impl AsyncRead for Patient {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.write(|socket| socket.poll_write(cx, bytes))
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.write(|socket| socket.poll_write_vectored(cx, bytes))
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write(|socket| socket.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    /// Takes the head of a request and no more; its answer comes later.
    struct GivesUp {
        written: usize,
        reads: usize,
    }

    impl AsyncRead for GivesUp {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            self.reads += 1;
            if self.reads < 5 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if self.reads == 5 {
                buf.put_slice(b"HTTP/1.1 500 Oh\r\nContent-Length: 7\r\n\r\nno room");
            }
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for GivesUp {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            if self.written > 0 {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            self.written = bytes.len().min(100);
            Poll::Ready(Ok(self.written))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn an_answer_is_read_though_writing_failed() {
        let request = Request::post("/").body(Full::new(Bytes::from(vec![0; 1 << 20]))).unwrap();
        let reply =
            talk(Box::new(GivesUp { written: 0, reads: 0 }), request, async |response| collect(response, &mut |_| Line::Kept).await)
                .await
                .unwrap();
        assert_eq!((reply.status.as_u16(), reply.words().as_str()), (500, "no room"));
    }

    #[test]
    fn names_are_encoded_for_paths() {
        assert_eq!(encoded("docker.io/library/redis:7"), "docker.io/library/redis:7");
        assert_eq!(encoded("[::1]:5000/x:y"), "%5B::1%5D:5000/x:y");
        assert_eq!(encoded(r#"{"a":"&b"}"#), "%7B%22a%22:%22%26b%22%7D");
    }
}
