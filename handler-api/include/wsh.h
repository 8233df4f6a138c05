/* wsh.h -- the contract between wshd and a handler library, ABI 1.0.
 *
 * A handler library is a shared object named NAME_wsh.so or libNAME_wsh.so. It exports two symbols:
 *
 *   wsh_handler_info       a constant that the server reads from the FILE, before any code of the library runs
 *   wsh_handler_entry_v1   a function that exchanges two tables of function pointers
 *
 * For each WebSocket the server calls, in this order:
 *
 *   on_upgrade     a peer asks for a WebSocket. Accept it by returning WSH_OK with an object of your own, or refuse it.
 *   on_open        the answer 101 is on its way; from here on the session can send.
 *   on_message     one whole message. Also on_pong, on_wake, on_writable, as they happen.
 *   on_closing     the peer began the closing handshake; choose the code of the answer.
 *   on_error       the connection failed; on_close follows.
 *   on_close       the session is over. The object is still yours to read.
 *   free_session   the last call for this object, made exactly once for each one that was accepted or imported, also when the
 *                  peer vanished before on_open, also after a panic.
 *
 * RELOADS. When the file is replaced, the server loads it as another generation: a second copy of the library, with statics of
 * its own, beside the one that runs. New peers go to the new generation. A session that is open goes by the flags of the
 * library that it runs on:
 *
 *   no flag                 it drains: it stays with the code it began with until it ends.
 *   WSH_LIBRARY_MIGRATES    it moves, if the new library migrates as well; else it drains.
 *   WSH_LIBRARY_RESTARTS    it is closed with 1012, for the peer to come again.
 *
 * The peer sees nothing of a move. The server calls, in this order:
 *
 *   export_state   in the old generation: write the state of the session down. The object is frozen.
 *   import_state   in the new generation: make the object with which the session goes on, in the place of on_upgrade and
 *                  on_open. Once it has returned WSH_OK, the session has moved.
 *   free_session   in the old generation, for the frozen object. on_close is not called there: the session is not over.
 *
 * If the new generation does not take the state, or the session came to its end meanwhile, then instead of free_session:
 *
 *   cancel_export  in the old generation: the session goes on with the old object, if only to on_close.
 *
 * The connection moves as it is, at whatever place in the conversation: what waits for the peer, a message that has arrived in
 * part, one that is being sent in fragments. What is still owed to the handler comes to the new object: the on_writable after a
 * WSH_SLOW, the on_pong after a ping, the on_wake after a wake-up. State that lies elsewhere than in the exported bytes, in
 * statics for instance, does not move.
 *
 * HOLDING. A handler that is not ready for more returns WSH_HOLD, from on_open, on_message, on_pong, on_wake, on_writable or
 * import_state. The server then delivers no message, no pong and no Close of this session and reads no further from its socket, so
 * that the peer feels the backpressure, until a later on_wake or on_writable returns WSH_OK. What came meanwhile follows in its
 * order. A message is good until the callback returns, as ever: a handler that still needs its bytes copies them. The deadlines
 * for the silence of a peer stand still meanwhile, that for answering a Close does not. When the connection breaks, on_error and
 * on_close are called at once. A session that is held can move: it is held in the new generation too if import_state returns
 * WSH_HOLD, and goes on if it returns WSH_OK. cancel_export leaves it as it was.
 *
 * THREADS. Every function says who may call it where:
 *   [control]  the control thread of this generation (one loaded copy of the library). Never two at a time.
 *   [session]  the worker thread that the session lives on: in one generation always the same one, from on_upgrade or
 *              import_state to free_session. Calls for one session never overlap and never nest, also when it moves from one
 *              generation to another. Sessions on other workers run at the same time.
 *              A call that blocks makes the other sessions of that worker wait, and no session of any other handler.
 *   [any]      every thread at any time, also threads that the library started, also from inside a callback.
 *
 * MEMORY. A pointer that is passed or returned is borrowed: it is good until the call that passed it returns, or, for what a
 * host function hands out, until the callback returns in which it was asked for. OWNED marks the exceptions. Nothing that one
 * side allocated is freed by the other.
 *
 * TEXT is UTF-8 as pointer and length, without a NUL. Slices of length 0 may have any pointer, NULL included.
 *
 * UNWINDING. No exception, no longjmp and no Rust panic may cross this boundary in either direction.
 *
 * GROWTH. Tables begin with their size and only ever get longer. Read a field only if WSH_HAS says that it is there. A change
 * that breaks layout or meaning gets another entry symbol (wsh_handler_entry_v2), and a server may offer both.
 */
#ifndef WSH_H
#define WSH_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define WSH_ABI_MAJOR 1
#define WSH_ABI_MINOR 0

