//! `tls` and `proxy` of a webhook: how connections to its receiver are made.

use std::collections::HashMap;
use std::sync::Arc;

use super::secret::required_secret;
use super::section::Section;
use super::values::{MIB, non_empty, parsed, show_size};
use crate::deliver::{Connection, Identity, Proxy, Roots};
use crate::digest::Digest;

/// The largest file of certificates; a system's whole store has a quarter of it.
const MAX_FILE_BYTES: u64 = MIB;

/// The settings of connections so far: webhooks with the same ones share their connections.
#[derive(Default)]
pub(super) struct Connections(HashMap<Digest, Arc<Connection>>);

/// A file that was named, with what is in it.
struct Content {
    name: String,
    bytes: Vec<u8>,
}

/// Reads `tls` and `proxy` of a webhook; none when it has neither.
pub(super) fn connection(
    webhook: &mut Section<'_>,
    known: &mut Connections,
) -> Option<Arc<Connection>> {
    let mut parts = Vec::new();
    let tls = webhook.optional_section("tls", |tls| read_tls(tls, &mut parts));
    let (roots, identity) = tls.unwrap_or_default();
    let proxy = webhook.optional_section("proxy", |proxy| read_proxy(proxy, &mut parts)).flatten();
    if parts.is_empty() {
        return None;
    }
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    let digest = Digest::of_parts(&parts);
    let made = || Arc::new(Connection::new(roots, identity, proxy));
    Some(Arc::clone(known.0.entry(digest).or_insert_with(made)))
}

/// Reads whom to trust and who the gateway is; `parts` gets what tells these settings from others.
fn read_tls(tls: &mut Section<'_>, parts: &mut Vec<Vec<u8>>) -> (Option<Roots>, Option<Identity>) {
    let authorities = content(tls, "ca_file");
    let certificate = content(tls, "client_cert_file");
    let key = content(tls, "client_key_file");
    let mut part = |label: &str, content: &Content| {
        parts.extend([label.as_bytes().to_vec(), content.bytes.clone()]);
    };
    let roots = authorities.and_then(|file| {
        part("ca", &file);
        match Roots::parse(&file.bytes) {
            Ok(roots) => Some(roots),
            Err(why) => tls.refuse("ca_file", format!("{} {why}", file.name)),
        }
    });
    let beside = |missing| format!("is missing beside `{missing}`; a certificate needs its key");
    let identity = match (certificate, key) {
        (Some(certificate), Some(key)) => {
            part("certificate", &certificate);
            part("key", &key);
            match Identity::parse(&certificate.bytes, &key.bytes) {
                Ok(identity) => Some(identity),
                Err((true, why)) => tls.refuse("client_key_file", format!("{} {why}", key.name)),
                Err((false, why)) => {
                    tls.refuse("client_cert_file", format!("{} {why}", certificate.name))
                }
            }
        }
        (Some(_), None) if !tls.reader.has_problem(&tls.place.entry("client_key_file")) => {
            tls.refuse("client_key_file", beside("client_cert_file"))
        }
        (None, Some(_)) if !tls.reader.has_problem(&tls.place.entry("client_cert_file")) => {
            tls.refuse("client_cert_file", beside("client_key_file"))
        }
        _ => None,
    };
    (roots, identity)
}

/// The content of the file that a setting names.
fn content(tls: &mut Section<'_>, key: &'static str) -> Option<Content> {
    let file = tls.optional(key, non_empty)?;
    let (path, bytes) = tls.reader.read_file(&file, MAX_FILE_BYTES);
    let name = path.display().to_string();
    match bytes {
        Err(error) => tls.refuse(key, format!("{name} cannot be read: {error}")),
        Ok(bytes) if bytes.len() as u64 > MAX_FILE_BYTES => {
            tls.refuse(key, format!("{name} is larger than {}", show_size(MAX_FILE_BYTES)))
        }
        Ok(bytes) => Some(Content { name, bytes }),
    }
}

/// Reads a proxy; `parts` gets what tells it from others.
fn read_proxy(section: &mut Section<'_>, parts: &mut Vec<Vec<u8>>) -> Option<Proxy> {
    const LONGEST: usize = 255;
    let example = "\"http://proxy.internal:3128\"";
    let url =
        section.required("url", example, parsed(|text| Ok((text.to_owned(), Proxy::parse(text)?))));
    // A SOCKS proxy gets either behind its length in one byte.
    let short = |text: String| match text.len() {
        0..=LONGEST => Ok(text),
        len => Err(format!("is {len} bytes long; at most {LONGEST} are possible")),
    };
    let username = section.optional("username", |node| short(non_empty(node)?));
    let login = match username {
        Some(username) => {
            let example = "{ env = \"PROXY_PASSWORD\" }";
            let password =
                required_secret(section, "password", example, |text| short(text.to_owned()))?;
            Some((username, password))
        }
        None => None,
    };
    let ((text, proxy), _) = url?;
    parts.extend(["proxy", &text].map(|part| part.as_bytes().to_vec()));
    if let Some((username, password)) = &login {
        parts.extend([username, password].map(|part| part.as_bytes().to_vec()));
    }
    Some(proxy.with_login(login))
}
