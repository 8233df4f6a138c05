//! Aliases and routes from the file as written to those that are meant.

use toml::Spanned;

use super::super::file::{self, Given, Switch};
use super::super::route::{self, HostPattern, Route, RoutePath};
use super::super::tables::{self, Alias};
use super::super::{Config, HandlerRules};
use super::Check;

/// More are a mistake, or belong into one route with parameters.
const ROUTES_MAX: usize = 1000;
const ALIASES_MAX: usize = 10_000;

impl Config {
    pub(super) fn take_aliases(&mut self, aliases: &[Alias], check: &mut Check) {
        if let Some(Alias { path, .. }) = aliases.get(ALIASES_MAX) {
            let wrong =
                format!("there are more than {ALIASES_MAX} aliases; is there a route for all of them?");
            check.wrong("aliases", path.span(), wrong);
        }
        for Alias { path, to } in aliases.iter().take(ALIASES_MAX) {
            for text in [path, to] {
                if let Err(wrong) = route::resource_path(text.get_ref()) {
                    check.wrong(
                        "aliases",
                        text.span(),
                        format!("`aliases` has {:?}, {wrong}", text.get_ref()),
                    );
                }
            }
            self.aliases.own.insert(path.get_ref().clone(), to.get_ref().clone());
        }
        if let Some(start) = self.aliases.circle() {
            let alias = aliases.iter().find(|alias| alias.path.get_ref() == start);
            let place = alias.map_or(0..0, |alias| alias.to.span());
            check.wrong("aliases", place, format!("the alias {start:?} leads back to itself"));
            self.aliases.own.clear();
        }
    }

    /// After the handlers, because the variant of a route goes by the rules of its handler where it has none of its own.
    pub(super) fn take_routes(&mut self, routes: &[tables::Route], check: &mut Check) {
        if let Some(one_too_many) = routes.get(ROUTES_MAX) {
            let wrong =
                format!("there are more than {ROUTES_MAX} routes; have some of them parameters in common?");
            check.wrong("routes", one_too_many.place.clone(), wrong);
        }
        for file in routes.iter().take(ROUTES_MAX) {
            let Some(mut route) = Route::taken(file, check) else { continue };
            route.auth = self.auth_named("routes.auth", &file.auth, check);
            self.oppose(&route, file, check);
            if let Some(variant) = &route.variant {
                let of_handler = self.handlers.each.get(&route.handler).cloned().unwrap_or_default();
                let deflate = of_handler.deflate.unwrap_or(self.deflate);
                let own = HandlerRules::taken("routes", &file.rules(), deflate, check);
                self.handlers.each.insert(variant.clone(), own.or(of_handler));
            }
            self.routes.push(route);
        }
    }

    /// Reports a route that is in the way of one above it.
    fn oppose(&self, route: &Route, file: &tables::Route, check: &mut Check) {
        let same_host = || self.routes.iter().filter(|other| other.host == route.host);
        let place = place(&file.path, file);
        if same_host().any(|other| other.path == route.path) {
            check.wrong("routes.path", place, format!("there is a route for {} already", route.place()));
        } else if let RoutePath::Pattern(path) = &route.path {
            let mut matcher = matchit::Router::new();
            for other in same_host() {
                if let RoutePath::Pattern(path) = &other.path {
                    // Those above were compared with each other when they were taken.
                    let _ = matcher.insert(path, ());
                }
            }
            if let Err(error) = matcher.insert(path, ()) {
                let wrong = format!("`routes.path` is {path:?}, but {}", route::in_words(&error));
                check.wrong("routes.path", place, wrong);
            }
        }
        let Some(variant) = &route.variant else { return };
        let place = self::place(&file.name, file);
        if self.routes.iter().any(|other| other.variant.as_ref() == Some(variant)) {
            let wrong = format!("there is a variant {variant} already; give this one another `name`");
            check.wrong("routes.name", place, wrong);
        } else if self.handlers.each.contains_key(variant) {
            let wrong =
                format!("there is a section [handlers.\"{variant}\"]; its keys belong into this route");
            check.wrong("routes.name", place, wrong);
        }
    }
}

fn place(given: &Given<String>, route: &tables::Route) -> std::ops::Range<usize> {
    given.as_ref().map_or_else(|| route.place.clone(), Spanned::span)
}