#if defined(_WIN32)
#define WSH_EXPORT __declspec(dllexport)
#else
#define WSH_EXPORT __attribute__((visibility("default")))
#endif

/* True if the table is long enough to hold the field, and the field is implemented. */
#define WSH_HAS(table, type, field) \
    ((table)->size >= offsetof(type, field) + sizeof((table)->field) && (table)->field != NULL)

/* ---- Status: what functions return. Zero and above is success. ------------------------------------------------------- */

typedef int32_t wsh_status;

#define WSH_OK 0
#define WSH_DONE 1           /* from a callback: this handler is finished; the server closes with 1000 */
#define WSH_SLOW 2           /* from a send: accepted, and the outgoing queue is above its high watermark; on_writable follows */
#define WSH_HOLD 3           /* from a callback: not ready for more; see HOLDING */
#define WSH_E_INVALID (-1)   /* an argument breaks the rule written at the function */
#define WSH_E_CLOSED (-2)    /* the session is closing or gone */
#define WSH_E_FULL (-3)      /* not accepted: the outgoing queue is at its limit; the session is closed with 1013, or the message
                                dropped, as the operator has chosen */
#define WSH_E_TOO_BIG (-4)   /* larger than a limit of the server */
#define WSH_E_UNSUPPORTED (-5)
#define WSH_E_NO_MEMORY (-6)
#define WSH_E_PANIC (-7)     /* from a callback: it panicked; nothing but free_session is called for this object any more */
#define WSH_E_STATE (-8)     /* not possible now, for instance a protocol chosen twice */
#define WSH_E_NOT_FOUND (-9) /* there is no such header, offered protocol or attribute */
#define WSH_E_REJECTED (-10) /* from on_upgrade: refused; upgrade_reject said how, else 403. From import_state: not taken */
#define WSH_E_INTERNAL (-11)
#define WSH_E_BUSY (-12)     /* from export_state: not now */
#define WSH_E_FORBIDDEN (-13) /* the server's config does not grant it to this handler; see wsh.raw/1 */

/* ---- Constants ------------------------------------------------------------------------------------------------------- */

/* kind of a message */
#define WSH_TEXT 1u   /* UTF-8; the server has checked what it delivers */
#define WSH_BINARY 2u
#define WSH_RAW 3u    /* no message: bytes as the peer sent them, to a session that has asked for them by wsh.raw/1 */

/* ready states, as in HTML5 */
#define WSH_CONNECTING 0u
#define WSH_OPEN 1u
#define WSH_CLOSING 2u
#define WSH_CLOSED 3u

/* attributes of an upgrade and of the session it becomes */
#define WSH_PATH 1u       /* resource path, percent-decoded: /chat */
#define WSH_QUERY 2u      /* what follows the first '?', as sent; empty if there was none */
#define WSH_PEER 3u       /* address of the peer: 192.0.2.7:50312 or [2001:db8::1]:50312; with port 0 if a trusted proxy said it.
                             WSH_E_NOT_FOUND if it has none, as by a Unix socket */
#define WSH_PROTOCOL 4u   /* subprotocol that was agreed; WSH_E_NOT_FOUND if none was */
#define WSH_EXTENSIONS 5u /* extensions that were agreed; empty if none were */
#define WSH_SCHEME 6u     /* "wss" if the connection is TLS's, or that of a trusted proxy's peer is; else "ws" */
#define WSH_TLS_SUBJECT 7u /* subject of the peer's certificate, which was verified: CN=Ann,O=Example. WSH_E_NOT_FOUND if it showed
                              none, which only the server's config can rule out */
#define WSH_TLS_NAMES 8u   /* alternative names of that certificate, one a line: DNS:, email:, URI: or IP: and the name; may be empty */
#define WSH_PARAMS 9u      /* parameters of the route that led here, encoded as a query is: room=blue&n=2; empty if it has none */
#define WSH_USER 10u       /* who the peer is, as the server has verified: ann. WSH_E_NOT_FOUND if its config does not ask for it */

/* how a session ended, in on_close */
#define WSH_CLOSED_CLEAN 0u    /* both sides sent Close */
#define WSH_CLOSED_ABNORMAL 1u /* the connection was lost or aborted; the code is then 1006, or the code the server failed it with */

/* levels of log */
#define WSH_LOG_ERROR 1u
#define WSH_LOG_WARN 2u
#define WSH_LOG_INFO 3u
#define WSH_LOG_DEBUG 4u
#define WSH_LOG_TRACE 5u

