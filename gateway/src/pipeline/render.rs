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