impl Route {
    fn taken(file: &tables::Route, check: &mut Check) -> Option<Self> {
        let mut required = |key: &str, given: &Given<String>, example: &str| {
            if given.is_none() {
                let wrong = format!("this route has no `{key}`; write {key} = {example}");
                check.wrong(&format!("routes.{key}"), file.place.clone(), wrong);
            }
            given.as_ref().map(|given| given.get_ref().clone())
        };
        let path = required("path", &file.path, "\"/rooms/{room}\"");
        let handler = required("handler", &file.handler, "\"chat\", the name of its library without _wsh");
        let mut parsed = RoutePath::Exact("/".into());
        check.parsed("routes.path", &file.path, &mut parsed);
        let host = file.host.is_some().then(|| {
            let mut host = HostPattern::Exact(String::new());
            check.parsed("routes.host", &file.host, &mut host);
            host
        });
        Self::check_rules(file, check);
        for (key, given) in [("handler", &file.handler), ("name", &file.name)] {
            let is_name = |text: &str| {
                !text.is_empty() && !text.contains(|char: char| char.is_control() || char.is_whitespace())
            };
            if let Some(given) = given.as_ref().filter(|given| !is_name(given.get_ref())) {
                let wrong =
                    format!("`routes.{key}` is {:?}, but a name has letters, and no spaces", given.get_ref());
                check.wrong(&format!("routes.{key}"), given.span(), wrong);
            }
        }
        let handler =
            handler.map(|name| if name == "/" { name } else { name.trim_start_matches('/').to_owned() });
        let (Some(handler), Some(_)) = (handler, path) else { return None };
        let origins = check.origins("routes.origins", &file.origins);
        let deflate = file.deflate.as_ref().map(|given| *given.get_ref());
        let mut route = Self { path: parsed, host, handler, variant: None, origins, auth: None, deflate };
        if file.config.is_some() {
            let name = file.name.as_ref().map_or_else(|| route.place(), |name| name.get_ref().clone());
            // No path has a #, so no library can be called the same.
            route.variant = Some(format!("{}#{name}", route.handler));
        }
        Some(route)
    }

    /// What concerns the code that runs, and not the way to it, needs code of its own.
    fn check_rules(file: &tables::Route, check: &mut Check) {
        if file.config.is_some() {
            return;
        }
        let seconds = |given: &Given<file::Seconds>| given.as_ref().map(Spanned::span);
        let text = |given: &Given<String>| given.as_ref().map(Spanned::span);
        for (key, place) in [
            ("name", text(&file.name)),
            ("slow_peer", text(&file.slow_peer)),
            ("reload", text(&file.reload)),
            ("drain_seconds_max", seconds(&file.drain_seconds_max)),
            ("restart_seconds", seconds(&file.restart_seconds)),
        ] {
            if let Some(place) = place {
                let wrong = format!(
                    "`routes.{key}` is for a route with a variant of its own; write config = {{}} if it is to have one"
                );
                check.wrong(&format!("routes.{key}"), place, wrong);
            }
        }
    }
}

impl tables::Route {
    /// What it says of its variant, in the form of a section `[handlers.NAME]`.
    fn rules(&self) -> file::HandlerRules {
        file::HandlerRules {
            own_path: None,
            reload: self.reload.clone(),
            drain_seconds_max: self.drain_seconds_max.clone(),
            restart_seconds: self.restart_seconds.clone(),
            slow_peer: self.slow_peer.clone(),
            deflate: self.deflate.as_ref().map(|given| Spanned::new(given.span(), Switch(*given.get_ref()))),
            deflate_keys: None,
            origins: None,
            auth: None,
            raw: None,
            config: self.config.clone(),
        }
    }
}

impl HandlerRules {
    /// These, and where they say nothing, those.
    fn or(self, those: Self) -> Self {
        Self {
            own_path: those.own_path,
            reload: self.reload.or(those.reload),
            drain_seconds_max: self.drain_seconds_max.or(those.drain_seconds_max),
            restart_seconds: self.restart_seconds.or(those.restart_seconds),
            slow_peer: self.slow_peer.or(those.slow_peer),
            deflate: self.deflate.or(those.deflate),
            origins: self.origins.or(those.origins),
            auth: self.auth.or(those.auth),
            raw: self.raw || those.raw,
            config: self.config,
        }
    }
}
