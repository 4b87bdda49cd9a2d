//! `[[tenants]]`: who may send events, and the webhooks that get them.

use std::collections::HashMap;

use super::auth::auth;
use super::connection::{Connections, connection};
use super::flow::rate_limit;
use super::grants::secret_name;
use super::headers::headers;
use super::item::Item;
use super::json::json_text;
use super::reader::Place;
use super::secret::secret;
use super::section::Section;
use super::tree::Node;
use super::values::{
    DAY, HOUR, MILLISECOND, choice, count, duration, flag, lower_case_name, name, parsed, text,
    wrong,
};
use super::{MAX_BACKLOG, MAX_CONCURRENCY, deliver, pipeline, retention};
use crate::route::Glob;
use crate::sign::Secret;
use crate::snapshot::{
    BodyForm, Canary, KeyHash, OnDead, OnPluginFailure, Ordering, PluginUse, Share,
    TenantDefinition, Version, WebhookDefinition,
};

/// The most retries of a schedule.
const MAX_RETRIES: usize = 100;

/// The config of a plugin that was given none.
const NO_CONFIG: &str = "{}";

const BODY_FORMS: &[(&str, BodyForm)] = &[
    ("envelope", BodyForm::Envelope),
    ("data", BodyForm::Data),
    ("cloudevent", BodyForm::CloudEvent),
];

const ON_PLUGIN_FAILURE: &[(&str, OnPluginFailure)] = &[
    ("retry", OnPluginFailure::Retry),
    ("drop", OnPluginFailure::Drop),
    ("dead", OnPluginFailure::Dead),
];

const ORDERINGS: &[(&str, Ordering)] =
    &[("none", Ordering::None), ("fifo", Ordering::Fifo), ("key", Ordering::Key)];

const ON_DEAD: &[(&str, OnDead)] = &[("skip", OnDead::Skip), ("block", OnDead::Block)];

/// What webhooks get from the settings that are not theirs alone.
pub(super) struct Surroundings<'a> {
    pub(super) deliver: &'a deliver::Config,
    pub(super) pipeline: &'a pipeline::Config,
}

/// Reads the tenants; none at all is possible, and then no event is accepted.
pub(super) fn tenants(root: &mut Section<'_>, around: &Surroundings<'_>) -> Vec<TenantDefinition> {
    let mut names = HashMap::new();
    let mut keys = HashMap::new();
    let mut connections = Connections::default();
    let tenants = root.list("tenants", "tables", |item| {
        item.section(|section| tenant(section, around, &mut names, &mut keys, &mut connections))?
    });
    tenants.unwrap_or_default()
}

fn tenant(
    section: &mut Section<'_>,
    around: &Surroundings<'_>,
    names: &mut HashMap<String, Place>,
    keys: &mut HashMap<KeyHash, Place>,
    connections: &mut Connections,
) -> Option<TenantDefinition> {
    let name = unique_name(section, "\"acme\"", names, lower_case_name);
    let example = "[{ env = \"ACME_KEY\" }]";
    let api_keys = section.required_list("keys", example, "API keys", |item| {
        secret(item, |text, place| api_key(text, place, keys))
    });
    let plugins = plugins(section);
    let rate_limit = rate_limit(section);
    let secrets = section.map("secrets", str::to_owned, |name, item| {
        let name = match secret_name(name) {
            Ok(name) => name,
            Err(message) => return item.refuse(|_| message),
        };
        Some((name, secret(item, |value, _| Ok(value.to_owned()))?))
    });
    let retention = section.section("retention", |section| {
        retention::for_one(section, &around.pipeline.retention.tenants)
    });
    let max_backlog = section.optional("max_backlog", count(1..=MAX_BACKLOG));
    let mut webhook_names = HashMap::new();
    let webhooks = section.list("webhooks", "tables", |item| {
        item.section(|section| webhook(section, around, &mut webhook_names, connections))?
    });
    let ad_hoc = section.optional_section("ad_hoc", |section| WebhookDefinition {
        name: WebhookDefinition::AD_HOC.to_owned(),
        active: true,
        ..settings(section, around, connections)
    });
    Some(TenantDefinition {
        name: name?,
        keys: api_keys?,
        plugins,
        rate_limit,
        secrets: secrets.into_iter().collect(),
        retention,
        max_backlog: max_backlog.unwrap_or(around.pipeline.tenant_max_backlog),
        webhooks: webhooks.unwrap_or_default(),
        ad_hoc,
    })
}

/// Reads `name`, which no other element of the list may have.
fn unique_name(
    section: &mut Section<'_>,
    example: &str,
    names: &mut HashMap<String, Place>,
    parse: fn(&Node) -> Result<String, String>,
) -> Option<String> {
    let (name, place) = section.required("name", example, parse)?;
    if let Some(first) = names.get(&name) {
        let message = format!("is {name:?}, as is {}; names are unique", first.show());
        return section.reader.refuse(&place, message);
    }
    names.insert(name.clone(), place);
    Some(name)
}

/// Checks an API key. It is compared by its hash, and it never stands in a message.
fn api_key(
    text: &str,
    place: &Place,
    keys: &mut HashMap<KeyHash, Place>,
) -> Result<KeyHash, String> {
    const HOW: &str = "`openssl rand -hex 24` makes a good one";
    if text.len() < KeyHash::MIN_LEN {
        return Err(format!(
            "is a key of {} bytes; at least {} are needed; {HOW}",
            text.len(),
            KeyHash::MIN_LEN
        ));
    }
    // Clients send the key in a header.
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(format!("is a key with a space or a character outside ASCII; {HOW}"));
    }
    let key = KeyHash::of(text);
    if let Some(first) = keys.get(&key) {
        return Err(format!("is the same key as {}; a key is given once", first.show()));
    }
    keys.insert(key, place.clone());
    Ok(key)
}

