//! What `try` and `bench` run: a plugin, an event and a config, from files, standard input and arguments.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::Problem;
use super::sandbox::Sandbox;
use crate::delivery::{DeliveryId, WebhookId};
use crate::event::{Event, EventId, EventType, to_microsecond};
use crate::transform::{Mocks, Plugin, Recipient, StandIn, Step};

/// What is run.
#[derive(Debug, clap::Args)]
pub(super) struct CallArgs {
    /// The plugin's file. NAME.toml beside it sets its limits and grants, as in a gateway's folder.
    #[arg(value_name = "FILE.wasm")]
    file: PathBuf,

    /// A JSON file with the event's data alone, or with --whole the whole event; `-` is standard input.
    #[arg(long, value_name = "FILE.json")]
    event: PathBuf,

    /// The file of --event holds a whole event, as POST /v1/events takes it: `type`, `data`, and if wanted
    /// `id`, `timestamp` and `attributes`.
    #[arg(long, conflicts_with = "event_type")]
    whole: bool,

    /// A JSON file with the plugin's config; `-` is standard input. [default: {}]
    #[arg(long, value_name = "FILE.json")]
    config: Option<PathBuf>,

    /// The event's type.
    #[arg(long = "type", value_name = "TYPE", default_value = "order.paid")]
    event_type: String,

    /// The tenant that the event belongs to.
    #[arg(long, value_name = "NAME", default_value = "acme")]
    tenant: String,

    /// A secret of the tenant, which the plugin sees where it is granted; may be given more than once.
    #[arg(long = "secret", value_name = "NAME=VALUE", value_parser = GivenSecret::parse)]
    secrets: Vec<GivenSecret>,

    /// A JSON file with what the plugin keeps already, as {"key": "value"}. What it changes is gone afterwards.
    #[arg(long, value_name = "FILE.json")]
    kv: Option<PathBuf>,

    /// A JSON file with what servers answer, as [{"url": "https://…", "status": 200, "json": …}], which is a
    /// fixture's `http`. Nothing is sent: a request that no answer is for fails, and the failure names it.
    #[arg(long, value_name = "FILE.json")]
    http: Option<PathBuf>,
}

/// A secret, as an argument.
#[derive(Clone)]
struct GivenSecret {
    name: String,
    value: String,
}

impl GivenSecret {
    fn parse(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => {
                Ok(Self { name: name.to_owned(), value: value.to_owned() })
            }
            _ => Err("write it as NAME=VALUE".to_owned()),
        }
    }
}

impl fmt::Debug for GivenSecret {
    /// The name alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GivenSecret").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What the files and standard input hold.
#[derive(Debug)]
pub(super) struct Input {
    file: PathBuf,
    event: Event,
    config: Arc<str>,
    mocks: Mocks,
}

/// A call that can be made, as often as wanted.
#[derive(Debug)]
pub(super) struct Call {
    /// The event.
    pub(super) event: Event,
    /// The plugin and its config: a chain of one.
    pub(super) steps: [Step; 1],
    /// What the plugin finds in place of the store and servers.
    pub(super) stand_in: StandIn,
    webhook: WebhookId,
}

impl CallArgs {
    /// Reads everything but the plugin. Waits for standard input, so it should hold nothing that has to be
    /// cleared away.
    pub(super) fn read(&self) -> Result<Input, Problem> {
        self.check_stdin()?;
        let event = self.event()?;
        let config = match &self.config {
            Some(path) => read_json(path)?.trim().into(),
            None => "{}".into(),
        };
        let secrets = self.secrets.iter();
        let mocks = Mocks {
            secrets: secrets.map(|it| (it.name.clone(), it.value.clone())).collect(),
            kv: self.kv.as_deref().map(read_as).transpose()?.unwrap_or_default(),
            http: self.http.as_deref().map(read_as).transpose()?.unwrap_or_default(),
        };
        Ok(Input { file: self.file.clone(), event, config, mocks })
    }

    /// Standard input can be read once.
    fn check_stdin(&self) -> Result<(), Problem> {
        let files = [
            ("--event", Some(&self.event)),
            ("--config", self.config.as_ref()),
            ("--kv", self.kv.as_ref()),
            ("--http", self.http.as_ref()),
        ];
        let mut stdin = files.iter().filter(|(_, file)| file.is_some_and(|file| is_stdin(file)));
        match (stdin.next(), stdin.next()) {
            (Some((first, _)), Some((second, _))) => {
                Err(format!("standard input cannot be both {first} and {second}"))
            }
            _ => Ok(()),
        }
    }

    fn event(&self) -> Result<Event, Problem> {
        let text = read_json(&self.event)?;
        let wrong = |why: &dyn fmt::Display| format!("{}: {why}", named(&self.event));
        let whole = match self.whole {
            true => serde_json::from_str(&text).map_err(|error| {
                let event = "it is no event as POST /v1/events takes it";
                wrong(&format!("{event}: {error}"))
            })?,
            false => Whole {
                event_type: self.event_type.clone(),
                data: RawValue::from_string(text).map_err(|error| wrong(&error))?,
                id: None,
                timestamp: None,
                attributes: BTreeMap::new(),
                ordering_key: None,
            },
        };
        whole.into_event(&self.tenant).map_err(|why| if self.whole { wrong(&why) } else { why })
    }
}

impl Input {
    /// Loads the plugin.
    pub(super) async fn load(self, sandbox: &Sandbox) -> Result<Call, Problem> {
        let Self { file, event, config, mocks } = self;
        let plugin = sandbox.load(sandbox.read(&file)?).await?;
        let stand_in = StandIn::new(&mocks, "--http");
        let plugin = Arc::new(stand_in.serve(&plugin)?);
        let webhook = WebhookId("wh_try".into());
        Ok(Call { event, steps: [Step { plugin, config }], stand_in, webhook })
    }
}

impl Call {
    /// The plugin.
    pub(super) fn plugin(&self) -> &Arc<Plugin> {
        let [step] = &self.steps;
        &step.plugin
    }

