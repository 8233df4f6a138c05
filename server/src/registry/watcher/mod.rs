//! Says that something in the handlers folders or in a file of the configuration changed: look again. Nothing more.
//!
//! One thread takes a `Look` at everything that is watched, names and times only, and compares it with the one before. Events of
//! the system (`events`) make it look at once; without them it looks every `poll`, which finds what no event told: on network file
//! systems, behind links that lead elsewhere now, and when the system had more to tell than it queues. An event alone never
//! counts as a change, because build tools make thousands that mean nothing here.
//!
//! A time of change that differs counts as a change, although the contents may be the same: whoever is told reads the file
//! anyway and compares.

mod events;
mod look;
mod ways;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use self::events::Events;
use self::look::Look;
use self::ways::Ways;
use crate::config::WatchMode;

/// Calls a function when something changed. Dropping it ends its thread and waits for that, so the function is not called
/// afterwards; do not drop it in the function.
#[derive(Debug)]
pub(crate) struct Watcher {
    shared: Arc<Shared>,
    /// `None` if there is nothing to run: mode off, or no thread to be had.
    thread: Option<JoinHandle<()>>,
}

/// What to watch. Relative paths start at the folder of the process, as everywhere in the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Watched {
    /// Folders of handler libraries, each without its subfolders: the handler libraries in it count, which subfolders it has, and
    /// whether it is there.
    pub(crate) folders: Vec<PathBuf>,
    /// Files, and links to anything, with what they lead to. They need not be there.
    pub(crate) files: Vec<PathBuf>,
}

impl Watcher {
    /// Starts with nothing to watch. `poll` is the time between two looks if no event asks for one, at most a day.
    ///
    /// `changed` is called on the watcher's thread. While it runs nothing is looked at, and whatever happens meanwhile makes one
    /// more call. It may call [`Watcher::watch`]. With [`WatchMode::Off`] it is never called.
    ///
    /// A change that the system tells of makes a call within a quarter of a second, usually after 20 ms; where looking takes longer
    /// than 40 ms, as with thousands of libraries, within six times as long as it takes.
    pub(crate) fn start(mode: WatchMode, poll: Duration, changed: impl Fn() + Send + 'static) -> Self {
        let shared = Arc::new(Shared::default());
        if mode == WatchMode::Off {
            return Self { shared, thread: None };
        }
        let mut rounds = Rounds {
            shared: shared.clone(),
            poll,
            with_events: mode == WatchMode::Auto,
            events: None,
            watched: Watched::default(),
            look: Look::default(),
        };
        let run = move || rounds.run(&changed);
        let thread = std::thread::Builder::new().name("watcher".into()).spawn(run);
        if let Err(error) = &thread {
            let text =
                format!("changes of handlers go unnoticed, for there is no thread to watch them: {error}");
            shared.lock().problems.insert(PathBuf::new(), Problem::new(text));
        }
        Self { shared, thread: thread.ok() }
    }

    /// Replaces what is watched. Does not wait for it, and does nothing if it is the same as before.
    ///
    /// What is new here makes one call of `changed`, once it is watched: something may have happened to it since the caller last
    /// looked at it. So whoever scans and then watches what the scan found misses nothing, and comes to rest after one more scan.
    ///
    /// What is not there, or cannot be watched, is no error. The look every `poll` will find it, and [`Watcher::notes`] says so.
    pub(crate) fn watch(&self, mut watched: Watched) {
        if self.thread.is_none() {
            return;
        }
        for paths in [&mut watched.folders, &mut watched.files] {
            paths.sort_unstable();
            paths.dedup();
        }
        let mut state = self.shared.lock();
        if state.watched != watched {
            state.watched = watched;
            state.replaced = true;
            self.shared.woken.notify_one();
        }
    }

    /// What an operator should know and was not told yet, a sentence each: folders that are gone, folders without events. Said
    /// once, and once more when it was over and begins again.
    pub(crate) fn notes(&self) -> Vec<String> {
        let mut state = self.shared.lock();
        let mut untold: Vec<_> = state.problems.values_mut().filter(|problem| !problem.told).collect();
        let more = untold.len().saturating_sub(NOTES_MAX);
        let mut notes: Vec<_> = untold.iter().take(NOTES_MAX).map(|problem| problem.text.clone()).collect();
        if more > 0 {
            notes.push(format!("the same goes for {more} more folders"));
        }
        untold.iter_mut().for_each(|problem| problem.told = true);
        notes
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.woken.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic was reported when it happened.
            let _ = thread.join();
        }
    }
}

/// A burst of events is over when there was none for this long,
const QUIET: Duration = Duration::from_millis(20);

/// or when it has lasted this long.
const BURST_MAX: Duration = Duration::from_millis(200);

/// How long not to look after a look that took so long: at most a fifth of one core goes into looking.
fn pause_after(look: Duration) -> Duration {
    QUIET.max(look * 4)
}

/// Notes at a time; a tree of folders may vanish at once.
const NOTES_MAX: usize = 8;

