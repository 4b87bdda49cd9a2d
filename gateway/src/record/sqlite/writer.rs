//! The writer thread: takes commands from many tasks and commits them in groups.
//!
//! While one group is committed, the commands of the next one gather; so a commit, whose cost is one
//! sync of the disk, is shared by as many commands as arrive meanwhile, and a lone command waits for
//! nobody.

mod task;

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::thread;

use jiff::Timestamp;
use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use self::task::Task;
use super::super::{
    Accepted, Ask, Claimed, Fault, NewEvent, NewPurge, Next, Operation, PurgeBegun, Purged,
    Recorded, Removal, Removed, Skipped, StoreError, Submission, Taken, Update, Which,
};
use super::guard::{Gauge, Guard, Ticket};
use super::kv::{self, Journals};
use super::purge;
use super::retention::{self, Usage};
use super::wal::Log;
use super::write::{self, Chains};
use super::{accept, claim, hold, queue};
use crate::delivery::{DeliveryId, WebhookId};
use crate::event::EventId;
use crate::failpoint::{self, Point};
use crate::kv::{Outcome as KeyOutcome, Request as KeyRequest};

/// Commands in one commit at most: bounds how long the first of them waits for the last.
const MAX_GROUP: usize = 512;

/// Commands that wait for the writer at most; further ones wait to be taken at all.
const MAX_WAITING: usize = 4 * MAX_GROUP;

/// Where a command's result goes.
pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// Something to write.
pub(super) enum Command {
    Accept(Submission, Ticket, Reply<Accepted>),
    Record(Update, Vec<NewEvent>, Reply<Recorded>),
    Release(Vec<DeliveryId>, Reply<()>),
    Claim { now: Timestamp, asks: Vec<Ask>, max_bytes: usize, reply: Reply<Vec<Claimed>> },
    Kv(KeyRequest, Reply<KeyOutcome>),
    SweepKeys { now: Timestamp, limit: usize, reply: Reply<usize> },
    TakeHeld(WebhookId, Which, Reply<Taken>),
    Lift(WebhookId, Reply<()>),
    Remove(Vec<Removal>, Reply<Removed>),
    ForgetKeys { before: Timestamp, limit: usize, reply: Reply<usize> },
    Shrink(u64, Reply<u64>),
    Unblock(WebhookId, Reply<usize>),
    Skip(Arc<str>, EventId, Reply<Option<Vec<Skipped>>>),
    Task(Box<dyn Task>),
    BeginPurge(NewPurge, Reply<PurgeBegun>),
    StepPurge(purge::Step, Reply<Purged>),
}

/// The handle to the writer thread, which ends when the handle is dropped.
pub(super) struct Writer {
    commands: Option<mpsc::Sender<Command>>,
    guard: Arc<Guard>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread.
    pub(super) fn start(connection: Connection, guard: Arc<Guard>) -> Result<Self, StoreError> {
        let known = Known::load(&connection)?;
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        let thread = thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn({
                let guard = Arc::clone(&guard);
                move || run(connection, known, receiver, &guard)
            })
            .map_err(StoreError::new)?;
        Ok(Self { commands: Some(sender), guard, thread: Some(thread) })
    }

    /// Sends a submission and waits until it is committed, or gives up before the writer takes it.
    pub(super) fn accept(&self, submission: Submission) -> Operation<'_, Accepted> {
        Box::pin(async move {
            self.guard.check()?;
            let ticket = Ticket::default();
            let own = ticket.clone();
            let mut answer = self.ask(|reply| Command::Accept(submission, own, reply));
            match tokio::time::timeout(self.guard.max_wait(), &mut answer).await {
                Ok(answer) => answer,
                Err(_) if ticket.take() => Err(self.guard.behind()),
                // It is being written: only the outcome can tell.
                Err(_) => answer.await,
            }
        })
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
    usage: Usage,
}

impl Known {
    fn load(connection: &Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            chains: Chains::default(),
            journals: Journals::load(connection)?,
            usage: Usage::default(),
        })
    }
}

