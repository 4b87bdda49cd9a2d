//! Rendering: the bodies that need no plugin, and a request with its webhook's URL and headers.

use bytes::Bytes;
use url::Url;

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

/// Where a request goes: the webhook's URL with the request's path suffix and query.
pub(super) fn url(webhook: &Webhook, request: &Request) -> Url {
    let mut url = webhook.definition.url.clone();
    if !request.path_suffix.is_empty() {
        let base = url.path().trim_end_matches('/');
        let path = format!("{base}/{}", request.path_suffix.trim_start_matches('/'));
        url.set_path(&path);
    }
    if !request.query.is_empty() {
        url.query_pairs_mut().extend_pairs(&request.query);
    }
    url
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::deliver::Schedule;
    use crate::snapshot::{
        OnDead, OnPluginFailure, Ordering, PluginSet, Snapshot, TenantDefinition, WebhookDefinition,
    };
    use crate::transform::Secrets;

    fn webhook(url: &str) -> Arc<Webhook> {
        let definition = WebhookDefinition {
            name: "it".to_owned(),
            url: Url::parse(url).unwrap(),
            event_types: Vec::new(),
            plugins: Vec::new(),
            secrets: Vec::new(),
            headers: vec![
                ("authorization".to_owned(), "Bearer abc".to_owned()),
                ("x-team".to_owned(), "blue".to_owned()),
            ],
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
            name: "acme".to_owned(),
            keys: Vec::new(),
            plugins: Vec::new(),
            rate_limit: None,
            secrets: Secrets::default(),
            webhooks: vec![definition],
        };
        let id = crate::digest::Digest::of_parts(&[b"acme", b"it"]).short();
        let id = crate::delivery::WebhookId(format!("wh_{id}").into());
        Arc::clone(Snapshot::new(vec![tenant], PluginSet::default()).webhook(&id).unwrap())
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
            assert_eq!(url(&webhook(base), &request(suffix, query)).as_str(), expected);
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
