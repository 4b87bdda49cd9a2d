//! The writer thread: takes commands from many tasks and commits them in groups.
//!
//! While one group is committed, the commands of the next one gather; so a commit, whose cost is one
//! sync of the disk, is shared by as many commands as arrive meanwhile, and a lone command waits for
//! nobody.

use std::fmt;
use std::sync::Arc;
use std::thread;

use jiff::Timestamp;
use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use super::super::{
    Accepted, Begun, Claimed, Disabled, Job, JobId, NewJob, Operation, Pace, Stepped, StoreError,
    Submission, Taken, Update, Which,
};
use super::kv::{self, Journals};
use super::write::{self, Chains};
use super::{accept, hold, jobs, step, webhooks};
use crate::delivery::{DeliveryId, WebhookId};
use crate::kv::{Outcome as KeyOutcome, Request as KeyRequest};

/// Commands in one commit at most: bounds how long the first of them waits for the last.
const MAX_GROUP: usize = 512;

/// Commands that wait for the writer at most; further ones wait to be taken at all.
const MAX_WAITING: usize = 4 * MAX_GROUP;

/// Where a command's result goes.
pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// Something to write.
pub(super) enum Command {
    Accept(Submission, Reply<Accepted>),
    Record(Update, Reply<()>),
    Release(Vec<DeliveryId>, Reply<()>),
    Claim { now: Timestamp, limit: usize, except: Vec<WebhookId>, reply: Reply<Claimed> },
    Kv(KeyRequest, Reply<KeyOutcome>),
    SweepKeys { now: Timestamp, limit: usize, reply: Reply<usize> },
    TakeHeld(WebhookId, Which, Reply<Taken>),
    Lift(WebhookId, Reply<()>),
    BeginJob(NewJob, Reply<Begun>),
    NoteFailing(WebhookId, Option<Timestamp>, Reply<()>),
    Disable(WebhookId, Disabled, Reply<()>),
    Enable(WebhookId, NewJob, Reply<Job>),
    StepJob { id: JobId, now: Timestamp, pace: Pace, reply: Reply<Stepped> },
    StopJob { tenant: Arc<str>, id: JobId, now: Timestamp, reply: Reply<Option<Job>> },
}

/// The handle to the writer thread, which ends when the handle is dropped.
pub(super) struct Writer {
    commands: Option<mpsc::Sender<Command>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread.
    pub(super) fn start(connection: Connection) -> Result<Self, StoreError> {
        let known = Known::load(&connection)?;
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        let thread = thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || run(connection, known, receiver))
            .map_err(StoreError::new)?;
        Ok(Self { commands: Some(sender), thread: Some(thread) })
    }

    /// Sends a command and waits until its group is committed.
    pub(super) fn ask<'a, T: Send + 'a>(
        &'a self,
        command: impl FnOnce(Reply<T>) -> Command + Send + 'a,
    ) -> Operation<'a, T> {
        Box::pin(async move {
            let stopped = || StoreError::new("the store's writer has stopped");
            let (reply, answer) = oneshot::channel();
            let commands = self.commands.as_ref().ok_or_else(stopped)?;
            commands.send(command(reply)).await.map_err(|_| stopped())?;
            answer.await.map_err(|_| stopped())?
        })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Closing the channel lets the thread write what was sent and end; waiting for it makes sure
        // that the file is closed before the folder's lock is given up.
        self.commands.take();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

/// What the thread remembers of the tables, to save queries.
struct Known {
    chains: Chains,
    journals: Journals,
}

impl Known {
    fn load(connection: &Connection) -> rusqlite::Result<Self> {
        Ok(Self { chains: Chains::default(), journals: Journals::load(connection)? })
    }
}

fn run(mut connection: Connection, mut known: Known, mut commands: mpsc::Receiver<Command>) {
    let mut group = Vec::with_capacity(MAX_GROUP);
    while commands.blocking_recv_many(&mut group, MAX_GROUP) > 0 {
        let committed = commit(&mut connection, &mut known, &group);
        if committed.is_ok() || group.len() == 1 {
            answer(&mut group, committed);
            continue;
        }
        // One command may be at fault: let each stand for itself.
        for command in group.drain(..) {
            let mut alone = vec![command];
            let committed = commit(&mut connection, &mut known, &alone);
            answer(&mut alone, committed);
        }
    }
}

/// Tells every command of a group what came of it.
fn answer(group: &mut Vec<Command>, committed: Result<Vec<Outcome>, StoreError>) {
    match committed {
        Ok(outcomes) => {
            group.drain(..).zip(outcomes).for_each(|(command, outcome)| command.answer(outcome));
        }
        Err(error) => group.drain(..).for_each(|command| command.refuse(&error)),
    }
}

/// What a command found, to be told once it is durable.
enum Outcome {
    Accepted(Accepted),
    Claimed(Claimed),
    Kv(KeyOutcome),
    Swept(usize),
    Taken(Taken),
    Begun(Begun),
    Job(Job),
    Stepped(Stepped),
    Stopped(Option<Job>),
    Done,
}

