//! `hookmill purge`: removes things from the database of a gateway that is stopped.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::Value;

use super::terminal;
use crate::app::{self, Purge};

/// Remove all that a stopped gateway has of a tenant, or of events with a value, whatever its age and state.
///
/// What is owed of it is not delivered. The database is rewritten afterwards, which takes as much free space as it has.
/// While the gateway runs, `POST /v1/purges` does the same beside its work.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true).args(["tenant", "attribute", "pointer"]))]
pub(super) struct Args {
    /// The gateway's data folder, `store.data_dir` of its configuration.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,

    /// The tenant: everything of it, or, with `--attribute` or `--pointer`, its events alone.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,

    /// Events with this attribute.
    #[arg(long, value_name = "NAME=VALUE", value_parser = attribute, conflicts_with = "pointer")]
    attribute: Option<(String, String)>,

    /// Events whose data has this value where a JSON Pointer leads to, such as `/customer/id=c_1`. The value is JSON; what is
    /// not is text.
    #[arg(long, value_name = "POINTER=VALUE", value_parser = pointer)]
    pointer: Option<(String, Value)>,
}

fn attribute(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("must be NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn pointer(text: &str) -> Result<(String, Value), String> {
    let (pointer, value) = text.split_once('=').ok_or("must be POINTER=VALUE")?;
    if !pointer.is_empty() && !pointer.starts_with('/') {
        return Err("the pointer must begin with a slash, as in /customer/id=c_1".to_owned());
    }
    let parsed = match serde_json::from_str(value) {
        Ok(scalar @ (Value::String(_) | Value::Number(_) | Value::Bool(_))) => scalar,
        _ => Value::String(value.to_owned()),
    };
    Ok((pointer.to_owned(), parsed))
}

/// Purges, and says what is gone.
pub(super) async fn run(args: Args) -> ExitCode {
    let Args { data, tenant, attribute, pointer } = args;
    let what = match (tenant, attribute, pointer) {
        (tenant, Some((name, value)), _) => Purge::Attribute { tenant, name, value },
        (tenant, None, Some((pointer, value))) => Purge::Pointer { tenant, pointer, value },
        (Some(tenant), None, None) => Purge::Tenant(tenant),
        (None, None, None) => return terminal::fail("nothing says what to purge"),
    };
    match app::purge(data, what).await {
        Ok(purged) => {
            let mut stdout = std::io::stdout().lock();
            for (tenant, events) in purged {
                // Nobody may be reading; the exit code tells all the same.
                drop(writeln!(stdout, "{tenant}: {events} events are gone"));
            }
            ExitCode::SUCCESS
        }
        Err(error) => terminal::fail(&error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_json_or_text() {
        for (text, expected) in [
            ("/customer/id=c_1", ("/customer/id", json!("c_1"))),
            ("/n=7", ("/n", json!(7))),
            ("/n=\"7\"", ("/n", json!("7"))),
            ("/ok=true", ("/ok", json!(true))),
            ("/a=b=c", ("/a", json!("b=c"))),
            ("/list=[1]", ("/list", json!("[1]"))),
        ] {
            assert_eq!(pointer(text).unwrap(), (expected.0.to_owned(), expected.1), "{text}");
        }
        assert!(pointer("customer=1").unwrap_err().contains("slash"));
        assert!(pointer("/customer").is_err() && attribute("region").is_err());
        assert_eq!(attribute("a=b=c").unwrap(), ("a".to_owned(), "b=c".to_owned()));
    }
}
