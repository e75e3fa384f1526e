//! What the daemon tells of itself: metrics for whoever scrapes, and alerts for whoever asked.
//!
//! Threads: the endpoint's, which is at low priority and takes no lock for longer than a copy of
//! the rules' counters takes; housekeeping and the workers never wait for it.

mod alerts;
mod facts;
mod pressure;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use dataplane::clock::{Nanos, monotonic, wall_us};

use super::error::system;
use super::service::Service;
use super::{Config, DaemonError};
use crate::alert::Counts;
use crate::api::{Code, Failure, Request, Response};
use crate::metrics::{Endpoint, EndpointError, Form, Requests, Respond, RuleBook, write};

/// A page is made at most this often for the endpoint.
const FRESH: Nanos = Nanos::from_millis(200);

/// Whether metrics are told without being asked for at the control socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MetricsSettings {
    /// Where the endpoint listens, if anywhere.
    pub listen: Option<SocketAddr>,
}

/// The page that was made last.
#[derive(Debug, Default)]
struct Made {
    at: Option<Nanos>,
    classic: String,
    open: String,
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Telemetry {
    /// When the daemon began, in seconds since 1970.
    started_s: f64,
    book: Mutex<RuleBook>,
    requests: Arc<Requests>,
    desks: OnceLock<Vec<Arc<alerts::Desk>>>,
    valve: OnceLock<Arc<pressure::Valve>>,
}

impl Telemetry {
    /// With series for so many rules.
    pub(super) fn new(rules: usize) -> Self {
        let book = Mutex::new(RuleBook::new(rules));
        let started_s = wall_us() as f64 / 1e6;
        let (requests, desks) = (Arc::default(), OnceLock::new());
        Self { started_s, book, requests, desks, valve: OnceLock::new() }
    }

    /// What became of alerts, by webhook.
    fn alerts(&self) -> Vec<(String, Counts, usize)> {
        self.desks.get().into_iter().flatten().map(|desk| desk.counts()).collect()
    }

    fn book(&self) -> MutexGuard<'_, RuleBook> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn requests(&self) -> [u64; 4] {
        let Requests { served, refused, cut, crowded } = &*self.requests;
        [served, refused, cut, crowded].map(|counter| counter.load(Ordering::Relaxed))
    }
}

/// Takes the address, if there is to be an endpoint: before privileges go.
pub(super) fn bind(settings: &MetricsSettings) -> Result<Option<Endpoint>, EndpointError> {
    settings.listen.map(Endpoint::bind).transpose()
}

/// Starts the threads. To be called before system calls are given up: names are looked up.
pub(super) fn start(
    service: &Arc<Service>,
    endpoint: Option<Endpoint>,
    config: &Config,
    stop: &Arc<AtomicBool>,
) -> Result<(), DaemonError> {
    if let Some(endpoint) = endpoint {
        service.serve_metrics(endpoint, stop).map_err(system("metrics thread"))?;
    }
    let desks = service.telemetry().desks.get_or_init(|| alerts::desks(&config.alerts));
    alerts::start(service, desks, stop).map_err(system("alert thread"))?;
    pressure::start(service, &config.pressure, stop).map_err(system("pressure thread"))
}

impl Service {
    /// What is asked of metrics and pressure profiles.
    pub(super) fn on_telemetry(&self, request: Request) -> Result<Response, Failure> {
        match request {
            Request::ShowMetrics {} => Ok(Response::Metrics { text: self.metrics(Form::Classic) }),
            Request::ShowPressure {} => self.pressure(None),
            Request::ChangePressure { change } => self.pressure(Some(change)),
            _ => Err(Failure::new(Code::BadRequest, "this is not about metrics")),
        }
    }

    /// The metrics as they are now.
    fn metrics(&self, form: Form) -> String {
        write(&self.facts()).text(form)
    }

    /// Starts answering at the endpoint.
    fn serve_metrics(
        self: &Arc<Self>,
        endpoint: Endpoint,
        stop: &Arc<AtomicBool>,
    ) -> io::Result<()> {
        if let Ok(address) = endpoint.address() {
            tracing::info!("metrics at http://{address}/metrics");
        }
        // The thread must not keep alive what the daemon has let go.
        let service: Weak<Self> = Arc::downgrade(self);
        let made = Mutex::new(Made::default());
        let respond = move |form| {
            let Some(service) = service.upgrade() else { return String::new() };
            let mut made = made.lock().unwrap_or_else(PoisonError::into_inner);
            let now = monotonic();
            if made.at.is_none_or(|at| now.saturating_sub(at) >= FRESH) {
                let page = write(&service.facts());
                let (classic, open) =
                    (page.clone().text(Form::Classic), page.text(Form::OpenMetrics));
                *made = Made { at: Some(now), classic, open };
            }
            match form {
                Form::Classic => made.classic.clone(),
                Form::OpenMetrics => made.open.clone(),
            }
        };
        let respond: Arc<Respond> = Arc::new(respond);
        let requests = Arc::clone(&self.telemetry().requests);
        endpoint.serve(respond, requests, Arc::clone(stop)).map(drop)
    }
}
