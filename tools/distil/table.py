"""The file of a table of token vectors, as internal/embed/static.go describes it."""

import os
import struct

import numpy as np

MAGIC = b"vdEmbed\x01"
HEADER = struct.Struct("<8s5I")


def crc32c(data):
    """CRC-32C (Castagnoli), which the standard library does not have: a few seconds for a table."""
    table = []
    for n in range(256):
        for _ in range(8):
            n = n >> 1 ^ 0x82F63B78 * (n & 1)
        table.append(n)
    crc = 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def write(path, vocab, unknown, rows):
    """Writes rows, float32 of shape (tokens, dim), as bytes with a scale each."""
    order = sorted(range(len(vocab)), key=lambda i: vocab[i].encode())
    words, last = bytearray(), b""
    for i in order:
        token = vocab[i].encode()
        shared = len(os.path.commonprefix([last, token]))
        words += bytes([shared, len(token) - shared]) + token[shared:]
        last = token
    rows = rows[order]
    scales = (np.abs(rows).max(axis=1) / 127).astype("<f4")
    codes = np.rint(rows / np.maximum(scales, 1e-30)[:, None]).astype(np.int8)
    body = HEADER.pack(MAGIC, 0, rows.shape[1], len(vocab), order.index(vocab.index(unknown)), len(words))[12:]
    body += bytes(words) + scales.tobytes() + codes.tobytes()
    with open(path, "wb") as f:
        f.write(MAGIC + struct.pack("<I", crc32c(body)) + body)


class Table:
    """A table that embeds as the server does, by the tokens of a tokenizer with the same vocabulary."""

    def __init__(self, path, tokenizer):
        with open(path, "rb") as f:
            data = f.read()
        _, _, dim, count, self.unknown, size = HEADER.unpack_from(data)
        at, end, vocab = HEADER.size, HEADER.size + size, []
        last = b""
        while at < end:
            shared, rest = data[at], data[at + 1]
            last = last[:shared] + data[at + 2 : at + 2 + rest]
            vocab.append(last.decode())
            at += 2 + rest
        scales = np.frombuffer(data, "<f4", count, end)
        codes = np.frombuffer(data, np.int8, count * dim, end + 4 * count).reshape(count, dim)
        self.rows = codes * scales[:, None]
        self.row_of = {token: row for row, token in enumerate(vocab)}
        self.tokenizer = tokenizer

    def tokens(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False).tokens

    def embed(self, texts):
        """Returns the normalised vectors of texts, float32."""
        out = np.empty((len(texts), self.rows.shape[1]), np.float32)
        for i, text in enumerate(texts):
            rows = [self.row_of[t] for t in self.tokens(text) if t != "[UNK]"] or [self.unknown]
            out[i] = self.rows[rows].sum(axis=0)
        return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)
