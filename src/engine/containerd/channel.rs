//! Calls to containerd, over one connection.
//!
//! Owns connecting, the namespace and the lease that calls are about, time limits, and what an answer other than "done" means. Always true: a
//! call is answered within the time limit or fails, unless somebody said that it may take any time. What is called, and why, is not known here.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::http::uri::PathAndQuery;
use hyper::{Request, Response, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tonic::body::Body;
use tonic::client::{Grpc, GrpcService};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Code, Status, Streaming};

use super::api::{Call, GetVersion, Piece, ReadContent, WriteContent};
use super::codec::Encoded;
use crate::digest::{Digest, Hasher};
use crate::engine::{EngineError, Place, wire};

/// Where a containerd is, and how it is talked to.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) place: Place,
    pub(super) socket: PathBuf,
    pub(super) limit: Duration,
    pub(super) namespace: MetadataValue<Ascii>,
}

/// A connection. Cheap to clone; the clones share it, and it ends with the last of them.
#[derive(Clone)]
pub(super) struct Channel {
    sender: Sender,
    place: Place,
    namespace: MetadataValue<Ascii>,
    lease: Option<MetadataValue<Ascii>>,
    limit: Option<Duration>,
}

/// The answers of a call that gives several.
pub(super) struct Answers<C> {
    channel: Channel,
    answers: Streaming<Bytes>,
    to: PhantomData<C>,
}

impl Line {
    /// Connects. Whether anybody answers shows with the first call.
    pub(super) async fn connect(&self) -> Result<Channel, EngineError> {
        let place = &self.place;
        let unreachable = |source| EngineError::Unreachable { place: place.clone(), source };
        let late = |_| io::Error::from(io::ErrorKind::TimedOut);
        let socket = tokio::time::timeout(self.limit, UnixStream::connect(&self.socket)).await;
        let socket = socket.map_err(late).flatten().map_err(unreachable)?;
        let broken = |e: hyper::Error| EngineError::Broken { place: place.clone(), request: "to connect".to_owned(), source: e.into() };
        let (sender, connection) = http2::Builder::new(TokioExecutor::new()).handshake(TokioIo::new(socket)).await.map_err(broken)?;
        // Whatever ends the connection, the calls on it learn of it.
        tokio::spawn(connection);
        Ok(Channel {
            sender: Sender(sender),
            place: place.clone(),
            namespace: self.namespace.clone(),
            lease: None,
            limit: Some(self.limit),
        })
    }
}

impl Channel {
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// The same connection; what is made by calls on it is kept by this lease, and they may take any time.
    pub(super) fn leased(&self, lease: MetadataValue<Ascii>) -> Channel {
        Channel { lease: Some(lease), limit: None, ..self.clone() }
    }

    /// The same connection; what is made by calls on it is kept by this lease.
    pub(super) fn under(&self, lease: MetadataValue<Ascii>) -> Channel {
        Channel { lease: Some(lease), ..self.clone() }
    }

    /// The same connection, on which calls may take any time.
    pub(super) fn patient(&self) -> Channel {
        Channel { limit: None, ..self.clone() }
    }

    /// Waits until nobody answers any more: asks again and again, as long as a small answer may take between.
    pub(super) async fn silence(&self) -> EngineError {
        loop {
            tokio::time::sleep(self.limit.unwrap_or(Duration::from_secs(30))).await;
            if let Err(error) = self.call(GetVersion {}).await {
                return error;
            }
        }
    }

    /// Calls a method that gives one answer.
    pub(super) async fn call<C: Call>(&self, message: C) -> Result<C::Reply, EngineError> {
        let answer = self.limited::<C, _>(self.one(C::METHOD, message.encode_to_vec().into())).await?;
        self.decoded::<C>(answer)
    }

    /// Calls a method about something that may not be there.
    pub(super) async fn find<C: Call>(&self, message: C) -> Result<Option<C::Reply>, EngineError> {
        unless(Code::NotFound, self.call(message).await)
    }

    /// Reads content of no more than so many bytes; `None` if it is not there, or longer.
    pub(super) async fn read(&self, message: ReadContent, at_most: u64) -> Result<Option<Bytes>, EngineError> {
        let mut content = BytesMut::new();
        let whole = self.pieces(message, |piece| {
            let fits = (content.len() + piece.len()) as u64 <= at_most;
            if fits {
                content.extend_from_slice(&piece);
            }
            fits
        });
        Ok(whole.await?.then(|| content.freeze()))
    }

    /// The digest of content as it is now; `None` if it is not there.
    pub(super) async fn hash(&self, message: ReadContent) -> Result<Option<Digest>, EngineError> {
        let mut hasher = Hasher::new();
        let whole = self.pieces(message, |piece| {
            hasher.update(&piece);
            true
        });
        Ok(whole.await?.then(|| hasher.finish().0))
    }

