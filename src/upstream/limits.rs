//! How much a registry grants to whom, in the headers of Docker Hub, which others have taken over
//! ([Docker Hub, pull usage and limits](https://docs.docker.com/docker-hub/usage/pulls/)).

use std::time::Duration;

use super::body::Answer;
use super::error::UpstreamError;
use super::shown::{Said, ShownUrl, plain};

/// Longer than any account's number or address.
const LONGEST: usize = 60;

/// What a registry grants, as it says it itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// How much, such as `100;w=21600`: a hundred in six hours.
    pub limit: Option<String>,
    /// How much of that is left.
    pub remaining: Option<String>,
    /// For whom it is counted: an address, or an account's number.
    pub source: Option<String>,
}

impl Limits {
    /// What an answer says of them, if it says anything.
    pub(super) fn of(answer: &Answer) -> Option<Box<Limits>> {
        let read = |name| answer.header(name).map(|v| plain(v, LONGEST)).filter(|v| !v.is_empty());
        let limits =
            Limits { limit: read("ratelimit-limit"), remaining: read("ratelimit-remaining"), source: read("docker-ratelimit-source") };
        (limits.limit.is_some() || limits.remaining.is_some()).then(|| Box::new(limits))
    }

    /// How many pulls are granted, and in which time, if it is said.
    pub fn granted(&self) -> Option<(u64, Option<Duration>)> {
        quota(self.limit.as_deref()?)
    }

    /// How many are left.
    pub fn left(&self) -> Option<u64> {
        quota(self.remaining.as_deref()?).map(|(left, _)| left)
    }

    /// Whether nothing is left.
    pub fn used_up(&self) -> bool {
        self.left() == Some(0)
    }

    /// When at the latest some are granted again: no pull is counted for longer than the time in which they are.
    pub fn at_the_latest(&self) -> Option<Duration> {
        let window = |text: &Option<String>| quota(text.as_deref()?)?.1;
        window(&self.remaining).or_else(|| window(&self.limit))
    }
}

impl UpstreamError {
    /// Whether the pulls that a registry grants are used up, which no second try changes.
    pub fn is_pull_limit(&self) -> bool {
        match self {
            UpstreamError::TooManyRequests { limits, said, .. } => is_pull_limit(limits.as_deref(), said.as_deref()),
            _ => false,
        }
    }
}

fn is_pull_limit(limits: Option<&Limits>, said: Option<&Said>) -> bool {
    limits.is_some_and(Limits::used_up) || said.is_some_and(|said| said.message.to_ascii_lowercase().contains("pull rate limit"))
}

/// What status 429 says, in words.
pub(super) fn too_many(url: &ShownUrl, limits: Option<&Limits>, said: Option<&Said>) -> String {
    let hub = url.as_str().starts_with("https://registry-1.docker.io/") || limits.is_some_and(|limits| limits.source.is_some());
    match (is_pull_limit(limits, said), hub) {
        (false, _) => format!("{url} was asked too often"),
        (true, true) => format!("the pull limit of Docker Hub is used up: {url}"),
        (true, false) => format!("the pulls that the registry grants are used up: {url}"),
    }
}

/// A number and the seconds that it is for: `100;w=21600`.
fn quota(text: &str) -> Option<(u64, Option<Duration>)> {
    let number = |text: &str| text.trim().bytes().all(|b| b.is_ascii_digit()).then(|| text.trim().parse().ok()).flatten();
    let mut parts = text.split(';');
    let amount = number(parts.next()?)?;
    let window = parts.find_map(|part| number(part.trim().strip_prefix("w=")?));
    Some((amount, window.map(Duration::from_secs)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_granted_is_read_with_and_without_its_time() {
        let cases = [
            ("100;w=21600", Some((100, Some(21600)))),
            ("0;w=21600", Some((0, Some(21600)))),
            (" 7 ; x=1; w=60 ", Some((7, Some(60)))),
            ("200", Some((200, None))),
            ("200;w=", Some((200, None))),
            ("200;w=-5", Some((200, None))),
            ("", None),
            ("-1;w=5", None),
            ("many", None),
            ("99999999999999999999", None),
        ];
        for (text, expected) in cases {
            assert_eq!(quota(text), expected.map(|(n, s)| (n, s.map(Duration::from_secs))), "{text}");
        }
    }
}
