// A board in C++17: one text that everybody sees. Whoever sends a text replaces it, whoever comes gets it.
//
//   c++ -std=c++17 -O2 -shared -fPIC -fno-gnu-unique -Wl,--version-script=handler-api/include/wsh.map
//       -I handler-api/include handler-api/examples/board.cc -o handlers/board_wsh.so
//
// Without the version script and -fno-gnu-unique the loader may never let go of a library in C++; `wshd status` says so after a reload.
//
// Three rules of the contract become types here. A handle to a session is given back by the destructor of `Handle`. The object of a
// session is a `std::unique_ptr` until the server has it, and from free_session on again. No exception crosses the boundary: `fenced`
// turns each into a status.

#include <algorithm>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "wsh.h"

extern "C" {
WSH_HANDLER_INFO("board", "1.0.0", WSH_LIBRARY_FORGETS_REQUEST);
}

namespace {

const wsh_host_api *host = nullptr;
wsh_library *self = nullptr;

const uint8_t *bytes(std::string_view text) { return reinterpret_cast<const uint8_t *>(text.data()); }

void log_error(std::string_view text) { host->log(self, WSH_LOG_ERROR, bytes(text), text.size()); }

/// Runs code of the handler; what it throws ends here.
template <typename Code>
wsh_status fenced(Code code) noexcept {
    try {
        return code();
    } catch (const std::bad_alloc &) {
        return WSH_E_NO_MEMORY;
    } catch (const std::exception &error) {
        log_error(error.what());
        return WSH_E_INTERNAL;
    } catch (...) {
        return WSH_E_INTERNAL;
    }
}

/// A session, for any thread and any time. As long as one is held, this library stays loaded.
class Handle {
public:
    explicit Handle(wsh_session *session) : raw_(host->session_handle(session)) {}
    Handle(Handle &&other) noexcept : raw_(std::exchange(other.raw_, nullptr)) {}
    Handle &operator=(Handle &&other) noexcept {
        std::swap(raw_, other.raw_);
        return *this;
    }
    Handle(const Handle &) = delete;
    Handle &operator=(const Handle &) = delete;
    ~Handle() {
        if (raw_) host->handle_release(raw_);
    }

    void send(std::string_view text) const { host->handle_send(raw_, WSH_TEXT, bytes(text), text.size()); }

private:
    wsh_handle *raw_;
};

/// What all sessions share, whatever threads they live on.
class Board {
public:
    unsigned enter(Handle handle) {
        std::lock_guard lock(mutex_);
        handle.send(text_);
        viewers_.emplace_back(++last_, std::move(handle));
        return last_;
    }

    void leave(unsigned viewer) {
        std::lock_guard lock(mutex_);
        auto is_it = [viewer](const auto &entry) { return entry.first == viewer; };
        viewers_.erase(std::remove_if(viewers_.begin(), viewers_.end(), is_it), viewers_.end());
    }

    void write(std::string_view text) {
        std::lock_guard lock(mutex_);
        text_ = text;
        for (const auto &[_, handle] : viewers_) handle.send(text_);
    }

private:
    std::mutex mutex_;
    std::string text_ = "(empty)";
    std::vector<std::pair<unsigned, Handle>> viewers_;
    unsigned last_ = 0;
};

/// The object of one session: it is on the board as long as it lives.
class Viewer {
public:
    explicit Viewer(Board &board) : board_(board) {}
    Viewer(const Viewer &) = delete;
    Viewer &operator=(const Viewer &) = delete;
    ~Viewer() {
        if (number_) board_.leave(number_);
    }

    void open(wsh_session *session) { number_ = board_.enter(Handle(session)); }
    void write(std::string_view text) { board_.write(text); }

private:
    Board &board_;
    unsigned number_ = 0;
};

wsh_status on_upgrade(void *library, wsh_upgrade *, void **slot) {
    return fenced([&] {
        *slot = std::make_unique<Viewer>(*static_cast<Board *>(library)).release();
        return WSH_OK;
    });
}

wsh_status on_open(void *object, wsh_session *session) {
    return fenced([&] {
        static_cast<Viewer *>(object)->open(session);
        return WSH_OK;
    });
}

wsh_status on_message(void *object, wsh_session *session, uint32_t kind, const uint8_t *data, size_t len) {
    return fenced([&] {
        std::string_view text(reinterpret_cast<const char *>(data), len);
        if (kind != WSH_TEXT) return host->session_close(session, 1003, nullptr, 0);
        static_cast<Viewer *>(object)->write(text);
        return WSH_OK;
    });
}

void free_session(void *object) { std::unique_ptr<Viewer>(static_cast<Viewer *>(object)); }

void shutdown(void *library) { std::unique_ptr<Board>(static_cast<Board *>(library)); }

wsh_handler_api handler{};

}  // namespace

extern "C" wsh_status wsh_handler_entry_v1(const wsh_host_api *host_api, wsh_library *library,
                                           const wsh_handler_api **table) {
    host = host_api;
    self = library;
    return fenced([&] {
        handler.size = sizeof handler;
        handler.abi_major = WSH_ABI_MAJOR;
        handler.abi_minor = WSH_ABI_MINOR;
        handler.library_ctx = std::make_unique<Board>().release();
        handler.on_upgrade = on_upgrade;
        handler.on_open = on_open;
        handler.on_message = on_message;
        handler.free_session = free_session;
        handler.shutdown = shutdown;
        *table = &handler;
        return WSH_OK;
    });
}
