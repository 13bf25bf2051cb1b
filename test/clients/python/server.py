"""Runs the real server for the tests, and holds what the tests of the Python clients share."""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest
import urllib.error
import urllib.request
import zlib

import numpy

# SERVER_BINARY tests another build than the one of `make build`, say one with the race detector.
BINARY = os.environ.get("SERVER_BINARY") or pathlib.Path(__file__).resolve().parents[3] / "bin" / "vectord"
START_LIMIT_SECONDS = 60
STOP_LIMIT_SECONDS = 10
WORDS_SIZE = 128


class Server:
    """A server on a free port with its data in a new directory."""

    def __init__(self, *options):
        self.directory = tempfile.mkdtemp(prefix="vectord-clients-")
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._output = open(os.path.join(self.directory, "output"), "w+b")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("VECTORD_")}
        self._process = subprocess.Popen(
            [
                BINARY,
                "serve",
                "--data-dir",
                os.path.join(self.directory, "data"),
                "--http",
                f"127.0.0.1:{port}",
                "--grpc",
                "",
                "--tcp",
                "",
                "--log-format",
                "json",
                *options,
            ],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )
        try:
            self._wait_until_ready()
        except BaseException:
            self._process.kill()
            self._remove()
            raise

    def _wait_until_ready(self):
        limit = time.monotonic() + START_LIMIT_SECONDS
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/readyz", timeout=5) as response:
                    response.read()
                    return
            except (urllib.error.URLError, OSError):
                pass
            if self._process.poll() is not None or time.monotonic() > limit:
                raise AssertionError(f"the server is not ready (exit status {self._process.poll()}):\n{self._said()}")
            time.sleep(0.02)

    def stop(self):
        """Fails unless the server ends cleanly and in time. Removes the data."""
        self._process.send_signal(signal.SIGTERM)
        try:
            status = self._process.wait(STOP_LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = "none in time"
        said = self._said()
        self._remove()
        if status != 0:
            raise AssertionError(f"exit status after SIGTERM: {status}; the server said:\n{said}")

    def _said(self):
        self._output.seek(0)
        return self._output.read()[-65_536:].decode(errors="replace")

    def _remove(self):
        self._process.wait()
        self._output.close()
        shutil.rmtree(self.directory, ignore_errors=True)


class ServerTest(unittest.TestCase):
    """Tests that share a server, self.server."""

    OPTIONS = ()

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.server = Server(*cls.OPTIONS)
        cls.addClassCleanup(cls.server.stop)


def embed(text):
    """Returns the vector of a text: counts of the letter triples of its words, hashed. It needs no model."""
    vector = [0.0] * WORDS_SIZE
    for word in "".join(c if c.isalpha() else " " for c in text.lower()).split():
        marked = f"^{word}$"
        for i in range(len(marked) - 2):
            vector[zlib.crc32(marked[i : i + 3].encode()) % WORDS_SIZE] += 1
    return vector


def cosine(a, b):
    a, b = numpy.asarray(a, float), numpy.asarray(b, float)
    return float(a @ b / numpy.sqrt((a @ a) * (b @ b)))
