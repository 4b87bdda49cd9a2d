//! What a plugin returned, checked and made a request: nothing of it is trusted.

use bytes::Bytes;

use super::Limits;
use super::contract::hookmill::plugin::types::{Body, HeaderChange, Outgoing};
use crate::delivery::{Method, Request, is_header_name, is_header_value, reserved_header};

/// The longest content type, in bytes: twice what a registered one may have, for its parameters.
const MAX_CONTENT_TYPE_BYTES: usize = 512;

/// The requests that a `forward` verdict stands for.
///
/// # Errors
/// What is wrong, for the plugin's author.
pub(super) fn requests(parts: Vec<Outgoing>, limits: &Limits) -> Result<Vec<Request>, String> {
    if parts.is_empty() {
        return Err("forwarded nothing; to send nothing, answer `drop` with a reason".to_owned());
    }
    if parts.len() > limits.parts {
        return Err(format!("made {} parts; its limit is {}", parts.len(), limits.parts));
    }
    let size: usize = parts.iter().map(size).sum();
    if size > limits.output_bytes {
        return Err(format!("returned {size} bytes; its limit is {}", limits.output_bytes));
    }
    parts.into_iter().map(|part| request(part, limits)).collect()
}

/// The bytes of a part, as its limit counts them.
pub(super) fn size(part: &Outgoing) -> usize {
    let Outgoing { body, content_type, headers, method, path_suffix, query, extensions } = part;
    let body = match body {
        Body::Text(text) => text.len(),
        Body::Bytes(bytes) => bytes.len(),
    };
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    body + text(content_type)
        + headers_size(headers)
        + text(method)
        + text(path_suffix)
        + pairs_size(query)
        + pairs_size(extensions)
}

fn headers_size(headers: &[HeaderChange]) -> usize {
    let size = |change: &HeaderChange| match change {
        HeaderChange::Set((name, value)) => name.len() + value.len(),
        HeaderChange::Remove(name) => name.len(),
    };
    headers.iter().map(size).sum()
}

fn pairs_size(pairs: &[(String, String)]) -> usize {
    pairs.iter().map(|(name, value)| name.len() + value.len()).sum()
}

/// Refuses a part that has too much of anything but body.
fn check_extent(part: &Outgoing, limits: &Limits) -> Result<(), String> {
    let (headers, query) = (&part.headers, &part.query);
    if headers.len() > limits.headers {
        let count = headers.len();
        return Err(format!("changes {count} headers; its limit is {}", limits.headers));
    }
    let bytes = headers_size(headers);
    if bytes > limits.header_bytes {
        let limit = limits.header_bytes;
        return Err(format!("changes headers of {bytes} bytes; its limit is {limit}"));
    }
    if query.len() > limits.query_parameters {
        let (count, limit) = (query.len(), limits.query_parameters);
        return Err(format!("appends {count} query parameters; its limit is {limit}"));
    }
    let bytes = pairs_size(query) + part.path_suffix.as_ref().map_or(0, String::len);
    if bytes > limits.url_bytes {
        let limit = limits.url_bytes;
        return Err(format!("appends {bytes} bytes to the URL; its limit is {limit}"));
    }
    Ok(())
}

fn request(part: Outgoing, limits: &Limits) -> Result<Request, String> {
    check_extent(&part, limits)?;
    let (body, default_type) = match part.body {
        Body::Text(text) => (Bytes::from(text), "application/json"),
        Body::Bytes(bytes) => (Bytes::from(bytes), "application/octet-stream"),
    };
    let mut request = Request::json(body);
    request.content_type = part.content_type.unwrap_or_else(|| default_type.to_owned());
    let length = request.content_type.len();
    if length > MAX_CONTENT_TYPE_BYTES {
        return Err(format!(
            "sets a content type of {length} bytes; at most {MAX_CONTENT_TYPE_BYTES} are allowed"
        ));
    }
    if !is_header_value(&request.content_type) {
        return Err(format!("the content type {:?} is not one", request.content_type));
    }
    if let Some(name) = part.method {
        request.method = Method::parse(&name)
            .ok_or_else(|| format!("the method {name:?} is not POST, PUT or PATCH"))?;
    }
    request.path_suffix = part.path_suffix.unwrap_or_default();
    check_path(&request.path_suffix)?;
    request.query = part.query;
    for change in part.headers {
        apply(&mut request, change)?;
    }
    Ok(request)
}

