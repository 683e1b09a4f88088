"""Vector store in a collection of Milvus: a file of milvus-lite on this machine, or a server, by the same code.

images.db[#collection]    http://host:19530[#collection], https://...    the token, if one is needed, in MILVUS_TOKEN

The primary key is a digest of the image's name, so an image that is added again takes its own place. A file belongs to
one process at a time; a server takes many.
"""

import hashlib
import json
import logging
import os
import re
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from common.text.files import parse_json
from common.text.schema import check_type
from common.vectors.engine import Conditions, Matches
from common.vectors.records import MILVUS_PLACE, Stamp, StoreMetadata, shown_place

COLLECTION = "images"  # where the place names none
METADATA = "vision_wrapper"  # property of a collection: StoreMetadata as JSON
KINDS: dict[str, tuple[str, dict[str, int]]] = {  # index types of Milvus and their parameters
    "flat": ("FLAT", {}),
    "exact": ("FLAT", {}),
    "hnsw": ("HNSW", {"M": 32, "efConstruction": 200}),
    "ivf": ("IVF_FLAT", {"nlist": 1024}),
    "auto": ("AUTOINDEX", {}),
}
MAX_RESULTS = 16_384  # of a query, of queries at once, of rows listed at once: Milvus's limits
MAX_NAME = 65_535  # bytes
MESSAGE_BYTES = 16 * 2**20  # a server takes 64 MB
SECONDS = 300  # for an answer
ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r"})


