"""Holds the conversations of `examples/differential` with `websockets`, and compares what both sides heard and answered.

Reads a line of JSON for each conversation from standard input. `cargo xtask soak differential` runs both programs.
Where the two may differ is said in `differential_rules.py`, and nowhere else.
"""

import codecs
import collections
import copy
import json
import logging
import random
import sys

from websockets.client import ClientProtocol
from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Close, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from differential_rules import RULES, Case

LOGGER = logging.getLogger("differential")
LOGGER.addHandler(logging.NullHandler())
LOGGER.propagate = False

KINDS = {Opcode.TEXT: "text", Opcode.BINARY: "binary"}

WHEN_WHOLE = ", when the last frame is whole"

# Of conversations that are different, how many are shown.
DIFFERENT_SHOWN = 5

# Conversations whose answers are also changed, to see that it would be noticed.
PLANTED_IN = 500


class Hearing:
    """Of a protocol of `websockets`: puts messages together, and writes down what is heard and sent, each with the number
    of the frame it came with.

    A text is decoded frame by frame, as the library does for whoever reads a message in parts; one that is compressed,
    when it is whole.
    """

    def begin(self, extensions):
        self.extensions = extensions
        self.entries = []
        self.frames = 0
        self.is_inside = False
        # Of the message that is arriving.
        self.kind = self.decoder = None
        self.parts = []
        self.has_closed_first = False
        # What our side does not do once it has sent Close: hear messages and pings, and send pongs.
        self.left_out = 0

    def recv_frame(self, frame):
        self.frames += 1
        self.is_inside = True
        super().recv_frame(frame)
        if frame.opcode is Opcode.CLOSE:
            self.note("close", bytes(frame.data).hex())
        elif frame.opcode is Opcode.PING:
            self.note("ping", bytes(frame.data).hex())
        elif frame.opcode is Opcode.PONG:
            self.note("pong", bytes(frame.data).hex())
        else:
            self.take(frame)
        self.note_writes()
        self.is_inside = False

    def take(self, frame):
        if frame.opcode is not Opcode.CONT:
            self.kind, self.parts, self.decoder = KINDS[frame.opcode], [], None
            is_compressed = any(extension.decode_cont_data for extension in self.extensions)
            if self.kind == "text" and not is_compressed:
                self.decoder = codecs.getincrementaldecoder("utf-8")()
        self.parts.append(bytes(frame.data))
        # Our side reads no text once it has sent Close.
        if self.decoder is not None and not self.has_closed_first:
            self.decoder.decode(self.parts[-1], frame.fin)
        if frame.fin:
            payload = b"".join(self.parts)
            if self.kind == "text" and not self.has_closed_first:
                payload.decode()
            self.note(self.kind, payload.hex())

    def note(self, what, value):
        if self.has_closed_first and what != "close":
            self.left_out += 1
        else:
            self.entries.append((what, value, self.frames - 1))

    def note_writes(self):
        """What is answered is all small."""
        for write in self.data_to_send():
            if not write:
                continue
            what = {0x89: "sends ping", 0x8A: "sends pong", 0x88: "sends close"}[write[0]]
            self.note(what, write[2:].hex())

    def hear(self, data):
        if self.state is not State.CLOSED and self.parser_exc is None and data:
            self.receive_data(data)
            self.note_end()

    def note_end(self):
        error = self.parser_exc
        if error is None:
            return
        code = {ProtocolError: 1002, UnicodeDecodeError: 1007, PayloadTooBig: 1009}.get(type(error), repr(error))
        # The frame that was being read, or the one that was judged when it was whole.
        self.fault = self.frames - 1 if self.is_inside else self.frames
        self.entries.append(("failed", code, self.fault))
        for write in self.data_to_send():
            if write[:1] == b"\x88":
                self.entries.append(("sends close", int.from_bytes(write[2:4], "big"), self.fault))


class Server(Hearing, ServerProtocol):
    def __init__(self, case):
        super().__init__(state=State.OPEN, max_size=case.limit, logger=LOGGER)
        self.begin(deflate(case.deflate, is_server=True))

    def close_first(self, payload):
        if self.state is State.OPEN:
            code = Close.parse(payload)
            if payload:
                self.send_close(code.code, code.reason)
            else:
                self.send_close()
            self.data_to_send()
            self.entries.append(("sends close", payload.hex(), None))
            self.has_closed_first = True


class Client(Hearing, ClientProtocol):
    def __init__(self, case):
        super().__init__(parse_uri("ws://server.example.com/"), state=State.OPEN, max_size=None, logger=LOGGER)
        self.begin(deflate(case.deflate, is_server=False))

    def note_writes(self):
        self.data_to_send()


def deflate(agreed, is_server):
    """The library cannot compress with a window of 8 bits; nothing that is compared here is compressed by it."""
    if agreed is None:
        return []
    server = agreed["server_no_context_takeover"], agreed["server_max_window_bits"]
    client = agreed["client_no_context_takeover"], agreed["client_max_window_bits"]
    remote, local = (client, server) if is_server else (server, client)
    return [PerMessageDeflate(remote[0], local[0], remote[1], max(9, local[1]))]