/* flags of wsh_handler_info */
#define WSH_LIBRARY_NO_UNLOAD (1u << 0)       /* its code may still run after shutdown (a Go runtime): never unmap it */
#define WSH_LIBRARY_PANIC_ABORT (1u << 1)     /* a panic ends the process: the server refuses such a library */
#define WSH_LIBRARY_FORGETS_REQUEST (1u << 2) /* sessions never ask for headers or query after on_upgrade: do not keep them */
#define WSH_LIBRARY_MIGRATES (1u << 3)        /* export_state and import_state are implemented: sessions move to the new code on a
                                                 reload. Without this flag and the next, they finish on the code they began with */
#define WSH_LIBRARY_RESTARTS (1u << 4)        /* sessions are closed with 1012 on a reload. Goes before WSH_LIBRARY_MIGRATES */

/* ---- Objects of the server ------------------------------------------------------------------------------------------- */

typedef struct wsh_library wsh_library; /* this generation; good from entry until shutdown returns */
typedef struct wsh_upgrade wsh_upgrade; /* an opening handshake; good inside on_upgrade */
typedef struct wsh_session wsh_session; /* a session; good inside the callback that was given it, on that thread */
typedef struct wsh_handle wsh_handle;   /* a counted reference to a session, for any thread and any time */

typedef struct wsh_slice {
    const uint8_t *ptr;
    size_t len;
} wsh_slice;

/* Takes a piece of the state that export_state writes; the pieces are joined in the order of the calls. The bytes are copied
 * before it returns. WSH_OK, or WSH_E_TOO_BIG when the state as a whole exceeds the server's limit. Good until the export_state
 * returns that was given it, on that thread. */
typedef wsh_status (*wsh_sink)(void *sink_ctx, const uint8_t *data, size_t len);

/* ---- 1. What the server reads from the file -------------------------------------------------------------------------- */

/* Holds no pointers, therefore needs no relocation and can be read without loading the library. */
typedef struct wsh_handler_info_t {
    uint8_t magic[8];        /* WSH_MAGIC */
    uint32_t info_size;      /* sizeof(wsh_handler_info_t) */
    uint16_t abi_major;      /* of the header that the library was compiled with */
    uint16_t abi_minor;
    uint16_t min_host_minor; /* the library cannot work with a server of a lower minor */
    uint16_t reserved0;
    uint32_t flags;          /* WSH_LIBRARY_... */
    uint32_t state_version;  /* of what export_state writes; with WSH_LIBRARY_MIGRATES, 0 means a handler without state */
    uint32_t reserved1;
    char name[32];           /* NUL padded UTF-8: shown to people, decides nothing */
    char version[32];
    char sdk[32];            /* what it was made with: "c", "handler-api 0.1.0" */
} wsh_handler_info_t;

/* CR LF shows a copy that went through a text mode. */
#define WSH_MAGIC { 'W', 'S', 'H', 'L', 'I', 'B', '\r', '\n' }

/* Write once, at file level:  WSH_HANDLER_INFO("echo", "1.0.0", 0); */
#define WSH_HANDLER_INFO(NAME, VERSION, FLAGS) WSH_HANDLER_INFO_WITH_STATE(NAME, VERSION, FLAGS, 0)

/* The same with a state_version:  WSH_HANDLER_INFO_WITH_STATE("counter", "1.0.0", WSH_LIBRARY_MIGRATES, 1); */
#define WSH_HANDLER_INFO_WITH_STATE(NAME, VERSION, FLAGS, STATE_VERSION)                              \
    WSH_EXPORT extern const wsh_handler_info_t wsh_handler_info;                                      \
    const wsh_handler_info_t wsh_handler_info = { WSH_MAGIC, sizeof(wsh_handler_info_t), WSH_ABI_MAJOR, \
        WSH_ABI_MINOR, 0, 0, FLAGS, STATE_VERSION, 0, NAME, VERSION, "c" }

/* ---- 2. What the server offers --------------------------------------------------------------------------------------- */

