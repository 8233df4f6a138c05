//! Who answers which request, by what the config says.

use std::path::Path;

use super::*;

fn config(text: &str) -> Config {
    Config::parse(text, Path::new("config.toml")).unwrap_or_else(|error| panic!("{error}"))
}

/// Libraries by the paths that their files mean; one that ends in a slash is for its folder. Others are variants.
fn router(text: &str, libraries: &[&'static str]) -> Router<&'static str> {
    let library = |path: &&'static str| {
        let resource = if *path == "/" { path } else { path.trim_end_matches('/') };
        let name = resource.strip_prefix('/').filter(|name| !name.is_empty()).unwrap_or(resource);
        Library {
            name: name.to_owned(),
            own_path: resource.starts_with('/').then(|| resource.to_owned()),
            is_for_folder: path.ends_with('/'),
            serves: *path,
        }
    };
    Router::new(&config(text), libraries.iter().map(library))
}

/// Who serves a path, with the parameters behind a space if there are any.
fn served(router: &Router<&'static str>, host: &str, path: &str) -> String {
    router.find(|| host.to_owned(), path).map_or_else(
        || "nobody".to_owned(),
        |found| format!("{} {}", found.serves, found.params).trim_end().to_owned(),
    )
}

#[test]
fn escapes_are_decoded_once() {
    assert_eq!(resource_path("/chat").as_deref(), Some("/chat"));
    assert_eq!(resource_path("/").as_deref(), Some("/"));
    assert_eq!(resource_path("/a%20b/c").as_deref(), Some("/a b/c"));
    assert_eq!(resource_path("/%2563hat").as_deref(), Some("/%63hat"), "not twice");
}

#[test]
fn spellings_that_climb_or_hide_are_no_resource_path() {
    for target in
        ["chat", "//chat", "/a//b", "/./chat", "/a/../b", "/%2e%2e/b", "/a%00", "/a%0a", "/%ff", "/a/%2e"]
    {
        assert_eq!(resource_path(target), None, "{target}");
    }
}

#[test]
fn a_library_answers_on_its_own_path_and_one_for_a_folder_with_and_without_a_slash() {
    let router = router("", &["/", "/echo", "/sub/"]);
    for (path, who) in [
        ("/", "/"),
        ("/echo", "/echo"),
        ("/echo/", "nobody"),
        ("/sub", "/sub/"),
        ("/sub/", "/sub/"),
        ("/Echo", "nobody"),
    ] {
        assert_eq!(served(&router, "a", path), who, "{path}");
    }
}

#[test]
fn aliases_lead_on_in_any_order_and_go_before_libraries() {
    let text = "[aliases]\n\"/z\" = \"/x\"\n\"/x\" = \"/echo\"\n\"/chat\" = \"/echo\"\n\"/old\" = \"/chat\"\n\"/none\" = \"/nope\"\n";
    let router = router(text, &["/echo", "/chat"]);
    for (path, who) in [
        ("/z", "/echo"),
        ("/x", "/echo"),
        ("/chat", "/echo"),
        ("/old", "/echo"),
        ("/none", "nobody"),
        ("/echo", "/echo"),
    ] {
        assert_eq!(served(&router, "a", path), who, "{path}");
    }
    let notes = router.listed().notes.join("; ");
    assert!(notes.contains("the alias /none leads to /nope, which nothing serves"), "{notes}");
    assert!(notes.contains("the alias /chat takes the place of the library"), "{notes}");
    assert_eq!(router.listed().aliases.len(), 5);
}

#[test]
fn an_alias_may_lead_to_what_a_route_serves_and_to_a_library_without_a_path_of_its_own() {
    let text = "[aliases]\n\"/lobby\" = \"/rooms/lobby\"\n\"/talk\" = \"/chat\"\n[handlers.chat]\nown_path = false\n\
                [[routes]]\npath = \"/rooms/{room}\"\nhandler = \"chat\"\n";
    let router = router(text, &["/chat", "/echo"]);
    for (path, who) in
        [("/lobby", "/chat room=lobby"), ("/talk", "/chat"), ("/chat", "nobody"), ("/echo", "/echo")]
    {
        assert_eq!(served(&router, "a", path), who, "{path}");
    }
    assert_eq!(router.listed().notes, Vec::<String>::new());
}

fn routes(routes: &[(&str, &str, &str)]) -> String {
    let route = |(host, path, handler): &(&str, &str, &str)| {
        let host = if host.is_empty() { String::new() } else { format!("host = \"{host}\"\n") };
        format!("[[routes]]\npath = \"{path}\"\nhandler = \"{handler}\"\n{host}")
    };
    routes.iter().map(route).collect()
}

#[test]
fn parameters_are_encoded_as_a_query_is() {
    let text =
        routes(&[("", "/rooms/{room}", "chat"), ("", "/files/{*rest}", "echo"), ("", "/v{n}/{who}", "chat")]);
    let router = router(&text, &["/chat", "/echo"]);
    for (path, who) in [
        ("/rooms/blue", "/chat room=blue"),
        ("/rooms/a&b=c d", "/chat room=a%26b%3Dc%20d"),
        ("/rooms/ü+%", "/chat room=%C3%BC%2B%25"),
        ("/rooms/", "nobody"),
        ("/rooms/a/b", "nobody"),
        ("/files/a/b", "/echo rest=a%2Fb"),
        ("/files/", "nobody"),
        ("/v2/me", "/chat n=2&who=me"),
    ] {
        assert_eq!(served(&router, "a", path), who, "{path}");
    }
}

#[test]
fn the_more_a_route_says_the_sooner_it_is_asked() {
    let text = routes(&[
        ("", "/*", "any"),
        ("", "/a/*", "a"),
        ("", "/a/b/*", "ab"),
        ("", "/a/{one}", "one"),
        ("", "/a/exact", "exact"),
    ]);
    let router = router(&text, &["/any", "/a", "/ab", "/one", "/exact", "/echo"]);
    for (path, who) in [
        ("/", "/any %2A="),
        ("/echo", "/echo"),
        ("/other", "/any %2A=other"),
        ("/a", "/a"),
        ("/a/", "/a %2A="),
        ("/a/exact", "/exact"),
        ("/a/x", "/one one=x"),
        ("/a/b", "/one one=b"),
        ("/a/b/", "/ab %2A="),
        ("/a/b/c/d", "/ab %2A=c%2Fd"),
        ("/a/x/y", "/a %2A=x%2Fy"),
        ("/ab/x", "/any %2A=ab%2Fx"),
    ] {
        assert_eq!(served(&router, "a", path), who, "{path}");
    }
}

#[test]
fn routes_of_a_host_go_before_everything_else() {
    let text = routes(&[
        ("a.example", "/echo", "chat"),
        ("*.example", "/*", "below"),
        ("*.deep.example", "/echo", "deep"),
        ("", "/chat", "echo"),
        ("[2001:db8::1]", "/echo", "chat"),
    ]);
    let router = router(&text, &["/echo", "/chat", "/below", "/deep"]);
    for (host, path, who) in [
        ("a.example", "/echo", "/chat"),
        ("a.example", "/chat", "/below %2A=chat"),
        ("b.example", "/echo", "/below %2A=echo"),
        ("x.deep.example", "/echo", "/deep"),
        ("x.deep.example", "/chat", "/below %2A=chat"),
        ("example", "/echo", "/echo"),
        ("other.test", "/chat", "/echo"),
        ("[2001:db8::1]", "/echo", "/chat"),
        ("", "/echo", "/echo"),
    ] {
        assert_eq!(served(&router, host, path), who, "{host}{path}");
    }
}

/// The library of a moment ago is not answered by another one.
#[test]
fn a_route_to_what_is_not_there_decides_all_the_same() {
    let router = router(&routes(&[("", "/echo", "gone"), ("", "/*", "echo")]), &["/echo"]);
    assert_eq!(served(&router, "a", "/echo"), "nobody");
    assert_eq!(served(&router, "a", "/x"), "/echo %2A=x");
    let notes = router.listed().notes.join("; ");
    assert!(notes.contains("the route /echo leads to gone, which is not there"), "{notes}");
}

#[test]
fn a_route_with_a_config_leads_to_a_variant_of_its_own() {
    let text = "[[routes]]\npath = \"/a\"\nhandler = \"chat\"\nconfig = { motto = \"a\" }\n\
                [[routes]]\npath = \"/b\"\nhandler = \"chat\"\nname = \"b\"\nconfig = {}\n";
    let router = router(text, &["/chat", "chat#/a", "chat#b"]);
    for (path, who) in [("/chat", "/chat"), ("/a", "chat#/a"), ("/b", "chat#b")] {
        assert_eq!(served(&router, "a", path), who, "{path}");
    }
}
