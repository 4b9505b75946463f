//! Tar archives that readers would understand differently.

use super::{Case, good, gzip, with};
use crate::support::tarball::{Head, Tarball, archive, record};

/// Streams of blocks that are no archive, or not one archive.
pub(super) fn broken_streams() -> Vec<Case> {
    let whole = archive(&good());
    let second = whole.len() / 512 / 2 * 512;
    let content_cut = Tarball::new().file("a", &[1; 600]).cut()[..700].to_vec();
    vec![
        ("nothing", Vec::new(), "not a tar archive"),
        ("text", b"hello".repeat(300), "not a tar archive"),
        ("a short text", b"hello".to_vec(), "not a tar archive"),
        ("zeros", vec![0; 10240], "not a tar archive"),
        ("cut in a header", whole[..second + 100].to_vec(), "before its end"),
        ("cut in content", content_cut, "it ends at byte 700, before its end"),
        ("cut between members", Tarball::of(good().iter().map(|(n, c)| (n, c.as_slice()))).cut(), "before its end"),
        ("one empty block at the end", whole[..whole.len() - 512].to_vec(), "before its end"),
        ("bytes behind the end", [&whole[..], b"x"].concat(), "something stands behind its end"),
        ("zeros and bytes behind the end", [&whole[..], &[0; 9000], b"x"].concat(), "something stands behind its end"),
        ("zeros without end", [&whole[..], &vec![0; 2 << 20]].concat(), "something stands behind its end"),
        ("two archives", [&whole[..], &whole].concat(), "something stands behind its end"),
        ("an empty block between members", with(|tar| tar.bytes(&[0; 512]).file("x", b"x")), "something stands behind its end"),
        ("gzip cut short", gzip(&whole)[..200].to_vec(), "cannot be read"),
        ("gzip with bytes behind", [gzip(&whole), b"xyz".to_vec()].concat(), "cannot be read"),
        ("gzip in gzip", gzip(&gzip(&whole)), "not a tar archive"),
        ("zstd cut short", zstd::bulk::compress(&whole, 3).unwrap()[..100].to_vec(), "cannot be read"),
        ("xz that is none", b"\xfd7zXZ\0\0\x04and so on and so on and so on".to_vec(), "cannot be read"),
        ("bzip2", b"BZh91AY&SY".repeat(10), "bzip2"),
    ]
}

/// Headers that readers would understand differently, or that have no place here.
pub(super) fn bad_headers() -> Vec<Case> {
    let head = |head: Head| with(|tar| tar.member(&head, &[]));
    let file = |flag| head(Head::new("x", flag, 0));
    vec![
        ("a wrong sum", head(Head { sum: false, ..Head::new("x", b'0', 0) }), "no header"),
        ("no magic", head(Head { magic: [0; 8], ..Head::new("x", b'0', 0) }), "no header"),
        ("a negative size in base 256", head(Head::sized("x", &base_256(u64::MAX, 0xff))), "a size that is negative"),
        ("a negative size in digits", head(Head::sized("x", b"-0000000001\0")), "a size that is negative"),
        ("a size behind blanks", head(Head::sized("x", b"          0\0")), "a size that is not a number"),
        ("a size with two numbers", head(Head::sized("x", b"00000\x000001\0\0")), "a size that is not a number"),
        ("no size", head(Head::sized("x", &[0; 12])), "a size that is not a number"),
        ("a size in another base", head(Head::sized("x", b"0x000000001\0")), "a size that is not a number"),
        ("an absurd size", head(Head::sized("x", &base_256(1 << 50, 0x80))), "more than the"),
        ("a size that overflows", head(Head::sized("x", &[0x80, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1])), "a size that is too large"),
        ("a sparse file", file(b'S'), "a sparse file"),
        ("a character device", file(b'3'), "a device"),
        ("a block device", file(b'4'), "a device"),
        ("a pipe", file(b'6'), "a pipe"),
        ("a contiguous file", file(b'7'), "the unknown kind `7`"),
        ("a part of another archive", file(b'M'), "the unknown kind `M`"),
        ("a label", file(b'V'), "the unknown kind `V`"),
        ("an unknown kind", file(0xff), "the unknown kind"),
        (
            "GNU's header with a prefix",
            head(Head { magic: *b"ustar  \0", patch: (345, b"dir".to_vec()), ..Head::new("x", b'0', 0) }),
            "different things",
        ),
        ("star's header", head(Head { patch: (508, b"tar\0".to_vec()), ..Head::new("x", b'0', 0) }), "different things"),
        ("a folder with content", with(|tar| tar.member(&Head::new("d/", b'5', 3), b"abc")), "a folder and is said to have 3 bytes"),
        (
            "a link with content",
            with(|tar| tar.member(&Head { target: b"0/layer.tar".to_vec(), ..Head::new("l", b'2', 3) }, b"abc")),
            "a link and is said to have 3 bytes",
        ),
        ("a file called as a folder", head(Head::new("x/", b'0', 0)), "a file with the name of a folder"),
        ("a name that is not text", head(Head { name: b"\xff\xfe".to_vec(), ..Head::new("", b'0', 0) }), "is not text"),
        ("a name for a terminal", head(Head::new("a\x1b[2Jb", b'0', 0)), "control characters"),
        ("no name", head(Head::new("", b'0', 0)), "is empty"),
        (
            "too many members",
            (0..100_001).fold(Tarball::new(), |tar, _| tar.member(&Head::new("d/", b'5', 0), &[])).end(),
            "more than 100000 members",
        ),
    ]
}

