//! The tables of the config file whose names or number nobody knows beforehand: `[handlers.NAME]`, `[auth.NAME]`, `[aliases]`, `[[routes]]`.
//!
//! Each is taken out of the file before the sections are read, and read by itself.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{Problem, nearest};
use super::file::{Deflate, Given, HandlerRules, Seconds, Strings, keys, names, sections, span_of, tidy};

/// A line of `[aliases]`: a path that stands for another.
#[derive(Debug)]
pub(super) struct Alias {
    pub(super) path: Spanned<String>,
    pub(super) to: Spanned<String>,
}

/// A section `[[routes]]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Route {
    pub(super) path: Given<String>,
    pub(super) host: Given<String>,
    pub(super) handler: Given<String>,
    pub(super) name: Given<String>,
    pub(super) origins: Given<Strings>,
    pub(super) auth: Given<String>,
    pub(super) deflate: Given<bool>,
    pub(super) slow_peer: Given<String>,
    pub(super) reload: Given<String>,
    pub(super) drain_seconds_max: Given<Seconds>,
    pub(super) restart_seconds: Given<Seconds>,
    /// What its own variant of the handler is told.
    pub(super) config: Given<toml::Table>,
    /// Where the section stands.
    #[serde(skip)]
    pub(super) place: Range<usize>,
}

/// The keys of a section `[[routes]]`.
#[cfg(test)]
pub(super) fn route_keys() -> &'static [&'static str] {
    keys::<Route>()
}

/// Takes the tables below a section, `[handlers.NAME]` for instance, out of it and reads each by itself. The hint is for keys that
/// such a table does not have; `NAME` in it is the table's own.
pub(super) fn take_below<T: for<'de> Deserialize<'de> + Default>(
    table: &mut DeTable<'_>,
    section: &str,
    hint: &str,
    problems: &mut Vec<Problem>,
) -> Vec<(Spanned<String>, T)> {
    let mut each = Vec::new();
    let Some(DeValue::Table(keys)) = table.get_mut(section).map(Spanned::get_mut) else { return each };
    let known = sections().into_iter().find(|(name, _)| *name == section).map_or(&[][..], |(_, known)| known);
    for (name, span) in names(keys) {
        let is_table = keys.get(name.as_str()).is_some_and(|value| value.get_ref().is_table());
        if !is_table || known.contains(&name.as_str()) {
            continue;
        }
        let Some(own) = keys.remove(name.as_str()) else { continue };
        let table = Table {
            section: format!("[{section}.NAME]"),
            dotted: format!("{section}.{name}"),
            hint: hint.replace("NAME", &name),
        };
        let rules = table.read(own, problems);
        each.push((Spanned::new(span, name), rules));
    }
    each
}

/// Takes the sections `[handlers.NAME]` out of the table.
pub(super) fn take_handlers(
    table: &mut DeTable<'_>,
    problems: &mut Vec<Problem>,
) -> BTreeMap<String, HandlerRules> {
    let mut deflate_keys = take_deflate_tables(table, problems);
    let each = take_below(table, "handlers", "; the handler's own stand in [handlers.NAME.config]", problems);
    let whole = |(name, rules): (Spanned<String>, HandlerRules)| {
        let name = name.into_inner();
        let rules = HandlerRules { deflate_keys: deflate_keys.remove(&name), ..rules };
        (name, rules)
    };
    each.into_iter().map(whole).collect()
}

/// Takes the tables that may stand in the place of a handler's `deflate = true`, so that what is wrong with their keys is said of them.
fn take_deflate_tables(table: &mut DeTable<'_>, problems: &mut Vec<Problem>) -> BTreeMap<String, Deflate> {
    let mut each = BTreeMap::new();
    let Some(DeValue::Table(handlers)) = table.get_mut("handlers").map(Spanned::get_mut) else { return each };
    for (name, handler) in handlers.iter_mut() {
        let name = name.get_ref().to_string();
        let DeValue::Table(handler) = handler.get_mut() else { continue };
        if !handler.get("deflate").is_some_and(|value| value.get_ref().is_table()) {
            continue;
        }
        let Some(own) = handler.remove("deflate") else { continue };
        let table = Table {
            section: "[handlers.NAME.deflate]".into(),
            dotted: format!("handlers.{name}.deflate"),
            hint: String::new(),
        };
        each.insert(name, table.read(own, problems));
    }
    each
}

