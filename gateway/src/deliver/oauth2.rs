//! Tokens by OAuth 2.0 client credentials (RFC 6749, section 4.4): fetched when needed, kept until shortly
//! before they expire, one fetch at a time.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use tokio::time::Instant;
use url::Url;
use url::form_urlencoded::{Serializer, byte_serialize};

use super::connection::Connection;
use super::redact::Credentials;
use super::{Client, Fetch, FetchFailure};
use crate::delivery::{Failure, FailureKind};

/// How long a token is kept that comes without `expires_in`.
const UNTOLD: Duration = Duration::from_secs(5 * 60);

/// How long before it expires a token is no longer used; of a short-lived one, a tenth of its life.
const MARGIN: Duration = Duration::from_secs(30);

/// How long a token is kept at most, whatever `expires_in` says.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// How long after a token was dropped because the receiver refused it the next one is not: a receiver that
/// refuses every token must not have them fetched for every request.
const DROP_AGAIN_AFTER: Duration = Duration::from_secs(30);

/// How long fetching a token may take, within the time of the attempt.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The largest answer that is read, in bytes.
const MAX_ANSWER: usize = 64 << 10;

/// Where tokens come from, and the one that is kept.
pub struct TokenSource {
    config: TokenConfig,
    kept: Mutex<Kept>,
    /// Held while a token is fetched; when and how the last fetch failed, if it did.
    turn: tokio::sync::Mutex<Option<(Instant, Failure)>>,
}

/// How tokens are asked for.
pub struct TokenConfig {
    /// The token endpoint.
    pub url: Url,
    /// The client's id.
    pub client_id: String,
    /// The client's secret.
    pub client_secret: String,
    /// What the token is to allow.
    pub scope: Option<String>,
    /// Whom the token is for, where the server wants to know.
    pub audience: Option<String>,
    /// Whether id and secret stand in the body rather than in a header.
    pub in_body: bool,
}

impl fmt::Debug for TokenConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenConfig({})", self.url.host_str().unwrap_or_default())
    }
}

#[derive(Default)]
struct Kept {
    token: Option<Token>,
    dropped: Option<Instant>,
}

