"""Image vectors of other programs: every layout, and what is refused with its file and row."""

import zipfile
from contextlib import nullcontext

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet
from tiny.retrieval import MADE, VIT, draw

from common.images.folders import list_images
from common.vectors.extractor import ExtractorOptions
from common.vectors.feature_files import read_features
from common.vectors.records import Stamp
from common.vectors.vector_store import VectorStore
from retrieval import build_index, search
from retrieval.encoders import open_extractor

PATHS = np.array([f"图/{number}.png" for number in range(6)])
VECTORS = np.random.default_rng(0).standard_normal((6, 4))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, ">f4"])
@pytest.mark.parametrize("order", "CF")
def test_number_formats(tmp_path, dtype, order, capsys):
    array = (10 * VECTORS).astype(dtype, order=order)
    np.savez_compressed(tmp_path / "a.npz", features=array, image_paths=PATHS)
    np.testing.assert_array_equal(read_features(tmp_path / "a.npz").all(), array.astype(np.float32))
    assert ("read as float32" in capsys.readouterr().err) == (np.dtype(dtype) not in (np.float16, np.float32))


def test_npy_with_paths_beside_it(tmp_path):
    np.save(tmp_path / "a.npy", VECTORS)
    with pytest.raises(ValueError, match="a.npy: which images its 6 rows are is not known; list them in a.txt"):
        read_features(tmp_path / "a.npy")
    (tmp_path / "a.txt").write_text("\n".join(PATHS[:5]))
    with pytest.raises(ValueError, match="a.txt: 5 for 6 vectors"):
        read_features(tmp_path / "a.npy")
    (tmp_path / "a.txt").write_text("\n".join(PATHS))
    assert read_features(tmp_path / "a.npy").paths == read_features(tmp_path).paths == PATHS.tolist()


def clip_retrieval(folder, vectors=VECTORS, paths=PATHS):
    """In parts of one row, numbered so that the order of the names is another than that of the numbers."""
    for name in ("img_emb", "metadata"):
        (folder / name).mkdir(parents=True)
    for number, (vector, path) in enumerate(zip(vectors, paths), 8):
        np.save(folder / "img_emb" / f"img_emb_{number}.npy", vector[None].astype(np.float16))
        table = pyarrow.table({"image_path": [str(path)], "caption": [""]})
        parquet.write_table(table, folder / "metadata" / f"metadata_{number}.parquet")
    return folder


def test_clip_retrieval(tmp_path):
    features = read_features(clip_retrieval(tmp_path / "a"))
    assert features.paths == PATHS.tolist() == read_features(tmp_path / "a" / "img_emb").paths
    np.save(tmp_path / "a" / "img_emb" / "img_emb_99.npy", np.empty((0, 4), np.float16))  # of a worker without images
    parquet.write_table(pyarrow.table({"image_path": []}), tmp_path / "a" / "metadata" / "metadata_99.parquet")
    assert read_features(tmp_path / "a").paths == PATHS.tolist()
    np.testing.assert_array_equal(features.all(), VECTORS.astype(np.float16).astype(np.float32))
    (tmp_path / "a" / "img_emb" / "._img_emb_9.npy").write_bytes(b"of a Mac's archive")
    assert read_features(tmp_path / "a").paths == PATHS.tolist()
    (tmp_path / "a" / "metadata" / "metadata_9.parquet").rename(tmp_path / "a" / "metadata" / "metadata_7.parquet")
    with pytest.raises(ValueError, match="img_emb_8.npy has no table of its number; the next is metadata_7.parquet"):
        read_features(tmp_path / "a")
    (tmp_path / "a" / "metadata" / "metadata_8.parquet").unlink()
    with pytest.raises(ValueError, match="7 .npy files, but 6 tables"):
        read_features(tmp_path / "a")


@pytest.mark.parametrize("value, fault", [(np.nan, "NaN or infinite"), (-np.inf, "NaN or infinite"), (None, "is zero")])
def test_rows_that_cannot_be_compared(tmp_path, value, fault):
    vectors = VECTORS.copy()
    if value is None:
        vectors[4] = 0
    else:
        vectors[4, 2] = value
    np.savez(tmp_path / "a.npz", features=vectors, image_paths=PATHS)
    with pytest.raises(ValueError, match=rf"a.npz: row 4 \(图/4.png\) .*{fault}"):
        read_features(tmp_path / "a.npz").all()
    clip_retrieval(tmp_path / "b", vectors)
    with pytest.raises(ValueError, match=rf"img_emb_12.npy: row 0 \(图/4.png\) .*{fault}"):
        read_features(tmp_path / "b").all()


