"""Conversations of Python's `websockets`, a peer that we did not write, with the server at WSHD_URL.

For wss:// SSL_CERT_FILE names the server's certificate.
"""

import asyncio
import functools
import http.client
import itertools
import json
import os
import unittest
from contextlib import AsyncExitStack, closing
from urllib.parse import urlencode, urlsplit

from websockets.asyncio import client
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Close, Frame, Opcode

WEB_SOCKET_URL = os.environ.get("WSHD_URL", "")
SERVER = urlsplit(WEB_SOCKET_URL)
IS_SECURE = SERVER.scheme == "wss"
if not (SERVER.scheme in ("ws", "wss") and SERVER.port):
    raise SystemExit("set WSHD_URL to where the server listens: ws://127.0.0.1:9998")

# Whether the server agrees to compression.
COMPRESSES = bool(os.environ.get("WSHD_DEFLATE"))

# The config's limits.message_bytes_max, and fewer than its limits.connections_per_peer_max.
MESSAGE_BYTES_MAX = 1024 * 1024
MANY_CONNECTIONS = 200

# A conversation waits for events and never for time; this only bounds how long a failure takes.
SECONDS_MAX = 30

HANDSHAKE_HEADERS = {
    "Host": SERVER.netloc,
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}


def conversation(talk):
    """A test that fails after SECONDS_MAX rather than waiting for ever."""

    @functools.wraps(talk)
    async def bounded(self):
        async with asyncio.timeout(SECONDS_MAX):
            await talk(self)

    return bounded


class Connection(client.ClientConnection):
    """Keeps the payloads of pongs: the library matches them with its pings, but does not tell their order."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.pongs = []

    def process_event(self, event):
        if isinstance(event, Frame) and event.opcode is Opcode.PONG:
            self.pongs.append(bytes(event.data))
        super().process_event(event)


def connect(path, **options):
    # The peer is this very machine, whatever proxy the environment names.
    defaults = {"proxy": None, "open_timeout": SECONDS_MAX, "create_connection": Connection}
    return client.connect(WEB_SOCKET_URL + path, **defaults, **options)


def bytes_of_length(length):
    return bytes(index % 251 for index in range(length))


class Conversation(unittest.IsolatedAsyncioTestCase):
    async def closed(self, socket) -> Close:
        """What the server's Close says, at the end of a connection that both sides closed."""
        with self.assertRaises(ConnectionClosed) as caught:
            await socket.recv()
        self.assertIsNotNone(caught.exception.rcvd, "the server sent Close")
        self.assertIsNotNone(caught.exception.sent, "the client sent Close")
        return caught.exception.rcvd

    async def refusal(self, path, **options):
        """What the server says instead of 101."""
        with self.assertRaises(InvalidStatus) as caught:
            async with connect(path, **options):
                pass
        return caught.exception.response


class Messages(Conversation):
    @conversation
    async def test_text_comes_back_unchanged_also_when_it_is_empty_or_not_ascii(self):
        async with connect("/echo") as socket:
            for message in ["hello", "", "grüße, 世界 🌍", "\0\r\n"]:
                await socket.send(message)
                self.assertEqual(await socket.recv(), message)

    @conversation
    async def test_binary_of_every_length_class_comes_back_unchanged_up_to_the_limit(self):
        async with connect("/echo") as socket:
            for length in [0, 1, 125, 126, 127, 65_535, 65_536, MESSAGE_BYTES_MAX]:
                message = bytes_of_length(length)
                await socket.send(message)
                # Not assertEqual, which would print a megabyte.
                self.assertTrue(await socket.recv() == message, f"{length} bytes came back changed")

    @conversation
    async def test_a_thousand_messages_sent_without_waiting_come_back_in_order(self):
        async with connect("/echo") as socket:
            messages = [f"message {index}" for index in range(1000)]
            for message in messages:
                await socket.send(message)
            self.assertEqual([await socket.recv() for _ in messages], messages)

    @conversation
    async def test_fragments_come_back_as_one_message_and_a_ping_between_them_is_answered_before(self):
        async with connect("/echo") as socket:

            async def fragments():
                yield "one, "
                yield ""
                answered = await socket.ping("are you there?")
                await answered
                self.assertEqual(socket.pongs, [b"are you there?"])
                yield "two"

            await socket.send(fragments())
            self.assertEqual(await socket.recv(), "one, two")

    @conversation
    async def test_each_ping_is_answered_with_its_own_payload_in_order(self):
        async with connect("/echo") as socket:
            payloads = [b"", b"x" * 125, *(f"ping {index}".encode() for index in range(100))]
            answered = [await socket.ping(payload) for payload in payloads]
            await asyncio.gather(*answered)
            self.assertEqual(socket.pongs, payloads)


