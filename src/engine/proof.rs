//! STUB: does what an engine shows answer to a pin?
use super::Shown;
use crate::digest::Verified;
use crate::pin::{Identity, Pin};

/// How it was proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    Identity(Identity),
    /// config and diff IDs compared in full
    Content,
}
/// How an engine stands to a pin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    Held(Proof),
    Absent,
    /// another image
    Another,
    /// the right identity, but content is missing
    Incomplete,
}
/// Compares; `config` is the config document, for the proof by content.
pub fn prove(_pin: &Pin, _shown: Option<&Shown>, _config: Option<&Verified>) -> Standing {
    unimplemented!()
}
