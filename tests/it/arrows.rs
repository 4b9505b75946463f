//! The house keeps to its plan: who may use whom, how long a file may be, how many crates there are.
//!
//! A room is a file or folder directly under `src/`. The table below is exact: a use that it does not allow fails, and
//! so does an allowance that nobody uses.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms from the ground up, and which of those above them in this list each one uses.
const PLAN: &[(&str, &[&str])] = &[
    ("digest", &[]),
    ("json", &[]),
    ("reference", &["digest"]),
    ("oci", &["digest", "json"]),
    ("event", &["digest", "reference"]),
    ("pin", &["digest", "oci", "reference"]),
    ("store", &["digest", "json", "oci", "pin", "reference"]),
    ("examine", &["digest", "oci", "store"]),
    ("plan", &["digest", "oci", "store"]),
    ("upstream", &["digest", "event", "json", "oci", "reference"]),
    ("archive", &["digest", "oci", "reference", "store"]),
    ("export", &["archive", "digest", "event", "oci", "pin", "reference", "store"]),
    ("pull", &["digest", "event", "oci", "pin", "plan", "reference", "store", "upstream"]),
    ("import", &["digest", "json", "oci", "pin", "plan", "pull", "reference", "store"]),
    ("engine", &["archive", "digest", "event", "json", "oci", "pin", "plan", "reference", "store"]),
    ("ensure", &["digest", "engine", "event", "oci", "pin", "plan", "pull", "reference", "store"]),
    ("deep", &["archive", "digest", "engine", "ensure", "examine", "oci", "pin", "pull", "store"]),
    ("fuzzing", &["digest", "import", "oci", "reference", "upstream"]),
    (
        "cli",
        &[
            "archive",
            "deep",
            "digest",
            "engine",
            "ensure",
            "event",
            "examine",
            "export",
            "import",
            "oci",
            "pin",
            "plan",
            "pull",
            "reference",
            "store",
            "upstream",
        ],
    ),
];

/// A file with more lines of code has a seam in it. Comments and unit tests do not count.
const LINES: usize = 400;

/// How many crates `Cargo.lock` may name. Whoever raises it says here what for.
///
/// 235: the command and the library with reqwest and rustls (about 150), tests and measurements.
/// 247: gRPC for containerd: tonic without its transport, prost, and h2 below hyper.
/// 255: the fuzzers: libFuzzer, and `fuzz` around it.
const CRATES: usize = 255;

#[test]
fn rooms_use_only_what_the_plan_allows() {
    let mut wrong = Vec::new();
    let found = uses();
    for (place, (room, allowed)) in PLAN.iter().enumerate() {
        let above: BTreeSet<_> = PLAN[..place].iter().map(|(name, _)| *name).collect();
        for name in *allowed {
            assert!(above.contains(name), "the plan lets `{room}` use `{name}`, which does not stand above it");
        }
        let allowed: BTreeSet<_> = allowed.iter().map(|n| (*n).to_owned()).collect();
        let Some(used) = found.get(*room) else {
            wrong.push(format!("`{room}` is in the plan and not in src/"));
            continue;
        };
        let used: BTreeSet<_> = used.keys().cloned().collect();
        if used != allowed {
            let line: Vec<_> = used.iter().map(|n| format!("{n:?}")).collect();
            let more: Vec<_> = used.difference(&allowed).map(|n| format!("{n} (in {})", found[*room][n].display())).collect();
            let less: Vec<_> = allowed.difference(&used).cloned().collect();
            wrong.push(format!(
                "`{room}` uses without leave: {}; has leave and does not use: {}\n    as it is: ({room:?}, &[{}]),",
                none_or(&more),
                none_or(&less),
                line.join(", ")
            ));
        }
    }
    let planned: BTreeSet<_> = PLAN.iter().map(|(name, _)| *name).collect();
    wrong.extend(found.keys().filter(|room| !planned.contains(room.as_str())).map(|room| format!("`{room}` is not in the plan")));
    assert!(wrong.is_empty(), "the house is not as planned:\n  {}", wrong.join("\n  "));
}

