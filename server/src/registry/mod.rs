//! From files in the handlers folders to generations in service, and out of service again.
//!
//! A library passes through *scan* (which files are handlers, and for which path), *stage* (a private copy, because a file that
//! somebody may write to must never be mapped), *check* (the file is what it says, before any of its code runs), *probe* (a
//! child process loads it first) and *load* (on a worker of its generation). Whatever fails, fails for this library alone: the
//! reason is kept in words, the generation that was serving goes on, and so do all the others.
//!
//! A change of a file, a request and the end of something that was begun each come in as one event. What is to be done about it is
//! decided by the *slot* of the handler, which does nothing by itself, and carried out here.

pub mod check;
pub mod probe;
pub mod scan;
pub mod stage;
pub(crate) mod watcher;

mod load;
mod look;
mod slot;
mod stat;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use self::load::Load;
use self::look::Look;
use self::scan::{Found, Refused, ScanError};
pub(crate) use self::slot::Loaded;
use self::slot::{NoRollback, Order, Slot};
use self::stage::Stage;
use self::stat::Stat;
use crate::config::{Config, Reload, Route};
use crate::control::MetricStatus;
use crate::generation::{Generation, Leave, Surroundings};
use crate::handler::Retained;
use crate::metrics::Metric;
use crate::router::{Library, Listed, Router, Way};

/// Every handler of a server.
pub(crate) struct Registry {
    config: Arc<Config>,
    /// The config whose routes are in force. What they lead to stays until those of `config` are.
    routed: Arc<Config>,
    surroundings: Surroundings,
    stage: Arc<Stage>,
    /// By resource path; the variant that a route has for itself by its name.
    handlers: BTreeMap<String, Slot<Arc<Generation>>>,
    /// What the last look refused by name or kind alone.
    refused: Vec<Refused>,
    notes: Vec<String>,
    retained: Vec<Kept>,
    /// A library does not come back from its destructors, and the loader waits for it.
    loader_is_blocked: bool,
    /// What was begun and will end in an event.
    tasks: JoinSet<Event>,
    looking: Looking,
    has_looked: bool,
    /// Somebody has to make a new table of routes.
    routes_changed: bool,
    /// What is to be watched for changes.
    folders: Vec<PathBuf>,
    links: Vec<PathBuf>,
}

/// A generation that is over and stays mapped.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) handler: String,
    pub(crate) generation: u64,
    pub(crate) reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Looking {
    No,
    Under,
    /// Something changed while a look was under way.
    Again,
}

/// Something that was begun has ended.
#[derive(Debug)]
pub(crate) enum Event {
    Looked(Result<Look, ScanError>),
    Loaded {
        resource: String,
        number: u64,
        loaded: Loaded<Arc<Generation>>,
        took: Duration,
    },
    Ended {
        resource: String,
        number: u64,
        result: Result<(), Retained>,
    },
    /// A handler that was loaded too recently may be loaded again.
    Due(String),
}

impl Registry {
    pub(crate) fn new(config: Arc<Config>, surroundings: Surroundings) -> Self {
        Self {
            stage: Arc::new(Stage::new(&config.handlers)),
            routed: config.clone(),
            config,
            surroundings,
            handlers: BTreeMap::new(),
            refused: Vec::new(),
            notes: Vec::new(),
            retained: Vec::new(),
            loader_is_blocked: false,
            tasks: JoinSet::new(),
            looking: Looking::No,
            has_looked: false,
            routes_changed: false,
            folders: Vec::new(),
            links: Vec::new(),
        }
    }

