//! `hookmill listen`: a receiver that verifies and prints what comes, and can be told to fail.

mod answer;
mod received;

use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use jiff::Timestamp;
use tokio::net::TcpListener;

use self::answer::{Answer, Plan};
use self::received::{Body, Received, Trust};
use super::interrupt::interrupted;
use super::terminal::{self, Paint};
use crate::sign::Secret;

/// Receive webhooks: verify them, print them, answer them.
///
/// Takes any method on any path. A request may choose its answer by its path: /status/503 is answered
/// with 503, /delay/2s after two seconds, /status/503/delay/2s both; such a request goes before the
/// options below. SIGINT (Ctrl-C) and SIGTERM end the receiver with a summary.
#[derive(Debug, clap::Args)]
#[command(after_help = JSON_HELP)]
pub(super) struct Args {
    /// The port on 127.0.0.1; 0 takes any free one.
    #[arg(long, short, default_value_t = 9000, conflicts_with = "bind")]
    port: u16,

    /// The address and port, such as 0.0.0.0:9000.
    #[arg(long, value_name = "ADDRESS")]
    bind: Option<SocketAddr>,

    /// A webhook's signing secret; can be given several times, and the variable can hold several between
    /// commas. A signature by any of them is good. Without one, nothing is verified.
    #[arg(
        long = "secret",
        value_name = "SECRET",
        env = "HOOKMILL_SECRET",
        hide_env_values = true,
        value_delimiter = ',',
        value_parser = Secret::parse
    )]
    secrets: Vec<Secret>,

    /// The status of every answer; with --fail-first or --fail-every, that of the failures alone.
    /// [default: 200, for failures 503]
    #[arg(long, value_name = "CODE", value_parser = answer::status)]
    status: Option<StatusCode>,

    /// Fail the first N requests.
    #[arg(long, value_name = "N")]
    fail_first: Option<u64>,

    /// Fail every Nth request.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    fail_every: Option<u64>,

    /// How long to wait before each answer, such as 500ms or 2s.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = super::duration::parse)]
    delay: Duration,

    /// Print one line of JSON a request.
    #[arg(long)]
    json: bool,

    /// Print no requests, only where the receiver listens and the summary.
    #[arg(long, short)]
    quiet: bool,
}

const JSON_HELP: &str = "\
With --json the first line is {\"listening\":\"http://…\"}, the last {\"summary\":{…}}, and each line between
one request: received_at, method, path, headers, id, verified (true, false, or null without a secret),
reason, answered, and body, as JSON where it is JSON and as a string otherwise.";

/// Larger bodies are refused.
const MAX_BODY_BYTES: usize = 10 << 20;

/// How long requests under way may take to end once a signal has come.
const GRACE: Duration = Duration::from_secs(2);

/// Receives until a signal comes.
pub(super) async fn run(args: Args) -> ExitCode {
    let address = args.bind.unwrap_or_else(|| (Ipv4Addr::LOCALHOST, args.port).into());
    let bound = match TcpListener::bind(address).await {
        Ok(listener) => listener.local_addr().map(|address| (listener, address)),
        Err(error) => Err(error),
    };
    let (listener, address) = match bound {
        Ok(bound) => bound,
        Err(error) => return terminal::fail(&format!("cannot listen on {address}: {error}")),
    };
    let receiver = Arc::new(Receiver::new(args));
    print(&receiver.announcement(address));
    let router = Router::new().fallback(receive).with_state(Arc::clone(&receiver));
    let serving = axum::serve(listener, router).with_graceful_shutdown(interrupted());
    let grace_over = async {
        interrupted().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        served = serving.into_future() => {
            if let Err(error) = served {
                return terminal::fail(&format!("cannot go on listening: {error}"));
            }
        }
        () = grace_over => {}
    }
    print(&receiver.summary());
    ExitCode::SUCCESS
}

/// What every request shares.
struct Receiver {
    secrets: Vec<Secret>,
    plan: Plan,
    json: bool,
    quiet: bool,
    paint: Paint,
    received: AtomicU64,
    verified: AtomicU64,
    failed: AtomicU64,
    refused: AtomicU64,
}

async fn receive(State(receiver): State<Arc<Receiver>>, request: Request) -> Response {
    let number = receiver.received.fetch_add(1, Ordering::Relaxed) + 1;
    let (head, body) = request.into_parts();
    let received_at = Timestamp::now();
    let body = match axum::body::to_bytes(body, MAX_BODY_BYTES).await {
        Ok(bytes) => Body::Whole(bytes),
        Err(error) => Body::Unread(error.to_string()),
    };
    let answer = match &body {
        Body::Whole(_) => receiver.plan.answer(number, head.uri.path()),
        Body::Unread(_) => Answer::at_once(StatusCode::PAYLOAD_TOO_LARGE),
    };
    let received = Received {
        received_at,
        trust: Trust::of(&receiver.secrets, &head.headers, &body, received_at),
        head,
        body,
        answered: answer.status,
    };
    receiver.count(&received);
    if !receiver.quiet {
        print(&if receiver.json {
            received.json_line()
        } else {
            received.for_people(receiver.paint)
        });
    }
    tokio::time::sleep(answer.delay).await;
    answer.status.into_response()
}

impl Receiver {
    fn new(args: Args) -> Self {
        Self {
            secrets: args.secrets,
            plan: Plan::new(args.status, args.fail_first, args.fail_every, args.delay),
            json: args.json,
            quiet: args.quiet,
            paint: Paint::for_stdout(),
            received: AtomicU64::new(0),
            verified: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    fn count(&self, received: &Received) {
        match received.trust {
            Trust::Verified => {
                self.verified.fetch_add(1, Ordering::Relaxed);
            }
            Trust::Untrusted(_) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
            }
            Trust::Unknown => {}
        }
        if !received.answered.is_success() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn announcement(&self, address: SocketAddr) -> String {
        if self.json {
            return format!("{{\"listening\":\"http://{address}\"}}\n");
        }
        let verifying = match self.secrets.len() {
            0 => "without verifying: no secret is given",
            1 => "verifying with 1 secret",
            _ => "verifying with several secrets",
        };
        format!("listening on http://{address}, {verifying}\n")
    }

    fn summary(&self) -> String {
        let [received, verified, failed, refused] =
            [&self.received, &self.verified, &self.failed, &self.refused]
                .map(|count| count.load(Ordering::Relaxed));
        if self.json {
            format!(
                "{{\"summary\":{{\"received\":{received},\"verified\":{verified},\
                 \"failed\":{failed},\"refused\":{refused}}}}}\n"
            )
        } else {
            format!(
                "{received} received, {verified} verified, {failed} failed verification, \
                 {refused} answered with a failure\n"
            )
        }
    }
}

/// Prints whole lines. When standard output is closed nobody reads along, and receiving goes on.
fn print(text: &str) {
    drop(terminal::print(text));
}
