"""langchain-qdrant against a real server. What is found is compared with a look at every document."""

import unittest
import uuid

import numpy
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_qdrant import QdrantVectorStore, RetrievalMode, SparseEmbeddings, SparseVector
from langchain_qdrant.qdrant import QdrantVectorStoreError
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

from server import ServerTest, WORDS_SIZE, cosine, embed

NOTES = {
    "The kettle whistles when the water boils.": {"room": "kitchen", "page": 1},
    "A sharp knife is safer than a blunt one.": {"room": "kitchen", "page": 2},
    "Boiling water softens the dried mushrooms.": {"room": "kitchen", "page": 3},
    "The saw hangs beside the hammer.": {"room": "workshop", "page": 4},
    "Oil the hinges of the workshop door each spring.": {"room": "workshop", "page": 5},
    "Sharpen the chisel before you sharpen the plane.": {"room": "workshop", "page": 6},
    "The lamp over the desk flickers.": {"room": "study", "page": 7},
    "Books about gardens stand on the lower shelf.": {"room": "study", "page": 8},
}


class LetterTriples(Embeddings):
    def embed_documents(self, texts):
        return [embed(text) for text in texts]

    def embed_query(self, text):
        return embed(text)


class Letters(SparseEmbeddings):
    """Counts of letters, those that are there."""

    def embed_documents(self, texts):
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text):
        letters = sorted({c for c in text.lower() if c.isalpha()})
        return SparseVector(indices=[ord(c) for c in letters], values=[float(text.lower().count(c)) for c in letters])


def letters_score(query, text):
    return float(sum(query.lower().count(c) * text.lower().count(c) for c in set(query.lower()) if c.isalpha()))


def room(name):
    return models.Filter(must=[models.FieldCondition(key="metadata.room", match=models.MatchValue(value=name))])


