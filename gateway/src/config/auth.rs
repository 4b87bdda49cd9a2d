//! `auth` of a webhook: how its requests are authenticated beside the signature.

use std::sync::Arc;

use super::deliver;
use super::headers::{header_name, header_value};
use super::secret::required_secret;
use super::section::Section;
use super::values::{choice, non_empty, parsed};
use crate::deliver::{Auth, TokenConfig, TokenSource};

#[derive(Clone, Copy)]
enum Type {
    Bearer,
    Basic,
    Header,
    OAuth2,
}

const TYPES: &[(&str, Type)] = &[
    ("bearer", Type::Bearer),
    ("basic", Type::Basic),
    ("header", Type::Header),
    ("oauth2", Type::OAuth2),
];

/// Where an authorization server wants a client's id and secret: whether in the body.
const CLIENT_AUTH: &[(&str, bool)] = &[("basic", false), ("body", true)];

/// Reads `auth` of a webhook that sends these headers already.
pub(super) fn auth(
    webhook: &mut Section<'_>,
    headers: &[(String, String)],
    deliver: &deliver::Config,
) -> Option<Arc<Auth>> {
    let auth = webhook.optional_section("auth", |section| read(section, deliver)).flatten()?;
    let name = auth.header();
    if headers.iter().any(|(set, _)| set == name) {
        let message = format!("sets the header `{name}`, as `headers` does; keep one of the two");
        return webhook.refuse("auth", message);
    }
    Some(Arc::new(auth))
}

fn read(section: &mut Section<'_>, deliver: &deliver::Config) -> Option<Auth> {
    let (form, _) = section.required("type", "\"bearer\"", choice(TYPES))?;
    let example = "{ env = \"RECEIVER_TOKEN\" }";
    match form {
        Type::Bearer => {
            let token = required_secret(section, "token", example, header_value)?;
            Some(Auth::bearer(&token))
        }
        Type::Basic => {
            // RFC 7617, section 2: the first colon ends the name.
            let username = section.required("username", "\"hookmill\"", |node| {
                let name = non_empty(node)?;
                if name.contains(':') { Err("has a colon".to_owned()) } else { Ok(name) }
            });
            let owned = |text: &str| Ok(text.to_owned());
            let password = required_secret(section, "password", example, owned);
            Some(Auth::basic(&username?.0, &password?))
        }
        Type::Header => {
            let name = section.required("name", "\"x-api-key\"", parsed(header_name));
            let value = required_secret(section, "value", example, header_value);
            Some(Auth::Header { name: name?.0, value: value? })
        }
        Type::OAuth2 => {
            let example_url = "\"https://auth.example.com/token\"";
            let url = section.required(
                "token_url",
                example_url,
                parsed(|text| deliver.addresses.parse_url(text)),
            );
            let client_id = section.required("client_id", "\"hookmill\"", non_empty);
            let owned = |text: &str| Ok(text.to_owned());
            let client_secret = required_secret(section, "client_secret", example, owned);
            let scope = section.optional("scope", non_empty);
            let audience = section.optional("audience", non_empty);
            let in_body = section.optional("client_auth", choice(CLIENT_AUTH)).unwrap_or(false);
            Some(Auth::OAuth2(Box::new(TokenSource::new(TokenConfig {
                url: url?.0,
                client_id: client_id?.0,
                client_secret: client_secret?,
                scope,
                audience,
                in_body,
            }))))
        }
    }
}
