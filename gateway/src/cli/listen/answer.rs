//! What a request is answered, and when: told by the options, or by the request's own path.

use std::time::Duration;

use axum::http::StatusCode;

use crate::cli::duration;

/// What the options say.
#[derive(Debug)]
pub(super) struct Plan {
    success: StatusCode,
    failure: StatusCode,
    fail_first: u64,
    fail_every: Option<u64>,
    delay: Duration,
}

/// The answer to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) delay: Duration,
}

impl Answer {
    pub(super) fn at_once(status: StatusCode) -> Self {
        Self { status, delay: Duration::ZERO }
    }
}

impl Plan {
    pub(super) fn new(
        status: Option<StatusCode>,
        fail_first: Option<u64>,
        fail_every: Option<u64>,
        delay: Duration,
    ) -> Self {
        let some_fail = fail_first.is_some() || fail_every.is_some();
        Self {
            success: status.filter(|_| !some_fail).unwrap_or(StatusCode::OK),
            failure: status.unwrap_or(StatusCode::SERVICE_UNAVAILABLE),
            fail_first: fail_first.unwrap_or(0),
            fail_every,
            delay,
        }
    }

    /// The answer to the request of this number, counted from 1.
    pub(super) fn answer(&self, number: u64, path: &str) -> Answer {
        let fails = number <= self.fail_first
            || self.fail_every.is_some_and(|every| number.is_multiple_of(every));
        let mut answer =
            Answer { status: if fails { self.failure } else { self.success }, delay: self.delay };
        let names: Vec<&str> = path.split('/').collect();
        for pair in names.windows(2) {
            match pair {
                ["status", code] => answer.status = status(code).unwrap_or(answer.status),
                ["delay", text] => answer.delay = duration::parse(text).unwrap_or(answer.delay),
                _ => {}
            }
        }
        answer
    }
}

/// Reads the status of an answer.
///
/// # Errors
/// When it is not one that ends an exchange.
pub(super) fn status(text: &str) -> Result<StatusCode, String> {
    text.parse()
        .ok()
        .filter(|status: &StatusCode| (200..=599).contains(&status.as_u16()))
        .ok_or_else(|| "a status is a number from 200 to 599".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statuses(plan: &Plan, paths: [&str; 5]) -> [u16; 5] {
        let mut number = 0;
        paths.map(|path| {
            number += 1;
            plan.answer(number, path).status.as_u16()
        })
    }

    #[test]
    fn options_say_which_requests_fail() {
        let plan = |status: Option<u16>, first, every| {
            let status = status.map(|code| StatusCode::from_u16(code).unwrap());
            Plan::new(status, first, every, Duration::ZERO)
        };
        for (plan, expected) in [
            (plan(None, None, None), [200, 200, 200, 200, 200]),
            (plan(Some(410), None, None), [410, 410, 410, 410, 410]),
            (plan(None, Some(2), None), [503, 503, 200, 200, 200]),
            (plan(Some(500), None, Some(2)), [200, 500, 200, 500, 200]),
            (plan(None, Some(1), Some(3)), [503, 200, 503, 200, 200]),
        ] {
            assert_eq!(statuses(&plan, ["/"; 5]), expected, "{plan:?}");
        }
    }

    #[test]
    fn a_path_goes_before_the_options() {
        let plan = Plan::new(None, None, None, Duration::from_secs(9));
        let answer = plan.answer(1, "/hooks/status/429/delay/2s");
        assert_eq!(answer.status.as_u16(), 429);
        assert_eq!(answer.delay, Duration::from_secs(2));
        // Not a status, not a duration: paths that only look alike.
        let paths = ["/status", "/status/", "/status/99", "/status/order", "/delay/soon"];
        assert_eq!(statuses(&plan, paths), [200; 5]);
    }
}