@pytest.mark.parametrize(
    "features, paths, message",
    [
        (VECTORS.astype(object), PATHS, "Object arrays cannot be loaded"),
        (VECTORS, PATHS.astype(object), "Object arrays cannot be loaded"),
        (VECTORS.astype(complex), PATHS, "complex128 of shape"),
        (VECTORS > 0, PATHS, "bool of shape"),
        (VECTORS[0], PATHS, r"float64 of shape \(4,\)"),
        (VECTORS, PATHS[:3], "image_paths: 3 for 6"),
        (VECTORS, np.arange(6), "image_paths: expected a text for each row"),
    ],
)
def test_other_arrays_are_refused(tmp_path, features, paths, message):
    np.savez(tmp_path / "a.npz", features=features, image_paths=paths)
    with pytest.raises(ValueError, match=f"a.npz.*{message}"):
        read_features(tmp_path / "a.npz")


def test_archives_that_unpack_to_much_more_than_they_hold(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        np.save(tmp_path / "zeros.npy", np.zeros((4_000_000, 8), np.float32))
        archive.write(tmp_path / "zeros.npy", "features.npy")
    with pytest.raises(ValueError, match="a.npz: unpacks to 128,000"):
        read_features(tmp_path / "a.npz")


def test_an_index_of_vectors_made_before(tmp_path):
    draw(tmp_path / "images", range(8))
    paths = list_images(tmp_path / "images")
    extractor = open_extractor(VIT, ExtractorOptions(pooling="mean", image_size=32, device="cpu"))
    vectors, names = 3 * extractor.encode(paths), [path.relative_to(tmp_path) for path in paths]
    clip_retrieval(tmp_path / "clip", vectors, names)
    made = ["--vit_checkpoint", VIT, "--image_size", "32", "--pooling", "mean", "--device", "cpu"]
    arguments = ["--features", str(tmp_path / "clip"), "--image_dir", str(tmp_path), *made]
    assert build_index.main(["--index_dir", str(tmp_path / "index"), *arguments])["added"] == 8
    (row,) = search.main(
        ["--index_dir", str(tmp_path / "index"), "--image", str(paths[3]), "--device", "cpu", "--json"]
    )
    assert row["found"][0]["image"] == str(paths[3]) and row["found"][0]["similarity"] > 0.99
    assert build_index.main(["--index_dir", str(tmp_path / "index"), "--device", "cpu"]) == {
        "added": 0, "removed": 0, "images": 8,
    }  # fmt: skip

    for more, message in (
        (["--pooling", "cls"], "not vectors of .* have cosines down to"),
        (["--image_dir", str(tmp_path / "images" / "class_0")], "is not below"),
        (["--kind", "IVF9,Flat"], "at least 9 vectors, and there are 8"),
    ):
        if more[0] == "--image_dir":
            names = [path.resolve() for path in paths]
            clip_retrieval(tmp_path / "absolute", vectors, names)
            more = [*more, "--features", str(tmp_path / "absolute")]
        with pytest.raises(ValueError, match=message):
            build_index.main(["--index_dir", str(tmp_path / "other"), *arguments, *more])
        assert not (tmp_path / "other").exists()
    assert VectorStore(tmp_path / "index").vectors().shape == (8, 64)


@pytest.mark.parametrize("name", ["../../secret.png", "/etc/passwd", "a/../../b.png", "..", "a..b/..c.png"])
def test_files_named_by_a_foreign_index_stay_below_its_image_folder(tmp_path, name):
    store = VectorStore.create(tmp_path / "index", tmp_path / "images", MADE, 4)
    store.engine.add([Stamp(name, 1, 1), Stamp("a.png", 1, 1)], VECTORS[:2])
    refusal = pytest.raises(ValueError, match="names .* outside its image folder")
    for use in (lambda: store.paths, store.vectors, lambda: store.search(VECTORS[:1], 3), lambda: list(store.blocks())):
        with nullcontext() if name == "a..b/..c.png" else refusal:
            use()
