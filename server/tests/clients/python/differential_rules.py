"""Where wshd and `websockets` may differ: each rule says why, and holds as little as it can.

A rule is asked only where the two differ. It sees the conversation (`Case`) and the protocol of `websockets` after it
(`server`), and answers whether the difference is the one it is about. Sections are those of RFC 6455, unless RFC 7692
is named.
"""

import dataclasses
import zlib

from websockets.exceptions import PayloadTooBig, ProtocolError

FLUSH_END = b"\x00\x00\xff\xff"
EMPTY_LAST_BLOCK = b"\x03\x00"

# Of our errors; 1002 is that of all others.
CODES = {"InvalidText": 1007, "CloseReason": 1007, "InvalidDeflate": 1007, "TooBig": 1009}


@dataclasses.dataclass
class Frame:
    """As its header says; it may not be whole."""

    start: int
    end: int
    # End of the header with its mask.
    head_end: int
    first: int
    length: int
    is_minimal: bool
    payload: bytes
    # Number of the message it belongs to; None for control frames.
    message: int | None = None
    # Whether that message is compressed.
    is_compressed: bool = False

    @property
    def opcode(self):
        return self.first & 0x0F

    @property
    def is_final(self):
        return bool(self.first & 0x80)

    @property
    def is_control(self):
        return bool(self.first & 0x08)


class Case:
    """A conversation, and what our side made of it."""

    def __init__(self, line):
        self.line = line
        self.deflate, self.limit = line["deflate"], line["limit"]
        self.input = bytes.fromhex(line["input"])
        self.heard = line["heard"]
        self.failed = next((entry for entry in self.heard if entry[0] == "failed"), None)
        self.error = self.failed and self.failed[3]
        self.close_at, self.own_close = self.own()
        self.frames = list(walk(self.input))
        # The frame that was being read when our side failed.
        self.fault = None if self.failed is None else self.frame_at(self.failed[2])

    def own(self):
        """Where the server closes first and with what payload; None where the peer was faster."""
        close = self.line["own_close"]
        ends = [place for what, _, place, _ in self.heard if what in ("close", "failed")]
        if close is None or ends and ends[0] <= close["at"]:
            return None, None
        return close["at"], bytes.fromhex(close["payload"])

    def ours(self):
        """What our side heard and sent, each with the number of its frame; its own Close has none."""
        entries, before = [], None
        for what, value, place, _ in self.heard:
            is_own = what == "sends close" and before not in ("close", "failed")
            entries.append((what, value, None if is_own else self.frame_at(place)))
            before = what
        return entries

    def is_consistent(self):
        """Whether our side ends as it always does: with the code of its error, and a Close if it had sent none."""
        ends = [at for at, entry in enumerate(self.heard) if entry[0] in ("failed", "close")]
        if not ends:
            return all(entry[0] != "sends close" for entry in self.heard) or self.own_close is not None
        end, *answer = self.heard[ends[0] :]
        if end[0] == "failed" and end[1] != CODES.get(end[3], 1002):
            return False
        if self.own_close is not None:
            return answer == []
        if end[0] == "failed":
            return [entry[:2] for entry in answer] == [["sends close", end[1]]]
        # 1010 is a client's.
        expected = "" if end[1].startswith("03f2") else end[1]
        return [entry[:2] for entry in answer] == [["sends close", expected]]

    def frame_at(self, place):
        """The number of the frame in which the byte before this place is."""
        return next((number for number, frame in enumerate(self.frames) if place <= frame.end), len(self.frames))

    def heard_before(self, number):
        """What our side heard and sent before a frame began. A Close of its own has no frame."""
        start = self.frames[number].start if number < len(self.frames) else len(self.input)
        return [tuple(entry[:2]) for entry in self.heard if entry[2] <= start]

    def heard_from(self, number):
        return self.heard[len(self.heard_before(number)) :]

    def is_the_same_before(self, server, number):
        ours = self.heard_before(number)
        return ours == [entry[:2] for entry in server.entries[: len(ours)]]

    def reference(self):
        """What an inflater that takes blocks with BFINAL, and none that is cut, makes of the compressed messages: for each
        a text, or None if it cannot be inflated, after which there are no more. RFC 7692 section 7.2.2."""
        texts, history = {}, b""
        if self.deflate is None:
            return texts
        for number, parts in self.messages():
            text = inflated(b"".join(parts), history)
            texts[number] = text
            if text is None:
                break
            if not self.deflate["client_no_context_takeover"]:
                history = (history + text)[-(1 << self.deflate["client_max_window_bits"]) :]
        return texts

    def messages(self):
        """The compressed messages that are whole when our side ends: numbers and payloads of their frames."""
        parts, frames = [], self.frames
        if self.failed is not None:
            judges_messages = self.error in ("InvalidDeflate", "InvalidText", "TooBig")
            frames = frames[: self.fault + judges_messages]
        for frame in frames:
            if frame.is_compressed and frame.end <= len(self.input):
                parts.append(frame.payload)
                if frame.is_final:
                    yield frame.message, parts
                    parts = []

    def agrees_with_reference(self):
        """Whether our side heard each compressed message as the reference does, as far as it heard any."""
        texts = self.reference()
        ends = {frame.end: frame.message for frame in self.frames if frame.is_compressed and frame.is_final}
        if not any(what in ("failed", "sends close") for what, *_ in self.heard):
            # All that are whole.
            if sum(what in ("text", "binary") and place in ends for what, _, place, _ in self.heard) != len(texts):
                return False
        for what, value, place, error in self.heard:
            if what in ("text", "binary") and place in ends:
                text = texts.get(ends[place])
                if text is None or text.hex() != value:
                    return False
            if error == "InvalidDeflate" and texts.get(ends.get(place), b"") is not None:
                return False
            if error == "TooBig" and place in ends:
                text = texts.get(ends[place])
                if text is not None and len(text) <= self.limit:
                    return False
        return True