    /// The step.
    pub(super) fn step(&self) -> &Step {
        let [step] = &self.steps;
        step
    }

    /// For whom it runs: another delivery each time.
    pub(super) fn recipient(&self) -> Recipient<'_> {
        Recipient {
            webhook: &self.webhook,
            name: "try",
            metadata: &[],
            delivery: DeliveryId::generate(),
            secrets: self.stand_in.secrets(),
        }
    }
}

/// An event as a producer sends it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Whole {
    #[serde(rename = "type")]
    event_type: String,
    data: Box<RawValue>,
    id: Option<String>,
    timestamp: Option<Timestamp>,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
    ordering_key: Option<String>,
}

impl Whole {
    fn into_event(self, tenant: &str) -> Result<Event, Problem> {
        let id = self.id.map(|id| EventId::parse(&id)).transpose();
        let now = Timestamp::now();
        Ok(Event {
            tenant: tenant.into(),
            id: id.map_err(|why| format!("the id {why}"))?.unwrap_or_else(EventId::generate),
            event_type: EventType::parse(&self.event_type)
                .map_err(|why| format!("the type {why}"))?,
            timestamp: to_microsecond(self.timestamp.unwrap_or(now)),
            accepted_at: to_microsecond(now),
            data: Bytes::from(self.data.get().to_owned()),
            attributes: self.attributes.into_iter().collect(),
            ordering_key: self.ordering_key,
            webhook_url: None,
        })
    }
}

fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

/// What to call a file in messages.
fn named(path: &Path) -> String {
    if is_stdin(path) { "standard input".to_owned() } else { path.display().to_string() }
}

/// The text of a file or of standard input, which is JSON.
fn read_json(path: &Path) -> Result<String, Problem> {
    let name = named(path);
    let mut text = String::new();
    let read = match is_stdin(path) {
        true => std::io::stdin().read_to_string(&mut text).map(drop),
        false => std::fs::read_to_string(path).map(|read| text = read),
    };
    read.map_err(|error| format!("cannot read {name}: {error}"))?;
    serde_json::from_str::<&RawValue>(&text)
        .map_err(|error| format!("{name} is not JSON: {error}"))?;
    Ok(text)
}

/// What a file or standard input holds, in a certain form.
fn read_as<T: DeserializeOwned>(path: &Path) -> Result<T, Problem> {
    let text = read_json(path)?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", named(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(file: &Path, whole: bool) -> CallArgs {
        CallArgs {
            file: PathBuf::from("x.wasm"),
            event: file.to_owned(),
            whole,
            config: None,
            event_type: "order.paid".to_owned(),
            tenant: "acme".to_owned(),
            secrets: Vec::new(),
            kv: None,
            http: None,
        }
    }

    fn event(text: &str, whole: bool) -> Result<Event, Problem> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("event.json");
        std::fs::write(&file, text).unwrap();
        args(&file, whole).event()
    }

    #[test]
    fn the_data_alone_is_kept_digit_by_digit() {
        let event = event(" {\"total\": 1.50}\n", false).unwrap();
        assert_eq!(event.data_text(), "{\"total\": 1.50}");
        assert_eq!(event.event_type.as_str(), "order.paid");
    }

    #[test]
    fn a_whole_event_has_its_own_type() {
        let text = r#"{"type":"a.b","data":[1],"attributes":{"k":"v"},"timestamp":"2026-01-02T03:04:05Z"}"#;
        let event = event(text, true).unwrap();
        assert_eq!(event.event_type.as_str(), "a.b");
        assert_eq!(event.data_text(), "[1]");
        assert_eq!(event.attributes, [("k".to_owned(), "v".to_owned())]);
        assert_eq!(event.timestamp.to_string(), "2026-01-02T03:04:05Z");
    }

    #[test]
    fn a_secret_is_told_by_its_name_alone() {
        let secret = GivenSecret::parse("token=a=b").unwrap();
        assert_eq!((&*secret.name, &*secret.value), ("token", "a=b"));
        assert!(!format!("{secret:?}").contains("a=b"));
        assert!(GivenSecret::parse("token").is_err() && GivenSecret::parse("=x").is_err());
    }

    #[test]
    fn mistakes_are_named() {
        for (text, whole, expected) in [
            ("{", false, "is not JSON"),
            ("{}", true, "missing field `type`"),
            (r#"{"type":"a","dat":1}"#, true, "unknown field `dat`"),
            (r#"{"type":"a b","data":1}"#, true, "the type has the name \"a b\""),
            (r#"{"type":"a","data":1,"id":"."}"#, true, "the id has the character"),
        ] {
            let problem = event(text, whole).unwrap_err();
            assert!(problem.contains(expected) && problem.contains("event.json"), "{problem}");
        }
    }
}
