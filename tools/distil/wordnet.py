"""WordNet's definitions, usage examples and words as texts to learn from and to be judged by (Fellbaum, 1998)."""

import os
import re
import zlib

EXAMPLE = re.compile(r'"([^"]{12,})"')


class Synset:
    def __init__(self, line):
        head, gloss = line.rstrip().split(" | ", 1)
        fields = head.split(" ")
        self.key = fields[2] + fields[0]
        count = int(fields[3], 16)
        # Adjectives carry their position in brackets: "galore(ip)".
        self.words = [re.sub(r"\(\w+\)$", "", w).replace("_", " ") for w in fields[4 : 4 + 2 * count : 2]]
        self.definition = gloss.split('; "')[0].split(' "')[0].strip(" ;")
        self.examples = EXAMPLE.findall(gloss)
        # A quarter of the synsets is kept from training: what a table is judged by, it has not seen.
        self.held_out = zlib.crc32(self.key.encode()) % 4 == 0


def synsets(folder):
    """Yields the synsets of a folder with data.noun, data.verb, data.adj and data.adv."""
    for part in ("noun", "verb", "adj", "adv"):
        with open(os.path.join(folder, "data." + part), encoding="utf-8") as f:
            for line in f:
                if not line.startswith("  "):  # the licence at the top
                    yield Synset(line)
