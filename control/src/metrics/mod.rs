//! Metrics: what the daemon counts, as the text that Prometheus reads.
//!
//! `page` writes metrics by the conventions of names, units and types, in both of the forms that
//! scrapers ask for; `rules` keeps the number of series bounded however many rules there are;
//! `server` is the endpoint. What is written comes from the values that the control socket shows,
//! so that `show` and a scrape never disagree.
//!
//! Limits: every label has a bounded set of values: ports, workers, queues and reasons by what the
//! daemon is made of, rules by `metrics.rules`.

mod page;
mod rules;
mod server;
mod write;

pub use page::{Form, Page};
pub use rules::{RuleBook, RuleRow, Selected};
pub use server::{Endpoint, EndpointError, Requests, Respond};
pub use write::{Facts, Named, write};
