"""qdrant-client against a real server.

The client has an implementation of its own, in the memory of the process, that looks at every point. Most tests ask it and
the server the same and compare what they say; what it does otherwise, or not at all, is compared with values computed here.
"""

import asyncio
import datetime
import hashlib
import itertools
import os
import threading
import unittest
import urllib.request
import uuid
import warnings

import numpy
from qdrant_client import AsyncQdrantClient, QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

from server import ServerTest

SIZE = 8
COUNT = 150
TOLERANCE = 1e-4  # relative; the client's own implementation computes with float32

VECTORS = {
    "text": models.VectorParams(size=SIZE, distance=models.Distance.COSINE),
    "image": models.VectorParams(size=4, distance=models.Distance.EUCLID),
    "sound": models.VectorParams(size=4, distance=models.Distance.DOT),
    "taste": models.VectorParams(size=4, distance=models.Distance.MANHATTAN),
    "lines": models.VectorParams(
        size=4,
        distance=models.Distance.COSINE,
        multivector_config=models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM),
    ),
}
SPARSE_VECTORS = {
    "words": models.SparseVectorParams(),
    "terms": models.SparseVectorParams(modifier=models.Modifier.IDF),
}


def numbers(random, *shape):
    return random.uniform(-1, 1, shape).astype(numpy.float32).tolist()


def sparse(random):
    indices = [i for i in range(0, 84, 7) if random.random() < 0.4] or [0]
    return models.SparseVector(indices=indices, values=[float(numpy.float32(random.uniform(0.1, 1))) for _ in indices])


def some_points(seed, count=COUNT):
    random = numpy.random.default_rng(seed)
    points = []
    for i in range(count):
        words = sparse(random)
        payload = {
            "number": i,
            "price": (i * 37) % 101 / 4,
            "colour": ["red", "green", "blue", "black"][i % 4],
            "tags": ["a", "b", "c"][: i % 4],
            "made": (
                datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc) + datetime.timedelta(days=i)
            ).isoformat(),
            "place": {"lat": 50 + i / 100, "lon": 10 - i / 50},
            "text": f"the quick brown fox number {i}" if i % 2 else f"a slow brown bear number {i}",
            "parts": [{"name": "x", "size": i % 5}, {"name": "y", "size": i % 7}],
            "good": i % 3 == 0,
        }
        if i % 10 == 0:
            payload["rare"] = None
        vector = {
            "text": numbers(random, SIZE),
            "image": numbers(random, 4),
            "sound": numbers(random, 4),
            "taste": numbers(random, 4),
            "lines": numbers(random, 1 + i % 3, 4),
            "words": words,
            "terms": words,
        }
        points.append(models.PointStruct(id=i + 1, vector=vector, payload=payload))
    return points


def must(*conditions):
    return models.Filter(must=list(conditions))


def is_value(key, value):
    return models.FieldCondition(key=key, match=models.MatchValue(value=value))


FILTERS = {
    "value": must(is_value("colour", "red")),
    "bool": must(is_value("good", True)),
    "any": must(models.FieldCondition(key="colour", match=models.MatchAny(any=["red", "blue", "none"]))),
    "except": must(models.FieldCondition(key="number", match=models.MatchExcept(**{"except": [1, 2, 3]}))),
    "range": must(models.FieldCondition(key="price", range=models.Range(gt=2.5, lte=20))),
    "dates": must(
        models.FieldCondition(
            key="made",
            range=models.DatetimeRange(
                gte=datetime.datetime(2024, 2, 1, tzinfo=datetime.timezone.utc), lt=datetime.date(2024, 4, 1)
            ),
        )
    ),
    "text": must(models.FieldCondition(key="text", match=models.MatchText(text="quick"))),
    "box": must(
        models.FieldCondition(
            key="place",
            geo_bounding_box=models.GeoBoundingBox(
                top_left=models.GeoPoint(lat=51.005, lon=8.105), bottom_right=models.GeoPoint(lat=50.205, lon=9.505)
            ),
        )
    ),
    "radius": must(
        models.FieldCondition(
            key="place", geo_radius=models.GeoRadius(center=models.GeoPoint(lat=50.5, lon=9), radius=30_000)
        )
    ),
    "polygon": must(
        models.FieldCondition(
            key="place",
            geo_polygon=models.GeoPolygon(
                exterior=models.GeoLineString(
                    points=[
                        models.GeoPoint(lat=lat, lon=lon)
                        for lat, lon in [(50.1, 7), (50.1, 9.9), (51.3, 9.9), (51.3, 7), (50.1, 7)]
                    ]
                )
            ),
        )
    ),
    "count": must(models.FieldCondition(key="tags", values_count=models.ValuesCount(gte=2))),
    "empty": must(models.IsEmptyCondition(is_empty=models.PayloadField(key="tags"))),
    "null": must(models.IsNullCondition(is_null=models.PayloadField(key="rare"))),
    "ids": must(models.HasIdCondition(has_id=[1, 7, 4040])),
    "vector": must(models.HasVectorCondition(has_vector="text"), models.HasIdCondition(has_id=[5, 6])),
    "nested": must(
        models.NestedCondition(
            nested=models.Nested(
                key="parts",
                filter=must(is_value("name", "y"), models.FieldCondition(key="size", range=models.Range(gte=5))),
            )
        )
    ),
    "array": must(is_value("parts[].size", 6)),
    "should": models.Filter(
        should=[is_value("colour", "red"), models.FieldCondition(key="number", range=models.Range(lt=20))]
    ),
    "must not": models.Filter(must_not=[is_value("colour", "red"), is_value("good", True)]),
    "min should": models.Filter(
        min_should=models.MinShould(
            conditions=[
                is_value("colour", "red"),
                models.FieldCondition(key="number", range=models.Range(lt=60)),
                is_value("tags", "c"),
            ],
            min_count=2,
        )
    ),
    "filter in filter": models.Filter(
        must=[models.Filter(should=[is_value("tags", "c"), is_value("good", True)])], must_not=[is_value("number", 33)]
    ),
}


