//! Rendering: the bodies that need no plugin, and a request with its webhook's URL and headers.

use bytes::Bytes;
use url::Url;

use crate::deliver::Credentials;
use crate::delivery::Request;
use crate::event::Event;
use crate::sign;
use crate::snapshot::{BodyForm, Webhook};

/// The request for a webhook without plugins.
pub(super) fn plain(event: &Event, form: BodyForm) -> Request {
    match form {
        BodyForm::Data => Request::json(event.data.clone()),
        BodyForm::Envelope => {
            // Types and timestamps hold nothing that JSON would escape.
            let body = format!(
                r#"{{"type":"{}","timestamp":"{}","data":{}}}"#,
                event.event_type,
                event.timestamp,
                event.data_text()
            );
            Request::json(Bytes::from(body))
        }
        BodyForm::CloudEvent => {
            // Nor do ids and tenant names.
            let body = format!(
                r#"{{"specversion":"1.0","id":"{}","source":"/tenants/{}","type":"{}","time":"{}","datacontenttype":"application/json","data":{}}}"#,
                event.id,
                event.tenant,
                event.event_type,
                event.timestamp,
                event.data_text()
            );
            let mut request = Request::json(Bytes::from(body));
            "application/cloudevents+json".clone_into(&mut request.content_type);
            request
        }
    }
}

/// Where a request goes: the webhook's URL, or the event's own, with the request's path suffix and query. None
/// where neither is there.
pub(super) fn url(webhook: &Webhook, event: &Event, request: &Request) -> Option<Url> {
    let mut url = base(webhook, event)?.clone();
    if !request.path_suffix.is_empty() {
        let base = url.path().trim_end_matches('/');
        let path = format!("{base}/{}", request.path_suffix.trim_start_matches('/'));
        url.set_path(&path);
    }
    if !request.query.is_empty() {
        url.query_pairs_mut().extend_pairs(&request.query);
    }
    Some(url)
}

/// The webhook's URL, or the event's own.
fn base<'a>(webhook: &'a Webhook, event: &'a Event) -> Option<&'a Url> {
    webhook.definition.url.as_ref().or(event.webhook_url.as_ref())
}

/// The headers of an attempt: the webhook's, the request's over them, and the signature's.
pub(super) fn headers(
    webhook: &Webhook,
    request: &Request,
    message_id: &str,
    timestamp: i64,
) -> Vec<(String, String)> {
    let changed = |name: &String| {
        request.removed_headers.contains(name) || request.headers.iter().any(|(set, _)| set == name)
    };
    let definition = &webhook.definition;
    let mut headers: Vec<_> =
        definition.headers.iter().filter(|(name, _)| !changed(name)).cloned().collect();
    headers.extend(request.headers.iter().cloned());
    headers.push(("content-type".to_owned(), request.content_type.clone()));
    headers.push((sign::ID_HEADER.to_owned(), message_id.to_owned()));
    headers.push((sign::TIMESTAMP_HEADER.to_owned(), timestamp.to_string()));
    let signature = sign::signature(&definition.secrets, message_id, timestamp, &request.body);
    headers.extend(signature.map(|value| (sign::SIGNATURE_HEADER.to_owned(), value)));
    headers
}

/// The shortest part of a URL that is taken for a credential, in bytes: some receivers know their callers by
/// nothing else.
const MIN_TOKEN: usize = 16;

