"""FAISS beside PyTorch: each brings an OpenMP runtime of its own."""

import os
import sys

import torch


def load_faiss():
    """The module, imported when it is first needed and after torch, with as many threads as torch has.

    Linux keeps the two runtimes apart. On a Mac the second one stops the process, or crashes as soon as it uses more
    than one thread.
    """
    if sys.platform == "darwin":
        os.environ.setdefault("KMP_DUPLICATE_LIB_OK", "TRUE")
    import faiss

    faiss.omp_set_num_threads(1 if sys.platform == "darwin" else torch.get_num_threads())
    return faiss
