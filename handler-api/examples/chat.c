/* Rooms in C: what one member says, every member hears. ws://HOST:9998/chat?room=blue&name=Ann
 *
 *   cc -std=c11 -O2 -shared -fPIC -I handler-api/include handler-api/examples/chat.c -o handlers/chat_wsh.so
 *
 * A room is a topic of the server. A member moves to the new code when this library is replaced: its subscription goes along by
 * itself, its room and name are the state that export_state writes. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wsh.h"

WSH_HANDLER_INFO_WITH_STATE("chat", "1.0.0", WSH_LIBRARY_MIGRATES | WSH_LIBRARY_FORGETS_REQUEST, 1);

enum { NAME_MAX = 32 };

typedef struct Member {
    char room[NAME_MAX + 1];
    char name[NAME_MAX + 1];
} Member;

static const wsh_host_api *host;
static const wsh_topic_api *topics;
static wsh_library *self;

/* Says a line, of which too much is cut off, to everybody in the room. */
static void tell(const Member *member, const char *line, int len) {
    size_t size = len < 0 ? 0 : (size_t)len;
    topics->library_publish(self, WSH_TOPIC_OWN, (const uint8_t *)member->room, strlen(member->room), WSH_TEXT,
                            (const uint8_t *)line, size);
}

/* A value of a query without percent-encoding: letters, digits, '-' and '_'. */
static int parameter(wsh_slice query, const char *key, char value[NAME_MAX + 1]) {
    size_t key_len = strlen(key);
    const uint8_t *at = query.ptr, *end = at + query.len;
    while (at < end) {
        const uint8_t *next = memchr(at, '&', (size_t)(end - at));
        if (!next) next = end;
        if ((size_t)(next - at) > key_len && memcmp(at, key, key_len) == 0 && at[key_len] == '=') {
            size_t len = (size_t)(next - at) - key_len - 1;
            if (len == 0 || len > NAME_MAX) return 0;
            for (size_t i = 0; i < len; i++) {
                uint8_t c = at[key_len + 1 + i];
                int is_word = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
                if (!is_word && c != '-' && c != '_') return 0;
            }
            memcpy(value, at + key_len + 1, len);
            value[len] = '\0';
            return 1;
        }
        at = next + 1;
    }
    return 0;
}

static wsh_status on_upgrade(void *library, wsh_upgrade *upgrade, void **slot) {
    static const char usage[] = "say who you are: ?room=ROOM&name=NAME, of 1 to 32 letters, digits, - and _\n";
    (void)library;
    wsh_slice query = { NULL, 0 };
    host->upgrade_attribute(upgrade, WSH_QUERY, &query);
    Member *member = calloc(1, sizeof *member);
    if (!member) return WSH_E_NO_MEMORY;
    if (!parameter(query, "room", member->room) || !parameter(query, "name", member->name)) {
        free(member);
        host->upgrade_reject(upgrade, 403, (const uint8_t *)usage, sizeof usage - 1);
        return WSH_E_REJECTED;
    }
    *slot = member;
    return WSH_OK;
}

static wsh_status on_open(void *object, wsh_session *session) {
    const Member *member = object;
    wsh_status status =
        topics->session_subscribe(session, WSH_TOPIC_OWN, (const uint8_t *)member->room, strlen(member->room));
    if (status < WSH_OK) return status;
    char line[NAME_MAX + 16];
    tell(member, line, snprintf(line, sizeof line, "* %s joined", member->name));
    return WSH_OK;
}

static wsh_status on_message(void *object, wsh_session *session, uint32_t kind, const uint8_t *data, size_t len) {
    static const char no_text[] = "this room speaks text";
    const Member *member = object;
    if (kind != WSH_TEXT) return host->session_close(session, 1003, (const uint8_t *)no_text, sizeof no_text - 1);
    size_t name_len = strlen(member->name);
    uint8_t *line = malloc(name_len + 2 + len);
    if (!line) return WSH_E_NO_MEMORY;
    memcpy(line, member->name, name_len);
    memcpy(line + name_len, ": ", 2);
    memcpy(line + name_len + 2, data, len);
    topics->library_publish(self, WSH_TOPIC_OWN, (const uint8_t *)member->room, strlen(member->room), WSH_TEXT, line,
                            name_len + 2 + len);
    free(line);
    return WSH_OK;
}

static void on_close(void *object, wsh_session *session, uint16_t code, const uint8_t *reason, size_t len, uint32_t how) {
    const Member *member = object;
    (void)session, (void)code, (void)reason, (void)len, (void)how;
    char line[NAME_MAX + 16];
    tell(member, line, snprintf(line, sizeof line, "* %s left", member->name));
}

static void free_session(void *object) { free(object); }

/* Version 1 of the state: the member as it lies in memory, which is two texts that end with a NUL. */
static wsh_status export_state(void *object, wsh_session *session, wsh_sink sink, void *sink_ctx) {
    (void)session;
    return sink(sink_ctx, object, sizeof(Member));
}

static wsh_status import_state(void *library, wsh_session *session, uint32_t version, const uint8_t *state, size_t len,
                               void **slot) {
    (void)library, (void)session;
    if (version != 1 || len != sizeof(Member)) return WSH_E_REJECTED;
    Member *member = malloc(sizeof *member);
    if (!member) return WSH_E_NO_MEMORY;
    memcpy(member, state, sizeof *member);
    member->room[NAME_MAX] = member->name[NAME_MAX] = '\0';
    *slot = member;
    return WSH_OK;
}

static const wsh_handler_api handler = {
    .size = sizeof handler,
    .abi_major = WSH_ABI_MAJOR,
    .abi_minor = WSH_ABI_MINOR,
    .on_upgrade = on_upgrade,
    .on_open = on_open,
    .on_message = on_message,
    .on_close = on_close,
    .free_session = free_session,
    .export_state = export_state,
    .import_state = import_state,
};

wsh_status wsh_handler_entry_v1(const wsh_host_api *host_api, wsh_library *library, const wsh_handler_api **table) {
    static const char no_topics[] = "this chat needs a server with topics";
    host = host_api;
    self = library;
    topics = host->get_extension(library, WSH_TOPIC);
    if (!topics) {
        host->log(library, WSH_LOG_ERROR, (const uint8_t *)no_topics, sizeof no_topics - 1);
        return WSH_E_UNSUPPORTED;
    }
    *table = &handler;
    return WSH_OK;
}
