"""The teacher: all-MiniLM-L6-v2 under onnxruntime.

A BERT encoder of 6 layers and 384 components (Wang et al., MiniLM, NeurIPS 2020; Reimers and Gurevych, Sentence-BERT, EMNLP
2019). The vector of a text is the mean of the last layer over its tokens.
"""

import hashlib
import os
import zipfile

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

WEIGHTS_SHA256 = "759c3cd2b7fe7e93933ad23c4c9181b7396442a2ed746ec7c1d46192c469c46e"
TOKENS_MAX = 256  # the model's own bound for a text
BATCH_TOKENS = 4096


class MiniLM:
    """Reads the model out of the jar of langchain4j that carries it. Uses as many threads as OMP_NUM_THREADS, or one."""

    def __init__(self, jar):
        with zipfile.ZipFile(jar) as z:
            weights = z.read("all-minilm-l6-v2.onnx")
            tokenizer = z.read("all-minilm-l6-v2-tokenizer.json")
        if (found := hashlib.sha256(weights).hexdigest()) != WEIGHTS_SHA256:
            raise SystemExit(f"{jar}: weights have SHA-256 {found}, not {WEIGHTS_SHA256}")
        self.tokenizer = Tokenizer.from_str(tokenizer.decode())
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(TOKENS_MAX)
        ids = self.tokenizer.get_vocab()
        self.vocab = sorted(ids, key=ids.get)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
        self.session = onnxruntime.InferenceSession(weights, options)

    def embed(self, texts):
        """Returns the normalised vectors of texts, float32 of shape (texts, 384)."""
        means = self.means([e.ids for e in self.tokenizer.encode_batch(list(texts))])
        return means / np.linalg.norm(means, axis=1, keepdims=True)

    def means(self, sequences):
        """Returns the means of the last layer over sequences of token ids, [CLS] and [SEP] among them."""
        out = np.empty((len(sequences), 384), np.float32)
        # Sequences of one length go together, so that nothing is padded and nothing has to be masked.
        by_length = {}
        for i, ids in enumerate(sequences):
            by_length.setdefault(len(ids), []).append(i)
        for length, rows in sorted(by_length.items()):
            step = max(1, BATCH_TOKENS // length)
            for at in range(0, len(rows), step):
                batch = rows[at : at + step]
                ids = np.array([sequences[i] for i in batch], np.int64)
                inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
                out[batch] = self.session.run(None, inputs)[0].mean(axis=1)
        return out
