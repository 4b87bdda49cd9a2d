//! `hookmill send`: posts events to a gateway, and tells what became of them.

mod api;
mod event;
mod outcome;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tokio::time::Instant;

use self::api::{Accepted, Api};
use self::outcome::EventStatus;
use super::terminal::{self, Paint};

/// Send events to a gateway.
///
/// FILE, or standard input, holds one event as a JSON object, or several in an array; an event has
/// `type` and `data`, and may have `id`, `timestamp`, `attributes`, `ordering_key` and `webhook_url`. With
/// --type, FILE holds the `data` alone, which is sent byte for byte.
///
/// Prints the id of each accepted event. An event is accepted once it is durable; --wait tells what
/// became of its deliveries too.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    event: event::EventArgs,

    /// The gateway's address.
    #[arg(long, value_name = "URL", env = "HOOKMILL_URL", default_value = "http://127.0.0.1:8080")]
    url: url::Url,

    /// An API key of the tenant. Other users of this machine can read command lines; prefer the
    /// variable, or --key-file.
    #[arg(long, env = "HOOKMILL_KEY", hide_env_values = true)]
    key: Option<String>,

    /// A file that holds the API key; goes before --key and the variable.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,

    /// A name of this request: a gateway that has seen it answers as it did then, and accepts nothing
    /// twice.
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,

    /// Wait until every delivery of the events has ended, and print how; exit with 0 only if none is
    /// dead or still under way.
    #[arg(long)]
    wait: bool,

    /// How long an answer may take, and how long --wait waits, such as 500ms, 30s or 5m.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = super::duration::parse)]
    timeout: Duration,

    /// Print the gateway's answers as they are: that of the request, and with --wait one line of JSON an
    /// event.
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  hookmill send order.json --key-file acme.key
  hookmill send --type order.paid --data '{\"id\":1042}' --wait
  jq -c . invoice.json | hookmill send --type invoice.created --attribute region=eu -";

/// Why the command ends without success: a message for people.
type Problem = String;

/// Sends what the arguments say.
pub(super) async fn run(args: Args) -> ExitCode {
    match send(args).await {
        Ok(code) => code,
        Err(problem) => terminal::fail(&problem),
    }
}

async fn send(args: Args) -> Result<ExitCode, Problem> {
    let body = args.event.body()?;
    let key = key(args.key_file, args.key)?;
    let api = Api::new(&args.url, &key, args.timeout)?;
    let answer = api.post_events(body, args.idempotency_key).await?;
    let paint = Paint::for_stdout();
    if args.json {
        print(&format!("{}\n", answer.text.trim_end()))?;
    } else {
        print(&answer.events.iter().map(|e| e.line(paint)).collect::<String>())?;
    }
    if !args.wait {
        return Ok(ExitCode::SUCCESS);
    }
    let waiting = Waiting { api, until: Instant::now() + args.timeout, json: args.json, paint };
    waiting.for_all(&answer.events).await
}

/// The key, from whichever place it was given in.
fn key(file: Option<PathBuf>, key: Option<String>) -> Result<String, Problem> {
    match (file, key) {
        (Some(file), _) => std::fs::read_to_string(&file)
            .map(|text| text.trim().to_owned())
            .map_err(|error| format!("cannot read {}: {error}", file.display())),
        (None, Some(key)) => Ok(key),
        (None, None) => Err("no API key: set HOOKMILL_KEY, or give --key-file or --key".to_owned()),
    }
}

/// What `--wait` needs to know.
struct Waiting {
    api: Api,
    until: Instant,
    json: bool,
    paint: Paint,
}

impl Waiting {
    /// Waits for each event in turn: they are all under way, so the order costs no time.
    async fn for_all(&self, events: &[Accepted]) -> Result<ExitCode, Problem> {
        let mut all_well = true;
        for event in events {
            let (status, text) = self.for_one(&event.id).await?;
            all_well &= status.went_well();
            if self.json {
                print(&format!("{}\n", super::layout::compact(&text)))?;
            } else {
                print(&status.lines(self.paint))?;
            }
        }
        Ok(if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// The event's status once nothing is under way any more, or when time is up.
    async fn for_one(&self, id: &str) -> Result<(EventStatus, String), Problem> {
        /// Waits between questions double up to this.
        const LONGEST_PAUSE: Duration = Duration::from_secs(1);

        let mut pause = Duration::from_millis(20);
        loop {
            let (status, text) = self.api.event(id).await?;
            if status.is_settled() || Instant::now() + pause > self.until {
                return Ok((status, text));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

fn print(text: &str) -> Result<(), Problem> {
    terminal::print(text).map_err(|error| format!("cannot write to standard output: {error}"))
}