class Client(ServerTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.points = some_points(1)
        cls.remote = QdrantClient(url=cls.server.url, check_compatibility=False)
        cls.addClassCleanup(cls.remote.close)
        cls.local = QdrantClient(":memory:")
        cls.addClassCleanup(cls.local.close)
        for client in (cls.local, cls.remote):
            client.create_collection("things", vectors_config=VECTORS, sparse_vectors_config=SPARSE_VECTORS)
            client.upsert("things", cls.points)
        cls.names = itertools.count(1)

    def created(self, points=(), **config):
        """Creates a collection on the server and in memory and returns its name."""
        name = f"test-{next(self.names)}"
        config.setdefault("vectors_config", models.VectorParams(size=4, distance=models.Distance.DOT))
        for client in (self.local, self.remote):
            client.create_collection(name, **config)
            if points:
                client.upsert(name, list(points))
        return name

    def assert_hits(self, got, wanted):
        """Fails unless both have the same scores in the same order, and each point its own. Of points with equal scores, at
        the end of the list, it does not matter which are there."""
        self.assertEqual(len(got), len(wanted))
        scores = {hit.id: hit.score for hit in wanted}
        for hit, other in zip(got, wanted):
            for expected in (other.score, scores.get(hit.id, wanted[-1].score)):
                self.assertLessEqual(
                    abs(hit.score - expected), TOLERANCE * max(1, abs(expected)), (hit.id, hit.score, expected)
                )

    def both(self, **query):
        """Asks both and compares. Returns what the server said."""
        query = {"collection_name": "things", "limit": 20, **query}
        got, wanted = self.remote.query_points(**query).points, self.local.query_points(**query).points
        self.assertGreater(len(wanted), 0)
        self.assert_hits(got, wanted)
        return got

    def refused(self, status, pattern, function, *args, **kwargs):
        with self.assertRaises(UnexpectedResponse) as caught:
            function(*args, **kwargs)
        self.assertEqual(caught.exception.status_code, status)
        self.assertRegex(caught.exception.content.decode(), pattern)

    def everything(self, client, name):
        records, offset = client.scroll(name, limit=10_000, with_vectors=True)
        self.assertIsNone(offset)
        return records

    def assert_same_content(self, name, other=None):
        """Fails unless the collection has the same points on the server as in memory, up to the rounding of vectors."""
        got, wanted = self.everything(self.remote, other or name), self.everything(self.local, name)
        self.assertEqual([record.id for record in got], [record.id for record in wanted])
        self.assertEqual([record.payload for record in got], [record.payload for record in wanted])
        for a, b in zip(got, wanted):
            self.assert_same_vector(a.vector, b.vector)

    def assert_same_vector(self, a, b):
        if isinstance(b, dict):
            self.assertEqual(sorted(a), sorted(b))
            for key in b:
                self.assert_same_vector(a[key], b[key])
        elif isinstance(b, models.SparseVector):
            self.assertEqual(a.indices, b.indices)
            numpy.testing.assert_allclose(a.values, b.values, rtol=1e-6)
        else:
            numpy.testing.assert_allclose(a or [], b or [], atol=1e-6)

    # Collections

    def test_collections(self):
        name = f"test-{next(self.names)}"
        self.assertFalse(self.remote.collection_exists(name))
        self.assertTrue(
            self.remote.create_collection(
                name,
                vectors_config=models.VectorParams(size=4, distance=models.Distance.COSINE, on_disk=True),
                hnsw_config=models.HnswConfigDiff(m=8, ef_construct=64),
                optimizers_config=models.OptimizersConfigDiff(indexing_threshold=5000),
                quantization_config=models.ScalarQuantization(
                    scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.99)
                ),
                metadata={"owner": "ann"},
            )
        )
        self.assertTrue(self.remote.collection_exists(name))
        self.remote.upsert(name, [models.PointStruct(id=1, vector=[3, 4, 0, 0])])
        info = self.remote.get_collection(name)
        self.assertEqual(
            (info.config.params.vectors.size, info.config.params.vectors.distance), (4, models.Distance.COSINE)
        )
        self.assertEqual((info.config.hnsw_config.m, info.config.hnsw_config.ef_construct), (8, 64))
        self.assertEqual(info.config.optimizer_config.indexing_threshold, 5000)
        self.assertEqual(info.config.quantization_config.scalar.quantile, 0.99)
        self.assertEqual(info.config.metadata, {"owner": "ann"})
        self.assertEqual(info.points_count, 1)
        self.assertIn(name, [one.name for one in self.remote.get_collections().collections])

        self.assertTrue(
            self.remote.update_collection(
                name, optimizers_config=models.OptimizersConfigDiff(indexing_threshold=7000), metadata={"room": 3}
            )
        )
        config = self.remote.get_collection(name).config
        self.assertEqual(config.optimizer_config.indexing_threshold, 7000)
        self.assertEqual(config.metadata, {"owner": "ann", "room": 3})

        self.refused(
            409,
            "already exists",
            self.remote.create_collection,
            name,
            vectors_config=models.VectorParams(size=4, distance=models.Distance.DOT),
        )
        self.assertTrue(self.remote.delete_collection(name))
        self.assertFalse(self.remote.delete_collection(name))
        self.refused(404, "doesn't exist", self.remote.get_collection, name)
        self.refused(404, "doesn't exist", self.remote.query_points, name, query=[1, 2, 3, 4])

    def test_aliases(self):
        one, two = self.created(some_dense(2, 1)), self.created(some_dense(3, 2))

        def create(name, alias):
            return models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=name, alias_name=alias))

        self.assertTrue(self.remote.update_collection_aliases([create(one, "current")]))
        self.assertEqual(self.remote.count("current").count, 1)
        delete = models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name="current"))
        self.remote.update_collection_aliases([delete, create(two, "current")])
        self.assertEqual(self.remote.count("current").count, 2)
        self.assertEqual(
            [(a.alias_name, a.collection_name) for a in self.remote.get_aliases().aliases], [("current", two)]
        )
        rename = models.RenameAliasOperation(
            rename_alias=models.RenameAlias(old_alias_name="current", new_alias_name="live")
        )
        self.remote.update_collection_aliases([rename])
        self.assertEqual([a.alias_name for a in self.remote.get_collection_aliases(two).aliases], ["live"])
        self.remote.update_collection_aliases(
            [models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name="live"))]
        )
        self.assertEqual(self.remote.get_aliases().aliases, [])

    def test_version(self):
        self.assertRegex(self.remote.info().version, r"^1\.\d+\.\d+")
        before = threading.enumerate()
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            client = QdrantClient(url=self.server.url)
            self.addCleanup(client.close)
            for thread in threading.enumerate():  # the client compares the versions in one
                if thread not in before:
                    thread.join()
        self.assertEqual([str(warning.message) for warning in warned], [])

    # Points

    def test_what_was_written_is_there(self):
        self.assert_same_content("things")

    def test_ids(self):
        ids = [0, 2**53 + 1, 2**64 - 1, "0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d"]
        name = self.created([models.PointStruct(id=i, vector=[1, 2, 3, 4]) for i in ids])
        self.assertEqual([record.id for record in self.everything(self.remote, name)], ids)
        self.remote.upsert(
            name, [models.PointStruct(id=uuid.UUID(ids[3]), vector=[1, 2, 3, 4], payload={"again": True})]
        )
        self.remote.upsert(
            name, [models.PointStruct(id=ids[3].upper().replace("-", ""), vector=[1, 2, 3, 4], payload={"again": 1})]
        )
        self.assertEqual(self.remote.count(name).count, 4)
        self.assertEqual(self.remote.retrieve(name, ids=ids[2:])[1].payload, {"again": 1})
        self.remote.delete(name, points_selector=[2**64 - 1])
        self.assertEqual([record.id for record in self.everything(self.remote, name)], ids[:2] + ids[3:])
        self.refused(400, "no id", self.remote.upsert, name, [models.PointStruct(id="no id", vector=[1, 2, 3, 4])])

    def test_upsert_by_columns_and_numpy(self):
        name = self.created()
        vectors = numpy.random.default_rng(4).uniform(-1, 1, (500, 4)).astype(numpy.float32)
        for client in (self.local, self.remote):
            client.upsert(name, models.Batch(ids=[1, 2], vectors=vectors[:2].tolist(), payloads=[{"a": 1}, {}]))
            client.upload_collection(
                name, vectors=vectors[2:], ids=range(3, 501), payload=({"n": i} for i in range(498)), wait=True
            )
            client.upload_points(
                name,
                (models.PointStruct(id=i, vector=vectors[0].tolist()) for i in range(600, 610)),
                batch_size=3,
                wait=True,
            )
        got = self.everything(self.remote, name)
        self.assertEqual([record.id for record in got], [*range(1, 501), *range(600, 610)])
        numpy.testing.assert_array_equal(numpy.float32([record.vector for record in got[:500]]), vectors)
        self.assertEqual([record.payload for record in got[:4]], [{"a": 1}, {}, {"n": 0}, {"n": 1}])
        query = vectors[17]
        hits = self.remote.query_points(name, query=query, limit=10).points
        order = numpy.argsort(-(vectors @ query))[:10]
        self.assertEqual([hit.id for hit in hits], (order + 1).tolist())
        numpy.testing.assert_allclose([hit.score for hit in hits], (vectors @ query)[order], rtol=1e-5)

    def test_payload(self):
        name = self.created(some_dense(5, 6, {"a": 1, "b": {"c": 2, "d": [1, 2]}}))
        for client in (self.local, self.remote):
            client.set_payload(name, payload={"e": [1, {"f": None}]}, points=[1, 2])
            client.set_payload(name, payload={"g": 3}, points=[1], key="b")
            client.overwrite_payload(name, payload={"only": "this"}, points=[3])
            client.delete_payload(name, keys=["a", "b.c"], points=[4])
            client.clear_payload(name, points_selector=[5])
            client.set_payload(name, payload={"marked": True}, points=must(is_value("only", "this")))
            client.delete_payload(name, keys=["b"], points=must(is_value("b.g", 3)))
        self.assert_same_content(name)
        self.assertEqual(
            [record.payload for record in self.everything(self.remote, name)][2:5],
            [{"only": "this", "marked": True}, {"b": {"d": [1, 2]}}, {}],
        )

    def test_vectors(self):
        name = self.created(self.points[:6], vectors_config=VECTORS, sparse_vectors_config=SPARSE_VECTORS)
        for client in (self.local, self.remote):
            client.update_vectors(
                name,
                [
                    models.PointVectors(
                        id=1,
                        vector={"image": [1, 0, 0, 1], "words": models.SparseVector(indices=[9, 3], values=[1, 2])},
                    )
                ],
            )
            client.delete_vectors(name, vectors=["text", "words"], points=[2])
            client.delete_vectors(name, vectors=["lines"], points=must(is_value("number", 2)))
            client.upsert(name, [models.PointStruct(id=77, vector={"sound": [1, 2, 3, 4]})])
        got = self.everything(self.remote, name)
        self.assertEqual(got[0].vector["words"], models.SparseVector(indices=[3, 9], values=[2, 1]))
        self.assertEqual(sorted(got[1].vector), ["image", "lines", "sound", "taste", "terms"])
        self.assertEqual(sorted(got[2].vector), ["image", "sound", "taste", "terms", "text", "words"])
        self.assertEqual(got[6].vector, {"sound": [1, 2, 3, 4]})
        self.refused(
            404, "404", self.remote.update_vectors, name, [models.PointVectors(id=404, vector={"image": [1, 2, 3, 4]})]
        )

    def test_delete(self):
        name = self.created(self.points, vectors_config=VECTORS, sparse_vectors_config=SPARSE_VECTORS)
        for client in (self.local, self.remote):
            client.delete(name, points_selector=[1, 2, 4040])
            client.delete(name, points_selector=models.FilterSelector(filter=FILTERS["value"]))
        self.assert_same_content(name)
        self.assertEqual(
            self.remote.delete(name, points_selector=[3], wait=False).status, models.UpdateStatus.ACKNOWLEDGED
        )
        self.assertEqual(self.remote.retrieve(name, ids=[3]), [])

    def test_conditional_writes(self):
        name = self.created(some_dense(6, 4, {"version": 1}))
        new = [models.PointStruct(id=i, vector=[1, 1, 1, 1], payload={"version": 2}) for i in (1, 9)]
        self.remote.set_payload(name, payload={"version": 5}, points=[1])
        self.remote.upsert(
            name, new, update_filter=must(models.FieldCondition(key="version", range=models.Range(lt=2)))
        )
        self.assertEqual([r.payload["version"] for r in self.remote.retrieve(name, ids=[1, 9])], [5, 2])
        self.remote.upsert(
            name,
            [models.PointStruct(id=i, vector=[1, 1, 1, 1], payload={"version": 3}) for i in (2, 10)],
            update_mode=models.UpdateMode.INSERT_ONLY,
        )
        self.assertEqual([r.payload["version"] for r in self.remote.retrieve(name, ids=[2, 10])], [1, 3])
        self.remote.upsert(
            name,
            [models.PointStruct(id=i, vector=[1, 1, 1, 1], payload={"version": 4}) for i in (3, 11)],
            update_mode=models.UpdateMode.UPDATE_ONLY,
        )
        self.assertEqual([(r.id, r.payload["version"]) for r in self.remote.retrieve(name, ids=[3, 11])], [(3, 4)])

    def test_several_operations(self):
        name = self.created()
        operations = [
            models.UpsertOperation(upsert=models.PointsList(points=some_dense(7, 4, {"a": 1}))),
            models.SetPayloadOperation(set_payload=models.SetPayload(payload={"b": 2}, points=[1])),
            models.OverwritePayloadOperation(overwrite_payload=models.SetPayload(payload={"c": 3}, points=[2])),
            models.DeletePayloadOperation(delete_payload=models.DeletePayload(keys=["a"], points=[3])),
            models.UpdateVectorsOperation(
                update_vectors=models.UpdateVectors(points=[models.PointVectors(id=3, vector=[4, 3, 2, 1])])
            ),
            models.DeleteOperation(delete=models.PointIdsList(points=[4])),
            models.ClearPayloadOperation(clear_payload=models.FilterSelector(filter=must(is_value("c", 3)))),
        ]
        for client in (self.local, self.remote):
            results = client.batch_update_points(name, update_operations=operations)
        self.assertEqual([result.status for result in results], [models.UpdateStatus.COMPLETED] * 7)
        self.assert_same_content(name)

    def test_scroll(self):
        seen, offset = [], None
        for _ in range(20):
            page, offset = self.remote.scroll("things", limit=9, offset=offset, with_payload=["number"])
            seen += page
            if offset is None:
                break
        self.assertEqual([record.id for record in seen], list(range(1, COUNT + 1)))
        self.assertEqual(seen[8].payload, {"number": 8})
        self.remote.create_payload_index("things", "price", models.PayloadSchemaType.FLOAT)
        for order in (
            models.OrderBy(key="price"),
            models.OrderBy(key="price", direction=models.Direction.DESC, start_from=20),
        ):
            got, wanted = (client.scroll("things", limit=30, order_by=order)[0] for client in (self.remote, self.local))
            self.assertEqual(
                [record.payload["price"] for record in got], [record.payload["price"] for record in wanted]
            )

    def test_retrieve(self):
        for options in (
            {"with_payload": True},
            {"with_payload": False, "with_vectors": ["image", "words"]},
            {"with_payload": models.PayloadSelectorInclude(include=["colour", "parts[].size"])},
            {"with_payload": models.PayloadSelectorExclude(exclude=["colour", "place.lat"])},
            {"with_payload": ["place.lat"], "with_vectors": True},
        ):
            got, wanted = (
                client.retrieve("things", ids=[3, 1, 4040], **options) for client in (self.remote, self.local)
            )
            key = lambda record: record.id
            for a, b in zip(sorted(got, key=key), sorted(wanted, key=key), strict=True):
                self.assertEqual((a.id, a.payload), (b.id, b.payload), options)
                self.assert_same_vector(a.vector, b.vector)

    def test_filters(self):
        random = numpy.random.default_rng(8)
        name = self.created(self.points, vectors_config=VECTORS, sparse_vectors_config=SPARSE_VECTORS)
        schemas = {
            "colour": models.KeywordIndexParams(type="keyword", is_tenant=True),
            "number": models.IntegerIndexParams(type="integer", lookup=True, range=True),
            "parts[].size": "integer",
            "tags": models.PayloadSchemaType.KEYWORD,
            "made": models.DatetimeIndexParams(type="datetime"),
            "place": "geo",
            "price": "float",
            "good": "bool",
            "text": models.TextIndexParams(type="text", tokenizer=models.TokenizerType.WORD, lowercase=True),
        }
        for indexed in (False, True):
            if indexed:
                for field, schema in schemas.items():
                    self.assertEqual(
                        self.remote.create_payload_index(name, field, schema).status, models.UpdateStatus.COMPLETED
                    )
                self.assertEqual(sorted(self.remote.get_collection(name).payload_schema), sorted(schemas))
            for case, wanted in FILTERS.items():
                with self.subTest(case, indexed=indexed):
                    expected = [
                        record.id for record in self.local.scroll("things", scroll_filter=wanted, limit=1000)[0]
                    ]
                    self.assertTrue(0 < len(expected) < COUNT)
                    self.assertEqual(
                        [record.id for record in self.remote.scroll(name, scroll_filter=wanted, limit=1000)[0]],
                        expected,
                    )
                    self.assertEqual(self.remote.count(name, count_filter=wanted, exact=True).count, len(expected))
                    query = {"query": numbers(random, SIZE), "using": "text", "limit": COUNT, "query_filter": wanted}
                    self.assert_hits(
                        self.remote.query_points(name, **query).points,
                        self.local.query_points("things", **query).points,
                    )
        self.remote.delete_payload_index(name, "colour")
        self.assertNotIn("colour", self.remote.get_collection(name).payload_schema)

    # Queries

    def test_nearest(self):
        random = numpy.random.default_rng(9)
        for _ in range(3):
            for using, query in {
                "text": numbers(random, SIZE),
                "image": numbers(random, 4),
                "sound": numbers(random, 4),
                "taste": numbers(random, 4),
                "lines": numbers(random, 2, 4),
                "words": sparse(random),
                "terms": sparse(random),
            }.items():
                with self.subTest(using):
                    self.both(query=query, using=using)
                    self.both(query=query, using=using, limit=5, offset=3)
        for using in ("text", "image", "sound", "taste", "lines", "words", "terms"):
            with self.subTest(using, by="id"):
                self.assertNotIn(7, [hit.id for hit in self.both(query=7, using=using)])
        self.refused(400, "expected dim: 8, got 2", self.remote.query_points, "things", query=[1, 2], using="text")
        self.refused(404, "4040", self.remote.query_points, "things", query=4040, using="text")

    def test_threshold(self):
        query = numbers(numpy.random.default_rng(10), SIZE)
        scores = [hit.score for hit in self.both(query=query, using="text")]
        self.assertEqual(len(self.both(query=query, using="text", score_threshold=(scores[6] + scores[7]) / 2)), 7)
        self.both(query=query[:4], using="image", score_threshold=0.9)

    def test_recommend(self):
        query = models.RecommendQuery
        given = numbers(numpy.random.default_rng(11), SIZE)
        for strategy in (None, *models.RecommendStrategy):
            for positive, negative in (([3, 8], [40, 77]), ([3], []), ([given, 8], [77])):
                with self.subTest(strategy=strategy, positive=positive, negative=negative):
                    self.both(
                        query=query(
                            recommend=models.RecommendInput(positive=positive, negative=negative, strategy=strategy)
                        ),
                        using="text",
                    )
        only = models.RecommendInput(positive=[], negative=[3, 5], strategy=models.RecommendStrategy.BEST_SCORE)
        self.both(query=query(recommend=only), using="sound")
        self.both(query=query(recommend=models.RecommendInput(positive=[3, 8], negative=[9])), using="words")

    def test_discover(self):
        pairs = [models.ContextPair(positive=a, negative=b) for a, b in ((3, 8), (40, 77), (12, 90))]
        target = numbers(numpy.random.default_rng(12), SIZE)
        for using in ("text", "sound"):
            with self.subTest(using):
                given = target[: VECTORS[using].size]
                self.both(
                    query=models.DiscoverQuery(discover=models.DiscoverInput(target=given, context=pairs)),
                    using=using,
                    limit=60,
                )
                self.both(
                    query=models.DiscoverQuery(discover=models.DiscoverInput(target=5, context=pairs)),
                    using=using,
                    limit=60,
                )
                self.both(query=models.ContextQuery(context=pairs), using=using, limit=60)

    def test_mmr(self):
        query = numbers(numpy.random.default_rng(13), SIZE)
        for diversity in (None, 0.0, 0.3, 0.9):
            for candidates in (None, 40):
                asked = {
                    "query": models.NearestQuery(
                        nearest=query, mmr=models.Mmr(diversity=diversity, candidates_limit=candidates)
                    ),
                    "using": "text",
                    "limit": 10,
                }
                got, wanted = (client.query_points("things", **asked).points for client in (self.remote, self.local))
                self.assertEqual([hit.id for hit in got], [hit.id for hit in wanted], (diversity, candidates))

    def test_prefetch_and_fusion(self):
        random = numpy.random.default_rng(14)
        text, sound, words = numbers(random, SIZE), numbers(random, 4), sparse(random)
        prefetch = [
            models.Prefetch(query=text, using="text", limit=30, filter=FILTERS["must not"]),
            models.Prefetch(query=sound, using="sound", limit=20, score_threshold=-0.5),
            models.Prefetch(query=words, using="words", limit=25),
        ]
        self.both(prefetch=prefetch, query=text, using="text", limit=60)
        self.both(
            prefetch=models.Prefetch(prefetch=prefetch[:2], query=sound, using="sound", limit=12),
            query=[text[:4], sound],
            using="lines",
        )
        self.both(prefetch=prefetch, query=models.FusionQuery(fusion=models.Fusion.RRF), limit=80)
        self.both(prefetch=prefetch, query=models.FusionQuery(fusion=models.Fusion.DBSF), limit=80)
        self.both(prefetch=prefetch, query=models.RrfQuery(rrf=models.Rrf(k=60)), limit=80)
        self.both(prefetch=prefetch, query=models.RrfQuery(rrf=models.Rrf(k=5, weights=[1, 2, 0.5])), limit=80)
        self.both(
            prefetch=prefetch,
            query=models.FusionQuery(fusion=models.Fusion.RRF),
            limit=5,
            offset=5,
            query_filter=FILTERS["bool"],
        )

    def test_formula(self):
        random = numpy.random.default_rng(15)
        prefetch = models.Prefetch(query=numbers(random, SIZE), using="text", limit=60)
        decay = models.DecayParamsExpression(x="price", target=10, scale=5, midpoint=0.25)
        made = models.DecayParamsExpression(
            x=models.DatetimeKeyExpression(datetime_key="made"),
            target=models.DatetimeExpression(datetime="2024-02-01T00:00:00Z"),
            scale=30 * 86_400,
        )
        formulas = {
            "sum": models.SumExpression(
                sum=["$score", models.MultExpression(mult=[0.5, "price"]), is_value("colour", "red")]
            ),
            "abs": models.NegExpression(neg=models.AbsExpression(abs=models.SumExpression(sum=["price", -12]))),
            "div": models.DivExpression(
                div=models.DivParams(left="price", right=models.SumExpression(sum=[1, "number"]))
            ),
            "sqrt": models.SqrtExpression(sqrt="price"),
            "pow": models.PowExpression(pow=models.PowParams(base="$score", exponent=2)),
            "exp": models.ExpExpression(exp="$score"),
            "log10": models.Log10Expression(log10=models.SumExpression(sum=[1, "price"])),
            "ln": models.LnExpression(ln=models.SumExpression(sum=[1, "price"])),
            "linear": models.LinDecayExpression(lin_decay=decay),
            "exponential": models.ExpDecayExpression(exp_decay=decay),
            "gauss": models.GaussDecayExpression(gauss_decay=decay),
            "made": models.LinDecayExpression(lin_decay=made),
            "place": models.MultExpression(
                mult=[
                    -0.001,
                    models.GeoDistance(
                        geo_distance=models.GeoDistanceParams(origin=models.GeoPoint(lat=50.5, lon=9), to="place")
                    ),
                ]
            ),
        }
        for case, formula in formulas.items():
            with self.subTest(case):
                self.both(prefetch=prefetch, query=models.FormulaQuery(formula=formula), limit=60)
        self.both(
            prefetch=prefetch,
            query=models.FormulaQuery(formula=models.MultExpression(mult=["$score", "rating"]), defaults={"rating": 4}),
        )

    def test_order_and_sample(self):
        self.remote.create_payload_index("things", "made", models.PayloadSchemaType.DATETIME)
        newest = self.remote.query_points(
            "things", query=models.OrderByQuery(order_by=models.OrderBy(key="made", direction="desc")), limit=3
        ).points
        self.assertEqual([hit.id for hit in newest], [COUNT, COUNT - 1, COUNT - 2])
        drawn = self.remote.query_points(
            "things", query=models.SampleQuery(sample=models.Sample.RANDOM), limit=40, query_filter=FILTERS["value"]
        ).points
        self.assertEqual(sorted(hit.id for hit in drawn), [p.id for p in self.points if p.payload["colour"] == "red"])
        self.assertEqual([hit.id for hit in self.remote.query_points("things", limit=3).points], [1, 2, 3])

    def test_batch(self):
        random = numpy.random.default_rng(16)
        requests = [
            models.QueryRequest(query=numbers(random, SIZE), using="text", limit=5, with_payload=True),
            models.QueryRequest(query=sparse(random), using="words", limit=7, filter=FILTERS["bool"]),
            models.QueryRequest(
                query=models.RecommendQuery(recommend=models.RecommendInput(positive=[4])), using="sound", limit=3
            ),
        ]
        got, wanted = (client.query_batch_points("things", requests=requests) for client in (self.remote, self.local))
        for a, b in zip(got, wanted, strict=True):
            self.assert_hits(a.points, b.points)
        self.assertEqual([hit.payload for hit in got[0].points], [hit.payload for hit in wanted[0].points])

    def test_groups(self):
        lookup = self.created([models.PointStruct(id=i, vector=[1, 1, 1, 1], payload={"says": str(i)}) for i in (1, 2)])
        query = {"query": numbers(numpy.random.default_rng(17), SIZE), "using": "text"}
        for options in (
            {"group_by": "colour", "limit": 3, "group_size": 4},
            {"group_by": "tags"},
            {"group_by": "number", "limit": 7, "group_size": 1, "query_filter": FILTERS["bool"]},
            {
                "group_by": "parts[].size",
                "limit": 7,
                "group_size": 2,
                "with_lookup": models.WithLookup(collection=lookup, with_payload=True),
            },
        ):
            with self.subTest(options["group_by"]):
                got, wanted = (
                    client.query_points_groups("things", **query, **options).groups
                    for client in (self.remote, self.local)
                )
                self.assertEqual(
                    [(g.id, [hit.id for hit in g.hits]) for g in got],
                    [(g.id, [hit.id for hit in g.hits]) for g in wanted],
                )
                for group, other in zip(got, wanted):
                    self.assert_hits(group.hits, other.hits)
                    if "with_lookup" in options:
                        self.assertEqual(
                            group.lookup and group.lookup.payload,
                            {"says": str(group.id)} if group.id in (1, 2) else None,
                        )

    def test_facets(self):
        for field, schema in (
            ("tags", "keyword"),
            ("colour", "keyword"),
            ("parts[].size", "integer"),
            ("good", "bool"),
        ):
            self.remote.create_payload_index("things", field, schema)
            for facet_filter in (None, FILTERS["range"]):
                got, wanted = (
                    client.facet("things", key=field, facet_filter=facet_filter, exact=True).hits
                    for client in (self.remote, self.local)
                )
                self.assertEqual({hit.value: hit.count for hit in got}, {hit.value: hit.count for hit in wanted}, field)
                self.assertEqual([hit.count for hit in got], sorted((hit.count for hit in got), reverse=True))

    def test_matrix(self):
        few = must(models.FieldCondition(key="number", range=models.Range(lt=12)))
        asked = {"sample": 12, "limit": 3, "using": "text", "query_filter": few}
        got, wanted = (client.search_matrix_pairs("things", **asked).pairs for client in (self.remote, self.local))
        by_pair = lambda pairs: {(pair.a, pair.b): pair.score for pair in pairs}
        self.assertEqual(sorted(by_pair(got)), sorted(by_pair(wanted)))
        for pair, score in by_pair(got).items():
            self.assertAlmostEqual(score, by_pair(wanted)[pair], places=5)
        offsets = self.remote.search_matrix_offsets("things", **asked)
        pairs = {
            (offsets.ids[row], offsets.ids[column]): score
            for row, column, score in zip(offsets.offsets_row, offsets.offsets_col, offsets.scores)
        }
        self.assertEqual(pairs, by_pair(got))

    def test_lookup_from(self):
        vector = numbers(numpy.random.default_rng(18), SIZE)
        name = self.created(
            [models.PointStruct(id=5, vector={"other": vector})],
            vectors_config={"other": models.VectorParams(size=SIZE, distance=models.Distance.DOT)},
        )
        self.both(query=5, using="text", lookup_from=models.LookupLocation(collection=name, vector="other"))

    def test_bm25(self):
        """Texts that the server makes vectors of. The words are their own stems."""
        texts = ["pot lamp pot", "lamp desk milk bread cat", "cat cat cat wolf", "wolf"]
        name = f"test-{next(self.names)}"
        self.remote.create_collection(name, sparse_vectors_config=SPARSE_VECTORS)

        def document(text, **options):
            return models.Document(text=text, model="Qdrant/bm25", options=options and models.Bm25Config(**options))

        def weight(text, word, k=1.2, b=0.75, avg_len=256):
            tf = text.split().count(word)
            return tf * (k + 1) / (tf + k * (1 - b + b * len(text.split()) / avg_len))

        def scores(query, **options):
            def idf(word):
                df = sum(word in text.split() for text in texts)
                return numpy.log((len(texts) - df + 0.5) / (df + 0.5) + 1)

            sums = {
                i: sum(idf(word) * weight(text, word, **options) for word in query.split())
                for i, text in enumerate(texts)
            }
            return {i: score for i, score in sums.items() if score > 0}

        for options in (
            {},
            {"k": 2.0, "b": 0.5, "avg_len": 3.0},
            {"language": "german"},
            {"stemmer": models.DisabledStemmerParams(type="none"), "stopwords": models.StopwordsSet()},
        ):
            with self.subTest(options):
                self.remote.upsert(
                    name,
                    [
                        models.PointStruct(id=i, vector={"terms": document(text, **options)})
                        for i, text in enumerate(texts)
                    ],
                )
                weights = {key: value for key, value in options.items() if key in ("k", "b", "avg_len")}
                for query in ("lamp", "cat desk wolf", "pot wolf"):
                    hits = self.remote.query_points(name, query=document(query, **options), using="terms").points
                    expected = scores(query, **weights)
                    self.assertEqual({hit.id for hit in hits}, set(expected))
                    self.assertEqual([hit.score for hit in hits], sorted((hit.score for hit in hits), reverse=True))
                    for hit in hits:
                        self.assertAlmostEqual(hit.score, expected[hit.id], places=5)

        self.remote.update_vectors(
            name, [models.PointVectors(id=3, vector={"terms": document("The lamps of the wolves", language="english")})]
        )
        found = self.remote.query_points(name, query=document("lamp"), using="terms", limit=10).points
        self.assertIn(3, [hit.id for hit in found])  # whose words were stemmed
        client = QdrantClient(
            url=self.server.url, check_compatibility=False, cloud_inference=True
        )  # which leaves all models to the server
        self.addCleanup(client.close)
        self.refused(
            400,
            "no-model",
            client.query_points,
            name,
            query=models.Document(text="x", model="some/no-model"),
            using="terms",
        )

    # Moving data

    def test_migrate(self):
        """From the client's own implementation to the server, and from the server to another collection of memory."""
        source = QdrantClient(":memory:")
        self.addCleanup(source.close)
        source.create_collection("moved", vectors_config=VECTORS, sparse_vectors_config=SPARSE_VECTORS)
        source.upsert("moved", self.points)
        source.migrate(self.remote, collection_names=["moved"])
        self.assert_same_content("things", "moved")
        back = QdrantClient(":memory:")
        self.addCleanup(back.close)
        self.remote.migrate(back, collection_names=["moved"])
        self.assertEqual([r.payload for r in self.everything(back, "moved")], [p.payload for p in self.points])
        with self.assertRaises(ValueError):
            source.migrate(self.remote, collection_names=["moved"])

    def test_snapshots(self):
        name = self.created(some_dense(19, 30))
        made = self.remote.create_snapshot(name)
        self.assertEqual([one.name for one in self.remote.list_snapshots(name)], [made.name])
        with urllib.request.urlopen(f"{self.server.url}/collections/{name}/snapshots/{made.name}") as response:
            content = response.read()
        self.assertEqual((len(content), hashlib.sha256(content).hexdigest()), (made.size, made.checksum))
        self.remote.delete(name, points_selector=[1, 2, 3])
        location = "file://" + os.path.join(self.server.directory, "data", "snapshots", name, made.name)
        self.assertTrue(self.remote.recover_snapshot(name, location=location, checksum=made.checksum))
        self.assert_same_content(name)
        self.assertTrue(self.remote.delete_snapshot(name, made.name))
        self.assertEqual(self.remote.list_snapshots(name), [])
        whole = self.remote.create_full_snapshot()
        self.assertEqual([one.name for one in self.remote.list_full_snapshots()], [whole.name])
        self.assertTrue(self.remote.delete_full_snapshot(whole.name))

    def test_async(self):
        query = numbers(numpy.random.default_rng(20), SIZE)

        async def ask():
            client = AsyncQdrantClient(url=self.server.url, check_compatibility=False)
            try:
                answers = await asyncio.gather(
                    *(client.query_points("things", query=query, using="text", limit=k) for k in range(1, 20))
                )
                records, _ = await client.scroll("things", limit=5)
                return answers, records, await client.count("things")
            finally:
                await client.close()

        answers, records, count = asyncio.run(ask())
        wanted = self.local.query_points("things", query=query, using="text", limit=20).points
        for k, answer in enumerate(answers, 1):
            self.assert_hits(answer.points, wanted[:k])
        self.assertEqual(([record.id for record in records], count.count), ([1, 2, 3, 4, 5], COUNT))