/// Takes the section `[aliases]` out of the table, in which every key is a path.
pub(super) fn take_aliases(table: &mut DeTable<'_>, problems: &mut Vec<Problem>) -> Vec<Alias> {
    let Some(section) = table.remove("aliases") else { return Vec::new() };
    let span = section.span();
    let DeValue::Table(section) = section.into_inner() else {
        let wrong = "`aliases` is a section: write [aliases] and lines such as \"/\" = \"/echo\" below";
        problems.push(Problem::new("aliases", span, wrong));
        return Vec::new();
    };
    let mut aliases = Vec::new();
    for (name, value) in section {
        let path = Spanned::new(name.span(), name.get_ref().to_string());
        let to = value.span();
        match value.into_inner() {
            DeValue::String(text) => aliases.push(Alias { path, to: Spanned::new(to, text.into_owned()) }),
            _ => {
                let key = format!("aliases.{}", path.get_ref());
                let wrong = format!("wrong type for `{key}`: expected a path in quotes, such as \"/echo\"");
                problems.push(Problem::new(key, to, wrong));
            }
        }
    }
    aliases
}

/// Takes the sections `[[routes]]` out of the table.
pub(super) fn take_routes(table: &mut DeTable<'_>, problems: &mut Vec<Problem>) -> Vec<Route> {
    let Some(sections) = table.remove("routes") else { return Vec::new() };
    let span = sections.span();
    let DeValue::Array(sections) = sections.into_inner() else {
        let wrong = "`routes` is a list of sections: write [[routes]] for each, and its keys below";
        problems.push(Problem::new("routes", span, wrong));
        return Vec::new();
    };
    let mut routes = Vec::new();
    for section in sections {
        let place = section.span();
        if !section.get_ref().is_table() {
            let wrong = "`routes` is a list of sections: write [[routes]] for each, and its keys below";
            problems.push(Problem::new("routes", place, wrong));
            continue;
        }
        let hint = "; what the handler is to know stands in [routes.config] below its route".to_owned();
        let table = Table { section: "[[routes]]".into(), dotted: "routes".into(), hint };
        let mut route: Route = table.read(section, problems);
        route.place = place;
        routes.push(route);
    }
    routes
}

/// How a table is called where something is wrong with it.
struct Table {
    section: String,
    dotted: String,
    /// Where keys belong that the server does not know.
    hint: String,
}

impl Table {
    fn read<T: for<'de> Deserialize<'de> + Default>(
        &self,
        own: Spanned<DeValue<'_>>,
        problems: &mut Vec<Problem>,
    ) -> T {
        let span = own.span();
        let DeValue::Table(mut table) = own.into_inner() else { return T::default() };
        self.take_unknown::<T>(&mut table, problems);
        loop {
            let value = Spanned::new(span.clone(), table.clone());
            let error = match T::deserialize(toml::de::Deserializer::from(value)) {
                Ok(read) => return read,
                Err(error) => error,
            };
            // As in `File::read`: the value of the wrong type is taken out, and the rest is read again.
            let span = span_of(&error);
            let hit = |value: &Spanned<DeValue<'_>>| {
                value.span().start <= span.start && span.end <= value.span().end
            };
            let key = table.iter().find(|(_, value)| hit(value)).map(|(key, _)| key.get_ref().to_string());
            let Some(key) = key else {
                problems.push(Problem::new("", span, tidy(error.message())));
                return T::default();
            };
            table.remove(key.as_str());
            let dotted = format!("{}.{key}", self.dotted);
            let wrong = format!("wrong type for `{dotted}`: {}", tidy(error.message()));
            problems.push(Problem::new(&dotted, span, wrong));
        }
    }

    fn take_unknown<T: for<'de> Deserialize<'de>>(
        &self,
        table: &mut DeTable<'_>,
        problems: &mut Vec<Problem>,
    ) {
        let known = keys::<T>();
        for (key, span) in names(table) {
            if known.contains(&key.as_str()) {
                continue;
            }
            table.remove(key.as_str());
            let dotted = format!("{}.{key}", self.dotted);
            let mut problem = Problem::new(&dotted, span, format!("unknown key `{dotted}`"));
            problem.hint = Some(nearest(&key, known.iter().copied()).map_or_else(
                || format!("the keys of {} are: {}{}", self.section, known.join(", "), self.hint),
                |near| format!("did you mean `{near}`?"),
            ));
            problems.push(problem);
        }
    }
}
