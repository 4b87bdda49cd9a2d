//! Tasks: what the writer does that needs nothing but the tables, whatever it finds.

use std::any::Any;

use rusqlite::Connection;

use super::super::super::{Operation, StoreError};
use super::super::retention::Usage;
use super::{Command, Reply, Writer};

/// A task with what it finds left open, so that the writer need not know of each.
pub(in super::super) trait Task: Send {
    fn apply(
        &self,
        connection: &Connection,
        usage: &mut Usage,
    ) -> rusqlite::Result<Box<dyn Any + Send>>;

    /// Tells what `apply` found.
    fn answer(self: Box<Self>, found: Box<dyn Any + Send>);

    fn refuse(self: Box<Self>, error: &StoreError);
}

struct Asked<T, F> {
    work: F,
    reply: Reply<T>,
}

impl<T, F> Task for Asked<T, F>
where
    T: Send + 'static,
    F: Fn(&Connection, &mut Usage) -> rusqlite::Result<T> + Send,
{
    fn apply(
        &self,
        connection: &Connection,
        usage: &mut Usage,
    ) -> rusqlite::Result<Box<dyn Any + Send>> {
        Ok(Box::new((self.work)(connection, usage)?))
    }

    fn answer(self: Box<Self>, found: Box<dyn Any + Send>) {
        match found.downcast::<T>() {
            Ok(found) => drop(self.reply.send(Ok(*found))),
            Err(_) => self.refuse(&StoreError::new("the result has another task's form")),
        }
    }

    fn refuse(self: Box<Self>, error: &StoreError) {
        drop(self.reply.send(Err(error.clone())));
    }
}

impl Writer {
    /// Does this in a transaction with what else is to be written, and waits until that is committed. It may be
    /// done more than once, when a transaction fails.
    pub(in super::super) fn run<T: Send + 'static>(
        &self,
        work: impl Fn(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Operation<'_, T> {
        self.run_counting(move |connection, _| work(connection))
    }

    /// The same with what keeps events, and so counts their bytes.
    pub(in super::super) fn run_counting<T: Send + 'static>(
        &self,
        work: impl Fn(&Connection, &mut Usage) -> rusqlite::Result<T> + Send + 'static,
    ) -> Operation<'_, T> {
        self.ask(move |reply| Command::Task(Box::new(Asked { work, reply })))
    }
}
