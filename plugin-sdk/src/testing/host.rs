//! What stands in for the gateway when a transform runs natively and uses capabilities.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use jiff::Timestamp;

use crate::event::{Context, Event};
use crate::failure::Result;
use crate::transform::Transform;
use crate::verdict::Verdict;
use crate::{http, kv};

/// The time that `testing::event` says too.
const TIME: &str = "2026-01-02T03:04:05Z";

thread_local! {
    /// The hosts that were entered on this thread, the current one last.
    static ENTERED: RefCell<Vec<Host>> = const { RefCell::new(Vec::new()) };

    /// What is there where none was entered.
    static DEFAULT: Host = Host::new();
}

type Server = dyn Fn(&http::Request) -> Result<http::Response, http::Error>;

/// What stands in for the gateway: its clock, its secrets, its keys and values, and the servers that requests
/// reach. What a test leaves out is empty, and what the plugin keeps stays from one run to the next.
///
/// ```
/// use hookmill_plugin::testing::Host;
/// use hookmill_plugin::{Event, Result, Verdict, kv, secrets};
///
/// fn numbered(_: Event) -> Result<Verdict> {
///     let prefix = secrets::require("prefix")?;
///     Verdict::forward(&format!("{prefix}{}", kv::add("count", 1, None)?))
/// }
///
/// let host = Host::new().with_secret("prefix", "no. ").with_kv("count", "41");
/// assert_eq!(host.run(numbered, "{}", "{}"), Verdict::forward("no. 42"));
/// assert_eq!(host.kv("count").as_deref(), Some("42"));
/// ```
#[derive(Clone)]
pub struct Host(Rc<RefCell<State>>);

struct State {
    now: Timestamp,
    secrets: BTreeMap<String, String>,
    keys: BTreeMap<String, Value>,
    server: Option<Rc<Server>>,
    random: u64,
}

struct Value {
    text: String,
    expires_at: Option<Timestamp>,
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Host {
    /// A host without secrets, keys and servers, at a time that is always the same.
    pub fn new() -> Self {
        Self(Rc::new(RefCell::new(State {
            now: TIME.parse().unwrap_or_default(),
            secrets: BTreeMap::new(),
            keys: BTreeMap::new(),
            server: None,
            random: 0,
        })))
    }

    /// The same with a secret that the plugin is granted.
    #[must_use]
    pub fn with_secret(self, name: &str, value: &str) -> Self {
        self.0.borrow_mut().secrets.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The same with a key that the plugin has set before.
    #[must_use]
    pub fn with_kv(self, key: &str, value: &str) -> Self {
        let value = Value { text: value.to_owned(), expires_at: None };
        self.0.borrow_mut().keys.insert(key.to_owned(), value);
        self
    }

    /// The same at this time, in RFC 3339.
    ///
    /// # Panics
    ///
    /// When it is none.
    #[must_use]
    pub fn with_time(self, time: &str) -> Self {
        match self.at(time) {
            Ok(host) => host,
            Err(error) => panic!("{time:?} is no time in RFC 3339: {error}"),
        }
    }

    pub(super) fn at(self, time: &str) -> Result<Self, jiff::Error> {
        self.0.borrow_mut().now = time.parse()?;
        Ok(self)
    }

    /// The same with a function that answers requests in place of the servers.
    #[must_use]
    pub fn with_http(
        self,
        server: impl Fn(&http::Request) -> Result<http::Response, http::Error> + 'static,
    ) -> Self {
        self.0.borrow_mut().server = Some(Rc::new(server));
        self
    }

    /// Lets time pass: keys expire by it, and events are accepted later.
    pub fn advance(&self, time: Duration) {
        let mut state = self.0.borrow_mut();
        state.now = state.now.saturating_add(time).unwrap_or(Timestamp::MAX);
    }

    /// What the plugin keeps under a key.
    pub fn kv(&self, key: &str) -> Option<String> {
        let state = self.0.borrow();
        state.live(key).map(|value| value.text.clone())
    }

    /// Calls `run` with this host in place of the gateway, on this thread.
    pub fn enter<T>(&self, run: impl FnOnce() -> T) -> T {
        ENTERED.with_borrow_mut(|hosts| hosts.push(self.clone()));
        let _entered = Entered;
        run()
    }

    /// Calls a transform, as [`testing::run`](super::run) does, with this host in place of the gateway.
    ///
    /// # Errors
    ///
    /// As [`testing::run`](super::run).
    pub fn run<'a, Args>(
        &self,
        transform: impl Transform<'a, Args>,
        payload: &'a str,
        config: &'a str,
    ) -> Result<Verdict> {
        self.run_with(transform, super::event(payload), super::context(config))
    }

    /// Calls a transform, as [`testing::run_with`](super::run_with) does, with this host in place of the
    /// gateway.
    ///
    /// # Errors
    ///
    /// As [`testing::run`](super::run).
    pub fn run_with<'a, Args>(
        &self,
        transform: impl Transform<'a, Args>,
        event: Event<&'a str>,
        context: Context<&'a str>,
    ) -> Result<Verdict> {
        self.enter(|| super::run_with(transform, event, context))
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").finish_non_exhaustive()
    }
}

/// Leaves the host that was entered last, panics included.
struct Entered;

impl Drop for Entered {
    fn drop(&mut self) {
        ENTERED.with_borrow_mut(|hosts| drop(hosts.pop()));
    }
}

