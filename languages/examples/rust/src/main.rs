//! Prints the stream, and says what is missing from it. With the zmq crate, which binds libzmq (Debian: libzmq3-dev).
//!
//!     cargo build --release
//!     target/release/subscribe [ENDPOINT [PREFIX...]]
//!
//! Where there is no crates.io, Debian's librust-zmq-dev has the crate:
//!
//!     cargo build --release --offline --config 'source.crates-io.replace-with="debian"' \
//!         --config 'source.debian.directory="/usr/share/cargo/registry"'

use std::collections::HashMap;
use std::io::Write;

#[path = "../../../rust/feedhandler.rs"]
mod feedhandler;
use feedhandler::{decode, split, Continuity, Follow, Record, KIND_CONDITION, KIND_NOTICE};

/// Prints a line; ends the program if its output was closed, as `| head` does, where println! would panic.
macro_rules! print_line {
    ($($arguments:tt)*) => {
        if writeln!(std::io::stdout(), $($arguments)*).is_err() {
            std::process::exit(0)
        }
    };
}

fn take(topics: &mut HashMap<String, Follow>, message: &[u8]) {
    let record = match decode(message) {
        Ok(record) => record,
        Err(error) => return eprintln!("a message of {} bytes is refused: {}", message.len(), error),
    };
    let header = record.header();
    let topic = header.topic();
    // What is known of this topic's sequence.
    let follow = topics.entry(topic.to_string()).or_default();
    let continuity = match header.kind {
        // A notice is about this connection alone, and a condition has no number of its own.
        KIND_NOTICE | KIND_CONDITION => Continuity::Next,
        _ => follow.take(header.session, header.sequence),
    };
    match continuity {
        Continuity::Duplicate => return, // a snapshot of what is known already
        Continuity::Gap { missing } => print_line!("{}: {} lost before #{}", topic, missing, header.sequence),
        Continuity::NewSession => print_line!("{}: the merger was restarted", topic),
        Continuity::First | Continuity::Next => {}
    }
    let note = if header.is_live() { "" } else { " NOT LIVE" };
    match &record {
        Record::Ticker(t) => print_line!(
            "{} #{} last {} bid {} ask {}{}",
            topic, header.sequence, t.last, t.bid, t.ask, note
        ),
        Record::Document { body, .. } => {
            print_line!("{} #{} {}{}", topic, header.sequence, String::from_utf8_lossy(body), note)
        }
        _ => print_line!("{} #{} of kind {}{}", topic, header.sequence, header.kind, note),
    }
}

fn main() -> Result<(), zmq::Error> {
    let mut arguments = std::env::args().skip(1);
    let endpoint = arguments.next().unwrap_or_else(|| "tcp://127.0.0.1:5555".to_string());
    let mut prefixes: Vec<String> = arguments.collect();
    if prefixes.is_empty() {
        prefixes.push("ticker.".to_string());
    }
    let sub = zmq::Context::new().socket(zmq::SUB)?;
    sub.set_rcvhwm(100_000)?; // messages that wait for us before libzmq drops: a gap, which we see
    sub.set_heartbeat_ivl(1000)?; // ms; a connection that died without a word is made again
    sub.set_heartbeat_timeout(5000)?;
    for prefix in &prefixes {
        sub.set_subscribe(prefix.as_bytes())?;
    }
    sub.connect(&endpoint)?;
    let mut topics = HashMap::new();
    let mut message = zmq::Message::new();
    loop {
        match sub.recv(&mut message, 0) {
            Err(zmq::Error::EINTR) => continue,
            result => result?,
        }
        for record in split(&message) {
            take(&mut topics, record); // a batch has several
        }
    }
}