/// Between the watcher, its thread, and the thread that delivers events. Everything in it is bounded by what is watched.
#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    woken: Condvar,
}

#[derive(Debug, Default)]
struct State {
    watched: Watched,
    /// `watched` is not yet what the thread watches.
    replaced: bool,
    /// The first and the last event since the last look began.
    burst: Option<(Instant, Instant)>,
    /// A folder that is listened to was itself removed or renamed.
    stale: bool,
    stopped: bool,
    problems: BTreeMap<PathBuf, Problem>,
    /// Looks that have ended.
    #[cfg(test)]
    looks: u64,
}

#[derive(Debug)]
struct Problem {
    text: String,
    told: bool,
}

impl Problem {
    fn new(text: String) -> Self {
        Self { text, told: false }
    }
}

/// Why it is time to look.
struct Turn {
    replaced: Option<Watched>,
    stale: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a look. However often this happens, there is one.
    fn touch(&self, stale: bool) {
        let mut state = self.lock();
        let now = Instant::now();
        state.stale |= stale;
        let first = state.burst.map(|(first, _)| first);
        state.burst = Some((first.unwrap_or(now), now));
        if first.is_none() {
            self.woken.notify_one();
        }
    }

    /// Waits until it is time to look: when a burst is over, without one at `latest`, and never before `earliest`. `None` at the
    /// end.
    fn wait(&self, earliest: Instant, latest: Instant) -> Option<Turn> {
        let mut state = self.lock();
        loop {
            if state.stopped {
                return None;
            }
            let burst_ends = state.burst.map(|(first, last)| (last + QUIET).min(first + BURST_MAX));
            let due = if state.replaced { earliest } else { burst_ends.unwrap_or(latest).max(earliest) };
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let replaced = state.replaced.then(|| state.watched.clone());
                state.replaced = false;
                state.burst = None;
                return Some(Turn { replaced, stale: std::mem::take(&mut state.stale) });
            }
            (state, _) = self.woken.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// What the thread does, and what it knows.
struct Rounds {
    shared: Arc<Shared>,
    poll: Duration,
    with_events: bool,
    /// `None` until the system grants them; every round asks again.
    events: Option<Events>,
    watched: Watched,
    look: Look,
}

impl Rounds {
    fn run(&mut self, changed: &dyn Fn()) {
        let now = Instant::now();
        let (mut earliest, mut latest) = (now, now + self.poll);
        while let Some(turn) = self.shared.wait(earliest, latest) {
            let began = Instant::now();
            let differs = self.round(turn);
            let ended = Instant::now();
            earliest = ended + pause_after(ended - began);
            latest = ended + self.poll;
            if differs {
                // What differs may lead elsewhere now. The next round listens there, and looks at what happened before it did.
                self.shared.touch(false);
                changed();
            }
        }
    }

    /// Listens, looks, and tells whether something changed since the round before.
    fn round(&mut self, turn: Turn) -> bool {
        if let Some(watched) = turn.replaced {
            self.watched = watched;
        }
        let mut problems = BTreeMap::new();
        if self.with_events {
            // Before the look, so that what happens after it is heard.
            self.listen(turn.stale, &mut problems);
        }
        let look = Look::at(&self.watched);
        for folder in look.gone() {
            // The folder above tells of a subfolder that was removed; that is no problem.
            if !folder.parent().is_some_and(|above| self.watched.folders.iter().any(|folder| folder == above))
            {
                let text =
                    format!("the folder {} is gone; it is watched again when it is back", folder.display());
                problems.insert(folder.to_owned(), text);
            }
        }
        self.report(problems);
        let differs = look.differs_from(&self.look);
        self.look = look;
        differs
    }

    /// Asks the system for events of everything on the way to what is watched.
    fn listen(&mut self, stale: bool, problems: &mut BTreeMap<PathBuf, String>) {
        let instead = format!("looking every {} s instead", self.poll.as_secs_f64());
        let events = match self.events.take().map_or_else(|| Events::new(&self.shared), Ok) {
            Ok(events) => self.events.insert(events),
            Err(error) => {
                let text = format!("no events tell of changed handlers: {error}; {instead}");
                problems.insert(PathBuf::new(), text);
                return;
            }
        };
        for (folder, error) in events.listen(Ways::to(&self.watched), stale) {
            let text = format!("no events tell of changes in {}: {error}; {instead}", folder.display());
            problems.insert(folder, text);
        }
    }

    /// Keeps what is still wrong, with whether it was told.
    fn report(&self, problems: BTreeMap<PathBuf, String>) {
        let mut state = self.shared.lock();
        let mut before = std::mem::take(&mut state.problems);
        let still = |(path, text)| {
            let told = before.remove(&path).is_some_and(|problem: Problem| problem.told);
            (path, Problem { text, told })
        };
        state.problems = problems.into_iter().map(still).collect();
        #[cfg(test)]
        {
            state.looks += 1;
        }
    }
}

#[cfg(test)]
mod tests;
