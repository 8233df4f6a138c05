//! One run of a program: started without a shell, fed, listened to, and ended with everything that it has started.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, waitid};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tracing::{debug, warn};

use super::super::Body;
use super::output::{Output, Part, end_of_head, head};

/// What is to be run, and how its answer is to be read.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) file: PathBuf,
    /// What the log calls it.
    pub(super) name: String,
    /// Its whole environment.
    pub(super) variables: Vec<(String, String)>,
    /// Only the head of the answer is wanted.
    pub(super) is_head: bool,
    pub(super) head_bytes_max: usize,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    NotStarted,
    /// It ended without an answer, or said something that is none.
    BadOutput,
    TimedOut,
}

/// Read from the program at a time. So much of its answer is in memory, and once more waits for a slow peer.
const PART_BYTES: usize = 16 << 10;

const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// Longer lines of standard error are cut.
const LINE_BYTES_MAX: u64 = 4096;

impl Program {
    /// Runs it. If whoever waits for the answer leaves, before its head or in the middle of it, the program is ended.
    pub(super) async fn answer(
        self,
        body: Bytes,
        turn: OwnedSemaphorePermit,
        deadline: Instant,
    ) -> Result<Response<Body>, Failure> {
        let mut run = self.start().map_err(|error| {
            warn!(target: "cgi", program = self.name, "cannot be started: {error}");
            Failure::NotStarted
        })?;
        let (send_head, received_head) = oneshot::channel();
        if let Some(errors) = run.errors.take() {
            tokio::spawn(log_errors(errors, self.name.clone(), deadline));
        }
        tokio::spawn(async move {
            if self.listen(&mut run, body, send_head, deadline).await {
                // It may have something left to do that is not for its answer.
                let _ = timeout_at(deadline, run.group.leader_ended()).await;
            }
            run.end(&self.name).await;
            drop(turn);
        });
        match received_head.await {
            Ok(answered) => answered,
            Err(_) => Err(Failure::TimedOut),
        }
    }

    fn start(&self) -> std::io::Result<Run> {
        let mut command = Command::new(&self.file);
        command.env_clear().envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // RFC 3875 section 7.2.
        command.current_dir(self.file.parent().unwrap_or(&self.file));
        command.process_group(0).kill_on_drop(true);
        let mut child = command.spawn()?;
        let pid = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        let group = Group { leader: pid.expect("it was not waited for"), is_over: false };
        let (input, output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        Ok(Run { group, child, input, output: output.expect("it is piped"), errors })
    }

    /// Feeds it and passes its answer on, until that is over, the deadline has come, or nobody listens any more. Whether it has done
    /// its work.
    async fn listen(
        &self,
        run: &mut Run,
        body: Bytes,
        mut send_head: oneshot::Sender<Result<Response<Body>, Failure>>,
        deadline: Instant,
    ) -> bool {
        let input = run.input.take();
        let feed = async {
            if let Some(mut input) = input {
                // It need not read what it is given, and the end of the pipe tells it that this is all.
                let _ = input.write_all(&body).await;
            }
        };
        let speak = async {
            let Some((response, rest)) = self.read_head(run, &mut send_head).await else {
                let _ = send_head.send(Err(Failure::BadOutput));
                return false;
            };
            let status = response.status();
            if self.is_head || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
                let nothing = Empty::new().map_err(|never| match never {}).boxed();
                let _ = send_head.send(Ok(response.map(|()| nothing)));
                while run.read(&mut BytesMut::with_capacity(PART_BYTES)).await > 0 {}
                return true;
            }
            let (sender, parts) = mpsc::channel(1);
            let body = Output { parts, is_over: false }.boxed();
            send_head.send(Ok(response.map(|()| body))).is_ok() && pass_on(run, rest, &sender, deadline).await
        };
        // The program may answer before it has read everything, and end without.
        let both = async {
            tokio::pin!(feed, speak);
            tokio::select! {
                is_done = &mut speak => return is_done,
                () = &mut feed => {}
            }
            speak.await
        };
        timeout_at(deadline, both).await.unwrap_or_else(|_| {
            warn!(target: "cgi", program = self.name, "ended, because it took too long");
            false
        })
    }