class Closing(Conversation):
    @conversation
    async def test_a_close_is_answered_with_its_code_and_reason(self):
        for close in [Close(1000, ""), Close(3000, "auf Wiederhören"), Close(4999, "x" * 123)]:
            async with connect("/echo") as socket:
                await socket.close(close.code, close.reason)
                self.assertEqual(await self.closed(socket), close)

    @conversation
    async def test_a_close_without_a_code_is_answered_without_a_code(self):
        self.assertEqual(await exchange_raw("/echo", masked(Opcode.CLOSE, b"")), b"\x88\x00")

    @conversation
    async def test_goodbye_comes_back_and_then_the_server_closes_with_1000(self):
        async with connect("/echo") as socket:
            await socket.send("Goodbye")
            self.assertEqual(await socket.recv(), "Goodbye")
            self.assertEqual(await self.closed(socket), Close(1000, ""))

    @conversation
    async def test_a_message_larger_than_the_limit_ends_with_1009(self):
        async with connect("/echo") as socket:
            try:
                await socket.send(bytes_of_length(MESSAGE_BYTES_MAX + 1))
            except ConnectionClosed:
                pass  # The server closes as soon as it knows the length, perhaps in the midst of sending.
            self.assertEqual((await self.closed(socket)).code, 1009)

    @conversation
    async def test_a_text_that_is_not_utf_8_ends_with_1007(self):
        async with connect("/echo") as socket:
            await socket.send(b"\xff", text=True)
            self.assertEqual((await self.closed(socket)).code, 1007)

    async def assert_fails_the_connection(self, frame, code):
        # A message behind the violation is neither answered, nor does it turn the end into a reset.
        received = await exchange_raw("/echo", frame + masked(Opcode.TEXT, b"hi"))
        self.assertEqual(received[:1], b"\x88", f"a Close frame and not {received!r}")
        self.assertEqual(int.from_bytes(received[2:4]), code)
        self.assertEqual(len(received), 2 + received[1], "nothing follows the Close frame")

    @conversation
    async def test_an_unmasked_frame_gets_a_close_with_1002_and_then_the_end_of_the_stream(self):
        await self.assert_fails_the_connection(b"\x81\x02hi", 1002)

    @conversation
    async def test_a_reserved_opcode_gets_a_close_with_1002_and_then_the_end_of_the_stream(self):
        await self.assert_fails_the_connection(masked(0x3, b""), 1002)

    @conversation
    async def test_a_text_frame_that_is_not_utf_8_gets_a_close_with_1007_and_then_the_end_of_the_stream(self):
        await self.assert_fails_the_connection(masked(Opcode.TEXT, b"\xff"), 1007)


def masked(opcode, payload):
    """A whole message of the client in one frame. The mask of zeros changes nothing."""
    return bytes([0x80 | opcode, 0x80 | len(payload), 0, 0, 0, 0]) + payload