def walk(data):
    """The frames of a conversation, as far as headers can be read; whether they are right does not matter."""
    at, message, is_open, is_compressed = 0, -1, False, False
    while at < len(data):
        first, second = data[at], data[at + 1] if at + 1 < len(data) else 0
        size = {126: 2, 127: 8}.get(second & 0x7F, 0)
        length = int.from_bytes(data[at + 2 : at + 2 + size], "big") if size else second & 0x7F
        head_end = at + 2 + size + 4 * (second >> 7)
        mask = data[head_end - 4 : head_end] if second >> 7 else b"\0\0\0\0"
        payload = data[head_end : head_end + length]
        payload = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload)) if len(mask) == 4 else b""
        least = {0: 0, 2: 126, 8: 65_536}[size]
        frame = Frame(at, head_end + length, head_end, first, length, length >= least, payload)
        if not frame.is_control and (frame.opcode != 0 or is_open):
            if frame.opcode != 0:
                message += 1
                is_compressed = bool(first & 0x40)
            frame.message, frame.is_compressed, is_open = message, is_compressed, not frame.is_final
        yield frame
        at = frame.end


def inflated(payload, history):
    """None if it cannot be inflated, or ends inside a block."""
    text, rest = b"", payload
    try:
        while True:
            stream = zlib.decompressobj(wbits=-15, zdict=(history + text)[-32768:])
            text += stream.decompress(rest)
            if not stream.eof:
                break
            rest = stream.unused_data
        brought = stream.decompress(FLUSH_END)
        if stream.eof:
            # The data themselves ended in a block that what was left away completes.
            return text if not brought and not stream.unused_data else None
        brought += stream.decompress(EMPTY_LAST_BLOCK)
    except zlib.error:
        return None
    return text if stream.eof and not brought else None


def closed(entries):
    return any(what == "close" for what, *_ in entries)


def theirs_is(server, kind, text=""):
    return isinstance(server.parser_exc, kind) and text in str(server.parser_exc)


def frame_of(case, server):
    """The frame at which `websockets` failed; None if there is none."""
    fault = getattr(server, "fault", None)
    return None if fault is None or fault >= len(case.frames) else case.frames[fault]


def is_in_the_message_of(case, server):
    """Whether ours heard nothing but control frames from where `websockets` failed to the end of that message, and went no
    further."""
    frame = frame_of(case, server)
    if frame is None or not case.is_the_same_before(server, server.fault):
        return False
    later = case.heard_from(server.fault)
    if any(what in ("text", "binary") for what, *_ in later):
        return False
    rest = case.frames[server.fault :]
    last = next((other.end for other in rest if not other.is_control and other.is_final), len(case.input))
    if case.own_close is not None and case.close_at < last:
        # Then our side does not read the message.
        return True
    has_ended = case.failed is not None or last >= len(case.input) or closed(later)
    return has_ended and all(place <= last for _, _, place, _ in later)


def first_message_with_bfinal(case):
    texts, history = case.reference(), b""
    if case.deflate is None:
        return None
    for number, parts in case.messages():
        stream = zlib.decompressobj(wbits=-15, zdict=history[-32768:])
        try:
            stream.decompress(b"".join(parts) + FLUSH_END)
        except zlib.error:
            return None
        if stream.eof:
            return number
        history += texts.get(number) or b""
    return None


# ---- the rules


def a_length_that_is_not_minimal(case, server):
    """Section 5.2: the minimal number of bytes MUST be used. Ours fails with 1002; `websockets` takes the frame, or names
    its size."""
    if case.error not in ("LengthNotMinimal", "LongControl") or case.frames[case.fault].is_minimal:
        return False
    return case.is_the_same_before(server, case.fault)


