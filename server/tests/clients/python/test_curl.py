"""Conversations of libcurl, a peer that we did not write, with the server at WSHD_URL.

The curl of a distribution may be too old for WebSockets; PycURL brings a libcurl that speaks ws:// and wss:// along. libcurl
offers no compression. For wss:// SSL_CERT_FILE names the server's certificate.
"""

import io
import os
import select
import time
import unittest
from contextlib import contextmanager
from urllib.parse import urlsplit

import pycurl

WEB_SOCKET_URL = os.environ.get("WSHD_URL", "")
SERVER = urlsplit(WEB_SOCKET_URL)
IS_SECURE = SERVER.scheme == "wss"
if not (SERVER.scheme in ("ws", "wss") and SERVER.port):
    raise SystemExit("set WSHD_URL to where the server listens: ws://127.0.0.1:9998")

# The config's limits.message_bytes_max.
MESSAGE_BYTES_MAX = 1024 * 1024

# A conversation waits for events and never for time; this only bounds how long a failure takes.
SECONDS_MAX = 30

# As the command line program has it with --connect-only: shake hands, and leave the frames to the caller.
CONNECT_ONLY_FOR_FRAMES = 2


@contextmanager
def curl(url):
    handle = pycurl.Curl()
    try:
        handle.setopt(pycurl.URL, url)
        handle.setopt(pycurl.TIMEOUT, SECONDS_MAX)
        # The peer is this very machine, whatever proxy the environment names.
        handle.setopt(pycurl.NOPROXY, "*")
        if IS_SECURE:
            handle.setopt(pycurl.CAINFO, os.environ["SSL_CERT_FILE"])
        yield handle
    finally:
        handle.close()


class Socket:
    """A WebSocket whose calls wait, which libcurl's do not."""

    def __init__(self, handle):
        self.handle = handle
        self.deadline = time.monotonic() + SECONDS_MAX

    def wait(self, readable, writable):
        descriptor = self.handle.getinfo(pycurl.ACTIVESOCKET)
        seconds = max(0, self.deadline - time.monotonic())
        sets = [descriptor] if readable else [], [descriptor] if writable else []
        if not any(select.select(*sets, [], seconds)):
            raise TimeoutError(f"nothing happened for {SECONDS_MAX} seconds")

    def send(self, payload, flags):
        """A frame; libcurl takes of a long one as much as the socket does."""
        payload = memoryview(payload)
        while True:
            try:
                taken = self.handle.ws_send(payload, flags)
            except BlockingIOError:
                taken = 0
            payload = payload[taken:]
            if not payload:
                return
            # The reply may be what keeps the server from reading.
            self.wait(readable=False, writable=True)

    def receive(self):
        """The next frame, as its kind and its payload."""
        payload = b""
        while True:
            try:
                part, meta = self.handle.ws_recv(65_536)
            except BlockingIOError:
                self.wait(readable=True, writable=False)
                continue
            payload += part
            if meta.bytesleft == 0:
                return meta.flags, payload


@contextmanager
def connect(path):
    with curl(WEB_SOCKET_URL + path) as handle:
        handle.setopt(pycurl.CONNECT_ONLY, CONNECT_ONLY_FOR_FRAMES)
        handle.perform()
        yield Socket(handle)


class Curl(unittest.TestCase):
    def test_text_comes_back_unchanged(self):
        with connect("/echo") as socket:
            for text in ["hello", "grüße, 世界 🌍", "\0\r\n"]:
                socket.send(text.encode(), pycurl.WS_TEXT)
                self.assertEqual(socket.receive(), (pycurl.WS_TEXT, text.encode()))

    def test_binary_of_every_length_class_comes_back_unchanged_up_to_the_limit(self):
        with connect("/echo") as socket:
            for length in [1, 125, 126, 127, 65_535, 65_536, MESSAGE_BYTES_MAX]:
                message = bytes(index % 251 for index in range(length))
                socket.send(message, pycurl.WS_BINARY)
                kind, echo = socket.receive()
                self.assertEqual(kind, pycurl.WS_BINARY)
                self.assertTrue(echo == message, f"{length} bytes came back changed")

    def test_fragments_come_back_as_one_message(self):
        with connect("/echo") as socket:
            socket.send(b"one, ", pycurl.WS_TEXT | pycurl.WS_CONT)
            socket.send(b"two, ", pycurl.WS_TEXT | pycurl.WS_CONT)
            socket.send(b"three", pycurl.WS_TEXT)
            self.assertEqual(socket.receive(), (pycurl.WS_TEXT, b"one, two, three"))

    def test_a_ping_is_answered_with_its_payload(self):
        with connect("/echo") as socket:
            socket.send(b"are you there?", pycurl.WS_PING)
            self.assertEqual(socket.receive(), (pycurl.WS_PONG, b"are you there?"))

    def test_a_close_is_answered_with_its_code_and_reason(self):
        with connect("/echo") as socket:
            socket.handle.ws_close(3000, "auf Wiederhören")
            answer = (3000).to_bytes(2, "big") + "auf Wiederhören".encode()
            self.assertEqual(socket.receive(), (pycurl.WS_CLOSE, answer))

    def test_goodbye_comes_back_and_then_the_server_closes_with_1000(self):
        with connect("/echo") as socket:
            socket.send(b"Goodbye", pycurl.WS_TEXT)
            self.assertEqual(socket.receive(), (pycurl.WS_TEXT, b"Goodbye"))
            self.assertEqual(socket.receive(), (pycurl.WS_CLOSE, (1000).to_bytes(2, "big")))

    def test_a_path_that_no_handler_serves_gets_404(self):
        with self.assertRaises(pycurl.error) as caught, connect("/nowhere"):
            pass
        self.assertEqual(caught.exception.args[0], pycurl.E_HTTP_RETURNED_ERROR)
        self.assertIn("404", caught.exception.args[1])

    @unittest.skipUnless(IS_SECURE, "there is no certificate")
    def test_a_certificate_that_nobody_vouches_for_is_refused(self):
        with curl(WEB_SOCKET_URL + "/echo") as handle, self.assertRaises(pycurl.error) as caught:
            handle.setopt(pycurl.CAINFO, os.devnull)
            handle.perform()
        self.assertIn(caught.exception.args[0], (pycurl.E_PEER_FAILED_VERIFICATION, pycurl.E_SSL_CACERT_BADFILE))

    def test_the_page_is_served_beside(self):
        with curl(WEB_SOCKET_URL.replace("ws", "http", 1) + "/") as handle:
            page = io.BytesIO()
            handle.setopt(pycurl.WRITEDATA, page)
            handle.perform()
            self.assertEqual(handle.getinfo(pycurl.RESPONSE_CODE), 200)
            self.assertIn(b"<!doctype html>", page.getvalue().lower())


if __name__ == "__main__":
    unittest.main()
