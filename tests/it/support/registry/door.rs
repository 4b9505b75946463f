//! The HTTP side of the registry.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use base64::Engine;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use larder::digest::Digest;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::body::Script;
use super::part::Part;
use super::{Access, Content, Fault, Seen, State, lock};

/// A connection, as it is or wrapped.
pub trait Connected: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connected for T {}

type Wrapping = Pin<Box<dyn Future<Output = io::Result<Box<dyn Connected>>> + Send>>;

/// Wraps each connection that comes in.
pub type Wrap = Arc<dyn Fn(TcpStream) -> Wrapping + Send + Sync>;

type Shared = Arc<Mutex<State>>;
pub(super) type Answer = Response<Script>;

pub(super) fn serve(
    listener: std::net::TcpListener,
    address: SocketAddr,
    state: Shared,
    wrap: Option<Wrap>,
    mut stopped: watch::Receiver<bool>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime for the registry");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener).expect("a listener that does not block");
        loop {
            let stream = tokio::select! {
                // Also when whoever could stop us is gone.
                _ = stopped.changed() => return,
                Ok((stream, _)) = listener.accept() => stream,
            };
            let _ = stream.set_nodelay(true);
            lock(&state).connections += 1;
            tokio::spawn(connection(stream, address, state.clone(), wrap.clone()));
        }
    });
}