typedef struct wsh_host_api {
    uint32_t size; /* of this table in bytes */
    uint16_t abi_major;
    uint16_t abi_minor;

    /* Writes a line to the server's log, with the handler's name and generation. Control characters are escaped. [any] */
    void (*log)(wsh_library *, uint32_t level, const uint8_t *message, size_t len);

    /* An optional table of functions by its versioned name, or NULL. The table is good until shutdown returns. [any] */
    const void *(*get_extension)(wsh_library *, const char *id);

    /* -- the opening handshake; all [session], inside on_upgrade only -- */

    /* An attribute of the request, from WSH_PATH to WSH_USER. WSH_E_NOT_FOUND, WSH_E_INVALID. */
    wsh_status (*upgrade_attribute)(wsh_upgrade *, uint32_t attribute, wsh_slice *value);

    /* The value number `index` (from 0) of the header, whose name is compared without case. WSH_E_NOT_FOUND. */
    wsh_status (*upgrade_header)(wsh_upgrade *, const uint8_t *name, size_t name_len, size_t index, wsh_slice *value);

    /* The header line number `index` (from 0), names in lower case. WSH_E_NOT_FOUND past the last one. */
    wsh_status (*upgrade_header_at)(wsh_upgrade *, size_t index, wsh_slice *name, wsh_slice *value);

    /* The subprotocol number `index` (from 0) that the peer offers, in its order. WSH_E_NOT_FOUND past the last one. */
    wsh_status (*upgrade_offered_protocol)(wsh_upgrade *, size_t index, wsh_slice *protocol);

    /* Agrees to a subprotocol. WSH_E_INVALID if the peer did not offer it, WSH_E_STATE if one was chosen already. */
    wsh_status (*upgrade_choose_protocol)(wsh_upgrade *, const uint8_t *protocol, size_t len);

    /* Adds a header to the answer, accepted or refused. WSH_E_INVALID for a name or value that HTTP does not allow, and for
     * the headers of the handshake itself (Connection, Upgrade, Content-Length, Transfer-Encoding, Sec-WebSocket-...). */
    wsh_status (*upgrade_add_header)(wsh_upgrade *, const uint8_t *name, size_t name_len, const uint8_t *value,
                                     size_t value_len);

    /* Refuses: HTTP status 300 to 599 and a body (text/plain unless a Content-Type was added). on_upgrade then returns
     * WSH_E_REJECTED. A handler with raw access may also give 200 to 299 and 600 to 999, which others are answered
     * WSH_E_FORBIDDEN for. WSH_E_INVALID for another status. */
    wsh_status (*upgrade_reject)(wsh_upgrade *, uint16_t status, const uint8_t *body, size_t len);

    /* -- a session; all [session], inside a callback of that session only --
     *
     * Inside export_state and import_state nothing can be sent: session_send, session_send_fragment, session_ping,
     * session_close and session_abort answer WSH_E_STATE there. The others answer as ever. */

    /* Sends one message. Text has to be UTF-8. The bytes are copied or written before the call returns.
     * WSH_OK, WSH_SLOW, WSH_E_CLOSED, WSH_E_FULL, WSH_E_INVALID. */
    wsh_status (*session_send)(wsh_session *, uint32_t kind, const uint8_t *data, size_t len);

    /* Sends a part of a message as a frame of its own; `last` != 0 ends the message. All parts have the kind of the first;
     * a text may be cut anywhere, also inside a character. Whole messages may not be sent in between (WSH_E_STATE). */
    wsh_status (*session_send_fragment)(wsh_session *, uint32_t kind, const uint8_t *data, size_t len, uint32_t last);

    /* Sends a ping of at most 125 bytes; the answer arrives in on_pong. WSH_E_CLOSED, WSH_E_INVALID. */
    wsh_status (*session_ping)(wsh_session *, const uint8_t *data, size_t len);

    /* Begins the closing handshake after what was sent before. Code 1000-1003, 1007-1014 or 3000-4999, reason at most 123
     * bytes of UTF-8; code 0 sends an empty Close. WSH_E_CLOSED if it has begun already, WSH_E_INVALID. */
    wsh_status (*session_close)(wsh_session *, uint16_t code, const uint8_t *reason, size_t len);

    /* Drops the connection without a Close frame. on_close follows with 1006. */
    wsh_status (*session_abort)(wsh_session *);

    /* WSH_OPEN, WSH_CLOSING or WSH_CLOSED. */
    uint32_t (*session_ready_state)(wsh_session *);

    /* Bytes accepted from the handler and not yet written to the network, framing included. */
    uint64_t (*session_buffered_amount)(wsh_session *);

    /* What the request said, as in upgrade_attribute, upgrade_header and upgrade_header_at. Query and headers are
     * WSH_E_NOT_FOUND where the library has the flag WSH_LIBRARY_FORGETS_REQUEST, or had it in any generation that the session
     * has passed through. The headers that only served the handshake (Connection, Upgrade, Sec-WebSocket-Key,
     * Sec-WebSocket-Version) are not kept. */
    wsh_status (*session_attribute)(wsh_session *, uint32_t attribute, wsh_slice *value);
    wsh_status (*session_header)(wsh_session *, const uint8_t *name, size_t name_len, size_t index, wsh_slice *value);
    wsh_status (*session_header_at)(wsh_session *, size_t index, wsh_slice *name, wsh_slice *value);

    /* A handle to this session. OWNED: give it back with handle_release. Never NULL. */
    wsh_handle *(*session_handle)(wsh_session *);

    /* -- a handle; all [any]; each one that is held keeps this generation loaded --
     *
     * A handle belongs to the generation that took it. From the moment its session has moved to another generation it answers
     * WSH_E_CLOSED; what it accepted before is still delivered, a wake-up to the new object. Between export_state and that
     * moment, or cancel_export, it accepts as ever, and what it accepts follows. It keeps the old generation loaded as long as
     * it is held: export_state is the place to give it back (handle_release), and cancel_export the place to take it again.
     *
     * A handle that import_state takes accepts from the start, also from other threads. What it accepts is delivered when
     * import_state has returned WSH_OK. If it returns an error, the handle answers WSH_E_CLOSED and what it accepted is lost. */

    void (*handle_retain)(wsh_handle *);
    void (*handle_release)(wsh_handle *);

    /* Sends one message from any thread. Messages of one thread keep their order. They follow what the session's own
     * callback has sent so far. WSH_OK, WSH_SLOW, WSH_E_CLOSED, WSH_E_FULL, WSH_E_INVALID. */
    wsh_status (*handle_send)(wsh_handle *, uint32_t kind, const uint8_t *data, size_t len);

    /* As session_close, from any thread. WSH_OK says that it was asked for. */
    wsh_status (*handle_close)(wsh_handle *, uint16_t code, const uint8_t *reason, size_t len);

    /* Has on_wake called soon on the session's worker; several before it is called count as one. WSH_E_CLOSED. */
    wsh_status (*handle_wake)(wsh_handle *);

    /* WSH_OPEN, or WSH_CLOSED from the moment on_close was called or the session has moved to another generation. A session
     * that is closing counts as open. */
    uint32_t (*handle_ready_state)(wsh_handle *);
} wsh_host_api;

