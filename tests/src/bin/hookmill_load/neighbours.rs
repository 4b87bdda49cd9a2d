//! Many receivers, some of them bad, and events for each: what the good ones notice of the bad ones.
//!
//! `cargo xtask bench neighbours` runs it so:
//!
//! 1. It prints `{"good":[ADDRESS…],"refuses":ADDRESS,"silent":…,"slow":…,"fails":…}`.
//! 2. For each line `ADDRESS GOOD KEY…` of standard input, it sends events of the types `order.0`, `order.1` and so on to
//!    that gateway in turn, one type for each key, at a rate that gives the first GOOD of them the chosen one
//!    together. Those are the ones meant to arrive.
//! 3. It prints a line of JSON for each.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::board::Board;
use crate::measure::{Aim, Load, Pace};
use crate::order::Target;
use crate::receiver::{self, Fault};
use crate::{Options, print};

/// Receives, and measures through each gateway that standard input names.
pub(crate) async fn run(options: &Options, board: Arc<Board>, receivers: usize) -> io::Result<()> {
    let mut good = Vec::new();
    for _ in 0..receivers {
        good.push(receiver::start(Arc::clone(&board)).await?.to_string());
    }
    let mut addresses = serde_json::Map::new();
    addresses.insert("good".to_owned(), json!(good));
    for fault in Fault::ALL {
        let address = receiver::start_bad(fault).await?;
        addresses.insert(fault.name().to_owned(), json!(address.to_string()));
    }
    print(&Value::Object(addresses))?;

    let measurement = options.measurement(board);
    let rate = options.rates.first().copied().unwrap_or(1);
    let mut line = String::new();
    while io::stdin().read_line(&mut line)? > 0 {
        let load = load(&line, rate).ok_or_else(|| {
            io::Error::other(format!("not an address, a number and keys: {line:?}"))
        })?;
        print(&measurement.take("neighbours", &load).await?)?;
        line.clear();
    }
    Ok(())
}

/// What a line asks for; `rate` is that of the good receivers together.
fn load(line: &str, rate: u64) -> Option<Load> {
    let mut words = line.split_whitespace();
    let address: SocketAddr = words.next()?.parse().ok()?;
    let good: usize = words.next()?.parse().ok()?;
    let aims: Vec<_> = words
        .enumerate()
        .map(|(number, key)| Aim {
            target: Target::gateway(address, key),
            event_type: format!("order.{number}"),
            arrives: number < good,
        })
        .collect();
    let all = u64::try_from(aims.len()).ok()?;
    let rate = (rate * all).checked_div(u64::try_from(good.min(aims.len())).ok()?)?;
    Some(Load { aims, pace: Pace::Steady { rate } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_good_ones_get_the_chosen_rate_and_the_bad_ones_as_much_each() {
        let load = load("127.0.0.1:80 2 a b c\n", 1_000).unwrap();
        assert!(matches!(load.pace, Pace::Steady { rate: 1_500 }));
        let aims: Vec<_> =
            load.aims.iter().map(|aim| (aim.event_type.as_str(), aim.arrives)).collect();
        assert_eq!(aims, [("order.0", true), ("order.1", true), ("order.2", false)]);
        assert!(super::load("127.0.0.1:80 0\n", 1_000).is_none());
        assert!(super::load("here 1 a\n", 1_000).is_none());
    }
}