    /// The next thing that was begun and has ended. Waits for ever while there is none. Cancel safe.
    pub(crate) async fn next_event(&mut self) -> Event {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(event)) => return event,
                Some(Err(error)) => warn!("a task of the registry failed: {error}"),
                None => std::future::pending().await,
            }
        }
    }

    /// Whether nothing is being looked at, loaded, or waits to be.
    pub(crate) fn is_settled(&self) -> bool {
        self.looking == Looking::No && self.handlers.values().all(Slot::is_settled)
    }

    /// What can serve, for a table of routes.
    pub(crate) fn libraries(&self) -> impl Iterator<Item = Library<Arc<Generation>>> {
        self.handlers.values().filter_map(Slot::active).map(|generation| Library {
            name: generation.name().to_owned(),
            own_path: Some(generation.path().to_owned()).filter(|path| path.starts_with('/')),
            is_for_folder: scan::is_for_folder(generation.file()),
            serves: generation.clone(),
        })
    }

    /// Whether the routes have changed since this was asked last.
    pub(crate) fn take_routes_changed(&mut self) -> bool {
        std::mem::take(&mut self.routes_changed)
    }

    /// Every file that is there and not served, and why.
    pub(crate) fn refused(&self) -> Vec<Refused> {
        let of_slot = |slot: &Slot<_>| {
            let refusal = slot.refused()?;
            Some(Refused { path: slot.found()?.path.clone(), reason: refusal.reason.clone() })
        };
        self.refused.iter().cloned().chain(self.handlers.values().filter_map(of_slot)).collect()
    }

    pub(crate) fn notes(&self) -> &[String] {
        &self.notes
    }

    pub(crate) fn retained(&self) -> &[Kept] {
        &self.retained
    }

    /// Generations that serve a path, the active one first, then those that are leaving.
    pub(crate) fn generations(
        &self,
    ) -> impl Iterator<Item = (&str, Option<&Arc<Generation>>, &[Arc<Generation>])> {
        self.handlers.iter().map(|(path, slot)| (&**path, slot.active(), slot.leaving()))
    }

    /// Folders whose entries, and files whose content, decide what is served.
    pub(crate) fn watched(&self) -> (&[PathBuf], &[PathBuf]) {
        (&self.folders, &self.links)
    }

    // ---- what is asked of it -------------------------------------------------------------------------------------------

    /// Looks at the handlers folders, soon.
    pub(crate) fn look(&mut self) {
        if self.looking != Looking::No {
            self.looking = Looking::Again;
            return;
        }
        self.looking = Looking::Under;
        let mut handlers = self.config.handlers.clone();
        // A folder that is empty is an error at the start only: a file may be gone for the moment in which it is replaced.
        handlers.allow_empty |= self.has_looked;
        self.tasks.spawn_blocking(move || Event::Looked(look::look(&handlers)));
    }

    /// Loads what is there once more where it was refused or rolled back from, or where it has changed.
    pub(crate) fn insist(&mut self) {
        let now = Instant::now();
        let refused: Vec<_> = self
            .handlers
            .iter()
            .filter(|(_, slot)| slot.refused().is_some())
            .map(|(path, _)| path.clone())
            .collect();
        for resource in refused {
            self.change(&resource, |slot| slot.insist(now));
        }
        self.look();
    }

    /// Loads one handler once more; false if there is none of this name or path.
    pub(crate) fn insist_on(&mut self, name: &str) -> bool {
        let Some(resource) = self.resource_of(name) else { return false };
        let now = Instant::now();
        self.change(&resource, |slot| slot.insist(now));
        self.look();
        true
    }

    /// Puts the version in service that was active before, by hand.
    pub(crate) fn roll_back(&mut self, name: &str) -> Result<(), String> {
        let Some(resource) = self.resource_of(name) else {
            return Err(format!("there is no handler {name}"));
        };
        let slot = self.handlers.get_mut(&resource).expect("resource_of names a slot");
        let orders = slot.roll_back(Instant::now()).map_err(|why| match why {
            NoRollback::NoPrevious => format!("{resource} has had no version before this one"),
            NoRollback::Loading => format!("{resource} is being loaded just now, try again"),
            NoRollback::NotServed => format!("{resource} is not served at the moment"),
        })?;
        self.carry_out(&resource, orders);
        Ok(())
    }

    /// `chat` or `/chat`, or the name of a variant.
    fn resource_of(&self, name: &str) -> Option<String> {
        if self.handlers.contains_key(name) {
            return Some(name.to_owned());
        }
        let with_slash = format!("/{}", name.trim_start_matches('/'));
        self.handlers.contains_key(&with_slash).then_some(with_slash)
    }

    /// Callbacks panicked somewhere. A version that does so again and again in its first moments gives way.
    pub(crate) fn on_panic(&mut self) {
        let config = self.config.clone();
        let rules = &config.handlers;
        let fails = |slot: &Slot<Arc<Generation>>| {
            let Some(active) = slot.active() else { return false };
            rules.rollback_panics > 0
                && active.panics() >= rules.rollback_panics
                && active.loaded_at().elapsed() <= rules.rollback_seconds
                && slot.may_fall_back()
        };
        let failing: Vec<_> =
            self.handlers.iter().filter(|(_, slot)| fails(slot)).map(|(path, _)| path.clone()).collect();
        for resource in failing {
            let slot = self.handlers.get_mut(&resource).expect("it was there a moment ago");
            let (number, panics) = slot.active().map_or((0, 0), |active| (active.number(), active.panics()));
            warn!(
                "{resource} generation {number} panicked {panics} times in its first {} s: the version before it takes over",
                rules.rollback_seconds.as_secs_f64()
            );
            if let Ok(orders) = slot.roll_back(Instant::now()) {
                self.carry_out(&resource, orders);
            }
        }
    }

    /// Other rules hold from now on.
    pub(crate) fn configure(&mut self, config: &Arc<Config>) {
        let old = std::mem::replace(&mut self.config, config.clone());
        if old.handlers.stage_folder != config.handlers.stage_folder
            || old.handlers.follow_links_outside != config.handlers.follow_links_outside
            || old.handlers.library_bytes_max != config.handlers.library_bytes_max
        {
            self.stage = Arc::new(Stage::new(&config.handlers));
        }
        for generation in
            self.handlers.values().flat_map(|slot| slot.active().into_iter().chain(slot.leaving()))
        {
            let limits = config.limits_of(generation.name());
            if *generation.limits() != limits {
                generation.configure(&Arc::new(limits));
            }
        }
        self.surroundings.topics.configure(config.limits.published_bytes_max);
        self.load_where_config_differs(&old);
    }

    /// The routes of this config are in force from now on, and nothing leads any more to what only the others had.
    pub(crate) fn routed_by(&mut self, config: &Arc<Config>) {
        let old = std::mem::replace(&mut self.routed, config.clone());
        let mut variants = old.routes.iter().filter_map(|route| route.variant.as_deref());
        if variants.any(|name| !config.has_variant(name)) {
            self.look();
        }
    }

    /// What a handler counts.
    pub(crate) fn metrics_of(&self, handler: &str) -> Vec<MetricStatus> {
        let metrics = self.surroundings.metrics.of(handler).into_iter();
        let status = |(name, metric): (Box<str>, Arc<Metric>)| MetricStatus {
            name: name.into(),
            kind: metric.kind.name().to_owned(),
            value: metric.value(),
            help: metric.help.to_string(),
        };
        metrics.map(status).collect()
    }

    /// Handlers that are told something else from now on are loaded again.
    fn load_where_config_differs(&mut self, old: &Config) {
        let (was, is) = (&old.handlers, self.config.clone());
        let differs = |slot: &Slot<_>| {
            slot.found().is_some_and(|Found { name, resource, .. }| {
                // A variant whose route is gone is on its way out.
                let stays = resource.starts_with('/') || is.has_variant(name);
                let differs = was.config_of(name) != is.handlers.config_of(name)
                    || was.grants_raw(name) != is.handlers.grants_raw(name);
                stays && differs
            })
        };
        let changed: Vec<_> =
            self.handlers.iter().filter(|(_, slot)| differs(slot)).map(|(path, _)| path.clone()).collect();
        let now = Instant::now();
        for resource in changed {
            info!("{resource} has another config: it is loaded again");
            self.change(&resource, |slot| slot.again(now));
        }
    }

    pub(crate) fn loader_is_blocked(&self) -> bool {
        self.loader_is_blocked
    }

    /// Every generation, for the end of the server. Nothing is loaded any more.
    pub(crate) fn into_generations(self) -> (Vec<Arc<Generation>>, JoinSet<Event>) {
        let generations = self
            .handlers
            .values()
            .flat_map(|slot| slot.active().into_iter().chain(slot.leaving()))
            .cloned()
            .collect();
        (generations, self.tasks)
    }

    // ---- events --------------------------------------------------------------------------------------------------------

    /// # Errors
    /// The handlers folders cannot be read. What was served goes on being served.
    pub(crate) fn on_event(&mut self, event: Event) -> Result<(), ScanError> {
        match event {
            Event::Looked(looked) => {
                let again = std::mem::replace(&mut self.looking, Looking::No) == Looking::Again;
                let result = looked.map(|look| self.on_look(look));
                if again {
                    self.look();
                }
                result?;
            }
            Event::Loaded { resource, number, loaded, took } => {
                self.on_loaded(&resource, number, loaded, took);
            }
            Event::Ended { resource, number, result } => self.on_ended(&resource, number, result),
            Event::Due(resource) => {
                let now = Instant::now();
                self.change(&resource, |slot| slot.due(now));
            }
        }
        Ok(())
    }

    fn on_look(&mut self, look: Look) {
        let now = Instant::now();
        self.has_looked = true;
        for Refused { path, reason } in &look.scan.refused {
            if !self.refused.iter().any(|known| &known.path == path && &known.reason == reason) {
                warn!("refused {}: {reason}", path.display());
            }
        }
        self.refused = look.scan.refused;
        self.notes = look.scan.notes;
        self.folders = look.scan.folders;
        self.links = look.scan.links;
        let variants = self.variants(&look.found);
        let found: BTreeMap<_, _> = look
            .found
            .into_iter()
            .chain(variants)
            .map(|(found, stat)| (found.resource.clone(), (found, stat)))
            .collect();
        let gone: Vec<_> =
            self.handlers.keys().filter(|resource| !found.contains_key(*resource)).cloned().collect();
        for resource in gone {
            if self.handlers[&resource].found().is_some() {
                let what = if resource.starts_with('/') { "library" } else { "library or no route" };
                info!("{resource} has no {what} any more: new peers get 404");
            }
            self.change(&resource, |slot| slot.look(None, now));
        }
        for (resource, seen) in found {
            self.handlers.entry(resource.clone()).or_default();
            self.change(&resource, |slot| slot.look(Some(seen), now));
        }
        self.handlers.retain(|_, slot| !slot.is_over());
    }

    /// The variants that routes have for themselves: each is made of the file of its handler, as if it stood there once more.
    fn variants(&self, found: &[(Found, Stat)]) -> Vec<(Found, Stat)> {
        let of_route = |route: &Route| {
            let name = route.variant.clone()?;
            let (library, stat) = found.iter().find(|(library, _)| library.name == route.handler)?;
            Some((Found { resource: name.clone(), name, ..library.clone() }, *stat))
        };
        let gone =
            |route: &&Route| route.variant.as_deref().is_some_and(|name| !self.config.has_variant(name));
        let on_their_way_out = self.routed.routes.iter().filter(gone);
        self.config.routes.iter().chain(on_their_way_out).filter_map(of_route).collect()
    }

    fn on_loaded(&mut self, resource: &str, number: u64, loaded: Loaded<Arc<Generation>>, took: Duration) {
        match &loaded {
            Loaded::Ready(generation) => {
                let (file, version) = (generation.file().display(), &generation.info().version);
                info!(
                    "{resource} generation {number} is ready: {file} {version}, in {} ms",
                    took.as_millis()
                );
            }
            Loaded::Refused(refusal) => {
                let file = self.handlers.get(resource).and_then(Slot::found).map(|found| found.path.clone());
                warn!("refused {}: {}", file.unwrap_or_default().display(), refusal.reason);
            }
            Loaded::Same(_) => debug!("{resource} was touched; its content is known"),
        }
        let now = Instant::now();
        self.change(resource, |slot| slot.loaded(number, loaded, now));
    }

    fn on_ended(&mut self, resource: &str, number: u64, result: Result<(), Retained>) {
        match result {
            Ok(()) => info!("{resource} generation {number} has ended and is unmapped"),
            Err(reason) => {
                warn!("{resource} generation {number} has ended and stays mapped: {reason}");
                self.loader_is_blocked |= reason.blocks_the_loader();
                let reason = reason.to_string();
                self.retained.push(Kept { handler: resource.to_owned(), generation: number, reason });
            }
        }
        if let Some(slot) = self.handlers.get_mut(resource) {
            slot.ended(number);
        }
        self.handlers.retain(|_, slot| !slot.is_over());
    }

    // ---- orders --------------------------------------------------------------------------------------------------------

    fn change(
        &mut self,
        resource: &str,
        change: impl FnOnce(&mut Slot<Arc<Generation>>) -> Vec<Order<Arc<Generation>>>,
    ) {
        let Some(slot) = self.handlers.get_mut(resource) else { return };
        let orders = change(slot);
        self.carry_out(resource, orders);
    }

    fn carry_out(&mut self, resource: &str, orders: Vec<Order<Arc<Generation>>>) {
        for order in orders {
            match order {
                Order::Load { source, number } => self.load(resource, source, number),
                Order::Route => self.routes_changed = true,
                Order::Leave { who, to } => self.let_go(resource, who, to),
                Order::Wait(until) => {
                    let resource = resource.to_owned();
                    self.tasks.spawn(async move {
                        tokio::time::sleep_until(until.into()).await;
                        Event::Due(resource)
                    });
                }
            }
        }
    }

    fn load(&mut self, resource: &str, source: slot::Source<Arc<Generation>>, number: u64) {
        let known = match &source {
            slot::Source::File(_) => self.handlers[resource].known(),
            slot::Source::Copy(_) => Vec::new(),
        };
        let load = Load {
            source,
            number,
            known,
            stage: self.stage.clone(),
            config: self.config.clone(),
            surroundings: self.surroundings.clone(),
        };
        let resource = resource.to_owned();
        let (retained, most) = (self.retained.len(), self.config.handlers.retained_max);
        let is_blocked = self.loader_is_blocked;
        self.tasks.spawn(async move {
            let began = Instant::now();
            let loaded = if is_blocked {
                load::refused(
                    "a library that ended blocks the loader of this process: restart the server",
                    None,
                )
            } else if retained >= most {
                load::refused(too_many_retained(retained, most), None)
            } else {
                load::run(load).await
            };
            Event::Loaded { resource, number, loaded, took: began.elapsed() }
        });
    }

    /// Tells a generation to let its sessions go, by the policy of its handler.
    fn let_go(&mut self, resource: &str, who: Arc<Generation>, to: Option<Arc<Generation>>) {
        let (policy, drain, restart) = self.config.handlers.rules_of(who.name());
        let drained = (!drain.is_zero()).then(|| Instant::now() + drain);
        let leave = match (policy.unwrap_or_else(|| own_policy(who.info())), to) {
            (Reload::Migrate, Some(to)) if who.info().migrates() && to.info().migrates() => {
                Leave::Migrate { to, until: drained }
            }
            (Reload::Restart, _) => Leave::restart(restart),
            _ => Leave::Drain { until: drained },
        };
        debug!("{resource} generation {}: {leave:?}", who.number());
        let is_first = who.leave(&leave);
        if is_first {
            let (resource, number) = (resource.to_owned(), who.number());
            let limit = self.config.handlers.unload_seconds_max;
            self.tasks.spawn(async move {
                let result = who.end(limit).await;
                Event::Ended { resource, number, result }
            });
        }
    }
}