/* ---- 3. What the library implements ---------------------------------------------------------------------------------- */

/* Owned by the library, good until shutdown returns. Only on_message is required; NULL means: not implemented.
 * A callback that returns an error fails its session with 1011 and no other, except where it says something else. */
typedef struct wsh_handler_api {
    uint32_t size; /* of this table in bytes */
    uint16_t abi_major;
    uint16_t abi_minor;

    /* Passed to the functions below that are about the library and not about one session. */
    void *library_ctx;

    /* Asked once after entry: an error keeps this generation from serving. [control] */
    wsh_status (*health)(void *library_ctx);

    /* WSH_OK accepts, and *session_ctx (NULL at first) becomes the object of the session. WSH_E_REJECTED refuses. Any other
     * error is answered with 500. Not implemented: every peer is accepted, with NULL as its object. [session] */
    wsh_status (*on_upgrade)(void *library_ctx, wsh_upgrade *, void **session_ctx);

    /* [session] */
    wsh_status (*on_open)(void *session_ctx, wsh_session *);

    /* One whole message. The bytes are the server's and good until the call returns. WSH_DONE closes with 1000. [session] */
    wsh_status (*on_message)(void *session_ctx, wsh_session *, uint32_t kind, const uint8_t *data, size_t len);

    /* A peer's pong, asked for or not. Pings are answered by the server. [session] */
    wsh_status (*on_pong)(void *session_ctx, wsh_session *, const uint8_t *data, size_t len);

    /* Follows handle_wake. [session] */
    wsh_status (*on_wake)(void *session_ctx, wsh_session *);

    /* After a send returned WSH_SLOW: the outgoing queue is below its low watermark. [session] */
    wsh_status (*on_writable)(void *session_ctx, wsh_session *);

    /* The peer sent Close; code 1005 if its frame was empty. *reply is the code of the answer and is preset to that code;
     * 1005 answers with an empty frame. The session may still send: that goes out before the answer. [session] */
    wsh_status (*on_closing)(void *session_ctx, wsh_session *, uint16_t code, const uint8_t *reason, size_t len,
                             uint16_t *reply);

    /* The connection failed, with the reason in words: the peer broke the protocol, a limit was reached, the network
     * broke. Nothing can be sent any more. on_close follows. [session] */
    void (*on_error)(void *session_ctx, wsh_session *, const uint8_t *message, size_t len);

    /* The session is over. The code is the peer's, 1005 for an empty Close, 1006 for none. [session] */
    void (*on_close)(void *session_ctx, wsh_session *, uint16_t code, const uint8_t *reason, size_t len, uint32_t how);

    /* The last call for this object. [session] */
    void (*free_session)(void *session_ctx);

    /* -- reloads: with WSH_LIBRARY_MIGRATES. A library that has export_state without import_state, import_state without
     *    export_state, or both without the flag, is taken for one that drains, and none of the three is called. -- */

    /* Writes the state of the session through `sink`, in as many pieces as it likes, for the code that follows, and freezes the
     * object. The next call for a frozen object is free_session or cancel_export. Asked between two callbacks of the session,
     * after on_open (or import_state) and only while it is open: one that is closing ends where it is. Nothing can be sent from
     * inside it. Returns:
     *   WSH_OK         the state is complete. Without a call of `sink` it is empty.
     *   WSH_E_BUSY     not now. The object is not frozen; the server asks again after the next callback of this session.
     *   WSH_E_TOO_BIG  what the sink answered: the state exceeds the server's limit. As any other error.
     *   WSH_E_PANIC    the session fails with 1011, as everywhere.
     *   other errors   this session finishes on this generation.
     * With an error, what was written is thrown away, the object is not frozen, and cancel_export is not called. One that
     * returns WSH_OK although the sink refused gets cancel_export and finishes on this generation. [session] */
    wsh_status (*export_state)(void *session_ctx, wsh_session *, wsh_sink sink, void *sink_ctx);

    /* Thaws an object that is frozen: the new code did not take the state, or the session came to its end meanwhile (the peer
     * vanished, the server stops), and then on_close follows as ever. Otherwise the session goes on here and is not asked
     * again for this reload. From here on it can send. NULL allowed. An error fails the session, as everywhere. [session] */
    wsh_status (*cancel_export)(void *session_ctx, wsh_session *);

    /* Makes the object of a session that another generation exported, as code_change does in Erlang. `from_version` is the
     * state_version of the library that wrote the state; it may be older than this library's, newer after a rollback, and 0
     * with no bytes from a handler without state. The state is good until the call returns; its bytes may come from any code
     * that served this path and are to be checked.
     * WSH_OK takes the session over, and *session_ctx (NULL at first) becomes its object. Any error leaves the session on its
     * old generation, and *session_ctx is then ignored: what was made for it is to be freed before. WSH_E_REJECTED says that
     * the state is of a kind that this code does not take. An error, WSH_E_PANIC included, fails no session.
     * Attributes and headers can be asked for and a handle can be taken. Nothing can be sent yet; handle_wake brings
     * on_wake once the session has moved. on_upgrade and on_open are not called for it. [session] */
    wsh_status (*import_state)(void *library_ctx, wsh_session *, uint32_t from_version, const uint8_t *state, size_t len,
                               void **session_ctx);

    /* No new session comes, neither a new peer's nor one from another generation; stop timers and background work. Sessions
     * may still be open. [control] */
    void (*quiesce)(void *library_ctx);

    /* Every session is freed. Join the threads that were started, free library_ctx. The last call into the library. [control] */
    void (*shutdown)(void *library_ctx);

    /* A table of optional callbacks by its versioned name, or NULL. [control] */
    const void *(*get_extension)(void *library_ctx, const char *id);
} wsh_handler_api;