fn apply(request: &mut Request, change: HeaderChange) -> Result<(), String> {
    let (HeaderChange::Set((name, _)) | HeaderChange::Remove(name)) = &change;
    let name = name.to_ascii_lowercase();
    if !is_header_name(&name) {
        return Err(format!("the header name {name:?} is not one"));
    }
    if let Some(why) = reserved_header(&name) {
        return Err(format!("the header `{name}` cannot be changed: {why}"));
    }
    request.headers.retain(|(set, _)| *set != name);
    request.removed_headers.retain(|removed| *removed != name);
    match change {
        HeaderChange::Set((_, value)) if !is_header_value(&value) => {
            Err(format!("the value of the header `{name}` has characters that no header may have"))
        }
        HeaderChange::Set((_, value)) => {
            request.headers.push((name, value));
            Ok(())
        }
        HeaderChange::Remove(_) => {
            request.removed_headers.push(name);
            Ok(())
        }
    }
}

/// A suffix stays below the webhook's own path: no way up, no query, no fragment.
fn check_path(suffix: &str) -> Result<(), String> {
    let allowed = |b: u8| b.is_ascii_graphic() && !matches!(b, b'?' | b'#' | b'\\');
    let up = suffix.split('/').any(|segment| {
        let plain = segment.to_ascii_lowercase().replace("%2e", ".");
        plain == "." || plain == ".."
    });
    // Half a code could become a whole one with what a later plugin appends.
    let is_code = |after: &str| {
        after.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2 && !is_slash(after)
    };
    let codes = suffix.split('%').skip(1).all(is_code);
    if !suffix.bytes().all(allowed) || up || !codes {
        return Err(format!(
            "the path suffix {suffix:?} is not one: no `..`, `?`, `#`, `\\`, space, control character, \
             encoded slash or half a code; percent-encode what is not ASCII"
        ));
    }
    Ok(())
}

/// Whether what stands after a `%` makes it a slash or a backslash.
fn is_slash(after: &str) -> bool {
    let code = after.get(..2).unwrap_or_default();
    code.eq_ignore_ascii_case("2f") || code.eq_ignore_ascii_case("5c")
}