#[test]
fn the_library_does_not_know_the_command() {
    let library = code_of(&root().join("src/lib.rs"));
    assert!(!library.contains("mod cli"), "`cli` is declared in main.rs only");
    for (path, code) in sources("src") {
        assert!(!code.contains("feature = \"cli\""), "{}: the feature `cli` appears in Cargo.toml and in no cfg", path.display());
    }
}

#[test]
fn files_are_short_and_safe() {
    let mut wrong = Vec::new();
    for folder in ["fuzz/src", "src", "tests", "xtask/src"] {
        for (path, code) in sources(folder) {
            let lines = without_unit_tests(&code).lines().filter(|line| !line.trim().is_empty()).count();
            if lines > LINES {
                wrong.push(format!("{} has {lines} lines of code, more than {LINES}", path.display()));
            }
            if words(&code).any(|word| word == "unsafe") {
                wrong.push(format!("{} has unsafe code", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_number_of_crates_is_known() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let crates = lock.matches("\n[[package]]\n").count();
    assert!(crates <= CRATES, "Cargo.lock names {crates} crates, more than {CRATES}: use what is there, or raise the limit with a reason");
}

/// For each room, the rooms that it uses, and a file where it does.
fn uses() -> BTreeMap<String, BTreeMap<String, PathBuf>> {
    let files = sources("src");
    let rooms: BTreeSet<_> = files.iter().filter_map(|(path, _)| room_of(path)).collect();
    let mut found: BTreeMap<String, BTreeMap<String, PathBuf>> = rooms.iter().map(|r| (r.clone(), BTreeMap::new())).collect();
    for (path, code) in &files {
        let Some(room) = room_of(path) else { continue };
        let tokens: Vec<_> = tokens(code).collect();
        for used in named_after(&tokens, &["crate", "larder"]) {
            assert!(rooms.contains(&used), "{}: `{used}` is no room; name the room that a thing comes from", path.display());
            if used != room {
                found.get_mut(&room).unwrap().insert(used, path.clone());
            }
        }
        for used in named_after(&tokens, &["super"]) {
            let climbs = rooms.contains(&used) && used != room && !root().join("src").join(&room).join(format!("{used}.rs")).exists();
            assert!(!climbs, "{}: `super::{used}` leaves the room; write `crate::{used}`", path.display());
        }
    }
    found
}

/// The first name of every path that starts with one of the heads: `a` and `b` of `crate::{a::X, b::{Y, Z}}`.
fn named_after(tokens: &[&str], heads: &[&str]) -> Vec<String> {
    let mut names = Vec::new();
    for (at, window) in tokens.windows(3).enumerate() {
        let [head, "::", first] = *window else { continue };
        if !heads.contains(&head) || (at > 0 && tokens[at - 1] == "::") && head != "super" {
            continue;
        }
        if first != "{" {
            names.push(first.to_owned());
            continue;
        }
        let mut depth = 0;
        for (token, before) in tokens[at + 2..].iter().zip(&tokens[at + 1..]) {
            match *token {
                "{" => depth += 1,
                "}" if depth == 1 => break,
                "}" => depth -= 1,
                name if depth == 1 && matches!(*before, "{" | ",") => names.push(name.to_owned()),
                _ => {}
            }
        }
    }
    names
}

/// Words, `::`, and every other character by itself.
fn tokens(code: &str) -> impl Iterator<Item = &str> {
    let mut rest = code;
    std::iter::from_fn(move || {
        rest = rest.trim_start();
        let first = rest.chars().next()?;
        let end = if first.is_alphanumeric() || first == '_' {
            rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        let (token, left) = rest.split_at(end);
        rest = left;
        Some(token)
    })
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_')
}

/// The room that a file belongs to; none for `lib.rs` and `main.rs`, which are the doors.
fn room_of(path: &Path) -> Option<String> {
    let inside = path.strip_prefix("src").ok()?;
    let first = Path::new(inside.components().next()?.as_os_str());
    let name = first.file_stem()?.to_str()?.to_owned();
    (!matches!(name.as_str(), "lib" | "main")).then_some(name)
}

/// The files of a folder, from the project's root on, without their comments and texts.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push((path.strip_prefix(root()).unwrap().to_owned(), code_of(&path)));
            }
        }
    }
    assert!(!files.is_empty(), "there is code in {folder}");
    files.sort();
    files
}

/// Unit tests stand last in a file.
fn without_unit_tests(code: &str) -> &str {
    code.split("#[cfg(test)]\nmod tests {").next().unwrap_or(code)
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn none_or(names: &[String]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

fn code_of(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    blank_comments_and_texts(&text)
}

/// The code with comments gone and texts empty, line for line.
fn blank_comments_and_texts(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = skipped(rest);
        let length = skipped.unwrap_or(first.len_utf8());
        let (taken, left) = rest.split_at(length);
        match skipped {
            Some(_) => out.extend(taken.chars().filter(|c| *c == '\n')),
            None => out.push_str(taken),
        }
        rest = left;
        // The `r` of a name such as `for` does not begin a raw text.
        if skipped.is_none() && (first.is_alphanumeric() || first == '_') {
            let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            out.push_str(&rest[..word]);
            rest = &rest[word..];
        }
    }
    out
}

/// How long the comment or text is that begins here, if one does.
fn skipped(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return Some(rest.find("*/").map_or(rest.len(), |end| end + 2));
    }
    let raw = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r')).map(|r| (r, r.len() - r.trim_start_matches('#').len()));
    if let Some((after, hashes)) = raw
        && after[hashes..].starts_with('"')
    {
        let close = format!("\"{}", "#".repeat(hashes));
        let body = rest.len() - after.len() + hashes + 1;
        return Some(rest[body..].find(&close).map_or(rest.len(), |end| body + end + close.len()));
    }
    let quoted = rest.strip_prefix("b\"").or_else(|| rest.strip_prefix('"'));
    if let Some(after) = quoted {
        let mut escaped = false;
        let end = after.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        return Some(rest.len() - after.len() + end.map_or(after.len(), |e| e + 1));
    }
    // A character, not a lifetime.
    let mut chars = rest.strip_prefix('\'')?.char_indices();
    let (_, first) = chars.next()?;
    if first == '\\' {
        let (at, _) = chars.skip(1).find(|(_, c)| *c == '\'')?;
        return Some(at + 2);
    }
    let (at, second) = chars.next()?;
    (second == '\'').then_some(at + 2)
}

#[test]
fn what_is_code_is_told_from_what_is_not() {
    let cases = [
        ("use crate::a; // crate::b", &["a"][..]),
        ("/* crate::a */ crate::b::C", &["b"]),
        ("use crate::{a::X, b::{self, Y}, c};", &["a", "b", "c"]),
        ("let x = \"crate::a \\\" crate::b\"; crate::c::f()", &["c"]),
        ("r#\"crate::a \" crate::b\"#; for x in crate::c::all() {}", &["c"]),
        ("fn f<'a>(x: &'a str) -> char { '\"' } crate::a::b()", &["a"]),
        ("['\\'', '\\\\']; crate::a::b()", &["a"]),
        ("pub(crate) fn f() {} pub(in crate::a) fn g() {}", &["a"]),
        ("super::super::a::X", &[]),
    ];
    for (code, expected) in cases {
        let code = blank_comments_and_texts(code);
        let found = named_after(&tokens(&code).collect::<Vec<_>>(), &["crate", "larder"]);
        assert_eq!(found, expected, "{code}");
    }
    assert_eq!(named_after(&tokens("super::super::a::X").collect::<Vec<_>>(), &["super"]), ["super", "a"]);
}