    /// Reads content piece by piece, for as long as `take` wants more; says whether it is there and was read to its end.
    async fn pieces(&self, message: ReadContent, mut take: impl FnMut(Bytes) -> bool) -> Result<bool, EngineError> {
        let asked = async {
            let mut pieces = self.open(ReadContent::METHOD, stream::iter([message.encode_to_vec().into()]).boxed()).await?;
            while let Some(piece) = pieces.message().await? {
                let piece = Piece::decode(piece).map_err(|e| Status::internal(e.to_string()))?;
                if !take(piece.data) {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        Ok(unless(Code::NotFound, self.limited::<ReadContent, _>(asked).await)?.unwrap_or(false))
    }

    /// Begins a write that goes on with what comes through `steps`; there must be one already.
    pub(super) async fn write(&self, mut steps: mpsc::Receiver<WriteContent>) -> Result<Answers<WriteContent>, EngineError> {
        let steps = stream::poll_fn(move |cx| steps.poll_recv(cx)).map(|step| step.encode_to_vec().into()).boxed();
        let answers = self.limited::<WriteContent, _>(self.open(WriteContent::METHOD, steps)).await?;
        Ok(Answers { channel: self.clone(), answers, to: PhantomData })
    }

    /// An answer that is not what containerd's definitions say.
    pub(super) fn unreadable<C: Call>(&self, why: impl fmt::Display) -> EngineError {
        let source = serde::de::Error::custom(why);
        EngineError::Unreadable { place: self.place.clone(), request: shown::<C>(), source }
    }

    fn decoded<C: Call>(&self, answer: Bytes) -> Result<C::Reply, EngineError> {
        C::Reply::decode(answer).map_err(|e| self.unreadable::<C>(e))
    }

    async fn limited<C: Call, T>(&self, asked: impl Future<Output = Result<T, Status>>) -> Result<T, EngineError> {
        let answered = match self.limit {
            None => asked.await,
            Some(limit) => match tokio::time::timeout(limit, asked).await {
                Ok(answered) => answered,
                Err(_) => return Err(EngineError::TimedOut { place: self.place.clone(), request: shown::<C>(), after: limit }),
            },
        };
        answered.map_err(|status| self.failed::<C>(status))
    }

    /// What a call came to that ended with this status.
    fn failed<C: Call>(&self, status: Status) -> EngineError {
        let (place, request) = (self.place.clone(), shown::<C>());
        // A status that containerd sent has no cause; one that tonic made of a broken connection has.
        match status.source() {
            Some(_) => EngineError::Broken { place, request, source: Ended(status).into() },
            None => EngineError::Denied { place, request, code: status.code(), said: wire::words(status.message()) },
        }
    }

    async fn one(&self, method: &'static str, message: Bytes) -> Result<Bytes, Status> {
        let mut answers = self.open(method, stream::iter([message]).boxed()).await?;
        let answer = answers.message().await?.ok_or_else(|| Status::internal("there is no answer"))?;
        // Only what comes after it says whether it is one.
        match answers.message().await? {
            None => Ok(answer),
            Some(_) => Err(Status::internal("there is more than one answer")),
        }
    }

    async fn open(&self, method: &'static str, messages: BoxStream<'static, Bytes>) -> Result<Streaming<Bytes>, Status> {
        // There is no host behind a socket, and yet HTTP wants one.
        let mut grpc = Grpc::with_origin(self.sender.clone(), Uri::from_static("http://localhost"));
        grpc.ready().await.map_err(|e| Status::from_error(e.into()))?;
        let mut request = tonic::Request::new(messages);
        request.metadata_mut().insert("containerd-namespace", self.namespace.clone());
        if let Some(lease) = &self.lease {
            request.metadata_mut().insert("containerd-lease", lease.clone());
        }
        Ok(grpc.streaming(request, PathAndQuery::from_static(method), Encoded).await?.into_inner())
    }
}

impl<C: Call> Answers<C> {
    /// The next answer; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<C::Reply>, EngineError> {
        let answer = self.answers.message().await.map_err(|status| self.channel.failed::<C>(status))?;
        answer.map(|answer| self.channel.decoded::<C>(answer)).transpose()
    }
}

/// `None` where containerd answered with this code: what it says is no failure then.
pub(super) fn unless<T>(code: Code, answered: Result<T, EngineError>) -> Result<Option<T>, EngineError> {
    match answered {
        Err(EngineError::Denied { code: found, .. }) if found == code => Ok(None),
        other => other.map(Some),
    }
}

/// `Images/Get` for `/containerd.services.images.v1.Images/Get`.
fn shown<C: Call>() -> String {
    C::METHOD.rsplit('.').next().unwrap_or(C::METHOD).to_owned()
}

/// The connection, as tonic wants it.
#[derive(Clone)]
struct Sender(SendRequest<Body>);

impl GrpcService<Body> for Sender {
    type ResponseBody = Incoming;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Incoming>, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// The connection ended while a call was on its way.
#[derive(Debug)]
struct Ended(Status);

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // tonic's and hyper's words say less the further out they are.
        let mut innermost: &dyn Error = &self.0;
        while let Some(cause) = innermost.source() {
            innermost = cause;
        }
        write!(f, "{innermost}")
    }
}

impl Error for Ended {}
