//! What requests to the API carry beside their path: a body, an idempotency key, parameters.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Uri};
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use url::form_urlencoded;

use crate::digest::Digest;
use crate::problem::{FieldError, Problem};
use crate::record::Idempotency;

/// The largest body, in bytes: a list of as many ids as are taken has a sixth of that.
const MAX_BODY: usize = 256 << 10;

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest idempotency key, in bytes.
const MAX_KEY_LEN: usize = 256;

/// The largest page of a list.
const MAX_LIMIT: usize = 1_000;

/// The page of a list that does not say.
const LIMIT: usize = 100;

/// What is wrong with one field or parameter.
pub(super) fn wrong(field: &str, detail: impl Into<String>) -> FieldError {
    FieldError { field: field.to_owned(), detail: detail.into() }
}

/// Reads a whole body.
pub(super) async fn body(body: Body) -> Result<Bytes, Problem> {
    match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(Problem::body_too_large(format!("the body is larger than {MAX_BODY} bytes")))
        }
        Ok(Err(error)) => Err(Problem::invalid_request(format!("the body broke off: {error}"))),
        Err(_) => Err(Problem::request_timeout(format!("the body took over {BODY_TIMEOUT:?}"))),
    }
}

/// The idempotency key of a request to `path` with this body, if it has one. One key is not for two paths.
pub(super) fn idempotency(
    headers: &HeaderMap,
    path: &str,
    body: &[u8],
    kept: Duration,
) -> Result<Option<Idempotency>, Problem> {
    let Some(value) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    let key = value.to_str().unwrap_or_default().trim();
    if key.is_empty() || key.len() > MAX_KEY_LEN {
        return Err(Problem::invalid_request(format!(
            "`Idempotency-Key` must have 1 to {MAX_KEY_LEN} visible ASCII characters"
        )));
    }
    let fingerprint = Digest::of_parts(&[path.as_bytes(), body]);
    Ok(Some(Idempotency { key: key.to_owned(), fingerprint, kept }))
}

/// The parameters of a list: those of its own, and which page.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Parameters {
    /// Names and values, each name one of those that are known, and none twice.
    pub(super) own: Vec<(String, String)>,
    /// Where the page begins.
    pub(super) after: Option<String>,
    /// How many there may be.
    pub(super) limit: usize,
}

/// Reads the parameters in a URI; `own` are the names beside `after` and `limit`.
pub(super) fn parameters(uri: &Uri, own: &[&str]) -> Result<Parameters, Problem> {
    let mut read = Parameters { limit: LIMIT, ..Parameters::default() };
    let mut seen = Vec::new();
    let mut errors = Vec::new();
    for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        if seen.contains(&name) {
            errors.push(wrong(&name, "is given twice; give it once"));
            continue;
        }
        match (&*name, value) {
            ("after", value) => read.after = Some(value.into_owned()),
            ("limit", value) => match value.parse() {
                Ok(limit) if (1..=MAX_LIMIT).contains(&limit) => read.limit = limit,
                _ => errors.push(wrong("limit", format!("must be a number from 1 to {MAX_LIMIT}"))),
            },
            (known, value) if own.contains(&known) => {
                read.own.push((known.to_owned(), value.into_owned()));
            }
            (unknown, _) => errors.push(wrong(
                unknown,
                format!(
                    "is not known; there are: {}",
                    [own, &["after", "limit"]].concat().join(", ")
                ),
            )),
        }
        seen.push(name);
    }
    if errors.is_empty() { Ok(read) } else { Err(bad_parameters(errors)) }
}

/// The problem of parameters that are wrong.
pub(super) fn bad_parameters(errors: Vec<FieldError>) -> Problem {
    Problem::invalid_parameter("`errors` has what is wrong with each parameter").with_errors(errors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_or_refused_by_name() {
        let read = |query: &str| {
            let uri = format!("/v1/deliveries?{query}").parse().unwrap();
            parameters(&uri, &["state", "webhook"])
        };
        let own = vec![("webhook".to_owned(), "a b".to_owned())];
        let expected = Parameters { own, after: Some("x".to_owned()), limit: 7 };
        assert_eq!(read("webhook=a%20b&after=x&limit=7").unwrap(), expected);
        assert_eq!(read("").unwrap().limit, LIMIT);
        for (query, field) in [
            ("limit=0", "limit"),
            ("limit=1001", "limit"),
            ("limit=x", "limit"),
            ("stat=dead", "stat"),
            ("state=dead&state=held", "state"),
        ] {
            let problem = read(query).unwrap_err();
            let [error] = problem.errors() else { panic!("{query}: {problem:?}") };
            assert_eq!(error.field, field, "{query}: {error:?}");
        }
    }
}
