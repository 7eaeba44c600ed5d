//! A wire with latency and bandwidth, between a program and a server on this machine.

// Each benchmark uses its own part of this.
#![allow(dead_code)]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// What the wire takes at a time. Connections take turns, so that none waits for more than this of each other.
const PACKET_BYTES: usize = 16 * 1024;
/// Packets that may be on their way in one direction of a connection.
const PACKETS_MAX: usize = 512;

/// One direction of the wire, which all connections share.
struct Lane {
    bytes_per_second: f64,
    /// When the last packet that was let in will have passed.
    free_at: Mutex<Instant>,
}

impl Lane {
    /// Waits until it is this packet's turn.
    fn pass(&self, bytes: usize) {
        let time = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second);
        let until = {
            let mut free_at = self.free_at.lock().expect("nobody panics here");
            *free_at = (*free_at).max(Instant::now()) + time;
            *free_at
        };
        // Sleeps of less than the scheduler's grain would make the wire slower than it is.
        let wait = until.saturating_duration_since(Instant::now());
        if wait > Duration::from_millis(1) {
            thread::sleep(wait);
        }
    }
}

/// A wire that is laid.
pub(crate) struct Wire {
    /// Where it begins.
    pub(crate) address: SocketAddr,
    /// HTTP requests that have been sent along it.
    pub(crate) requests: Arc<AtomicU64>,
}

/// Listens on a free port and passes everything on to `server`, `round_trip` later there and back, and at most so many
/// bytes a second each way.
pub(crate) fn wire(server: SocketAddr, round_trip: Duration, bytes_per_second: f64) -> Wire {
    let requests = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&requests);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let lane = || Arc::new(Lane { bytes_per_second, free_at: Mutex::new(Instant::now()) });
    let (up, down) = (lane(), lane());
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(upstream) = TcpStream::connect(server) else { continue };
            for stream in [&client, &upstream] {
                let _ = stream.set_nodelay(true);
            }
            let (Ok(client_too), Ok(upstream_too)) = (client.try_clone(), upstream.try_clone()) else {
                continue;
            };
            carry(client, upstream_too, Arc::clone(&up), round_trip / 2, Some(Arc::clone(&counted)));
            carry(upstream, client_too, Arc::clone(&down), round_trip / 2, None);
        }
    });
    Wire { address, requests }
}

/// Carries bytes one way until an end closes.
fn carry(from: TcpStream, to: TcpStream, lane: Arc<Lane>, delay: Duration, requests: Option<Arc<AtomicU64>>) {
    let (sender, receiver) = sync_channel(PACKETS_MAX);
    thread::spawn(move || send(from, &sender, &lane, requests.as_deref()));
    thread::spawn(move || deliver(&receiver, to, delay));
}

/// Clients send a request's head by itself or before its body, so a head begins a packet; sealed bytes do not look like one.
fn is_head(packet: &[u8]) -> bool {
    [&b"GET /"[..], b"PUT /", b"HEAD /", b"POST /", b"DELETE /"].iter().any(|verb| packet.starts_with(verb))
}

fn send(
    mut from: TcpStream,
    packets: &SyncSender<(Instant, Vec<u8>)>,
    lane: &Lane,
    requests: Option<&AtomicU64>,
) {
    let mut packet = vec![0; PACKET_BYTES];
    while let Ok(bytes @ 1..) = from.read(&mut packet) {
        if let Some(requests) = requests
            && is_head(&packet[..bytes])
        {
            requests.fetch_add(1, Ordering::Relaxed);
        }
        lane.pass(bytes);
        if packets.send((Instant::now(), packet[..bytes].to_vec())).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Read);
}

fn deliver(packets: &Receiver<(Instant, Vec<u8>)>, mut to: TcpStream, delay: Duration) {
    for (sent, packet) in packets {
        thread::sleep((sent + delay).saturating_duration_since(Instant::now()));
        if to.write_all(&packet).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// The value in the middle, and the one that nine of ten do not exceed.
pub(crate) fn quantiles(times: impl IntoIterator<Item = Duration>) -> (Duration, Duration) {
    let mut times: Vec<Duration> = times.into_iter().collect();
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() * 9 / 10])
}
