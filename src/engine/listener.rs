//! Who listens at a socket of this machine.
//!
//! Owns the look at the program behind a socket. Always true: what is told of it is read from the very file that runs. Where the kernel does
//! not name the process, or where that is another program (such as ssh, for an engine on another machine), nothing is told.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use tokio::net::UnixStream;

/// Who listens for programs that are started when somebody asks for them.
const STARTER: &str = "systemd";

/// The architecture, as Go names it, that the program was built for that serves at the socket, if it is called this.
pub(super) async fn architecture(socket: &Path, program: &str) -> Option<&'static str> {
    let listener = UnixStream::connect(socket).await.ok()?.peer_cred().ok()?.pid()?;
    let listener = PathBuf::from(format!("/proc/{listener}"));
    let serves = match () {
        () if runs(&listener, program) => listener,
        () if runs(&listener, STARTER) => started_for(socket, program)?,
        () => return None,
    };
    let mut head = [0; HEAD];
    File::open(serves.join("exe")).ok()?.read_exact(&mut head).ok()?;
    built_for(&head)
}

/// Whether a process, by its folder in `/proc`, runs a program of this name.
fn runs(process: &Path, program: &str) -> bool {
    fs::read_link(process.join("exe")).is_ok_and(|path| path.file_name().is_some_and(|name| name == program))
}

/// The process that runs this program and was given the socket that another one listens at.
fn started_for(socket: &Path, program: &str) -> Option<PathBuf> {
    const LISTENS: &str = "00010000";
    let sockets = fs::read_to_string("/proc/net/unix").ok()?;
    let listening = sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut listening = listening.filter(|line| line.get(3) == Some(&LISTENS) && line.get(7).is_some_and(|path| socket == Path::new(path)));
    let held = format!("socket:[{}]", listening.next()?.get(6)?);
    let processes = fs::read_dir("/proc").ok()?.flatten().map(|entry| entry.path());
    let has_it = |process: &PathBuf| {
        let open = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        open.filter_map(|open| fs::read_link(open.path()).ok()).any(|open| open == Path::new(&held))
    };
    processes.filter(|process| runs(process, program)).find(has_it)
}

/// As much of a program's file as tells its processor.
const HEAD: usize = 20;

/// The processor in the head of an ELF file ([elf(5)](https://man7.org/linux/man-pages/man5/elf.5.html), `e_ident` and `e_machine`), as
/// far as one number and one order of bytes are one architecture of Go's.
fn built_for(head: &[u8; HEAD]) -> Option<&'static str> {
    const LITTLE: u8 = 1;
    let (bits, order) = (head[4], head[5]);
    if !head.starts_with(b"\x7fELF") || order != LITTLE {
        return None;
    }
    match (bits, u16::from_le_bytes([head[18], head[19]])) {
        (2, 62) => Some("amd64"),
        (2, 183) => Some("arm64"),
        (1, 3) => Some("386"),
        (1, 40) => Some("arm"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_tells_its_processor() {
        let head = |bits: u8, order: u8, machine: u8| {
            let mut head = [0; HEAD];
            head[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', bits, order]);
            head[18] = machine;
            head
        };
        let table = [
            (head(2, 1, 62), Some("amd64")),
            (head(2, 1, 183), Some("arm64")),
            (head(1, 1, 3), Some("386")),
            (head(1, 1, 40), Some("arm")),
            // x32, whose programs Go does not build; big-endian arm64; RISC-V; no program at all.
            (head(1, 1, 62), None),
            (head(2, 2, 183), None),
            (head(2, 1, 243), None),
            ([0; HEAD], None),
        ];
        for (head, architecture) in table {
            assert_eq!(built_for(&head), architecture, "{head:?}");
        }
    }

    #[tokio::test]
    async fn only_the_program_that_listens_is_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        assert_eq!(architecture(&socket, "podman").await, None, "nobody listens");
        let _listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let this = std::env::current_exe().unwrap();
        let name = this.file_name().unwrap().to_str().unwrap();
        let built = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        assert_eq!(architecture(&socket, name).await, Some(built));
        assert_eq!(architecture(&socket, "podman").await, None, "another program may be a door to another machine");

        assert!(started_for(&socket, name).is_some());
        assert_eq!(started_for(&socket, "podman"), None);
        assert_eq!(started_for(Path::new("/nowhere"), name), None);
    }
}