/* ---- 4. The only function symbol ------------------------------------------------------------------------------------- */

/* Store `host` and `self`, point *handler at the library's table. An error refuses the library; say why with host->log.
 * Both tables stay good until shutdown returns. [control] */
WSH_EXPORT wsh_status wsh_handler_entry_v1(const wsh_host_api *host, wsh_library *self, const wsh_handler_api **handler);

/* ---- 5. Extensions --------------------------------------------------------------------------------------------------- */

/* What not every server offers and not every library needs, in tables that are asked for by a versioned name:
 * host->get_extension gives what the server implements, get_extension of wsh_handler_api what the library does. Each table begins
 * with its size and only gets longer; NULL says that the other side does not know the name. */

/* -- timers -- */

#define WSH_TIMER "wsh.timer/1"

/* Of the server. A timer has a number that the library chooses; starting one that runs begins it anew. It is heard `after_ms` later
 * and then each `every_ms`; 0 is once. The least time is a millisecond. A timer is never early, and may be as late as its worker is
 * busy; what a repeating one has missed meanwhile is left out. */
typedef struct wsh_timer_api {
    uint32_t size; /* of this table in bytes */
    uint32_t reserved0;

    /* Timers of a session, at most 64 at a time (WSH_E_TOO_BIG). They move with it to another generation, at their times, and end
     * with it. Also inside export_state and import_state. Stopping one that does not run is WSH_E_NOT_FOUND. [session] */
    wsh_status (*session_start)(wsh_session *, uint64_t token, uint64_t after_ms, uint64_t every_ms);
    wsh_status (*session_stop)(wsh_session *, uint64_t token);

    /* Timers of the library, at most 64 at a time (WSH_E_TOO_BIG). They end with this generation: stop in quiesce what should not
     * go on while the last sessions are open. One that is stopped may be heard once more if it was due already. [any] */
    wsh_status (*library_start)(wsh_library *, uint64_t token, uint64_t after_ms, uint64_t every_ms);
    wsh_status (*library_stop)(wsh_library *, uint64_t token);
} wsh_timer_api;

