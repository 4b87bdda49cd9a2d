//! The event that is sent: an order, padded to the wanted size, in a request made once and renumbered.

use std::net::SocketAddr;

/// What stands in a request where the event's number goes.
const PLACE: &str = "load-0000000000";

/// Where requests go.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    key: String,
}

impl Target {
    /// A gateway, and a key to it.
    pub(crate) fn gateway(address: SocketAddr, key: &str) -> Self {
        let key = key.to_owned();
        Self { address, key }
    }

    /// The receiver itself, with nothing between.
    pub(crate) fn receiver(address: SocketAddr) -> Self {
        Self::gateway(address, "none")
    }
}

/// A whole request, in which only the number changes.
pub(crate) struct Order {
    request: Vec<u8>,
    /// Where the number's digits stand: in the `webhook-id` header, which a receiver without a gateway
    /// before it looks at, and in the event's id.
    digits: Vec<usize>,
}

impl Order {
    /// A request of an event whose data has `bytes` bytes, or a few more where that is too little.
    pub(crate) fn new(target: &Target, event_type: &str, bytes: usize) -> Self {
        let data = |notes: &str| {
            format!(
                r#"{{"id":"ord_1042","customer":{{"id":"cus_7","name":"Ada Lovelace","email":"ada@example.com"}},"currency":"EUR","items":[{{"sku":"TEA-1","name":"Tea","quantity":3,"unit_price_cents":450}},{{"sku":"CUP-2","name":"Cup","quantity":2,"unit_price_cents":1250}}],"notes":"{notes}"}}"#
            )
        };
        let padding = "x".repeat(bytes.saturating_sub(data("").len()));
        let body = format!(r#"{{"type":"{event_type}","id":"{PLACE}","data":{}}}"#, data(&padding));
        let request = format!(
            "POST /v1/events HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n\
             content-type: application/json\r\nwebhook-id: {PLACE}\r\ncontent-length: {}\r\n\r\n{body}",
            target.address,
            target.key,
            body.len()
        );
        let places = request.match_indices(PLACE);
        let digits = places.map(|(at, place)| at + place.len() - 10).collect();
        Self { request: request.into_bytes(), digits }
    }

    /// The request with this number.
    pub(crate) fn numbered(&mut self, number: u64) -> &[u8] {
        let digits = format!("{number:010}");
        for at in &self.digits {
            for (byte, digit) in self.request.iter_mut().skip(*at).zip(digits.bytes()) {
                *byte = digit;
            }
        }
        &self.request
    }
}

/// The number in a message's id; 0, which no event has, for any other id.
pub(crate) fn number_of(id: &[u8]) -> u64 {
    std::str::from_utf8(id)
        .ok()
        .and_then(|id| id.trim().strip_prefix("load-")?.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_carries_its_number_twice_and_data_of_the_size() {
        let target = Target::gateway(([127, 0, 0, 1], 1).into(), "key");
        let mut order = Order::new(&target, "order.paid", 1024);
        let text = String::from_utf8(order.numbered(77).to_vec()).unwrap();
        assert_eq!(text.matches("load-0000000077").count(), 2);
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())));
        let event: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(event["data"].to_string().len(), 1024);
    }

    #[test]
    fn ids_lead_back_to_numbers() {
        assert_eq!(number_of(b" load-0000000077"), 77);
        assert_eq!(number_of(b"evt_1"), 0);
    }
}