def cut(dice, data):
    longest = dice.choice([1, 10, 100, 10_000])
    at = 0
    while at < len(data):
        size = dice.randint(1, longest)
        yield data[at : at + size]
        at += size


def converse(case, dice):
    """What `websockets` hears as the server. Where our side failed before a frame was whole, the frame goes on with zeros until
    it is: `websockets` judges most of it only then. True in the second place if it did."""
    server = Server(case)
    own = case.own_close
    before = case.input if own is None else case.input[: case.close_at]
    for piece in cut(dice, before):
        server.hear(piece)
    if own is not None:
        server.close_first(own)
        for piece in cut(dice, case.input[case.close_at :]):
            server.hear(piece)
    needs_zeros = case.failed is not None and server.parser_exc is None and server.frames == case.fault
    if needs_zeros:
        for _ in range(case.limit + 14):
            if server.frames > case.fault or server.parser_exc is not None:
                break
            server.hear(b"\0")
    return server, needs_zeros


def listen(case, dice):
    """What `websockets` hears as the client of our side."""
    client = Client(case)
    for piece in cut(dice, bytes.fromhex(case.line["sent"]["output"])):
        client.hear(piece)
    return [list(entry[:2]) for entry in client.entries]


def judge(line, seed=0):
    """The name of what conversation and answer come to, or a text that begins with DIFFERENT; and how it ended."""
    case = Case(line)
    dice = random.Random(seed)
    heard = listen(case, dice)
    if heard != line["sent"]["expected"]:
        return f"DIFFERENT as client\n  sent:   {line['sent']}\n  theirs: {heard}"
    server, needed_zeros = converse(case, dice)
    if case.ours() == server.entries:
        name = "the same"
        if needed_zeros:
            name += WHEN_WHOLE
        if server.left_out:
            name += ", but for what comes after the own Close"
        return name
    if case.is_consistent():
        for rule in RULES:
            if rule(case, server):
                return rule.__name__
    return f"DIFFERENT as server\n  theirs: {server.entries} {server.parser_exc!r}"


def plants(line, needed_zeros):
    """The line with our answer changed, once in each way that applies."""
    heard, expected = line["heard"], line["sent"]["expected"]

    def changed(change):
        other = copy.deepcopy(line)
        change(other["heard"], other["sent"]["expected"])
        return other

    if heard and not needed_zeros:
        # `websockets` does not miss a failure at a frame that is not whole.
        yield changed(lambda heard, _: heard.pop())
    if heard:
        yield changed(lambda heard, _: heard.insert(0, ["pong", "", 0, None]))
    if heard and heard[0][0] in ("text", "binary", "pong") and heard[0][1]:
        yield changed(lambda heard, _: heard[0].__setitem__(1, heard[0][1][2:]))
    for at, entry in enumerate(heard):
        if entry[0] == "failed":
            yield changed(lambda heard, _: heard[at].__setitem__(1, 1008))
        if entry[0] == "sends pong":
            yield changed(lambda heard, _: heard[at].__setitem__(1, entry[1] + "00"))
    if expected:
        yield changed(lambda _, expected: expected.pop())


def end_of(line):
    """How our side saw it end."""
    heard = [entry[0] for entry in line["heard"]]
    if "failed" in heard:
        return f"failed with {line['heard'][heard.index('failed')][1]}"
    if "close" in heard:
        return "closed by the peer" if heard[-1] == "sends close" else "closed by the server, and answered"
    return "open" if "sends close" not in heard else "closed by the server, and not answered"


def show(line, outcome):
    print(f"conversation {line['number']}: {outcome}")
    print(f"  limit {line['limit']}, {line['deflate']}, own Close {line['own_close']}")
    print(f"  the peer sends {line['input']}")
    print(f"  ours hears {line['heard']}")


def main():
    outcomes, ends = collections.Counter(), collections.Counter()
    planted = caught = different = 0
    for count, text in enumerate(sys.stdin):
        line = json.loads(text)
        outcome = judge(line, line["number"])
        if outcome.startswith("DIFFERENT"):
            different += 1
            if different <= DIFFERENT_SHOWN:
                show(line, outcome)
            continue
        if "--show" in sys.argv:
            show(line, outcome)
        outcomes[outcome] += 1
        ends[end_of(line)] += 1
        if count < PLANTED_IN and outcome.startswith("the same"):
            for other in plants(line, WHEN_WHOLE in outcome):
                planted += 1
                caught += judge(other, line["number"]).startswith("DIFFERENT")
    total = outcomes.total() + different
    print(f"{total} conversations with websockets")
    for name, number in sorted(ends.items()):
        print(f"  {number:7}  {name}")
    print("what both heard and answered:")
    for name, number in outcomes.most_common():
        print(f"  {number:7}  {name}")
    print(f"  {different:7}  different")
    print(f"changed answers that were noticed: {caught} of {planted}")
    if different or total == 0 or caught < planted:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
