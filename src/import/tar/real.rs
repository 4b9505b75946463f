//! What is accepted here is read alike by GNU tar and by Python.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Command;

use super::{Kind, Tar};
use crate::digest::Digest;

/// What a reader says of a member: its kind, name, size, target, and what its content hashes to where that was read.
type Said = (char, String, u64, String, String);

/// Numbers that look random and are the same on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

fn block(name: &[u8], size: usize, flag: u8, target: &[u8], gnu: bool) -> Vec<u8> {
    let mut block = vec![0; 512];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &name[..name.len().min(100)]);
    put(100, b"0000644\x000000000\x000000000\0");
    put(124, format!("{size:011o}\x0000000000000\0").as_bytes());
    put(156, &[flag]);
    put(157, target);
    put(257, if gnu { b"ustar  \0" } else { b"ustar\x0000" });
    sum(&mut block);
    block
}

fn sum(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

/// An extension of one or two records, not all of them right.
fn pax(random: &mut Random, size: usize) -> Vec<u8> {
    let mut records = Vec::new();
    for _ in 0..=random.below(2) {
        let key = random.one(&["path", "size", "linkpath", "mtime", "comment", "SCHILY.xattr.user.x", "GNU.sparse.size"]);
        let (right, other) = (size.to_string(), random.below(2000).to_string());
        let value = match key {
            "size" => random.one(&[&*right, &*right, &other, "-1", "1x"]).to_owned(),
            "mtime" => "1620000000.5".to_owned(),
            _ => random.one(&["long/name", "n", "a/b/c", ""]).to_owned() + &"x".repeat(random.below(150)),
        };
        let rest = format!(" {key}={value}\n");
        let length = (1..4).map(|digits| rest.len() + digits).find(|length| length.to_string().len() + rest.len() == *length);
        records.extend(format!("{}{rest}", length.unwrap() - usize::from(random.below(20) == 0)).bytes());
    }
    let mut extension = block(b"PaxHeaders/n", records.len(), b'x', b"", false);
    extension.extend(records);
    padded(extension)
}

/// An archive as tools write it, and with some chance one that none would.
fn archive(random: &mut Random) -> Vec<u8> {
    let mut archive = Vec::new();
    for n in 0..=random.below(5) {
        let gnu = random.below(2) == 0;
        let flag = random.one(b"000000000002155\x007S");
        let file = matches!(flag, b'0' | 0 | b'7' | b'S');
        let size = if file || random.below(10) == 0 { random.below(1500) } else { 0 };
        if random.below(4) == 0 {
            archive.extend(pax(random, size));
        }
        if random.below(5) == 0 {
            let name = format!("gnu/{}{n}\0", "l".repeat(random.below(200)));
            archive.extend(block(b"././@LongLink", name.len(), random.one(b"LLLK"), b"", true));
            archive.extend(padded(name.into_bytes()));
        }
        let name = format!("{}{n}{}", random.one(&["f", "d/f", "./f", "d//f", "/f", "d/../f"]), if flag == b'5' { "/" } else { "" });
        let target: &[u8] = if matches!(flag, b'1' | b'2') { b"f0" } else { b"" };
        let mut header = block(name.as_bytes(), size, flag, target, gnu);
        if random.below(6) == 0 {
            let at = random.one(&[99, 124, 130, 135, 156, 257, 263, 345, 400, 500, 511, 0, 5]);
            header[at] = random.one(&[0, b' ', b'0', b'7', b'9', 0x80, 0xff, b'x', b'/']);
            sum(&mut header);
        }
        archive.extend(header);
        archive.extend(padded((0..size).map(|i| (i * 7 + n) as u8).collect()));
    }
    match random.below(12) {
        0 => archive.truncate(random.below(archive.len())),
        1 => archive.extend([0; 512]),
        2 => archive.extend([&[0; 512][..], &[1; 512], &[0; 1024]].concat()),
        3 => archive.extend([&[0; 1024][..], &[1; 600]].concat()),
        _ => archive.extend(vec![0; 512 * (2 + random.below(3))]),
    }
    archive
}

/// What this reader says; nothing if it refuses.
fn here(archive: &[u8]) -> Option<Vec<Said>> {
    let (mut tar, mut said) = (Tar::new(archive), Vec::new());
    while let Some(member) = tar.next().ok()? {
        let mut content = Vec::new();
        tar.content().read_to_end(&mut content).ok()?;
        let (kind, target) = match member.kind {
            Kind::File => ('f', String::new()),
            Kind::Folder => ('d', String::new()),
            Kind::Symlink(target) => ('l', target),
            Kind::Hardlink(target) => ('h', target),
        };
        let hash = if kind == 'f' { Digest::of(&content).hex() } else { String::new() };
        said.push((kind, member.path.trim_end_matches('/').to_owned(), member.size, target, hash));
    }
    Some(said)
}

const PYTHON: &str = r#"
import hashlib, os, sys, tarfile
for name in sorted(os.listdir(sys.argv[1])):
    try:
        with tarfile.open(os.path.join(sys.argv[1], name), "r:") as tar:
            for m in tar:
                kind = "f" if m.isreg() else "d" if m.isdir() else "l" if m.issym() else "h" if m.islnk() else "?"
                content = hashlib.sha256(tar.extractfile(m).read()).hexdigest() if kind == "f" else ""
                print(name, kind, m.name.rstrip("/") or "/", m.size, m.linkname if kind in "lh" else "", content, sep="\t")
    except (tarfile.TarError, ValueError, OverflowError) as e:
        print(name, "refused", sep="\t")
"#;

/// What Python says of every archive in a folder; nothing of those that it refuses.
fn python(folder: &Path) -> BTreeMap<String, Vec<Said>> {
    let output = Command::new("python3").args(["-c", PYTHON]).arg(folder).output().expect("python3 is installed");
    let text = String::from_utf8(output.stdout).expect("names that are no text are none of the accepted ones");
    let (mut said, mut refused) = (BTreeMap::<String, Vec<Said>>::new(), Vec::new());
    for line in text.lines() {
        let words: Vec<&str> = line.split('\t').collect();
        match words[..] {
            [archive, kind, name, size, target, content] => said.entry(archive.to_owned()).or_default().push((
                kind.chars().next().unwrap(),
                name.to_owned(),
                size.parse().unwrap(),
                target.to_owned(),
                content.to_owned(),
            )),
            [archive, ..] => refused.push(archive.to_owned()),
            [] => {}
        }
    }
    said.retain(|archive, _| !refused.contains(archive));
    said
}

/// What GNU tar says, without what contents hash to; nothing if it refuses.
fn gnu(archive: &Path) -> Option<Vec<Said>> {
    let mut command = Command::new("tar");
    command.args(["--list", "--verbose", "--absolute-names", "--quoting-style=c", "--full-time", "--file"]).arg(archive);
    let output = command.env("LC_ALL", "C").output().expect("GNU tar is installed");
    if !output.status.success() {
        return None;
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = |line: &str| {
        // -rw-r--r-- 0/0 1059 1970-01-01 00:00:00 "d/f1"
        let mut quoted = line.split('"');
        let mut words = quoted.next()?.split_whitespace();
        let kind = match words.next()?.chars().next()? {
            '-' => 'f',
            other => other,
        };
        let size = words.nth(1)?.parse().ok()?;
        let (name, target) = (quoted.next()?, quoted.nth(1).unwrap_or_default());
        Some((kind, name.trim_end_matches('/').to_owned(), size, target.to_owned(), String::new()))
    };
    Some(text.lines().filter_map(line).collect())
}

#[test]
fn accepted_archives_are_read_alike_by_others() {
    const ARCHIVES: usize = 3000;
    let folder = tempfile::tempdir().unwrap();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut accepted = BTreeMap::new();
    for n in 0..ARCHIVES {
        let archive = archive(&mut random);
        if let Some(said) = here(&archive) {
            let name = format!("{n:05}.tar");
            fs::write(folder.path().join(&name), archive).unwrap();
            accepted.insert(name, said);
        }
    }
    assert!((ARCHIVES / 5..ARCHIVES * 4 / 5).contains(&accepted.len()), "{} of {ARCHIVES} are accepted", accepted.len());
    let python = python(folder.path());
    let (mut both, mut refused) = (0, 0);
    for (archive, ours) in &accepted {
        match python.get(archive) {
            Some(theirs) => assert_eq!(ours, theirs, "{archive} and Python"),
            None => refused += 1,
        }
        let without_hashes: Vec<Said> = ours.iter().map(|said| (said.0, said.1.clone(), said.2, said.3.clone(), String::new())).collect();
        // Of many, so that it takes seconds.
        if both < 400
            && let Some(theirs) = gnu(&folder.path().join(archive))
        {
            both += 1;
            assert_eq!(without_hashes, theirs, "{archive} and GNU tar");
        }
    }
    assert!(both > 300 && refused < accepted.len() / 20, "{both} compared with GNU tar, {refused} refused by Python");
}
