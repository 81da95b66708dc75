//! What feedhandler.rs makes of messages and sequences; see check.c.

use std::io::{self, BufRead, Read, Write};

#[path = "../../../languages/rust/feedhandler.rs"]
mod feedhandler;
use feedhandler::{decode, split, Book, Continuity, Follow, Record};

fn number(value: f64) -> String {
    if value.is_nan() { "nan".to_string() } else { format!("{:016x}", value.to_bits()) }
}

fn line(record: &Record<'_>, bytes: &[u8]) -> String {
    let h = record.header();
    let mut words = vec!["ok".to_string(), h.topic().to_string(), h.exchange(), h.symbol()];
    words.extend([h.version.to_string(), h.kind.to_string(), h.flags.to_string()]);
    words.extend([(h.is_live() as u8).to_string(), h.session.to_string(), h.sequence.to_string()]);
    words.extend([h.exchange_ns.to_string(), h.recv_ns.to_string(), h.publish_ns.to_string()]);
    match record {
        Record::Ticker(t) => {
            words.push(t.exchange_sequence.to_string());
            words.extend([t.last, t.bid, t.bid_size, t.ask, t.ask_size].map(number));
            words.extend([t.open_24h, t.high_24h, t.low_24h, t.base_volume_24h, t.quote_volume_24h].map(number));
        }
        Record::Trade(t) => {
            words.push(t.exchange_sequence.to_string());
            words.extend([t.price, t.size].map(number));
            words.extend([t.count.to_string(), t.side.to_string(), t.bits.to_string(), t.index.to_string()]);
            let end = t.trade_id.iter().position(|byte| *byte == 0).unwrap_or(t.trade_id.len());
            words.push(String::from_utf8_lossy(&t.trade_id[..end]).to_string());
        }
        Record::Contract(c) => {
            words.push(c.exchange_sequence.to_string());
            words.extend([c.mark, c.index, c.funding_rate, c.open_interest].map(number));
            words.push(c.next_funding_ns.to_string());
            words.extend([c.funding_interval_h, c.predicted_funding_rate].map(number));
        }
        Record::Liquidation(l) => {
            words.push(l.exchange_sequence.to_string());
            words.extend([l.price, l.size].map(number));
            words.extend([l.count.to_string(), l.side.to_string(), l.bits.to_string(), l.index.to_string()]);
            let end = l.trade_id.iter().position(|byte| *byte == 0).unwrap_or(l.trade_id.len());
            words.push(String::from_utf8_lossy(&l.trade_id[..end]).to_string());
        }
        Record::Depth(d) => {
            words.extend([d.exchange_sequence.to_string(), d.bid_count.to_string(), d.ask_count.to_string()]);
            for level in d.bid_levels.iter().chain(&d.ask_levels) {
                words.extend([level.price, level.size].map(number));
            }
        }
        Record::Book(b) => {
            words.extend([b.first_id.to_string(), b.last_id.to_string()]);
            words.extend([b.bid_count, b.ask_count, b.part, b.parts].map(|count| count.to_string()));
            for level in Book::levels(bytes) {
                words.extend([level.price, level.size].map(number));
            }
        }
        Record::Condition(_) => {}
        Record::Document { body, .. } => words.push(String::from_utf8_lossy(body).to_string()),
        Record::Unknown { body, .. } => {
            words.push(format!("unknown {}", body.iter().map(|byte| format!("{:02x}", byte)).collect::<String>()))
        }
    }
    words.join("|")
}

fn messages(is_verdict: bool) -> io::Result<()> {
    let mut input = Vec::new();
    io::stdin().read_to_end(&mut input)?;
    let mut out = io::BufWriter::new(io::stdout());
    let mut rest = &input[..];
    while !rest.is_empty() {
        let size = u32::from_le_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
        let message = &rest[4..4 + size];
        rest = &rest[4 + size..];
        if message.is_empty() {
            assert_eq!(split(message).count(), 0);
            writeln!(out, "{}", decode(message).unwrap_err())?;
        }
        for bytes in split(message) {
            match decode(bytes) {
                Ok(_) if is_verdict => writeln!(out, "ok")?,
                Ok(record) => writeln!(out, "{}", line(&record, bytes))?,
                Err(error) => writeln!(out, "{}", error)?,
            }
        }
        writeln!(out, ".")?;
    }
    out.flush()
}

fn follow() -> io::Result<()> {
    let mut state = Follow::default();
    for line in io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        if words.len() != 2 {
            state = Follow::default();
            continue;
        }
        let (name, missing) = match state.take(words[0].parse().unwrap(), words[1].parse().unwrap()) {
            Continuity::First => ("first", 0),
            Continuity::Next => ("next", 0),
            Continuity::Gap { missing } => ("gap", missing),
            Continuity::NewSession => ("new_session", 0),
            Continuity::Duplicate => ("duplicate", 0),
        };
        println!("{} {} {} {}", name, missing, state.lost, state.gaps);
    }
    Ok(())
}

fn main() -> io::Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("follow") => follow(),
        what => messages(what == Some("verdicts")),
    }
}