class LangChain(ServerTest):
    names = 0

    def filled(self, **options):
        LangChain.names += 1
        store = QdrantVectorStore.from_texts(
            list(NOTES),
            LetterTriples(),
            metadatas=list(NOTES.values()),
            url=self.server.url,
            collection_name=f"notes-{self.names}",
            check_compatibility=False,
            **options,
        )
        self.addCleanup(store.client.close)
        return store

    def expected(
        self, query, k, passes=lambda metadata: True, score=lambda query, text: cosine(embed(query), embed(text))
    ):
        scored = [(text, score(query, text)) for text, metadata in NOTES.items() if passes(metadata)]
        return sorted(scored, key=lambda pair: -pair[1])[:k]

    def assert_found(self, found, expected):
        self.assertEqual([document.page_content for document, _ in found], [text for text, _ in expected])
        numpy.testing.assert_allclose(
            [score for _, score in found], [score for _, score in expected], rtol=1e-5, atol=1e-6
        )
        for document, _ in found:
            wanted = NOTES.get(document.page_content)
            self.assertEqual({key: document.metadata[key] for key in wanted}, wanted)

    def test_search(self):
        store = self.filled()
        for query in ("boiling water", "sharpening a knife", "a book on the shelf"):
            self.assert_found(store.similarity_search_with_score(query, k=3), self.expected(query, 3))
            self.assert_found(store.similarity_search_with_score_by_vector(embed(query), k=3), self.expected(query, 3))
            for document in store.similarity_search(query, k=3):
                self.assertEqual(document.metadata["_collection_name"], store.collection_name)
                self.assertEqual(str(uuid.UUID(document.metadata["_id"])), document.metadata["_id"])
            self.assertEqual(
                [d.page_content for d in store.similarity_search_by_vector(embed(query), k=2)],
                [t for t, _ in self.expected(query, 2)],
            )
            shares = store.similarity_search_with_relevance_scores(query, k=3)
            self.assert_found(shares, [(text, (score + 1) / 2) for text, score in self.expected(query, 3)])

    def test_filter_offset_and_threshold(self):
        store = self.filled()
        workshop = self.expected("sharp", 8, lambda metadata: metadata["room"] == "workshop")
        self.assert_found(store.similarity_search_with_score("sharp", k=8, filter=room("workshop")), workshop)
        every = self.expected("sharp knife of the kitchen", 8)
        self.assert_found(store.similarity_search_with_score("sharp knife of the kitchen", k=2, offset=2), every[2:4])
        threshold = (every[2][1] + every[3][1]) / 2
        self.assert_found(
            store.similarity_search_with_score("sharp knife of the kitchen", k=8, score_threshold=threshold), every[:3]
        )
        exact = models.SearchParams(exact=True)
        self.assert_found(
            store.similarity_search_with_score("sharp knife of the kitchen", k=3, search_params=exact), every[:3]
        )

    def test_mmr(self):
        store = self.filled()
        query = "boiling water in the kitchen"
        vectors = {text: embed(text) for text in NOTES}

        def chosen(k, diversity, candidates):
            left = [text for text, _ in self.expected(query, candidates)]
            picked = [left.pop(0)]
            while len(picked) < k and left:
                worth = [
                    (1 - diversity) * cosine(embed(query), vectors[text])
                    - diversity * max(cosine(vectors[text], vectors[other]) for other in picked)
                    for text in left
                ]
                picked.append(left.pop(int(numpy.argmax(worth))))
            return picked

        for options, wanted in (
            ({"k": 4}, chosen(4, 0.5, 20)),
            ({"k": 4, "lambda_mult": 0.9}, chosen(4, 0.9, 20)),
            ({"k": 3, "lambda_mult": 0.1, "fetch_k": 5}, chosen(3, 0.1, 5)),
        ):
            self.assertEqual(
                [document.page_content for document in store.max_marginal_relevance_search(query, **options)], wanted
            )

    def test_sparse(self):
        store = self.filled(
            retrieval_mode=RetrievalMode.SPARSE, sparse_embedding=Letters(), sparse_vector_name="letters"
        )
        for query in ("zebra whisk", "gable"):
            expected = [pair for pair in self.expected(query, 8, score=letters_score) if pair[1] > 0]
            found = store.similarity_search_with_score(query, k=8)
            scores = dict(expected)
            self.assertEqual([score for _, score in found], [score for _, score in expected])
            for document, score in found:
                self.assertEqual(score, scores[document.page_content])

    def test_hybrid(self):
        store = self.filled(
            retrieval_mode=RetrievalMode.HYBRID,
            sparse_embedding=Letters(),
            vector_name="dense",
            sparse_vector_name="letters",
        )
        query = "a kettle of boiling water"
        order = self.expected(query, 8, score=letters_score)
        self.assertEqual(len({score for _, score in order}), len(order))  # so that the order has one meaning
        shares = {text: 0.0 for text in NOTES}
        for ranking in (self.expected(query, 8), order):
            for i, (text, _) in enumerate(ranking):
                shares[text] += 1 / (i + 2)
        found = store.similarity_search_with_score(query, k=8)
        self.assertEqual(sorted((score for _, score in found), reverse=True), [score for _, score in found])
        for document, score in found:
            self.assertAlmostEqual(score, shares[document.page_content], places=5)
        self.assertEqual(len(found), 8)
        fused = store.similarity_search_with_score(
            query, k=3, hybrid_fusion=models.FusionQuery(fusion=models.Fusion.DBSF)
        )
        self.assertEqual(len(found[:3]), len(fused))

    def test_add_get_and_delete(self):
        store = self.filled()
        ids = store.add_documents(
            [
                Document(page_content="A rake leans on the fence.", metadata={"room": "garden"}),
                Document(page_content="A spade."),
            ]
        )
        one, two = store.get_by_ids(ids)
        self.assertEqual({one.page_content, two.page_content}, {"A rake leans on the fence.", "A spade."})
        store.add_texts(["A rake lies in the grass."], [{"room": "garden"}], ids=[ids[0]])
        garden = store.similarity_search("rake", k=10, filter=room("garden"))
        self.assertEqual(
            [(d.page_content, d.metadata["_id"]) for d in garden],
            [("A rake lies in the grass.", str(uuid.UUID(ids[0])))],
        )
        self.assertTrue(store.delete(ids))
        self.assertEqual(store.get_by_ids(ids), [])
        self.assertEqual(store.client.count(store.collection_name).count, len(NOTES))
        store.add_texts([f"number {i}" for i in range(150)], ids=list(range(150)), batch_size=64)
        self.assertEqual(store.client.count(store.collection_name).count, len(NOTES) + 150)

    def test_existing_collections(self):
        store = self.filled()
        again = QdrantVectorStore.from_existing_collection(
            collection_name=store.collection_name,
            embedding=LetterTriples(),
            url=self.server.url,
            check_compatibility=False,
        )
        self.addCleanup(again.client.close)
        self.assert_found(again.similarity_search_with_score("boiling water", k=3), self.expected("boiling water", 3))
        client = QdrantClient(url=self.server.url, check_compatibility=False)
        self.addCleanup(client.close)
        with self.assertRaises(UnexpectedResponse):
            QdrantVectorStore(client, "nowhere", LetterTriples())
        with self.assertRaisesRegex(QdrantVectorStoreError, "128 dimensions"):

            class Short(LetterTriples):
                def embed_documents(self, texts):
                    return [[1.0, 2.0] for _ in texts]

            QdrantVectorStore(client, store.collection_name, Short())
        with self.assertRaises(QdrantVectorStoreError):
            QdrantVectorStore(client, store.collection_name, LetterTriples(), vector_name="dense")
        with self.assertRaises(QdrantVectorStoreError):
            QdrantVectorStore(client, store.collection_name, LetterTriples(), distance=models.Distance.EUCLID)
        anew = QdrantVectorStore.from_texts(
            ["only this"],
            LetterTriples(),
            url=self.server.url,
            collection_name=store.collection_name,
            force_recreate=True,
            distance=models.Distance.DOT,
            check_compatibility=False,
        )
        self.addCleanup(anew.client.close)
        [(document, score)] = anew.similarity_search_with_score("this", k=5)
        self.assertEqual(
            (document.page_content, score), ("only this", float(numpy.dot(embed("this"), embed("only this"))))
        )
        self.assertEqual(client.get_collection(store.collection_name).config.params.vectors.size, WORDS_SIZE)

    def test_retriever(self):
        store = self.filled()
        found = store.as_retriever(search_kwargs={"k": 2, "filter": room("kitchen")}).invoke("boiling water")
        self.assertEqual(
            [d.page_content for d in found],
            [t for t, _ in self.expected("boiling water", 2, lambda m: m["room"] == "kitchen")],
        )


if __name__ == "__main__":
    unittest.main()
