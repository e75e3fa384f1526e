//! How a worker's ports go down, up and out of service, and change their sockets
//! while it runs: two bounded queues between the worker and whoever opens and closes.
//!
//! A port is withdrawn by order, or by the worker itself when its socket fails. The
//! socket goes to `returned`; it is closed by the other side, which then orders
//! `Recover`, and `Install` once it has another. Everything that may wait happens
//! there: the worker moves a value and clears a ledger, between two turns.

use crossbeam_queue::ArrayQueue;

use super::pipeline::Pipeline;
use super::{Health, PortEvent, Worker};
use crate::clock::Nanos;
use crate::packet::{MAX_PORTS, PortId};
use crate::port::afxdp::{BoundSocket, Closed};
use crate::port::{LinkState, Port, PortError};

/// How often ports that are down are asked whether they are up again.
const CHECK_DOWN_INTERVAL: Nanos = Nanos::from_millis(5);

/// What a worker is told about its ports.
#[derive(Debug)]
pub enum PortOrder {
    /// Take it out of service and return its socket.
    Withdraw(PortId),
    /// The socket that was returned is closed: take its frames back.
    Recover(PortId, Closed),
    /// Go on with this socket.
    Install(PortId, Box<BoundSocket>),
}

/// Both queues of one worker.
#[derive(Debug)]
pub struct Exchange {
    orders: ArrayQueue<PortOrder>,
    returned: ArrayQueue<(PortId, Box<BoundSocket>)>,
}

impl Default for Exchange {
    fn default() -> Self {
        // A port has at most three orders in flight (it is not withdrawn again before its
        // socket was returned), and two sockets: its own, and one that it refused.
        Self { orders: ArrayQueue::new(4 * MAX_PORTS), returned: ArrayQueue::new(4 * MAX_PORTS) }
    }
}

impl Exchange {
    /// Gives an order; it is followed within one turn of the worker.
    ///
    /// # Errors
    /// The order, when the worker has not looked at any for long.
    pub fn order(&self, order: PortOrder) -> Result<(), PortOrder> {
        self.orders.push(order)
    }
    /// A socket that the worker is done with.
    pub fn returned(&self) -> Option<(PortId, Box<BoundSocket>)> {
        self.returned.pop()
    }
    fn next(&self) -> Option<PortOrder> {
        // A look costs less than an attempt, and is all that most turns need.
        if self.orders.is_empty() { None } else { self.orders.pop() }
    }
    fn give_back(&self, port: PortId, socket: Box<BoundSocket>) {
        let given = self.returned.push((port, socket));
        debug_assert!(given.is_ok(), "there is room for two sockets of each port");
    }
}

impl<P: Port, L: Pipeline> Worker<P, L> {
    /// Asks a port whether its device is there and up.
    pub(super) fn check(&mut self, index: usize) {
        if self.health[index] == Health::Failed {
            return;
        }
        let health = match self.ports[index].check() {
            Ok(LinkState::Up) => Health::Up,
            Ok(LinkState::Down) => Health::LinkDown,
            Err(error) => return self.fail(index, error),
        };
        if health != self.health[index] {
            self.health[index] = health;
            let event = if health == Health::Up { PortEvent::LinkUp } else { PortEvent::LinkDown };
            self.outlets.report(self.index, PortId(index as u8), event);
        }
    }

    /// The same for those that were down, more often: traffic shall not wait for our
    /// noticing.
    pub(super) fn check_down(&mut self, now: Nanos) {
        if now < self.next_down_check || !self.health.contains(&Health::LinkDown) {
            return;
        }
        self.next_down_check = now + CHECK_DOWN_INTERVAL;
        for index in 0..self.ports.len() {
            if self.health[index] == Health::LinkDown {
                self.check(index);
            }
        }
    }

    /// Takes a port out of service until it has another socket, and reports why.
    pub(super) fn fail(&mut self, index: usize, error: PortError) {
        if self.health[index] != Health::Failed {
            self.outlets.report(self.index, PortId(index as u8), PortEvent::Failed(error));
            self.withdraw(index);
        }
    }

    /// Takes a port out of service. Its socket goes to whoever can close it; without
    /// anybody, it stays where it is.
    fn withdraw(&mut self, index: usize) {
        self.health[index] = Health::Failed;
        if let Some(exchange) = &self.exchange
            && let Some(socket) = self.ports[index].detach()
        {
            exchange.give_back(PortId(index as u8), socket);
        }
    }

    /// Does what was ordered about ports since the last turn.
    pub(super) fn follow_orders(&mut self) {
        while let Some(order) = self.exchange.as_ref().and_then(|exchange| exchange.next()) {
            match order {
                PortOrder::Withdraw(port) => self.withdraw(port.index()),
                PortOrder::Recover(port, closed) => {
                    self.ports[port.index()].recover(&mut self.pool, &closed);
                }
                PortOrder::Install(port, socket) => self.install(port, socket),
            }
        }
    }

    fn install(&mut self, port: PortId, socket: Box<BoundSocket>) {
        match self.ports[port.index()].attach(socket) {
            // Not up before it was asked, which is now.
            Ok(()) => {
                self.health[port.index()] = Health::LinkDown;
                self.next_down_check = Nanos(0);
            }
            Err(refused) => {
                if let Some(exchange) = &self.exchange {
                    exchange.give_back(port, refused);
                }
            }
        }
    }
}