struct Token {
    /// The value of the header.
    value: Arc<str>,
    until: Instant,
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    token_type: Option<String>,
    expires_in: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Refused {
    error: String,
}

impl TokenSource {
    /// A source without a token yet.
    #[must_use]
    pub fn new(config: TokenConfig) -> Self {
        Self { config, kept: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }

    /// The value of the `authorization` header, with a token that is kept or fetched.
    ///
    /// # Errors
    /// When no token is to be had.
    pub(super) async fn token(
        &self,
        client: &Client,
        connection: Option<&Connection>,
    ) -> Result<Arc<str>, Failure> {
        if let Some(value) = self.kept_token() {
            return Ok(value);
        }
        let asked = Instant::now();
        let mut failed = self.turn.lock().await;
        if let Some(value) = self.kept_token() {
            return Ok(value);
        }
        // A fetch that failed while this request waited has failed for it too.
        if let Some((at, failure)) = &*failed
            && *at >= asked
        {
            return Err(failure.clone());
        }
        match self.fetch(client, connection).await {
            Ok(token) => {
                let value = Arc::clone(&token.value);
                self.kept().token = Some(token);
                *failed = None;
                Ok(value)
            }
            Err(failure) => {
                *failed = Some((Instant::now(), failure.clone()));
                Err(failure)
            }
        }
    }

    /// Drops a token that the receiver refused.
    pub(super) fn refused(&self, value: &str) {
        self.refused_at(value, Instant::now());
    }

    fn refused_at(&self, value: &str, now: Instant) {
        let mut kept = self.kept();
        let is_kept = kept.token.as_ref().is_some_and(|token| *token.value == *value);
        if is_kept && kept.dropped.is_none_or(|at| now.duration_since(at) >= DROP_AGAIN_AFTER) {
            kept.token = None;
            kept.dropped = Some(now);
        }
    }

    /// Adds what must not go on record.
    pub(super) fn credentials(&self, credentials: &mut Credentials) {
        credentials.add("client secret", &self.config.client_secret);
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept_token(&self) -> Option<Arc<str>> {
        let kept = self.kept();
        let token = kept.token.as_ref().filter(|token| Instant::now() < token.until)?;
        Some(Arc::clone(&token.value))
    }

    async fn fetch(
        &self,
        client: &Client,
        connection: Option<&Connection>,
    ) -> Result<Token, Failure> {
        let asked = Instant::now();
        let fetched = client.fetch_over(self.config.request(), connection).await;
        let fetched = fetched.map_err(|failure| match failure {
            FetchFailure::TooLarge => problem(&format!("answered more than {MAX_ANSWER} bytes")),
            FetchFailure::Failed(failure) => problem(&format!("did not answer: {failure}")),
        })?;
        if !(200..=299).contains(&fetched.status) {
            let refused = serde_json::from_slice::<Refused>(&fetched.body);
            let why = refused.map_or_else(
                |_| String::new(),
                |Refused { error }| format!(" ({})", error.chars().take(100).collect::<String>()),
            );
            return Err(problem(&format!("answered {}{why}", fetched.status)));
        }
        // What it answered may hold a token, so nothing of it stands in the message.
        let granted = serde_json::from_slice::<Granted>(&fetched.body)
            .map_err(|_| problem("answered without an `access_token`"))?;
        granted.token(asked)
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OAuth2({})", self.config.url.host_str().unwrap_or_default())
    }
}

impl TokenConfig {
    fn request(&self) -> Fetch {
        let mut form = Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        for (name, value) in [("scope", &self.scope), ("audience", &self.audience)] {
            if let Some(value) = value {
                form.append_pair(name, value);
            }
        }
        let mut headers = vec![
            ("content-type".to_owned(), "application/x-www-form-urlencoded".to_owned()),
            ("accept".to_owned(), "application/json".to_owned()),
        ];
        if self.in_body {
            form.append_pair("client_id", &self.client_id);
            form.append_pair("client_secret", &self.client_secret);
        } else {
            // Section 2.3.1: both are encoded before they are joined.
            let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
            let joined = format!("{}:{}", encoded(&self.client_id), encoded(&self.client_secret));
            headers
                .push(("authorization".to_owned(), format!("Basic {}", STANDARD.encode(joined))));
        }
        Fetch {
            method: "POST".to_owned(),
            url: self.url.clone(),
            headers,
            body: Bytes::from(form.finish()),
            timeout: TIMEOUT,
            max_bytes: MAX_ANSWER,
        }
    }
}

impl Granted {
    fn token(self, asked: Instant) -> Result<Token, Failure> {
        if self.token_type.is_some_and(|it| !it.eq_ignore_ascii_case("bearer")) {
            return Err(problem("answered with a token that is not of the type Bearer"));
        }
        // RFC 6750, section 2.1; anything else would be no header.
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b);
        if self.access_token.is_empty() || !self.access_token.bytes().all(fits) {
            return Err(problem("answered with a token that no header can carry"));
        }
        // Some servers send the number as a string.
        let seconds =
            self.expires_in.and_then(|it| it.as_u64().or_else(|| it.as_str()?.parse().ok()));
        let life = seconds.map_or(UNTOLD, Duration::from_secs).min(LONGEST);
        let until = asked + life.saturating_sub(MARGIN.min(life / 10));
        Ok(Token { value: format!("Bearer {}", self.access_token).into(), until })
    }
}

fn problem(what: &str) -> Failure {
    Failure::new(FailureKind::Auth, format!("no token: the token endpoint {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(in_body: bool) -> TokenSource {
        TokenSource::new(TokenConfig {
            url: Url::parse("https://auth.example/token").unwrap(),
            client_id: "a b".to_owned(),
            client_secret: "s&c".to_owned(),
            scope: Some("hooks write".to_owned()),
            audience: None,
            in_body,
        })
    }

    fn granted(answer: &str) -> Result<Duration, Failure> {
        let now = Instant::now();
        let granted: Granted = serde_json::from_str(answer).unwrap();
        granted.token(now).map(|token| token.until - now)
    }

    #[test]
    fn requests_are_those_of_the_rfc() {
        let fetch = source(false).config.request();
        assert_eq!(&fetch.body[..], b"grant_type=client_credentials&scope=hooks+write");
        let (_, value) = fetch.headers.iter().find(|(name, _)| name == "authorization").unwrap();
        let encoded = value.strip_prefix("Basic ").unwrap();
        assert_eq!(STANDARD.decode(encoded).unwrap(), b"a+b:s%26c");
        let fetch = source(true).config.request();
        assert!(fetch.body.ends_with(b"&client_id=a+b&client_secret=s%26c"), "{:?}", fetch.body);
        assert!(fetch.headers.iter().all(|(name, _)| name != "authorization"));
    }

    #[test]
    fn tokens_are_kept_until_shortly_before_they_expire() {
        let secs = Duration::from_secs;
        for (answer, kept) in [
            (r#"{"access_token":"t","token_type":"Bearer","expires_in":3600}"#, secs(3_570)),
            (r#"{"access_token":"t","token_type":"bearer","expires_in":"100"}"#, secs(90)),
            (r#"{"access_token":"t"}"#, UNTOLD - secs(30)),
            (r#"{"access_token":"t","expires_in":99999999999999}"#, LONGEST - secs(30)),
            (r#"{"access_token":"t","expires_in":0}"#, secs(0)),
        ] {
            assert_eq!(granted(answer).unwrap(), kept, "{answer}");
        }
        for refused in [
            r#"{"access_token":"t","token_type":"mac"}"#,
            r#"{"access_token":""}"#,
            r#"{"access_token":"a\r\nx: y"}"#,
        ] {
            assert_eq!(granted(refused).unwrap_err().kind, FailureKind::Auth, "{refused}");
        }
    }

    #[test]
    fn a_refused_token_is_dropped_but_not_again_and_again() {
        let source = source(false);
        let now = Instant::now();
        let keep = |value: &str| {
            source.kept().token = Some(Token { value: value.into(), until: now + LONGEST });
        };
        keep("one");
        source.refused_at("another", now);
        assert_eq!(source.kept_token().as_deref(), Some("one"));
        source.refused_at("one", now);
        assert_eq!(source.kept_token(), None);
        keep("two");
        source.refused_at("two", now);
        assert_eq!(source.kept_token().as_deref(), Some("two"), "it is too soon");
        source.refused_at("two", now + DROP_AGAIN_AFTER);
        assert_eq!(source.kept_token(), None);
    }
}
