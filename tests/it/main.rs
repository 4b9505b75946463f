//! How larder behaves, over real files, a real registry on loopback and real engines.

mod support;
mod upstream;
