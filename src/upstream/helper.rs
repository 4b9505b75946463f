//! Credential helpers: small programs that keep secrets for docker and podman.
//!
//! The protocol is that of [docker-credential-helpers](https://github.com/docker/docker-credential-helpers): the word
//! `get`, the server on stdin, JSON on stdout. What a helper writes is secret and never gets into an error.

use std::io::ErrorKind;
use std::process::Stdio;

use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use super::Settings;
use super::credentials::{Credential, CredentialsError, Secret};
use crate::json;

type Result<T> = std::result::Result<T, CredentialsError>;

/// More than any helper has to say.
const LIMIT: u64 = 64 << 10;

/// What helpers write when they have nothing for a server.
const NOTHING: [&str; 2] = ["credentials not found in native keychain", "credentials not found"];

/// The user name that marks a secret as one that is to be exchanged for a token.
const TOKEN_USER: &str = "<token>";

/// The program for a helper's name, unless the name could lead elsewhere.
pub(super) fn program(name: &str) -> Option<String> {
    let word = name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    (word && !name.is_empty()).then(|| format!("docker-credential-{name}"))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Reply {
    #[serde(default)]
    username: String,
    secret: Secret,
}

/// What the helper has for this server; none if it has nothing.
pub(super) async fn ask(settings: &Settings, program: &str, server: &str) -> Result<Option<Credential>> {
    let run = run(settings, program, server);
    match tokio::time::timeout(settings.helper_timeout, run).await {
        Ok(answer) => answer,
        Err(_) => Err(CredentialsError::HelperTimeout { program: program.to_owned(), after: settings.helper_timeout }),
    }
}

async fn run(settings: &Settings, program: &str, server: &str) -> Result<Option<Credential>> {
    let failed = |source| CredentialsError::HelperStart { program: program.to_owned(), source };
    let mut child = start(settings, program).map_err(failed)?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let tell = async {
        // One that does not want to hear it ends by itself; its status says whether that was a failure.
        if let Some(mut stdin) = stdin {
            let _ = stdin.write_all(server.as_bytes()).await;
        }
    };
    let mut text = Vec::new();
    let hear = async {
        match stdout {
            Some(stdout) => stdout.take(LIMIT).read_to_end(&mut text).await.map(drop),
            None => Ok(()),
        }
    };
    let ((), heard) = tokio::join!(tell, hear);
    heard.map_err(failed)?;
    let status = child.wait().await.map_err(failed)?;
    if !status.success() {
        let said = String::from_utf8_lossy(&text);
        let nothing = NOTHING.iter().any(|n| said.trim().starts_with(n));
        return if nothing { Ok(None) } else { Err(CredentialsError::HelperFailed { program: program.to_owned(), status }) };
    }
    let unreadable = |_| CredentialsError::HelperAnswer { program: program.to_owned() };
    let reply: Reply = json::parse(&text, &["ServerURL", "Username", "Secret"]).map_err(unreadable)?;
    Ok(Some(match reply.username.as_str() {
        TOKEN_USER => Credential::Identity(reply.secret),
        _ => Credential::Basic { username: reply.username, password: reply.secret },
    }))
}

/// Starts the helper from the folders in the settings, else from the search path.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
fn start(settings: &Settings, program: &str) -> std::io::Result<Child> {
    let places = settings.helper_folders.iter().map(|f| f.join(program)).chain([program.into()]);
    for place in places {
        let mut command = Command::new(place);
        command.arg("get").env("LC_ALL", "C").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        match command.spawn() {
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            started => return started,
        }
    }
    Err(ErrorKind::NotFound.into())
}
