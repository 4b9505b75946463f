//! Where a list goes on: the header `Link` ([RFC 8288, 3](https://www.rfc-editor.org/rfc/rfc8288#section-3)).
//!
//! Always true: what is followed lies at the origin that was asked, by the same scheme, since credentials go there. What is read is
//! bounded, and a header that cannot be read is a failure rather than an end: what it would have led to is missing from the list.

use reqwest::Url;
use reqwest::header::{HeaderMap, LINK};

use super::challenge::unquoted;

/// More than any registry sends.
const HEADERS: usize = 8;
const LENGTH: usize = 16 << 10;
const PARAMETERS: usize = 16;

/// There is a header, and it does not say where the list goes on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Lost;

/// The next page of what came from this place; none if there is none.
pub(super) fn next(headers: &HeaderMap, from: &Url) -> Result<Option<Url>, Lost> {
    let mut links = headers.get_all(LINK).iter();
    for text in links.by_ref().take(HEADERS) {
        let text = text.to_str().map_err(|_| Lost)?;
        if let Some(target) = target(text)? {
            return place(target, from).map(Some).ok_or(Lost);
        }
    }
    if links.next().is_some() { Err(Lost) } else { Ok(None) }
}

/// What a target means as seen from there, if it may be asked.
fn place(target: &str, from: &Url) -> Option<Url> {
    let mut next = from.join(target).ok()?;
    next.set_fragment(None);
    let own = next.origin() == from.origin() && next.username().is_empty() && next.password().is_none();
    // A mirror that serves several registries wants to be told which; few of them repeat it.
    let named = |url: &Url| url.query_pairs().find(|(key, _)| key == "ns").map(|(_, ns)| ns.into_owned());
    if let (Some(ns), None) = (named(from), named(&next)) {
        next.query_pairs_mut().append_pair("ns", &ns);
    }
    own.then_some(next)
}

/// The target of the first link in a header that is the next one.
fn target(text: &str) -> Result<Option<&str>, Lost> {
    if text.len() > LENGTH {
        return Err(Lost);
    }
    let mut rest = text;
    loop {
        // A list may have empty elements.
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            return Ok(None);
        }
        let (target, after) = rest.strip_prefix('<').and_then(|rest| rest.split_once('>')).ok_or(Lost)?;
        let (is_next, after) = parameters(after)?;
        if is_next {
            return Ok(Some(target));
        }
        rest = after;
    }
}

/// Whether these parameters make it the next link, and what stands behind them.
fn parameters(text: &str) -> Result<(bool, &str), Lost> {
    let (mut rest, mut relation) = (space(text), None);
    for _ in 0..PARAMETERS {
        let Some(after) = rest.strip_prefix(';') else { break };
        let (name, after) = token(space(after));
        let (value, after) = match space(after).strip_prefix('=') {
            Some(value) => self::value(space(value))?,
            None => (String::new(), after),
        };
        // Of several relations the first counts (RFC 8288, 3.3).
        if name.eq_ignore_ascii_case("rel") && relation.is_none() {
            relation = Some(value);
        }
        rest = space(after);
    }
    let is_next = relation.is_some_and(|names| names.split(' ').any(|name| name.eq_ignore_ascii_case("next")));
    if rest.is_empty() || rest.starts_with(',') { Ok((is_next, rest)) } else { Err(Lost) }
}

/// A token, or what is quoted.
fn value(text: &str) -> Result<(String, &str), Lost> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, rest) = token(text);
        return Ok((value.to_owned(), rest));
    };
    unquoted(quoted).ok_or(Lost)
}

fn token(text: &str) -> (&str, &str) {
    // Some do not quote what they should, such as a media type.
    text.split_at(text.find(|c: char| !c.is_ascii_graphic() || ";,=\"<>".contains(c)).unwrap_or(text.len()))
}

