//! A docker that throws away what it is sent: for measuring what sending costs, whatever the size.
//!
//! It speaks as much of docker's interface as a load needs, and claims afterwards to hold the image. It proves nothing about docker.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

/// The socket, and how many bytes were thrown away.
pub struct Sink {
    socket: PathBuf,
    taken: Arc<AtomicU64>,
}

impl Sink {
    /// Listens in this folder, and shows this image under `name` once something was loaded.
    pub fn start(folder: &Path, name: &str, image_id: &str, diff_ids: &[String]) -> io::Result<Sink> {
        let socket = folder.join("sink.sock");
        let listener = UnixListener::bind(&socket)?;
        let taken = Arc::<AtomicU64>::default();
        let image = json!({ "Id": image_id, "RepoTags": [name], "Os": "linux", "Architecture": "amd64", "RootFS": { "Type": "layers", "Layers": diff_ids } });
        let counted = taken.clone();
        // It ends with the process; whoever drops the folder takes the socket away.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (image, taken) = (image.clone(), counted.clone());
                // A client that goes away ends its connection, and nothing else.
                std::thread::spawn(move || drop(answer(&stream, &image, &taken)));
            }
        });
        Ok(Sink { socket, taken })
    }

    /// Where it listens, as `DOCKER_HOST` has it.
    pub fn address(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// The bytes that came.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }
}

fn answer(stream: &UnixStream, image: &Value, taken: &AtomicU64) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    let (mut request, mut length) = (String::new(), 0);
    reader.read_line(&mut request)?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let body = io::copy(&mut reader.take(length), &mut io::sink())?;
    let path = request.split(' ').nth(1).unwrap_or_default();
    let (status, reply) = match path {
        _ if path.ends_with("/_ping") => (200, "OK".to_owned()),
        _ if path.ends_with("/version") => {
            (200, json!({ "Version": "26.1.0", "ApiVersion": "1.45", "Os": "linux", "Arch": "amd64" }).to_string())
        }
        _ if path.ends_with("/info") => (200, json!({ "Driver": "overlay2" }).to_string()),
        _ if path.contains("/images/load") => {
            taken.fetch_add(body, Ordering::Relaxed);
            (200, json!({ "stream": "Loaded image\n" }).to_string())
        }
        // It holds nothing of which a layer could be left out.
        _ if path.contains("/images/json") => (200, "[]".to_owned()),
        _ if path.contains("/json") && taken.load(Ordering::Relaxed) > 0 => (200, image.to_string()),
        _ => (404, json!({ "message": "no such image" }).to_string()),
    };
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {status} Said\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{reply}",
        reply.len()
    )
}