fn too_many_retained(retained: usize, most: usize) -> String {
    format!(
        "{retained} versions that ended stay in memory, and handlers.retained_max is {most}: restart the server to load more"
    )
}

/// What a library says about the sessions of a version that is replaced.
pub(crate) fn own_policy(info: &check::LibraryInfo) -> Reload {
    if info.restarts() {
        Reload::Restart
    } else if info.migrates() {
        Reload::Migrate
    } else {
        Reload::Drain
    }
}

/// For `wshd configtest`: what would be served, and what would be refused. No library code runs in this process.
#[derive(Debug)]
pub struct Checked {
    /// Resource path, file, and what the library says of itself.
    pub sound: Vec<(String, PathBuf, check::LibraryInfo)>,
    pub refused: Vec<Refused>,
    /// Routes and aliases, with what they lead to, and whether that is sound.
    pub routes: Vec<(String, String, bool)>,
    pub aliases: Vec<(String, String, bool)>,
    pub notes: Vec<String>,
}

/// Scans and checks, and loads nothing.
pub fn check_all(config: &Config) -> Result<Checked, ScanError> {
    let scan::Scan { found, mut refused, mut notes, .. } = scan::scan(&config.handlers)?;
    let stage = Stage::new(&config.handlers);
    let (mut sound, mut libraries) = (Vec::new(), Vec::new());
    for library in found {
        match load::check_file(&library, &stage, &config.handlers) {
            Ok((_, info)) => {
                let variants =
                    config.routes.iter().filter(|route| route.handler == library.name).filter_map(|route| {
                        Some(Library {
                            name: route.variant.clone()?,
                            own_path: None,
                            is_for_folder: false,
                            serves: (),
                        })
                    });
                libraries.extend(variants);
                libraries.push(Library {
                    name: library.name,
                    own_path: Some(library.resource.clone()),
                    is_for_folder: scan::is_for_folder(&library.path),
                    serves: (),
                });
                sound.push((library.resource, library.path, info));
            }
            Err(reason) => refused.push(Refused { path: library.path, reason }),
        }
    }
    let router = Router::new(config, libraries);
    let Listed { routes, aliases, notes: of_router } = router.listed().clone();
    notes.extend(of_router);
    let shown = |ways: Vec<Way>| ways.into_iter().map(|way| (way.from, way.to, way.is_served)).collect();
    Ok(Checked { sound, refused, routes: shown(routes), aliases: shown(aliases), notes })
}
