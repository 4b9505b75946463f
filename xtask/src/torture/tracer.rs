//! Runs a program and meddles with one of its system calls: the n-th of a kind that concerns a folder.
//!
//! It counts over all threads of the program, which `strace` does not, so that every call of a run can be met; and a short
//! write is one: the kernel writes less, where `strace` would only say so. It knows the registers of x86-64.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::run::Result;

/// No run of these small images takes that long: a program that does has hung.
const DEADLINE: Duration = Duration::from_secs(60);

/// Where a call says which file it is about.
#[derive(Clone, Copy)]
enum About {
    /// The descriptor in this argument.
    Descriptor(usize),
    /// The path in this argument, from the folder in the one before it.
    Path(usize),
    /// The path in the first argument.
    First,
}

/// The calls that are counted: those by which Rust's library and rustix read and change files.
const CALLS: &[(i64, &str, About)] = &[
    (libc::SYS_openat, "openat", About::Path(1)),
    (libc::SYS_mkdirat, "mkdirat", About::Path(1)),
    (libc::SYS_unlinkat, "unlinkat", About::Path(1)),
    (libc::SYS_renameat2, "renameat2", About::Path(1)),
    (libc::SYS_linkat, "linkat", About::Path(1)),
    (libc::SYS_utimensat, "utimensat", About::Path(1)),
    (libc::SYS_statx, "statx", About::Path(1)),
    (libc::SYS_statfs, "statfs", About::First),
    (libc::SYS_read, "read", About::Descriptor(0)),
    (libc::SYS_pread64, "pread64", About::Descriptor(0)),
    (libc::SYS_getdents64, "getdents64", About::Descriptor(0)),
    (libc::SYS_write, "write", About::Descriptor(0)),
    (libc::SYS_writev, "writev", About::Descriptor(0)),
    (libc::SYS_pwrite64, "pwrite64", About::Descriptor(0)),
    (libc::SYS_copy_file_range, "copy_file_range", About::Descriptor(2)),
    (libc::SYS_fallocate, "fallocate", About::Descriptor(0)),
    (libc::SYS_ftruncate, "ftruncate", About::Descriptor(0)),
    (libc::SYS_fsync, "fsync", About::Descriptor(0)),
    (libc::SYS_fdatasync, "fdatasync", About::Descriptor(0)),
    (libc::SYS_syncfs, "syncfs", About::Descriptor(0)),
    (libc::SYS_sync_file_range, "sync_file_range", About::Descriptor(0)),
    (libc::SYS_fchmod, "fchmod", About::Descriptor(0)),
    (libc::SYS_flock, "flock", About::Descriptor(0)),
    (libc::SYS_close, "close", About::Descriptor(0)),
    (libc::SYS_mkdir, "mkdir", About::First),
    (libc::SYS_rmdir, "rmdir", About::First),
    (libc::SYS_unlink, "unlink", About::First),
    (libc::SYS_rename, "rename", About::First),
    (libc::SYS_link, "link", About::First),
    (libc::SYS_chmod, "chmod", About::First),
];

/// What is done to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meddling {
    /// The program is killed before it.
    Kill,
    /// It is not made, and fails with this.
    Fail(Errno),
    /// It moves one byte only.
    Short,
}

/// Which call is meddled with, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct Point {
    pub(super) call: &'static str,
    /// From 1 on.
    pub(super) nth: usize,
    pub(super) meddling: Meddling,
}

/// How a run ended.
pub(super) struct Traced {
    /// The exit code; `None` when a signal ended it.
    pub(super) code: Option<i32>,
    /// Whether it hung and had to be ended.
    pub(super) hung: bool,
    pub(super) stderr: String,
    /// How many calls of each kind concerned the folder.
    pub(super) calls: BTreeMap<&'static str, usize>,
    /// Whether the point was reached; then the file that the call was about.
    pub(super) reached: Option<PathBuf>,
}

/// Runs a program to its end and meddles at one point, if there is one.
pub(super) fn run(command: &Command, folder: &Path, point: Option<Point>) -> Result<Traced> {
    let mut child = waiting(command)?;
    let program = Pid::from_raw(child.id().cast_signed());
    let mut trace = Trace { program, folder, point, threads: HashMap::new(), calls: BTreeMap::new(), reached: None };
    let (ended, end) = mpsc::channel::<()>();
    let (status, hung) = std::thread::scope(|scope| {
        let watch = scope.spawn(move || {
            let hung = end.recv_timeout(DEADLINE) == Err(mpsc::RecvTimeoutError::Timeout);
            if hung {
                let _ = kill(program, Signal::SIGKILL);
            }
            hung
        });
        let status = trace.follow(&mut child);
        drop(ended);
        (status, watch.join().unwrap_or(true))
    });
    let code = status?;
    let mut stderr = Vec::new();
    child.stderr.take().map(|mut pipe| pipe.read_to_end(&mut stderr)).transpose()?;
    let Trace { calls, reached, .. } = trace;
    Ok(Traced { code, hung, stderr: String::from_utf8_lossy(&stderr).into_owned(), calls, reached })
}

/// Starts a shell that becomes the program when it is told to.
fn waiting(command: &Command) -> Result<Child> {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "read -r _ && exec \"$@\"", "sh"]).arg(command.get_program()).args(command.get_args());
    shell.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(folder) = command.get_current_dir() {
        shell.current_dir(folder);
    }
    Ok(shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?)
}

