//! The request's body: events from a file, or one event put together from the arguments.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::value::RawValue;

use super::Problem;

/// Which events are sent.
#[derive(Debug, clap::Args)]
pub(super) struct EventArgs {
    /// A JSON file with an event or an array of events, or the data alone with --type; `-` is standard
    /// input, also without FILE.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,

    /// The event's type, such as order.paid.
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,

    /// The event's data as JSON, instead of FILE.
    #[arg(long, value_name = "JSON", requires = "event_type", conflicts_with = "file")]
    data: Option<String>,

    /// A label of the event; can be given several times.
    #[arg(long = "attribute", value_name = "NAME=VALUE", requires = "event_type", value_parser = pair)]
    attributes: Vec<(String, String)>,

    /// The event's id; made by the gateway otherwise. An id that the gateway has seen is not accepted
    /// twice.
    #[arg(long, value_name = "ID", requires = "event_type")]
    id: Option<String>,

    /// Events with the same key are meant to stay in order.
    #[arg(long, value_name = "KEY", requires = "event_type")]
    ordering_key: Option<String>,

    /// Where it is delivered beside the webhooks that match it.
    #[arg(long, value_name = "URL", requires = "event_type")]
    webhook_url: Option<String>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| "an attribute is a name, `=` and a value, such as region=eu".to_owned())
}

/// An event as the API takes it.
#[derive(Serialize)]
struct NewEvent<'a> {
    #[serde(rename = "type")]
    event_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    attributes: BTreeMap<&'a str, &'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ordering_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    webhook_url: Option<&'a str>,
    data: &'a RawValue,
}

impl EventArgs {
    /// The body to post.
    pub(super) fn body(&self) -> Result<Vec<u8>, Problem> {
        let (text, source) = match &self.data {
            Some(data) => (data.clone(), "--data".to_owned()),
            None => read(self.file.as_deref())?,
        };
        // A mistake in the JSON is found here rather than by the gateway, for only here is the file's
        // name known.
        let json: &RawValue = serde_json::from_str(&text)
            .map_err(|error| format!("{source} is not JSON: {error}"))?;
        let Some(event_type) = &self.event_type else {
            return Ok(text.into_bytes());
        };
        let event = NewEvent {
            event_type,
            id: self.id.as_deref(),
            attributes: self
                .attributes
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect(),
            ordering_key: self.ordering_key.as_deref(),
            webhook_url: self.webhook_url.as_deref(),
            data: json,
        };
        serde_json::to_vec(&event).map_err(|error| error.to_string())
    }
}

/// The text of a file or of standard input, and what to call it.
fn read(file: Option<&Path>) -> Result<(String, String), Problem> {
    let Some(path) = file.filter(|path| *path != Path::new("-")) else {
        let mut text = String::new();
        return std::io::stdin()
            .read_to_string(&mut text)
            .map(|_| (text, "standard input".to_owned()))
            .map_err(|error| format!("cannot read standard input: {error}"));
    };
    let name = path.display().to_string();
    std::fs::read_to_string(path)
        .map_err(|error| format!("cannot read {name}: {error}"))
        .map(|text| (text, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> EventArgs {
        EventArgs {
            file: None,
            event_type: Some("order.paid".to_owned()),
            data: Some(r#"{"total": 19.990}"#.to_owned()),
            attributes: Vec::new(),
            id: None,
            ordering_key: None,
            webhook_url: None,
        }
    }

    #[test]
    fn data_is_sent_byte_for_byte() {
        let body = String::from_utf8(args().body().unwrap()).unwrap();
        assert_eq!(body, r#"{"type":"order.paid","data":{"total": 19.990}}"#);
    }

    #[test]
    fn what_is_given_is_sent() {
        let args = EventArgs {
            attributes: vec![("region".to_owned(), "eu".to_owned())],
            id: Some("order-1".to_owned()),
            ordering_key: Some("ada".to_owned()),
            webhook_url: Some("https://example.com/hook".to_owned()),
            ..args()
        };
        let body: serde_json::Value = serde_json::from_slice(&args.body().unwrap()).unwrap();
        assert_eq!(body["id"], "order-1");
        assert_eq!(body["attributes"]["region"], "eu");
        assert_eq!(body["ordering_key"], "ada");
        assert_eq!(body["webhook_url"], "https://example.com/hook");
    }

    #[test]
    fn broken_json_is_found_before_sending() {
        let args = EventArgs { data: Some("{\"a\":}".to_owned()), ..args() };
        let problem = args.body().unwrap_err();
        assert!(problem.starts_with("--data is not JSON: "), "{problem}");
    }
}