def a_control_frame_counted_as_part_of_the_message(case, server):
    """Section 5.4: control frames may come inside a message. `websockets` holds them to the room that is left for the
    message, and fails with 1009; ours takes them."""
    frame = frame_of(case, server)
    if frame is None or not theirs_is(server, PayloadTooBig) or not frame.is_control or frame.length > 125:
        return False
    if frame.length <= case.limit - (server.current_size or 0) or not case.is_the_same_before(server, server.fault):
        return False
    # What our side hears once it has sent Close is an answer.
    is_closing = case.own_close is not None and case.close_at < frame.end
    if frame.end > len(case.input) or is_closing and frame.opcode != 0x8:
        return case.fault is None or case.fault > server.fault
    if case.fault == server.fault:
        return case.error in ("CloseCode", "CloseReason")
    what = {0x8: "close", 0x9: "ping", 0xA: "pong"}.get(frame.opcode)
    heard = [entry[:2] for entry in case.heard_from(server.fault) if entry[2] == frame.end]
    return [what, frame.payload.hex()] in heard


def a_close_inside_a_message(case, server):
    """Section 5.4: control frames may come inside a message. `websockets` fails with 1002 for a Close there; ours closes."""
    if not theirs_is(server, ProtocolError, "incomplete fragmented message"):
        return False
    frame = case.frames[server.fault]
    is_heard = ["close", frame.payload.hex(), frame.end, None] in case.heard
    return is_heard and case.is_the_same_before(server, server.fault)


def two_faults_in_one_frame(case, server):
    """Section 7.4.1 gives each fault its code, and no order. Of a header that is wrong and announces too much, ours names
    the fault and `websockets` the size; of a Close with a forbidden code and a reason that is not UTF-8, ours names the
    code and `websockets` the reason; of a compressed message that is too long and cannot be inflated, each names what
    it meets first."""
    frame = frame_of(case, server)
    if frame is None or case.failed is None or case.fault != server.fault:
        return False
    if not case.is_the_same_before(server, case.fault):
        return False
    if case.error == "TooBig" and frame.is_compressed:
        return case.reference().get(frame.message, b"") is None
    if case.failed[1] != 1002:
        return False
    if theirs_is(server, PayloadTooBig):
        room = case.limit - (server.current_size or 0)
        return frame.length > room or frame.is_compressed
    if theirs_is(server, UnicodeDecodeError) and case.error == "CloseCode":
        try:
            frame.payload[2:].decode()
        except UnicodeDecodeError:
            return True
    return False


def data_that_cannot_be_inflated(case, server):
    """No RFC names the code for it. Ours fails with 1007, which is for data that are not what their type promises, when the
    message is whole; `websockets` with 1002, as soon as the frame is whole."""
    if not theirs_is(server, ProtocolError, "decompression failed") or case.error != "InvalidDeflate":
        return False
    return is_in_the_message_of(case, server) and case.agrees_with_reference()


def a_message_judged_before_it_is_whole(case, server):
    """RFC 7692 section 6.2 inflates a message; frames need not be inflated one by one. `websockets` does, and fails in the
    middle of the message; ours goes on until it is whole, fails for something else before, or hears no more of it."""
    frame = frame_of(case, server)
    if frame is None or not theirs_is(server, (ProtocolError, PayloadTooBig)) or not frame.is_compressed:
        return False
    if theirs_is(server, ProtocolError) and not theirs_is(server, ProtocolError, "decompression failed"):
        return False
    return is_in_the_message_of(case, server)


def a_compressed_message_longer_than_its_text(case, server):
    """Section 10.4 leaves limits to the server. `websockets` holds the compressed bytes of a frame to the limit of the
    text; ours lets them be an eighth longer, because compression can make a message longer."""
    frame = frame_of(case, server)
    if frame is None or not theirs_is(server, PayloadTooBig) or not frame.is_compressed:
        return False
    room = case.limit - (server.current_size or 0)
    return frame.length > room and case.is_the_same_before(server, server.fault) and case.agrees_with_reference()


def a_compressed_message_far_longer_than_its_text(case, server):
    """Section 10.4 again: ours lets all compressed bytes of a message be an eighth and 64 bytes more than the limit, and
    no more; `websockets` counts those of each frame alone."""
    if case.error != "TooBig" or case.fault >= len(case.frames) or not case.frames[case.fault].is_compressed:
        return False
    message = case.frames[case.fault].message
    sizes = [frame.length for frame in case.frames[: case.fault + 1] if frame.message == message]
    return sum(sizes) > case.limit + case.limit // 8 + 64 and case.is_the_same_before(server, case.fault)