/// What a later plugin made of the body of an earlier one: its own changes over the earlier one's.
pub(super) fn layered(before: &Request, mut after: Request) -> Request {
    let untouched = |name: &String, after: &Request| {
        !after.removed_headers.contains(name) && !after.headers.iter().any(|(set, _)| set == name)
    };
    let mut headers: Vec<_> =
        before.headers.iter().filter(|(name, _)| untouched(name, &after)).cloned().collect();
    let mut removed: Vec<_> =
        before.removed_headers.iter().filter(|name| untouched(name, &after)).cloned().collect();
    headers.append(&mut after.headers);
    removed.append(&mut after.removed_headers);
    let mut query = before.query.clone();
    query.append(&mut after.query);
    Request {
        method: if after.method == Method::Post { before.method } else { after.method },
        path_suffix: format!("{}{}", before.path_suffix, after.path_suffix),
        headers,
        removed_headers: removed,
        query,
        ..after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outgoing() -> Outgoing {
        Outgoing {
            body: Body::Text("{}".to_owned()),
            content_type: None,
            headers: Vec::new(),
            method: None,
            path_suffix: None,
            query: Vec::new(),
            extensions: Vec::new(),
        }
    }

    fn set(name: &str, value: &str) -> HeaderChange {
        HeaderChange::Set((name.to_owned(), value.to_owned()))
    }

    #[test]
    fn the_defaults_are_a_post_of_json() {
        let made = requests(vec![outgoing()], &Limits::default()).unwrap();
        assert_eq!(made, [Request::json(Bytes::from_static(b"{}"))]);
    }

    #[test]
    fn what_is_not_allowed_is_refused_by_name() {
        let limits = Limits { parts: 2, headers: 1, output_bytes: 64, ..Limits::default() };
        let with = |change: fn(&mut Outgoing)| {
            let mut part = outgoing();
            change(&mut part);
            requests(vec![part], &limits).unwrap_err()
        };
        assert!(requests(Vec::new(), &limits).unwrap_err().contains("forwarded nothing"));
        assert!(requests(vec![outgoing(); 3], &limits).unwrap_err().contains("made 3 parts"));
        for (message, expected) in [
            (with(|part| part.body = Body::Bytes(vec![0; 65])), "returned 65 bytes"),
            (with(|part| part.method = Some("DELETE".to_owned())), "\"DELETE\" is not POST"),
            (with(|part| part.content_type = Some("a\nb".to_owned())), "content type"),
            (with(|part| part.headers = vec![set("a", "1"), set("b", "2")]), "changes 2 headers"),
            (
                with(|part| part.headers = vec![set("Webhook-Signature", "v1,x")]),
                "cannot be changed",
            ),
            (with(|part| part.headers = vec![set("Host", "evil")]), "cannot be changed"),
            (with(|part| part.headers = vec![set("a b", "1")]), "is not one"),
            (with(|part| part.headers = vec![set("a", "1\r\nb: 2")]), "no header may have"),
            (with(|part| part.path_suffix = Some("/../admin".to_owned())), "path suffix"),
            (with(|part| part.path_suffix = Some("/%2E%2e/x".to_owned())), "path suffix"),
            (with(|part| part.path_suffix = Some("/a?b=c".to_owned())), "path suffix"),
            (with(|part| part.path_suffix = Some("/a%2fb".to_owned())), "path suffix"),
            (with(|part| part.path_suffix = Some("/a%5C..%5Cb".to_owned())), "path suffix"),
            (with(|part| part.path_suffix = Some("/a/%2".to_owned())), "path suffix"),
            (with(|part| part.path_suffix = Some("/a/%é".to_owned())), "path suffix"),
            (with(|part| part.path_suffix = Some("/a\r\nx: y".to_owned())), "path suffix"),
        ] {
            assert!(message.contains(expected), "{message} / {expected}");
        }
    }

    #[test]
    fn sizes_are_limited_one_by_one_and_together() {
        let limits = Limits {
            output_bytes: 2_000,
            headers: 3,
            header_bytes: 10,
            query_parameters: 2,
            url_bytes: 10,
            ..Limits::default()
        };
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let with = |change: &dyn Fn(&mut Outgoing)| {
            let mut part = outgoing();
            change(&mut part);
            requests(vec![part], &limits)
        };
        let most = |part: &mut Outgoing| {
            part.headers = vec![set("abc", "de"), set("fgh", "ij")];
            part.query = vec![pair("a", "b"), pair("c", "d")];
            part.path_suffix = Some("/efghi".to_owned());
            part.body = Body::Text("x".repeat(1_980));
        };
        assert!(with(&most).is_ok());
        let over = |change: &dyn Fn(&mut Outgoing)| {
            with(&|part| {
                most(part);
                change(part);
            })
            .unwrap_err()
        };
        for (message, expected) in [
            (
                over(&|part| {
                    part.body = Body::Text(String::new());
                    part.headers.push(HeaderChange::Remove("k".to_owned()));
                }),
                "changes headers of 11 bytes; its limit is 10",
            ),
            (
                over(&|part| part.query.push(pair("", ""))),
                "appends 3 query parameters; its limit is 2",
            ),
            (
                over(&|part| {
                    part.body = Body::Text(String::new());
                    part.path_suffix = Some("/efghij".to_owned());
                }),
                "appends 11 bytes to the URL; its limit is 10",
            ),
            (
                over(&|part| {
                    part.body = Body::Text(String::new());
                    part.content_type = Some("x".repeat(513));
                }),
                "sets a content type of 513 bytes; at most 512",
            ),
            (
                over(&|part| part.extensions.push(pair("x", "y"))),
                "returned 2002 bytes; its limit is 2000",
            ),
        ] {
            assert!(message.contains(expected), "{message} / {expected}");
        }
    }

    #[test]
    fn later_plugins_override_earlier_ones() {
        let mut before = Request::json(Bytes::from_static(b"1"));
        before.headers =
            vec![("x-a".to_owned(), "1".to_owned()), ("x-b".to_owned(), "1".to_owned())];
        before.removed_headers = vec!["x-c".to_owned(), "x-d".to_owned()];
        before.path_suffix = "/a".to_owned();
        before.method = Method::Put;
        let mut after = Request::json(Bytes::from_static(b"2"));
        after.headers =
            vec![("x-b".to_owned(), "2".to_owned()), ("x-c".to_owned(), "2".to_owned())];
        after.removed_headers = vec!["x-a".to_owned()];
        after.path_suffix = "/b".to_owned();
        let made = layered(&before, after);
        assert_eq!(made.body, "2");
        assert_eq!(made.method, Method::Put);
        assert_eq!(made.path_suffix, "/a/b");
        let headers: Vec<_> = made.headers.iter().map(|(n, v)| (&n[..], &v[..])).collect();
        assert_eq!(headers, [("x-b", "2"), ("x-c", "2")]);
        assert_eq!(made.removed_headers, ["x-d", "x-a"]);
    }
}
