//! `include/wsh.h` and `src/abi.rs` are the same contract: a C compiler says every size, offset and constant.

#![allow(clippy::too_many_lines)]

use std::collections::BTreeMap;
use std::mem::offset_of;
use std::path::Path;
use std::process::Command;

use handler_api::abi;

fn cc(compiler: &str, arguments: &[&str]) -> String {
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("include");
    let output = Command::new(compiler)
        .args(["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I"])
        .arg(include)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("this test needs {compiler} ({error}): install gcc and g++"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Every field of each struct: C prints its offset, Rust compares.
macro_rules! fields {
    ($facts:ident: $($type:ident { $($field:ident),* $(,)? })*) => {$(
        $facts.push((format!("sizeof({})", stringify!($type)), size_of::<abi::$type>()));
        $($facts.push((
            format!("offsetof({}, {})", stringify!($type), stringify!($field)),
            offset_of!(abi::$type, $field),
        ));)*
    )*};
}

macro_rules! constants {
    ($facts:ident: $($name:ident)*) => {$(
        $facts.push((format!("(size_t)({})", stringify!($name)), abi::$name as isize as usize));
    )*};
}

#[test]
fn a_c_compiler_and_rustc_lay_the_contract_out_alike() {
    let mut facts: Vec<(String, usize)> = Vec::new();
    fields! { facts:
        wsh_slice { ptr, len }
        wsh_sink {}
        wsh_handler_info_t {
            magic, info_size, abi_major, abi_minor, min_host_minor, reserved0, flags, state_version, reserved1, name,
            version, sdk,
        }
        wsh_host_api {
            size, abi_major, abi_minor, log, get_extension, upgrade_attribute, upgrade_header, upgrade_header_at,
            upgrade_offered_protocol, upgrade_choose_protocol, upgrade_add_header, upgrade_reject, session_send,
            session_send_fragment, session_ping, session_close, session_abort, session_ready_state,
            session_buffered_amount, session_attribute, session_header, session_header_at, session_handle,
            handle_retain, handle_release, handle_send, handle_close, handle_wake, handle_ready_state,
        }
        wsh_handler_api {
            size, abi_major, abi_minor, library_ctx, health, on_upgrade, on_open, on_message, on_pong, on_wake,
            on_writable, on_closing, on_error, on_close, free_session, export_state, cancel_export, import_state,
            quiesce, shutdown, get_extension,
        }
        wsh_timer_api { size, reserved0, session_start, session_stop, library_start, library_stop }
        wsh_timer_callbacks { size, reserved0, on_timer, on_library_timer }
        wsh_config_api { size, reserved0, get }
        wsh_topic_api { size, reserved0, session_subscribe, session_unsubscribe, session_publish, library_publish, subscribers }
        wsh_metric_api { size, reserved0, declare, add, set }
        wsh_offload_api { size, reserved0, offload }
        wsh_raw_api {
            size, reserved0, granted, upgrade_abort, upgrade_decline_extensions, upgrade_delay, upgrade_accept_key,
            session_end, upgrade_answer, upgrade_header, session_send, session_receive,
        }
    }
    // The names of extensions, as the sum over their characters.
    for (name, id) in [
        ("WSH_TIMER", abi::WSH_TIMER),
        ("WSH_CONFIG", abi::WSH_CONFIG),
        ("WSH_OFFLOAD", abi::WSH_OFFLOAD),
        ("WSH_TOPIC", abi::WSH_TOPIC),
        ("WSH_METRIC", abi::WSH_METRIC),
        ("WSH_RAW_ACCESS", abi::WSH_RAW_ACCESS),
    ] {
        let sum = id
            .to_bytes()
            .iter()
            .fold(0, |sum: usize, byte| sum.wrapping_mul(31).wrapping_add(usize::from(*byte)));
        facts.push((format!("sum({name})"), sum));
    }
    constants! { facts:
        WSH_ABI_MAJOR WSH_ABI_MINOR
        WSH_OK WSH_DONE WSH_SLOW WSH_HOLD WSH_E_INVALID WSH_E_CLOSED WSH_E_FULL WSH_E_TOO_BIG WSH_E_UNSUPPORTED
        WSH_E_NO_MEMORY
        WSH_E_PANIC WSH_E_STATE WSH_E_NOT_FOUND WSH_E_REJECTED WSH_E_INTERNAL WSH_E_BUSY
        WSH_E_FORBIDDEN WSH_RAW
        WSH_TEXT WSH_BINARY WSH_CONNECTING WSH_OPEN WSH_CLOSING WSH_CLOSED
        WSH_PATH WSH_QUERY WSH_PEER WSH_PROTOCOL WSH_EXTENSIONS WSH_SCHEME WSH_TLS_SUBJECT WSH_TLS_NAMES
        WSH_PARAMS WSH_USER
        WSH_CLOSED_CLEAN WSH_CLOSED_ABNORMAL
        WSH_TOPIC_OWN WSH_TOPIC_SERVER WSH_COUNTER WSH_GAUGE
        WSH_LOG_ERROR WSH_LOG_WARN WSH_LOG_INFO WSH_LOG_DEBUG WSH_LOG_TRACE
        WSH_LIBRARY_NO_UNLOAD WSH_LIBRARY_PANIC_ABORT WSH_LIBRARY_FORGETS_REQUEST WSH_LIBRARY_MIGRATES
        WSH_LIBRARY_RESTARTS
    }
    facts.push(("(size_t)wsh_handler_info.flags".into(), abi::WSH_LIBRARY_MIGRATES as usize));
    facts.push(("(size_t)wsh_handler_info.state_version".into(), 7));
    let mut source = String::from(
        "#include <stdio.h>\n#include \"wsh.h\"\n\
         WSH_HANDLER_INFO_WITH_STATE(\"name\", \"1.0\", WSH_LIBRARY_MIGRATES, 7);\n\
         static size_t sum(const char *id) {\n  size_t sum = 0;\n  \
         for (; *id; id++) sum = sum * 31 + (unsigned char)*id;\n  return sum;\n}\nint main(void) {\n",
    );
    for (expression, _) in &facts {
        source.push_str(&format!("  printf(\"%zu\\n\", {expression});\n"));
    }
    source.push_str("  return 0;\n}\n");

    let folder = tempfile::tempdir().unwrap();
    let (file, program) = (folder.path().join("layout.c"), folder.path().join("layout"));
    std::fs::write(&file, source).unwrap();
    cc("cc", &["-std=c11", file.to_str().unwrap(), "-o", program.to_str().unwrap()]);
    let output = Command::new(program).output().unwrap();
    let output = String::from_utf8(output.stdout).unwrap();
    let in_c: Vec<usize> = output.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(in_c.len(), facts.len());
    let differing: BTreeMap<_, _> = facts
        .iter()
        .zip(&in_c)
        .filter(|((_, rust), c)| rust != *c)
        .map(|((expression, rust), c)| (expression, format!("{c} in C, {rust} in Rust")))
        .collect();
    assert!(differing.is_empty(), "{differing:#?}");
    // A field that is in one table and not in the list above would go unseen; pointers fill the tables to their end.
    assert_eq!(size_of::<abi::wsh_host_api>(), 8 + 8 * 26);
    assert_eq!(size_of::<abi::wsh_handler_api>(), 8 + 8 * 18);
}

#[test]
fn the_header_is_clean_c11_and_cpp17() {
    let folder = tempfile::tempdir().unwrap();
    let text = r#"
        #include "wsh.h"
        WSH_HANDLER_INFO("name", "1.0", WSH_LIBRARY_NO_UNLOAD | WSH_LIBRARY_MIGRATES);

        static wsh_status export_state(void *object, wsh_session *session, wsh_sink sink, void *sink_ctx) {
            return session == NULL ? WSH_E_BUSY : sink(sink_ctx, (const uint8_t *)object, 8);
        }
        static wsh_status cancel_export(void *object, wsh_session *session) { (void)object; (void)session; return WSH_OK; }
        static wsh_status import_state(void *library, wsh_session *session, uint32_t from_version, const uint8_t *state,
                                       size_t len, void **object) {
            (void)session; (void)state;
            *object = library;
            return from_version > 1 || len != 8 ? WSH_E_REJECTED : WSH_OK;
        }
        void fill(wsh_handler_api *table);
        void fill(wsh_handler_api *table) {
            table->export_state = export_state;
            table->cancel_export = cancel_export;
            table->import_state = import_state;
        }
    "#;
    for (compiler, standard, extension) in [("cc", "-std=c11", "c"), ("c++", "-std=c++17", "cpp")] {
        let file = folder.path().join(format!("alone.{extension}"));
        std::fs::write(&file, text).unwrap();
        let object = folder.path().join("alone.o");
        cc(compiler, &[standard, "-c", file.to_str().unwrap(), "-o", object.to_str().unwrap()]);
    }
}