/// What requests to the webhook carry that must not go on record.
pub(super) fn credentials(webhook: &Webhook, event: &Event, request: &Request) -> Credentials {
    let definition = &webhook.definition;
    let mut credentials = Credentials::default();
    let of_plugins = request.headers.iter().filter(|(name, _)| name == "authorization");
    for (name, value) in definition.headers.iter().chain(of_plugins) {
        credentials.add(format!("header {name}"), value);
        // What follows a scheme, such as `Bearer`, is what has to be kept.
        if let Some((_, value)) = value.split_once(' ') {
            credentials.add(format!("header {name}"), value);
        }
    }
    if let Some(connection) = &definition.connection {
        connection.credentials(&mut credentials);
    }
    for (name, value) in webhook.plugin_secrets.pairs() {
        credentials.add(format!("secret {name}"), value);
    }
    if let Some(url) = base(webhook, event) {
        let parameters = url.query().into_iter().flat_map(|query| query.split(['&', '=']));
        let segments = url.path().split('/');
        for part in segments.chain(parameters).filter(|part| part.len() >= MIN_TOKEN) {
            credentials.add("part of the URL", part);
        }
    }
    credentials
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use jiff::Timestamp;

    use super::*;
    use crate::deliver::Schedule;
    use crate::event::{EventId, EventType};
    use crate::snapshot::{
        OnDead, OnPluginFailure, Ordering, PluginSet, Snapshot, TenantDefinition, WebhookDefinition,
    };
    use crate::transform::Secrets;

    fn webhook(url: &str) -> Arc<Webhook> {
        let definition = WebhookDefinition {
            name: "it".to_owned(),
            url: Some(Url::parse(url).unwrap()),
            event_types: Vec::new(),
            plugins: Vec::new(),
            secrets: Vec::new(),
            headers: vec![
                ("authorization".to_owned(), "Bearer abc".to_owned()),
                ("x-team".to_owned(), "blue".to_owned()),
            ],
            auth: None,
            connection: None,
            body: BodyForm::Envelope,
            timeout: Duration::from_secs(1),
            retry: Schedule::default(),
            on_plugin_failure: OnPluginFailure::Retry,
            ordering: Ordering::None,
            on_dead: OnDead::Skip,
            concurrency: 1,
            rate_limit: None,
            active: true,
            metadata: Vec::new(),
        };
        let tenant = TenantDefinition {
            retention: crate::snapshot::Retention::default(),
            max_backlog: 1,
            name: "acme".to_owned(),
            keys: Vec::new(),
            plugins: Vec::new(),
            rate_limit: None,
            secrets: Secrets::default(),
            webhooks: vec![definition],
            ad_hoc: None,
        };
        let id = crate::digest::Digest::of_parts(&[b"acme", b"it"]).short();
        let id = crate::delivery::WebhookId(format!("wh_{id}").into());
        Arc::clone(Snapshot::new(vec![tenant], PluginSet::default()).webhook(&id).unwrap())
    }

    fn event() -> Event {
        Event {
            tenant: "acme".into(),
            id: EventId::generate(),
            event_type: EventType::parse("a").unwrap(),
            timestamp: Timestamp::UNIX_EPOCH,
            accepted_at: Timestamp::UNIX_EPOCH,
            data: Bytes::new(),
            attributes: Vec::new(),
            ordering_key: None,
            webhook_url: Some(Url::parse("https://of-the-event.example/").unwrap()),
        }
    }

    fn request(path_suffix: &str, query: &[(&str, &str)]) -> Request {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Request {
            path_suffix: path_suffix.to_owned(),
            query: query.iter().map(pair).collect(),
            ..Request::json(Bytes::new())
        }
    }

    #[test]
    fn a_plugin_changes_path_and_query_and_never_the_host() {
        for (base, suffix, query, expected) in [
            ("https://a.example/hook", "", &[][..], "https://a.example/hook"),
            (
                "https://a.example/hook?k=1",
                "",
                &[("q", "a b&ü")],
                "https://a.example/hook?k=1&q=a+b%26%C3%BC",
            ),
            ("https://a.example/hook/", "orders/7", &[], "https://a.example/hook/orders/7"),
            ("https://a.example", "/orders", &[], "https://a.example/orders"),
            (
                "https://a.example/hook",
                "//evil.example/x",
                &[],
                "https://a.example/hook/evil.example/x",
            ),
            (
                "https://a.example/hook",
                "@evil.example",
                &[],
                "https://a.example/hook/@evil.example",
            ),
        ] {
            let url = url(&webhook(base), &event(), &request(suffix, query));
            assert_eq!(url.as_ref().map(Url::as_str), Some(expected));
        }
    }

    #[test]
    fn a_plugins_headers_go_over_the_webhooks() {
        let mut request = request("", &[]);
        request.headers = vec![("x-team".to_owned(), "red".to_owned())];
        request.removed_headers = vec!["authorization".to_owned()];
        let headers = headers(&webhook("https://a.example/"), &request, "evt_1", 7);
        let headers: Vec<_> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(
            headers,
            [
                ("x-team", "red"),
                ("content-type", "application/json"),
                ("webhook-id", "evt_1"),
                ("webhook-timestamp", "7"),
            ]
        );
    }
}