fn run(
    mut connection: Connection,
    mut known: Known,
    mut commands: mpsc::Receiver<Command>,
    guard: &Arc<Guard>,
) {
    let mut log = Log::of(&connection);
    let mut gauge = Gauge::new(Arc::clone(guard));
    let mut group = Vec::with_capacity(MAX_GROUP);
    while commands.blocking_recv_many(&mut group, MAX_GROUP) > 0 {
        guard.begins();
        admit(&mut group, &mut gauge);
        let mut committed = commit(&mut connection, &mut known, &group);
        if let Err(error) = &committed
            && matches!(error.fault(), Fault::Full | Fault::Disk)
        {
            // The little room that there may be is for what became of events.
            refuse_new(&mut group, error);
            committed = commit(&mut connection, &mut known, &group);
        }
        if committed.is_ok() || group.len() <= 1 {
            answer(&mut group, committed, guard);
        } else {
            // One command may be at fault: let each stand for itself.
            for command in group.drain(..) {
                guard.begins();
                let mut alone = vec![command];
                let committed = commit(&mut connection, &mut known, &alone);
                answer(&mut alone, committed, guard);
            }
        }
        log.grown(&connection);
    }
}

/// Leaves out what nobody waits for any more, and what is new when there is no room for it.
fn admit(group: &mut Vec<Command>, gauge: &mut Gauge) {
    group.retain(|command| match command {
        Command::Accept(_, ticket, _) => ticket.take(),
        _ => true,
    });
    let has_new = group.iter().any(|command| matches!(command, Command::Accept(..)));
    if has_new && let Err(error) = gauge.room() {
        refuse_new(group, &error);
    }
}

fn refuse_new(group: &mut Vec<Command>, error: &StoreError) {
    let is_new = |command: &mut Command| matches!(command, Command::Accept(..));
    group.extract_if(.., is_new).for_each(|command| command.refuse(error));
}

/// Tells every command of a group what came of it.
fn answer(group: &mut Vec<Command>, committed: Result<Vec<Outcome>, StoreError>, guard: &Guard) {
    // First: whoever has the answer may ask for more at once, and is not to be told that the writer does not get on.
    guard.ends();
    match committed {
        Ok(outcomes) => {
            group.drain(..).zip(outcomes).for_each(|(command, outcome)| command.answer(outcome));
        }
        Err(error) => {
            guard.note(&error);
            group.drain(..).for_each(|command| command.refuse(&error));
        }
    }
}

/// What a command found, to be told once it is durable.
enum Outcome {
    Accepted(Accepted),
    Claimed(Vec<Claimed>),
    Kv(KeyOutcome),
    Counted(usize),
    Recorded(Recorded),
    Skipped(Option<Vec<Skipped>>),
    Taken(Taken),
    Removed(Removed),
    Shrunk(u64),
    Task(Box<dyn Any + Send>),
    PurgeBegun(PurgeBegun),
    Purged(Purged),
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
        known.usage.write(&transaction)?;
        transaction.commit()?;
        Ok(outcomes)
    })();
    applied.map_err(|error: rusqlite::Error| {
        // What was added in this transaction is gone with it, and what was removed is back.
        known.chains = Chains::default();
        known.usage = Usage::default();
        if let Err(error) = known.journals.reload(connection) {
            tracing::warn!(%error, "journals of deliveries cannot be read; some may be kept too long");
        }
        StoreError::from(error)
    })
}

impl Command {
    fn apply(&self, connection: &Connection, known: &mut Known) -> rusqlite::Result<Outcome> {
        match self {
            Self::Accept(submission, ..) => {
                let accepted = accept::accept(connection, &mut known.usage, submission)?;
                failpoint::hit(Point::EventsWritten);
                Ok(Outcome::Accepted(accepted))
            }
            Self::Record(update, told, _) => {
                let mut recorded = write::record(connection, &mut known.chains, update)?;
                // What nobody is owed any more has no news, unless the receiver took it.
                let is_owed = !recorded.cancelled || matches!(update.next, Next::Delivered);
                if is_owed && !recorded.purged {
                    for new in told {
                        recorded.told += accept::tell(connection, &mut known.usage, new)?;
                    }
                }
                failpoint::hit(Point::OutcomeWritten);
                known.journals.settle(connection, update)?;
                known.journals.ended(&[update.delivery]);
                Ok(Outcome::Recorded(recorded))
            }
            Self::Release(deliveries, _) => {
                known.journals.ended(deliveries);
                write::release(connection, deliveries).map(|()| Outcome::Done)
            }
            Self::Claim { now, asks, max_bytes, .. } => {
                claim::claim(connection, *now, asks, *max_bytes).map(Outcome::Claimed)
            }
            Self::Kv(request, _) => {
                kv::change(connection, &mut known.journals, request).map(Outcome::Kv)
            }
            Self::SweepKeys { now, limit, .. } => {
                kv::sweep(connection, *now, *limit).map(Outcome::Counted)
            }
            Self::TakeHeld(webhook, which, _) => {
                hold::take(connection, webhook, *which).map(Outcome::Taken)
            }
            Self::Lift(webhook, _) => hold::lift(connection, webhook).map(|()| Outcome::Done),
            Self::Remove(removals, _) => {
                let (removed, orphans) = retention::remove(connection, &mut known.usage, removals)?;
                known.chains.forget(&orphans);
                Ok(Outcome::Removed(removed))
            }
            Self::ForgetKeys { before, limit, .. } => {
                retention::forget_keys(connection, *before, *limit).map(Outcome::Counted)
            }
            Self::Shrink(bytes, _) => retention::shrink(connection, *bytes).map(Outcome::Shrunk),
            Self::Unblock(webhook, _) => queue::unblock(connection, webhook).map(Outcome::Counted),
            Self::Skip(tenant, event, _) => {
                queue::skip(connection, tenant, event).map(Outcome::Skipped)
            }
            Self::Task(task) => task.apply(connection, &mut known.usage).map(Outcome::Task),
            Self::BeginPurge(new, _) => purge::begin(connection, new).map(Outcome::PurgeBegun),
            Self::StepPurge(step, _) => {
                let (purged, orphans) = purge::step(connection, &mut known.usage, step)?;
                known.chains.forget(&orphans);
                known.journals.purge(&purged.in_hand);
                Ok(Outcome::Purged(purged))
            }
        }
    }