/* Of the library; asked for once, after entry. NULL in it means: not implemented, and such timers pass unheard. */
typedef struct wsh_timer_callbacks {
    uint32_t size; /* of this table in bytes */
    uint32_t reserved0;

    /* The time of a session's timer has come. Also while it is closing, and not after on_close. [session] */
    wsh_status (*on_timer)(void *session_ctx, wsh_session *, uint64_t token);

    /* The time of a library's timer has come. Not after shutdown. [control] */
    void (*on_library_timer)(void *library_ctx, uint64_t token);
} wsh_timer_callbacks;

/* -- topics -- */

#define WSH_TOPIC "wsh.topic/1"

/* whose topic it is */
#define WSH_TOPIC_OWN 0u    /* of this handler: all of its generations share it, and no other handler */
#define WSH_TOPIC_SERVER 1u /* of every handler of the server that asks for this name with this scope */

/* Of the server. What is published to a topic, every session hears that has subscribed to it, as a message that was sent to it: framed
 * once for all of them, in the same order for each, and not later than what is published after it. It goes out behind what the
 * callback has sent from which it is published. Names are 1 to 255 bytes of UTF-8. There is nothing to create or delete: a topic
 * is there while it has a subscriber. */
typedef struct wsh_topic_api {
    uint32_t size; /* of this table in bytes */
    uint32_t reserved0;

    /* The session hears what is published from now on; twice is once. At most 1024 topics of a session (WSH_E_TOO_BIG).
     * Subscriptions move with it to another generation, where nothing is missed and nothing heard twice, and end with it. Also inside
     * export_state and import_state. WSH_E_INVALID, WSH_E_CLOSED. [session] */
    wsh_status (*session_subscribe)(wsh_session *, uint32_t scope, const uint8_t *topic, size_t topic_len);

    /* WSH_E_NOT_FOUND if it has not subscribed. [session] */
    wsh_status (*session_unsubscribe)(wsh_session *, uint32_t scope, const uint8_t *topic, size_t topic_len);

    /* Publishes to every subscriber but this session. Nobody needs to have subscribed. WSH_OK, WSH_E_INVALID; WSH_E_FULL if a worker
     * was too far behind to take it: the others have it, and to the subscribers on that one happens what the operator has chosen for
     * peers that do not read. [session] */
    wsh_status (*session_publish)(wsh_session *, uint32_t scope, const uint8_t *topic, size_t topic_len, uint32_t kind,
                                  const uint8_t *data, size_t len);

    /* Publishes to every subscriber. As session_publish. [any] */
    wsh_status (*library_publish)(wsh_library *, uint32_t scope, const uint8_t *topic, size_t topic_len, uint32_t kind,
                                  const uint8_t *data, size_t len);

    /* Sessions that have subscribed, on this server. In on_close the session itself does not count any more. [any] */
    uint64_t (*subscribers)(wsh_library *, uint32_t scope, const uint8_t *topic, size_t topic_len);
} wsh_topic_api;

/* -- metrics -- */

#define WSH_METRIC "wsh.metric/1"

/* kind of a metric */
#define WSH_COUNTER 1u /* only grows: add ignores what is below 0, and set does nothing */
#define WSH_GAUGE 2u

typedef struct wsh_metric wsh_metric; /* good until shutdown returns */

/* Of the server: figures of the handler, which the operator sees beside the server's own. */
typedef struct wsh_metric_api {
    uint32_t size; /* of this table in bytes */
    uint32_t reserved0;

    /* Finds or makes the metric of this name, and stores it in *metric. It belongs to the handler and not to this generation: its value
     * goes on when the library is replaced. A name is a lower case letter followed by at most 63 lower case letters, digits and
     * underscores; the help is one line of at most 256 bytes. WSH_E_INVALID, WSH_E_STATE if the name has another kind already,
     * WSH_E_TOO_BIG above 256 of a handler. [any] */
    wsh_status (*declare)(wsh_library *, uint32_t kind, const uint8_t *name, size_t name_len, const uint8_t *help,
                          size_t help_len, wsh_metric **metric);

    /* [any] */
    void (*add)(wsh_metric *, int64_t amount);
    void (*set)(wsh_metric *, int64_t value);
} wsh_metric_api;

/* -- the handler's own config -- */

#define WSH_CONFIG "wsh.config/1"

/* Of the server: the table [handlers.NAME.config] of its config file. When it is changed, the server loads the library once more. */
typedef struct wsh_config_api {
    uint32_t size; /* of this table in bytes */
    uint32_t reserved0;

    /* The table as a JSON object, dates as strings; {} if there is none. Good until shutdown returns. [any] */
    wsh_status (*get)(wsh_library *, wsh_slice *json);
} wsh_config_api;