fn space(text: &str) -> &str {
    text.trim_start_matches([' ', '\t'])
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: &str = "https://r.example/v2/team/app/referrers/sha256:aa?n=2";

    type Followed = Result<Option<String>, Lost>;

    fn follow(from: &str, texts: &[&str]) -> Followed {
        let mut headers = HeaderMap::new();
        for text in texts {
            headers.append(LINK, text.parse().unwrap());
        }
        next(&headers, &Url::parse(from).unwrap()).map(|next| next.map(String::from))
    }

    #[test]
    fn links_are_read_as_registries_write_them() {
        let to = |url: &str| Ok(Some(url.to_owned()));
        let page = "https://r.example/v2/team/app/referrers/sha256:aa?last=x&n=2";
        let cases: [(&[&str], Followed); 17] = [
            (&[], Ok(None)),
            (&[""], Ok(None)),
            (&[r#"</v2/team/app/referrers/sha256:aa?last=x&n=2>; rel="next""#], to(page)),
            (&["<https://r.example/v2/team/app/referrers/sha256:aa?last=x&n=2>;rel=next"], to(page)),
            (&["<?last=x&n=2>; rel=next"], to(page)),
            (&["<sha256:bb?n=2>; rel=next"], Err(Lost)),
            (&["<./sha256:bb>; rel=next"], to("https://r.example/v2/team/app/referrers/sha256:bb")),
            (&[r#"</a>; rel="prev", </b>; title="a, \"b\"; rel=next"; REL = "first NEXT", </c>; rel=next"#], to("https://r.example/b")),
            (&["</a>; rel=prev", ", ,</b> ; rel=next ,"], to("https://r.example/b")),
            (&["</a>; rel=prev; rel=next"], Ok(None)),
            (&["</a>; rel=nextish, </b>; rel=\"next-page\""], Ok(None)),
            (&["</a>; title; type=text/html; rel=next"], to("https://r.example/a")),
            (&["</a,b;c>; rel=next"], to("https://r.example/a,b;c")),
            (&["</a#part>; rel=next"], to("https://r.example/a")),
            (&["<http://[>; rel=next"], Err(Lost)),
            (&["</a>"], Ok(None)),
            (&["<>; rel=next"], to(FROM)),
        ];
        for (texts, expected) in cases {
            assert_eq!(follow(FROM, texts), expected, "{texts:?}");
        }
    }

    #[test]
    fn nothing_is_followed_to_another_origin() {
        for target in [
            "http://r.example/a",
            "https://r.example:444/a",
            "https://evil.example/a",
            "//evil.example/a",
            "/\\evil.example/a",
            "\\\\evil.example\\a",
            "https://r.example@evil.example/a",
            "https://me:secret@r.example/a",
            "file:///etc/passwd",
            "data:,x",
        ] {
            assert_eq!(follow(FROM, &[&format!("<{target}>; rel=next")]), Err(Lost), "{target}");
        }
        assert_eq!(follow(FROM, &["</\tevil.example/a>; rel=next"]), Ok(Some("https://r.example/evil.example/a".into())));
    }

    #[test]
    fn what_cannot_be_read_is_no_end_of_the_list() {
        for text in [
            "x",
            "</a; rel=next",
            "</a> rel=next",
            "</a>; rel=\"next",
            "</a>; rel=\"next\\",
            "</a>; rel=prev </b>; rel=next",
            "</a>; rel=a b",
        ] {
            assert_eq!(follow(FROM, &[text]), Err(Lost), "{text}");
        }
        let many: String = (0..PARAMETERS).map(|n| format!("; p{n}=1")).collect();
        assert_eq!(follow(FROM, &[&format!("</a>{many}; rel=next")]), Err(Lost));
        assert_eq!(follow(FROM, &[&format!("</{}>; rel=next", "a".repeat(LENGTH))]), Err(Lost));
        assert_eq!(follow(FROM, &["</a>; rel=prev"; HEADERS]), Ok(None));
        assert_eq!(follow(FROM, &["</a>; rel=prev"; HEADERS + 1]), Err(Lost));
    }

    #[test]
    fn a_mirror_of_several_registries_is_told_which() {
        let from = format!("{FROM}&ns=docker.io");
        assert_eq!(follow(&from, &["</a?last=x>; rel=next"]), Ok(Some("https://r.example/a?last=x&ns=docker.io".into())));
        assert_eq!(follow(&from, &["</a?ns=quay.io>; rel=next"]), Ok(Some("https://r.example/a?ns=quay.io".into())));
    }

    proptest::proptest! {
        #[test]
        fn any_header_is_read_without_a_panic(text in "\\PC{0,300}") {
            let _ = target(&text);
        }
    }
}
