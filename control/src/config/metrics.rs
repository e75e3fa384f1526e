//! `metrics.listen`: an address with a port.

use std::net::SocketAddr;

use toml::de::DeValue;

use super::reader::{Reader, Span};
use super::table::Value;

/// Where the endpoint listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen(pub SocketAddr);

impl Value for Listen {
    fn shape() -> String {
        "address with a port, as \"127.0.0.1:9649\"".to_owned()
    }
    fn read(value: &DeValue<'_>, at: Span, reader: &mut Reader<'_>) -> Option<Self> {
        let Some(text) = value.as_str() else {
            return reader.mismatch(value, at, &Self::shape());
        };
        match text.parse() {
            Ok(address) => Some(Self(address)),
            Err(_) => {
                let remedy = format!("write an {}; names are not looked up", Self::shape());
                reader.bad(at, format!("{text:?} is no address with a port"), &remedy)
            }
        }
    }
    fn written(&self) -> Option<toml::Value> {
        Some(toml::Value::String(self.0.to_string()))
    }
}