/// Applies all commands in one transaction.
fn commit(
    connection: &mut Connection,
    known: &mut Known,
    group: &[Command],
) -> Result<Vec<Outcome>, StoreError> {
    let applied = (|| {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let outcomes = group
            .iter()
            .map(|command| command.apply(&transaction, known))
            .collect::<rusqlite::Result<Vec<_>>>()?;
        transaction.commit()?;
        Ok(outcomes)
    })();
    applied.map_err(|error: rusqlite::Error| {
        // What was added in this transaction is gone with it, and what was removed is back.
        match Known::load(connection) {
            Ok(again) => *known = again,
            Err(error) => {
                known.chains = Chains::default();
                tracing::warn!(%error, "journals of deliveries cannot be read; some may be kept too long");
            }
        }
        StoreError::new(error)
    })
}

impl Command {
    fn apply(&self, connection: &Connection, known: &mut Known) -> rusqlite::Result<Outcome> {
        match self {
            Self::Accept(submission, _) => {
                accept::accept(connection, submission).map(Outcome::Accepted)
            }
            Self::Record(update, _) => {
                write::record(connection, &mut known.chains, update)?;
                known.journals.settle(connection, update).map(|()| Outcome::Done)
            }
            Self::Release(deliveries, _) => {
                write::release(connection, deliveries).map(|()| Outcome::Done)
            }
            Self::Claim { now, limit, except, .. } => {
                write::claim(connection, *now, *limit, except).map(Outcome::Claimed)
            }
            Self::Kv(request, _) => {
                kv::change(connection, &mut known.journals, request).map(Outcome::Kv)
            }
            Self::SweepKeys { now, limit, .. } => {
                kv::sweep(connection, *now, *limit).map(Outcome::Swept)
            }
            Self::TakeHeld(webhook, which, _) => {
                hold::take(connection, webhook, *which).map(Outcome::Taken)
            }
            Self::Lift(webhook, _) => hold::lift(connection, webhook).map(|()| Outcome::Done),
            Self::NoteFailing(webhook, since, _) => {
                webhooks::note_failing(connection, webhook, *since).map(|()| Outcome::Done)
            }
            Self::Disable(webhook, disabled, _) => {
                webhooks::disable(connection, webhook, disabled).map(|()| Outcome::Done)
            }
            Self::Enable(webhook, job, _) => {
                webhooks::enable(connection, webhook, job).map(Outcome::Job)
            }
            Self::BeginJob(job, _) => jobs::begin(connection, job).map(Outcome::Begun),
            Self::StepJob { id, now, pace, .. } => {
                step::step(connection, *id, *now, *pace).map(Outcome::Stepped)
            }
            Self::StopJob { tenant, id, now, .. } => {
                jobs::stop(connection, tenant, *id, *now).map(Outcome::Stopped)
            }
        }
    }

    /// Tells the result. Whoever asked may have gone; what was written stays written.
    fn answer(self, outcome: Outcome) {
        match (self, outcome) {
            (Self::Accept(_, reply), Outcome::Accepted(accepted)) => {
                drop(reply.send(Ok(accepted)));
            }
            (Self::Claim { reply, .. }, Outcome::Claimed(claimed)) => {
                drop(reply.send(Ok(claimed)));
            }
            (Self::Kv(_, reply), Outcome::Kv(outcome)) => drop(reply.send(Ok(outcome))),
            (Self::SweepKeys { reply, .. }, Outcome::Swept(count)) => drop(reply.send(Ok(count))),
            (Self::TakeHeld(.., reply), Outcome::Taken(taken)) => {
                drop(reply.send(Ok(taken)));
            }
            (Self::Enable(.., reply), Outcome::Job(job)) => drop(reply.send(Ok(job))),
            (Self::NoteFailing(.., reply) | Self::Disable(.., reply), Outcome::Done) => {
                drop(reply.send(Ok(())));
            }
            (Self::BeginJob(_, reply), Outcome::Begun(begun)) => drop(reply.send(Ok(begun))),
            (Self::StepJob { reply, .. }, Outcome::Stepped(step)) => drop(reply.send(Ok(step))),
            (Self::StopJob { reply, .. }, Outcome::Stopped(job)) => drop(reply.send(Ok(job))),
            (
                Self::Record(_, reply) | Self::Release(_, reply) | Self::Lift(_, reply),
                Outcome::Done,
            ) => {
                drop(reply.send(Ok(())));
            }
            (command, _) => {
                command.refuse(&StoreError::new("the result has another command's form"))
            }
        }
    }

    fn refuse(self, error: &StoreError) {
        match self {
            Self::Accept(_, reply) => drop(reply.send(Err(error.clone()))),
            Self::Claim { reply, .. } => drop(reply.send(Err(error.clone()))),
            Self::Kv(_, reply) => drop(reply.send(Err(error.clone()))),
            Self::SweepKeys { reply, .. } => drop(reply.send(Err(error.clone()))),
            Self::TakeHeld(.., reply) => drop(reply.send(Err(error.clone()))),
            Self::Enable(.., reply) => drop(reply.send(Err(error.clone()))),
            Self::NoteFailing(.., reply) | Self::Disable(.., reply) => {
                drop(reply.send(Err(error.clone())));
            }
            Self::BeginJob(_, reply) => drop(reply.send(Err(error.clone()))),
            Self::StepJob { reply, .. } => drop(reply.send(Err(error.clone()))),
            Self::StopJob { reply, .. } => drop(reply.send(Err(error.clone()))),
            Self::Record(_, reply) | Self::Release(_, reply) | Self::Lift(_, reply) => {
                drop(reply.send(Err(error.clone())))
            }
        }
    }
}
