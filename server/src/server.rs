//! A whole server as one value: start it, ask it, stop it.

use std::sync::Arc;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use tracing::warn;

use crate::config::Config;
use crate::control::{Answer, Asked, Control, Ending, Request, Reread, StartError, Status};

/// A running server. Nothing of it is global: a process may run several.
#[derive(Debug)]
pub struct Server {
    requests: mpsc::Sender<Asked>,
    stop_asked: Arc<Notify>,
    end: oneshot::Sender<()>,
    control: JoinHandle<Ending>,
    report: Status,
}

impl Server {
    /// Loads the handlers, binds every address and begins to accept. Runs on a tokio runtime with I/O and time. `reread` is how
    /// it reads its config again when it is told to.
    pub async fn start(config: Config, reread: Reread) -> Result<Self, StartError> {
        let control = Control::start(config, reread).await?;
        let (end, ended) = oneshot::channel();
        Ok(Self {
            requests: control.sender(),
            stop_asked: control.stop_asked(),
            report: control.status(),
            end,
            control: tokio::spawn(control.run(ended)),
        })
    }

    /// What it served when it started.
    pub fn report(&self) -> &Status {
        &self.report
    }

    /// Asks it for something, and waits until it is done. Cancel safe: what was asked is done all the same.
    pub async fn ask(&self, request: Request) -> Answer {
        let (sender, answer) = oneshot::channel();
        // Both fail only when the server has ended.
        let _ = self.requests.send((request, sender)).await;
        answer.await.unwrap_or_else(|_| Answer::Failed("the server has ended".into()))
    }

    /// Waits until somebody asks for the end by the control socket.
    pub async fn stop_asked(&self) {
        self.stop_asked.notified().await;
    }

    /// Stops accepting, closes every session with 1001, lets the libraries shut down. Returns when all of that is done, or
    /// `listen.shutdown_seconds_max` has passed.
    pub async fn stop(self) -> Ending {
        let _ = self.end.send(());
        self.control.await.unwrap_or_else(|error| {
            warn!("stopping the server failed: {error}");
            Ending::InOrder
        })
    }
}
