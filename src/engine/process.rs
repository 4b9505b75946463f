//! Programs that engines are reached through: ssh.
//!
//! Always true: a program has a fixed locale, asks nobody on a terminal, and ends with the connection it is for; what it writes on
//! standard error is bounded, and is in the error if it ends before its time.

use std::io;
use std::pin::Pin;
use std::process::{ExitStatus, Stdio};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;

use super::wire::words;

/// How much of what a program says on standard error is kept.
const SAID_LIMIT: usize = 16 << 10;

/// A connection through a program's standard input and output.
pub(super) struct Tunnel {
    stdin: ChildStdin,
    stdout: ChildStdout,
    /// Waits for the program; dropped with the tunnel, and the program with it.
    end: JoinHandle<Ended>,
}

/// A program ended though it was still needed, or could not be started.
#[derive(Debug, Clone, thiserror::Error)]
#[error("`{command}` {how}{}", said.as_ref().map(|said| format!(": {said}")).unwrap_or_default())]
pub struct Ended {
    /// The program and its arguments, as a person would type them.
    pub command: String,
    /// How it ended.
    pub how: String,
    /// What it said.
    pub said: Option<String>,
}

impl Tunnel {
    /// Starts a program whose standard input and output are the connection.
    #[expect(clippy::disallowed_methods, reason = "this is the home of the engines' programs")]
    pub(super) fn start(program: &str, arguments: &[String]) -> Result<Tunnel, Ended> {
        let shown = std::iter::once(program).chain(arguments.iter().map(String::as_str)).collect::<Vec<_>>().join(" ");
        let mut command = Command::new(program);
        command.args(arguments).env("LC_ALL", "C").kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let failed = |e: io::Error| Ended { command: shown.clone(), how: format!("cannot be started: {e}"), said: None };
        let mut child = command.spawn().map_err(failed)?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else { return Err(failed(io::ErrorKind::BrokenPipe.into())) };
        Ok(Tunnel { stdin, stdout, end: tokio::spawn(end(child, stderr, shown)) })
    }
}

/// Hears a program out and waits for its end.
async fn end(mut child: Child, mut stderr: ChildStderr, command: String) -> Ended {
    let (mut said, mut piece) = (Vec::new(), vec![0; 4096]);
    // It is read to its end, however much it is, so that the program never waits for somebody to hear it.
    while let Ok(length @ 1..) = stderr.read(&mut piece).await {
        said.extend_from_slice(&piece[..length.min(SAID_LIMIT - said.len())]);
    }
    let how = child.wait().await.map_or_else(|e| format!("cannot be waited for: {e}"), |status: ExitStatus| format!("ended with {status}"));
    let said = Some(words(&String::from_utf8_lossy(&said))).filter(|said| !said.is_empty());
    Ended { command, how, said }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.end.abort();
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stdout).poll_read(cx, buf))?;
        if buf.filled().len() > before || buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        // The end of what it writes is not an answer's end: engines say how long an answer is.
        let ended = ready!(Pin::new(&mut self.end).poll(cx)).map_err(io::Error::other)?;
        Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, ended)))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stdin).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdin).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdin).poll_shutdown(cx)
    }
}