def data_cut_inside_a_block(case, server):
    """RFC 7692 section 7.2.1: what is left away is an empty block, so a message ends between two blocks. Ours fails with
    1007 where it does not, or with 1009 where too much came out first; `websockets` takes what came out as the message."""
    if not case.agrees_with_reference():
        return False
    if case.error == "TooBig":
        if case.fault >= len(case.frames) or case.reference().get(case.frames[case.fault].message, b"") is not None:
            return False
    elif case.error != "InvalidDeflate":
        return False
    return case.is_the_same_before(server, case.fault)


def a_block_with_bfinal(case, server):
    """RFC 7692 section 7.2.3.4: a message may have blocks with BFINAL, and goes on behind them. `websockets` reads nothing
    behind one, neither of the message nor of those that refer to it."""
    number = first_message_with_bfinal(case)
    if number is None or not case.agrees_with_reference():
        return False
    start = next(at for at, frame in enumerate(case.frames) if frame.message == number)
    ours, theirs = case.ours(), server.entries
    at = next(at for at in range(len(ours) + 1) if ours[at : at + 1] != theirs[at : at + 1])
    different = [entry[2] for entry in ours[at : at + 1] + theirs[at : at + 1] if entry[2] is not None]
    is_compressed = any(place < len(case.frames) and case.frames[place].is_compressed for place in different)
    return is_compressed and case.is_the_same_before(server, start)


def a_reference_further_back_than_agreed(case, server):
    """RFC 7692 section 7.1.2.2 binds the client. Ours lets one message refer to all of itself, and to no more of what was
    before than agreed; `websockets` holds each frame of it to the window."""
    cause = getattr(server.parser_exc, "__cause__", None)
    if not theirs_is(server, ProtocolError, "decompression failed") or "too far back" not in str(cause):
        return False
    return case.is_the_same_before(server, server.fault) and case.agrees_with_reference()


def half_a_surrogate_at_the_end_of_a_frame(case, server):
    """Section 8.1: no text goes on after ED and A0 to BF. Ours fails at the second byte; Python's decoder, which decodes
    frame by frame here, waits for the third."""
    if case.error != "InvalidText" or case.fault >= len(case.frames):
        return False
    frame = case.frames[case.fault]
    parts = [other.payload for other in case.frames[: case.fault + 1] if other.message == frame.message]
    end = b"".join(parts)[-2:]
    is_half = len(end) == 2 and end[0] == 0xED and 0xA0 <= end[1] <= 0xBF
    later = [entry[0] for entry in server.entries if entry[2] is not None and entry[2] >= case.fault]
    return is_half and "text" not in later and "binary" not in later and case.is_the_same_before(server, case.fault)


def a_size_judged_before_the_mask(case, server):
    """Section 5.2: the length is known before the mask has come. `websockets` fails then; ours when the header is whole."""
    frame = frame_of(case, server)
    if frame is None or not theirs_is(server, PayloadTooBig) or not case.is_the_same_before(server, server.fault):
        return False
    is_cut = case.failed is None and len(case.input) < frame.head_end
    return is_cut or case.own_close is not None and frame.start < case.close_at < frame.head_end


def what_comes_after_the_own_close(case, server):
    """Section 5.5.1, and HTML5's rule for CLOSING: ours throws messages away unread once it has sent Close; `websockets`
    reads them, and fails for what it finds."""
    frame = frame_of(case, server)
    if frame is None or not server.has_closed_first or frame.end <= case.close_at or frame.is_control:
        return False
    is_small = frame.length <= case.limit or frame.is_compressed
    is_payload = theirs_is(server, PayloadTooBig) and is_small or theirs_is(server, ProtocolError, "decompression failed")
    return is_payload and case.is_the_same_before(server, server.fault)


def a_code_that_only_clients_send(case, server):
    """Section 7.4.1: 1010 is for clients. Ours answers it with an empty Close; `websockets` sends it back."""
    if case.failed is not None or len(case.heard) < 2 or not closed(case.heard):
        return False
    ours, theirs = [entry[:2] for entry in case.ours()], [entry[:2] for entry in server.entries]
    if not ours[-2][1].startswith("03f2") or ours[:-1] != theirs[:-1]:
        return False
    return ours[-1] == ("sends close", "") and theirs[-1] == ("sends close", ours[-2][1])


# In the order in which they are asked: those that hold least come first.
RULES = [
    a_code_that_only_clients_send,
    a_length_that_is_not_minimal,
    a_control_frame_counted_as_part_of_the_message,
    a_close_inside_a_message,
    two_faults_in_one_frame,
    half_a_surrogate_at_the_end_of_a_frame,
    a_size_judged_before_the_mask,
    a_compressed_message_longer_than_its_text,
    a_compressed_message_far_longer_than_its_text,
    data_that_cannot_be_inflated,
    data_cut_inside_a_block,
    a_block_with_bfinal,
    a_reference_further_back_than_agreed,
    a_message_judged_before_it_is_whole,
    what_comes_after_the_own_close,
]
