#![allow(missing_docs)]
pub mod archive;
pub mod digest;
pub mod engine;
pub mod event;
mod json;
pub mod oci;
pub mod pin;
pub mod reference;
pub mod store;
pub mod upstream;