class MilvusCollection:
    """Engine by pymilvus. metadata: of a new collection."""

    def __init__(self, place: str, metadata: StoreMetadata | None = None):
        match = MILVUS_PLACE.fullmatch(place)
        assert match, place
        self.uri, self.collection = match["uri"], match["collection"] or COLLECTION
        self.is_shared = "://" in self.uri  # by several processes
        self.parts = None if self.is_shared else Path(f"{self.uri}.parts")
        self.shown = shown_place(f"{self.uri}#{self.collection}")
        if not re.fullmatch(r"[A-Za-z_]\w{0,254}", self.collection, re.ASCII):
            raise ValueError(f"{self.shown}: a collection is named by letters, digits and _")
        if not self.is_shared and not metadata and not Path(self.uri).exists():
            raise FileNotFoundError(f"{self.shown}: no such index; make one with build_index.py --image_dir DIR")
        self.client = self._connect()
        if metadata:
            self._create(metadata)
        elif not self._call("has_collection"):
            raise FileNotFoundError(f"{self.shown}: no such collection; make one with build_index.py --image_dir DIR")
        properties = self._call("describe_collection").get("properties", {})
        if METADATA not in properties:
            raise ValueError(
                f"{self.shown}: a collection that build_index.py has not made; name another: {self.uri}#NAME"
            )
        self.metadata: StoreMetadata = check_type(parse_json(properties[METADATA]), StoreMetadata, self.shown)
        check_milvus_kind(self.metadata["kind"])
        self._load()

    def _connect(self) -> Any:
        os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # loader processes, which are forked, do not use it
        try:
            import pymilvus

            if not self.is_shared:
                import milvus_lite  # noqa: F401
        except ImportError as error:
            raise ValueError(f"{self.shown}: needs {error.name}; pip install -r requirements-milvus.txt") from None
        for name in ("pymilvus", "milvus_lite", "grpc"):  # which write whole stacks of what they raise too
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self.errors = pymilvus.MilvusException
        if not self.is_shared:
            Path(self.uri).parent.mkdir(parents=True, exist_ok=True)
        try:
            return pymilvus.MilvusClient(self.uri, token=os.environ.get("MILVUS_TOKEN", ""), timeout=SECONDS)
        except self.errors as error:
            hint = "is the server there?" if self.is_shared else "is it open in another process?"
            raise ValueError(f"{self.shown}: cannot be opened ({_reason(error)}); {hint}") from None

    def _call(self, method: str, **arguments: Any) -> Any:
        """A method of the client; what Milvus refuses is a ValueError of one line."""
        with self._errors():
            return getattr(self.client, method)(collection_name=self.collection, timeout=SECONDS, **arguments)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except self.errors as error:
            raise ValueError(f"{self.shown}: {_reason(error)}") from None

    def _create(self, metadata: StoreMetadata) -> None:
        from pymilvus import DataType

        if self._call("has_collection"):
            if METADATA not in self._call("describe_collection").get("properties", {}) or len(self):
                raise ValueError(f"{self.shown}: there is such a collection; name another after #")
            self._call("drop_collection")  # of a run that ended before its first vector
        schema = self.client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=metadata["width"])
        for name in ("name", "label"):
            schema.add_field(name, DataType.VARCHAR, max_length=MAX_NAME)
        for name in ("size", "changed"):
            schema.add_field(name, DataType.INT64)
        self._call(
            "create_collection",
            schema=schema,
            index_params=self._index_params(metadata["kind"]),
            properties={METADATA: json.dumps(metadata)},
            consistency_level="Strong",  # a search sees what was written before it
        )

    def _index_params(self, kind: str) -> Any:
        index_type, params = KINDS[kind]
        index_params = self.client.prepare_index_params()
        index_params.add_index("vector", index_type=index_type, metric_type="COSINE", params=params)
        return index_params

    def _load(self) -> None:
        """Into the server's memory, with an index of the wanted kind, which is made where there is another or none."""
        wanted = KINDS[self.metadata["kind"]][0]
        found = self._call("describe_index", index_name="vector") if self._call("list_indexes") else None
        if not found or found["index_type"] != wanted:
            self._call("release_collection")
            if found:
                self._call("drop_index", index_name="vector")
            self._call("create_index", index_params=self._index_params(self.metadata["kind"]))
        self._call("load_collection")

    def change_kind(self, kind: str) -> None:
        self.metadata["kind"] = kind
        self._call("alter_collection_properties", properties={METADATA: json.dumps(self.metadata)})

    def finish(self) -> None:
        self._call("flush")
        self._load()

    def __len__(self) -> int:
        return int(self._call("query", filter="", output_fields=["count(*)"])[0]["count(*)"])

    def stamps(self) -> list[Stamp]:
        stamps = [
            Stamp(row["name"], row["size"], row["changed"]).check(self.shown)
            for page in self._pages(MAX_RESULTS // 2, ["name", "size", "changed"])
            for row in page
        ]
        if len(stamps) != (count := len(self)):  # servers are known to list fewer than they count
            print(f"{self.shown}: lists {len(stamps)} of {count} images; others are encoded again", file=sys.stderr)
        return stamps

    def rows(self) -> Iterator[tuple[list[Stamp], np.ndarray]]:
        for page in self._pages(self._rows_of_a_message(), ["name", "size", "changed", "vector"]):
            stamps = [Stamp(row["name"], row["size"], row["changed"]).check(self.shown) for row in page]
            yield stamps, np.array([row["vector"] for row in page], np.float32)

    def _pages(self, size: int, fields: list[str]) -> Iterator[list[dict[str, Any]]]:
        pages = self._call("query_iterator", batch_size=size, output_fields=fields)
        with self._errors():
            while page := pages.next():
                yield page
            pages.close()

    def _rows_of_a_message(self) -> int:
        return max(1, min(MAX_RESULTS // 2, MESSAGE_BYTES // (4 * self.metadata["width"] + 1024)))

    def add(self, stamps: Sequence[Stamp], vectors: np.ndarray) -> None:
        rows = [
            {"id": _key(stamp.name), "vector": vector, "label": stamp.label, **stamp._asdict()}
            for stamp, vector in zip(stamps, np.asarray(vectors, np.float32))
        ]
        for start in range(0, len(rows), size := self._rows_of_a_message()):
            self._call("upsert", data=rows[start : start + size])

    def remove(self, names: Collection[str]) -> None:
        keys = [_key(name) for name in names]
        for start in range(0, len(keys), MAX_RESULTS):
            self._call("delete", ids=keys[start : start + MAX_RESULTS])

    def search(self, queries: np.ndarray, k: int, conditions: Conditions, search_params: str) -> list[Matches]:
        if k > MAX_RESULTS:
            raise ValueError(f"--top_k {k}: Milvus returns at most {MAX_RESULTS}")
        clauses = [clause.format(*map(_literal, values)) for clause, values in conditions]
        params, size = self._search_params(search_params, k), max(1, min(MAX_RESULTS, 100_000 // k))
        hits = [
            matches
            for start in range(0, len(queries), size)
            for matches in self._call(
                "search",
                data=list(queries[start : start + size]),
                limit=k,
                filter=" and ".join(clauses),
                output_fields=["name"],
                search_params={"params": params},
                consistency_level="Strong",
            )
        ]
        return [
            [(hit["distance"], Stamp(hit["entity"]["name"], 0, 0).check(self.shown).name) for hit in matches]
            for matches in hits
        ]

    def _search_params(self, text: str, k: int) -> dict[str, int]:
        """nprobe=64, efSearch=256 -> as Milvus calls them."""
        kind = self.metadata["kind"]
        if text and KINDS[kind][0] == "FLAT":
            raise ValueError(f"--search_params {text}: {self.shown} is searched exactly; nothing to set")
        params = {"hnsw": {"ef": max(128, k)}, "ivf": {"nprobe": 64}}.get(kind, {})
        for name, _, value in (part.strip().partition("=") for part in text.split(",") if text):
            if not value.isdecimal() or not int(value):
                raise ValueError(f"--search_params {text}: expected NAME=NUMBER, numbers from 1")
            params["ef" if name == "efSearch" else name] = int(value)
        return params


def check_milvus_kind(kind: str) -> None:
    if kind not in KINDS:
        raise ValueError(f"index '{kind}': Milvus has it under no name of ours; expected one of {', '.join(KINDS)}")


def _key(name: str) -> int:
    """Digest of 63 bits: of a hundred million names, two are the same with a chance of 1 in 2,000."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) >> 1


def _literal(value: str | int) -> str:
    """In an expression of Milvus."""
    return str(value) if isinstance(value, int) else f'"{value.translate(ESCAPES)}"'


def _reason(error: Any) -> str:
    return " ".join(str(error.message).split())[:300]
