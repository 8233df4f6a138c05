//! What the server's config file says for this handler: the table `[handlers.NAME.config]`.
//!
//! Its keys are the handler's to choose. When the operator changes them, the server loads the library once more, and sessions go over
//! to that as on every reload.

use crate::abi::{self, wsh_config_api};
use crate::host;

/// The table as a JSON object; `{}` if there is none, and outside of a server.
pub fn json() -> &'static str {
    // SAFETY: the type is the one of this name.
    let Some(table) = (unsafe { host::extension::<wsh_config_api>(abi::WSH_CONFIG) }) else { return "{}" };
    // SAFETY: this library's own pointer, a writable slot. [any] What comes back is good as long as code of this library runs.
    let json = host::ask(|slot| unsafe { (table.get)(host::library(), slot) });
    json.and_then(|json| std::str::from_utf8(json).ok()).unwrap_or("{}")
}

/// The table as a type of the handler's.
///
/// # Errors
/// A key that is missing, unknown or of the wrong type, by its name. [`Handler::on_load`](crate::Handler::on_load) can return the text
/// as it is: the operator reads it.
///
/// ```
/// use std::sync::OnceLock;
/// # use handler_api::{Handler, Message, Reject, Upgrade, WebSocket, export_handler};
///
/// #[derive(serde::Deserialize)]
/// #[serde(deny_unknown_fields)]
/// struct Rules {
///     greeting: String,
/// }
///
/// static RULES: OnceLock<Rules> = OnceLock::new();
///
/// # struct Hello;
/// impl Handler for Hello {
///     fn on_load() -> Result<(), String> {
///         let _ = RULES.set(handler_api::config()?);
///         Ok(())
///     }
/// #   fn on_upgrade(_: &mut Upgrade) -> Result<Self, Reject> { Ok(Hello) }
/// #   fn on_message(&mut self, socket: &WebSocket, _: Message<'_>) {
/// #       socket.send(RULES.get().map_or("", |rules| &rules.greeting));
/// #   }
/// }
/// # export_handler!(Hello);
/// ```
#[cfg(feature = "serde")]
pub fn config<T: serde::de::DeserializeOwned>() -> Result<T, String> {
    read(json())
}

#[cfg(feature = "serde")]
fn read<T: serde::de::DeserializeOwned>(json: &str) -> Result<T, String> {
    let mut text = serde_json::Deserializer::from_str(json);
    serde_path_to_error::deserialize(&mut text).map_err(|error| {
        let wrong = error.inner().to_string();
        // The place in a text that the operator has not written helps nobody.
        let wrong = wrong.rsplit_once(" at line ").map_or(&*wrong, |(wrong, _)| wrong);
        match error.path().to_string().as_str() {
            "." => format!("config: {wrong}"),
            path => format!("config.{path}: {wrong}"),
        }
    })
}

#[cfg(all(test, feature = "serde"))]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Rules {
        rooms: u32,
        #[serde(default)]
        limits: Limits,
    }

    #[derive(Debug, PartialEq, Default, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Limits {
        members: Vec<u32>,
    }

    #[test]
    fn what_is_wrong_is_said_by_the_name_of_its_key() {
        let good = read::<Rules>(r#"{"rooms":3,"limits":{"members":[1]}}"#);
        assert_eq!(good, Ok(Rules { rooms: 3, limits: Limits { members: vec![1] } }));
        for (json, words) in [
            ("{}", "config: missing field `rooms`"),
            (r#"{"rooms":"three"}"#, "config.rooms: invalid type: string \"three\", expected u32"),
            (
                r#"{"rooms":1,"limits":{"members":[1,true]}}"#,
                "config.limits.members[1]: invalid type: boolean",
            ),
            (r#"{"rooms":1,"doors":2}"#, "config.doors: unknown field `doors`"),
        ] {
            let error = read::<Rules>(json).expect_err(json);
            assert!(error.starts_with(words), "{error}");
        }
    }

    #[test]
    #[cfg(feature = "testing")]
    fn a_test_says_what_the_config_is() {
        assert_eq!(json(), "{}");
        crate::testing::set_config(r#"{"rooms":7}"#);
        assert_eq!(config::<Rules>().map(|rules| rules.rooms), Ok(7));
    }
}