    /// `None` if there is none, it is too long, or nobody waits for it.
    async fn read_head(
        &self,
        run: &mut Run,
        waiting: &mut oneshot::Sender<Result<Response<Body>, Failure>>,
    ) -> Option<(Response<()>, BytesMut)> {
        let mut bytes = BytesMut::with_capacity(PART_BYTES);
        let wrong = |why: &str| warn!(target: "cgi", program = self.name, "{why}");
        loop {
            if let Some((end, rest)) = end_of_head(&bytes).filter(|(end, _)| *end <= self.head_bytes_max) {
                let response = head(&bytes[..end]);
                if response.is_none() {
                    wrong(
                        "its header lines make no answer: there has to be a Content-Type, Location or Status",
                    );
                }
                return response.map(|response| (response, bytes.split_off(rest)));
            }
            if bytes.len() > self.head_bytes_max {
                wrong("its header lines are longer than cgi.head_bytes_max");
                return None;
            }
            // Both branches are cancel safe: what was not read stays in the pipe.
            let read = tokio::select! {
                read = run.read(&mut bytes) => read,
                () = waiting.closed() => return None,
            };
            if read == 0 {
                wrong("it ended without an empty line behind its header lines");
                return None;
            }
        }
    }
}

/// Passes on what comes, at the pace of the peer. False if the peer leaves.
async fn pass_on(run: &mut Run, first: BytesMut, sender: &mpsc::Sender<Part>, deadline: Instant) -> bool {
    let mut bytes = first;
    loop {
        if !bytes.is_empty() && sender.send(Part::Bytes(bytes.split().freeze())).await.is_err() {
            return false;
        }
        bytes.reserve(PART_BYTES);
        // Both branches are cancel safe: what was not read stays in the pipe.
        let read = tokio::select! {
            read = run.read(&mut bytes) => read,
            () = sender.closed() => return false,
        };
        if read == 0 {
            // One that was killed at its deadline ends its output too, and that is not its end.
            if Instant::now() < deadline {
                let _ = sender.send(Part::End).await;
            }
            return true;
        }
    }
}

/// A program that runs. The fields are dropped in this order: a group is killed while the number is still its own, which it is until
/// the child was waited for.
struct Run {
    group: Group,
    child: Child,
    input: Option<ChildStdin>,
    output: ChildStdout,
    errors: Option<ChildStderr>,
}

impl Run {
    /// The next bytes of its output; 0 at its end. What it has started must not keep the output open for longer than itself.
    async fn read(&mut self, bytes: &mut BytesMut) -> usize {
        // Cancel safe in both branches. First what there is to read.
        tokio::select! {
            biased;
            read = self.output.read_buf(bytes) => return read.unwrap_or_default(),
            () = self.group.leader_ended() => self.group.kill(),
        }
        self.output.read_buf(bytes).await.unwrap_or_default()
    }

    /// Ends it, if it has not ended.
    async fn end(mut self, name: &str) {
        self.group.kill();
        let waited = self.child.wait().await;
        self.group.is_over = true;
        match waited {
            Ok(status) if status.success() => debug!(target: "cgi", program = name, "has ended"),
            Ok(status) => debug!(target: "cgi", program = name, "has ended with {status}"),
            Err(error) => warn!(target: "cgi", program = name, "cannot be waited for: {error}"),
        }
    }
}

/// A process group of this server's making, named after its leader.
struct Group {
    leader: Pid,
    /// Its number may be another group's by now.
    is_over: bool,
}

impl Group {
    /// Comes back when the program itself has ended. It is not waited for yet: its number stays its own.
    ///
    /// A program seldom ends before its output does, so that a look now and then will do. Cancel safe.
    async fn leader_ended(&self) {
        let look = || {
            waitid(
                WaitId::Pid(self.leader),
                WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG,
            )
        };
        while matches!(look(), Ok(None)) {
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
    }

    fn kill(&self) {
        if !self.is_over {
            // There may be nobody left.
            let _ = rustix::process::kill_process_group(self.leader, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What it says on standard error is for the operator.
async fn log_errors(errors: ChildStderr, program: String, deadline: Instant) {
    let mut errors = BufReader::new(errors);
    let lines = async {
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = (&mut errors).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await;
            if !read.is_ok_and(|count| count > 0) {
                return;
            }
            let text = String::from_utf8_lossy(&line);
            // One line stays one line.
            let text = text.trim_end().replace(|c: char| c.is_control() && c != '\t', "\u{fffd}");
            warn!(target: "cgi", program, "{text}");
        }
    };
    // What escaped the end of its group may keep the pipe open.
    let _ = timeout_at(deadline, lines).await;
}