impl State {
    fn live(&self, key: &str) -> Option<&Value> {
        let live = |value: &&Value| value.expires_at.is_none_or(|at| at > self.now);
        self.keys.get(key).filter(live)
    }

    fn put(&mut self, key: &str, text: String, ttl: Option<u64>) {
        let expires_at = ttl
            .map(|ttl| self.now.saturating_add(Duration::from_secs(ttl)).unwrap_or(Timestamp::MAX));
        self.keys.insert(key.to_owned(), Value { text, expires_at });
    }
}

fn current() -> Host {
    let entered = ENTERED.with_borrow(|hosts| hosts.last().cloned());
    entered.unwrap_or_else(|| DEFAULT.with(Host::clone))
}

/// Calls `run` with the host that was entered, or with a new one where none was.
pub(super) fn with_host<T>(run: impl FnOnce() -> T) -> T {
    match ENTERED.with_borrow(Vec::is_empty) {
        true => Host::new().enter(run),
        false => run(),
    }
}

pub(crate) fn now() -> String {
    format!("{:.3}", current().0.borrow().now)
}

pub(crate) fn now_ms() -> u64 {
    u64::try_from(current().0.borrow().now.as_millisecond()).unwrap_or(0)
}

pub(crate) fn random_bytes(len: u32) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        (0..len.div_ceil(8)).flat_map(|_| random_number().to_le_bytes()).collect();
    bytes.truncate(usize::try_from(len).unwrap_or(usize::MAX));
    bytes
}

/// `SplitMix64`: always the same numbers, so that tests can rely on them.
pub(crate) fn random_number() -> u64 {
    let host = current();
    let mut state = host.0.borrow_mut();
    state.random = state.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (state.random ^ (state.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

pub(crate) fn secret(name: &str) -> Option<String> {
    current().0.borrow().secrets.get(name).cloned()
}

pub(crate) fn kv_get(key: &str) -> Result<Option<String>, kv::Error> {
    check_key(key)?;
    Ok(current().kv(key))
}

pub(crate) fn kv_set(key: &str, value: &str, ttl: Option<u64>) -> Result<(), kv::Error> {
    check_key(key)?;
    current().0.borrow_mut().put(key, value.to_owned(), ttl);
    Ok(())
}

pub(crate) fn kv_set_if_absent(
    key: &str,
    value: &str,
    ttl: Option<u64>,
) -> Result<bool, kv::Error> {
    let absent = kv_get(key)?.is_none();
    if absent {
        kv_set(key, value, ttl)?;
    }
    Ok(absent)
}

pub(crate) fn kv_delete(key: &str) -> Result<bool, kv::Error> {
    let there = kv_get(key)?.is_some();
    current().0.borrow_mut().keys.remove(key);
    Ok(there)
}

pub(crate) fn kv_add(key: &str, delta: i64, ttl: Option<u64>) -> Result<i64, kv::Error> {
    check_key(key)?;
    let host = current();
    let mut state = host.0.borrow_mut();
    let Some(value) = state.live(key) else {
        state.put(key, delta.to_string(), ttl);
        return Ok(delta);
    };
    let not_a_number =
        || kv::Error::NotANumber("the key's value is no integer of 64 bits".to_owned());
    let number: i64 = value.text.parse().map_err(|_| not_a_number())?;
    let sum = number.checked_add(delta).ok_or_else(not_a_number)?;
    let expires_at = value.expires_at;
    state.keys.insert(key.to_owned(), Value { text: sum.to_string(), expires_at });
    Ok(sum)
}

fn check_key(key: &str) -> Result<(), kv::Error> {
    if key.is_empty() {
        return Err(kv::Error::TooLarge("the key is empty".to_owned()));
    }
    Ok(())
}

#[expect(clippy::needless_pass_by_value, reason = "the same as in the sandbox")]
pub(crate) fn fetch(request: http::Request) -> Result<http::Response, http::Error> {
    // The host is not held while its server runs: that may use it too.
    let server = current().0.borrow().server.clone();
    match server {
        Some(server) => server(&request),
        None => Err(http::Error::NotAllowed(format!(
            "no server answers {} {}: give the test one with `Host::with_http`",
            request.method, request.url
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_entered_one_inside_the_other() {
        let outer = Host::new().with_secret("a", "outer");
        let inner = Host::new().with_secret("a", "inner");
        outer.enter(|| {
            assert_eq!(inner.enter(|| secret("a")).as_deref(), Some("inner"));
            assert_eq!(secret("a").as_deref(), Some("outer"));
        });
        assert_eq!(secret("a"), None);
    }

    #[test]
    fn keys_expire_with_the_hosts_time() {
        let host = Host::new();
        host.enter(|| {
            assert_eq!(kv_add("n", 1, Some(10)), Ok(1));
            assert_eq!(kv_add("n", 1, Some(1_000)), Ok(2));
            assert_eq!(kv_set_if_absent("n", "x", None), Ok(false));
        });
        host.advance(Duration::from_secs(10));
        assert_eq!(host.kv("n"), None);
        host.enter(|| {
            assert_eq!(kv_delete("n"), Ok(false));
            assert_eq!(kv_set("n", "x", None), Ok(()));
            assert!(matches!(kv_add("n", 1, None), Err(kv::Error::NotANumber(_))));
        });
    }

    #[test]
    fn random_numbers_are_always_the_same() {
        let bytes = || Host::new().enter(|| random_bytes(20));
        assert_eq!(bytes(), bytes());
        assert_eq!(bytes().len(), 20);
        Host::new().enter(|| assert_ne!(random_number(), random_number()));
    }
}