async def exchange_raw(path, data):
    """Sends what no library would, and returns all that the server sends until it ends the stream."""
    reader, writer = await asyncio.open_connection(SERVER.hostname, SERVER.port, ssl=IS_SECURE or None)
    with closing(writer):
        headers = "".join(f"{name}: {value}\r\n" for name, value in HANDSHAKE_HEADERS.items())
        writer.write(f"GET {path} HTTP/1.1\r\n{headers}\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        writer.write(data)
        return await reader.read()


class Handshake(Conversation):
    @conversation
    async def test_echo_wsh_is_agreed_among_several_subprotocols(self):
        async with connect("/echo", subprotocols=["first.example", "echo.wsh", "last.example"]) as socket:
            self.assertEqual(socket.subprotocol, "echo.wsh")

    @conversation
    async def test_no_subprotocol_is_agreed_if_only_others_are_offered(self):
        async with connect("/echo", subprotocols=["first.example", "last.example"]) as socket:
            self.assertIsNone(socket.subprotocol)
            await socket.send("without one")
            self.assertEqual(await socket.recv(), "without one")

    @unittest.skipUnless(COMPRESSES, "the server does not compress")
    @conversation
    async def test_every_way_to_offer_compression_is_answered_and_messages_come_back(self):
        text = json.dumps([{"id": number, "name": f"name of {number}"} for number in range(200)])
        flags, windows = (False, True), (None, 9, 12, 15)
        for alone_there, alone_here, there, here in itertools.product(flags, flags, windows, (*windows, True)):
            offer = ClientPerMessageDeflateFactory(
                server_no_context_takeover=alone_there,
                client_no_context_takeover=alone_here,
                server_max_window_bits=there,
                client_max_window_bits=here,
            )
            with self.subTest(offer=(alone_there, alone_here, there, here)):
                async with connect("/echo", compression=None, extensions=[offer]) as socket:
                    self.assertIn("permessage-deflate", socket.response.headers["Sec-WebSocket-Extensions"])
                    for message in (text, text, "", "short", text[:1000]):
                        await socket.send(message)
                        self.assertEqual(await socket.recv(), message)

    @unittest.skipIf(COMPRESSES, "the server compresses")
    @conversation
    async def test_compression_is_offered_and_declined(self):
        async with connect("/echo") as socket:
            self.assertIn("permessage-deflate", socket.request.headers["Sec-WebSocket-Extensions"])
            self.assertNotIn("Sec-WebSocket-Extensions", socket.response.headers)
            await socket.send("uncompressed")
            self.assertEqual(await socket.recv(), "uncompressed")

    @conversation
    async def test_a_page_of_this_host_may_connect_and_a_page_of_another_host_gets_403(self):
        async with connect("/echo", origin=f"{'https' if IS_SECURE else 'http'}://{SERVER.netloc}"):
            pass
        response = await self.refusal("/echo", origin="http://elsewhere.example")
        self.assertEqual(response.status_code, 403)
        self.assertIn(b"http://elsewhere.example", response.body)

    @conversation
    async def test_chat_without_a_name_gets_403_and_is_told_what_is_missing(self):
        response = await self.refusal("/chat")
        self.assertEqual(response.status_code, 403)
        self.assertIn(b"?name=NAME", response.body)

    @conversation
    async def test_a_path_that_no_handler_serves_gets_404(self):
        response = await self.refusal("/nowhere")
        self.assertEqual(response.status_code, 404)

    def test_another_version_of_the_protocol_gets_426_and_is_told_the_right_one(self):
        response = get("/echo", HANDSHAKE_HEADERS | {"Sec-WebSocket-Version": "8"})
        self.assertEqual(response.status, 426)
        self.assertEqual(response.headers["Sec-WebSocket-Version"], "13")

    def test_plain_http_for_a_handler_gets_426_and_is_told_to_upgrade(self):
        response = get("/echo", {})
        self.assertEqual(response.status, 426)
        self.assertEqual(response.headers["Upgrade"], "websocket")


def get(path, headers):
    kind = http.client.HTTPSConnection if IS_SECURE else http.client.HTTPConnection
    with closing(kind(SERVER.hostname, SERVER.port, timeout=SECONDS_MAX)) as connection:
        connection.request("GET", path, headers=headers)
        return connection.getresponse()


class SeveralClients(Conversation):
    @conversation
    async def test_members_of_a_room_hear_each_other_and_that_one_leaves(self):
        def join(name):
            # A room of this run alone.
            return connect("/chat?" + urlencode({"room": f"websockets {os.getpid()}", "name": name}))

        async def all_hear(text):
            self.assertEqual([await member.recv() for member in [ann, zoe]], [text, text])

        async with join("Ann") as ann:
            self.assertEqual(await ann.recv(), "* Ann joined")
            async with join("Zoë") as zoe:
                await all_hear("* Zoë joined")
                await ann.send("hello")
                await all_hear("Ann: hello")
                await zoe.send("good day")
                await all_hear("Zoë: good day")
            self.assertEqual(await ann.recv(), "* Zoë left")

    @conversation
    async def test_each_session_of_the_counter_counts_for_itself(self):
        async with connect("/counter") as first, connect("/counter") as second:
            for socket, count in [(first, "1"), (first, "2"), (second, "1"), (first, "3"), (second, "2")]:
                await socket.send("next")
                self.assertEqual(await socket.recv(), count)

    @conversation
    async def test_many_connections_at_once_each_get_their_own_echo(self):
        async with AsyncExitStack() as stack:
            sockets = await asyncio.gather(
                *(stack.enter_async_context(connect("/echo")) for _ in range(MANY_CONNECTIONS))
            )
            for index, socket in enumerate(sockets):
                await socket.send(f"client {index}")
            for index, socket in enumerate(sockets):
                self.assertEqual(await socket.recv(), f"client {index}")


if __name__ == "__main__":
    unittest.main()