def some_dense(seed, count, payload=None):
    random = numpy.random.default_rng(seed)
    return [models.PointStruct(id=i + 1, vector=numbers(random, 4), payload=payload) for i in range(count)]


class Keys(ServerTest):
    OPTIONS = ("--api-key", "all-of-it", "--read-only-api-key", "only-reading")

    def open(self, **options):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a key on a connection without TLS, which is this test's own
            client = QdrantClient(url=self.server.url, check_compatibility=False, **options)
        self.addCleanup(client.close)
        return client

    def test_keys(self):
        writer = self.open(api_key="all-of-it")
        writer.create_collection("kept", vectors_config=models.VectorParams(size=4, distance=models.Distance.DOT))
        writer.upsert("kept", some_dense(1, 5))
        for reader in (self.open(api_key="only-reading"), self.open(auth_token_provider=lambda: "only-reading")):
            self.assertEqual(reader.count("kept").count, 5)
            with self.assertRaises(UnexpectedResponse) as caught:
                reader.delete("kept", points_selector=[1])
            self.assertEqual(caught.exception.status_code, 403)
        for stranger in (self.open(), self.open(api_key="something")):
            with self.assertRaises(UnexpectedResponse) as caught:
                stranger.count("kept")
            self.assertEqual(caught.exception.status_code, 401)
        self.assertEqual(writer.count("kept").count, 5)


if __name__ == "__main__":
    unittest.main()