async fn connection(stream: TcpStream, address: SocketAddr, state: Shared, wrap: Option<Wrap>) {
    let hard = Arc::new(AtomicBool::new(false));
    let stream: Box<dyn Connected> = match wrap {
        None => Box::new(Socket { stream, hard: hard.clone(), sent: lock(&state).sent.clone() }),
        Some(wrap) => match wrap(stream).await {
            Ok(stream) => stream,
            Err(_) => return,
        },
    };
    let here = Here { address, state, hard };
    let service = service_fn(|request| answer(request, here.clone()));
    // A client that goes away, and a fault that cuts the connection, end here.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// What one connection knows.
#[derive(Clone)]
struct Here {
    address: SocketAddr,
    state: Shared,
    /// Whether the connection is to end with a reset.
    hard: Arc<AtomicBool>,
}

/// A connection that can be reset, and that counts.
struct Socket {
    stream: TcpStream,
    hard: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
}

impl Socket {
    fn counted(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &written {
            self.sent.fetch_add(*bytes as u64, Ordering::Relaxed);
        }
        written
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.hard.load(Ordering::Relaxed) {
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.counted(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.counted(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

async fn answer(request: Request<Incoming>, here: Here) -> io::Result<Answer> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|b| String::from_utf8_lossy(&b.to_bytes()).into_owned()).unwrap_or_default();
    let (path, query) = (parts.uri.path().to_owned(), parts.uri.query().unwrap_or_default().to_owned());
    let head = parts.method == Method::HEAD;
    let mut seen = Seen { method: parts.method.to_string(), path, query, headers: parts.headers, body, status: 0 };
    if take_fault(&mut lock(&here.state), &seen, |fault| *fault == Fault::Silent).is_some() {
        lock(&here.state).seen.push(seen);
        return std::future::pending().await;
    }
    let answer = decide(&here, &seen)?;
    seen.status = answer.status().as_u16();
    lock(&here.state).seen.push(seen);
    Ok(if head { answer.map(|_| Script::empty()) } else { answer })
}

/// The first fault for this request, if it is one of these.
fn take_fault(state: &mut State, seen: &Seen, which: impl Fn(&Fault) -> bool) -> Option<Fault> {
    let target = format!("{}?{}", seen.path, seen.query);
    let (_, fault, left) = state.faults.iter_mut().find(|(part, _, left)| target.contains(part.as_str()) && *left > 0)?;
    if !which(fault) {
        return None;
    }
    *left -= 1;
    Some(fault.clone())
}

fn decide(here: &Here, seen: &Seen) -> io::Result<Answer> {
    let state = &mut *lock(&here.state);
    // These come before anyone looks who asks; at the token server, so do redirects.
    let early = |fault: &Fault| match fault {
        Fault::Status(..) | Fault::Answer(..) => true,
        Fault::RedirectTo(_) => seen.path == "/token",
        _ => false,
    };
    match take_fault(state, seen, early) {
        Some(Fault::Status(status, after, _)) => return Ok(status_only(status, after)),
        Some(Fault::Answer(status, headers, body)) => return Ok(made(status, &headers, &body)),
        Some(Fault::RedirectTo(url)) => return Ok(elsewhere(&url)),
        _ => {}
    }
    if seen.path == "/token" {
        return Ok(token(state, seen));
    }
    if let Some(answer) = turned_away(state, seen, here.address) {
        return Ok(answer);
    }
    let fault = take_fault(state, seen, |_| true);
    if let Some(Fault::RedirectTo(url)) = &fault {
        return Ok(elsewhere(url));
    }
    if let (Some(Fault::ExpireTokens), Access::Bearer { tokens, .. }) = (&fault, &state.access) {
        tokens.expire();
    }
    let Some(path) = seen.path.strip_prefix("/v2/") else { return Ok(refusal(StatusCode::NOT_FOUND, "NAME_UNKNOWN", "no such thing")) };
    if path.is_empty() {
        return Ok(Response::new(Script::bytes("{}")));
    }
    let mut parts = path.rsplitn(3, '/');
    let (name, kind, repository) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let missing = fault == Some(Fault::Missing);
    match kind {
        "manifests" if !missing => match state.manifests.get(&(repository.to_owned(), name.to_owned())) {
            Some((media_type, bytes)) => {
                Part::of(&Content::Memory(bytes.clone()), seen, fault).answer(Some(media_type), Digest::of(bytes), &here.hard)
            }
            None if !state.manifests.keys().any(|(r, _)| r == repository) => {
                Ok(refusal(StatusCode::NOT_FOUND, "NAME_UNKNOWN", "repository name not known to registry"))
            }
            None => Ok(refusal(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", "manifest unknown")),
        },
        "manifests" => Ok(refusal(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", "manifest unknown")),
        "blobs" => match name.parse::<Digest>().ok().and_then(|d| Some((d, state.blobs.get(&d)?))) {
            Some((digest, blob)) if !missing => Part::of(blob, seen, fault).answer(None, digest, &here.hard),
            _ => Ok(refusal(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", "blob unknown to registry")),
        },
        _ => Ok(refusal(StatusCode::NOT_FOUND, "UNSUPPORTED", "no such thing")),
    }
}

/// The answer to who may not ask.
fn turned_away(state: &State, seen: &Seen, address: SocketAddr) -> Option<Answer> {
    let shown = seen.header(AUTHORIZATION.as_str());
    let challenge = match &state.access {
        Access::Open => return None,
        Access::Basic(user, password) if shown == basic(user, password) => return None,
        Access::Basic(..) => "Basic realm=\"the registry\"".to_owned(),
        Access::Bearer { tokens, .. } if shown.strip_prefix("Bearer ").is_some_and(|t| tokens.has(t)) => return None,
        Access::Bearer { realm, .. } => {
            let realm = realm.clone().unwrap_or_else(|| format!("http://{address}/token"));
            let path = seen.path.trim_start_matches("/v2/");
            let repository = path.rsplitn(3, '/').nth(2).unwrap_or_default();
            format!("Bearer realm=\"{realm}\",service=\"the, registry\",scope=\"repository:{repository}:pull\"")
        }
    };
    let mut answer = refusal(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "authentication required");
    answer.headers_mut().insert(WWW_AUTHENTICATE, header(&challenge));
    Some(answer)
}

fn token(state: &State, seen: &Seen) -> Answer {
    let server = &state.token_server;
    let shown = seen.header(AUTHORIZATION.as_str());
    let good = match (&server.user, seen.method.as_str()) {
        (_, "POST") => server.identity.is_some_and(|i| seen.body.split('&').any(|field| field == format!("refresh_token={i}"))),
        (_, _) if shown.is_empty() => server.anonymous,
        (Some((user, password)), _) => shown == basic(user, password),
        (None, _) => true,
    };
    if !good {
        return refusal(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "incorrect username or password");
    }
    let mut reply = serde_json::json!({ server.key: server.tokens.issue() });
    if let Some(seconds) = server.expires_in {
        reply["expires_in"] = seconds.into();
    }
    Response::new(Script::bytes(reply.to_string()))
}

fn status_only(status: u16, after: Option<&'static str>) -> Answer {
    let mut answer = refusal(StatusCode::from_u16(status).expect("a status"), "SOMETHING", "as was asked for");
    if let Some(after) = after {
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(after));
    }
    answer
}

fn elsewhere(url: &str) -> Answer {
    made(StatusCode::TEMPORARY_REDIRECT.as_u16(), &[("location", url.to_owned())], &Bytes::new())
}

fn made(status: u16, headers: &[(&'static str, String)], body: &Bytes) -> Answer {
    let mut answer = Response::new(Script::bytes(body.clone()));
    *answer.status_mut() = StatusCode::from_u16(status).expect("a status");
    answer.headers_mut().insert(CONTENT_LENGTH, body.len().into());
    for (name, value) in headers {
        answer.headers_mut().append(*name, header(value));
    }
    answer
}

/// An answer with an error in the specification's form.
pub(super) fn refusal(status: StatusCode, code: &str, message: &str) -> Answer {
    let text =
        if code.is_empty() { String::new() } else { serde_json::json!({ "errors": [{ "code": code, "message": message }] }).to_string() };
    made(status.as_u16(), &[("content-type", "application/json".into())], &text.into())
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
}

pub(super) fn header(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("a header's text")
}