    /// Tells the result. Whoever asked may have gone; what was written stays written.
    fn answer(self, outcome: Outcome) {
        match (self, outcome) {
            (Self::Accept(.., reply), Outcome::Accepted(accepted)) => {
                failpoint::hit(Point::EventsCommitted);
                drop(reply.send(Ok(accepted)));
            }
            (Self::Claim { reply, .. }, Outcome::Claimed(claimed)) => {
                drop(reply.send(Ok(claimed)));
            }
            (Self::Kv(_, reply), Outcome::Kv(outcome)) => drop(reply.send(Ok(outcome))),
            (Self::Remove(_, reply), Outcome::Removed(removed)) => drop(reply.send(Ok(removed))),
            (Self::BeginPurge(_, reply), Outcome::PurgeBegun(begun)) => {
                drop(reply.send(Ok(begun)));
            }
            (Self::StepPurge(_, reply), Outcome::Purged(purged)) => {
                drop(reply.send(Ok(purged)));
            }
            (Self::Shrink(_, reply), Outcome::Shrunk(bytes)) => drop(reply.send(Ok(bytes))),
            (
                Self::SweepKeys { reply, .. }
                | Self::ForgetKeys { reply, .. }
                | Self::Unblock(_, reply),
                Outcome::Counted(count),
            ) => drop(reply.send(Ok(count))),
            (Self::Record(.., reply), Outcome::Recorded(recorded)) => {
                drop(reply.send(Ok(recorded)));
            }
            (Self::Skip(.., reply), Outcome::Skipped(skipped)) => {
                drop(reply.send(Ok(skipped)));
            }
            (Self::TakeHeld(.., reply), Outcome::Taken(taken)) => {
                drop(reply.send(Ok(taken)));
            }
            (Self::Task(task), Outcome::Task(found)) => task.answer(found),
            (Self::Release(_, reply) | Self::Lift(_, reply), Outcome::Done) => {
                drop(reply.send(Ok(())));
            }
            (command, _) => {
                command.refuse(&StoreError::new("the result has another command's form"))
            }
        }
    }

    fn refuse(self, error: &StoreError) {
        match self {
            Self::Accept(.., reply) => drop(reply.send(Err(error.clone()))),
            Self::Claim { reply, .. } => drop(reply.send(Err(error.clone()))),
            Self::Kv(_, reply) => drop(reply.send(Err(error.clone()))),
            Self::SweepKeys { reply, .. }
            | Self::ForgetKeys { reply, .. }
            | Self::Unblock(_, reply) => drop(reply.send(Err(error.clone()))),
            Self::Remove(_, reply) => drop(reply.send(Err(error.clone()))),
            Self::BeginPurge(_, reply) => drop(reply.send(Err(error.clone()))),
            Self::StepPurge(_, reply) => drop(reply.send(Err(error.clone()))),
            Self::Shrink(_, reply) => drop(reply.send(Err(error.clone()))),
            Self::Record(.., reply) => drop(reply.send(Err(error.clone()))),
            Self::Skip(.., reply) => drop(reply.send(Err(error.clone()))),
            Self::Task(task) => task.refuse(error),
            Self::TakeHeld(.., reply) => drop(reply.send(Err(error.clone()))),
            Self::Release(_, reply) | Self::Lift(_, reply) => drop(reply.send(Err(error.clone()))),
        }
    }
}
