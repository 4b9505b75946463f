//! How a registry asks who is there: the header `WWW-Authenticate`.
//!
//! One answer may have several of these headers, and one header several challenges, parted by the commas that also part
//! their parameters ([RFC 9110, 11.6.1](https://www.rfc-editor.org/rfc/rfc9110#field.www-authenticate)). What is read is
//! bounded; what is malformed ends the header, and what stood before it counts.

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// More than any registry sends.
const HEADERS: usize = 8;
const LENGTH: usize = 16 << 10;
const CHALLENGES: usize = 16;
const PARAMETERS: usize = 16;

/// A way to say who asks, one that larder knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User and password with each request.
    Basic,
    /// A token from another server.
    Bearer {
        /// Where the token is to be had.
        realm: String,
        /// Whom it is for.
        service: Option<String>,
        /// What it is to allow.
        scope: Option<String>,
    },
}

impl Challenge {
    /// The best of the ways that an answer offers: a token before a password.
    pub(super) fn choose(headers: &HeaderMap) -> Option<Challenge> {
        let texts = headers.get_all(WWW_AUTHENTICATE).iter().take(HEADERS).filter_map(|h| h.to_str().ok());
        let known: Vec<Challenge> = texts.flat_map(parse).filter_map(Raw::known).collect();
        let token = known.iter().find(|c| matches!(c, Challenge::Bearer { .. }));
        token.or(known.first()).cloned()
    }
}

/// A scheme and its parameters, names in lower case.
#[derive(Debug, PartialEq, Eq)]
struct Raw {
    scheme: String,
    parameters: Vec<(String, String)>,
}

impl Raw {
    fn known(mut self) -> Option<Challenge> {
        let mut take = |name: &str| {
            let at = self.parameters.iter().position(|(n, _)| n == name)?;
            Some(self.parameters.swap_remove(at).1)
        };
        match self.scheme.as_str() {
            "basic" => Some(Challenge::Basic),
            "bearer" => Some(Challenge::Bearer { realm: take("realm")?, service: take("service"), scope: take("scope") }),
            _ => None,
        }
    }
}

fn parse(text: &str) -> Vec<Raw> {
    let mut found: Vec<Raw> = Vec::new();
    if text.len() > LENGTH {
        return found;
    }
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (word, after) = split_token(rest);
        if word.is_empty() {
            return found;
        }
        let spaced = after.trim_start_matches([' ', '\t']);
        let full = found.len() == CHALLENGES;
        match (spaced.strip_prefix('='), found.last_mut()) {
            (Some(value), Some(challenge)) => {
                let Some((value, after)) = split_value(value.trim_start_matches([' ', '\t'])) else { return found };
                let name = word.to_ascii_lowercase();
                // The first of two with one name counts.
                if challenge.parameters.len() < PARAMETERS && challenge.parameters.iter().all(|(n, _)| *n != name) {
                    challenge.parameters.push((name, value));
                }
                rest = after;
            }
            (Some(_), None) => return found,
            (None, _) if full => return found,
            (None, _) => {
                found.push(Raw { scheme: word.to_ascii_lowercase(), parameters: Vec::new() });
                rest = after;
            }
        }
    }
}

fn split_token(text: &str) -> (&str, &str) {
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    text.split_at(text.find(|c| !token(c)).unwrap_or(text.len()))
}

/// A quoted text or what stands before the next comma or space; none if the quotation has no end.
fn split_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, rest) = text.split_at(text.find([',', ' ', '\t']).unwrap_or(text.len()));
        return Some((value.to_owned(), rest));
    };
    unquoted(quoted)
}

/// What stands in a quoted text, of which the first quotation mark is gone, and what stands behind it; none if it has no end
/// ([RFC 9110, 5.6.4](https://www.rfc-editor.org/rfc/rfc9110#section-5.6.4)).
pub(super) fn unquoted(quoted: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(texts: &[&str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for text in texts {
            headers.append(WWW_AUTHENTICATE, text.parse().unwrap());
        }
        Challenge::choose(&headers)
    }

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Option<Challenge> {
        Some(Challenge::Bearer { realm: realm.into(), service: service.map(Into::into), scope: scope.map(Into::into) })
    }

    #[test]
    fn challenges_are_read_as_registries_write_them() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull""#;
        let cases: [(&[&str], Option<Challenge>); 17] = [
            (&[hub], bearer("https://auth.docker.io/token", Some("registry.docker.io"), Some("repository:a/b:pull"))),
            (&["bearer REALM=https://h/t , Service = x"], bearer("https://h/t", Some("x"), None)),
            (
                &[r#"Bearer realm="https://h/t",scope="repository:a:pull,push repository:b:pull""#],
                bearer("https://h/t", None, Some("repository:a:pull,push repository:b:pull")),
            ),
            (&[r#"Basic realm="a, Bearer realm=\"https://evil/\", x", Bearer realm="https://h/t""#], bearer("https://h/t", None, None)),
            (&[r#"Negotiate, Basic realm="r""#], Some(Challenge::Basic)),
            (&["Negotiate YWJj==, Basic"], Some(Challenge::Basic)),
            (&["Basic", hub], bearer("https://auth.docker.io/token", Some("registry.docker.io"), Some("repository:a/b:pull"))),
            (&[r#"Bearer realm="a\"b\\c""#], bearer("a\"b\\c", None, None)),
            (&[r#",, ,Bearer  realm="r",,,service="s",,"#], bearer("r", Some("s"), None)),
            (&[r#"Bearer realm="one",realm="two""#], bearer("one", None, None)),
            (&["Bearer service=x"], None),
            (&[r#"Bearer realm="no end"#], None),
            (&[r#"Bearer realm="no end\"#], None),
            (&["=x, Bearer realm=r"], None),
            (&["Digest realm=r"], None),
            (&[""], None),
            (&[], None),
        ];
        for (texts, expected) in cases {
            assert_eq!(choose(texts), expected, "{texts:?}");
        }
    }

    #[test]
    fn a_hostile_header_costs_little() {
        let many = format!("Bearer {}realm=r", "a=b,".repeat(100_000));
        assert_eq!(choose(&[&many]), None);
        let wide = format!("Bearer realm=r,{}", (0..3000).map(|n| format!("p{n}=1,")).collect::<String>());
        assert_eq!(choose(&[&wide[..LENGTH]]), bearer("r", None, None));
        assert!(parse(&"x ".repeat(LENGTH / 2)).len() <= CHALLENGES);
    }

    proptest::proptest! {
        #[test]
        fn any_header_is_read_without_a_panic(text in "\\PC{0,300}") {
            parse(&text);
        }

        #[test]
        fn what_is_quoted_comes_back(value in "[ -~]{0,60}") {
            let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
            proptest::prop_assert_eq!(choose(&[&format!("Basic, Bearer realm=\"{quoted}\", service=s")]), bearer(&value, Some("s"), None));
        }
    }
}