/// A program that is being followed.
struct Trace<'a> {
    program: Pid,
    folder: &'a Path,
    point: Option<Point>,
    /// The threads whose current call is meddled with, and what it is to return.
    threads: HashMap<Pid, i64>,
    calls: BTreeMap<&'static str, usize>,
    reached: Option<PathBuf>,
}

impl Trace<'_> {
    /// Follows it to its end; its exit code.
    fn follow(&mut self, child: &mut Child) -> Result<Option<i32>> {
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_EXITKILL;
        ptrace::seize(self.program, options)?;
        ptrace::interrupt(self.program)?;
        child.stdin.take().map(|mut pipe| pipe.write_all(b"\n")).transpose()?;
        // Only this thread's own: other threads follow other programs.
        let ours = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        loop {
            let status = waitpid(Pid::from_raw(-1), Some(ours))?;
            let resumed = match status {
                WaitStatus::Exited(pid, code) if pid == self.program => return Ok(Some(code)),
                WaitStatus::Signaled(pid, ..) if pid == self.program => return Ok(None),
                WaitStatus::PtraceSyscall(pid) => {
                    self.stopped(pid).or_else(gone)?;
                    ptrace::syscall(pid, None)
                }
                WaitStatus::PtraceEvent(pid, ..) => ptrace::syscall(pid, None),
                WaitStatus::Stopped(pid, signal) => ptrace::syscall(pid, signal),
                _ => Ok(()),
            };
            resumed.or_else(gone)?;
        }
    }

    /// At the beginning or the end of a call.
    fn stopped(&mut self, pid: Pid) -> nix::Result<()> {
        if ptrace::syscall_info(pid)?.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
            let Some(result) = self.threads.remove(&pid) else { return Ok(()) };
            let mut registers = ptrace::getregs(pid)?;
            registers.rax = result.cast_unsigned();
            return ptrace::setregs(pid, registers);
        }
        let mut registers = ptrace::getregs(pid)?;
        let arguments = [registers.rdi, registers.rsi, registers.rdx];
        let Some((_, name, about)) = CALLS.iter().find(|(number, ..)| number.cast_unsigned() == registers.orig_rax) else { return Ok(()) };
        let Some(path) = subject(pid, *about, arguments).filter(|path| path.starts_with(self.folder)) else { return Ok(()) };
        // Linux never says that closing a folder failed, and Rust's library counts on that.
        let name = if *name == "close" && path.is_dir() { "close of a folder" } else { name };
        let count = self.calls.entry(name).or_default();
        *count += 1;
        let Some(point) = self.point.filter(|point| point.call == name && point.nth == *count) else { return Ok(()) };
        self.reached = Some(path);
        match point.meddling {
            Meddling::Kill => kill(self.program, Signal::SIGKILL),
            Meddling::Short => {
                registers.rdx = registers.rdx.min(1);
                ptrace::setregs(pid, registers)
            }
            Meddling::Fail(errno) => {
                // There is no such call, so nothing is done. A file is closed also where Linux says that closing it failed.
                if name != "close" {
                    registers.orig_rax = u64::MAX;
                }
                self.threads.insert(pid, -i64::from(errno as i32));
                ptrace::setregs(pid, registers)
            }
        }
    }
}

/// A thread that was killed meanwhile is no error.
fn gone(error: Errno) -> nix::Result<()> {
    if error == Errno::ESRCH { Ok(()) } else { Err(error) }
}

/// The file that a call is about.
fn subject(pid: Pid, about: About, arguments: [u64; 3]) -> Option<PathBuf> {
    let descriptor = |number: u64| std::fs::read_link(format!("/proc/{pid}/fd/{}", number as i32)).ok();
    match about {
        About::Descriptor(at) => descriptor(arguments[at]),
        About::First => text(pid, arguments[0]),
        About::Path(at) => {
            let path = text(pid, arguments[at])?;
            if path.is_absolute() { Some(path) } else { Some(descriptor(arguments[at - 1])?.join(path)) }
        }
    }
}

/// The text at an address of the program.
fn text(pid: Pid, address: u64) -> Option<PathBuf> {
    let mut bytes = vec![0; libc::PATH_MAX as usize];
    let read = File::open(format!("/proc/{pid}/mem")).ok()?.read_at(&mut bytes, address).ok()?;
    let end = bytes[..read].iter().position(|b| *b == 0)?;
    bytes.truncate(end);
    Some(String::from_utf8(bytes).ok()?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a shell that writes a file, with one of its calls meddled with.
    fn write_file(folder: &Path, point: Option<Point>) -> Traced {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "echo written > \"$0/file\""]).arg(folder);
        run(&command, folder, point).unwrap()
    }

    #[test]
    fn the_call_that_is_meant_is_met() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        let file = folder.join("file");
        let at = |call, nth, meddling| Some(Point { call, nth, meddling });

        let failed = write_file(&folder, at("openat", 1, Meddling::Fail(Errno::EIO)));
        assert!(failed.code != Some(0) && failed.reached.as_deref() == Some(&file) && !file.exists(), "{}", failed.stderr);
        let killed = write_file(&folder, at("write", 1, Meddling::Kill));
        assert!(killed.code.is_none() && killed.reached.as_deref() == Some(&file));
        assert_eq!(std::fs::read(&file).unwrap(), b"");
        write_file(&folder, at("write", 1, Meddling::Short));
        assert_eq!(std::fs::read(&file).unwrap()[..1], b"w"[..]);

        let whole = write_file(&folder, at("write", 2, Meddling::Kill));
        assert!(whole.code == Some(0) && whole.reached.is_none());
        assert_eq!((whole.calls["openat"], whole.calls["write"]), (1, 1));
    }
}
