//! The flags of `run` about metrics.

use std::net::SocketAddr;

use clap::value_parser;

use crate::config::{Given, Layer, Listen, Whole};

/// See the keys of the same meaning (`portcullis config keys`).
#[derive(Debug, Default, clap::Args)]
pub struct Metering {
    /// Let Prometheus scrape metrics here; whoever reaches it reads them [default: nowhere].
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub metrics: Option<SocketAddr>,
    /// Give so many rules series of their own; the others have one in common [default: 200].
    #[arg(long, value_name = "RULES", value_parser = value_parser!(u64).range(..=10_000))]
    pub metrics_rules: Option<u64>,
}

impl Metering {
    /// What these flags add to what others say of the keys.
    pub(super) fn layer(&self, others: Layer) -> Layer {
        Layer {
            metrics_listen: Given::flag(self.metrics.map(|address| Some(Listen(address)))),
            metrics_rules: Given::flag(self.metrics_rules.map(Whole)),
            ..others
        }
    }
}
