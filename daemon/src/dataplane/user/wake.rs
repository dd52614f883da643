//! Commands to a worker thread: a channel, and a descriptor that wakes its poll.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use rustix::event::EventfdFlags;

use crate::dataplane::DataPlaneError;

/// The commanding end. When it is dropped, the worker ends, and the drop waits for that.
#[derive(Debug)]
pub(super) struct Commander<C> {
    commands: Option<mpsc::Sender<C>>,
    wake: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

/// The worker's end.
#[derive(Debug)]
pub(super) struct Orders<C> {
    commands: mpsc::Receiver<C>,
    wake: Arc<OwnedFd>,
}

/// Starts a worker thread.
///
/// # Errors
/// The system has no descriptor or no thread for us.
pub(super) fn start<C: Send + 'static>(
    name: &str,
    work: impl FnOnce(Orders<C>) + Send + 'static,
) -> Result<Commander<C>, DataPlaneError> {
    let failed = |source: std::io::Error| {
        DataPlaneError::system(format!("cannot start the worker {name}"), source)
    };
    let flags = EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC;
    let wake = Arc::new(rustix::event::eventfd(0, flags).map_err(|error| failed(error.into()))?);
    let (sender, receiver) = mpsc::channel();
    let orders = Orders {
        commands: receiver,
        wake: wake.clone(),
    };
    let thread = std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || work(orders))
        .map_err(failed)?;
    Ok(Commander {
        commands: Some(sender),
        wake,
        thread: Some(thread),
    })
}

impl<C> Commander<C> {
    /// Hands over a command.
    ///
    /// # Errors
    /// The worker is gone.
    pub(super) fn send(&self, command: C) -> Result<(), DataPlaneError> {
        let gone = || DataPlaneError::Refused("a worker of the data plane has ended".to_owned());
        let commands = self.commands.as_ref().ok_or_else(gone)?;
        commands.send(command).map_err(|_| gone())?;
        self.wake();
        Ok(())
    }

    fn wake(&self) {
        // It fails only if the counter is full, and then the worker has been woken already.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

impl<C> Drop for Commander<C> {
    fn drop(&mut self) {
        self.commands = None;
        self.wake();
        if let Some(thread) = self.thread.take() {
            // A worker that panicked has said so already.
            let _ = thread.join();
        }
    }
}

impl<C> Orders<C> {
    /// A command, if one waits; poll may wake for nothing after it.
    pub(super) fn next(&self) -> Option<C> {
        self.commands.try_recv().ok()
    }

    /// Every command that waits, after which poll sleeps again; `None`: the worker is to end.
    pub(super) fn take(&self) -> Option<Vec<C>> {
        // Cleared before the commands are taken: one that comes in between wakes again.
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        let mut commands = Vec::new();
        loop {
            match self.commands.try_recv() {
                Ok(command) => commands.push(command),
                Err(mpsc::TryRecvError::Empty) => return Some(commands),
                Err(mpsc::TryRecvError::Disconnected) => return None,
            }
        }
    }
}

impl<C> AsFd for Orders<C> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
