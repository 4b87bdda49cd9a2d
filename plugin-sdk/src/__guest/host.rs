//! The capabilities inside the sandbox: what the modules for plugin authors call.

use super::bindings::hookmill::plugin::{clock, http, kv, random, secrets};
use crate::{http as plain_http, kv as plain_kv};

pub(crate) fn now() -> String {
    clock::now()
}

pub(crate) fn now_ms() -> u64 {
    clock::now_ms()
}

pub(crate) fn random_bytes(len: u32) -> Vec<u8> {
    random::get_bytes(len)
}

pub(crate) fn random_number() -> u64 {
    random::get_u64()
}

pub(crate) fn secret(name: &str) -> Option<String> {
    secrets::get(name)
}

pub(crate) fn kv_get(key: &str) -> Result<Option<String>, plain_kv::Error> {
    kv::get(key).map_err(lift_kv_error)
}

pub(crate) fn kv_set(key: &str, value: &str, ttl: Option<u64>) -> Result<(), plain_kv::Error> {
    kv::set(key, value, ttl).map_err(lift_kv_error)
}

pub(crate) fn kv_set_if_absent(
    key: &str,
    value: &str,
    ttl: Option<u64>,
) -> Result<bool, plain_kv::Error> {
    kv::set_if_absent(key, value, ttl).map_err(lift_kv_error)
}

pub(crate) fn kv_delete(key: &str) -> Result<bool, plain_kv::Error> {
    kv::delete(key).map_err(lift_kv_error)
}

pub(crate) fn kv_add(key: &str, delta: i64, ttl: Option<u64>) -> Result<i64, plain_kv::Error> {
    kv::add(key, delta, ttl).map_err(lift_kv_error)
}

fn lift_kv_error(error: kv::Error) -> plain_kv::Error {
    match error {
        kv::Error::TooLarge(message) => plain_kv::Error::TooLarge(message),
        kv::Error::Quota(message) => plain_kv::Error::Quota(message),
        kv::Error::NotANumber(message) => plain_kv::Error::NotANumber(message),
        kv::Error::Unavailable(message) => plain_kv::Error::Unavailable(message),
        kv::Error::Other(message) => plain_kv::Error::Other(message),
    }
}

pub(crate) fn fetch(
    request: plain_http::Request,
) -> Result<plain_http::Response, plain_http::Error> {
    let plain_http::Request { method, url, headers, body, timeout } = request;
    let timeout_ms = timeout.map(|timeout| u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX));
    let request = http::Request {
        method,
        url,
        headers,
        body: body.map(http::Body::Bytes),
        timeout_ms,
        extensions: Vec::new(),
    };
    let http::Response { status, headers, body, .. } =
        http::fetch(&request).map_err(lift_http_error)?;
    let body = match body {
        http::Body::Text(text) => text.into_bytes(),
        http::Body::Bytes(bytes) => bytes,
    };
    Ok(plain_http::Response { status, headers, body })
}

fn lift_http_error(error: http::Error) -> plain_http::Error {
    match error {
        http::Error::NotAllowed(message) => plain_http::Error::NotAllowed(message),
        http::Error::InvalidRequest(message) => plain_http::Error::InvalidRequest(message),
        http::Error::TooLarge(message) => plain_http::Error::TooLarge(message),
        http::Error::TooMany(message) => plain_http::Error::TooMany(message),
        http::Error::Timeout(message) => plain_http::Error::Timeout(message),
        http::Error::Failed(message) => plain_http::Error::Failed(message),
        http::Error::Other(message) => plain_http::Error::Other(message),
    }
}
