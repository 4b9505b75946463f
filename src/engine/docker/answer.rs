//! What docker says of a load: a stream of JSON objects, one on a line.

use hyper::StatusCode;
use serde::Deserialize;

use crate::engine::wire::{self, Reply};
use crate::json;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Said {
    error: Option<String>,
    error_detail: Option<Detail>,
    stream: Option<String>,
    id: Option<String>,
    progress_detail: Option<Progress>,
}

#[derive(Deserialize)]
struct Detail {
    message: Option<String>,
}

#[derive(Deserialize)]
struct Progress {
    current: Option<u64>,
    total: Option<u64>,
}

/// How far docker is with a layer: what it calls the layer, how many of its bytes are unpacked, how many there are; if the line says that.
pub(super) fn progress(line: &str) -> Option<(String, u64, u64)> {
    let said: Said = json::read(line.as_bytes()).ok().filter(|said: &Said| said.error.is_none() && said.error_detail.is_none())?;
    let progress = said.progress_detail?;
    Some((said.id?, progress.current?, progress.total?))
}

/// Why docker did not load an image, if it says so: its status is 200 whatever happened.
pub(super) fn refusal(reply: &Reply) -> Option<String> {
    if reply.status != StatusCode::OK {
        return Some(format!("{}: {}", reply.status, reply.words()));
    }
    let mut answered = false;
    for said in serde_json::Deserializer::from_slice(&reply.body).into_iter::<json::Object<Said>>() {
        let Ok(json::Object(said)) = said else { return Some(reply.words()) };
        answered = true;
        let detail = said.error_detail.and_then(|d| d.message);
        // Docker 28 and later report a layer that could not be unpacked as if it were progress.
        let unpacking = said.stream.filter(|text| text.starts_with("Error unpacking image"));
        if let Some(said) = detail.or(said.error).or(unpacking) {
            return Some(wire::words(&said));
        }
    }
    (!answered).then(|| "its answer is empty".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_read_out_of_the_stream() {
        let table = [
            (200, "{\"stream\":\"Loaded image: redis:7\\n\"}\r\n", None),
            (
                200,
                "{\"status\":\"Loading layer\",\"progressDetail\":{\"current\":1,\"total\":2},\"id\":\"a\"}\r\n{\"stream\":\"Loaded image: x\"}",
                None,
            ),
            (
                200,
                "{\"stream\":\"Loaded image: x\"}\r\n{\"stream\":\"Error unpacking image x: no space left on device\\n\"}",
                Some("Error unpacking image x: no space left on device"),
            ),
            (200, "{\"errorDetail\":{\"message\":\"unexpected EOF\"},\"error\":\"short\"}\r\n", Some("unexpected EOF")),
            (200, "{\"error\":\"invalid\\u001b[0m tag\"}", Some("invalid [0m tag")),
            (200, "{\"stream\":\"Loaded image: x\"}\r\n{\"err", Some("{\"stream\":\"Loaded image: x\"}  {\"err")),
            (200, "", Some("its answer is empty")),
            (500, "{\"message\":\"no\"}", Some("500 Internal Server Error: no")),
        ];
        for (status, body, said) in table {
            let reply = Reply { status: StatusCode::from_u16(status).unwrap(), headers: hyper::HeaderMap::new(), body: body.into() };
            assert_eq!(refusal(&reply).as_deref(), said, "{body}");
        }
    }

    #[test]
    fn progress_is_told_from_everything_else() {
        let table = [
            (r#"{"status":"Loading layer","progressDetail":{"current":1,"total":2},"progress":"[>  ]","id":"a"}"#, Some(("a", 1, 2))),
            (r#"{"status":"Loading layer","progressDetail":{},"id":"a"}"#, None),
            (r#"{"error":"no","progressDetail":{"current":1,"total":2},"id":"a"}"#, None),
            (r#"{"stream":"Loaded image: x"}"#, None),
            ("", None),
            ("[]", None),
        ];
        for (line, expected) in table {
            assert_eq!(progress(line), expected.map(|(id, current, total)| (id.to_owned(), current, total)), "{line}");
        }
    }
}
