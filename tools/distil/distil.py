#!/usr/bin/env python3
"""Makes the table of internal/embed out of all-MiniLM-L6-v2. See README.md.

    distil.py JAR WORDNET WORK OUT

JAR carries the model, WORDNET is the folder with data.noun and its like, WORK is a folder where what the model said is kept
between runs, OUT is the file to write. The vectors that internal/embed is tested by are written to OUT's name with .json.
"""

import hashlib
import json
import os
import sys

import numpy as np
import scipy.sparse

import table
import wordnet
from minilm import MiniLM

DIM = 256
SIF = 3e-4  # Arora et al., ICLR 2017: the frequency at which a token's weight is half
RIDGE = 0.03
ROUNDS = 20  # of conjugate gradients
SPECIAL = {"[PAD]", "[CLS]", "[SEP]", "[MASK]"}
FIRST_CHARACTER, FIRST_WORD = 999, 1996  # in BERT's vocabulary: unused entries, characters, then words by frequency

GOLDEN = [
    "The quick brown fox jumps over the lazy dog.",
    "when may I release the new version?",
    "Naïve café, façade; ÅNGSTRÖM İstanbul ŒUVRE straße ΣΊΣΥΦΟΣ",
    "don't  e-mail\tfoo_bar@example.com\u00a0$3.50+tax~`^|<x>=y",
    "東京タワーと日本語 한국어 中文字符 \uf900\U00020000",
    "\u200bzero\u00adwidth\x00and\x0bcontrol\u2028line\ufffdreplacement",
    "antidisestablishmentarianism electroencephalography qqqqqqqqqqqqqq " + "x" * 100 + " " + "x" * 101,
    "☃ snowman 🎉 party ½ ² ﬁne Ⅷ",
    "हिन्दी भाषा ภาษาไทย עִבְרִית العَرَبِيَّة",
    "¿Qué? «oui» „ja“ … — – 、。",
    "[CLS] ##ing [UNK]ed",
]


def main(jar, folder, work, out):
    teacher = MiniLM(jar)
    os.makedirs(work, exist_ok=True)

    # 1. What the model says of every token by itself.
    alone = kept(work, teacher.vocab, lambda: teacher.means([[101, i, 102] for i in range(len(teacher.vocab))]))

    # 2. What it says of sentences: definitions and examples of three quarters of WordNet's synsets.
    seen = [s for s in wordnet.synsets(folder) if not s.held_out]
    texts = list(dict.fromkeys([s.definition for s in seen] + [e for s in seen for e in s.examples]))
    said = kept(work, texts, lambda: teacher.embed(texts))

    # 3. The 256 directions that the sentences' vectors need most. The mean is left in: it is part of every similarity.
    directions = np.linalg.eigh((said.T @ said).astype(np.float64))[1][:, ::-1][:, :DIM].astype(np.float32)
    goal = said @ directions

    # 4. Where to start, and where tokens stay that no sentence has: the model2vec idea. A token's own vector, less the mean,
    # weighted by frequency, which Zipf's law gives from the place in the vocabulary. Characters stand before the words
    # there, but only those of ASCII are frequent.
    start = (alone - alone[FIRST_CHARACTER:].mean(axis=0)) @ directions
    rank = np.arange(len(alone)) - float(FIRST_WORD) + 2
    rank[:FIRST_WORD] = 2000
    rank[FIRST_CHARACTER : FIRST_CHARACTER + 65] = 2
    frequency = 1 / rank / (1 / rank).sum()
    start *= (SIF / (SIF + frequency))[:, None].astype(np.float32)

    # 5. The table whose means come closest to what the model says, while it stays near its start: ridge regression.
    means = token_means(teacher, texts)
    guess = means @ start
    start *= (guess * goal).sum() / (guess * guess).sum()
    rows = ridge(means, goal, start)

    keep = [i for i, t in enumerate(teacher.vocab) if t not in SPECIAL and not t.startswith("[unused")]
    table.write(out, [teacher.vocab[i] for i in keep], "[UNK]", rows[keep])

    teacher.tokenizer.no_truncation()
    model = table.Table(out, plain(teacher.tokenizer))
    golden = [
        {"text": t, "tokens": model.tokens(t), "vector": [round(float(x), 7) for x in v[:8]]}
        for t, v in zip(GOLDEN, model.embed(GOLDEN))
    ]
    with open(out + ".json", "w", encoding="utf-8") as f:
        f.write("[\n" + ",\n".join(json.dumps(g, ensure_ascii=True) for g in golden) + "\n]\n")


def kept(work, texts, make):
    """What make says of texts, from the folder work if it was made before. Half precision is enough for a table of bytes."""
    path = os.path.join(work, hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16] + ".npy")
    if not os.path.exists(path):
        np.save(path, make().astype(np.float16))
    return np.load(path).astype(np.float32)


def plain(tokenizer):
    """A copy without the special tokens, which are ordinary words where a text has them."""
    parsed = json.loads(tokenizer.to_str())
    parsed["added_tokens"] = []
    return type(tokenizer).from_str(json.dumps(parsed))


def token_means(teacher, texts):
    """The matrix that takes a table to the means of texts: a row for each text, a column for each token."""
    unknown = teacher.vocab.index("[UNK]")
    ids = [[t for t in e.ids if t != unknown] or [unknown] for e in teacher.tokenizer.encode_batch(texts, add_special_tokens=False)]
    columns = np.concatenate(ids)
    starts = np.cumsum([0] + [len(s) for s in ids])
    values = np.concatenate([np.full(len(s), 1 / len(s), np.float32) for s in ids])
    matrix = scipy.sparse.csr_matrix((values, columns, starts), shape=(len(texts), len(teacher.vocab)))
    matrix.sum_duplicates()
    return matrix


def ridge(means, goal, start):
    """Minimises |means·T - goal|² + RIDGE·|T - start|² over T, by conjugate gradients on all columns at once."""
    back = means.T.tocsr()
    scale = 1 / (np.asarray(back.multiply(back).sum(axis=1)).ravel() + RIDGE)[:, None]  # Jacobi
    change = np.zeros_like(start)
    residual = back @ (goal - means @ start)
    step = scale * residual
    length = (residual * step).sum(axis=0)
    for _ in range(ROUNDS):
        image = back @ (means @ step) + np.float32(RIDGE) * step
        along = length / (step * image).sum(axis=0)
        change += along * step
        residual -= along * image
        scaled = scale * residual
        before, length = length, (residual * scaled).sum(axis=0)
        step = scaled + length / before * step
    return start + change


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    main(*sys.argv[1:])
