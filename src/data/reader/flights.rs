//! Fetches under way, so that one GET serves all who want its bytes.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::Shared;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::base::SegmentId;
use crate::data::DataError;

type Outcome = Result<Bytes, DataError>;

/// The table of fetches under way. Cheap to clone; clones share it.
#[derive(Clone, Default)]
pub(super) struct Flights(Arc<Mutex<Table>>);

#[derive(Default)]
struct Table {
    next_number: u64,
    segments: HashMap<SegmentId, Vec<Flight>>,
}

/// One fetch under way, as those see it who wait for it.
#[derive(Clone)]
pub(super) struct Flight {
    number: u64,
    range: Range<u32>,
    ahead: bool,
    outcome: Shared<oneshot::Receiver<Outcome>>,
}

/// The duty to land one flight; dropping it takes the flight off the table and fails who still waits.
pub(super) struct Ticket {
    flights: Flights,
    segment: SegmentId,
    number: u64,
    outcome: Option<oneshot::Sender<Outcome>>,
}

/// How a reader gets to its bytes.
pub(super) enum Boarding<T> {
    /// They are here.
    Arrived(T),
    /// Another's fetch brings them.
    Joined(Flight),
    /// They have to be fetched, by the holder of the ticket.
    Started(Flight, Ticket),
}

impl Flights {
    /// Finds the flight that brings `block`, or starts one for `range`. `arrived` is asked before
    /// starting, and nothing can land meanwhile: bytes that left the table are where it looks. Flights ahead
    /// of time are joined only if `join_ahead`.
    pub(super) fn board<T>(
        &self,
        segment: SegmentId,
        block: &Range<u32>,
        range: &Range<u32>,
        join_ahead: bool,
        arrived: impl FnOnce() -> Option<T>,
    ) -> Boarding<T> {
        let mut table = self.0.lock();
        if let Some(flight) = table.find(segment, block, join_ahead) {
            return Boarding::Joined(flight);
        }
        if let Some(here) = arrived() {
            return Boarding::Arrived(here);
        }
        let (flight, ticket) = self.start(&mut table, segment, range, false);
        Boarding::Started(flight, ticket)
    }

    /// Starts a flight that brings `range` and nothing else.
    pub(super) fn begin(&self, segment: SegmentId, range: &Range<u32>) -> (Flight, Ticket) {
        self.start(&mut self.0.lock(), segment, range, false)
    }

    /// Starts a flight without a passenger.
    pub(super) fn launch(&self, segment: SegmentId, range: &Range<u32>, ahead: bool) -> Ticket {
        self.start(&mut self.0.lock(), segment, range, ahead).1
    }

    /// Whether a flight brings all of `block`.
    pub(super) fn covers(&self, segment: SegmentId, block: &Range<u32>) -> bool {
        self.0.lock().find(segment, block, true).is_some()
    }

    /// How many are under way.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.0.lock().segments.values().map(Vec::len).sum()
    }

    fn start(
        &self,
        table: &mut Table,
        segment: SegmentId,
        range: &Range<u32>,
        ahead: bool,
    ) -> (Flight, Ticket) {
        let (sender, receiver) = oneshot::channel();
        let number = table.next_number;
        table.next_number += 1;
        let flight = Flight { number, range: range.clone(), ahead, outcome: receiver.shared() };
        table.segments.entry(segment).or_default().push(flight.clone());
        (flight, Ticket { flights: self.clone(), segment, number, outcome: Some(sender) })
    }
}

impl Table {
    fn find(&self, segment: SegmentId, block: &Range<u32>, join_ahead: bool) -> Option<Flight> {
        let covers = |flight: &&Flight| flight.range.start <= block.start && block.end <= flight.range.end;
        let flights = self.segments.get(&segment)?;
        flights.iter().filter(covers).find(|flight| join_ahead || !flight.ahead).cloned()
    }
}

impl Flight {
    /// The fetched bytes, which begin at [`Flight::start`] of the segment.
    pub(super) async fn wait(&self, segment: SegmentId) -> Outcome {
        let outcome = self.outcome.clone().await;
        outcome.unwrap_or(Err(DataError::Unavailable { segment, source: None }))
    }

    pub(super) const fn start(&self) -> u32 {
        self.range.start
    }

    pub(super) fn brings_more_than(&self, block: &Range<u32>) -> bool {
        self.range != *block
    }

    pub(super) const fn is_ahead(&self) -> bool {
        self.ahead
    }
}

impl Ticket {
    /// Hands the bytes to all who wait. The flight can still be joined until the ticket is dropped.
    pub(super) fn announce(&mut self, bytes: Bytes) {
        if let Some(outcome) = self.outcome.take() {
            // Nobody may be waiting any more.
            let _ = outcome.send(Ok(bytes));
        }
    }

    /// Takes the flight off the table, then fails all who wait: who asks again starts anew.
    pub(super) fn fail(mut self, error: DataError) {
        let outcome = self.outcome.take();
        drop(self);
        if let Some(outcome) = outcome {
            let _ = outcome.send(Err(error));
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut table = self.flights.0.lock();
        if let Some(flights) = table.segments.get_mut(&self.segment) {
            flights.retain(|flight| flight.number != self.number);
            if flights.is_empty() {
                table.segments.remove(&self.segment);
            }
        }
    }
}
