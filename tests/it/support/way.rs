//! A way to a server that is long, narrow for each connection, or breaks: a proxy on loopback.
//!
//! Runs on a thread of its own and stops when it is dropped. What it cannot show is a link that all connections share.

#![allow(dead_code, unreachable_pub, reason = "it is included where not all of it is used")]

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

/// How much is moved at once, and how many of these are under way on one connection: 8 MiB, the window of a well set up server.
const PIECE: usize = 64 << 10;
const UNDER_WAY: usize = 128;

/// What is wrong with a way. The default is nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wrong {
    /// How long every byte takes, in each direction.
    pub delay: Duration,
    /// How many bytes a second come by one connection.
    pub each: Option<u64>,
    /// Each time so many bytes more came by all connections together, the one that brought the last of them ends.
    pub cut_every: Option<u64>,
}

/// The way. Dropping it ends it.
pub struct Way {
    address: SocketAddr,
    counts: Arc<Counts>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Counts {
    came: AtomicU64,
    open: AtomicUsize,
    most: AtomicUsize,
}

impl Way {
    /// A way to a server on loopback.
    pub fn to(server: &str, wrong: Wrong) -> Way {
        let server: SocketAddr = server.parse().expect("an address");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port on loopback is free");
        listener.set_nonblocking(true).expect("a listener can be told not to wait");
        let address = listener.local_addr().expect("a listener has an address");
        let (stop, stopped) = watch::channel(false);
        let counts = Arc::<Counts>::default();
        let counted = counts.clone();
        let thread = std::thread::spawn(move || serve(listener, server, wrong, counted, stopped));
        Way { address, counts, stop, thread: Some(thread) }
    }

    /// Host and port, as a reference has them.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// How many bytes came so far.
    pub fn came(&self) -> u64 {
        self.counts.came.load(Ordering::Relaxed)
    }

    /// The most connections there were at once, since this was asked last.
    pub fn most_connections(&self) -> usize {
        self.counts.most.swap(0, Ordering::Relaxed)
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(listener: TcpListener, server: SocketAddr, wrong: Wrong, counts: Arc<Counts>, mut stopped: watch::Receiver<bool>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener).expect("the runtime takes a listener");
        loop {
            tokio::select! {
                Ok((client, _)) = listener.accept() => { tokio::spawn(connection(client, server, wrong, counts.clone())); }
                _ = stopped.changed() => return,
            }
        }
    });
}

async fn connection(client: TcpStream, server: SocketAddr, wrong: Wrong, counts: Arc<Counts>) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let open = counts.open.fetch_add(1, Ordering::Relaxed) + 1;
    counts.most.fetch_max(open, Ordering::Relaxed);
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    // A connection takes a round trip to come about.
    let begun = Instant::now() + 2 * wrong.delay;
    let up = carry(from_client, to_server, wrong.delay, begun, None, |_| false);
    let down = carry(from_server, to_client, wrong.delay, begun, wrong.each, |bytes| {
        let before = counts.came.fetch_add(bytes, Ordering::Relaxed);
        wrong.cut_every.is_some_and(|every| before / every != (before + bytes) / every)
    });
    tokio::pin!(up, down);
    tokio::select! {
        () = &mut up => down.await,
        // Whether it was all or the connection is cut.
        () = &mut down => {}
    }
    counts.open.fetch_sub(1, Ordering::Relaxed);
}

/// Moves bytes one way, each of them later, and no more than so many a second, until there are no more or the connection is to be cut.
async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    delay: Duration,
    begun: Instant,
    rate: Option<u64>,
    cut: impl Fn(u64) -> bool,
) {
    let (send, mut receive) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    let take = async move {
        loop {
            let mut piece = vec![0; PIECE];
            match from.read(&mut piece).await {
                Ok(length) if length > 0 => piece.truncate(length),
                _ => return,
            }
            if send.send((Instant::now().max(begun) + delay, piece)).await.is_err() {
                return;
            }
        }
    };
    let give = async {
        let mut paid = Instant::now();
        while let Some((due, piece)) = receive.recv().await {
            sleep_until(due.max(paid)).await;
            if to.write_all(&piece).await.is_err() || cut(piece.len() as u64) {
                return;
            }
            if let Some(rate) = rate {
                // What was overslept is made up for.
                let earliest = Instant::now().checked_sub(Duration::from_millis(20)).unwrap_or(paid);
                paid = paid.max(earliest) + Duration::from_secs_f64(piece.len() as f64 / rate as f64);
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::pin!(take, give);
    tokio::select! {
        () = &mut take => give.await,
        () = &mut give => {}
    }
}
