//! A place of its own for the command: home, store and `PATH` under a temporary folder, and no environment but that.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// A home, a store and an environment that nothing else uses. Gone when it is dropped.
pub struct Sandbox {
    root: TempDir,
    program: PathBuf,
    environment: Vec<(String, String)>,
}

/// What the command said and how it ended. Whoever runs it looks at it.
#[must_use = "look at how the command ended and what it said"]
#[derive(Debug, Clone)]
pub struct Output {
    /// The command as a person would type it.
    pub command: String,
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it printed for programs.
    pub stdout: String,
    /// What it printed for people.
    pub stderr: String,
    /// How long it ran.
    pub took: Duration,
}

impl Sandbox {
    /// A sandbox for the `larder` that was built with these tests.
    pub fn new() -> Sandbox {
        // Cargo names it to integration tests only, and this file is also part of xtask.
        let Some(program) = option_env!("CARGO_BIN_EXE_larder") else { panic!("no `larder` was built with this program") };
        Sandbox::of(program)
    }

    /// A sandbox for another build of the command.
    pub fn of(program: impl Into<PathBuf>) -> Sandbox {
        Sandbox::under(&std::env::temp_dir(), program)
    }

    /// The same in memory, where there is such a place: for very many files whose way to the disk does not matter.
    pub fn in_memory(self) -> Sandbox {
        let memory = Path::new("/dev/shm");
        if memory.is_dir() { Sandbox::under(memory, self.program) } else { self }
    }

    fn under(folder: &Path, program: impl Into<PathBuf>) -> Sandbox {
        let root = tempfile::tempdir_in(folder).expect("a temporary folder can be made");
        for folder in ["home", "run", "tmp"] {
            std::fs::create_dir(root.path().join(folder)).expect("a new folder is empty");
        }
        Sandbox { root, program: program.into(), environment: Vec::new() }
    }

    /// Sets a variable for every later run, such as `DOCKER_HOST`.
    pub fn set(&mut self, name: &str, value: impl Into<String>) -> &mut Sandbox {
        let value = value.into();
        self.environment.retain(|(n, _)| n != name);
        self.environment.push((name.to_owned(), value));
        self
    }

    /// The folder that all of it lies under.
    pub fn path(&self) -> &Path {
        self.root.path()
    }

    /// The home folder.
    pub fn home(&self) -> PathBuf {
        self.path().join("home")
    }

    /// Where the system's settings of registries are looked for.
    pub fn etc(&self) -> PathBuf {
        self.path().join("etc")
    }

    /// Where the store is, once something was pulled.
    pub fn store(&self) -> PathBuf {
        let elsewhere = self.environment.iter().find(|(name, _)| name == "LARDER_DIR");
        elsewhere.map_or_else(|| self.home().join(".local/share/larder"), |(_, folder)| folder.into())
    }

    /// Runs the command to its end.
    pub fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Output {
        finish(self.command(), arguments)
    }

    /// Runs the command to its end as another user, which needs root.
    pub fn run_as<S: AsRef<OsStr>>(&self, user: u32, arguments: impl IntoIterator<Item = S>) -> Output {
        let mut command = self.command();
        command.uid(user).gid(user);
        finish(command, arguments)
    }

    /// The command with the sandbox's environment, for tests that watch it or end it halfway.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            .env("HOME", self.home())
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("TMPDIR", self.path().join("tmp"))
            .env("XDG_RUNTIME_DIR", self.path().join("run"))
            .env("LARDER_ETC", self.etc())
            .current_dir(self.home());
        for (name, value) in &self.environment {
            command.env(name, value);
        }
        command
    }
}

fn finish<S: AsRef<OsStr>>(mut larder: Command, arguments: impl IntoIterator<Item = S>) -> Output {
    let arguments: Vec<_> = arguments.into_iter().map(|a| a.as_ref().to_owned()).collect();
    let shown: Vec<_> = arguments.iter().map(|a| a.to_string_lossy()).collect();
    let command = format!("larder {}", shown.join(" "));
    let started = Instant::now();
    let output = larder.args(&arguments).stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{command}: {e}"));
    Output {
        command,
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        took: started.elapsed(),
    }
}

impl Default for Sandbox {
    fn default() -> Sandbox {
        Sandbox::new()
    }
}

impl Output {
    /// Says everything and fails unless the command ended with this code.
    #[track_caller]
    pub fn expect(self, code: i32) -> Output {
        assert!(self.code == Some(code), "expected exit code {code} from\n{self}");
        self
    }

    /// The objects on standard output, one for each line, as `--json` prints them.
    #[track_caller]
    pub fn json(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("`{line}` is no JSON: {e}\n{self}"))).collect()
    }

    /// The only object on standard output.
    #[track_caller]
    pub fn one_json(&self) -> Value {
        let mut objects = self.json();
        assert!(objects.len() == 1, "expected one object from\n{self}");
        objects.remove(0)
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "$ {}   (exit code {:?}, {:?})", self.command, self.code, self.took)?;
        write!(f, "--- stdout\n{}--- stderr\n{}---", self.stdout, self.stderr)
    }
}