fn webhook(
    section: &mut Section<'_>,
    around: &Surroundings<'_>,
    names: &mut HashMap<String, Place>,
    connections: &mut Connections,
) -> Option<WebhookDefinition> {
    let name = unique_name(section, "\"orders\"", names, name);
    let example = "\"https://example.com/hook\"";
    let url =
        section.required("url", example, parsed(|text| around.deliver.addresses.parse_url(text)));
    let event_types = event_types(section);
    let active = section.optional("active", flag);
    let settings = settings(section, around, connections);
    Some(WebhookDefinition {
        name: name?,
        url: Some(url?.0),
        event_types: event_types?,
        active: active.unwrap_or(true),
        ..settings
    })
}

/// What a webhook and the ad-hoc webhook share: how requests are made, signed and sent.
fn settings(
    section: &mut Section<'_>,
    around: &Surroundings<'_>,
    connections: &mut Connections,
) -> WebhookDefinition {
    let plugins = plugins(section);
    let secrets =
        section.list("secrets", "secrets", |item| secret(item, |text, _| Secret::parse(text)));
    let headers = headers(section);
    let auth = auth(section, &headers, around.deliver);
    let connection = connection(section, connections);
    let body = section.optional("body", choice(BODY_FORMS));
    let timeout = section.optional("timeout", duration(MILLISECOND..=HOUR));
    let retry = retry(section);
    let on_plugin_failure = section.optional("on_plugin_failure", choice(ON_PLUGIN_FAILURE));
    let ordering = section.optional("ordering", choice(ORDERINGS));
    let on_dead = section.optional("on_dead", choice(ON_DEAD));
    let concurrency = section.optional("concurrency", count(1..=MAX_CONCURRENCY));
    let rate_limit = rate_limit(section);
    let metadata = section.map("metadata", str::to_owned, |key, item| {
        let (value, _) = item.read(text)?;
        Some((key.to_owned(), value))
    });
    WebhookDefinition {
        name: String::new(),
        url: None,
        event_types: Vec::new(),
        plugins,
        secrets: secrets.unwrap_or_default(),
        headers,
        auth,
        connection,
        body: body.unwrap_or(BodyForm::Envelope),
        timeout: timeout.unwrap_or(around.deliver.timeout),
        retry,
        on_plugin_failure: on_plugin_failure.unwrap_or(OnPluginFailure::Retry),
        ordering: ordering.unwrap_or(Ordering::None),
        on_dead: on_dead.unwrap_or(OnDead::Skip),
        concurrency: concurrency.unwrap_or(around.pipeline.webhook_concurrency),
        rate_limit,
        active: false,
        metadata,
    }
}

fn event_types(section: &mut Section<'_>) -> Option<Vec<Glob>> {
    let example = "[\"order.*\"]`, or for all events `event_types = [\"*\"]";
    section.required_list("event_types", example, "strings", |item| {
        Some(item.read(parsed(Glob::parse))?.0)
    })
}

fn retry(section: &mut Section<'_>) -> deliver::Schedule {
    let delays = section.list("retry", "durations such as \"5s\"", |item| {
        Some(item.read(duration(MILLISECOND..=30 * DAY))?.0)
    });
    match delays {
        Some(delays) if delays.len() > MAX_RETRIES => {
            let message = format!("has {} delays; at most {MAX_RETRIES} are allowed", delays.len());
            section.refuse::<()>("retry", message);
            deliver::Schedule::default()
        }
        Some(delays) => deliver::Schedule::new(delays),
        None => deliver::Schedule::default(),
    }
}

/// Reads a chain of plugins; one may stand in it more than once.
fn plugins(section: &mut Section<'_>) -> Vec<PluginUse> {
    let plugins = section.list("plugins", "plugins", plugin);
    plugins.unwrap_or_default()
}

fn plugin(item: Item<'_>) -> Option<PluginUse> {
    if item.text().is_some() {
        let (name, place) = item.read(name)?;
        return Some(PluginUse {
            name,
            version: Version::Latest,
            canary: None,
            config: NO_CONFIG.to_owned(),
            place: place.line(),
        });
    }
    if !item.is_table() {
        return item.refuse(|node| wrong(node, "a name or a table"));
    }
    item.section(|section| {
        let name = section.required("name", "\"redact\"", name);
        let version = section.optional("version", parsed(Version::parse)).unwrap_or_default();
        let canary = canary(section, &version);
        let config = section.optional("config", json_text);
        let config = config.unwrap_or_else(|| NO_CONFIG.to_owned());
        Some(PluginUse { name: name?.0, version, canary, config, place: section.place.line() })
    })?
}

/// Reads the version that a share of the events goes to, beside the `stable` one.
fn canary(section: &mut Section<'_>, stable: &Version) -> Option<Canary> {
    section.optional_section("canary", |section| {
        let version = section.required("version", "\"latest\"", parsed(Version::parse));
        let share = section.required("share", "\"5%\"", parsed(Share::parse));
        let (version, place) = version?;
        if version == *stable {
            let message = format!(
                "is {:?}, which all other events go to as well; pin the stable version beside `canary`, \
                 or name another one here",
                version.to_string()
            );
            return section.reader.refuse(&place, message);
        }
        Some(Canary { version, share: share?.0 })
    })?
}
