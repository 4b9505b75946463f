#![allow(missing_docs)]
pub mod archive;
pub mod digest;
pub mod engine;
pub mod ensure;
pub mod event;
mod fetch;
mod json;
pub mod oci;
pub mod pin;
pub mod plan;
pub mod pull;
pub mod reference;
pub mod store;
pub mod upstream;
