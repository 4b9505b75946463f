//! One block of 512 bytes as the header of a tar archive's member
//! ([POSIX, pax interchange format](https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html), and GNU's variant of it).
//!
//! Always true: a header that two readers would understand differently is an error, never a choice.

use super::tar::TarError;

/// The unit of a tar archive.
pub(super) const BLOCK: usize = 512;

/// What a header says, but for names and sizes that an extension before it gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    /// The name, of at most 256 bytes.
    pub(super) name: Vec<u8>,
    /// Where a link points to, of at most 100 bytes.
    pub(super) target: Vec<u8>,
    pub(super) size: u64,
    pub(super) flag: u8,
}

impl Header {
    /// Reads a block that is not empty; `at` is where it begins in the archive.
    pub(super) fn parse(block: &[u8; BLOCK], at: u64) -> Result<Header, TarError> {
        let stated = number(&block[148..156]).map_err(|_| not_a_header(at))?;
        let sum: u64 = block.iter().enumerate().map(|(i, b)| if (148..156).contains(&i) { 32 } else { u64::from(*b) }).sum();
        if stated != sum {
            return Err(not_a_header(at));
        }
        let mut name = until_nul(&block[..100]).to_vec();
        // GNU keeps times where the standard keeps the first part of a long name, and readers differ in whether they look.
        let gnu = match &block[257..265] {
            b"ustar  \0" => true,
            b"ustar\x0000" => false,
            _ => return Err(not_a_header(at)),
        };
        if gnu && block[345..].iter().any(|b| *b != 0) || block[500..].iter().any(|b| *b != 0) {
            return Err(TarError::Ambiguous { at, what: "bytes where readers look for different things" });
        }
        let prefix = until_nul(&block[345..500]);
        if !prefix.is_empty() {
            name = [prefix, b"/", &name].concat();
        }
        let size = number(&block[124..136]).map_err(|why| TarError::Number { at, field: "size", why })?;
        Ok(Header { name, target: until_nul(&block[157..257]).to_vec(), size, flag: block[156] })
    }
}

fn not_a_header(at: u64) -> TarError {
    if at == 0 { TarError::NotTar } else { TarError::NotAHeader { at } }
}

fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|b| *b == 0).next().unwrap_or_default()
}

/// A number in octal digits, ended by NULs or blanks; or, where its first bit is set, in base 256.
fn number(field: &[u8]) -> Result<u64, &'static str> {
    match field {
        [0x80, rest @ ..] => rest.iter().try_fold(0u64, |n, b| n.checked_mul(256)?.checked_add(u64::from(*b))).ok_or("too large"),
        [0xff, ..] => Err("negative"),
        [b'-', ..] => Err("negative"),
        _ => {
            let digits = field.iter().take_while(|b| (b'0'..=b'7').contains(*b)).count();
            let (digits, end) = field.split_at(digits);
            if digits.is_empty() || !end.iter().all(|b| matches!(b, 0 | b' ')) {
                return Err("not a number");
            }
            Ok(digits.iter().fold(0, |n, b| n * 8 + u64::from(b - b'0')))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_in_one_way_only() {
        for (field, value) in [
            (&b"00000000017\0"[..], 15),
            (b"00000000017 ", 15),
            (b"0000017\0", 15),
            (b"777777777777", 0o777_777_777_777),
            (b"\x80\0\0\0\0\0\0\x02\0\0\0\0", 1 << 33),
            (b"0\0\0\0", 0),
        ] {
            assert_eq!(number(field), Ok(value), "{}", field.escape_ascii());
        }
        for field in [
            &b"\0\0\0\0"[..],
            b"    ",
            b"  17\0",
            b"18\0",
            b"17\x0017",
            b"-17\0",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\x80\x01\0\0\0\0\0\0\0\0\0\0",
            b"0x1\0",
        ] {
            assert!(number(field).is_err(), "{}", field.escape_ascii());
        }
    }
}