/* -- work that blocks -- */

#define WSH_OFFLOAD "wsh.offload/1"

/* Of the server: some threads for each generation, on which work makes no session wait. */
typedef struct wsh_offload_api {
    uint32_t size; /* of this table in bytes */
    uint32_t reserved0;

    /* Has run(context) called once, soon, on one of these threads, which may block; of the functions of this header, those that are
     * [any] may be called there. How many threads there are and how much may wait for one is configured.
     * WSH_OK: it will be run, whatever happens to the library. The end of the generation waits for it, after quiesce and before
     * shutdown. With an error it is not run, and `context` is still the caller's: WSH_E_FULL, WSH_E_CLOSED once the generation
     * ends, WSH_E_NO_MEMORY if no thread could be had. [any] */
    wsh_status (*offload)(wsh_library *, void (*run)(void *context), void *context);
} wsh_offload_api;

/* -- raw access: what tests of clients need -- */

#define WSH_RAW_ACCESS "wsh.raw/1"

/* Of the server. The first functions are for every handler. Those from upgrade_answer on break the protocol if the handler likes, so
 * they are only for one to which the server's config grants it, with raw = true in [handlers.NAME]; to others they answer
 * WSH_E_FORBIDDEN, and the log says so once. The grant stays what it is for as long as this generation lives. All of it is the same
 * over TLS: the bytes are what TLS carries. */
typedef struct wsh_raw_api {
    uint32_t size; /* of this table in bytes */
    uint32_t reserved0;

    /* -- for every handler -- */

    /* WSH_OK if the config grants raw access to this handler, else WSH_E_FORBIDDEN. [any] */
    wsh_status (*granted)(wsh_library *);

    /* The connection ends without an answer to the request. on_upgrade then returns WSH_E_REJECTED. [session], in on_upgrade */
    wsh_status (*upgrade_abort)(wsh_upgrade *);

    /* No extension is agreed to: messages are not compressed. [session], in on_upgrade */
    wsh_status (*upgrade_decline_extensions)(wsh_upgrade *);

    /* The answer is given so much later; no thread waits for it. The last call counts. WSH_E_TOO_BIG above 60000 ms. [session], in
     * on_upgrade */
    wsh_status (*upgrade_delay)(wsh_upgrade *, uint64_t ms);

    /* The Sec-WebSocket-Accept that answers the request. [session], in on_upgrade */
    wsh_status (*upgrade_accept_key)(wsh_upgrade *, wsh_slice *value);

    /* What was sent goes out, and then the TCP connection ends in order, without a Close frame. on_close follows with 1006. Unlike
     * session_abort, after which what was sent may be lost. WSH_E_CLOSED, WSH_E_STATE. [session], inside a callback */
    wsh_status (*session_end)(wsh_session *);

    /* -- with raw = true -- */

    /* These bytes are written in the place of the server's answer; those of several calls are joined, none are none. No extension is
     * agreed to. If on_upgrade refuses, the connection ends behind them. If it accepts, they are taken for the answer 101 and the
     * session begins. WSH_E_TOO_BIG above 65536 bytes. [session], in on_upgrade */
    wsh_status (*upgrade_answer)(wsh_upgrade *, const uint8_t *data, size_t len);

    /* Adds a header Sec-WebSocket-... to the answer, with any value that HTTP allows. It takes the place of the server's own of that
     * name; several of one name are several lines. WSH_E_INVALID, WSH_E_TOO_BIG. [session], in on_upgrade */
    wsh_status (*upgrade_header)(wsh_upgrade *, const uint8_t *name, size_t name_len, const uint8_t *value, size_t value_len);

    /* Sends bytes as they are, in order with the messages that are sent; also behind a Close frame. They count for the outgoing queue
     * like a message that is never dropped. WSH_OK, WSH_SLOW, WSH_E_CLOSED, WSH_E_FULL, WSH_E_STATE. [session], inside a callback */
    wsh_status (*session_send)(wsh_session *, const uint8_t *data, size_t len);

    /* From here on nothing is read as frames: what the peer sends comes to on_message as WSH_RAW, in the pieces that the network
     * made of it, beginning behind the message that is being delivered. Nothing is answered for the handler, neither pings nor Close,
     * and the server pings no more; on_closing is not called, and the session lasts until the handler ends it or the peer
     * vanishes. The limits on silence hold. Such a session moves to no other generation: it drains. There is no way back.
     * WSH_E_CLOSED, WSH_E_STATE. [session], inside a callback */
    wsh_status (*session_receive)(wsh_session *);
} wsh_raw_api;

#ifdef __cplusplus
}
#endif
#endif