/// Extensions that belong to the wrong member, contradict it, or come twice.
pub(super) fn bad_extensions() -> Vec<Case> {
    let pax = |records: &str| with(|tar| tar.pax(records.as_bytes()).file("x", b"abc"));
    let path = record("path", "y");
    vec![
        (
            "for all members",
            with(|tar| tar.member(&Head::new("g", b'g', path.len()), path.as_bytes()).file("x", b"")),
            "for all members behind it",
        ),
        ("two of the standard's", with(|tar| tar.pax(path.as_bytes()).pax(path.as_bytes()).file("x", b"")), "after another one"),
        ("the standard's and GNU's", with(|tar| tar.pax(path.as_bytes()).long_name(b"z\0").file("x", b"")), "after another one"),
        ("GNU's and the standard's", with(|tar| tar.long_name(b"z\0").pax(path.as_bytes()).file("x", b"")), "after another one"),
        ("two of GNU's", with(|tar| tar.long_name(b"y\0").long_name(b"z\0").file("x", b"")), "comes twice"),
        ("for no member", with(|tar| tar.pax(path.as_bytes())), "belongs to no member"),
        ("GNU's for no member", with(|tar| tar.long_name(b"z\0")), "belongs to no member"),
        ("a smaller size", pax(&record("size", "1")), "3 bytes and 1 bytes"),
        ("a larger size", pax(&record("size", "600")), "3 bytes and 600 bytes"),
        (
            "a size where the header has none",
            with(|tar| tar.pax(record("size", "3").as_bytes()).member(&Head::new("x", b'0', 0), b"abc")),
            "0 bytes and 3 bytes",
        ),
        ("a size that is none", pax(&record("size", "3x")), "a size that is no number"),
        ("a negative size", pax(&record("size", "-3")), "a size that is no number"),
        ("a size with a sign", pax(&record("size", "+3")), "a size that is no number"),
        ("a wrong length", pax("99 path=y\n"), "not as the standard has it"),
        ("a length that is short", pax("5 path=y\n"), "not as the standard has it"),
        ("no length", pax("path=y\n"), "not as the standard has it"),
        ("no end of line", pax("9 path=yz"), "not as the standard has it"),
        ("no key", pax("7 path\n"), "a record without a key"),
        ("a key twice", pax(&(record("path", "y") + &record("path", "z"))), "the same key twice"),
        ("an empty name", pax(&record("path", "")), "no name"),
        ("a name with a NUL", pax(&record("path", "y\0z")), "no name, or more than one"),
        ("a sparse file", pax(&record("GNU.sparse.major", "1")), "sparse"),
        ("names that are not text", pax(&record("hdrcharset", "BINARY")), "not text"),
        ("GNU's name with a NUL", with(|tar| tar.long_name(b"y\0z\0").file("x", b"")), "more than one"),
        ("longer than any", with(|tar| tar.long_name(&[b'y'; 70_000]).file("x", b"")), "longer than any"),
    ]
}

fn base_256(size: u64, first: u8) -> Vec<u8> {
    [&[first, 0, 0, 0][..], &size.to_be_bytes()].concat()
}
